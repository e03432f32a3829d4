"""Ollama's own protocol as a ChatApi, over the official client: requests, answers and errors.

The request's timings and tools bypass the client, and its exceptions are unpacked where they hide the server's message.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

import httpx

from loadgen.api.answer import CallPiece, Piece
from loadgen.types import Request, RequestError
from loadgen.wire.access import NO_ACCESS, Access, http_url
from loadgen.wire.connection import WireTimings
from loadgen.wire.framing import Framing, Ndjson
from loadgen.wire.httpx_adapter import HttpxTransport, Stream

if TYPE_CHECKING:
    import ollama

FRAMING: type[Framing] = Ndjson
ENDS_ONCE = True
PROMPTS = True
HEADERS: Mapping[str, str] = {}
OPTIONS: Mapping[str, str] = {
    name: name
    for name in (
        "temperature", "top_k", "top_p", "min_p", "typical_p", "tfs_z", "seed", "stop", "num_predict", "num_keep",
        "repeat_last_n", "repeat_penalty", "presence_penalty", "frequency_penalty", "penalize_newline", "mirostat",
        "mirostat_tau", "mirostat_eta", "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap",
        "use_mlock", "low_vram", "numa", "f16_kv", "vocab_only", "logits_all", "embedding_only", "num_gqa",
        "rope_frequency_base", "rope_frequency_scale", "draft_num_predict",
    )
}  # fmt: skip
"""Those of old versions too; it ignores others."""
DIALECTS: Sequence[str] = ("tools",)

_SENDING: ContextVar[tuple[WireTimings, Request]] = ContextVar("sending")
"""The current task's request: the official client offers no way to pass it to its transport."""
_TOOLS_OR_NESTING = re.compile(rb'"tools":\s*\[\]|"(?:[^"\\]|\\.)*+"|[{}\[\]]')
_TEXT = rb'"([^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u00[0-9a-f]{2})[^"\\\x00-\x1f]*+)*+)"'
"""A text in JSON; of the characters written by number only those of one UTF-16 unit that is no surrogate."""
_NAME = rb'"[^"\\\x00-\x1f\x80-\xff]*+"'
_USUAL = re.compile(
    rb'\{"model":%s,"created_at":%s,(?:"message":\{"role":"assistant","content":%s(?:,"thinking":%s)?\}|"response":%s'
    rb'(?:,"thinking":%s)?),"done":false\}\n' % (_NAME, _NAME, _TEXT, _TEXT, _TEXT, _TEXT)
)
"""A line with a piece of text, as Ollama writes it."""
_SAYS_ERROR = re.compile(r"\b(?:err(?:or)?s?|exception|failed|failure|invalid|unexpected)\b", re.IGNORECASE)
_FACTS = {
    "done_reason": "done_reason",
    "prompt_tokens": "prompt_eval_count",
    "cached_prompt_tokens": "prompt_eval_cached_count",
    "output_tokens": "eval_count",
    "load_ns": "load_duration",
    "prompt_eval_ns": "prompt_eval_duration",
    "eval_ns": "eval_duration",
}
"""Fields of the RequestRecord -> those of Ollama's last message."""


@cache
def _client() -> type[ollama.AsyncClient]:
    """Return the official client, with what newer servers tell and its own model of an answer drops."""
    import ollama  # late: takes 0.3 s
    import pydantic

    class Function(pydantic.BaseModel):  # of whatever form: what a model writes is its own, and scored
        name: Any = None
        arguments: Any = {}

    class Call(pydantic.BaseModel):
        function: Function

    class Said(ollama.Message):
        tool_calls: Call | Sequence[Call] | None = None  # type: ignore[assignment]

    class ChatAnswer(ollama.ChatResponse):
        message: Said
        prompt_eval_cached_count: int | None = None

    class Completion(ollama.GenerateResponse):
        prompt_eval_cached_count: int | None = None

    with_more: Mapping[Any, Any] = {ollama.ChatResponse: ChatAnswer, ollama.GenerateResponse: Completion}

    class Client(ollama.AsyncClient):
        async def _request(self, cls: Any, *args: Any, **kwargs: Any) -> Any:
            return await super()._request(with_more.get(cls, cls), *args, **kwargs)

    return Client


def make_client(host: str | None, access: Access = NO_ACCESS) -> ollama.AsyncClient:
    """Make the official client over the stamping transport, without its limit on connections."""
    transport = HttpxTransport(lambda: _SENDING.get()[0], FRAMING, _with_tools, host, access)
    # A gateway that compresses an answer gathers its chunks.
    headers: Any = {**access.encoded_headers, "Accept-Encoding": "identity"}
    client = _client()(http_url(host or ""), transport=transport, trust_env=False, headers=headers,
                       follow_redirects=False)  # fmt: skip
    client._client.stream = Stream(client._client, transport)
    return client


async def preconnect(client: ollama.AsyncClient, count: int, timeout_s: float) -> None:
    """Open ``count`` connections in advance, unless a proxy is used."""
    transport = client._client._transport
    assert isinstance(transport, HttpxTransport)
    await transport.preconnect(str(client._client.base_url), count, timeout_s)


async def call(client: ollama.AsyncClient, request: Request, timings: WireTimings) -> AsyncGenerator[Any]:
    """Have the client send the request and yield its answer, part by part."""
    _SENDING.set((timings, request))
    arguments = _asked(request)  # the transport inserts tools and the request's own fields
    answer: AsyncGenerator[Any] = await (client.chat if request.prompt is None else client.generate)(**arguments)
    return answer


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """Return the body for /api/chat, or for /api/generate if there is a prompt, without fields that are unset."""
    tools = {"tools": list(request.tools)} if request.tools else {}
    return {**_asked(request), "stream": stream, **tools, **request.body}


def _asked(request: Request) -> dict[str, Any]:
    optional = {
        "messages": list(request.messages) if request.prompt is None else None,
        "prompt": request.prompt,
        "format": request.format,
        "think": request.think,
        "options": dict(request.options) or None,
        "keep_alive": request.keep_alive,
    }
    return {"model": request.model, "stream": True} | {k: v for k, v in optional.items() if v is not None}


def _with_tools(written: bytes) -> bytes:
    """Insert the request's own fields and its tools as they are: the client drops what it does not know."""
    _, request = _SENDING.get()
    if request.body:
        written = json.dumps({**json.loads(written), **request.body}).encode()
    if not request.tools:
        return written
    tools = b'"tools":' + json.dumps(request.tools).encode()
    place = _place_of_tools(written)
    if place is None:
        return written[:-1] + b"," + tools + b"}"
    return written[: place[0]] + tools + written[place[1] :]


def _place_of_tools(body: bytes) -> tuple[int, int] | None:
    """Return where the request's own empty list of tools stands: a message's arguments may hold one too."""
    depth = 0
    for found in _TOOLS_OR_NESTING.finditer(body):
        token = found[0]
        if depth == 1 and token.startswith(b'"tools"') and token.endswith(b"]"):
            return found.span()
        depth += (token in b"{[") - (token in b"}]")
    return None


def piece(part: Any) -> Piece:
    """Read one message of /api/chat or /api/generate, as JSON or as the client's model of it."""
    whole = _fields(part)
    message = whole.get("message")
    if message is None:
        message, text = whole, whole["response"]
    else:
        message = _fields(message)
        text = message.get("content")
    calls = message.get("tool_calls")
    said = Piece(text or "", message.get("thinking") or "", _calls(calls) if calls else ())
    if not whole.get("done"):
        return said
    return said._replace(done=True, facts={field: whole.get(name) for field, name in _FACTS.items()})


def usual(chunk: bytes) -> Piece | None:
    """Read a line with text, as ``piece`` reads the client's model of it; None: the client has to read it."""
    found = _USUAL.fullmatch(chunk)
    if found is None:
        return None
    content, thought, response, thinking = found.groups(b"")
    try:
        thinking = thought or thinking
        return Piece(_decoded(content or response), _decoded(thinking) if thinking else "")
    except UnicodeDecodeError:
        return None


def _decoded(written: bytes) -> str:
    """Return what a text in JSON says."""
    text = written.decode()
    return json.loads(f'"{text}"') if "\\" in text else text


def _calls(calls: Any) -> list[CallPiece]:
    """Read tool calls, each whole; a name that is no text, and arguments that are no object, are kept as JSON.

    That a text holds an object does not make it one.
    """
    functions = [_fields(_fields(call)["function"]) for call in (calls if isinstance(calls, list) else [calls])]
    pieces = []
    for function in functions:
        name, arguments = function.get("name"), function.get("arguments", {})
        named = name if isinstance(name, str) and name else json.dumps(name)
        pieces.append(CallPiece(named, arguments if isinstance(arguments, dict) else json.dumps(arguments)))
    return pieces


def _fields(value: Any) -> Mapping[str, Any]:
    """Return the fields of an object of the client, whose own ``get`` takes six times as long, or of JSON."""
    return value if isinstance(value, dict) else value.__dict__


def error_of(caught: Exception, timings: WireTimings) -> RequestError | None:
    """Convert the client's exception to our error, its message in full; None if it is a bug of ours."""
    import ollama

    text = str(caught) or type(caught).__name__
    match caught:
        case ollama.ResponseError():
            return _server_error(caught.error, caught.status_code)
        case httpx.ConnectError():
            return RequestError("connect", text)
        case httpx.HTTPError() | httpx.InvalidURL():
            return RequestError("protocol", text)
        case ValueError() | AttributeError() | TypeError() | RecursionError() if _in_client(caught):
            return _not_ollama(caught, text, timings)
    return None


def _server_error(error: Any, status: int) -> RequestError:
    """Make the error that the server sent (gateways send an object); status -1: in a line within an answer."""
    text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    return RequestError("stream", text, 200) if status == -1 else RequestError("http", text, status)


def _not_ollama(caught: Exception, text: str, timings: WireTimings) -> RequestError:
    """Make the error for a request that the client refused, or an answer that it could not read."""
    if timings.sent_ns is None:
        return RequestError("protocol", f"not a request that the Ollama client sends: {text}")
    if (hidden := _hidden(caught)) is not None:
        return _server_error(*hidden)
    if (line := _error_line(caught)) is not None:
        return _server_error(line, -1)
    if not timings.content_type.startswith(FRAMING.CONTENT_TYPES):
        text = f"content type {timings.content_type!r} is not {FRAMING.NAME}"
    return RequestError("protocol", f"not {FRAMING.NAME} as Ollama sends it: {text}", 200)


def _hidden(caught: BaseException) -> tuple[Any, int] | None:
    """Find the server's error and status if the client's own exception failed because the error is not a text."""
    import ollama

    for frame, _ in traceback.walk_tb(caught.__traceback__):
        if frame.f_code is ollama.ResponseError.__init__.__code__:
            return frame.f_locals["error"], frame.f_locals["status_code"]
    return None


def _error_line(caught: Exception) -> Mapping[str, Any] | None:
    """Find the line, without an answer, that the client refused, if it says that something went wrong.

    Ollama 0.11 writes the error as a name: ``{"error parsing tool call": "…"}``.
    """
    import pydantic

    if not isinstance(caught, pydantic.ValidationError):
        return None
    wrong = caught.errors()[0]
    line = wrong["input"]
    if wrong["type"] == "missing" and wrong["loc"] in (("message",), ("response",)) and isinstance(line, dict):
        told = " ".join(text for item in line.items() for text in item if isinstance(text, str))
        return line if _SAYS_ERROR.search(told) else None
    return {"error": line} if wrong["loc"] == ("message",) and isinstance(line, str) else None


def _in_client(caught: BaseException) -> bool:
    """Return whether the client raised it, not our own code above or below the client."""
    inside = False
    for frame, _ in traceback.walk_tb(caught.__traceback__):
        module = frame.f_globals.get("__name__", "")
        inside = module.startswith("ollama.") or (inside and not module.startswith("loadgen."))
    return inside
