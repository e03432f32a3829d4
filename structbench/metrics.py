"""The one table of metrics: what each is called, what a request adds to it, how it is written, where it is shown.

A new metric is a row here and, where it needs one, a column of ``requests``. ``gates.expressions`` parses the names,
``results`` and ``comparison`` compute by the SQL, ``reports`` write by kind and label, ``run`` gives the instruments to
``loadgen.telemetry``, ``grafana`` and ``watch`` look for them. docs/methods.md has the formulas. Light to import.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import BY_NAME, Instrument
from loadgen.types import GATHERED, LEAST_EVAL_NS, LONGER, LONGER_NS, MODEL_ERRORS, NEARLY_ALL, NS
from structbench.formatting import ABSENT, seconds_text, share_text, significant
from structbench.strict_json import stored

if TYPE_CHECKING:
    from loadgen.types import RequestRecord
    from structbench.types import Score

Kind = Literal["latency", "rate", "share", "score"]
"""In seconds; per second; a share from 0 to 1; a number from -1 to 1."""
Counted = Literal["request", "scored answer", "gap"]
Row = Mapping[str, Any]
"""A row of ``requests``."""

PERCENTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
"""The percentiles that reports give for each latency."""
IS_GATHERED = f"coalesce(gathered_chunks > {GATHERED} * chunks, false)"
"""SQL: whether so many chunks of a request came together with others that they have no spacing."""
_SAID = "output_tokens - coalesce(done_reason = 'stop', false)::INT"
"""SQL: the output tokens less the one that ends an answer."""
IS_WHOLE = (
    f"(coalesce(chunks, 0) <= 1 AND coalesce({_SAID}, 2) > 1)"
    f" OR ({IS_GATHERED} AND e2e_s - ttft_s <= 0.001 + 0.01 * e2e_s)"
)
"""SQL: whether an answer came in one piece, as tool calls do, so that its TTFT is the time of the whole answer.

An answer of one token has a first one, however late the server's last message follows.
"""
IS_COVERED = "coalesce(covered, coalesce(chunks, 0) <= output_tokens, false)"
"""SQL: whether a request has a token count, and one of its whole stream."""
IS_EMPTY = "coalesce(chunks = 0, false)"
"""SQL: whether nothing came before the last message of a request: no text, no thinking, no call."""
THINKING_IS_HIDDEN = (
    "coalesce(CASE WHEN coalesce(thinking_tokens, 0) = 0"
    f" THEN thinking_partial AND chunks < {NEARLY_ALL} * output_tokens"
    " ELSE output_tokens IS NOT NULL AND (coalesce(thinking_partial, false) OR first_thinking_s IS NULL"
    " AND NOT regexp_matches(coalesce(output_text, ''), '^<(think|thought)')) END, false)"
)
"""SQL: whether tokens of thinking are counted that are in no chunk, or in none as they were made."""
IS_UNLIKELY = (
    f"coalesce(eval_s < {LEAST_EVAL_NS / NS} * (output_tokens - 1)"
    f" OR coalesce(load_s, 0) + coalesce(prompt_eval_s, 0) + eval_s > {LONGER} * e2e_s + {LONGER_NS / NS}, false)"
)
"""SQL: whether the server's durations cannot be those of a request: longer than it took, or next to nothing."""
CAME_WHOLE = (
    "(coalesce(chunks, 0) < 2 OR NOT coalesce(merged_chunks > 0, false)"
    f" AND (coalesce(gathered_chunks >= chunks - 1, false) OR itl_mean_s IS NULL AND NOT {IS_GATHERED}))"
)
"""SQL: whether an answer came in one piece, so that nobody waited between its tokens."""
_UNIT = re.compile(r" ?(ms|s|%|/s)$")
SHARE_BUCKETS = (0.0, 0.25, 0.5, 0.75, 0.99, 1.0)
YES_NO_BUCKETS = (0.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A row of the table, or one figure of a latency (a percentile or the mean) as expressions name it."""

    name: str
    """``ttft``; as a figure ``ttft_p95``, ``ttft_mean``."""
    base: str
    """The name of the table's row, also for a figure of it."""
    kind: Kind
    label: str
    """The name people read: ``TTFT``, ``TTFT p95``."""
    narrow: str = ""
    """The label for a narrow column, unless it is simply the label with one word per line."""
    sql: str
    """SQL: what a row of ``requests`` adds; NULL does not count. ``{good}``: whether it keeps the goodput limits."""
    adds: Callable[[Row, bool | None], float | None]
    """The same in Python, from a row and whether it is good (None: unknown)."""
    column: str = ""
    """The column of ``requests`` that a row adds, if it is one column."""
    n_sql: str = ""
    """SQL for n over rows, where n is not the number of rows that count."""
    counts: Counted = "request"
    """What n counts."""
    scored: str = ""
    """The column of the view ``summary`` that holds n."""
    lower_is_better: bool = False
    all_of: str = ""
    """SQL: which rows must each add to a sum, or it is unknown."""
    without_sql: str = "false"
    """SQL: whether a completed answer that lacks this latency keeps a limit on it; NULL if nobody can tell."""
    without: Callable[[Row], bool | None] = lambda _: False
    """The same in Python."""
    only_where: str = ""
    """The column of ``summary`` that must be nonzero for some run, or tables omit this metric."""
    title: str = ""
    """The title of a latency in charts; without one it has no chart."""
    shown: tuple[str, ...] = ()
    """The percentiles of a latency shown in ``summary`` and reports."""
    compared: tuple[str, ...] = ()
    """The percentiles that ``compare`` tests: each test costs the others power."""
    brief: tuple[str, ...] = ()
    """The percentiles in a report for a pull request."""
    benchstat: str = ""
    """The unit in Go benchmark output; without one it is not exported there."""
    instrument: Instrument | None = None
    """The histogram that records it while a load runs."""
    p: float | None = None
    """For a figure of a latency: the quantile from 0 to 1; None: the mean."""

    @property
    def key(self) -> str:
        """Return the key in JSON: ``ttft_s``, ``correct``."""
        return f"{self.base}_s" if self.kind == "latency" else self.name

    @property
    def header(self) -> str:
        """Return the header of a narrow column."""
        return self.narrow or self.label.replace(" ", "\n")

    @property
    def columns(self) -> tuple[str, ...]:
        """Return its columns in the view ``summary``; that of ``correct`` is a count there."""
        return tuple(f"{self.name}_{p}_s" for p in self.shown) if self.kind == "latency" else (self.name,)

    @property
    def may_be_absent(self) -> bool:
        """Return whether an answer may lack this latency without breaking a limit on it."""
        return self.without_sql != "false"

    @property
    def unknown_sql(self) -> str:
        """Return SQL: whether a completed answer lacks this latency though it should have it."""
        return f"{self.column} IS NULL AND ({self.without_sql}) IS NOT TRUE"

    def at(self, word: str) -> Metric:
        """Return a latency's figure at ``p95``, ``p99.9`` or ``mean``."""
        p = None if word == "mean" else float(Decimal(word[1:]) / 100)
        return replace(self, name=f"{self.name}_{word}", label=f"{self.label} {word}", p=p)

    def text(self, value: float | None, more: int = 0) -> str:
        """Format a value in the metric's unit, with ``more`` extra digits: ``84.1 ms``, ``95.0 %``, ``3.20/s``."""
        match self.kind:
            case "latency":
                return seconds_text(value, 3 + more)
            case "share":
                return share_text(value, 1 + more)
            case "rate":
                return ABSENT if value is None else f"{significant(value, 3 + more)}/s"
            case "score":
                return ABSENT if value is None else f"{value:.{2 + more}f}"

    def brief_text(self, value: float | None) -> str:
        """Format a value with two significant digits; a share above 99 % with one of what it lacks."""
        if self.kind == "share" and value is not None:
            return share_text(value, 0 if value in (0, 1) or 0.095 <= value <= 0.99 else 1)
        return self.text(value, -1)

    def range_text(self, low: float | None, high: float | None, *, brief: bool = False) -> str:
        """Format an interval in the metric's unit, ``280–400 ms``; an empty text without both ends or a width."""
        if low is None or high is None or low == high:
            return ""
        first, last = (self.brief_text(end) if brief else self.text(end) for end in (low, high))
        unit = _UNIT.search(last)
        if unit is None or not first.endswith(unit[0]):
            return f"{first} – {last}"
        return f"{first.removesuffix(unit[0])}–{last}"


_NO_FAILURES = (*MODEL_ERRORS, "cancelled")
FAILED = f"coalesce(error_kind NOT IN {_NO_FAILURES}, false)"
"""SQL: whether the server or this client failed, and not the model, whose failures are scored."""
MEASURED = "error_kind IS NULL AND steady IS NOT FALSE"
"""SQL: whether latencies are of this request: it completed, and was sent while the load was the one asked for."""
COUNTED = f"error_kind IS NULL AND ended_steady IS NOT FALSE AND NOT {IS_EMPTY}"
"""SQL: whether rates count this request: it was answered, in the time that ``rate_s`` of ``run_durations`` is of.

Both are NULL, and so of every request, in runs without a steady part and in those of earlier versions. Scores and the
error rate are of all requests: whether an answer is right does not depend on when it was asked for.
"""


_COMPLETED = f"count(*) FILTER (WHERE {COUNTED})"
_IN_TIME = "ended_steady IS NOT FALSE"


def total_sql(metric: Metric, each: str) -> str:
    """Return SQL for the sum over rows of what ``each`` adds to a rate, NULL where that is not known."""
    total, of = f"sum({each})", metric.all_of
    return f"CASE WHEN count({each}) = count(*) FILTER (WHERE {of}) THEN {total} END" if of else total


def n_sql(metric: Metric, each: str) -> str:
    """Return SQL for n over rows, each of which adds ``each``."""
    return metric.n_sql or f"count({each})"


def _is_completed(row: Row) -> bool:
    return row["error_kind"] is None


def _is_counted(row: Row) -> bool:
    return row.get("ended_steady") is not False


def _is_covered(row: Row) -> bool:
    if row.get("covered") is not None:
        return bool(row["covered"])
    return row["output_tokens"] is not None and (row.get("chunks") or 0) <= row["output_tokens"]


def _is_answered(row: Row) -> bool:
    return _is_completed(row) and row.get("chunks") != 0


def _came_whole(row: Row) -> bool:
    chunks, gathered = row.get("chunks") or 0, row.get("gathered_chunks") or 0
    if chunks < 2 or row.get("merged_chunks"):
        return chunks < 2
    return gathered >= chunks - 1 or (row["itl_mean_s"] is None and gathered <= GATHERED * chunks)


def _covered_tokens(row: Row, _: bool | None) -> float | None:
    return row["output_tokens"] if _is_answered(row) and _is_counted(row) and _is_covered(row) else None


def _is_failed(row: Row) -> bool:
    return row["error_kind"] is not None and row["error_kind"] not in _NO_FAILURES


def _latency(name: str, label: str, column: str, **more: Any) -> Metric:
    """Return a latency over ``MEASURED`` requests only; a failed one may have a first chunk too."""
    return Metric(
        name=name, base=name, kind="latency", label=label, column=column, lower_is_better=True,
        sql=f"CASE WHEN {MEASURED} THEN {column} END",
        adds=lambda row, _: row[column] if _is_completed(row) and row.get("steady") is not False else None, **more,
    )  # fmt: skip


def _score(name: str, label: str, column: str, kind: Kind = "share", **more: Any) -> Metric:
    """Return a metric that is the mean of a column over the answers that have it."""
    return Metric(
        name=name, base=name, kind=kind, label=label, column=column, counts="scored answer",
        sql=f"{column}::DOUBLE", adds=lambda row, _: None if row[column] is None else float(row[column]), **more,
    )  # fmt: skip


def _is_right(row: Row, good: bool | None) -> float | None:
    if row["accuracy_score"] is None:
        return None
    return _as_number(good) if row["outcome"] == "correct" else 0.0


def _is_right_in_time(row: Row, good: bool | None) -> float | None:
    return _is_right(row, good) if _is_counted(row) else None


def _as_number(good: bool | None) -> float | None:
    return None if good is None else float(good)


_PACE: dict[str, Any] = {
    "without_sql": f"nullif({CAME_WHOLE}, false)", "without": lambda row: _came_whole(row) or None,
}  # fmt: skip
"""A pace between tokens: an answer in one piece has none to keep; of one in pieces that lacks it, nobody knows it."""


def _instrument(name: str, meaning: str, buckets: tuple[float, ...]) -> Instrument:
    return Instrument(f"structbench.{name}", "histogram", "1", meaning, (), buckets)


_TABLE = (
    _latency("ttft", "TTFT", "ttft_s", title="time to first token", shown=("p50", "p95", "p99"),
             compared=("p50", "p95"), brief=("p50", "p95"), benchstat="ttft-sec", instrument=BY_NAME[of.FIRST_CHUNK]),
    _latency("ttft_due", "TTFT from due", "ttft_due_s"),
    _latency("first_answer", "first answer", "first_answer_s", only_where="thinking",
             without_sql="first_tool_call_s IS NOT NULL",
             without=lambda row: row.get("first_tool_call_s") is not None,
             title="time to first token of the answer", shown=("p50", "p95"), compared=("p50", "p95"), brief=("p95",),
             benchstat="first-answer-sec", instrument=Instrument(
                 "structbench.first_answer", "histogram", "s", "Sent to first chunk with answer text (not thinking)",
                 (), of.LATENCY_BUCKETS)),
    _latency("itl", "ITL", "itl_mean_s", counts="gap", **_PACE, title="gap between chunks",
             shown=("p50", "p99"), compared=("p50", "p99"), brief=("p99",), benchstat="itl-sec",
             instrument=BY_NAME[of.CHUNK_GAP]),
    _latency("tpot", "TPOT", "tpot_s", **_PACE, title="time per output token", shown=("p50",),
             compared=("p50",), brief=("p50",), benchstat="tpot-sec"),
    _latency("e2e", "e2e", "e2e_s", title="whole answer", shown=("p50", "p95"), compared=("p50", "p95"),
             benchstat="e2e-sec", instrument=BY_NAME[of.DURATION]),
    _latency("e2e_due", "e2e from due", "e2e_due_s"),
    Metric(name="requests_per_s", base="requests_per_s", kind="rate", label="requests/s", benchstat="req/s",
           sql=f"({COUNTED})::BIGINT", adds=lambda row, _: float(_is_answered(row) and _is_counted(row)),
           n_sql=_COMPLETED),
    Metric(name="tokens_per_s", base="tokens_per_s", kind="rate", label="output tokens/s", column="output_tokens",
           benchstat="tok/s", sql=f"CASE WHEN {COUNTED} AND {IS_COVERED} THEN output_tokens END",
           all_of=COUNTED, adds=_covered_tokens, n_sql=_COMPLETED),
    Metric(name="goodput", base="goodput", kind="rate", label="goodput",
           sql=f"CASE WHEN {_IN_TIME} THEN ({{good}})::BIGINT END", all_of=_IN_TIME,
           n_sql=f"count(*) FILTER (WHERE {_IN_TIME})",
           adds=lambda row, good: _as_number(good) if _is_counted(row) else None),
    Metric(name="correct_goodput", base="correct_goodput", kind="rate", label="correct goodput", benchstat="correct/s",
           counts="scored answer", adds=_is_right_in_time,
           all_of=f"accuracy_score IS NOT NULL AND {_IN_TIME}",
           n_sql=f"count(accuracy_score) FILTER (WHERE {_IN_TIME})",
           sql=f"CASE WHEN accuracy_score IS NOT NULL AND {_IN_TIME}"
               " THEN (outcome = 'correct' AND {good})::BIGINT END"),
    _score("json_valid", "JSON valid", "json_valid", scored="json_scored",
           instrument=_instrument("json_valid", "Answer is JSON: 1, is not: 0", YES_NO_BUCKETS)),
    _score("schema_valid", "schema valid", "schema_valid", scored="schema_scored",
           instrument=_instrument("schema_valid", "Answer satisfies the schema: 1, does not: 0", YES_NO_BUCKETS)),
    _score("tool_call_accuracy", "tool calls right", "tool_call_accuracy", scored="tool_calls_scored",
           narrow="tools\nright",
           instrument=_instrument("tool_call_accuracy", "Share of one answer's tool calls that are right",
                                  SHARE_BUCKETS)),
    _score("accuracy", "accuracy", "accuracy_score", scored="scored", benchstat="accuracy",
           instrument=_instrument("accuracy", "Accuracy score of one answer, 0 to 1", SHARE_BUCKETS)),
    Metric(name="correct", base="correct", kind="share", label="correct", counts="scored answer", scored="scored",
           sql="CASE WHEN accuracy_score IS NOT NULL THEN (outcome = 'correct')::BIGINT::DOUBLE END",
           adds=lambda row, _: _is_right(row, True)),
    Metric(name="error_rate", base="error_rate", kind="share", label="errors", lower_is_better=True, scored="requests",
           sql=f"CASE WHEN error_kind IS DISTINCT FROM 'cancelled' THEN ({FAILED})::BIGINT::DOUBLE END",
           adds=lambda row, _: None if row["error_kind"] == "cancelled" else float(_is_failed(row))),
    _score("semantic_similarity", "similarity", "semantic_similarity", "score", narrow="simi-\nlarity",
           only_where="semantic_similarity"),
)  # fmt: skip


METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _TABLE}
ALIASES = {"tool_calls_right": "tool_call_accuracy"}
"""Earlier name -> current name; expressions accept both, and the view ``summary`` has a column for each."""


def of_kind(*kinds: Kind) -> tuple[Metric, ...]:
    """Return the metrics of these kinds, in table order."""
    return tuple(metric for metric in _TABLE if metric.kind in kinds)


LATENCIES: Mapping[str, Metric] = {metric.name: metric for metric in of_kind("latency")}
CHARTED = tuple(metric for metric in of_kind("latency") if metric.title)
SCORES = tuple(metric for metric in of_kind("share") if metric.counts == "scored answer")
"""The shares of scored answers that are right in some respect."""
COMPARED = tuple(
    figure for row in _TABLE for figure in ([row.at(p) for p in row.compared] if row.kind == "latency" else [row])
)
"""The figures that are always compared where both cells have them."""
_OBSERVED = tuple(
    (metric, metric.instrument) for metric in _TABLE if metric.instrument and metric.instrument.name not in BY_NAME
)
INSTRUMENTS = tuple(instrument for _, instrument in _OBSERVED)
"""The histograms that structbench adds to those of loadgen."""


def without_stream(figure: Metric) -> Metric:
    """Return what is told, and judged, of answers that came whole instead of this figure: e2e instead of TTFT."""
    if figure.base != "ttft":
        return figure
    return METRICS["e2e"].at(
        "mean" if figure.p is None else f"p{Decimal(str(figure.p)) * 100:f}".rstrip("0").rstrip(".")
    )


def metric_of(name: str) -> Metric | None:
    """Return the figure with this name, or None: ``ttft_p95``, ``itl_p99.9``, ``tpot_mean``, ``schema_valid``, …"""
    found = re.fullmatch(r"(\w+)_(p\d{1,3}(?:\.\d+)?|mean)", name)
    if found is not None and found[1] in LATENCIES:
        figure = LATENCIES[found[1]].at(found[2])
        return None if figure.p is not None and figure.p > 1 else figure
    metric = METRICS.get(ALIASES.get(name, name))
    return None if metric is None or metric.kind == "latency" else metric


def observed(record: RequestRecord, score: Score | None) -> dict[str, float]:
    """Return what a finished request adds to ``INSTRUMENTS``: name -> value, without those it lacks."""
    found: dict[str, float] = {}
    for metric, instrument in _OBSERVED:
        source = score if metric.kind == "share" else record if record.completed else None
        value = None if source is None else getattr(source, metric.column)
        if value is not None:
            found[instrument.name] = value
    return found


def is_good(row: Row, limits: Mapping[str, float]) -> bool | None:
    """Return whether a request completed within every goodput limit (column -> seconds), as ``good_sql`` does.

    None: it breaks none that it can be held against, and one of them cannot be judged.
    """
    kept = [
        row[column] <= limit if row[column] is not None else _BY_COLUMN[column].without(row)
        for column, limit in limits.items()
    ]
    if not _is_answered(row) or False in kept:
        return False
    return None if None in kept else True


def limits_of(text: str | None) -> dict[str, float] | None:
    """Return the goodput limits of a stored run (column -> seconds), without what is none of ours; None if it has none.

    They become SQL, and anybody may have written the file.
    """
    limits = stored(text)
    if not isinstance(limits, dict):
        return None
    return {column: float(limit) for column, limit in limits.items()
            if column in _BY_COLUMN and type(limit) in (int, float)}  # fmt: skip


def good_sql(limits: Mapping[str, str]) -> str:
    """Return SQL for whether a request completed within every limit (column -> limit as SQL, NULL for none)."""
    kept = [
        f"coalesce({column} <= {limit}, {limit} IS NULL OR {_BY_COLUMN[column].without_sql})"
        for column, limit in limits.items()
    ]
    return " AND ".join([f"error_kind IS NULL AND NOT {IS_EMPTY}", *kept])


def possibly(good: str) -> str:
    """Return SQL for whether a request may be good, of that for whether it is."""
    return f"coalesce({good}, true)"


_BY_COLUMN = {metric.column: metric for metric in LATENCIES.values()}
LIMITS_OF_RUN = ", ".join(
    f"try_cast(goodput_limits ->> '$.{column}' AS DOUBLE) AS max_{column}" for column in _BY_COLUMN
)
"""SQL columns to select from ``runs``: the limits that --goodput gave the run, for ``GOOD_OF_RUN``."""
GOOD_OF_RUN = good_sql({column: f"max_{column}" for column in _BY_COLUMN})


def gaps_sql(source: str, keys: str) -> str:
    """Return SQL for ``gap_us`` between chunks of ``MEASURED`` requests and how often each occurs, by ``keys``.

    Answers that came gathered have none.

    All gaps are too many to sort (150 a request), but whole microseconds repeat: a histogram is exact and small.
    """
    return f"""
    SELECT {keys}, later - earlier AS gap_us, count(*)::BIGINT AS n FROM (
        SELECT {keys}, unnest(chunk_offsets_us[1:-2]) AS earlier, unnest(chunk_offsets_us[2:]) AS later FROM {source}
        WHERE {MEASURED} AND NOT {IS_GATHERED} AND len(chunk_offsets_us) > 1
    ) GROUP BY ALL
    """
