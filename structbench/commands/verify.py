"""``structbench verify``: does the file still say what was measured?"""

from dataclasses import asdict, dataclass
from pathlib import Path

from structbench.commands import print_json
from structbench.options import opt


@dataclass(kw_only=True)
class Options:
    """Derive again what follows from something else (hashes, columns, counts, verdicts), and say what does not hold."""

    db: Path = opt(Path("structbench.duckdb"), "file with the results", type=Path)
    json: bool = opt(False, "as JSON")


def run(options: Options) -> int:
    from structbench.formatting import plural, printable
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
        print(f"does not hold: {problem.what} ({problem.count:,}x, e.g. {printable(problem.example)})")
    checked = f"{plural(counts['runs'], 'run')} and {plural(counts['requests'], 'request')} of {options.db} checked"
    print(f"{checked}: {plural(len(found), 'thing')} that should be true {'is' if len(found) == 1 else 'are'} not"
          if found else f"{checked}: everything holds")  # fmt: skip
    return 1 if found else 0
