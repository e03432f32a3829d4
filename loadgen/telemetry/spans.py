"""A span for each finished request, after the GenAI conventions, and one for the run that they belong to.

Each request is a trace of its own, since no tool opens a trace of 100,000 spans, and so that a sampler can pick
requests. Its span links to the run's span, and the run's span to its last requests (as many as the SDK allows:
OTEL_SPAN_LINK_COUNT_LIMIT, 128). Invariant: spans hold no prompt, answer or error text unless content was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any

from loadgen.telemetry.histogram import Values
from loadgen.telemetry.instruments import CellLabels, error_type, genai_attributes, sendable
from loadgen.types import Request, RequestRecord

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

Attributes = dict[str, str | int | float | bool | tuple[str, ...]]

_SAMPLING = {
    "gen_ai.request.seed": "seed",
    "gen_ai.request.max_tokens": "num_predict",
    "gen_ai.request.temperature": "temperature",
    "gen_ai.request.top_k": "top_k",
    "gen_ai.request.top_p": "top_p",
}
"""The conventions' names for the options of a Request, which are named as Ollama names them."""


class RunSpans:
    """The spans of one cell's load, from its creation until ``end``."""

    def __init__(self, tracer: Tracer, cell: CellLabels, run_id: str, *, content: bool) -> None:
        self._tracer = tracer
        self._content = content
        self._offset_ns = time_ns() - monotonic_ns()
        self._name = sendable(f"{cell.operation} {cell.model}")
        self._shared = {**genai_attributes(cell), "structbench.run.id": run_id}
        self._span: Span = _start(tracer, "structbench.run", attributes=self._shared)

    def end(self, verdict: str | None) -> None:
        """End the span of the run."""
        if verdict is not None:
            self._span.set_attribute("structbench.verdict", verdict)
        self._span.end()

    def add(
        self, record: RequestRecord, outcome: str, values: Values, request: Request | None, case_id: str | None
    ) -> tuple[int, int] | tuple[None, None]:
        """Add the span of a finished request; one that was never sent has no duration.

        Returns the ids of trace and span, or None twice if the sampler left it out.
        """
        from opentelemetry.trace import Link, SpanKind, Status, StatusCode

        start_ns = record.sent_ns if record.sent_ns is not None else record.due_ns
        if start_ns is None:
            start_ns = monotonic_ns()
        end_ns = record.end_ns if record.end_ns is not None and record.sent_ns is not None else start_ns
        attributes: Attributes = {**self._shared, **_of_record(record, outcome), **values}
        if case_id is not None:
            attributes["structbench.case.id"] = case_id
        if request is not None:
            attributes |= _of_request(request)
        if self._content:
            attributes |= _content(record, request)
        run = self._span.get_span_context()
        span = _start(
            self._tracer, self._name, kind=SpanKind.CLIENT, attributes=attributes, links=[Link(run)],
            start_time=start_ns + self._offset_ns,
        )  # fmt: skip
        if record.error is not None:
            why = sendable(record.error.message) if self._content else record.error.kind
            span.set_status(Status(StatusCode.ERROR, why))
        span.end(end_ns + self._offset_ns)
        context = span.get_span_context()
        if not context.trace_flags.sampled:
            return None, None
        self._span.add_link(context)
        return context.trace_id, context.span_id


def _start(tracer: Tracer, name: str, **how: Any) -> Span:
    """Start a span without a parent, whatever the caller's own code is tracing."""
    from opentelemetry.context import Context

    return tracer.start_span(name, context=Context(), **how)


def _of_record(record: RequestRecord, outcome: str) -> Attributes:
    """Return the measurements as attributes; what is absent has none."""
    found: dict[str, Any] = {
        "gen_ai.request.stream": True,
        "structbench.request.index": record.index,
        "structbench.outcome": outcome,
        "gen_ai.response.time_to_first_chunk": record.ttft_s,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.output_tokens,
        "gen_ai.response.finish_reasons": None if record.done_reason is None else (record.done_reason,),
        "error.type": None if record.error is None else error_type(record.error),
        "structbench.send_lag": record.send_lag_s,
        "structbench.server.load.duration": record.load_s,
        "structbench.server.prompt_eval.duration": record.prompt_eval_s,
        "structbench.server.eval.duration": record.eval_s,
    }
    return {name: value for name, value in found.items() if value is not None}


def _of_request(request: Request) -> Attributes:
    given = {name: request.options.get(option) for name, option in _SAMPLING.items()}
    found: Attributes = {name: value for name, value in given.items() if isinstance(value, int | float)}
    return {"gen_ai.output.type": "text" if request.format is None else "json", **found}


def _content(record: RequestRecord, request: Request | None) -> Attributes:
    """Return prompt and answer as in the conventions: JSON, a list of messages made of parts."""
    found: Attributes = {"gen_ai.output.messages": _json([_answer(record)])}
    if request is not None:
        asked = request.messages if request.prompt is None else ({"role": "user", "content": request.prompt},)
        if asked:
            found["gen_ai.input.messages"] = _json([_message(each) for each in asked])
        if request.tools:
            found["gen_ai.tool.definitions"] = _json(request.tools)
    return found


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    text, thinking = message.get("content", ""), message.get("thinking")
    if message["role"] == "tool":
        return {"role": "tool", "parts": [{"type": "tool_call_response", "response": text}]}
    parts = [{"type": "reasoning", "content": thinking}] if thinking else []
    calls = [{"type": "tool_call", **call["function"]} for call in message.get("tool_calls") or ()]
    if text or not calls:
        parts.append({"type": "text", "content": text})
    return {"role": message["role"], "parts": [*parts, *calls]}


def _answer(record: RequestRecord) -> dict[str, Any]:
    texts = {"reasoning": record.thinking_text, "text": record.output_text}
    parts: list[dict[str, Any]] = [{"type": kind, "content": text} for kind, text in texts.items() if text]
    parts += [{"type": "tool_call", **call} for call in record.tool_calls]
    reason = "error" if record.error is not None else record.done_reason
    return {"role": "assistant", "parts": parts, **({} if reason is None else {"finish_reason": reason})}


def _json(value: Any) -> str:
    return sendable(json.dumps(value, ensure_ascii=False, default=dict))
