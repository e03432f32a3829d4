"""What is said of a run that met a limit: the server's on requests, the user's on tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from structbench.notes.limits import RATE_LIMITED, TOKEN_LIMIT
from structbench.types import Note
from tests.support.in_memory import Tables, tables

S = 1_000_000_000


@pytest.fixture(scope="module")
def store() -> Iterator[Tables]:
    with tables() as opened:
        yield opened


@pytest.mark.parametrize(
    ("limited", "last_s", "wait_s", "text"),
    [
        (1, 2.0, None, "the server's rate limit refused 1 of 8 requests, from 2.0 s after the start: the"),
        (4, 5.5, 20.0, "the server's rate limit refused 4 of 8 requests, from 2.0 s after the start, over 3.5 s; "
                       "it asked to wait up to 20 s (Retry-After): the"),
    ],
)  # fmt: skip
def test_how_many_requests_a_rate_limit_refused_and_for_how_long(
    limited: int, last_s: float, wait_s: float | None, text: str
) -> None:
    row = {"requests": 8, "limited": limited, "first_s": 2.0, "last_s": last_s, "wait_s": wait_s, "used_up": 0}
    (note,) = RATE_LIMITED.notes([row])
    assert (note.kind, note.share, note.at_s) == ("rate_limited", limited / 8, 2.0)
    assert note.text.startswith(text)


def test_nothing_is_said_where_no_limit_was_met() -> None:
    assert list(RATE_LIMITED.notes([{"requests": 8, "limited": 0}])) == []
    assert list(TOKEN_LIMIT.notes([])) == []
    assert list(TOKEN_LIMIT.notes([{"token_limit": None}])) == []


def test_a_load_that_tokens_ended_says_so() -> None:
    text = "ended before another request could pass --max-tokens-total 5,000; --skip-cached continues it"
    assert list(TOKEN_LIMIT.notes([{"token_limit": 5000}])) == [Note("token_limit", text)]


def test_refusals_are_counted_and_placed_from_the_first_request_on(store: Tables) -> None:
    kinds = [None, "rate_limited", None, "http", "rate_limited", "dropped"]
    asked = [{"due_ns": 7 * S + index * S, "error_kind": kind} for index, kind in enumerate(kinds)]
    asked[4]["retry_after_s"] = 20.0
    own = [{"run_id": "r", "segment": 0, "request_index": index, **row} for index, row in enumerate(asked)]
    never = {"run_id": "r", "segment": 0, "request_index": 6, "error_kind": "rate_limited"}
    other = {"run_id": "other", "segment": 0, "request_index": 0, "due_ns": 0, "error_kind": "rate_limited"}
    store.fill(requests=[*own, never, {**other, "retry_after_s": 99.0}])
    assert store.query(RATE_LIMITED.sql, ["r"]) == [
        {"requests": 6, "limited": 2, "first_s": 1.0, "last_s": 4.0, "wait_s": 20.0, "used_up": 0}
    ]


def test_a_quota_that_is_used_up_is_no_matter_of_the_rate(store: Tables) -> None:
    spent = "You exceeded your current quota, please check your plan and billing details."
    for message, wait_s, advice in (
        (
            spent,
            None,
            "by its words the account's quota is used up, which no lower --rate mends: see its plan and billing",
        ),
        (f"{spent} Please retry in 23 s", None, "give a lower --rate or --concurrency"),
        (spent, 23.0, "give a lower --rate or --concurrency"),
        ("slow down", None, "give a lower --rate or --concurrency"),
    ):
        row = {"error_kind": "rate_limited", "error_message": message, "retry_after_s": wait_s, "due_ns": 0}
        store.fill(requests=[{"run_id": "r", "segment": 0, "request_index": 0, **row}])
        (note,) = RATE_LIMITED.notes(store.query(RATE_LIMITED.sql, ["r"]))
        assert note.text.endswith(advice)


def test_only_the_last_part_of_a_run_tells_whether_tokens_ended_it(store: Tables) -> None:
    store.fill(segments=[
        {"run_id": "r", "segment": 1, "token_limit": None}, {"run_id": "r", "segment": 2, "token_limit": 900},
        {"run_id": "r", "segment": 0, "token_limit": 50}, {"run_id": "other", "segment": 3, "token_limit": 7},
    ])  # fmt: skip
    assert store.query(TOKEN_LIMIT.sql, ["r"]) == [{"token_limit": 900}]
