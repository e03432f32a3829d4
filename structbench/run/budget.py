"""The tokens that one command may use, prompts and answers together (``--max-tokens-total``)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from loadgen.types import Request, RequestRecord

_BYTES_PER_TOKEN = 4
_UNLIMITED = 4096
"""What a request without a limit counts as before an answer has come: what is asked of an API that insists on one."""
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_COST_NOTHING = ("connect", "http", "rate_limited", "rejected", "dropped")
"""Error kinds of requests for which no token was made."""


@dataclass(slots=True)
class TokenBudget:
    """Counts what servers tell; requests in flight count as what they ask for, and so do those of which none tells."""

    limit: int
    used: int = 0
    spent: bool = False
    """Whether a load has ended for it."""
    _asked: dict[int, int] = field(default_factory=dict)
    """Index -> tokens asked for, of each request that was handed out and has no record yet."""
    _in_flight: int = 0
    """The sum of these."""
    _longest: int | None = None
    _beyond: int = 0
    """By how much a request used more than it was held for, as where thinking is beyond its limit."""

    def begin(self) -> None:
        """Begin another load: what an earlier one handed out and did not send no longer counts."""
        self._asked.clear()
        self._in_flight = 0

    def admit(self, requests: Iterable[Request]) -> Iterator[Request | None]:
        """Yield each request as soon as the limit holds even if it uses all it asks for, and None until then."""
        for request in requests:
            while self.used + self._in_flight + (asked := self._asks_in_all(request)) > self.limit:
                yield None
            self._hold(request, asked)
            yield request

    def settle(self, record: RequestRecord) -> None:
        """Count a request that has ended as what it used."""
        asked = self._asked.pop(record.index, 0)
        self._in_flight -= asked
        if record.output_tokens is not None:
            self._longest = max(self._longest or 0, record.output_tokens)
        if record.prompt_tokens is not None and record.output_tokens is not None:
            took = max(record.prompt_tokens + record.output_tokens, record.total_tokens or 0)
            self._beyond = max(self._beyond, took - (asked or took))
            self.used += took
        elif record.error is None or not (record.sent_ns is None or record.error.kind in _COST_NOTHING):
            self.used += asked
        if record.following is not None:
            self._hold(record.following, self.asks(record.following))

    def spend(self, requests: Iterable[Request]) -> None:
        """Count requests that have no record, as those of a warm-up."""
        self.used += sum(self.asks(request) for request in requests)

    def asks(self, request: Request) -> int:
        """Return the tokens that a request may use: its prompt at four bytes each, and the limit of its answer."""
        said = json.dumps([request.prompt, request.messages, request.tools, request.format], default=dict)
        return len(said) // _BYTES_PER_TOKEN + (_limit_of(request) or self._longest or _UNLIMITED) + self._beyond

    def _hold(self, request: Request, asked: int) -> None:
        self._asked[request.index] = asked
        self._in_flight += asked

    def _asks_in_all(self, request: Request) -> int:
        """Return what it and the turn that may follow from its answer ask for."""
        return self.asks(request) * (1 if request.tool_results is None else 2)


def _limit_of(request: Request) -> int | None:
    """Return the most tokens that an answer may have; None without a limit, which Ollama writes as a negative one."""
    given: list[Any] = [request.body[name] for name in _LIMITS if name in request.body]
    options = request.body.get("options")
    given += [
        each["num_predict"] for each in (options, request.options) if isinstance(each, dict) and "num_predict" in each
    ]
    return next((limit for limit in given if isinstance(limit, int) and limit > 0), None)
