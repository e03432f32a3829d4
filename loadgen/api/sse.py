"""What APIs over server-sent events share: the client's raw answer, read event by event.

Their official clients take 75 to 85 µs to make a model of each chunk, drop the fields that only some servers send, and
end a broken stream as if it were whole. They make the request and its errors; we read the answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextvars import ContextVar
from functools import cache, wraps
from importlib import import_module
from typing import Any

from loadgen.api.answer import Piece
from loadgen.api.rate_limits import is_rate_limit
from loadgen.api.reading import object_of
from loadgen.types import RequestError
from loadgen.wire.access import Access, http_url
from loadgen.wire.connection import ConnectFailed, TimedOut, WireTimings
from loadgen.wire.framing import BadWire, Sse

DONE = "[DONE]"
_DONES = (DONE, "[done]", "DONE")
END: Mapping[str, Any] = {"type": DONE}
"""With what chat completions end, whether or not they say why; gateways to other APIs send it too."""
_ANSWERS = ("response", "message", "content_block", "chat", "completion", "chunk", "data")
"""How the names of events begin that hold a part of an answer: others, as keepalive, may hold anything."""
_PLAIN = "identity"
"""The content encoding that is none."""
_SENDING: ContextVar[WireTimings] = ContextVar("sending")
"""The current task's request: the official clients offer no way to pass it to their transport."""
_CLIENTS = ("openai", "anthropic")
_CLIENTS_OWN = ("anthropic-version",)
"""Headers that a client would set in place of ours."""
_ERROR_WORDS = ("message", "detail", "msg", "errors", "error_code")
"""Fields of an error that is sent by itself amid a stream."""
_SHAPE = (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError)
"""What reading an answer of another shape raises."""


class StreamFailed(Exception):
    """The server reported an error within an answer; the message is the server's."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(error_text(fields))
        self.is_rate_limit = is_rate_limit(fields)


class OtherShape(Exception):
    """A part of an answer that is not what its API sends; the message has it."""


def make_client(client_class: Any, host: str | None, access: Access) -> Any:
    """Make an official client over the stamping transport; it retries nothing and has no limits of its own."""
    import httpx2

    from loadgen.wire.httpx2_adapter import Httpx2Transport

    transport = Httpx2Transport(_SENDING.get, Sse, bytes, host, access)
    # A gateway that compresses an answer gathers its chunks.
    headers: Any = {**access.encoded_headers, "Accept-Encoding": _PLAIN}
    http = httpx2.AsyncClient(
        transport=transport, headers=headers, trust_env=False, timeout=None, follow_redirects=False
    )
    given = {name: value for name, value in access.headers if name.lower() in _CLIENTS_OWN}
    return client_class(
        base_url=http_url(host or ""), api_key="-", http_client=http, max_retries=0, timeout=None, default_headers=given
    )


def _package(thing: object) -> str:
    return type(thing).__module__.partition(".")[0]


@cache
def _without_key(package: str) -> dict[str, Any]:
    """Return the options of a request for which the client adds no key: ours is among the headers."""
    return {"headers": {"Authorization": import_module(package).omit}}


async def preconnect(client: Any, count: int, timeout_s: float) -> None:
    """Open ``count`` connections in advance, unless a proxy is used."""
    await client._client._transport.preconnect(str(client.base_url), count, timeout_s)


async def call(client: Any, path: str, body: Mapping[str, Any], timings: WireTimings) -> AsyncGenerator[Any]:
    """Have the client send the body; return the events of the answer."""
    import httpx2

    _SENDING.set(timings)
    try:
        options = _without_key(_package(client))
        response = await client.post(
            path, body=body, cast_to=httpx2.Response, options=options, stream=True, stream_cls=object
        )
    except Exception as caught:
        raise _innermost(caught) from None
    return _answer(response)


def _innermost(caught: Exception) -> Exception:
    """Return our own exception if the client hides it behind one that only says "Connection error."."""
    inner: BaseException | None = caught
    while inner is not None and not isinstance(inner, TimedOut | ConnectFailed | BadWire):
        inner = inner.__cause__
    return inner or caught


async def _answer(response: Any) -> AsyncGenerator[Mapping[str, Any]]:
    """Yield the data of each event: see ``event_of``."""
    try:
        async for text in response.aiter_lines():
            if (fields := event_of(text)) is not None:
                yield fields
    finally:
        await response.aclose()


def event_of(text: str) -> Mapping[str, Any] | None:
    """Return an event's data, with its name as ``type``, or END; None for what keeps a connection open.

    Raises StreamFailed for an event that reports an error, also for one in the place of a stream; BadWire for one of
    an answer that is no JSON object.
    """
    name, data = _parts(text)
    if data in _DONES:
        return END
    if not data and text.startswith(("{", "[")):
        _fail_for(text)
    if name == "ping" or not (data or name == "error"):
        return None
    is_other = name is not None and name != "error" and not name.startswith(_ANSWERS)
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        if name == "error":
            raise StreamFailed({"message": data or "an error event without a text"}) from None
        if is_other:
            return None
        raise BadWire(f"an event is not JSON ({error}): {data:.100}") from None
    fields = _only(fields)
    if name == "error" or (isinstance(fields, dict) and _is_error(fields)):
        raise StreamFailed(fields)
    if fields == DONE:
        return END
    if not isinstance(fields, dict):
        if is_other or not fields:
            return None
        raise BadWire(f"an event is not a JSON object: {data:.100}")
    if name is not None:
        fields.setdefault("type", name)
    return fields


def _only(fields: Any) -> Any:
    """Return what stands in a list of one, as Gemini's errors do."""
    return fields[0] if isinstance(fields, list) and len(fields) == 1 else fields


def _fail_for(body: str) -> None:
    """Raise StreamFailed for an error that came as JSON in the place of an event."""
    try:
        fields = _only(json.loads(body))
    except (ValueError, RecursionError):
        return
    if isinstance(fields, dict) and _is_error(fields):
        raise StreamFailed(fields)


def readable(read: Callable[[Mapping[str, Any]], Piece]) -> Callable[[Mapping[str, Any]], Piece]:
    """Wrap a ``ChatApi.piece``: OtherShape, with the event, for one of a shape that it cannot read."""

    @wraps(read)
    def piece(part: Mapping[str, Any]) -> Piece:
        try:
            return read(part)
        except _SHAPE:
            raise OtherShape(
                f"not an event as this API sends it: {json.dumps(part, ensure_ascii=False):.200}"
            ) from None

    return piece


def usual_with(piece: Callable[[Mapping[str, Any]], Piece]) -> Callable[[bytes], Piece | None]:
    """Make a ``ChatApi.usual``, of events that bring text and nothing else."""

    def usual(chunk: bytes) -> Piece | None:
        try:
            fields = event_of(chunk.decode())
            found = None if fields is None else piece(fields)
        except (StreamFailed, OtherShape, BadWire, UnicodeDecodeError):
            return None
        if found is None or not (isinstance(found.text, str) and isinstance(found.thinking, str)):
            return None
        return found if found == Piece(found.text, found.thinking) else None

    return usual


def _parts(text: str) -> tuple[str | None, str]:
    """Return an event's name and data."""
    if text.startswith("data: ") and text.find("\n") >= len(text) - 2:  # nearly always
        return None, text[6:].strip()
    name, data = None, []
    for line in text.split("\n"):  # not splitlines(): JSON may contain U+2028
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "error":  # as old versions of llama.cpp write it
            name, data = "error", [value]
    return name, "\n".join(data).strip()


def _is_error(fields: Mapping[str, Any]) -> bool:
    """Return whether an event reports an error, in any of the forms that servers use."""
    error = fields.get("error")
    if any(error.values()) if isinstance(error, dict) else error:
        return True
    if fields.get("type") == "error" or fields.get("object") == "error":
        return True
    if object_of(fields, "base_resp").get("status_code"):  # MiniMax
        return True
    if "choices" in fields or "type" in fields or "object" in fields or fields.get("code") == 0:
        return False
    return any(fields.get(name) for name in _ERROR_WORDS) and not isinstance(fields.get("message"), dict)


def error_text(fields: Any) -> str:
    """Return the message in the body of an error, in any of the forms that servers use."""
    match fields:
        case [dict() as only]:  # Gemini
            return error_text(only)
        case {"error": {"message": str(text)}} | {"error": str(text)} | {"message": str(text)} | {"detail": str(text)}:
            return text
        case {"response": {"error": {"message": str(text)}}} | {"error": {"error": {"message": str(text)}}}:
            return text
        case {"msg": str(text)} | {"errors": [{"message": str(text)}, *_]} | {"error": [{"message": str(text)}, *_]}:
            return text
        case {"base_resp": {"status_msg": str(text)}}:
            return text
        case str():
            return fields
    return json.dumps(fields, ensure_ascii=False)


def error_of(caught: Exception, timings: WireTimings) -> RequestError | None:  # noqa: ARG001
    """Convert the client's exception to our error; None if it is a bug of ours."""
    text = str(caught) or type(caught).__name__
    status = getattr(caught, "status_code", None)
    if isinstance(caught, OtherShape):
        return RequestError("protocol", text, 200)
    if isinstance(caught, StreamFailed):
        return RequestError("rate_limited" if caught.is_rate_limit else "stream", text, 200)
    if _package(caught) in _CLIENTS:
        if status is not None:
            return RequestError("http", error_text(getattr(caught, "body", None) or text), status)
        return RequestError("protocol", text)
    return None
