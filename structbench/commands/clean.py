"""``structbench clean``: remove runs that nobody needs any more.

Invariant: nothing is removed that was not named, nor without a yes.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Optional

from structbench.errors import BadInput
from structbench.options import RunFilters, opt

if TYPE_CHECKING:
    from structbench.store import Reader

_MAX_LISTED = 10


@dataclass(kw_only=True)
class Options(RunFilters):
    """Remove runs with all their requests, and make the file smaller."""

    days: Optional[float] = opt(None, "runs started more than so many days ago")
    yes: bool = opt(False, "do not ask")
    dry_run: bool = opt(False, "only say what would be removed")


def run(options: Options) -> int:
    from structbench.formatting import bytes_text, plural
    from structbench.store import Reader
    from structbench.store.upkeep import remove
    from structbench.store.views import RUN_LIST

    if options == replace(Options(), db=options.db, yes=options.yes, dry_run=options.dry_run):
        raise BadInput("say which runs: --days 7, --label …, --model …, --status interrupted, or run ids")
    with Reader(options.db) as reader:
        rows = reader.query(RUN_LIST, [_chosen(reader, options)])
        _describe(rows)
        rows = [row for row in rows if row["status"] != "running"]
        if not rows or options.dry_run or not _confirmed(options):
            return 0
        done = remove(reader.database, [row["run_id"] for row in rows])
    sizes = f"{options.db}: {bytes_text(done.before_bytes)} before, {bytes_text(done.after_bytes)} now"
    print(f"Removed {plural(done.runs, 'run')}, {plural(done.requests, 'request')}. {sizes}")
    if done.why_not_smaller is not None:
        print(f"The room is used again but not given back: {done.why_not_smaller}")
    return 0


def _chosen(reader: "Reader", options: Options) -> list[str]:
    from structbench.results.selection import ago, filtered_runs

    chosen = filtered_runs(reader, options)
    if options.days is None:
        return chosen
    if not options.days >= 0:
        raise BadInput(f"--days {options.days:g}: give 0 or more")
    try:
        before = ago(timedelta(days=options.days))
    except OverflowError:
        raise BadInput(f"--days {options.days:g}: that is before the calendar begins, give fewer") from None
    old = {row["run_id"] for row in reader.query("SELECT run_id FROM runs WHERE started_at < $1", [before])}
    return [run_id for run_id in chosen if run_id in old]


def _describe(rows: Sequence[dict[str, Any]]) -> None:
    from structbench.commands.runs import run_line
    from structbench.formatting import plural

    idle = [row for row in rows if row["status"] != "running"]
    requests = sum(row["requests"] for row in idle)
    print(f"{plural(len(idle), 'run')} to remove, with {plural(requests, 'request')}{':' if idle else '.'}")
    for row in idle[:_MAX_LISTED]:
        print(f"  {run_line(row)}")
    if len(idle) > _MAX_LISTED:
        print(f"  … and {len(idle) - _MAX_LISTED} more")
    if len(idle) < len(rows):
        print(f"{plural(len(rows) - len(idle), 'run')} under way will stay.")


def _confirmed(options: Options) -> bool:
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise BadInput("nobody is here to be asked: add --yes to remove them, or --dry-run only to look")
    return input("Remove them? [y/N] ").strip().lower() in ("y", "yes")
