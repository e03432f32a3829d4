"""What a collector is pushed is what the database holds; one that is not there costs a warning and nothing else."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA

from loadgen.simulator import Simulator
from loadgen.telemetry import CellLabels, Telemetry, otlp
from loadgen.telemetry.target import Target, target_of
from loadgen.types import GATHERED, NS, RequestRecord
from structbench.suites.answer_book import answer_book
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from tests.support.collector import Collector, Manner, attributes, collecting
from tests.support.loads import MODELS, load, small, until
from tests.support.scripted_server import Peer, Scripted

pytestmark = pytest.mark.slow

CELL = CellLabels(model="m", suite="json", load="c=1", server_address="127.0.0.1", server_port=1)
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
ROW = Any
Key = tuple[str, int]


@dataclass(frozen=True)
class Pushed:
    """What one load left in the database and at the collector."""

    rows: dict[Key, ROW]
    verdicts: dict[str, str]
    """Of each run."""
    seen: Collector


def pushed_load(sim: Simulator, folder: Path, **more: Any) -> Pushed:
    with collecting() as seen:
        options = small(sim, folder / "o.duckdb", otlp=seen.url, label="pushed", **more)
        summary = load(options)
    rows = {(row["run_id"], row["request_index"]): row for row in summary.records()}
    return Pushed(rows, {row["run_id"]: row["verdict"] for row in summary.rows}, seen)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator({**MODELS, "fault:cut@0.4": MODELS["mixed"]}, answers=answer_book()) as server:
        yield server


@pytest.fixture(scope="module")
def pushed(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Pushed:
    """Right answers, wrong ones and failures, from two cells."""
    suites = ["json", "tools"]
    return pushed_load(sim, tmp_path_factory.mktemp("otlp"), models=["fault:cut@0.4"], suites=suites, requests=16)


def key_of(span: Any) -> Key:
    found = attributes(span)
    return found["structbench.run.id"], found["structbench.request.index"]


def test_a_span_for_each_row_with_what_the_row_says(pushed: Pushed) -> None:
    assert Counter(map(key_of, pushed.seen.requests)) == Counter(pushed.rows.keys())
    assert {row["error_kind"] for row in pushed.rows.values()} == {None, "protocol"}
    for span in pushed.seen.requests:
        row, found = pushed.rows[key_of(span)], attributes(span)
        assert span.name == f"chat {found['gen_ai.request.model']}"
        assert span.kind == span.SPAN_KIND_CLIENT
        assert span.end_time_unix_nano - span.start_time_unix_nano == row["end_ns"] - row["sent_ns"]
        told = {
            "gen_ai.usage.input_tokens": row["prompt_tokens"],
            "gen_ai.usage.output_tokens": row["output_tokens"],
            "gen_ai.response.finish_reasons": None if row["done_reason"] is None else (row["done_reason"],),
            "gen_ai.response.time_to_first_chunk": row["ttft_s"],
            "error.type": row["error_kind"],
            "structbench.outcome": row["outcome"],
            "structbench.case.id": row["case_id"],
            "structbench.accuracy": row["accuracy_score"],
            "structbench.json_valid": row["json_valid"],
            "structbench.label": "pushed",
            "gen_ai.request.seed": row["request_index"],
        }
        assert {name: found.get(name) for name in told} == told
        assert (span.status.code == span.status.STATUS_CODE_ERROR) is (row["error_kind"] is not None)


def test_instants_are_those_of_the_calendar(pushed: Pushed) -> None:
    now = time.time_ns()
    for span in pushed.seen.spans:
        assert now - 300 * NS < span.start_time_unix_nano <= span.end_time_unix_nano <= now


def test_each_request_is_a_trace_of_its_own_and_both_ways_are_linked(pushed: Pushed) -> None:
    run_spans = [span for span in pushed.seen.spans if span.name == "structbench.run"]
    runs = {attributes(span)["structbench.run.id"]: span for span in run_spans}
    assert {run_id: attributes(run)["structbench.verdict"] for run_id, run in runs.items()} == pushed.verdicts
    assert len({span.trace_id for span in pushed.seen.spans}) == len(pushed.seen.spans)
    assert not any(span.parent_span_id for span in pushed.seen.spans)
    forth = {(link.trace_id, link.span_id) for run in runs.values() for link in run.links}
    assert forth == {(span.trace_id, span.span_id) for span in pushed.seen.requests}
    for span in pushed.seen.requests:
        (link,) = span.links
        run = runs[key_of(span)[0]]
        assert (link.trace_id, link.span_id) == (run.trace_id, run.span_id)


def test_counters_are_the_counts_of_the_rows(pushed: Pushed) -> None:
    counted = Counter(
        {
            (found["gen_ai.request.model"], found["structbench.suite"], found["structbench.outcome"]): point.as_int
            for point in pushed.seen.last("structbench.requests")
            for found in [attributes(point)]
        }
    )
    cells = {key_of(span)[0]: attributes(span) for span in pushed.seen.requests}
    expected = Counter(
        (cells[row["run_id"]]["gen_ai.request.model"], cells[row["run_id"]]["structbench.suite"], row["outcome"])
        for row in pushed.rows.values()
    )
    assert counted == expected
    chunks = sum(row["chunks"] for row in pushed.rows.values())
    assert sum(point.as_int for point in pushed.seen.last("structbench.chunks")) == chunks


def test_histograms_are_exponential_and_hold_every_row(pushed: Pushed) -> None:
    done = [row for row in pushed.rows.values() if row["error_kind"] is None]
    for name, column in {
        FIRST_CHUNK: "ttft_s", "structbench.server.eval.duration": "eval_s", "structbench.accuracy": "accuracy_score",
    }.items():  # fmt: skip
        values = [row[column] for row in done if row[column] is not None]
        points = pushed.seen.last(name)
        assert {metric.WhichOneof("data") for metric in pushed.seen.all(name)} == {"exponential_histogram"}
        assert sum(point.count for point in points) == len(values)
        assert sum(point.sum for point in points) == pytest.approx(sum(values))
        for point in points:
            assert sum(point.positive.bucket_counts) + point.zero_count == point.count
            assert point.min <= point.sum / point.count <= point.max
    apart = [row for row in done if row["gathered_chunks"] <= GATHERED * row["chunks"]]  # as on a machine at ease
    gaps = sum(max(0, row["chunks"] - 1) for row in apart)
    assert sum(p.count for p in pushed.seen.last("gen_ai.client.operation.time_per_output_chunk")) == gaps


def test_exponential_buckets_are_where_the_rows_are(pushed: Pushed) -> None:
    """From the buckets alone each value is known within their width, 2.2 %."""
    (run, *_) = pushed.verdicts
    values = sorted(row["ttft_s"] for row in pushed.rows.values() if row["run_id"] == run and row["error_kind"] is None)
    (point,) = [point for point in pushed.seen.last(FIRST_CHUNK) if attributes(point)["structbench.suite"] == "json"]
    base = 2 ** (2.0**-point.scale)
    uppers = [
        base ** (point.positive.offset + place + 1)
        for place, n in enumerate(point.positive.bucket_counts)
        for _ in range(n)
    ]
    assert len(uppers) == len(values)
    assert all(upper / base * 0.999999 < value <= upper * 1.000001 for value, upper in zip(values, uppers, strict=True))


def test_exemplars_lead_to_rows_and_traces(pushed: Pushed) -> None:
    spans = {(span.trace_id, span.span_id): key_of(span) for span in pushed.seen.requests}
    found = [e for metric in pushed.seen.all(FIRST_CHUNK) for p in metric.exponential_histogram.data_points
             for e in p.exemplars]  # fmt: skip
    assert found
    for exemplar in found:
        told = {pair.key: pair.value for pair in exemplar.filtered_attributes}
        key = told["structbench.run.id"].string_value, told["structbench.request.index"].int_value
        assert spans[exemplar.trace_id, exemplar.span_id] == key
        assert pushed.rows[key]["ttft_s"] == exemplar.as_double


def texts_of(rows: dict[Key, ROW]) -> set[str]:
    """Words of prompts and answers that stand nowhere else."""
    prompts = {m["content"] for name in ("json", "tools") for c in load_suite(name, text=TextShape(), seed=0).cases
               for m in c.messages}  # fmt: skip
    return prompts | {row["output_text"] for row in rows.values() if len(row["output_text"]) > 20}


def test_no_text_of_prompts_and_answers_is_pushed(pushed: Pushed) -> None:
    assert not any(text.encode() in pushed.seen.raw for text in texts_of(pushed.rows))
    keys = {key for span in pushed.seen.spans for key in attributes(span)}
    assert not {key for key in keys if "messages" in key or "definitions" in key}
    assert not any(span.status.message not in ("", "protocol") for span in pushed.seen.spans)


def test_text_is_pushed_when_it_was_asked_for(sim: Simulator, tmp_path: Path) -> None:
    whole = pushed_load(sim, tmp_path, suites=["tools"], requests=4, otlp_content=True)
    for span in whole.seen.requests:
        row, found = whole.rows[key_of(span)], attributes(span)
        (answer,) = json.loads(found["gen_ai.output.messages"])
        assert "".join(part["content"] for part in answer["parts"] if part["type"] == "text") == row["output_text"]
        calls = [{k: part[k] for k in ("name", "arguments")} for part in answer["parts"] if part["type"] == "tool_call"]
        assert calls == json.loads(row["tool_calls"])
        asked = json.loads(found["gen_ai.input.messages"])
        assert asked[0]["parts"][0]["content"] in texts_of(whole.rows)
        assert json.loads(found["gen_ai.tool.definitions"])[0]["type"] == "function"


def use(target: Target | None, warnings: list[str] | None = None) -> None:
    """A telemetry that takes in one request, and its end."""
    with Telemetry(None, target=target, warn=print if warnings is None else warnings.append) as telemetry:
        telemetry.begin(CELL, "run", 1)
        telemetry.observe(RequestRecord(index=0, sent_ns=0, chunk_ns=(5,), end_ns=NS), CELL)
        telemetry.end(CELL)


def test_the_standard_variables_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=blue,service.name=theirs")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with collecting() as seen:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", seen.url)
        with Telemetry(None, target=target_of(None, False, {"OTEL_EXPORTER_OTLP_ENDPOINT": seen.url})) as telemetry:
            for index in range(3):
                telemetry.observe(RequestRecord(index=index, sent_ns=0, chunk_ns=(5,), end_ns=NS), CELL)
                before = len(seen.metrics)
                while len(seen.metrics) < before + 2:
                    time.sleep(0.005)
    resource = seen.metrics[0].resource_metrics[0].resource
    assert {name: attributes(resource)[name] for name in ("service.name", "team")} == {
        "service.name": "mine", "team": "blue",
    }  # fmt: skip
    assert {(sent["x-key"], sent["content-encoding"]) for sent in seen.headers} == {("secret", "gzip")}
    metrics = seen.all("gen_ai.client.operation.duration")
    assert {metric.WhichOneof("data") for metric in metrics} == {"histogram"}
    assert {metric.histogram.aggregation_temporality for metric in metrics} == {AGGREGATION_TEMPORALITY_DELTA}
    points = [point for metric in metrics for point in metric.histogram.data_points]
    assert [point.count for point in points] == [1, 1, 1], "each delta once, and none without a value"


def test_an_exemplar_is_pushed_once_and_the_counts_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    with collecting() as seen, Telemetry(None, target=target_of(seen.url, False, {})) as telemetry:
        telemetry.begin(CELL, "run", 1)
        telemetry.observe(RequestRecord(index=0, sent_ns=0, chunk_ns=(5,), end_ns=NS), CELL)
        until(lambda: len(seen.all(FIRST_CHUNK)) > 2, "three pushes")
        points = [point for metric in seen.all(FIRST_CHUNK) for point in metric.exponential_histogram.data_points]
    assert {point.count for point in points} == {1}
    assert [len(point.exemplars) for point in points[:3]] == [1, 0, 0]


def test_a_sampler_takes_spans_and_never_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with collecting() as seen:
        use(target_of(seen.url, False, {}))
    assert seen.spans == []
    assert [point.as_int for point in seen.last("structbench.requests")] == [1]


def test_the_default_service_name_is_ours() -> None:
    with collecting() as seen:
        use(target_of(seen.url, False, {}))
    assert seen.resource["service.name"] == "structbench"


@pytest.mark.parametrize("manner", ["500", "hangs", None])
def test_a_collector_that_does_not_work_costs_one_warning(
    manner: Manner | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that hangs keeps the end waiting for its limit and no longer; no request is lost and nothing is logged."""
    monkeypatch.setattr(otlp, "FLUSH_S", 0.3)
    monkeypatch.setattr(otlp, "FLUSH_AFTER_WARNING_S", 0.1)
    warnings: list[str] = []
    if manner is None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        use(target_of(url, False, {}), warnings)
    else:
        with collecting(manner) as seen:
            url = seen.url
            began = time.monotonic()
            use(target_of(url, False, {}), warnings)
            assert time.monotonic() - began < 5, "the exporters' own limit is 10 s"
    (line,) = warnings
    assert line.startswith(f"cannot push to {url} (")
    assert "\n" not in line
    until(lambda: logging.getLogger("opentelemetry").handlers == [], "the exporters' end")
    assert capsys.readouterr() == ("", "")


def test_what_a_collector_repeats_of_its_password_and_headers_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=t0ken-1")

    def refuse(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            said = f"not with {asked.headers['x-key']} and s3cret-word"
            peer.sock.sendall(f"HTTP/1.1 401 {said}\r\nContent-Length: {len(said)}\r\n\r\n{said}".encode())

    warnings: list[str] = []
    with Scripted(refuse) as server:
        url = server.url.replace("://", "://ada:s3cret-word@")
        use(target_of(url, False, {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=t0ken-1"}), warnings)
        server.hang_up()
        assert server.asked[0].headers["x-key"] == "t0ken-1"
    (line,) = warnings
    assert "s3cret" not in line
    assert "t0ken" not in line
    assert line.endswith("not with *** and ***); the load goes on")


def test_a_load_without_its_collector_is_the_same_load(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(otlp, "FLUSH_S", 0.3)
    monkeypatch.setattr(otlp, "FLUSH_AFTER_WARNING_S", 0.1)
    with collecting("500") as seen:
        summary = load(small(sim, tmp_path / "o.duckdb", otlp=seen.url))
    assert (summary.exit_code, summary.rows[0]["completed"], summary.rows[0]["errors"]) == (0, 8, 0)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"structbench: cannot push to {seen.url} (Failed to export ")
    assert line.endswith("code: 500, reason: Internal Server Error); the load goes on")
