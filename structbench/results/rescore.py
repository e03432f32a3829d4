"""Scoring stored answers again with the present scorer, so that an upgrade throws no measurement away.

What is stored decides as the answer did when it came: text, calls, and the server's words. A run is replaced whole or
not at all; its identity then names the present scorer, so that it is the hit of today's cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from loadgen.api.answer import broke_off, told_alike
from loadgen.api.blame import loops, model_error
from loadgen.api.sending import NOT_DONE, told_wait
from loadgen.types import MODEL_ERRORS, ErrorKind
from structbench.formatting import load_text, suite_text
from structbench.identity import config_dict, config_hash, config_of
from structbench.scoring import SCORER_VERSION, Answer, unscored
from structbench.scoring.answer import answer_text
from structbench.scoring.process import Scorer
from structbench.store import Reader
from structbench.store.rescoring import replace_scores
from structbench.store.rows import outcome_columns
from structbench.strict_json import stored
from structbench.suites.requests import case_of, request_of
from structbench.types import Case, Config, Score, Suite

PAGE = 500
"""Rows held in memory at once with their texts."""
_RUNS = "SELECT run_id, status, config_hash, config, concurrency, rate, arrival FROM runs WHERE run_id = $1"
_ROWS = """
SELECT request_index, case_id, outcome, error_kind, error_status, error_message, retry_after_s, output_text,
    thinking_text, tool_calls, done_reason, chunks
FROM requests WHERE run_id = $1 AND request_index > $2 ORDER BY request_index LIMIT $3
"""

Row = Mapping[str, Any]
FindSuite = Callable[[Config], "Suite | str"]
"""Returns the suite that a config names, or why it cannot be had."""


@dataclass(frozen=True, slots=True)
class Change:
    """A request whose outcome is another one now."""

    request_index: int
    case_id: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """What was done with one run; ``skipped`` says why nothing was."""

    run_id: str
    name: str
    scorer_version: int | None = None
    """Of the old scores."""
    requests: int = 0
    changes: Sequence[Change] = ()
    skipped: str | None = None
    current: bool = False
    """Whether there was nothing to do: nothing is scored, or by the present scorer already."""


def rescore(reader: Reader, run_ids: Sequence[str], find_suite: FindSuite) -> Iterator[Rescored]:
    """Score each run again that an earlier scorer has scored, and yield what that changed."""
    found: dict[int, Score | None] = {}
    with Scorer(found.__setitem__, start_now=False) as scorer:
        for run_id in run_ids:
            yield _rescore(reader, run_id, find_suite, scorer, found)
            found.clear()


def _rescore(
    reader: Reader, run_id: str, find_suite: FindSuite, scorer: Scorer, found: dict[int, Score | None]
) -> Rescored:
    (run,) = reader.query(_RUNS, [run_id])
    config = config_of(run["config"])
    if config is None:
        return Rescored(run_id=run_id, name="", skipped="its config is not known here")
    name = f"{config.model} {suite_text(config.suite, config.structured)} {load_text(run)}"
    version = config.scorer_version
    if version is None or version >= SCORER_VERSION:
        return Rescored(run_id=run_id, name=name, scorer_version=version, current=True)
    if run["status"] == "running":
        return Rescored(run_id=run_id, name=name, skipped="it is still running")
    suite = find_suite(config)
    if isinstance(suite, str):
        return Rescored(run_id=run_id, name=name, skipped=suite)
    rows = _scored(reader, run_id, config, suite.cases, scorer, found)
    if isinstance(rows, str):
        return Rescored(run_id=run_id, name=name, skipped=rows)
    after = replace(config, scorer_version=SCORER_VERSION)
    done = replace_scores(
        reader.database, run_id, [row for row, _ in rows], scorer_version=version, before=run["config_hash"],
        after=config_hash(after), config=config_dict(after),
    )  # fmt: skip
    if not done:
        return Rescored(run_id=run_id, name=name, skipped="a load is continuing it")
    changes = [change for _, change in rows if change.before != change.after]
    return Rescored(run_id=run_id, name=name, scorer_version=version, requests=len(rows), changes=changes)


def _scored(
    reader: Reader, run_id: str, config: Config, cases: Sequence[Case], scorer: Scorer, found: dict[int, Score | None]
) -> list[tuple[dict[str, Any], Change]] | str:
    """Return the new columns of each request and what they change, or why they cannot be made."""
    made: list[tuple[dict[str, Any], Change]] = []
    last = -1
    while rows := reader.query(_ROWS, [run_id, last, PAGE]):
        last = rows[-1]["request_index"]
        kinds: dict[int, ErrorKind | None] = {}
        for row in rows:
            index = row["request_index"]
            case, _ = case_of(cases, index)
            if case.id != row["case_id"]:
                return f"request {index} was of case {row['case_id']!r}, which the suite has elsewhere now"
            kind = kinds[index] = _kind(row, case, config)
            if kind is None and broke_off(row["done_reason"], said=bool(row["chunks"])):
                found[index] = unscored(f"the server broke the answer off: {row['done_reason']}")
            elif kind is None or kind in MODEL_ERRORS:
                scorer.submit(index, case, _answer(row, kind, config))
        scorer.drain()
        for row in rows:
            index = row["request_index"]
            columns = outcome_columns(kinds[index], found.pop(index, None))
            change = Change(index, str(row["case_id"]), str(row["outcome"]), str(columns["outcome"]))
            made.append(({"request_index": index, "error_kind": kinds[index], **columns}, change))
    return made


def _answer(row: Row, kind: ErrorKind | None, config: Config) -> Answer:
    held = stored(row["tool_calls"])
    calls = [call for call in held if isinstance(call, dict)] if isinstance(held, list) else []
    text = answer_text(config.structured, row["output_text"] or "", calls)
    return Answer(text, tuple(calls), told_alike(row["done_reason"]), kind)


def _kind(row: Row, case: Case, config: Config) -> ErrorKind | None:
    """Return the error kind as it would be today, by the server's words."""
    kind, status, message = row["error_kind"], row["error_status"], row["error_message"] or ""
    if kind in ("protocol", "truncated") and message.startswith(NOT_DONE):
        return "truncated" if loops(row["output_text"] or row["thinking_text"] or "") else "protocol"
    if kind not in ("http", "stream", *MODEL_ERRORS):
        return cast("ErrorKind | None", kind)
    sent = request_of(case, config, row["request_index"])
    told = message.removesuffix(told_wait(row["retry_after_s"]))
    return model_error(
        told, status, model=config.model, format=sent.format is not None, tools=bool(sent.tools),
        began=bool(row["chunks"]),
        replayed=case.follows or any(message.get("tool_calls") for message in case.messages),
    ) or ("stream" if status == 200 else "http")  # fmt: skip
