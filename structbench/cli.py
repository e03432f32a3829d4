"""The command line: the list of commands, each a module of ``structbench.commands``, and how their words are parsed."""

import errno
import logging
import os
import re
import shutil
import sys
import textwrap
from argparse import Action, HelpFormatter, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from importlib import import_module
from io import BufferedWriter, FileIO, TextIOWrapper
from types import ModuleType
from typing import Any, NoReturn

from loadgen.startup import collect_rarely, leave_out
from structbench import __version__
from structbench.errors import BadInput, StructbenchError
from structbench.formatting import did_you_mean, printable_lines
from structbench.options import LLMPERF, seconds_of, time_word
from structbench.output import complain

_INTERRUPTED_QUERY = "Query interrupted"
"""What DuckDB makes of KeyboardInterrupt while it works."""
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

COMMANDS = (
    "load", "capacity", "runs", "stats", "compare", "export", "import", "sql", "verify", "rescore", "clean",
    "clear-cache", "suites", "matrix", "simulate", "demo", "watch", "report", "calibrate", "completion",
)  # fmt: skip
"""The commands, in the order of the overview."""


def command_module(command: str) -> ModuleType:
    """Return the module of a command, which has ``Options`` and ``run``."""
    name = "import_" if command == "import" else command.replace("-", "_")
    return import_module(f"structbench.commands.{name}")


def main(argv: Sequence[str]) -> int:
    """Run one command and return its exit code."""
    try:
        if argv[:1] == ["help"] and len(argv) > 1:
            argv = [argv[1], "--help"]
        if not argv or argv[0] in ("-h", "--help", "help"):
            print(_overview())
            return 0 if argv else 2
        if argv[0] in ("-V", "--version"):
            print(f"structbench {__version__}")
            return 0
        if argv[0] not in COMMANDS:
            raise BadInput(f"unknown command {argv[0]!r}: {did_you_mean(argv[0], COMMANDS)}")
        command = command_module(argv[0])
        words = argv[1:]
        if argv[0] == "load":
            from structbench.run.plan_file import with_plan

            words = with_plan(words)
        options = parser_of(argv[0]).parse_args(words)
        more = [{name: parser_of(name, add_help=False) for name in COMMANDS}] if argv[0] == "completion" else []
        return int(command.run(options, *more))
    except StructbenchError as error:
        complain(str(error))
        return error.exit_code
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        complain(f"cannot write {error.filename or 'the output'}: {os.strerror(error.errno)}: free some space")
        return 1
    except (KeyboardInterrupt, RuntimeError) as error:
        if isinstance(error, RuntimeError) and str(error) != _INTERRUPTED_QUERY:
            raise
        continued = "; what was measured is stored, and --skip-cached continues it" if argv[:1] == ["load"] else ""
        complain(f"interrupted{continued}")
        return 130


def entry() -> NoReturn:
    """Run the command that the shell was given: the entry point of the console script."""
    collect_rarely()
    leave_out("trio")  # httpcore imports it if it is there, in 60 ms
    sys.stdout, sys.stderr = _outlet(sys.stdout), _outlet(sys.stderr)
    os.umask(os.umask(0o077) | 0o077)  # prompts and answers are their owner's
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_PlainFormatter())
    code = main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        complain(f"cannot write the output: {os.strerror(error.errno or 0)}")
        code = code or 1
    sys.exit(code)


class _PlainFormatter(logging.Formatter):
    """Writes warnings, which may name files and what servers say, so that they cannot drive the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


_NO_READER = (errno.EPIPE, errno.EIO, errno.ENXIO)


class _Outlet(TextIOWrapper):
    """A stream whose reader may go (``| head``, a closed terminal): the rest is dropped, the exit code stays.

    What else keeps it from being written, as a full disk, is raised once.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._let_go(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._let_go(error)

    def _let_go(self, error: OSError) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        super().flush()  # what is still in the buffers
        if error.errno not in _NO_READER:
            raise error


def _outlet(stream: Any) -> TextIOWrapper:
    at_once = stream.line_buffering or stream.write_through
    file = BufferedWriter(FileIO(stream.fileno(), "w", closefd=False))
    # "replace", since a terminal may not know every sign.
    return _Outlet(file, stream.encoding, "replace", line_buffering=at_once)


def parser_of(command: str, **more: Any) -> Any:
    """Return the parser of a command's words, with its help in groups and examples below it."""
    from argparse_dataclass import ArgumentParser

    module = command_module(command)
    options_class = module.Options

    class Parser(ArgumentParser):  # type: ignore[misc]
        def add_argument(self, *names: str, **more: Any) -> Any:
            if more.get("nargs") == "+":
                more["action"] = _Gather
            elif "action" not in more and "nargs" not in more and names[0].startswith("-"):
                more["action"] = _Once
            return super().add_argument(*names, **more)

        def error(self, message: str) -> NoReturn:
            unknown = message.removeprefix("unrecognized arguments: ")
            if unknown != message:
                known = [name for action in self._actions for name in action.option_strings]
                word = unknown.split()[0]
                llmperf = f"{LLMPERF[word]} (docs/llmperf.md)" if word in LLMPERF and "--models" in known else None
                near = llmperf or did_you_mean(word, known, otherwise="")
                message = f"unknown option {word}{f': {near}' if near else ''}"
                if not word.startswith("-"):
                    message = f"{word!r} belongs to no option: leave it out, or give its --option before it"
            raise BadInput(f"{_plain(message, self._actions)} (see `structbench {command} --help`)")

    parser = Parser(
        options_class, prog=f"structbench {command}", description=options_class.__doc__, allow_abbrev=False,
        formatter_class=_Formatter, epilog="\n".join(["examples:", *(f"  {each}" for each in module.EXAMPLES)]), **more,
    )  # fmt: skip
    by_name = {field.name: field for field in fields(options_class)}
    for action in parser._actions:
        if action.dest in by_name:
            action.help = _help(by_name[action.dest], action.help or "")
            action.metavar = action.metavar or _METAVARS.get(action.type)
    if groups := getattr(options_class, "GROUPS", {}):
        parser.usage = f"structbench {command}{' [PLAN.toml]' if command == 'load' else ''} [OPTIONS]"
        _group(parser, groups)
    return parser


def _group(parser: Any, groups: Mapping[str, Sequence[str]]) -> None:
    """Show the options in groups; one that is in none stays among the others."""
    by_name = {action.dest: action for action in parser._actions}
    for title, names in groups.items():
        group = parser.add_argument_group(title)
        for name in names:
            parser._optionals._group_actions.remove(by_name[name])
            group._group_actions.append(by_name[name])


_METAVARS = {int: "N", float: "NUMBER"}
_WANTED = {"int": "a whole number", "float": "a number"}


def _plain(message: str, actions: Sequence[Action]) -> str:
    """Return argparse's complaint as ours: what was given, and what to give."""
    if not (found := re.fullmatch(r"argument ([^\s:/]+)\S*: (.*)", message)):
        return re.sub("the following arguments are required: (.*)", r"give \1 too", message)
    name, what = found.groups()
    if kind := re.match(r"invalid (int|float) value: (.*)", what):
        return f"{name} {kind[2]}: give {_WANTED[kind[1]]}"
    if word := re.match(r"invalid choice: '(.*?)'", what):
        if (llmperf := LLMPERF.get(f"{name} {word[1]}")) is not None:
            return f"{name} {word[1]}: {llmperf} (docs/llmperf.md)"
        choices = next((each.choices for each in actions if name in (*each.option_strings, each.dest)), None)
        return f"{name} {word[1]}: {did_you_mean(word[1], map(str, choices or ()), cutoff=0.6)}"
    return f"{name}: give a value" if re.match("expected (one|at least one) argument", what) else message


class _Formatter(HelpFormatter):
    """Wraps the description, and leaves the examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


class _Gather(Action):
    """Collect the values of an option that takes several and may be given several times."""

    def __call__(self, _parser: Any, into: Namespace, values: Any, _name: str | None = None) -> None:
        before = getattr(into, self.dest, None)
        setattr(into, self.dest, [*before, *values] if isinstance(before, list) else list(values))


class _Once(Action):
    """Keep the value of an option that takes one; given twice, both must be the same."""

    before: tuple[Namespace, Any] | None = None

    def __call__(self, parser: Any, into: Namespace, value: Any, name: str | None = None) -> None:
        if self.before is not None and self.before[0] is into and self.before[1] != value:
            parser.error(f"{name} is given twice, {self.before[1]} and {value}: leave one out")
        self.before = into, value
        setattr(into, self.dest, value)


def _help(field: "Field[Any]", text: str) -> str:
    """Return the help text, with the default added unless the text has it or there is none."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if "(default" in text or default is None or default is False or default in ([], ""):
        return text.replace("%", "%%")
    if isinstance(default, float):
        shown = time_word(default) if field.metadata.get("read") is seconds_of else f"{default:g}"
    else:
        shown = " ".join(map(str, default)) if isinstance(default, list) else str(default)
    return f"{text} (default: {shown})".replace("%", "%%")


def _overview() -> str:
    width = max(60, shutil.get_terminal_size().columns - 1)
    told = [(name, command_module(name).Options.__doc__.splitlines()[0]) for name in COMMANDS]
    codes = "exit codes: 0 done · 1 the run failed · 2 bad input, nothing sent · 99 a gate failed · 130 interrupted"
    return "\n".join((
        f"structbench {__version__}: load-test an LLM server and find out whether its answers are right", "",
        "usage: structbench COMMAND [OPTIONS]     structbench help COMMAND", "",
        *(textwrap.fill(text, width, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15)
          for name, text in told),
        "", textwrap.fill(codes, width),
    ))  # fmt: skip
