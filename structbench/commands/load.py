"""``structbench load`` on a terminal: output and signals; ``run.runner`` has the run loop, ``options`` the options."""

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from loadgen.engine import started_ahead
from loadgen.types import ClosedLoop
from structbench.commands import print_json
from structbench.options import LoadOptions, as_arguments
from structbench.output import complain, say

if TYPE_CHECKING:
    from rich.console import Console

    from structbench.run.runner import Stop, Summary

Options = LoadOptions
EXAMPLES = (
    "structbench load --models qwen3:4b --suites json tools --concurrency 1 4 16",
    "structbench load --models qwen3:4b --suites text --rate 2 5 10 --arrival poisson --duration 1m",
    "structbench load --models qwen3:4b --suites json --option num_ctx=2048,8192 --think on off",
    'structbench load --models qwen3:4b --slo "ttft_p95<0.5" "correct>=90%" --junit out.xml',
    "structbench load plan.toml --skip-cached --explain",
)


def run(options: LoadOptions) -> int:
    if options.print_plan:
        from structbench.run.plan_file import plan_text

        print(plan_text(options))
        return 0
    if options.dry_run or options.explain:
        return _load(options)
    with started_ahead(options.engine, ClosedLoop(concurrency=1), api=None if options.api == "auto" else options.api):
        return _load(options)


def _load(options: LoadOptions) -> int:
    from rich.console import Console

    from structbench.run.display import Display
    from structbench.run.runner import Stop, load, print_summary
    from structbench.run.settings import settings_of

    console = Console(stderr=options.json)
    stop = Stop()
    with signals(stop):
        display = Display(console, quiet=options.quiet)
        report = partial(_report, options=options, console=console)
        summary = load(settings_of(options), display=display, stop=stop, report=report)
    if summary.planned:
        print_summary(summary, console)
    if options.json and summary.planned:
        print_json({"cells": summary.planned})
    return summary.exit_code


def _report(summary: "Summary", options: LoadOptions, console: "Console") -> None:
    """Print the tables, and for --json the same as JSON on stdout."""
    from structbench.reports import to_json
    from structbench.run.runner import print_summary

    options = replace(options, models=list(summary.models))
    print_summary(summary, console, wide=options.wide)
    for text in summary.settling:
        say(text, console.file)
    for failure in summary.failures:
        complain(failure)
    if summary.interrupted or summary.failures:
        complain(f"to continue: {_command(replace(options, skip_cached=True))}")
    elif summary.document is not None:
        say(_page_command(options), console.file)
    if options.json:
        gates = [asdict(gate) for gate in summary.gates]
        print_json({**to_json(summary.rows, summary.total_s), "pairs": summary.pairs, "slos": gates,
                    "rule": [{"cell": each.cell, "state": each.state, "checks": [asdict(gate) for gate in each.rule]}
                             for each in summary.outcomes],
                    "settles": {cell: asdict(each) for cell, each in summary.settles.items()}})  # fmt: skip


def _page_command(options: LoadOptions) -> str:
    """Return the command that shows all figures as a page."""
    words = ["structbench", "report", "-o", "report.html"]
    words += [] if options.db == LoadOptions.db else ["--db", str(options.db)]
    words += ["--slo", *options.slo] if options.slo else []
    return f"All figures as a page: {shlex.join(words)}"


def _command(options: LoadOptions) -> str:
    return shlex.join(["structbench", "load", *as_arguments(options)])


@contextmanager
def signals(stop: "Stop") -> Iterator[None]:
    """Let the signals that end a command, and the demo's alarm, ask the run to end: see ``Stop``.

    A SIGHUP that is ignored, as under nohup, stays ignored; several, as a terminal that closes sends them, are one.
    """
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM]
    before: dict[signal.Signals, Any] = {number: signal.signal(number, lambda *_: stop.ask()) for number in numbers}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: None if stop.asked else stop.ask())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
