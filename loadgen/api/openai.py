"""OpenAI's chat completions (/v1/chat/completions; a prompt goes to /v1/completions) as a ChatApi.

Many servers speak it, each with fields and habits of its own; what they are is said where they are read.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from loadgen.api import conversation, sse
from loadgen.api.answer import REFUSED, CallPiece, Piece
from loadgen.api.reading import count_of, name_of, ns_of, object_of, objects_of, text_of, word_of
from loadgen.types import ANSWER, NS, Request
from loadgen.wire.access import NO_ACCESS, Access
from loadgen.wire.connection import WireTimings
from loadgen.wire.framing import Framing, Sse

FRAMING: type[Framing] = Sse
ENDS_ONCE = False
PROMPTS = True
HEADERS: Mapping[str, str] = {}
OPTIONS: Mapping[str, str] = {
    "num_predict": "max_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed", "stop": "stop",
    "presence_penalty": "presence_penalty", "frequency_penalty": "frequency_penalty",
}  # fmt: skip
"""Ollama's name of an option -> its name here; what is missing has no counterpart."""
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
"""The usual field of an answer's limit, which every server knows, and the one that OpenAI's own models insist on."""
DIALECTS: Sequence[str] = ("strict", "structured_outputs", "json_schema", "tools")
_NOT_ALL = ("reasoning.summary", "reasoning.encrypted")
"""Types of thinking that is not streamed as it is made."""
_NO_REASON = ("", "null")
"""How some servers say in each chunk that the answer goes on."""
EFFORT: Mapping[bool | str | None, str] = {True: "medium", False: "none"}
_MS = NS // 1000
_COUNTS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
"""The counts, and what some servers call them."""


def make_client(host: str | None, access: Access = NO_ACCESS) -> Any:
    """Make the official client over the stamping transport; it retries nothing and has no limits of its own."""
    from openai import AsyncOpenAI

    return sse.make_client(AsyncOpenAI, host, access)


preconnect = sse.preconnect
error_of = sse.error_of


async def call(client: Any, request: Request, timings: WireTimings) -> AsyncGenerator[Any]:
    """Have the client send the request; return the events of its answer."""
    path = "/chat/completions" if request.prompt is None else "/completions"
    return await sse.call(client, path, body(request), timings)


def body(request: Request, stream: bool = True) -> dict[str, Any]:
    """Return the body, without fields that are unset."""
    optional = {
        "messages": _messages(request.messages) if request.prompt is None else None,
        "prompt": request.prompt,
        "stream_options": {"include_usage": True} if stream else None,
        "tools": list(request.tools) or None,
        "tool_choice": {"type": "function", "function": {"name": ANSWER}} if request.dialect == "tools" else None,
        "reasoning_effort": EFFORT.get(request.think, request.think),
        **_constraint(request.format, request.dialect),
    }
    options = {OPTIONS[name]: value for name, value in request.options.items() if name in OPTIONS}
    if request.limit_field is not None and request.prompt is None and LIMIT_FIELDS[0] in options:
        options[request.limit_field] = options.pop(LIMIT_FIELDS[0])
    if any(name in request.body for name in LIMIT_FIELDS):  # OpenAI refuses two limits
        options = {name: value for name, value in options.items() if name not in LIMIT_FIELDS}
    said = {"model": request.model, "stream": stream} | {k: v for k, v in optional.items() if v is not None}
    return conversation.with_body(said | options, request.body)


def _constraint(form: Mapping[str, Any] | str | None, dialect: str | None) -> dict[str, Any]:
    """Return the fields that ask for a schema, by default as OpenAI does."""
    if form is None:
        return {}
    if isinstance(form, str):
        return {"response_format": {"type": form}}
    match dialect:
        case "structured_outputs":  # vLLM
            return {"structured_outputs": {"json": form}}
        case "json_schema":  # llama.cpp
            return {"json_schema": form}
    strict = {"strict": True} if dialect == "strict" else {}
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", **strict, "schema": form}}}


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [_message(turn) for turn in conversation.turns(messages)]


def _message(turn: conversation.Turn) -> dict[str, Any]:
    content: Any = turn.text
    if turn.images:
        images = [{"type": "image_url", "image_url": {"url": conversation.data_url(image)}} for image in turn.images]
        content = [{"type": "text", "text": turn.text}, *images]
    message = {"role": turn.role, "content": content}
    if turn.calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments_text}}
            for call in turn.calls
        ]
    if turn.result_of is not None:
        message["tool_call_id"] = turn.result_of
    return message


def piece(part: Mapping[str, Any]) -> Piece:
    """Read a chunk of a stream, or a whole answer, and who answered."""
    found = _said(part)
    model, fingerprint = name_of(part.get("model")), name_of(part.get("system_fingerprint"))
    if model is None and fingerprint is None:
        return found
    who = {"answered_by": model} if fingerprint is None else {"answered_by": model, "fingerprint": fingerprint}
    return found._replace(facts={**found.facts, **who})


@sse.readable
def _said(part: Mapping[str, Any]) -> Piece:
    facts = _facts(part) if "usage" in part or "timings" in part or "metrics" in part else {}
    choices = part.get("choices")
    if not choices:  # the usage, after the answer, or its end
        return Piece(facts=facts, done=part is sse.END)
    choice = choices[0]  # whose index may be anything: some servers count chunks there
    if choice.get("error"):
        raise sse.StreamFailed(choice)
    said, finish = choice.get("delta"), choice.get("finish_reason")
    again = said is None and finish is not None and "message" in choice  # a stream's last chunk may have it all
    if said is None:
        said = choice.get("message") or choice
    if "x_groq" in part:
        facts = _groq(part) | facts
    if finish is not None:
        finish, facts = None if finish in _NO_REASON else finish, _ending(choice, finish) | facts
    text = said.get("content") or said.get("text") or ""
    thinking = said.get("reasoning_content") or said.get("reasoning") or said.get("thinking")
    thinking = thinking or said.get("reasoning_text") or ""
    if not (isinstance(text, str) and isinstance(thinking, str)):
        text, thought = _in_parts(text)
        thinking = text_of(thinking) or thought
    if refusal := said.get("refusal"):
        text, facts = text or refusal, facts | {REFUSED: True}
    if details := said.get("reasoning_details"):  # OpenRouter, MiniMax
        if not text and not thinking:
            thinking = text_of(details)
        if any(part.get("type") in _NOT_ALL for part in objects_of(details)):
            facts = facts | {"thinking_partial": True}
    calls = said.get("tool_calls") or (said["function_call"] and [said] if "function_call" in said else ())
    return Piece(text, thinking, _calls(calls) if calls else (), finish is not None, facts, again)


usual = sse.usual_with(_said)


def _ending(choice: Mapping[str, Any], finish: Any) -> dict[str, Any]:
    """Return the reason of a chunk that has one, and counts where some servers hide them."""
    if finish in _NO_REASON:
        return {}
    return {**(_facts(choice) if "usage" in choice else {}), "done_reason": word_of(finish)}  # Moonshot


def _groq(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts that Groq has beside an answer; StreamFailed for the error that it has there."""
    beside = object_of(part, "x_groq")
    if beside.get("error"):
        raise sse.StreamFailed(beside)
    return _facts(beside)


def _in_parts(content: Any) -> tuple[str, str]:
    """Return the text and the thinking of content in one or several parts, as Mistral sends where a model thinks."""
    texts: dict[bool, list[str]] = {False: [], True: []}
    for part in content if isinstance(content, list) else [content]:
        kind = (part.get("type") or "text") if isinstance(part, dict) else "text"
        is_thought = kind in ("thinking", "reasoning")
        if is_thought or "text" in kind:  # text, output_text
            texts[is_thought].append(text_of(part))
    return "".join(texts[False]), "".join(texts[True])


def _calls(calls: Any) -> list[CallPiece]:
    """Read tool calls: the arguments are JSON text in one or several pieces; some servers send them parsed."""
    pieces = []
    for call in objects_of(calls):
        function = call.get("function") or call.get("function_call") or call
        pieces.append(
            CallPiece(function.get("name"), function.get("arguments") or "", call.get("index"), call.get("id"))
        )
    return pieces


def _facts(part: Mapping[str, Any]) -> dict[str, Any]:
    """Read counts (running ones replace each other) and the durations that llama.cpp and vLLM tell."""
    facts: dict[str, Any] = {}
    if usage := object_of(part, "usage"):
        prompt, output = object_of(usage, "prompt_tokens_details"), object_of(usage, "completion_tokens_details")
        asked, said = (usage.get(name, usage.get(other)) for name, other in _COUNTS)
        cached = usage.get("prompt_cache_hit_tokens", usage.get("cached_tokens"))  # DeepSeek; Moonshot, Together
        facts = {
            **counts(asked, said, output.get("reasoning_tokens", usage.get("reasoning_tokens")), usage),
            "cached_prompt_tokens": count_of(prompt.get("cached_tokens", cached)),
            "prompt_eval_ns": ns_of(usage.get("prompt_time"), NS),  # Groq
            "eval_ns": ns_of(usage.get("completion_time"), NS),
        }  # fmt: skip
    if timings := object_of(part, "timings"):
        facts |= durations(timings)
    if metrics := object_of(part, "metrics"):  # vLLM with --enable-per-request-metrics
        first, queue = (ns_of(metrics.get(name), _MS) for name in ("time_to_first_token_ms", "queue_time_ms"))
        facts["prompt_eval_ns"] = None if first is None or queue is None else max(0, first - queue)
        facts["eval_ns"] = ns_of(metrics.get("generation_time_ms"), _MS)
    return {name: value for name, value in facts.items() if value is not None}


def counts(asked: Any, said: Any, thought: Any, usage: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that three counts and their total tell.

    A total of less than prompt and output has some tokens twice: those of the output are then unknown. Of more, it has
    the thinking besides, as xAI counts, which is then output too; or something else, which is used all the same.
    """
    prompt, output, thinking = count_of(asked), count_of(said), count_of(thought)
    facts = {"prompt_tokens": prompt, "output_tokens": output, "thinking_tokens": thinking}
    total = count_of(usage.get("total_tokens"))
    if prompt is None or output is None or not total:
        return facts
    if total < prompt + output:
        return {**facts, "output_tokens": None if prompt and output else output}
    if thinking and total == prompt + output + thinking:
        return {**facts, "output_tokens": output + thinking}
    return {**facts, "total_tokens": total} if total > prompt + output else facts


def durations(timings: Mapping[str, Any]) -> dict[str, Any]:
    """Read llama.cpp's durations of one request, in ms."""
    return {"prompt_eval_ns": ns_of(timings.get("prompt_ms"), _MS), "eval_ns": ns_of(timings.get("predicted_ms"), _MS)}
