"""One bounded request for what a server does, not for how fast: any of its chat endpoints, whatever comes back.

``loadgen.api`` has each endpoint's words, ``loadgen.wire.framing`` what a chunk is; bodies go out raw, for official
clients hold back what servers should refuse.
Invariant: ``ask`` ends within twice its time limit and returns a Reply for everything that a server may do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import httpx

from loadgen.api import DEFAULT_API, sse
from loadgen.api.answer import Answer, broke_off
from loadgen.api.questions import proxy_to
from loadgen.api.sending import ChatApi, chat_api
from loadgen.api.server import Server
from loadgen.types import Request
from loadgen.wire.access import NO_ACCESS, Access, http_url, redirect_target
from loadgen.wire.framing import BadWire, Sse
from loadgen.wire.httpx_adapter import client_arguments

Endpoint = Literal["chat", "generate", "v1", "responses", "messages"]


class Place(NamedTuple):
    """Where an endpoint is below a server's root, and the API that speaks it."""

    api_name: str
    path: str


PLACES: Mapping[Endpoint, Place] = {
    "chat": Place("ollama", "/api/chat"),
    "generate": Place("ollama", "/api/generate"),
    "v1": Place("openai", "/v1/chat/completions"),
    "responses": Place("responses", "/v1/responses"),
    "messages": Place("anthropic", "/v1/messages"),
}
_BELOW_V1 = ("openai", "responses")
"""APIs whose servers' addresses are without the endpoint, but with what stands before it."""
_NOWHERE = "/structbench-asks-for-no-such-path"


def endpoints_of(server: Server, apis: Sequence[str] = ()) -> list[Endpoint]:
    """Return the endpoints to try on a server: those of these APIs (default: all), Ollama's own only on Ollama."""
    spoken = {DEFAULT_API} if DEFAULT_API in (server.api_name, server.kind) else set[str]()
    wanted = set(apis) or spoken | {place.api_name for place in PLACES.values()} - {DEFAULT_API}
    return [endpoint for endpoint, place in PLACES.items() if place.api_name in wanted]


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
    """False for what is not JSON, such as the plain text with which a server says that it has no such path."""
    offered: bool = True
    """False: the server answers as it does for a path that it does not have."""
    seconds: float = 0.0


class Prober:
    """Asks one request after the other; ``timeout_s`` is the limit of each.

    Each has a connection of its own: some servers close theirs after an answer although they said that they keep it.
    """

    def __init__(self, address: str, timeout_s: float, access: Access = NO_ACCESS, api_name: str = DEFAULT_API) -> None:
        """``address`` is the server's as that API's ``ServerApi`` has it."""
        way = client_arguments(address, access, timeout_s, proxy_to(address))
        self._http = httpx.Client(timeout=timeout_s, **way)
        self._http.headers["Connection"] = "close"
        self._address = http_url(address).rstrip("/")
        self._below_v1 = api_name in _BELOW_V1
        self._access = access
        self._timeout_s = timeout_s
        self._nowhere: Reply | None = None
        """What the server says of a path that it does not have."""

    def ask(self, endpoint: Endpoint, request: Request, stream: bool) -> Reply:
        """Send one request and take in its answer, streamed or whole; nothing is retried."""
        api, url = chat_api(PLACES[endpoint].api_name), self._url(PLACES[endpoint])
        reply = self._post(url, api, api.body(request, stream))
        if reply.status in (404, 405):
            if self._nowhere is None:
                self._nowhere = self._post(self._address + _NOWHERE, api, {})
            reply.offered = _told(reply, url) != _told(self._nowhere, self._address + _NOWHERE)
        return reply

    def _url(self, place: Place) -> str:
        if not self._below_v1:
            return self._address + place.path
        if place.api_name in _BELOW_V1:
            return self._address + place.path.removeprefix("/v1")
        return self._address.removesuffix("/v1") + place.path

    def _post(self, url: str, api: ChatApi, body: Mapping[str, Any]) -> Reply:
        began = monotonic()
        reply, data = Reply(), bytearray()
        try:
            headers = {name: value for name, value in api.HEADERS.items() if name not in self._access.names}
            with self._http.stream("POST", url, json=body, headers=headers) as response:
                reply.status = response.status_code
                if response.has_redirect_location:
                    target = redirect_target(url, response.headers["location"])
                    reply.failure = f"HTTP {reply.status} redirects to {target}"
                for part in response.iter_bytes():
                    data += part
        except httpx.TimeoutException:
            reply.failure, reply.timed_out = f"no end within {self._timeout_s:g} s", True
        except (httpx.HTTPError, OSError) as error:
            reply.failure = f"the connection broke: {str(error) or type(error).__name__}"
        reply.seconds = monotonic() - began
        if reply.failure is None:
            _take_in(reply, api, bytes(data), urlsplit(url).path)
        if reply.error is not None:
            reply.error = self._access.masked(reply.error)
        if reply.failure is not None:
            reply.failure = self._access.masked(reply.failure)
        return reply

    def close(self) -> None:
        self._http.close()


def _told(reply: Reply, url: str) -> tuple[int | None, str]:
    """Return what a server says of a path, whatever that path is."""
    return reply.status, (reply.error or "").replace(urlsplit(url).path, "")


def _take_in(reply: Reply, api: ChatApi, data: bytes, path: str) -> None:
    refused = reply.status is not None and reply.status >= 400
    try:
        parts = list(_parts(data, api))
    except sse.StreamFailed as error:
        reply.error = str(error)
        return
    except (BadWire, ValueError, RecursionError):
        reply.is_json = False
        told = " ".join(data.decode("utf-8", "replace").split())
        if refused:
            reply.error = told
        else:  # a page of something else, or a broken line
            reply.failure = f"the answer is no JSON: {told}"
        return
    try:
        _read(reply, api, parts, refused)
    except sse.StreamFailed as error:
        reply.error = str(error)
    except sse.OtherShape as error:
        reply.failure = f"no answer as {path} gives them: {error}"
    except (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, ValueError, BadWire) as error:
        reply.failure = f"no answer as {path} gives them: {type(error).__name__}: {error}"


def _read(reply: Reply, api: ChatApi, parts: Sequence[Mapping[str, Any]], refused: bool) -> None:
    answer = Answer()
    for part in parts:
        if part.get("error") is not None:  # some answers have the field, and null in it
            reply.error = _error_text(part["error"])
        elif refused:
            reply.error = sse.error_text(part)
        else:
            answer.add(api.piece(part), monotonic_ns())
    if refused and reply.error is None:
        reply.error = ""
    reply.text, reply.thinking, reply.calls = answer.text, answer.thinking, answer.tool_calls
    reply.finished, reply.done_reason = answer.done, answer.facts.get("done_reason")
    if answer.done and broke_off(reply.done_reason, said=bool(answer.chunk_ns)):
        reply.error = f"the server broke the answer off: {reply.done_reason}"


def _parts(data: bytes, api: ChatApi) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects of an answer: one whole, or its chunks; BadWire or ValueError for what is not JSON."""
    try:
        whole = json.loads(data)
    except ValueError:
        pass
    else:
        yield whole[0] if isinstance(whole, list) and len(whole) == 1 else whole  # as Gemini's errors
        return
    framing = api.FRAMING()
    chunks = [*framing.feed(data), framing.rest()]
    if data.strip() and not any(chunks):
        raise BadWire("no chunk of an answer")
    for chunk in filter(None, chunks):
        part = sse.event_of(chunk.decode()) if api.FRAMING is Sse else json.loads(chunk)
        if part is not None:
            yield part


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
