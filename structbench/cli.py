"""The command line: one options class and one function for each command.

Invariant: nothing heavy is imported before a command runs, so that --help comes at once; a mistake
of the user's is one line on stderr and exit code 2.
"""

import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, dataclass, fields, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

from structbench import __version__
from structbench.errors import BadInput, StructbenchError
from structbench.options import LoadOptions, as_arguments, opt

if TYPE_CHECKING:
    from rich.console import Console

    from structbench.runner import Stop, Summary


@dataclass(kw_only=True)
class SimulateOptions:
    """Serve simulated models with known speeds, answers and faults, as Ollama would."""

    host: str = opt("127.0.0.1", "address to listen on")
    port: int = opt(11500, "port to listen on (0: any free one)")
    seed: int = opt(0, "seed of answers and speeds")


@dataclass(kw_only=True)
class SuitesOptions:
    """List the suites that ship."""


@dataclass(kw_only=True)
class DemoOptions:
    """Run a small load, in under 90 seconds: against the Ollama that is there, else against the simulated server."""

    db: str = opt("structbench.duckdb", "file for the results")


def load(options: LoadOptions) -> int:
    from rich.console import Console

    from structbench.live import Display
    from structbench.runner import Stop
    from structbench.runner import load as run

    console = Console(stderr=options.json)
    stop = Stop()
    with _signals(stop):
        display = Display(console, quiet=options.quiet)
        report = partial(_report, options=options, console=console)
        summary = run(options, display=display, stop=stop, report=report)
    for line in summary.planned:
        print(line, file=console.file)
    if options.json and summary.planned:
        _print_json({"cells": summary.planned})
    return summary.exit_code


def _report(summary: "Summary", options: LoadOptions, console: "Console") -> None:
    """The table, and, for --json, the same as JSON on stdout."""
    from structbench.report import print_overview, print_table, to_json

    print_table(summary.rows, console)
    print_overview(summary.rows, summary.total_s, console)
    for failure in summary.failures:
        _complain(failure)
    if summary.interrupted or summary.failures:
        command = ["structbench", "load", *as_arguments(replace(options, skip_cached=True))]
        _complain(f"to continue: {shlex.join(command)}")
    print(f"every request is in {summary.db}", file=console.file)
    if options.json:
        _print_json(to_json(summary.rows, summary.total_s))


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=2), flush=True)


def simulate(options: SimulateOptions) -> int:
    from loadgen.simulator import run_simulator
    from structbench.suites import answer_book

    def ready(url: str) -> None:
        print(f"simulated Ollama server at {url}; Ctrl-C ends it\ntry: structbench load --host {url} --models sim:fast")
        sys.stdout.flush()

    try:
        book = answer_book(options.seed)
        run_simulator(host=options.host, port=options.port, seed=options.seed, answers=book, on_ready=ready)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise BadInput(f"cannot listen on {where} ({error.strerror or error}): give another --port") from None
    return 0


def suites(_options: SuitesOptions) -> int:
    from structbench.suites import describe_suites

    print(f"{'suite':<10}{'cases':>10}{'requests':>10}  what")
    for name, cases, requests, text in describe_suites():
        print(f"{name:<10}{cases:>10}{requests:>10}  {text}")
    print("A path to a .jsonl file is a suite too: see docs/suites.md.")
    return 0


def demo(options: DemoOptions) -> int:
    from structbench.demo import LIMIT_S, demo_options

    chosen, text = demo_options(options.db)
    print(text, flush=True)
    time_is_up = monotonic() + LIMIT_S
    signal.alarm(LIMIT_S)
    code = load(chosen)
    signal.alarm(0)
    if code == 130 and monotonic() >= time_is_up:
        print(f"The demo ends after {LIMIT_S} s: this server is slow. `structbench load` has no such limit.")
        return 0
    return code


COMMANDS: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "load": (LoadOptions, load),
    "simulate": (SimulateOptions, simulate),
    "suites": (SuitesOptions, suites),
    "demo": (DemoOptions, demo),
}


def main(argv: Sequence[str]) -> int:
    """Run one command; the exit code."""
    try:
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(_overview())
            return 0 if argv else 2
        if argv[0] in ("-V", "--version"):
            print(f"structbench {__version__}")
            return 0
        if argv[0] not in COMMANDS:
            raise BadInput(f"there is no command {argv[0]!r}: {_nearest(argv[0], COMMANDS)}")
        options_class, run = COMMANDS[argv[0]]
        return run(_parse(argv[0], options_class, argv[1:]))
    except StructbenchError as error:
        _complain(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _complain("interrupted; what was measured is kept, and --skip-cached continues it")
        return 130


def entry() -> NoReturn:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal may not know every sign
    sys.exit(main(sys.argv[1:]))


def _parse(command: str, options_class: type[Any], argv: Sequence[str]) -> Any:
    from argparse_dataclass import ArgumentParser

    class Parser(ArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            unknown = message.removeprefix("unrecognized arguments: ")
            if unknown != message:
                known = [f"--{field.name.replace('_', '-')}" for field in fields(options_class)]
                message = f"there is no option {unknown.split()[0]}: {_nearest(unknown.split()[0], known)}"
            raise BadInput(f"{message} (see `structbench {command} --help`)")

    parser = Parser(options_class, prog=f"structbench {command}", description=options_class.__doc__, allow_abbrev=False)
    by_name = {field.name: field for field in fields(options_class)}
    for action in parser._actions:
        if action.dest in by_name:
            action.help = _help(by_name[action.dest], action.help or "")
    return parser.parse_args(list(argv))


def _help(field: "Field[Any]", text: str) -> str:
    """The help text with its default, where the text does not tell it and there is one to tell."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if "(default" in text or default is None or default is False or default == []:
        return text.replace("%", "%%")
    shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    return f"{text} (default: {shown})".replace("%", "%%")


def _overview() -> str:
    lines = [f"structbench {__version__}: load an LLM server and know whether its answers were right", "",
             "usage: structbench COMMAND [OPTIONS]     structbench COMMAND --help", ""]  # fmt: skip
    for name, (options_class, _) in COMMANDS.items():
        lines.append(f"  {name:<10}{options_class.__doc__}")
    codes = "exit codes: 0 done · 1 the run failed · 2 bad input, nothing sent · 130 interrupted"
    return "\n".join([*lines, "", codes])


def _nearest(word: str, known: Sequence[str] | dict[str, Any]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def _complain(text: str) -> None:
    print(f"structbench: {text}", file=sys.stderr, flush=True)


@contextmanager
def _signals(stop: "Stop") -> Iterator[None]:
    """SIGINT, SIGTERM and the demo's alarm ask the run to end: see Stop."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.signal(number, lambda *_: stop.ask()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
