"""Opening the DuckDB file; the only caller of ``duckdb.connect``.

Invariant: the file is open only for moments, so that other processes get their turn. DuckDB itself stays running
for many of them: starting it takes 20 ms, attaching the file to it 1 ms.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from sys import getsizeof
from typing import TYPE_CHECKING, Any, TypeVar

from structbench.errors import BadInput, RunFailed
from structbench.formatting import printable
from structbench.output import refuse_unnamable, sweep
from structbench.store.inspection import has_todays_views, version_of
from structbench.store.overlay import Overlay, Waiting
from structbench.store.schema import FILE, MIGRATIONS, TABLES, Columns, migrate, shape, views

if TYPE_CHECKING:
    import duckdb
    import numpy

_POWERLESS: Mapping[str, str] = {
    "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
    "allow_persistent_secrets": "false", "python_enable_replacements": "false",
}  # fmt: skip
"""What no DuckDB of ours may do, whatever file it opens."""
_ALONE: Mapping[str, str] = {**_POWERLESS, "memory_limit": "1GB"}
BESIDE_A_LOAD: Mapping[str, str] = {**_POWERLESS, "threads": "1", "memory_limit": "512MB"}
"""One thread, the caller's, whose priority then counts, and less memory."""
_FOR_USERS: Mapping[str, str] = {**_ALONE, "temp_directory": ""}
"""For statements of users: DuckDB lets them read its temporary folder."""
MOST_BYTES = 1 << 30
"""What the rows of a user's statement may take, beside DuckDB's own memory."""
_MOST_MORE = 2 * MOST_BYTES
"""What a statement may take in all."""

_NO_LOCKS = re.compile("|".join([
    "file locks are not supported", *(re.escape(os.strerror(number)) for number in (ENOLCK, ENOSYS, EOPNOTSUPP)),
]), re.IGNORECASE)  # fmt: skip
"""In DuckDB's message where the file system cannot lock a file."""

T = TypeVar("T")

Params = Sequence[Any] | Mapping[str, Any] | None

PATIENCE_S = 10.0
"""How long a command waits for its turn."""


_BRIEFLY_S = 0.2
_OPEN_S = 3.0
"""After it has had files open for so long in all, DuckDB is started anew: it keeps some 200 bytes for each block that
it once had in memory (500 blocks for a cell of ten requests) until there are tens of thousands, and has no setting for
that."""
_NUMBERS = count()


class Locked(Exception):
    """The file is in use for now; the message says by which process."""


class Database:
    """One file, and a DuckDB that opens it only for moments; several threads take turns.

    It can touch that file and what DuckDB writes beside it, and nothing else but ``others``.
    """

    def __init__(
        self, path: Path, *, others: Sequence[Path] = (), config: Mapping[str, str] = _ALONE, sealed: bool = True,
        own: bool = False,
    ) -> None:  # fmt: skip
        """``sealed``: false if the caller seals it, once the file is open. ``own``: true if values are taken as they
        are, by whoever wrote them: names are then made 5 ms sooner."""
        self.path = path
        self.made = path.resolve().with_name(f".{path.name}.{os.getpid()}-{next(_NUMBERS)}")
        """Where a new file is made before it takes the place of ``path``."""
        # A folder of its own: DuckDB names what it puts there without regard to other processes.
        self._config = {"temp_directory": f"{self.made}.tmp", **config}
        self._reach = [*files_of(path), *files_of(path.resolve()), *files_of(self.made), *others]
        self._sealed, self._own = sealed, own
        self._duckdb: duckdb.DuckDBPyConnection | None = None
        self._named: set[str] = set()
        """The tables and views that a reader can name by now: each takes a while to make."""
        self._open_s = 0.0
        """How long this DuckDB has had files open."""
        self._overlay = Overlay()
        self._version = 0
        self._inspected: object = None
        self._let_go: Callable[[], object] | None = None
        self._turn = threading.Lock()

    @contextmanager
    def opened(
        self, *, read_only: bool, patience_s: float = 0.0, path: Path | None = None
    ) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file (or the one at ``path``); raise Locked if others use it for longer than ``patience_s``.

        A reader sees the file's tables and, after ``make_views``, today's views; nothing else in it is ever read, and
        a file that is not ours raises BadInput.
        """
        with self._turn:
            running, path = self._running(), path or self.path
            with attached(running, path, FILE, read_only=read_only, patience_s=patience_s), running.cursor() as con:
                began = time.monotonic()
                self._overlay.drop(con)
                if self._inspected != (file := file_number(path)):
                    self._version, self._inspected = version_of(con, path), file
                    self._keep_number(path)
                if not read_only:
                    con.execute(f"USE {FILE}").fetchall()
                elif self.is_current:
                    self._name_tables(con)
                yield con
            self._open_s += time.monotonic() - began
            if self._open_s > _OPEN_S:
                self._stop()  # here, where nothing is open, nor do rows wait in memory

    def _keep_number(self, path: Path) -> None:
        """Keep what tells the file from others from being given to one of them, as Linux does with a removed file's."""
        if self._let_go is not None:
            self._let_go()
        self._let_go = None
        if hasattr(os, "O_PATH"):  # not by opening it for reading: to close that again would end DuckDB's locks
            with suppress(FileNotFoundError):
                self._let_go = weakref.finalize(self, os.close, os.open(path, os.O_PATH))

    def _running(self) -> duckdb.DuckDBPyConnection:
        import duckdb  # late: takes 100 ms

        if self._duckdb is None:
            self._duckdb = duckdb.connect(config=dict(self._config))
            if self._sealed:
                _seal(self._duckdb, self._reach)
        return self._duckdb

    @contextmanager
    def opened_with(self, files: Callable[[], Iterable[Waiting]]) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file for reading, or not at all while a writer has it, with the rows of these spool files in front.

        ``files`` is called when nobody else has the turn.
        """
        with self._turn, ExitStack() as stack:
            running = self._running()
            try:
                stack.enter_context(attached(running, self.path, FILE, read_only=True, patience_s=_BRIEFLY_S))
                with_file = True
            except Locked:
                with_file = False
            con = stack.enter_context(running.cursor())
            self._overlay.show(con, files(), with_file=with_file)
            self._named.difference_update(TABLES)
            yield con

    def _name_tables(self, con: duckdb.DuckDBPyConnection) -> None:
        for table in TABLES:
            if table not in self._named:
                source = f"FROM {FILE}.main.{table}" if self._own else _measured(table)
                con.execute(f"CREATE OR REPLACE VIEW {table} AS {source}").fetchall()
                self._named.add(table)

    def make_views(self, con: duckdb.DuckDBPyConnection, sql: str) -> None:
        """Make the views that a statement names, and before each those that it reads, which stand before it."""
        needed: list[str] = []
        for name, text in reversed(views().items()):
            if re.search(rf"\b{name}\b", sql, re.IGNORECASE):
                sql += text
                needed.append(name)
        for name in reversed(needed):
            if name not in self._named:
                con.execute(views()[name]).fetchall()
                self._named.add(name)

    def close(self) -> None:
        """Stop DuckDB and free its memory."""
        with self._turn:
            self._stop()
            if self._let_go is not None:
                self._let_go()
            self._let_go = self._inspected = None

    def _stop(self) -> None:
        if self._duckdb is not None:
            self._duckdb.close()
            self._duckdb, self._open_s, self._overlay = None, 0.0, Overlay()
            self._named.clear()

    def prepare(self, patience_s: float) -> Columns:
        """Create or migrate the file and return its tables' columns; raise BadInput if it cannot be used."""
        _check_place(self.path)
        with usable(self.path):
            sweep(self.path)
            self.make_current(patience_s)
        return shape(MIGRATIONS).columns

    def make_current(self, patience_s: float) -> None:
        """Create the file, if there is none, or migrate it; raise Locked, or what is wrong with it."""
        if not self.path.exists():
            self._create()
        # Read-only first: a current file needs no writing, and so a reader does not keep a load from starting.
        with self.opened(read_only=True, patience_s=patience_s) as con:
            is_current, has_views = self.is_current, has_todays_views(con)
        if not is_current:
            self._migrate(patience_s)
        elif not has_views:  # they are for other programs, and can wait for a reader
            with suppress(Locked):
                self._migrate(0)

    @property
    def is_current(self) -> bool:
        """Whether the file, which was opened before, is of today's version."""
        return self._version == len(MIGRATIONS)

    def _migrate(self, patience_s: float, path: Path | None = None) -> None:
        with self.opened(read_only=False, patience_s=patience_s, path=path) as con:
            migrate(con, self._version)
            self._version = len(MIGRATIONS)

    def _create(self) -> None:
        """Create the file elsewhere and move it into place, so that no process sees half a database."""
        self._migrate(0, self.made)
        self.made.chmod(0o600)  # prompts and answers are their owner's
        try:
            os.link(self.made, self.path)
        except FileExistsError:  # another process was quicker: its file is as good
            pass
        except OSError:  # a file system without hard links
            self.made.replace(self.path)
        finally:
            self.made.unlink(missing_ok=True)


def _measured(table: str) -> str:
    """Return SQL for a table of the file in which what ``storable`` never wrote is absent: NaN, infinity, and dates
    that Python does not have."""
    able = {"DOUBLE": 'isfinite("{0}")', "TIMESTAMP": "\"{0}\" BETWEEN '0001-01-01' AND '9999-12-31'"}
    columns = shape(MIGRATIONS).columns[table].items()
    values = [f'if({able[kind].format(name)}, "{name}", NULL) AS "{name}"' for name, kind in columns if kind in able]
    instead = f"REPLACE ({', '.join(values)})" if values else ""
    return f"SELECT * {instead} FROM {FILE}.main.{table}"


def _patiently(get: Callable[[], duckdb.DuckDBPyConnection], patience_s: float) -> duckdb.DuckDBPyConnection:
    """Try again while another process, or another connection of this one, has the file open; then raise Locked."""
    import duckdb

    deadline = time.monotonic() + patience_s
    while True:
        try:
            return get()
        except duckdb.Error as error:
            text = str(error)
            if _NO_LOCKS.search(text):  # waiting would not help
                raise
            if "Could not set lock" in text:
                holder = re.search(r"\(PID (\d+)\)", text)
                locked = Locked(f"another process ({_named(holder[1])})" if holder else "another process")
            elif "different configuration" in text or "Unique file handle conflict" in text:
                locked = Locked("another connection of this process")
            else:
                raise
            if time.monotonic() >= deadline:
                raise locked from error
        wait_a_little()


def _named(pid: str) -> str:
    """Return ``PID 4711, python3``, with the name where the system tells it."""
    try:
        return f"PID {pid}, {printable(Path(f'/proc/{pid}/comm').read_text().strip())}"
    except OSError:
        return f"PID {pid}"


def files_of(path: Path) -> list[Path]:
    """Return the files that DuckDB may write for one database."""
    return [
        path.absolute().with_name(path.name + ending) for ending in ("", ".wal", ".wal.checkpoint", ".wal.recovery")
    ]


def _seal(con: duckdb.DuckDBPyConnection, reach: Sequence[Path] = ()) -> None:
    """Let DuckDB open these files and no others from now on, and lift no limit."""
    con.execute(f"SET allowed_paths = [{', '.join(map(quoted, reach))}]").fetchall()
    con.execute("SET enable_external_access = false").fetchall()
    con.execute("SET lock_configuration = true").fetchall()


def quoted(text: object) -> str:
    """Return the text as an SQL literal, where parameters are not allowed."""
    doubled = str(text).replace("'", "''")
    return f"'{doubled}'"


@contextmanager
def attached(
    con: duckdb.DuckDBPyConnection, path: Path, name: str, *, read_only: bool, patience_s: float = 0.0
) -> Iterator[None]:
    """Attach a file under this name; raise Locked if others use it for longer than ``patience_s``."""
    attach = f"ATTACH {quoted(path.absolute())} AS {name} ({'TYPE duckdb, READ_ONLY' if read_only else 'TYPE duckdb'})"
    detach = partial(con.execute, f"DETACH DATABASE IF EXISTS {name}")
    while True:
        before = file_number(path)
        _patiently(partial(con.execute, attach), patience_s)
        if before in (None, file_number(path)):
            break
        detach()  # `clean` put a smaller file in its place while we waited: what we hold has no name any more
    try:
        yield
    finally:
        detach()


def file_number(path: Path) -> int | None:
    """Return what tells a file from another that takes its place; None if there is none."""
    return path.stat().st_ino if path.exists() else None


def fetched(con: duckdb.DuckDBPyConnection, sql: str, params: Params = None) -> list[dict[str, Any]]:
    """Return the rows of one statement as mappings."""
    result = con.execute(sql, params)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, values, strict=True)) for values in result.fetchall()]


def as_columns(con: duckdb.DuckDBPyConnection, sql: str, params: Params = None) -> dict[str, numpy.ndarray[Any, Any]]:
    """Return the columns as arrays: absent numbers are NaN, other absent values None."""
    return {name: _filled(values) for name, values in con.execute(sql, params).fetchnumpy().items()}


def _filled(values: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    """Return the values with NaN or None in place of the mask."""
    import numpy

    if not isinstance(values, numpy.ma.MaskedArray):
        return values
    absent: Any = numpy.nan if values.dtype.kind in "iufb" else None
    return numpy.where(values.mask, absent, values.data)


def wait_a_little() -> None:
    """Wait between two tries, for a random time, so that two processes do not keep colliding."""
    time.sleep(random.uniform(0.03, 0.1))


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turn errors of DuckDB, and locks of other processes, into one line for the user (BadInput)."""
    import duckdb

    try:
        yield
    except Locked as held:
        raise BadInput(f"{path} is in use by {held}: stop that process or give another --db") from held
    except duckdb.OutOfMemoryException as error:
        raise _stopped(path, error) from error
    except duckdb.Error as error:
        reason = first_line(error)
        if _NO_LOCKS.search(reason):
            raise BadInput(f"{path} is on a file system that has no locks: use a local disk, by --db") from error
        if "not a valid DuckDB" in reason:
            raise BadInput(f"{path} is not a DuckDB database: give another --db") from error
        raise BadInput(f"{path} cannot be opened as a DuckDB database ({reason}): give another --db") from error


@contextmanager
def at_work(path: Path) -> Iterator[None]:
    """Turn what stops DuckDB amid its work into one line for the user: RunFailed for a full disk or too little memory,
    BadInput for values that nobody measured."""
    import duckdb

    try:
        yield
    except duckdb.DataError as error:
        reason = first_line(error)
        raise BadInput(f"{path} holds values that structbench did not write ({reason}): give another --db") from error
    except (duckdb.OperationalError, duckdb.InternalError, duckdb.FatalException) as error:
        raise _stopped(path, error) from error


def _stopped(path: Path, error: Exception) -> RunFailed:
    return RunFailed(f"{path}: {first_line(error)}: free some space, or choose fewer runs; nothing stored is lost")


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, which DuckDB follows by hints; its kind if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def refuse_odd(path: Path) -> None:
    """Raise BadInput if the path (or its log) is a folder, pipe or device, or has a name that DuckDB cannot take."""
    refuse_unnamable(path, "--db")
    if path.is_dir():
        raise BadInput(f"{path} is a folder: give a file in it, e.g. --db {path / 'structbench.duckdb'}")
    for file in files_of(path):
        if file.exists() and not file.is_file():
            raise BadInput(f"{file} is not a regular file: give another --db")


def _check_place(path: Path) -> None:
    parent = path.parent
    refuse_odd(path)
    if not parent.is_dir():
        raise BadInput(f"the folder {parent} does not exist: create it or give another --db")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise BadInput(f"the folder {parent} is not writable: change its permissions or give another --db")
    if path.exists() and not os.access(path, os.R_OK | os.W_OK):
        raise BadInput(f"{path} is not writable: change its permissions or give another --db")


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The rows of a statement; ``more`` if there are others."""

    names: list[str]
    rows: list[tuple[Any, ...]]
    more: bool = False


def ask(path: Path, sql: str, limit: int | None = None, timeout_s: float | None = None) -> QueryResult:
    """Run a statement that a user wrote and return at most ``limit`` rows; raise BadInput that says where it is wrong.

    It can read this file and nothing else (no other file, network, environment or Python variable), change nothing,
    not lift these limits, and not take longer than ``timeout_s`` (RunFailed).
    """
    import duckdb

    database = Database(path, config=_FOR_USERS, sealed=False)
    with usable(path), closing(database), database.opened(read_only=True, patience_s=PATIENCE_S) as con:
        database.make_views(con, " ".join(views()))
        _seal(con)
        con.execute("BEGIN TRANSACTION READ ONLY").fetchall()
        try:
            return interruptible(con, lambda: _execute(con, sql, limit), timeout_s)
        except duckdb.Error as error:
            raise BadInput(_one_line_error(str(error))) from error


def interruptible(con: duckdb.DuckDBPyConnection, work: Callable[[], T], timeout_s: float | None = None) -> T:
    """Return what ``work`` returns; RunFailed if it takes too long or too much memory. Ctrl-C ends it too."""
    import duckdb

    with ThreadPoolExecutor(1) as thread, _little_memory():
        running = thread.submit(work)
        try:
            return running.result(timeout_s)
        except TimeoutError:
            raise RunFailed(f"stopped after {timeout_s:g} s") from None
        except (MemoryError, duckdb.OutOfMemoryException):
            raise RunFailed("stopped: it takes more memory than it may, 1 GB and as much for its rows") from None
        finally:
            while not running.done():
                con.interrupt()
                wait([running], 0.1)


@contextmanager
def _little_memory() -> Iterator[None]:
    """Keep this process from taking much more memory than it has, on Linux: DuckDB's own limit leaves out vectors.

    One of 2,000 values of 10 MB is 20 GB.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        yield
        return
    import resource

    (has_kb,) = (int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmData:"))
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = (has_kb << 10) + _MOST_MORE
    resource.setrlimit(resource.RLIMIT_DATA, (most if soft == resource.RLIM_INFINITY else min(soft, most), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _execute(con: duckdb.DuckDBPyConnection, sql: str, limit: int | None) -> QueryResult:
    import duckdb

    statements = con.extract_statements(sql)
    if len(statements) != 1:
        raise BadInput(f"give one statement at a time, not {len(statements)}")
    try:
        kind = statements[0].type
    except ValueError:  # one of which DuckDB's package has no name
        raise BadInput("this prompt runs no such statement: it reads") from None
    if kind in (duckdb.StatementType.ATTACH, duckdb.StatementType.DETACH):
        raise BadInput("this prompt reads the results database and no other")
    result = con.execute(statements[0])
    names = [column[0] for column in result.description or ()]
    rows = _rows(result, None if limit is None else limit + 1)
    return QueryResult(names, rows[:limit], more=limit is not None and len(rows) > limit)


def _rows(result: duckdb.DuckDBPyConnection, limit: int | None) -> list[tuple[Any, ...]]:
    """Return the rows; RunFailed once they take more memory than DuckDB may, which limits itself alone.

    They are fetched in growing batches, and the larger a row is, the fewer at once.
    """
    rows: list[tuple[Any, ...]] = []
    size, largest, ask = 0.0, 1, 1
    while len(rows) != limit and (batch := result.fetchmany(ask if limit is None else min(ask, limit - len(rows)))):
        rows += batch
        sizes = [_size(row) for row in batch[:: 1 + len(batch) // 100]]
        size, largest = size + sum(sizes) * len(batch) / len(sizes), max(largest, *sizes)
        if size > MOST_BYTES:
            raise RunFailed(f"stopped after {len(rows):,} rows, which take {MOST_BYTES >> 30} GB: select fewer")
        ask = max(1, min(2 * ask, 10_000, MOST_BYTES // 10 // largest))
    return rows


def _size(value: Any) -> int:
    """Return the bytes of a value with all that is in it."""
    match value:
        case list() | tuple():
            return getsizeof(value) + sum(map(_size, value))
        case dict():
            return getsizeof(value) + sum(map(_size, value.values()))
        case _:
            return getsizeof(value)


def _one_line_error(error: str) -> str:
    """Return DuckDB's message and hints, with the place that its caret points at: ``… (line 1, column 8)``."""
    lines = [line for line in error.splitlines() if line.strip()]
    for number, (line, below) in enumerate(pairwise(lines)):
        if line.startswith("LINE ") and set(below.strip()) == {"^"}:
            head, colon, _ = line.partition(": ")
            column = below.index("^") - len(head + colon) + 1
            return f"{' '.join(lines[:number])} (line {head.removeprefix('LINE ')}, column {column})"
    return " ".join(lines)
