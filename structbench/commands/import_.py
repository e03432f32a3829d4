"""``structbench import``: bring the results of several machines together."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from structbench.errors import BadInput
from structbench.options import opt


@dataclass(kw_only=True)
class Options:
    """Take in the runs of other files, each run once; the other files stay as they are."""

    files: list[Path] = opt((), "files to take runs from", many=True, args=["files"])
    db: Path = opt(Path("structbench.duckdb"), "file that takes them in, made if it is missing", type=Path)


def run(options: Options) -> int:
    from structbench.formatting import plural
    from structbench.store import Reader
    from structbench.store.database import PATIENCE_S, Database
    from structbench.store.upkeep import merge

    if not options.files:
        raise BadInput("say which files: structbench import other.duckdb …")
    with ExitStack() as stack:
        # All are looked at before the first is taken in: a mistake in the last changes nothing.
        for file in options.files:
            if options.db.exists() and file.exists() and file.samefile(options.db):
                raise BadInput(f"{file} is the file that takes the others in: leave it out, or give another --db")
            stack.enter_context(Reader(file))
        database = Database(options.db)
        stack.callback(database.close)
        database.prepare(PATIENCE_S)
        for file in options.files:
            merged = merge(database, file)
            counts = {"new": merged.new, "completed": merged.completed, "here already": merged.present}
            shown = ", ".join(f"{len(runs):,} {what}" for what, runs in counts.items() if runs)
            print(f"{file}: {plural(sum(map(len, counts.values())), 'run')} ({shown})")
    return 0
