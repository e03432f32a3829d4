"""Files that a command writes at its end: whether they can be written is said at its beginning.

Invariant: a file is there whole or not at all.
"""

from __future__ import annotations

import os
from pathlib import Path

from structbench.errors import BadInput, RunFailed


def check_output(path: Path, option: str, db: Path | None = None) -> None:
    """BadInput when the file cannot be written, or is the database; nothing is made or changed."""
    if path.is_dir():
        raise BadInput(f"{option} {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise BadInput(f"{option} {path}: the folder {path.parent} does not exist: create it or name another file")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadInput(f"{option} {path} cannot be written: change its permissions or name another file")
    if db is not None and path.exists() and db.exists() and path.samefile(db):
        raise BadInput(f"{option} {path} is the database itself: name another file")


def write_output(path: Path, text: str) -> None:
    """Put the text in the file; RunFailed when that fails."""
    made = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        if path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
            path.write_text(text, encoding="utf-8")
            return
        made.write_text(text, encoding="utf-8")
        made.replace(path)
    except OSError as error:
        made.unlink(missing_ok=True)
        raise RunFailed(f"cannot write {path} ({error.strerror}): name another file") from error
