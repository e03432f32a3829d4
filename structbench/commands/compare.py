"""``structbench compare``: select the runs of A and B, compare them and write the result."""

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Optional

from structbench.errors import GATE_FAILED, BadInput
from structbench.options import Readable, names_in, opt

if TYPE_CHECKING:
    from structbench.comparison.comparison import Result
    from structbench.results.groups import RunGroup
    from structbench.store import Reader


EXAMPLES = (
    "structbench compare before after",
    "structbench compare model=qwen3:4b model=llama3.2:1b",
)


@dataclass(kw_only=True)
class Options(Readable):
    """Compare two runs, labels, models, server versions or files; each difference has an interval and a verdict."""

    a: str = opt(
        "", "baseline: a run, a label, model=…, load=c=4, server=…, version=…, or another structbench file", args=["a"]
    )
    b: str = opt("", "what to compare with it, given the same way", args=["b"])
    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)
    only: list[str] = opt(
        (), "restrict both sides, e.g. suite=json load=c=4: each key is asked for", many=True, metavar="WORD"
    )
    across: list[str] = opt(
        (),
        "config fields allowed to differ, e.g. structured options (model and server always may)",
        many=True, metavar="FIELD", split=names_in,
    )  # fmt: skip
    fail_on: list[str] = opt(
        (),
        "exit with code 99 if B differs significantly by this much, e.g. ttft_p95>10% schema_valid<-2pp",
        many=True, metavar="METRIC>CHANGE",
    )  # fmt: skip
    slo: list[str] = opt(
        (),
        "the rule that each side is judged by, as in `report` (default: correct>=90% ttft_p95<=1s error_rate<=5%)",
        many=True, metavar="LIMIT",
    )  # fmt: skip
    goodput: Optional[str] = opt(
        None,
        "goodput limits for both sides, e.g. ttft<0.5,tpot<50ms (default: those stored with the runs)",
        metavar="METRIC<VALUE,…",
    )
    format: Literal["terminal", "markdown", "json"] = opt("terminal", "output format")
    output: Optional[Path] = opt(
        None, "file to write to (default: stdout)", type=Path, args=["-o", "--output"], metavar="FILE"
    )


def run(options: Options) -> int:
    from structbench.output import check_output

    if options.output is not None:
        check_output(options.output, "-o", [options.db, *(_file(word, options) for word in (options.a, options.b))])
    result = compared(options)
    _write(result, options)
    return GATE_FAILED if any(gate.is_missed for gate in result.gates) else 0


def compared(options: Options) -> "Result":
    """Return the comparison that the options ask for."""
    from structbench.comparison.comparison import compare
    from structbench.comparison.pairing import check_fields, pair
    from structbench.gates.expressions import parse_change, parse_limits
    from structbench.gates.slo import rule_of

    rule = rule_of(options.slo)
    changes = [parse_change(text) for text in options.fail_on]
    limits = None if options.goodput is None else parse_limits(options.goodput)
    check_fields(options.across)
    with ExitStack() as stack:
        sides = [_side(word, options, stack) for word in (options.a, options.b)]
        (reader_a, groups_a), (reader_b, groups_b) = sides
        ids_a, ids_b = ({run for group in groups for run in group.run_ids} for groups in (groups_a, groups_b))
        same = ids_a & ids_b
        if same:
            raise BadInput(f"{options.a} and {options.b} both include run {min(same)}: choose two that share no run")
        pairing = pair(groups_a, groups_b, options.across)
        if not pairing.pairs and not changes:
            names = [", ".join(dict.fromkeys(group.name for group in groups)) for groups in (groups_a, groups_b)]
            raise BadInput(f"A and B have no suite in common: A has {names[0]}; B has {names[1]}")
        return compare((reader_a, reader_b), pairing, changes, limits, rule)


def _file(word: str, options: Options) -> Path:
    """Return the file that a word names, or --db if the word selects runs in it."""
    is_file = Path(word).is_file() or Path(word).suffix == ".duckdb"
    return Path(word) if is_file else options.db


def _side(word: str, options: Options, stack: ExitStack) -> "tuple[Reader, list[RunGroup]]":
    """Return the runs that a word selects in --db, or all runs of the file that it names."""
    from structbench.results.groups import run_groups
    from structbench.results.selection import restricted, select_runs
    from structbench.store import Reader

    file = _file(word, options)
    reader = stack.enter_context(Reader(file))
    runs = select_runs(reader, [word] if file is options.db else [])
    if options.only:
        wanted = restricted(reader, options.only)
        runs = [run for run in runs if run in wanted]
        if not runs:
            raise BadInput(f"{word} has no run that matches --only {' '.join(options.only)}: leave --only out")
    return reader, run_groups(reader, runs, pool=True)


def _write(result: "Result", options: Options) -> None:
    from rich.console import Console

    from structbench.comparison.render import markdown, print_comparison, text_of, to_json
    from structbench.output import deliver

    if options.format == "terminal" and options.output is None:
        print_comparison(result, Console())
        return
    if options.format == "terminal":
        text = text_of(result)
    else:
        text = markdown(result) if options.format == "markdown" else json.dumps(to_json(result), indent=2) + "\n"
    deliver(text, options.output)
