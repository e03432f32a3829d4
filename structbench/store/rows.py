"""Rows of ``requests`` and ``runs`` from what was measured, and conversion of values for DuckDB.

Invariant: a column is written from the property or field of the same name, so each formula stays in one place; and
DuckDB accepts whatever ``storable`` returns.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from loadgen.types import RequestRecord
from structbench.identity import config_dict, config_hash
from structbench.types import Config, Score

INT64 = 2**63

_RECORD_COLUMNS = (
    "node", "worker", "due_ns", "sent_ns", "end_ns", "held_s",
    "ttft_s", "ttft_off_s", "ttft_due_s", "first_thinking_s", "first_answer_s",
    "first_tool_call_s", "itl_mean_s", "tpot_s", "e2e_s", "e2e_due_s", "send_lag_s", "connect_s", "merged_chunks",
    "gathered_chunks", "resent_segments", "out_of_order_segments",
    "clock", "prompt_tokens", "cached_prompt_tokens", "output_tokens", "thinking_tokens", "thinking_partial",
    "load_s", "prompt_eval_s", "eval_s", "queue_s",
    "server_tokens_per_s", "client_tokens_per_s", "done_reason", "answered_by", "fingerprint", "output_text",
    "thinking_text",
)  # fmt: skip
_of_record = attrgetter(*_RECORD_COLUMNS)
_CONFIG_COLUMNS = ("model", "model_digest", "server_version", "suite", "endpoint", "structured")
SCORE_COLUMNS = tuple(field.name for field in fields(Score) if field.name != "outcome")
_of_score = attrgetter(*SCORE_COLUMNS)


def row_of(
    run_id: str,
    config_hash: str,
    segment: int,
    case_id: str | None,
    repeat: int,
    record: RequestRecord,
    score: Score | None,
    turn: int | None = None,
    asked_tokens: int | None = None,
    asked_output: int | None = None,
) -> dict[str, Any]:
    """Return the ``requests`` row of a request; ``turn`` 2 of a conversation has the index after ``turn`` 1.

    A failed request has no score, unless the failure is the model's: that is then the answer's outcome.
    """
    error, sent_ns = record.error, record.sent_ns
    if record.failed:
        score = None
    return {
        "run_id": run_id,
        "config_hash": config_hash,
        "request_index": record.index,
        "turn": turn,
        "parent_index": record.index - 1 if turn == 2 else None,
        "segment": segment,
        "case_id": case_id,
        "asked_prompt_tokens": asked_tokens,
        "asked_output_tokens": asked_output,
        "repeat": repeat,
        **dict(zip(_RECORD_COLUMNS, _of_record(record), strict=True)),
        "read_lag_max_s": None if record.read_lag_max_ns is None else record.read_lag_max_ns / 1e9,
        "processor_wait_s": None if record.processor_wait_ns is None else record.processor_wait_ns / 1e9,
        "chunks": len(record.chunk_ns),
        "covered": record.is_covered,
        "chunk_offsets_us": None if sent_ns is None else [(chunk_ns - sent_ns) // 1000 for chunk_ns in record.chunk_ns],
        "chunk_early_us": None if record.chunk_early_ns is None else [ns // 1000 for ns in record.chunk_early_ns],
        "tool_calls": record.tool_calls,
        **outcome_columns(None if error is None else error.kind, score),
        "semantic_similarity": None,  # comes after the load, if at all
        "steady": None,  # is known when the load has ended
        "ended_steady": None,
        "error_kind": None if error is None else error.kind,
        "error_status": None if error is None else error.status,
        "error_message": None if error is None else error.message,
        "retry_after_s": None if error is None else error.retry_after_s,
    }


def outcome_columns(error_kind: str | None, score: Score | None) -> dict[str, Any]:
    """Return the columns that say how a request ended and what it was worth."""
    if score is None:
        return {"outcome": error_kind or "completed", **dict.fromkeys(SCORE_COLUMNS)}
    return {"outcome": score.outcome, **dict(zip(SCORE_COLUMNS, _of_score(score), strict=True))}


def run_columns(config: Config) -> dict[str, Any]:
    """Return the columns of ``runs`` that follow from the config; the caller adds run_id, status, planned, …"""
    think = config.think
    return {
        "config_hash": config_hash(config),
        "config": config_dict(config),
        **{column: getattr(config, column) for column in _CONFIG_COLUMNS},
        "think": think if think is None or isinstance(think, str) else json.dumps(think),
        "load_kind": config.load.get("kind"),
        **{column: config.load.get(column) for column in ("concurrency", "rate", "arrival")},
    }


def storable_row(row: Mapping[str, Any], types: Mapping[str, str], *, absent: bool = False) -> dict[str, Any]:
    """Return a row with each value as ``storable`` does; without those that are None unless ``absent``."""
    convert = _STORABLE
    try:
        kept = {name: convert[types[name]](value) for name, value in row.items() if value is not None}
        return {**dict.fromkeys(row), **kept} if absent else kept
    except (TypeError, ValueError):
        for name, value in row.items():
            storable(value, name, types[name])  # which says what is wrong
        raise


def storable(value: Any, column: str, sql_type: str) -> Any:
    """Return the value as JSON can carry it to a column of this type; raise TypeError if the type cannot hold it.

    Numbers beyond the type (NaN, infinity, more than 64 bits) become None: absent, not wrong. Lone surrogates become
    U+FFFD; NUL stays.
    """
    if value is None:
        return None
    try:
        return _STORABLE[sql_type](value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"column {column} ({sql_type}) cannot hold {type(value).__name__}: {error}") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    if value.isascii():
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _integer(value: Any) -> int | None:
    if type(value) is not int and (not isinstance(value, int) or isinstance(value, bool)):
        raise TypeError("not an integer")
    return value if -INT64 <= value < INT64 else None


def _integers(values: Any) -> Sequence[int | None]:
    if {*map(type, values)} == {int} and min(values) >= -INT64 and max(values) < INT64:  # nearly always
        return values if isinstance(values, list) else list(values)
    return [_integer(value) for value in values]


def _double(value: Any) -> float | None:
    if type(value) is not float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError("not a number")
        try:
            value = float(value)
        except OverflowError:
            return None
    return value if math.isfinite(value) else None


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("not a boolean")
    return value


def _timestamp(value: Any) -> str:
    instant = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(instant, datetime):
        raise TypeError("not a date and time")
    utc = instant.astimezone(UTC).replace(tzinfo=None) if instant.tzinfo is not None else instant
    return utc.isoformat(sep=" ", timespec="microseconds")


def _json(value: Any) -> str:
    """Return JSON text, so that DuckDB keeps numbers of any length as they were written."""
    try:
        text = _encoded(value)
        return json.dumps(_clean(value)) if "\\ud" in text else text
    except ValueError:
        return json.dumps(_clean(value))
    except RecursionError:
        return json.dumps("(nested too deeply to be stored)")


def _mapping(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


_encoded = json.JSONEncoder(allow_nan=False, default=_mapping).encode


def _clean(value: Any) -> Any:
    match value:
        case str():
            return _text(value)
        case float():
            return _double(value)
        case Mapping():
            return {_text(str(key)): _clean(item) for key, item in value.items()}
        case list() | tuple():
            return [_clean(item) for item in value]
        case _:
            return value


def _texts(values: Any) -> list[str]:
    return [_text(value) for value in values]


_STORABLE: dict[str, Callable[[Any], Any]] = {
    "VARCHAR": _text,
    "VARCHAR[]": _texts,
    "BIGINT": _integer,
    "BIGINT[]": _integers,
    "DOUBLE": _double,
    "BOOLEAN": _boolean,
    "TIMESTAMP": _timestamp,
    "JSON": _json,
}
