"""``structbench verify``: check that the file still says what was measured."""

from dataclasses import asdict, dataclass
from pathlib import Path

from structbench.commands import print_json
from structbench.options import opt

EXAMPLES = ("structbench verify",)


@dataclass(kw_only=True)
class Options:
    """Check the file: derive hashes, columns, counts and verdicts again, and report every mismatch."""

    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)
    json: bool = opt(False, "print JSON")


def run(options: Options) -> int:
    from structbench.formatting import plural
    from structbench.output import say
    from structbench.results.verify import problems
    from structbench.store import Reader

    with Reader(options.db) as reader:
        found = list(problems(reader))
        sql = "SELECT (SELECT count(*) FROM runs) AS runs, (SELECT count(*) FROM requests) AS requests"
        (counts,) = reader.query(sql)
    if options.json:
        print_json({**counts, "problems": [asdict(problem) for problem in found]})
        return 1 if found else 0
    for problem in found:
        say(f"does not hold: {problem.what} ({problem.count:,}x, e.g. {problem.example})")
    checked = f"checked {plural(counts['runs'], 'run')} and {plural(counts['requests'], 'request')} in {options.db}"
    say(f"{checked}: found {plural(len(found), 'problem')}"
          if found else f"{checked}: everything holds")  # fmt: skip
    return 1 if found else 0
