"""``structbench import``: merge results from several machines."""

from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from structbench.errors import BadInput
from structbench.options import opt

EXAMPLES = ("structbench import other-machine.duckdb",)


@dataclass(kw_only=True)
class Options:
    """Copy runs from other files into this one, each run once; the other files do not change."""

    files: list[Path] = opt((), "files to import runs from", many=True, args=["files"])
    db: Path = opt(Path("structbench.duckdb"), "results database to import into, created if missing", type=Path)


def run(options: Options) -> int:
    from structbench.formatting import plural
    from structbench.output import say
    from structbench.store import Reader
    from structbench.store.database import PATIENCE_S, Database
    from structbench.store.upkeep import merge

    if not options.files:
        raise BadInput("name the files to import: structbench import other.duckdb …")
    with ExitStack() as stack:
        # All are opened before the first is imported: a mistake in the last changes nothing.
        for file in options.files:
            if options.db.exists() and file.exists() and file.samefile(options.db):
                raise BadInput(f"{file} is the database to import into: leave it out, or give another --db")
            stack.enter_context(Reader(file))
        with closing(Database(options.db)) as database:
            database.prepare(PATIENCE_S)
        for file in options.files:
            merged = merge(options.db, file)
            counts = {"new": merged.new, "completed": merged.completed, "here already": merged.present}
            shown = ", ".join(f"{len(runs):,} {what}" for what, runs in counts.items() if runs)
            say(f"{file}: {plural(sum(map(len, counts.values())), 'run')} ({shown})")
    return 0
