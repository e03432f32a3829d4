"""``structbench rescore``: score stored answers again with the present scorer."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from structbench.commands import print_json
from structbench.options import RunFilters, opt

if TYPE_CHECKING:
    from structbench.results.rescore import Rescored
    from structbench.types import Config, Suite

_MAX_LISTED = 20


EXAMPLES = ("structbench rescore nightly",)


@dataclass(kw_only=True)
class Options(RunFilters):
    """Score stored answers again with the present scorer; the old scores are kept in the table old_scores."""

    path: list[str] = opt(
        (), "suite files, folders or public suites of the runs that are not found under their names", many=True
    )
    json: bool = opt(False, "print JSON, with every request whose outcome changed")


def run(options: Options) -> int:
    from structbench.results.rescore import rescore
    from structbench.results.selection import filtered_runs
    from structbench.store import Reader

    done = []
    with Reader(options.db) as reader:
        for each in rescore(reader, filtered_runs(reader, options), _finder(options.path)):
            done.append(each)
            if not options.json:
                _print(each)
    skipped = [each for each in done if each.skipped is not None]
    if options.json:
        print_json({"runs": [asdict(each) for each in done]})
    else:
        _print_total(done)
    return 1 if skipped else 0


def _finder(paths: list[str]) -> "Callable[[Config], Suite | str]":
    """Return what finds a config's suite: by its name or among ``paths``, with the same content as then."""
    from structbench.errors import BadInput
    from structbench.suites.catalog import load_suite, tagged
    from structbench.suites.generated import TextShape

    given = [load_suite(path, text=TextShape(), seed=0) for path in paths]

    @cache
    def named(name: str, seed: int) -> "list[Suite]":
        try:
            return [load_suite(name, text=TextShape(), seed=seed)]
        except BadInput:
            return []

    def find(config: "Config") -> "Suite | str":
        name, bracket, tags = config.suite.removesuffix("]").partition("[")
        suites = [*named(name, config.seed), *given]
        for suite in suites:
            try:
                suite = tagged(suite, tags.split(",")) if bracket else suite
            except BadInput:
                continue
            if suite.content_hash == config.suite_hash:
                return suite
        if any(suite.name == name for suite in suites):
            return f"the suite {config.suite} has changed since: give the one that was run with --path"
        return f"the suite {config.suite} is not here: give its file with --path"

    return find


def _print(each: "Rescored") -> None:
    from structbench.formatting import plural
    from structbench.output import say

    name = f"run {each.run_id} ({each.name})"
    if each.skipped is not None:
        say(f"{name}: not scored again: {each.skipped}")
    elif not each.current:
        changed = f"{len(each.changes):,} changed" if each.changes else "none changed"
        say(f"{name}: {plural(each.requests, 'request')} scored again (scorer {each.scorer_version} before), {changed}")
        for change in each.changes[:_MAX_LISTED]:
            say(f"  {change.request_index}  {change.case_id}  {change.before} → {change.after}")
        if len(each.changes) > _MAX_LISTED:
            print(f"  … and {len(each.changes) - _MAX_LISTED:,} more (--json has all)")


def _print_total(done: "list[Rescored]") -> None:
    from structbench.formatting import plural
    from structbench.output import say
    from structbench.scoring import SCORER_VERSION

    again = [each for each in done if each.skipped is None and not each.current]
    kinds: Counter[Any] = Counter((c.before, c.after) for each in again for c in each.changes)
    told = "".join(f"; {before} → {after}: {n:,}" for (before, after), n in kinds.most_common())
    current = sum(each.current for each in done)
    rest = f"; {plural(current, 'run')} needed nothing" if current else ""
    say(f"{plural(len(again), 'run')} scored again by scorer {SCORER_VERSION}{told}{rest}")
