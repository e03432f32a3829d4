"""``structbench stats``: count what the file holds."""

from dataclasses import dataclass
from pathlib import Path

from structbench.commands import print_json
from structbench.options import opt

_COUNTS = """
SELECT count(*) AS runs, count(*) FILTER (WHERE status = 'complete') AS complete_runs,
    count(*) FILTER (WHERE status = 'interrupted') AS interrupted_runs,
    count(*) FILTER (WHERE status = 'running') AS running_runs,
    count(DISTINCT config_hash) FILTER (WHERE status = 'complete' AND forgotten IS NOT true) AS completed_cells,
    coalesce(list(DISTINCT model ORDER BY model) FILTER (model IS NOT NULL), []) AS models,
    coalesce(list(DISTINCT suite ORDER BY suite) FILTER (suite IS NOT NULL), []) AS suites,
    min(started_at) AS first_started_at, max(started_at) AS last_started_at
FROM runs
"""
_REQUESTS = "SELECT count(*) AS requests, count(*) FILTER ({}) AS errors FROM requests"
_LOOKUPS = """
SELECT count(*) AS lookups, count(*) FILTER (WHERE result = 'hit') AS hits,
    count(*) FILTER (WHERE result = 'partial') AS continued FROM lookups
"""


EXAMPLES = ("structbench stats",)


@dataclass(kw_only=True)
class Options:
    """Count what the file holds: completed cells, models, suites, requests, cache hits, size."""

    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)
    json: bool = opt(False, "print JSON")


def run(options: Options) -> int:
    from structbench.formatting import ABSENT, bytes_text, plural, share_text
    from structbench.metrics import FAILED
    from structbench.output import say
    from structbench.store import Reader

    with Reader(options.db) as reader, reader.together():
        (runs,), (requests,), (lookups,) = (reader.query(sql) for sql in (_COUNTS, _REQUESTS.format(FAILED), _LOOKUPS))
    hit_rate = lookups["hits"] / lookups["lookups"] if lookups["lookups"] else None
    size = options.db.stat().st_size
    if options.json:
        print_json({**runs, **requests, **lookups, "cache_hit_rate": hit_rate, "bytes": size})
        return 0
    first, last = (ABSENT if (at := runs[key]) is None else f"{at:%Y-%m-%d %H:%M}"
                   for key in ("first_started_at", "last_started_at"))  # fmt: skip
    looked_up = f"{share_text(hit_rate)} of {plural(lookups['lookups'], 'look-up')} by --skip-cached"
    lines = {
        "file": f"{options.db}, {bytes_text(size)}",
        "runs": f"{runs['runs']:,}: {runs['complete_runs']:,} complete, {runs['interrupted_runs']:,} interrupted, "
                f"{runs['running_runs']:,} running",
        "completed cells": f"{runs['completed_cells']:,}",
        "models": ", ".join(runs["models"]),
        "suites": ", ".join(runs["suites"]),
        "requests": f"{requests['requests']:,}, {requests['errors']:,} of them failed",
        "cache hits": looked_up if lookups["lookups"] else "no load with --skip-cached yet",
        "started": f"{first} to {last} UTC",
    }  # fmt: skip
    for name, text in lines.items():
        say(f"{name:<17}{text}")
    return 0
