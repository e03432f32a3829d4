"""What is said of a run that met a limit: the server's on requests, the user's on tokens."""

from __future__ import annotations

import pytest

from structbench.notes.limits import RATE_LIMITED, TOKEN_LIMIT
from structbench.types import Note


@pytest.mark.parametrize(
    ("limited", "last_s", "wait_s", "text"),
    [
        (1, 2.0, None, "the server's rate limit refused 1 of 8 requests, first 2.0 s after the start: the"),
        (4, 5.5, 20.0, "the server's rate limit refused 4 of 8 requests, first 2.0 s after the start, over 3.5 s "
                       "and asked to wait up to 20 s (Retry-After): the"),
    ],
)  # fmt: skip
def test_how_many_requests_a_rate_limit_refused_and_for_how_long(
    limited: int, last_s: float, wait_s: float | None, text: str
) -> None:
    row = {"requests": 8, "limited": limited, "first_s": 2.0, "last_s": last_s, "wait_s": wait_s}
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
