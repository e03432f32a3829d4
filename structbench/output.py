"""Where a command writes its result: a file, which is there whole or not at all, or standard output."""

from __future__ import annotations

import glob
import math
import os
import re
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, BinaryIO

from structbench.errors import BadInput, RunFailed
from structbench.formatting import printable, printable_lines

_PRIVATE = 0o600
_ABANDONED_S = 60.0
"""How old a file of a dead process is, at least: on a shared disk the process may be another machine's."""


@contextmanager
def writable_path(path: Path, databases: Sequence[Path]) -> Iterator[Path]:
    """Yield a path to write to; at the end its content is at ``path``, or on standard output for ``-``."""
    check_output(path, "-o", databases)
    if str(path) == "-":
        with _standard_output() as pipe:
            yield pipe
        return
    try:
        with replaced(path) as made:
            yield made
    except OSError as error:
        raise BadInput(f"cannot write {path} ({error.strerror}): give another -o") from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the path of a file that takes the place of ``path`` once it is written; of a device, the device's own.

    A new file is its owner's only, since it may hold prompts and answers; one that was there keeps its mode.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    sweep(path)
    made = path.with_name(f".{path.name}.{os.getpid()}-part")
    try:
        yield made
        made.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else _PRIVATE)
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


def private(path: str, flags: int) -> int:
    """Open a file that, if it is new, is its owner's only: the ``opener`` of ``open``."""
    return os.open(path, flags, _PRIVATE)


def sweep(path: Path) -> None:
    """Remove what processes that died while they made such a file, or DuckDB within them, left beside it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        pid = re.match(r"\d+(?=-)", left.name.removeprefix(f".{path.name}."))
        with suppress(OSError):
            found = left.lstat()
            if pid and found.st_uid == os.geteuid() and time.time() - found.st_mtime > _ABANDONED_S:
                try:
                    os.kill(int(pid[0]), 0)
                except ProcessLookupError:
                    if stat.S_ISDIR(found.st_mode):
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink()


def check_output(path: Path, option: str, databases: Sequence[Path]) -> None:
    """Raise BadInput if the file cannot be written, or is one of the databases; create and change nothing."""
    refuse_unnamable(path, option)
    if path.is_dir():
        raise BadInput(f"{option} {path} is a folder: give a file in it")
    if not path.parent.is_dir():
        raise BadInput(f"{option} {path}: the folder {path.parent} does not exist: create it or give another path")
    if not os.access(path.parent, os.W_OK | os.X_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise BadInput(f"{option} {path} is not writable: change its permissions or give another path")
    if any(_is_same(path, database) for database in databases):
        raise BadInput(f"{option} {path} is the database itself: give another path")


def refuse_unnamable(path: Path, option: str) -> None:
    """Raise BadInput if the path is not UTF-8, which is all that DuckDB takes."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise BadInput(f"{option} {path}: the name, or that of a folder above it, is not UTF-8: give another") from None


def _is_same(path: Path, other: Path) -> bool:
    """Return whether the two paths are one file, or will be once created."""
    if path.exists() and other.exists():
        return path.samefile(other)
    return os.path.realpath(path) == os.path.realpath(other)


def write_output(path: Path, text: str) -> None:
    """Write the text to the file after the work is done: raise RunFailed, not BadInput, if that fails."""
    try:
        with replaced(path) as made, open(made, "w", encoding="utf-8", errors="replace", opener=private) as file:
            file.write(text)
    except OSError as error:
        raise RunFailed(f"cannot write {path} ({error.strerror}): give another path") from error


def deliver(text: str, path: Path | None) -> None:
    """Write the text to the file, or to standard output if ``path`` is None."""
    if path is None:
        sys.stdout.write(on_terminal(text))
    else:
        write_output(path, text)


def on_terminal(text: str) -> str:
    """Return what a result is on standard output: as it is for a file or a pipe, harmless for a terminal."""
    return printable_lines(text) if sys.stdout.isatty() else text


def say(text: str, file: IO[str] | None = None) -> None:
    """Print lines for people, into which text from outside may be woven."""
    print(printable_lines(text), file=file, flush=True)


def complain(text: str) -> None:
    """Print one line on stderr, prefixed with the program's name."""
    print(f"structbench: {printable(text)}", file=sys.stderr, flush=True)


_FORMULA = re.compile("'*[=+\\-@\\t\\r\\n\uff1d\uff0b\uff0d\uff20]")
"""With the wide forms of the signs, which a spreadsheet may take for them."""
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")


def spreadsheet_text(value: Any) -> Any:
    """Return text that a spreadsheet would take for a formula with a ' in front, which comes off to read it back.

    Numbers stay, text that is one too.
    """
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def spreadsheet_sql(column: str) -> str:
    """Return the same for a column of text, as an item of SELECT."""
    start, number = _FORMULA.pattern.replace("'", "\\x27"), _NUMBER.pattern
    is_formula = f"regexp_matches({column}, '^{start}') AND NOT regexp_full_match({column}, '{number}')"
    return f"CASE WHEN {is_formula} THEN chr(39) || {column} ELSE {column} END AS {column}"


def json_value(value: Any) -> Any:
    """Return the value as JSON can hold it; the store's instants are UTC without a zone."""
    match value:
        case float() | Decimal():
            return float(value) if math.isfinite(value) else None
        case datetime():
            return (value.replace(tzinfo=UTC) if value.tzinfo is None else value).isoformat()
        case Mapping():
            return {str(key): json_value(item) for key, item in value.items()}
        case list() | tuple():
            return [json_value(item) for item in value]
        case _:
            return value


@contextmanager
def _standard_output() -> Iterator[Path]:
    """Yield the path of a pipe to standard output; a reader that stops early (``| head``) is not an error."""
    reading, writing = os.pipe()
    failed: list[OSError] = []

    def pump() -> None:
        try:
            with os.fdopen(reading, "rb") as source, os.fdopen(os.dup(sys.stdout.fileno()), "wb") as target:
                _pour(source, target)
        except OSError as error:  # a reader that has gone, or a full disk
            failed.append(error)

    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield Path(f"/dev/fd/{writing}")
    except (BadInput, OSError):
        if not failed:
            raise
    finally:
        os.close(writing)
        thread.join()
    if failed and not isinstance(failed[0], BrokenPipeError):
        raise failed[0]


def _pour(source: BinaryIO, target: BinaryIO) -> None:
    if not sys.stdout.isatty():
        shutil.copyfileobj(source, target)
        return
    for line in source:
        target.write(printable_lines(line.decode("utf-8", "replace")).encode())
