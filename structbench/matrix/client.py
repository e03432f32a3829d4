"""One bounded request for what a server does, not for how fast: any of its chat endpoints, whatever comes back.

Invariant: ``ask`` ends within twice its time limit and returns a Reply for everything that a server may do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

import httpx

Endpoint = Literal["chat", "generate", "v1"]
PATHS: Mapping[Endpoint, str] = {"chat": "/api/chat", "generate": "/api/generate", "v1": "/v1/chat/completions"}

_NO_DATA = (":", "event:", "id:", "retry:")
"""Lines of server-sent events that carry nothing of an answer."""


@dataclass(slots=True)
class Reply:
    """What came back; ``error`` is the server's word, ``failure`` what kept an answer from arriving."""

    status: int | None = None
    text: str = ""
    thinking: str = ""
    calls: list[Mapping[str, Any]] = field(default_factory=list)
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

    def __init__(self, address: str, timeout_s: float) -> None:
        self._http = httpx.Client(base_url=address, timeout=timeout_s)
        self._timeout_s = timeout_s

    def ask(self, endpoint: Endpoint, body: Mapping[str, Any]) -> Reply:
        """Send one request and take in its answer, streamed or whole; nothing is retried."""
        began = monotonic()
        reply, data = Reply(), bytearray()
        try:
            with self._http.stream("POST", PATHS[endpoint], json=body) as response:
                reply.status = response.status_code
                for part in response.iter_bytes():
                    data += part
                    if monotonic() - began > self._timeout_s:
                        raise httpx.ReadTimeout("")
        except httpx.TimeoutException:
            reply.failure, reply.timed_out = f"no end within {self._timeout_s:g} s", True
        except (httpx.HTTPError, OSError) as error:
            reply.failure = f"the connection broke: {str(error) or type(error).__name__}"
        reply.seconds = monotonic() - began
        if reply.failure is None:
            _take_in(reply, endpoint, bytes(data))
        return reply

    def close(self) -> None:
        self._http.close()


def _take_in(reply: Reply, endpoint: Endpoint, data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        for part in _parts(text):
            if "error" in part:
                reply.error = _error_text(part["error"])
            else:
                _take_part(reply, endpoint, part)
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
    """The JSON objects of an answer: one whole, lines, or server-sent events."""
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
    """The message, out of the objects (and the JSON in a text) in which servers wrap it."""
    if isinstance(error, str):
        if not error.startswith("{"):
            return error
        try:
            return _error_text(json.loads(error))
        except (ValueError, RecursionError):
            return error
    inner = error.get("error", error.get("message")) if isinstance(error, Mapping) else None
    return json.dumps(error, ensure_ascii=False) if inner is None else _error_text(inner)


def _take_part(reply: Reply, endpoint: Endpoint, part: Mapping[str, Any]) -> None:
    match endpoint:
        case "chat":
            said = part["message"]
            finish = part.get("done_reason") or "" if part.get("done") else None
        case "generate":
            said = {**part, "content": part["response"]}
            finish = part.get("done_reason") or "" if part.get("done") else None
        case "v1":
            if not part["choices"]:  # the usage, after the answer
                return
            choice = part["choices"][0]
            said, finish = choice.get("delta") or choice.get("message") or {}, choice.get("finish_reason")
    reply.text += said.get("content") or ""
    reply.thinking += said.get("thinking") or said.get("reasoning") or ""
    reply.calls += [_call(call["function"]) for call in said.get("tool_calls") or ()]
    if finish is not None:
        reply.finished, reply.done_reason = True, finish or None


def _call(function: Mapping[str, Any]) -> Mapping[str, Any]:
    """Ollama's own endpoints give arguments as an object, /v1 as JSON text."""
    arguments = function["arguments"]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            arguments = {"(not JSON)": arguments}
    return {"name": function["name"], "arguments": arguments}
