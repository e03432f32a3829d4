"""``structbench suites``: list the suites, check your own, or begin a new one."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from structbench.errors import BadInput
from structbench.options import opt

if TYPE_CHECKING:
    from structbench.types import Case

KINDS = ("json", "tools")


EXAMPLES = (
    "structbench suites",
    "structbench suites new json -o mine.jsonl",
    "structbench suites check mine.jsonl",
)


@dataclass(kw_only=True)
class Options:
    """List the available suites, check your own (`check FILE`), or create a new one (`new json`)."""

    action: Optional[str] = opt(
        None, "list the available suites (default), check files for problems, or write a new example to start from",
        metavar="list|check|new", args=["action"],
    )  # fmt: skip
    what: list[str] = opt(
        (), "for check: .jsonl files or folders of schemas; for new: json or tools", many=True, args=["what"]
    )
    output: Optional[str] = opt(None, "for new: file to write (default: stdout)", args=["-o", "--output"])


def run(options: Options) -> int:
    if options.output is not None and options.action != "new":
        raise BadInput("--output is for `structbench suites new`: leave it out")
    match options.action:
        case None | "list":
            return _list(options.what)
        case "check":
            return _check(options.what)
        case "new":
            return _new(options.what, options.output)
        case other:
            raise BadInput(f"unknown action {other!r}: use list, check or new")


def _list(what: list[str]) -> int:
    from structbench.suites.catalog import describe_public, describe_suites

    if what:
        raise BadInput(
            f"`structbench suites list` takes no arguments, not {what[0]!r}: did you mean `structbench suites check`?"
        )
    print(f"{'suite':<10}{'cases':>10}  what")
    for name, cases, text in describe_suites():
        print(f"{name:<10}{cases:>10}  {text}")
    print()
    for name, count, text in describe_public():
        print(f"{name:<28}{'' if count is None else count:>6}  {text}")
    print()
    print("You can also give the path of a .jsonl file or a folder of schemas: see docs/suites.md and `suites new`.")
    return 0


def _check(what: list[str]) -> int:
    """Print each file's problems, or what it holds; raise BadInput at the end if there were any."""
    from structbench.formatting import plural
    from structbench.output import say
    from structbench.suites.catalog import check_suite
    from structbench.suites.shown import hidden_keywords, keyword_notes

    if not what:
        raise BadInput("name the files to check: structbench suites check mine.jsonl")
    problems = 0
    for name in what:
        found: list[str] = []
        cases: list[Case] = []
        for line in check_suite(name):
            found += line.problems
            cases += line.cases
        for text in found or [f"{name}: {_counts(cases)}"]:
            say(text)
        for keyword, tools in ({} if found else hidden_keywords(cases)).items():
            say(
                f"{name}: note: {plural(tools, 'tool')} with {keyword!r}: Ollama does not show it to the model, though "
                "calls are judged by it: say it in the description too"
            )
        for note in [] if found else keyword_notes(cases):
            say(f"{name}: note: {note}")
        problems += len(found)
    if problems:
        raise BadInput(f"{problems} problem{'s' if problems > 1 else ''} in {', '.join(what)}")
    return 0


def _counts(cases: "list[Case]") -> str:
    words = {"text": "plain"}
    kinds = Counter("second turn" if case.follows else words.get(case.kind, case.kind) for case in cases)
    tags = Counter(tag for case in cases for tag in case.tags)
    parts = [", ".join(f"{count} {kind}" for kind, count in kinds.items())]
    if tags:
        parts.append("tags " + ", ".join(f"{tag} {count}" for tag, count in sorted(tags.items())))
    return f"{len(cases)} case{'s' if len(cases) > 1 else ''} ({'; '.join(parts)})"


def _new(what: list[str], output: Optional[str]) -> int:
    from structbench.output import say
    from structbench.suites.catalog import new_suite

    if len(what) != 1 or what[0] not in KINDS:
        raise BadInput(f"name one kind of suite: structbench suites new {' | '.join(KINDS)}")
    text = new_suite(what[0])
    if output is None:
        print(text, end="")
        return 0
    try:
        with Path(output).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise BadInput(f"{output} already exists: name another file with -o, or remove it") from None
    except OSError as error:
        with suppress(OSError):
            Path(output).unlink()  # what got there of it
        raise BadInput(f"cannot write {output}: {error.strerror or error}") from None
    say(f"wrote an example to {output}: edit it, then run: structbench suites check {output}")
    return 0
