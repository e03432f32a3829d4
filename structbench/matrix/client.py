"""One bounded request for what a server does, not for how fast: any of its chat endpoints, whatever comes back.

``loadgen.api`` has each endpoint's words; bodies go out raw, for official clients hold back what servers should refuse.
Invariant: ``ask`` ends within twice its time limit and returns a Reply for everything that a server may do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from types import ModuleType
from typing import Any, Literal

import httpx

from loadgen.api import ollama, openai
from loadgen.api.answer import Answer
from loadgen.api.questions import proxy_to
from loadgen.types import Request
from loadgen.wire.access import NO_ACCESS, Access, http_url
from loadgen.wire.httpx_adapter import client_arguments

Endpoint = Literal["chat", "generate", "v1"]
PATHS: Mapping[Endpoint, str] = {"chat": "/api/chat", "generate": "/api/generate", "v1": "/v1/chat/completions"}
DIALECTS: Mapping[Endpoint, ModuleType] = {"chat": ollama, "generate": ollama, "v1": openai}
"""Who writes a request's ``body`` and reads the ``piece`` that a part of the answer brings."""

_NO_DATA = (":", "event:", "id:", "retry:")
"""Lines of server-sent events that carry nothing of an answer."""


@dataclass(slots=True)
class Reply:
    """What came back; ``error`` is the server's word, ``failure`` what kept an answer from arriving."""

    status: int | None = None
    text: str = ""
    thinking: str = ""
    calls: Sequence[Mapping[str, Any]] = ()
    done_reason: str | None = None
    finished: bool = False
    """The last message of an answer came."""
    error: str | None = None
    failure: str | None = None
    timed_out: bool = False
    is_json: bool = True
    """False for the plain text with which a server says that it has no such path."""
    seconds: float = 0.0


class Prober:
    """Asks one request after the other over a kept connection; ``timeout_s`` is the limit of each."""

    def __init__(self, address: str, timeout_s: float, access: Access = NO_ACCESS) -> None:
        way = client_arguments(address, access, timeout_s, proxy_to(address))
        self._http = httpx.Client(base_url=http_url(address), timeout=timeout_s, **way)
        self._access = access
        self._timeout_s = timeout_s

    def ask(self, endpoint: Endpoint, request: Request, stream: bool) -> Reply:
        """Send one request and take in its answer, streamed or whole; nothing is retried."""
        body = DIALECTS[endpoint].body(request, stream)
        began = monotonic()
        reply, data = Reply(), bytearray()
        try:
            with self._http.stream("POST", PATHS[endpoint], json=body) as response:
                reply.status = response.status_code
                if response.has_redirect_location:
                    reply.failure = f"HTTP {reply.status} redirects to {response.headers['location']}"
                for part in response.iter_bytes():
                    data += part
        except httpx.TimeoutException:
            reply.failure, reply.timed_out = f"no end within {self._timeout_s:g} s", True
        except (httpx.HTTPError, OSError) as error:
            reply.failure = f"the connection broke: {str(error) or type(error).__name__}"
        reply.seconds = monotonic() - began
        if reply.failure is None:
            _take_in(reply, endpoint, bytes(data))
        if reply.error is not None:
            reply.error = self._access.masked(reply.error)
        return reply

    def close(self) -> None:
        self._http.close()


def _take_in(reply: Reply, endpoint: Endpoint, data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    answer = Answer()
    try:
        for part in _parts(text):
            if "error" in part:
                reply.error = _error_text(part["error"])
            else:
                answer.add(DIALECTS[endpoint].piece(part), monotonic_ns())
        reply.text, reply.thinking, reply.calls = answer.text, answer.thinking, answer.tool_calls
        reply.finished, reply.done_reason = answer.done, answer.facts.get("done_reason")
    except (ValueError, RecursionError):
        reply.is_json = False
        told = " ".join(text.split())
        if reply.status is not None and reply.status < 400:  # a page of something else, or a broken line
            reply.failure = f"the answer is no JSON: {told}"
        else:
            reply.error = told
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        reply.failure = f"no answer as {PATHS[endpoint]} gives them: {type(error).__name__}: {error}"
    if reply.status is not None and reply.status >= 400 and reply.error is None:
        reply.error = ""


def _parts(text: str) -> Iterator[Any]:
    """Yield the JSON objects of an answer: one whole, lines, or server-sent events."""
    try:
        whole = json.loads(text)
    except ValueError:
        for line in text.split("\n"):  # splitlines also splits at U+0085 and its like, which a JSON text may hold
            line = line.removeprefix("data:").strip()
            if line and line != "[DONE]" and not line.startswith(_NO_DATA):
                yield json.loads(line)
    else:
        yield whole


def _error_text(error: Any) -> str:
    """Return the message, out of the objects (and the JSON in a text) in which servers wrap it."""
    if isinstance(error, str):
        if not error.startswith("{"):
            return error
        try:
            return _error_text(json.loads(error))
        except (ValueError, RecursionError):
            return error
    inner = error.get("error", error.get("message")) if isinstance(error, Mapping) else None
    return json.dumps(error, ensure_ascii=False) if inner is None else _error_text(inner)
