"""How long a server asks to wait, in every form that the header has."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.api.rate_limits import is_rate_limit, seconds_of

NOW_S = 1_000_000_000.0
"""Sunday, 9 September 2001, 01:46:40 UTC."""


@pytest.mark.parametrize(
    ("text", "wait_s"),
    [
        ("20", 20.0), ("1500ms", 1.5), ("ms", None),
        (" 0 ", 0.0), ("0.5", 0.5), ("Sun, 09 Sep 2001 01:47:00 GMT", 20.0),
        ("Sun, 09 Sep 2001 01:46:00 GMT", 0.0), ("Sun, 09 Sep 2001 01:47:00 -0000", 20.0),
        ("", None), ("soon", None), ("-1", None), ("nan", None), ("inf", None), ("1e99", None),
        ("Sun, 99 Sep 2001 01:47:00 GMT", None),
    ],
)  # fmt: skip
def test_seconds_or_a_date(text: str, wait_s: float | None) -> None:
    assert seconds_of(text, NOW_S) == wait_s


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "slow", "code": 429}, {"error": {"code": 429.0}}, {"error": {"type": "RateLimitError"}},
        {"error": {"status": "RESOURCE_EXHAUSTED"}}, {"error": {"code": "RateLimitReached"}},
        {"error": {"code": "TooManyRequests"}}, {"error": {"type": "ThrottlingException"}},
        {"code": "429", "message": ""},
        {"error": {"type": "rate_limit_reached_error"}}, {"status_code": 429, "error": "x"}, {"error_code": 429},
    ],
)  # fmt: skip
def test_a_rate_limit_has_a_code_or_a_type_of_one(fields: Any) -> None:
    assert is_rate_limit(fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"error": "rate_limit_exceeded"},
        {"error": {"message": "rate limit"}},
        {"error": {"code": 500}},
        {"error": {"code": 4290}},
        [],
        None,
    ],
)
def test_the_words_of_an_error_do_not_make_it_a_rate_limit(fields: Any) -> None:
    assert not is_rate_limit(fields)
