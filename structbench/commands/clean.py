"""``structbench clean``: remove runs that are no longer needed, after a yes."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Optional

from structbench.commands.runs import run_line
from structbench.errors import BadInput
from structbench.formatting import bytes_text, plural
from structbench.options import RunFilters, opt
from structbench.output import say

if TYPE_CHECKING:
    from structbench.store import Reader

_MAX_LISTED = 10


EXAMPLES = ("structbench clean --status interrupted",)


@dataclass(kw_only=True)
class Options(RunFilters):
    """Remove runs with all their requests, and shrink the file."""

    days: Optional[float] = opt(None, "only runs started more than this many days ago")
    yes: bool = opt(False, "remove without asking")
    dry_run: bool = opt(False, "only list what would be removed")


def run(options: Options) -> int:
    from structbench.store import Reader
    from structbench.store.upkeep import remove
    from structbench.store.views import RUN_LIST

    if options == replace(Options(), db=options.db, yes=options.yes, dry_run=options.dry_run):
        raise BadInput("choose the runs to remove: --days 7, --label …, --model …, --status interrupted, or run ids")
    with Reader(options.db) as reader:
        rows = reader.query(RUN_LIST, [_chosen(reader, options)])
        _describe(rows)
        rows = [row for row in rows if row["status"] != "running"]
        if not rows or options.dry_run or not _confirmed(options):
            return 0
        done = remove(reader.database, [row["run_id"] for row in rows])
    sizes = f"{options.db}: {bytes_text(done.before_bytes)} before, {bytes_text(done.after_bytes)} now"
    say(f"Removed {plural(done.runs, 'run')}, {plural(done.requests, 'request')}. {sizes}")
    if done.why_not_smaller is not None:
        say(f"The file did not shrink, but its free space will be reused: {done.why_not_smaller}")
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
        raise BadInput(f"--days {options.days:g}: too many for the calendar: give fewer") from None
    old = {row["run_id"] for row in reader.query("SELECT run_id FROM runs WHERE started_at < $1", [before])}
    return [run_id for run_id in chosen if run_id in old]


def _describe(rows: Sequence[dict[str, Any]]) -> None:
    idle = [row for row in rows if row["status"] != "running"]
    requests = sum(row["requests"] for row in idle)
    print(f"{plural(len(idle), 'run')} to remove, with {plural(requests, 'request')}{':' if idle else '.'}")
    for row in idle[:_MAX_LISTED]:
        print(f"  {run_line(row)}")
    if len(idle) > _MAX_LISTED:
        print(f"  … and {len(idle) - _MAX_LISTED} more")
    if len(idle) < len(rows):
        print(f"{plural(len(rows) - len(idle), 'run')} still running will be kept.")


def _confirmed(options: Options) -> bool:
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise BadInput("not a terminal: add --yes to remove the runs, or --dry-run to only list them")
    return input("Remove them? [y/N] ").strip().lower() in ("y", "yes")
