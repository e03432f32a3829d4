"""``structbench capacity``: the highest load at which the rule holds, for each model and suite."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Optional

from structbench.commands import print_json
from structbench.errors import BadInput
from structbench.options import LONGEST_S, LoadOptions, as_arguments, check_number, opt, seconds_of
from structbench.output import complain, say

if TYPE_CHECKING:
    from structbench.capacity.search import Found
    from structbench.store import Store


EXAMPLES = (
    "structbench capacity --models qwen3:4b --suites json tools",
    'structbench capacity --models qwen3:4b --suites text --over rate --slo "ttft_p95<=2s"',
)


_MARGIN = 1.5
"""How much more time is asked for than what is open seems to need: loads between are not known yet."""
STARTS = {"concurrency": 2, "rate": 1}
"""Nearly every server takes two requests at a time, and of a slow one each load costs a minute."""


@dataclass(kw_only=True)
class Options(LoadOptions):
    """Find the highest load at which the rule (--slo) holds, what is served there, and what limits it.

    Loads are doubled, then halved in between; each is a cell that goes on until the rule is met or not met.
    """

    GROUPS: ClassVar[Mapping[str, Sequence[str]]] = {
        "what is looked for": ("over", "start", "most", "within"), **LoadOptions.GROUPS
    }  # fmt: skip

    over: Literal["concurrency", "rate"] = opt("concurrency", "what to raise: requests in flight, or requests/s")
    start: Optional[float] = opt(
        None,
        f"the load to begin with (default: {STARTS['concurrency']} in flight, {STARTS['rate']} request/s)",
        type=float,
    )
    most: float = opt(256.0, "the highest load to try")
    within: float = opt(
        300.0, "time for each model and suite, after which what is known is said", read=seconds_of, metavar="TIME"
    )
    max_requests: int = opt(200, "requests per load after which it counts as not decided")


def run(options: Options) -> int:
    from structbench.commands.load import signals
    from structbench.run.runner import Stop
    from structbench.store import storing

    _check(options)
    found: list[dict[str, Any]] = []
    unanswered = False
    stop = Stop()
    with signals(stop), ExitStack() as stack:
        # Opened by the first load that has found its server, as `load` does.
        store = cache(lambda: stack.enter_context(storing(options.db, fsync=options.fsync)))
        for model in options.models:
            for suite in options.suites:
                if not stop.asked:
                    searched, told = _search(options, model, suite, stop, store)
                    found.append(told)
                    unanswered = unanswered or searched.is_unanswered
    if options.json:
        print_json({"capacity": found})
    return 130 if stop.asked else 1 if unanswered else 0


def _check(options: Options) -> None:
    from structbench.run.settings import MOST, variants_of

    for name in ("concurrency", "rate", "requests", "duration", "explain", "dry_run", "print_plan", "junit"):
        if getattr(options, name):
            raise BadInput(f"--{name.replace('_', '-')} is no option of capacity, which chooses the loads itself: "
                           "leave it out, or give --start, --most and --over")  # fmt: skip
    for name in ("start", "most", "within"):
        check_number(f"--{name}", getattr(options, name), LONGEST_S if name == "within" else MOST[options.over])
    start = _start(options)
    if start > options.most:
        raise BadInput(f"--start {start:g} --most {options.most:g}: give a start that is no more than most")
    if options.over == "concurrency" and (start % 1 or options.most % 1):
        raise BadInput("--start and --most are requests in flight: give whole numbers, or --over rate")
    if len(options.host) > 1 or len(options.structured) > 1:
        raise BadInput("capacity takes one --host and one --structured: measure others one by one")
    if several := [variant.name for variant in variants_of(options) if variant.name]:
        raise BadInput(f"capacity takes one value of each setting: measure {' and '.join(several)} one by one")
    if not options.models:
        raise BadInput("capacity searches for each model: name them with --models")


def _start(options: Options) -> float:
    return min(STARTS[options.over], options.most) if options.start is None else options.start


def _search(
    options: Options, model: str, suite: str, stop: Any, store: "Callable[[], Store]"
) -> tuple["Found", dict[str, Any]]:
    from rich.console import Console

    from structbench.capacity.limits import line, sentences
    from structbench.capacity.steps import Steps
    from structbench.run.display import Display

    console = Console(stderr=options.json)
    base = {each.name: getattr(options, each.name) for each in fields(LoadOptions)}
    asked = LoadOptions(**{**base, "models": [model], "suites": [suite], "json": False})
    display = Display(console, quiet=options.quiet)
    steps = Steps(asked, options.over, options.within, display, store, stop, complain)
    found = steps.search(_start(options), options.most)
    text = " ".join(sentences(found, options.over))
    for step in found.steps:
        say(f"  {line(step, options.over)}", console.file)
    say(f"{model} {suite}: {text}", console.file)
    settles = next_command(replace(options, models=[model], suites=[suite]), found)
    if settles is not None:
        say(f"To settle what is open: {settles}", console.file)
    return found, as_json(model, suite, options.over, found, text, settles)


def next_command(options: Options, found: "Found") -> Optional[str]:
    """Return the command that goes on with what the search of one model and suite left open; None: nothing."""
    if (found.complete and not found.left_open) or found.is_unanswered:
        return None
    needs = {step.level: max((gate.needs or 0 for gate in step.gates), default=0) for step in found.left_open}
    seconds = sum(
        max(0, needs[step.level] - step.requests) / step.requests_per_s
        for step in found.left_open
        if step.requests_per_s
    )
    within = max(options.within if found.complete else 2 * options.within, ceil(_MARGIN * seconds))
    more: dict[str, Any] = {"within": within}
    if found.left_open:
        more["max_requests"] = max(4 * options.max_requests, ceil(_MARGIN * max(needs.values())))
    return shlex.join(["structbench", "capacity", *as_arguments(replace(options, skip_cached=True, **more))])


def as_json(model: str, suite: str, over: str, found: "Found", text: str, settles: Optional[str]) -> dict[str, Any]:
    """Return what was found as JSON values, as docs/capacity.md describes."""

    def level(step: Any) -> Optional[float]:
        return None if step is None else step.level

    return {
        "model": model, "suite": suite, "over": over, "holds": level(found.holds), "broken": level(found.broken),
        "saturates": level(found.saturates), "complete": found.complete, "text": text,
        "next": settles,
        "steps": [{**asdict(replace(step, gates=())), "gates": [asdict(gate) for gate in step.gates]}
                  for step in found.steps],
    }  # fmt: skip
