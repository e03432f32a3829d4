"""A span says what was measured of one request, and what was not has no attribute."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from time import monotonic_ns, time_ns
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from loadgen.telemetry import CellLabels
from loadgen.telemetry.spans import RunSpans
from loadgen.types import NS, ErrorKind, Request, RequestError, RequestRecord

CELL = CellLabels(model="m:1b", suite="json", load="c=4", server_address="127.0.0.1", server_port=11434)
SECRET, ANSWER = "the secret of the prompt", "the words of the answer"
ASKED = Request(
    index=7, model="m:1b", messages=({"role": "system", "content": "be brief"}, {"role": "user", "content": SECRET}),
    format={"type": "object"}, options={"seed": 7, "num_predict": 64, "temperature": 0, "stop": ["x"]},
)  # fmt: skip


@dataclass
class Spans:
    """A tracer and what it gave out."""

    tracer: Tracer
    exporter: InMemorySpanExporter

    def of(self, record: RequestRecord, outcome: str = "completed", request: Request | None = None,
           content: bool = False, values: Mapping[str, float] | None = None) -> ReadableSpan:  # fmt: skip
        spans = RunSpans(self.tracer, CELL, "run-1", content=content)
        spans.add(record, outcome, values or {}, request, None)
        spans.end("valid")
        request_span, _run = self.exporter.get_finished_spans()[-2:]
        return request_span


@pytest.fixture
def spans() -> Iterator[Spans]:
    provider = TracerProvider(shutdown_on_exit=False)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield Spans(provider.get_tracer("t"), exporter)
    provider.shutdown()


def record(**more: Any) -> RequestRecord:
    now = monotonic_ns() - NS
    given: dict[str, Any] = {
        "index": 7, "due_ns": now, "sent_ns": now, "chunk_ns": (now + 20_000_000, now + 30_000_000),
        "end_ns": now + 40_000_000, "output_text": ANSWER, "done_reason": "stop", "prompt_tokens": 5,
        "output_tokens": 2,
    }  # fmt: skip
    return RequestRecord(**{**given, **more})


def failed(kind: ErrorKind, **more: Any) -> RequestRecord:
    return record(error=RequestError(kind, f"it said: {ANSWER}"), **more)


def test_names_are_those_of_the_genai_conventions(spans: Spans) -> None:
    span = spans.of(record(), "correct", ASKED, values={"structbench.accuracy": 1.0})
    assert span.name == "chat m:1b"
    assert span.kind.name == "CLIENT"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "ollama", "gen_ai.request.model": "m:1b",
        "gen_ai.request.stream": True, "gen_ai.request.seed": 7, "gen_ai.request.max_tokens": 64,
        "gen_ai.request.temperature": 0, "gen_ai.output.type": "json", "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.02, "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2,
        "server.address": "127.0.0.1", "server.port": 11434, "structbench.suite": "json", "structbench.load": "c=4",
        "structbench.run.id": "run-1", "structbench.request.index": 7, "structbench.outcome": "correct",
        "structbench.accuracy": 1.0, "structbench.send_lag": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("unsent", "kind"),
    [({"sent_ns": None, "chunk_ns": (), "end_ns": None}, "dropped"),
     ({"sent_ns": None, "due_ns": None, "chunk_ns": (), "end_ns": None}, "worker_died"),
     ({"chunk_ns": (), "end_ns": None}, "cancelled")],
)  # fmt: skip
def test_what_was_never_sent_or_never_ended_has_a_span_without_length(
    spans: Spans, unsent: dict[str, Any], kind: ErrorKind
) -> None:
    span = spans.of(failed(kind, **unsent), kind)
    assert span.start_time == span.end_time
    assert abs(time_ns() - (span.start_time or 0)) < 60 * NS
    found = dict(span.attributes or {})
    assert found["error.type"] == kind
    assert "gen_ai.response.time_to_first_chunk" not in found


def test_an_error_is_named_and_its_message_kept_back_with_the_content(spans: Spans) -> None:
    told = spans.of(failed("stream"), "stream")
    assert (told.status.status_code.name, told.status.description) == ("ERROR", "stream")
    assert ANSWER not in told.to_json()
    whole = spans.of(failed("stream"), "stream", ASKED, content=True)
    assert whole.status.description == f"it said: {ANSWER}"


def test_content_is_there_when_asked_for_and_else_not(spans: Spans) -> None:
    bare = spans.of(record(thinking_text="hm", tool_calls=({"name": "f", "arguments": {"a": 1}},)), "completed", ASKED)
    assert SECRET not in bare.to_json()
    assert ANSWER not in bare.to_json()

    thought = record(thinking_text="hm", tool_calls=({"name": "f", "arguments": {"a": 1}},))
    found: Any = dict(spans.of(thought, "completed", ASKED, content=True).attributes or {})
    assert json.loads(found["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
        {"role": "user", "parts": [{"type": "text", "content": SECRET}]},
    ]
    assert json.loads(found["gen_ai.output.messages"]) == [{
        "role": "assistant", "finish_reason": "stop",
        "parts": [{"type": "reasoning", "content": "hm"}, {"type": "text", "content": ANSWER},
                  {"type": "tool_call", "name": "f", "arguments": {"a": 1}}],
    }]  # fmt: skip
    assert "gen_ai.tool.definitions" not in found


def test_calls_and_their_results_among_the_messages_are_parts_of_their_kind(spans: Spans) -> None:
    call = {"name": "f", "arguments": {"a": 1}}
    said = {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{"function": call}]}
    asked = replace(ASKED, messages=(said, {"role": "tool", "tool_name": "f", "content": "7"}))
    found: Any = dict(spans.of(record(), "completed", asked, content=True).attributes or {})
    assert json.loads(found["gen_ai.input.messages"]) == [
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "hm"}, {"type": "tool_call", **call}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "7"}]},
    ]


def test_messages_that_are_not_known_are_left_out(spans: Spans) -> None:
    found = dict(spans.of(record(), "completed", replace(ASKED, messages=()), content=True).attributes or {})
    assert "gen_ai.input.messages" not in found
    assert found["gen_ai.request.seed"] == 7


def test_half_a_surrogate_pair_spoils_no_batch(spans: Spans) -> None:
    torn = record(output_text="torn \ud83d", error=RequestError("stream", "torn \ud83d too"))
    span = spans.of(torn, "stream", ASKED, content=True)
    encode_spans([span]).SerializeToString()
    assert span.status.description == "torn ? too"


def test_a_prompt_for_generate_is_a_message_of_the_user(spans: Spans) -> None:
    asked = replace(ASKED, messages=(), prompt=SECRET)
    found: Any = dict(spans.of(record(), "completed", asked, content=True).attributes or {})
    assert json.loads(found["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": SECRET}]}
    ]


def test_the_callers_own_trace_is_not_joined(spans: Spans) -> None:
    with spans.tracer.start_as_current_span("somebody else's"):
        span = spans.of(record())
    assert span.parent is None


def test_a_run_of_any_length_keeps_a_bounded_number_of_links(spans: Spans) -> None:
    run = RunSpans(spans.tracer, CELL, "run-1", content=False)
    for index in range(300):
        run.add(record(index=index), "completed", {}, None, None)
    run.end("valid")
    *requests, root = spans.exporter.get_finished_spans()
    assert len(requests) == 300
    assert len(root.links) == 128
    assert root.links[-1].context == requests[-1].context
