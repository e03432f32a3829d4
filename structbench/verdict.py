"""Judges the client by what it measured of itself; a slow or failing server makes no run invalid. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from errno import EMFILE
from os import strerror
from typing import Any, Literal

from loadgen.telemetry.histogram import Histogram, buckets_of, explicit
from loadgen.telemetry.instruments import LAG_BUCKETS
from loadgen.types import NS, RequestRecord

VerdictWord = Literal["valid", "degraded", "invalid"]

NO_MORE_FILES = strerror(EMFILE)
"""The system's message when this client may not open another socket."""

FACTS = f"""
WITH sent AS (
    SELECT segment, sent_ns, end_ns FROM requests WHERE run_id = $1 AND sent_ns IS NOT NULL
), full_from AS (
    SELECT segment, max(sent_ns) FILTER (WHERE n = concurrency) AS from_ns, max(sent_ns) AS to_ns
    FROM (SELECT segment, sent_ns, row_number() OVER (PARTITION BY segment ORDER BY sent_ns) AS n FROM sent)
        CROSS JOIN (SELECT concurrency FROM runs WHERE run_id = $1)
    GROUP BY segment HAVING count(*) >= 3 * any_value(concurrency)
), held AS (
    SELECT segment, from_ns, to_ns, sum(greatest(0, least(end_ns, to_ns) - greatest(sent_ns, from_ns))) AS held_ns
    FROM sent JOIN full_from USING (segment) GROUP BY segment, from_ns, to_ns
)
SELECT count(*) AS requests, coalesce(max(request_index) + 1, 0) AS reached,
    count(*) FILTER (WHERE error_kind IS NULL) AS completed,
    quantile_cont(send_lag_s, 0.99) AS send_lag_p99_s, quantile_cont(read_lag_max_s, 0.99) AS read_lag_p99_s,
    coalesce(sum(merged_chunks) / nullif(sum(chunks), 0), 0) AS merged_share,
    (SELECT sum(held_ns) / nullif(sum(to_ns - from_ns), 0) FROM held) AS in_flight_mean,
    (SELECT concurrency FROM runs WHERE run_id = $1) AS concurrency,
    count(*) FILTER (WHERE error_kind = 'rejected') AS rejected,
    count(*) FILTER (WHERE contains(error_message, '{NO_MORE_FILES}')) AS no_more_files,
    count(*) FILTER (WHERE clock = 'read') AS read_clock, count(*) FILTER (WHERE error_kind = 'worker_died') AS died
FROM requests WHERE run_id = $1
"""
"""SQL for the facts that ``judge`` needs about a run; ``reached`` also counts second turns that never arose.

``in_flight_mean`` is of a closed loop's full part: from its Nth request sent to its last one sent; NULL for an open
loop and for fewer than 3 N requests.
"""

SEND_LAG_S = (0.010, 0.100)
"""99th percentile of sent - due above which a run is degraded, invalid."""
READ_LAG_S = (0.050, 0.500)
"""The same for each request's longest wait of received bytes: with kernel stamps it does not affect TTFT and ITL, but
it delays what the client does next."""
MERGED_SHARE = (0.02, 0.20)
"""Share of chunks whose own receive instant was lost."""

FULL_SHARE = (0.90, 0.60)
"""Mean share of a closed loop's concurrency that was in flight; below, the load was not the one asked for. Judged
only if nearly all requests completed: what a server refuses at once is in flight for no time."""
NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True)
class Verdict:
    word: VerdictWord
    reason: str | None = None


def judge(facts: Mapping[str, Any]) -> Verdict:
    """Return the worst verdict that the facts (a row of ``FACTS``) give reason for."""
    if not facts["completed"]:
        refused = facts["requests"] and facts["rejected"] == facts["requests"]
        return Verdict("invalid", "the server refused every request" if refused else "no request completed")
    found: list[tuple[VerdictWord, str]] = []

    def limit(value: float | None, limits: tuple[float, float], text: str) -> None:
        if value is not None and value > limits[0]:
            found.append(("invalid" if value > limits[1] else "degraded", text.format(ms=value * 1000, share=value)))

    limit(facts["send_lag_p99_s"], SEND_LAG_S,
          "requests were sent {ms:.0f} ms late (p99): use more cores or a lower rate")  # fmt: skip
    limit(facts["read_lag_p99_s"], READ_LAG_S,
          "this client was {ms:.0f} ms behind (p99): use more cores or fewer streams")  # fmt: skip
    limit(facts["merged_share"], MERGED_SHARE,
          "{share:.0%} of the chunks were read together with later ones, so ITL is coarse")  # fmt: skip
    in_flight, concurrency = facts["in_flight_mean"], facts["concurrency"]
    if in_flight is not None and facts["completed"] >= NEARLY_ALL * facts["requests"]:
        short = 1 - in_flight / concurrency
        text = f"{in_flight:.1f} of {concurrency} requests were in flight on average: use more cores or fewer streams"
        limit(short, (1 - FULL_SHARE[0], 1 - FULL_SHARE[1]), text)
    if facts["died"]:
        found.append(("degraded", f"{facts['died']} requests were lost when a worker process died"))
    if facts["no_more_files"]:
        text = (
            f"{facts['no_more_files']} requests failed because this client could not open more files: raise `ulimit -n`"
        )
        found.append(("invalid", text))
    if facts["read_clock"]:
        found.append(
            ("degraded", "times are those of the client's reads, not of arrival (TLS, a proxy, or no kernel stamps)")
        )
    for word in ("invalid", "degraded"):
        reasons = [reason for found_word, reason in found if found_word == word]
        if reasons:
            return Verdict(word, "; ".join(reasons))
    return Verdict("valid")


@dataclass(slots=True)
class VerdictSoFar:
    """The same facts, collected while the load runs: percentiles come from buckets whose bounds include the limits.

    How full the load was is not among them: that is known only after its last request was sent.
    """

    counts: Counter[str] = field(default_factory=Counter)
    send_lags: Histogram = field(default_factory=lambda: explicit(LAG_BUCKETS))
    read_lags: Histogram = field(default_factory=lambda: explicit(LAG_BUCKETS))

    def add(self, record: RequestRecord) -> None:
        """Add one finished request."""
        kind = None if record.error is None else record.error.kind
        self.counts.update(
            requests=1, completed=kind is None, rejected=kind == "rejected", died=kind == "worker_died",
            no_more_files=record.error is not None and NO_MORE_FILES in record.error.message,
            read_clock=record.clock == "read", chunks=len(record.chunk_ns), merged=record.merged_chunks,
        )  # fmt: skip
        if record.send_lag_s is not None:
            self.send_lags.add(record.send_lag_s)
        if record.read_lag_max_ns is not None:
            self.read_lags.add(record.read_lag_max_ns / NS)

    def verdict(self) -> Verdict | None:
        """Return the verdict so far, or None before the first request has ended."""
        if not self.counts["requests"]:
            return None
        chunks = self.counts["chunks"]
        return judge({
            **self.counts,
            "send_lag_p99_s": buckets_of(self.send_lags, LAG_BUCKETS).quantile(0.99),
            "read_lag_p99_s": buckets_of(self.read_lags, LAG_BUCKETS).quantile(0.99),
            "merged_share": self.counts["merged"] / chunks if chunks else 0,
            "in_flight_mean": None,
            "concurrency": None,
        })  # fmt: skip
