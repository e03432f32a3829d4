"""Answers in the forms of OpenAI's and Anthropic's APIs, as Ollama and llama.cpp write them: server-sent events."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from time import time
from typing import Any, ClassVar

from loadgen.simulator import v1_recorded
from loadgen.simulator.connection import JSON, JSON_BARE, encode
from loadgen.simulator.forms import Ending, Form, Message, arguments_text
from loadgen.simulator.v1_requests import Api, Kind

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_STREAM = "text/event-stream"
_DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a form must know of its request and server."""

    model: str
    kind: Kind
    fault: str | None
    old: bool
    """Ollama before 0.6."""
    usage: bool
    """Whether a stream is to end with the counts."""
    id: str
    """Without its prefix."""


def form_of(
    api: Api, sent: Mapping[str, Any], model: str, kind: Kind, fault: str | None, old: bool, rng: Random
) -> Form:
    """Return the form of the answer by this model to a request as it was sent."""
    usage = bool((sent.get("stream_options") or {}).get("include_usage"))
    length = 32 if kind == "llama.cpp" else 3
    letters = "".join(rng.choices(_LETTERS if kind == "llama.cpp" else "123456789", k=length))
    asked = Asked(model=model, kind=kind, fault=fault, old=old, usage=usage, id=letters)
    return _FORMS[api](asked)


def refused_in_stream() -> bytes:
    """Return what Ollama before 0.6 makes of its error within a stream: a piece that says nothing."""
    asked = Asked(model="", kind="ollama", fault=None, old=True, usage=False, id="1")
    return ChatForm(asked).piece({"content": ""})


def _event(fields: Mapping[str, Any], name: str | None = None) -> bytes:
    data = b"data: " + encode(fields) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


class _V1Form(ABC):
    """What the four forms share."""

    api: ClassVar[Api]
    content_type = _STREAM
    ping = b": ping\n\n"

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.llama = asked.kind == "llama.cpp"
        self.whole_type = JSON if self.llama else JSON_BARE
        self.calls_in_pieces = asked.fault in _SPLIT or (self.llama and asked.fault != "calls-whole")
        self.created = int(time())
        self.prompt_tokens, self.cached = 0, 0 if self.llama else None
        self.opened = False

    def begin(self, prompt_tokens: int, cached: int | None) -> None:
        self.prompt_tokens = prompt_tokens
        self.cached = self.cached if cached is None else cached

    def early(self) -> bytes:
        return self._begin_once()

    def piece(self, message: Message) -> bytes:
        return self._begin_once() + self._piece(message)

    def _begin_once(self) -> bytes:
        """Return what a stream begins with, unless it was sent."""
        opening = b"" if self.opened else self._opening()
        self.opened = True
        return opening

    def line(self, data: bytes) -> bytes:
        return b"data: " + data + b"\n\n"

    def refusal(self, status: int, text: str) -> bytes:
        return v1_recorded.refusal(self.api, self.asked.kind, status, text, self.asked.old)

    @abstractmethod
    def _opening(self) -> bytes: ...

    @abstractmethod
    def _piece(self, message: Message) -> bytes: ...

    def _timings(self, end: Ending) -> dict[str, Any]:
        """Return llama.cpp's durations, in ms."""
        cached = self.cached or 0
        prompt_n, prompt_ms, tokens_ms = end.prompt_tokens - cached, end.prompt_eval_ns / 1e6, end.eval_ns / 1e6
        return {
            "cache_n": cached, "prompt_n": prompt_n, "prompt_ms": prompt_ms, **_speed("prompt", prompt_n, prompt_ms),
            "predicted_n": end.tokens, "predicted_ms": tokens_ms, **_speed("predicted", end.tokens, tokens_ms),
        }  # fmt: skip


def _speed(of: str, tokens: int, ms: float) -> dict[str, float]:
    return {f"{of}_per_token_ms": ms / max(1, tokens), f"{of}_per_second": 1e3 * tokens / max(ms, 1e-3)}


class _OpenAiForm(_V1Form):
    """What /v1/chat/completions and /v1/completions share."""

    prefix = "chatcmpl-"
    object = "chat.completion"

    def ending(self, end: Ending) -> Sequence[bytes]:
        last = self._begin_once() + self._last(end)
        if self.asked.usage and self.asked.fault != "no-counts":
            last += self._usage_event(end)
        if self.asked.fault == "no-done":
            return [last]
        return [last, _DONE] if self.llama else [last + _DONE]

    def whole(self, message: Message, end: Ending | None) -> bytes:
        counts = {} if end is None or self.asked.fault == "no-counts" else {"usage": self._usage(end)}
        timings = {"timings": self._timings(end)} if end is not None and self.llama else {}
        choice = self._whole_choice(message, None if end is None else self._reason(end))
        return encode(self._envelope([choice], self.object, **counts, **timings)) + (b"" if self.llama else b"\n")

    def error(self, text: str, named: bool) -> bytes:
        if named:
            return _event({"message": text, "code": 500}, "error")
        if self.asked.fault == "error-flat":
            return _event({"object": "error", "message": text, "type": "InternalServerError", "code": 500})
        return _event({"error": {"message": text, "type": "server_error", "code": 500}})

    def _opening(self) -> bytes:
        return b""

    @abstractmethod
    def _last(self, end: Ending) -> bytes: ...

    def _usage_event(self, end: Ending) -> bytes:
        timings = {"timings": self._timings(end)} if self.llama else {}
        return _event(self._envelope([], self._chunk, usage=self._usage(end), **timings))

    @property
    def _chunk(self) -> str:
        return self.object + ".chunk"

    @abstractmethod
    def _whole_choice(self, message: Message, reason: str | None) -> dict[str, Any]: ...

    def _reason(self, end: Ending) -> str:
        return "" if self.asked.fault == "no-done-reason" else end.reason

    def _envelope(self, choices: Sequence[Mapping[str, Any]], what: str, **more: Any) -> dict[str, Any]:
        name, id_ = self.asked.model, self.prefix + self.asked.id
        if not self.llama:
            return {"id": id_, "object": what, "created": self.created, "model": name,
                    "system_fingerprint": "fp_ollama", "choices": choices, **more}  # fmt: skip
        said = {"choices": choices, "created": self.created}
        of = {"model": name, "system_fingerprint": "b0-simulated", "object": what}
        if what.endswith(".chunk"):
            return {**said, "id": id_, **of, **more}
        counts = {"usage": more.pop("usage")} if "usage" in more else {}
        return {**said, **of, **counts, "id": id_, **more}

    def _usage(self, end: Ending) -> dict[str, Any]:
        prompt, output = {"prompt_tokens": end.prompt_tokens}, {"completion_tokens": end.tokens}
        both = {**output, **prompt} if self.llama else {**prompt, **output}
        cached = {} if self.cached is None else {"prompt_tokens_details": {"cached_tokens": self.cached}}
        return {**both, "total_tokens": end.prompt_tokens + end.tokens, **cached}

    def _running(self) -> dict[str, Any]:
        """Return the counts so far, where each chunk has them."""
        if self.asked.fault != "usage-running":
            return {"usage": None} if self.asked.fault == "usage-null" else {}
        self.said += 1
        total = self.prompt_tokens + self.said
        counts = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.said, "total_tokens": total}
        return {"usage": counts}

    said = 0
    """Pieces, of which running counts are."""


class ChatForm(_OpenAiForm):
    """/v1/chat/completions."""

    api: ClassVar[Api] = "chat"
    called = False

    def early(self) -> bytes:
        self.opened = True
        return self._delta({"role": "assistant", "content": None if self.llama else ""})

    def _opening(self) -> bytes:
        return self._delta({"role": "assistant", "content": None}) if self.llama else b""

    def _piece(self, message: Message) -> bytes:
        role = {} if self.llama else {"role": "assistant"}
        thinking = self._thinking(message.get("thinking"))
        calls = message.get("tool_calls")
        text = message["content"]
        text = [{"type": "text", "text": text}] if text and self.asked.fault == "text-parts" else text
        content = {} if self.llama and (thinking or calls) else {"content": text}
        said = {"tool_calls": [self._call(call) for call in calls]} if calls else {}
        self.called = self.called or bool(calls)
        return self._delta({**role, **content, **thinking, **said}, **self._running())

    def _thinking(self, text: str | None) -> dict[str, str]:
        if not text:
            return {}
        if self.asked.fault == "reasoning-both":
            return {"reasoning": text, "reasoning_content": text}
        named = self.llama or self.asked.fault == "reasoning-content"
        return {"reasoning_content" if named else "reasoning": text}

    def _call(self, call: Mapping[str, Any]) -> dict[str, Any]:
        index = 0 if self.asked.fault == "calls-same-index" else call["index"]
        place = {} if self.asked.fault == "calls-unindexed" else {"index": index}
        if "name" not in call:
            repeated = {"id": call["id"]} if self.asked.fault == "calls-same-id" else {}
            return {**place, **repeated, "function": {"arguments": call["arguments"]}}
        function = {"name": call["name"], "arguments": arguments_text(call["arguments"])}
        return {"id": call["id"], **place, "type": "function", "function": function}

    def _last(self, end: Ending) -> bytes:
        delta = {} if self.llama else {"role": "assistant", "content": ""}
        alone = self.llama and not self.asked.usage
        return self._delta(delta, self._reason(end), **({"timings": self._timings(end)} if alone else {}))

    def _reason(self, end: Ending) -> str:
        calls = self.called and end.reason == "stop" and not self.asked.old
        return "tool_calls" if calls and self.asked.fault != "no-done-reason" else super()._reason(end)

    def _delta(self, delta: Mapping[str, Any], reason: str | None = None, **more: Any) -> bytes:
        reason = "" if reason is None and self.asked.fault == "reason-empty" else reason
        if self.llama:
            choice = {"finish_reason": reason, "index": 0, "delta": delta}
        else:
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _event(self._envelope([choice], self._chunk, **more))

    def _whole_choice(self, message: Message, reason: str | None) -> dict[str, Any]:
        calls = [self._call(call) for call in message.get("tool_calls") or ()]
        if calls and reason == "stop" and not self.asked.old:
            reason = "tool_calls"
        said = {"role": "assistant", "content": message["content"], **self._thinking(message.get("thinking"))}
        said |= {"tool_calls": calls} if calls else {}
        if self.llama:
            return {"finish_reason": reason, "index": 0, "message": said}
        return {"index": 0, "message": said, "finish_reason": reason}


class CompletionForm(_OpenAiForm):
    """/v1/completions."""

    api: ClassVar[Api] = "completions"
    object = "text_completion"

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.prefix = "chatcmpl-" if self.llama else "cmpl-"

    @property
    def _chunk(self) -> str:
        return self.object

    def _piece(self, message: Message) -> bytes:
        return self._text(message["content"], None, **self._running())

    def early(self) -> bytes:
        return self._text("", None)

    def ending(self, end: Ending) -> Sequence[bytes]:
        if not self.llama:
            return super().ending(end)
        counts = {} if self.asked.fault == "no-counts" else {"usage": self._usage(end)}
        last = self._text("", self._reason(end), **counts, timings=self._timings(end))
        return [last] if self.asked.fault == "no-done" else [last, _DONE]

    def _last(self, end: Ending) -> bytes:
        return self._text("", self._reason(end))

    def _text(self, text: str, reason: str | None, **more: Any) -> bytes:
        if self.asked.old:  # counts that it does not know yet
            more.setdefault("usage", {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0})
        return _event(self._envelope([self._whole_choice({"content": text}, reason)], self._chunk, **more))

    def _envelope(self, choices: Sequence[Mapping[str, Any]], what: str, **more: Any) -> dict[str, Any]:
        said = super()._envelope(choices, what, **more)
        if self.llama:
            return said
        order = ("id", "object", "created", "choices", "model", "system_fingerprint")
        return {name: said[name] for name in order} | more

    def _whole_choice(self, message: Message, reason: str | None) -> dict[str, Any]:
        unasked = {"logprobs": None} if self.llama else {}
        return {"text": message["content"], "index": 0, **unasked, "finish_reason": reason}


class ResponsesForm(_V1Form):
    """/v1/responses: items of output, each begun, said and done."""

    api: ClassVar[Api] = "responses"

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.id = "resp_" + asked.id
        self.done: list[dict[str, Any]] = []
        """The items that are finished."""
        self.item: dict[str, Any] | None = None
        self.texts: list[str] = []
        """What the unfinished item says."""
        self.number = 0

    def ending(self, end: Ending) -> Sequence[bytes]:
        closed = self._begin_once() + self._close()
        cut = end.reason == "length" and not self.llama
        name = "response.incomplete" if cut else "response.completed"
        timings = {"timings": self._timings(end)} if self.llama else {}
        last = self._send(name, response=self._response(end, cut), **timings)
        return [closed + last]

    def whole(self, message: Message, end: Ending | None) -> bytes:
        self._piece({"content": "", "thinking": message.get("thinking")})
        self._piece({"content": message["content"], "tool_calls": message.get("tool_calls")})
        self._close()
        cut = end is not None and end.reason == "length" and not self.llama
        return encode(self._response(end, cut)) + (b"" if self.llama else b"\n")

    def error(self, text: str, named: bool) -> bytes:
        if named:
            failure = {"code": "server_error", "message": text}
            return self._send("response.failed", response={**self._begun("failed"), "error": failure})
        return self._send("error", code="server_error", message=text, param=None)

    def _opening(self) -> bytes:
        return b"".join(self._send(f"response.{n}", response=self._begun("in_progress")) for n in _BEGIN)

    def _begun(self, status: str) -> dict[str, Any]:
        return {"id": self.id, "object": "response", "status": status}

    def _response(self, end: Ending | None, cut: bool) -> dict[str, Any]:
        status = "incomplete" if end is None or cut else "completed"
        said = {"id": self.id, "object": "response", "created_at": self.created, "status": status}
        why = {"incomplete_details": {"reason": "max_output_tokens"}} if cut else {}
        counts = {} if end is None or self.asked.fault == "no-counts" else {"usage": self._usage(end)}
        return {**said, **why, "model": self.asked.model, "output": self.done, **counts}

    def _usage(self, end: Ending) -> dict[str, Any]:
        counts = {"input_tokens": end.prompt_tokens, "output_tokens": end.tokens,
                  "total_tokens": end.prompt_tokens + end.tokens}  # fmt: skip
        return counts if self.cached is None else {**counts, "input_tokens_details": {"cached_tokens": self.cached}}

    def _piece(self, message: Message) -> bytes:
        if thinking := message.get("thinking"):
            return self._in("reasoning") + self._say("response.reasoning_text.delta", thinking)
        if calls := message.get("tool_calls"):
            return b"".join(map(self._call, calls))
        if not message["content"]:
            return b""
        return self._in("message") + self._say("response.output_text.delta", message["content"])

    def _call(self, call: Mapping[str, Any]) -> bytes:
        begun = b""
        if "name" in call:
            named = {"call_id": call["id"], "name": call["name"]}
            own = {} if self.llama else {"id": f"fc_{call['index']}"}
            added = {"type": "function_call", "status": "in_progress", "arguments": "", **named, **own}
            begun = self._close() + self._open(added)
        text = arguments_text(call["arguments"])
        return begun + (self._say("response.function_call_arguments.delta", text) if text else b"")

    def _in(self, kind: str) -> bytes:
        """Begin an item of that kind, unless the answer is within one."""
        if self.item is not None and self.item["type"] == kind:
            return b""
        letters = self.asked.id
        if kind == "reasoning":
            added = {"id": f"rs_{letters}", "summary": [], "type": kind, "content": [], "status": "in_progress"}
            return self._close() + self._open(added)
        added = {"content": [], "id": f"msg_{letters}", "role": "assistant", "status": "in_progress", "type": kind}
        begun = self._close() + self._open(added)
        part = {"type": "output_text", "text": ""}
        return begun + self._send("response.content_part.added", item_id=added["id"], part=part)

    def _open(self, item: dict[str, Any]) -> bytes:
        self.item, self.texts = item, []
        return self._send("response.output_item.added", item=item)

    def _say(self, name: str, text: str) -> bytes:
        assert self.item is not None
        self.texts.append(text)
        return self._send(name, item_id=self._item_id(), delta=text)

    def _item_id(self) -> str:
        assert self.item is not None
        return str(self.item.get("id") or self.item["call_id"])

    def _close(self) -> bytes:
        """Finish the item, if there is one."""
        if self.item is None:
            return b""
        item, text, told = self.item, "".join(self.texts), b""
        match item["type"]:
            case "message":
                part = {"type": "output_text", "annotations": [], "logprobs": [], "text": text}
                told = self._send("response.output_text.done", item_id=item["id"], text=text)
                told += self._send("response.content_part.done", item_id=item["id"], part=part)
                closed = {"type": "message", "status": "completed", "id": item["id"], "content": [part],
                          "role": "assistant"}  # fmt: skip
            case "reasoning":
                closed = {**item, "status": "completed", "content": [{"type": "reasoning_text", "text": text}]}
            case _:
                closed = {**item, "status": "completed", "arguments": text}
                if not self.llama:
                    told = self._send("response.function_call_arguments.done", item_id=item["id"], arguments=text)
        told += self._send("response.output_item.done", item=closed)
        self.done.append(closed)
        self.item = None
        return told

    def _send(self, name: str, **fields: Any) -> bytes:
        """Return an event; llama.cpp's have no numbers and no places."""
        told = {} if self.llama else {"sequence_number": self.number, **self._place(name)}
        self.number += 1
        return _event({"type": name, **told, **fields}, name)

    def _place(self, name: str) -> dict[str, int]:
        placed = name.startswith(("response.output", "response.content", "response.reasoning", "response.function"))
        return {"output_index": len(self.done)} if placed else {}


_BEGIN = ("created", "in_progress")


class MessagesForm(_V1Form):
    """/v1/messages: blocks of content, each started and stopped."""

    api: ClassVar[Api] = "messages"
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.id = ("chatcmpl-" if self.llama else "msg_") + asked.id
        self.index = -1
        self.block: str | None = None
        """The type of the unfinished block."""
        self.called = False

    def ending(self, end: Ending) -> Sequence[bytes]:
        delta = {"stop_reason": self._reason(end), "stop_sequence": None}
        counts = {} if self.asked.fault == "no-counts" else {"usage": {"output_tokens": end.tokens}}
        stop = b"" if self.asked.fault == "no-done" else self._send("message_stop")
        return [self._begin_once() + self._close() + self._send("message_delta", delta=delta, **counts) + stop]

    def whole(self, message: Message, end: Ending | None) -> bytes:
        blocks: list[dict[str, Any]] = []
        if thinking := message.get("thinking"):
            blocks.append({"type": "thinking", "thinking": thinking, "signature": ""})
        if message["content"]:
            blocks.append({"type": "text", "text": message["content"]})
        for call in message.get("tool_calls") or ():
            self.called = True
            blocks.append({"type": "tool_use", "id": call["id"], "name": call["name"], "input": _parsed(call)})
        told = {} if end is None or self.asked.fault == "no-counts" else {"usage": self._usage(end.tokens)}
        return encode(self._message(blocks, None if end is None else self._reason(end)) | told)

    def error(self, text: str, named: bool) -> bytes:
        return self._send("error", error={"type": "overloaded_error" if named else "api_error", "message": text})

    def _message(self, blocks: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
        return {"id": self.id, "type": "message", "role": "assistant", "content": blocks, "model": self.asked.model,
                "stop_reason": reason, "stop_sequence": None}  # fmt: skip

    def _opening(self) -> bytes:
        told = {} if self.asked.fault == "no-counts" else {"usage": self._usage(0)}
        return self._send("message_start", message=self._message([], None) | told)

    def _usage(self, tokens: int) -> dict[str, int]:
        """Return the counts: those of the prompt are without what was cached."""
        cached = {} if self.cached is None else {"cache_read_input_tokens": self.cached}
        return {**cached, "input_tokens": self.prompt_tokens - (self.cached or 0), "output_tokens": tokens}

    def _reason(self, end: Ending) -> str | None:
        if self.asked.fault == "no-done-reason":
            return None
        return "max_tokens" if end.reason == "length" else "tool_use" if self.called else "end_turn"

    def _piece(self, message: Message) -> bytes:
        if thinking := message.get("thinking"):
            begun = self._in({"type": "thinking", "thinking": ""})
            return begun + self._delta({"type": "thinking_delta", "thinking": thinking})
        if calls := message.get("tool_calls"):
            return b"".join(map(self._call, calls))
        begun = self._in({"type": "text", "text": ""})
        return begun + self._delta({"type": "text_delta", "text": message["content"]})

    def _call(self, call: Mapping[str, Any]) -> bytes:
        self.called = True
        begun = b""
        if "name" in call:
            block = {"type": "tool_use", "id": call["id"], "name": call["name"], "input": {}}
            begun = self._close() + self._open(block)
        text = arguments_text(call["arguments"])
        return begun + (self._delta({"type": "input_json_delta", "partial_json": text}) if text else b"")

    def _in(self, block: dict[str, Any]) -> bytes:
        return b"" if self.block == block["type"] else self._close() + self._open(block)

    def _open(self, block: dict[str, Any]) -> bytes:
        self.block = block["type"]
        self.index += 1
        return self._send("content_block_start", index=self.index, content_block=block)

    def _close(self) -> bytes:
        if self.block is None:
            return b""
        signed = self._delta({"type": "signature_delta", "signature": ""}) if self.block == "thinking" else b""
        self.block = None
        return signed + self._send("content_block_stop", index=self.index)

    def _delta(self, delta: Mapping[str, Any]) -> bytes:
        return self._send("content_block_delta", index=self.index, delta=delta)

    def _send(self, name: str, **fields: Any) -> bytes:
        return _event({"type": name, **fields}, name)


def _parsed(call: Mapping[str, Any]) -> Any:
    try:
        return json.loads(arguments_text(call["arguments"]))
    except ValueError:
        return {}


_SPLIT = frozenset({"calls-split", "calls-same-id"})
_FORMS: Mapping[Api, type[ChatForm | CompletionForm | ResponsesForm | MessagesForm]] = {
    "chat": ChatForm, "completions": CompletionForm, "responses": ResponsesForm, "messages": MessagesForm,
}  # fmt: skip
