"""Verifies a results file: derives again everything that follows from something else, and compares.

A problem names what does not hold, how often, and one place to look; nothing is repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loadgen.api.answer import APART_US, MOSTLY, MUCH_FURTHER, TOGETHER_US
from loadgen.types import APART_NS, FEW_CHUNKS, MANY_A_CHUNK, NS, SLOWER, UNSEEN_TOKENS
from structbench.identity import config_of
from structbench.metrics import FAILED, IS_GATHERED, IS_UNLIKELY, THINKING_IS_HIDDEN
from structbench.store import Reader
from structbench.store.rows import run_columns
from structbench.store.spool import count_lines, is_alive, orphaned_files
from structbench.store.upkeep import spool_of
from structbench.store.views import gap_percentiles_of
from structbench.verdict import facts_of, judge


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not hold; ``example`` names a run or request, or the value found and the one expected."""

    what: str
    count: int
    example: str


_COUNTED = f"""
SELECT *, streamed_tokens - (coalesce(done_reason, '') = 'stop' AND len(counted) < streamed_tokens)::BIGINT AS tokens,
    (counted[-1] - counted[1]) / 1e6 AS counted_s
FROM (SELECT *, CASE
        WHEN hidden AND thinking_partial THEN CASE WHEN thinking_tokens > 0 THEN
            [o FOR o IN chunk_offsets_us IF o > least(first_answer_s, first_tool_call_s) * 1e6 - 0.9995] END
        WHEN chunks <= streamed_tokens THEN chunk_offsets_us
        WHEN first_thinking_s IS NOT NULL AND NOT hidden
        THEN [o FOR o IN chunk_offsets_us IF o > first_answer_s * 1e6 - 0.9995]
    END AS counted
    FROM (SELECT *, {THINKING_IS_HIDDEN} AS hidden,
            output_tokens - CASE WHEN hidden AND thinking_tokens <= output_tokens THEN thinking_tokens ELSE 0 END
                AS streamed_tokens
        FROM requests))
"""
"""The requests, with the chunks that the server's token count is of and the tokens in them."""
_BYTES = (
    "(strlen(coalesce(output_text, '')) + strlen(coalesce(thinking_text, ''))"
    " + CASE WHEN len(coalesce(tool_calls::VARCHAR, '')) > 2 THEN strlen(tool_calls::VARCHAR) ELSE 0 END)"
)
_OVERCOUNTED = (
    f"coalesce({_BYTES} BETWEEN 1 AND output_tokens - CASE WHEN {THINKING_IS_HIDDEN} THEN"
    f" coalesce(nullif(thinking_tokens, 0), output_tokens) ELSE 0 END - {UNSEEN_TOKENS + 1}, false)"
)
_OF_SECOND_PASS = (
    "coalesce(eval_s > 0 AND first_thinking_s IS NOT NULL AND first_answer_s IS NOT NULL AND chunks <= output_tokens"
    f" AND (chunk_offsets_us[-1] - chunk_offsets_us[1]) / 1e6 > {SLOWER} * eval_s + {APART_NS / NS}, false)"
)
_SPAN_S = "(chunk_offsets_us[-1] - chunk_offsets_us[1]) / 1e6"
_GAPS_UP_TO = (
    "[chunk_offsets_us[i + 1] - chunk_offsets_us[i] FOR i IN range(1, coalesce(len(chunk_offsets_us), 0))"
    " IF chunk_offsets_us[i + 1] - chunk_offsets_us[i] <= {}]"
)
_RANGE_US = "(chunk_offsets_us[-1] - chunk_offsets_us[1])"


def _together(near_us: int) -> str:
    """Return SQL: how many gaps are at most so long, if what came together came further apart; else NULL."""
    near = f"len({_GAPS_UP_TO.format(near_us)})"
    apart = f"{_RANGE_US} / (chunks - {near} - 1)"
    if near_us == TOGETHER_US[-1]:
        is_apart = f"{APART_US} < CASE WHEN {near} = chunks - 1 THEN chunk_offsets_us[1] ELSE {apart} END"
    else:
        is_apart = (
            f"chunks - {near} > 1 AND {apart} > {max(APART_US, MUCH_FURTHER * near_us)}"
            f" AND list_sum({_GAPS_UP_TO.format(near_us)}) <= {MOSTLY} * {_RANGE_US}"
        )
    return f"CASE WHEN {near} > 0 AND {is_apart} THEN {near} END"


_TOGETHER = [_together(near_us) for near_us in TOGETHER_US]
_APART = f"chunks > 1 AND ({{}} IS NOT NULL OR {_SPAN_S} > 0)"
"""Chunks that all came at one instant have no time between tokens, though offsets are too coarse to tell."""
_US = "1.001e-6"
"""The tolerance for values derived from offsets, which are truncated to whole microseconds."""
_DERIVED: dict[str, tuple[str, str]] = {
    "send_lag_s": ("(sent_ns - due_ns) / 1e9", "1e-9"),
    "ttft_s": ("chunk_offsets_us[1] / 1e6", _US),
    "ttft_due_s": ("ttft_s + send_lag_s", "1e-9"),
    "e2e_s": ("CASE WHEN error_kind IS NULL AND chunks > 0 THEN (end_ns - sent_ns) / 1e9 END", "1e-9"),
    "e2e_due_s": ("CASE WHEN error_kind IS NULL AND chunks > 0 THEN (end_ns - due_ns) / 1e9 END", "1e-9"),
    "chunks": ("coalesce(len(chunk_offsets_us), 0)", "0"),
    "gathered_chunks": (
        f"CASE WHEN chunks > 1 THEN greatest(0, coalesce({_TOGETHER[0]}, {_TOGETHER[1]}, {_TOGETHER[2]}, 0)"
        " - merged_chunks) ELSE 0 END",
        "0",
    ),
    "itl_mean_s": (
        f"CASE WHEN {_APART.format('itl_mean_s')} AND NOT {IS_GATHERED} THEN {_SPAN_S} / (chunks - 1) END",
        _US,
    ),
    "tpot_s": (
        f"""CASE WHEN len(counted) BETWEEN 2 AND streamed_tokens AND tokens > 1 AND NOT {IS_GATHERED}
            AND (tpot_s IS NOT NULL OR counted_s > 0) AND NOT ({_OVERCOUNTED} OR {_OF_SECOND_PASS})
            AND NOT (len(counted) < {FEW_CHUNKS} AND tokens > {MANY_A_CHUNK} * len(counted)
                AND (coalesce(eval_s, 0) = 0 OR {IS_UNLIKELY}))
            AND counted_s > 0.95 * coalesce(eval_s, 0) / output_tokens * (tokens - 1) - 0.002
                + CASE WHEN tpot_s IS NULL THEN {_US} ELSE -{_US} END
            THEN counted_s / (tokens - 1) END""",
        _US,
    ),
    "client_tokens_per_s": ("1 / nullif(tpot_s, 0)", "1e-9 * client_tokens_per_s"),
    "server_tokens_per_s": (
        f"CASE WHEN NOT ({_OVERCOUNTED} OR {IS_UNLIKELY}) THEN output_tokens / nullif(eval_s, 0) END",
        "1e-9 * server_tokens_per_s",
    ),
    "queue_s": (
        "e2e_s - coalesce(connect_s, 0) - coalesce(load_s, 0) - prompt_eval_s - eval_s"
        f" + CASE WHEN coalesce(covered, NOT chunks > output_tokens, true) AND NOT {IS_UNLIKELY} THEN 0 END",
        "1e-9",
    ),
}
"""Column -> its formula (that of loadgen.types, as SQL, from raw columns), and the tolerance for rounding."""
_HOLDS: dict[str, str] = {
    "the first of the four firsts is ttft_s":
        "abs(least(first_thinking_s, first_answer_s, first_tool_call_s) - ttft_s) <= 1e-9 OR ttft_s IS NULL",
    "covered says whether the count is of the stream":
        f"covered IS NULL OR covered = (chunks <= output_tokens AND NOT {_OVERCOUNTED} AND NOT {_OF_SECOND_PASS})",
    "config_hash is its run's": "requests.config_hash = runs.config_hash",
    "no request ends before it was sent": "sent_ns IS NULL OR end_ns IS NULL OR end_ns >= sent_ns",
    "outcome is the error's kind, where no answer was scored":
        f"NOT {FAILED} AND error_kind IS DISTINCT FROM 'cancelled'"
        " OR (outcome = error_kind AND accuracy_score IS NULL)",
    "every request has an outcome": "outcome IS NOT NULL",
    "accuracy_score is from 0 to 1": "accuracy_score IS NULL OR accuracy_score BETWEEN 0 AND 1",
    "request_index is within the plan": "runs.planned IS NULL OR request_index BETWEEN 0 AND runs.planned - 1",
    "its segment is known": "segments.run_id IS NOT NULL",
}  # fmt: skip
"""What must be true of each request."""
# A second turn that never arose has no row, and is not missing.
_COUNTS = """
SELECT run_id, format('{} requests of {} planned', count(request_index), any_value(planned)) AS example
FROM runs LEFT JOIN requests USING (run_id)
WHERE status = 'complete' AND planned IS NOT NULL GROUP BY run_id
HAVING count(request_index) + count(*) FILTER (turn = 1 AND request_index + 1 < planned)
    - count(*) FILTER (turn = 2) <> any_value(planned)
"""
_UNJUDGED = """
SELECT run_id, 'it is ' || coalesce(status, 'without a status') AS example FROM runs
WHERE verdict IS NULL AND status IS DISTINCT FROM 'running'
"""
_GAPS = f"""
SELECT kept.run_id, format('p99 {{}} s, not {{}} s', kept.p99, computed.p99) AS example
FROM kept_gaps AS kept LEFT JOIN ({gap_percentiles_of("SELECT run_id FROM kept_gaps")}) AS computed USING (run_id)
WHERE (kept.gaps = computed.gaps AND abs(kept.p50 - computed.p50) + abs(kept.p90 - computed.p90)
    + abs(kept.p95 - computed.p95) + abs(kept.p99 - computed.p99) + abs(kept.max - computed.max) < 1e-8) IS NOT true
"""
_JUDGED_RUNS = """
SELECT run_id, verdict FROM runs WHERE verdict IS NOT NULL AND status <> 'running' AND run_id NOT IN (
    SELECT run_id FROM requests WHERE ttft_s IS NOT NULL AND ttft_off_s IS NULL AND clock = 'kernel'
) ORDER BY run_id
"""
"""A request with the kernel's stamps but without what they may be off by is older than that measure."""
_ORPHANS = "SELECT DISTINCT run_id, 'no such run' AS example FROM {} WHERE run_id NOT IN (SELECT run_id FROM runs)"


def problems(reader: Reader) -> Iterator[Problem]:
    """Yield every problem in the file."""
    with reader.together():
        yield from _left_behind(reader)
        yield from _of_configs(reader)
        yield from _of_verdicts(reader)
        yield from _of_requests(reader)
        for what, sql in {
            "a run that has ended has a verdict": _UNJUDGED,
            "a complete run has all its requests": _COUNTS,
            "kept gap percentiles are those of the chunks": _GAPS,
            **{f"rows of {table} belong to a run": _ORPHANS.format(table)
               for table in ("requests", "segments", "samples", "run_gaps", "nodes", "old_scores")},
        }.items():  # fmt: skip
            rows = reader.query(sql)
            if rows:
                yield Problem(what, len(rows), f"run {rows[0]['run_id']}: {rows[0]['example']}")


def _left_behind(reader: Reader) -> Iterator[Problem]:
    """Yield what opening the file could not settle of a process that died, as where it may not be written."""
    folder = spool_of(reader.path)
    running = reader.query("SELECT run_id, owner FROM runs WHERE status = 'running' ORDER BY run_id")
    left = [run["run_id"] for run in running if not is_alive(folder, run["owner"])]
    if left:
        yield Problem("a run whose process is gone has ended", len(left), f"run {left[0]}: it is running")
    if files := orphaned_files(folder):
        yield Problem("rows of processes that are gone are in the file", sum(map(count_lines, files)), str(files[0]))


def _of_configs(reader: Reader) -> Iterator[Problem]:
    """Yield the columns of runs that do not follow from the config, the config hash among them."""
    wrong: dict[str, list[str]] = {}
    for run in reader.query("SELECT * FROM runs WHERE config IS NOT NULL ORDER BY run_id"):
        for column, value in _columns_of(run["config"]).items():
            if run[column] != value:
                wrong.setdefault(column, []).append(f"run {run['run_id']}: {run[column]!r}, not {value!r}")
    for column, examples in wrong.items():
        yield Problem(f"runs.{column} follows from the config", len(examples), examples[0])


def _columns_of(text: str) -> Mapping[str, Any]:
    config = config_of(text)
    if config is None:
        return {"config": "a config that is known here"}
    columns = run_columns(config)
    del columns["config"]
    return columns


def _of_verdicts(reader: Reader) -> Iterator[Problem]:
    """Judge the verdicts again; older ones were judged otherwise."""
    wrong = []
    for run in reader.query(_JUDGED_RUNS):
        verdict = judge(facts_of(reader.query, run["run_id"]))
        if verdict.word != run["verdict"]:
            why = f" ({verdict.reason})" if verdict.reason else ""
            wrong.append(f"run {run['run_id']}: {run['verdict']}, not {verdict.word}{why}")
    if wrong:
        yield Problem("runs.verdict follows from the requests", len(wrong), wrong[0])


def _of_requests(reader: Reader) -> Iterator[Problem]:
    """Check everything that must hold of each request in one pass over all of them."""
    wrong = {
        f"requests.{name} follows from the raw columns":
            (f"(({name} IS NULL) = (({formula}) IS NULL) AND coalesce(abs({name} - ({formula})) <= {off}, true))",
             f"format(': {{}}, not {{}}', coalesce({name}::VARCHAR, 'NULL'), coalesce(({formula})::VARCHAR, 'NULL'))")
        for name, (formula, off) in _DERIVED.items()
    }  # fmt: skip
    wrong |= {f"requests: {what}": (condition, "''") for what, condition in _HOLDS.items()}
    parts = []
    for number, (condition, shown) in enumerate(wrong.values()):
        where = f"FILTER (WHERE ({condition}) IS NOT true)"
        example = f"format('run {{}} request {{}}', requests.run_id, request_index) || {shown}"
        parts.append(f"count(*) {where} AS n{number}, any_value({example}) {where} AS example{number}")
    (found,) = reader.query(
        f"SELECT {', '.join(parts)} FROM ({_COUNTED}) AS requests JOIN runs USING (run_id) LEFT JOIN segments"
        " ON segments.run_id = requests.run_id AND segments.segment = requests.segment"
    )
    for number, what in enumerate(wrong):
        if found[f"n{number}"]:
            yield Problem(what, found[f"n{number}"], found[f"example{number}"])
