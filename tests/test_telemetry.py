"""What the metrics port shows is what was observed: counts, sums, buckets, labels, and nothing invented."""

from __future__ import annotations

import http.client
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from loadgen.telemetry import (
    CHUNK_GAP,
    GAP_BUCKETS,
    INSTRUMENTS,
    LATENCY_BUCKETS,
    CellLabels,
    Telemetry,
    _attributes,
    _GapHistogram,
)
from loadgen.types import NS, ErrorKind, RequestError, RequestRecord

MS = 1_000_000
CELL = CellLabels(model="m:1b", suite="json", load="c=4", server_address="127.0.0.1", server_port=11434)
DURATION = "gen_ai_client_operation_duration_seconds"
FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
GAP = "gen_ai_client_operation_time_per_output_chunk_seconds"
DOCS = Path(__file__).parent.parent / "docs" / "live-metrics.md"

Sample = tuple[str, dict[str, str], float]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with Telemetry(0) as it:
        yield it


def completed(*chunk_ms: int, sent_ms: int = 0, due_ms: int = 0, output_tokens: int | None = 9) -> RequestRecord:
    return RequestRecord(
        index=0,
        due_ns=due_ms * MS,
        sent_ns=sent_ms * MS,
        chunk_ns=tuple(ms * MS for ms in chunk_ms),
        end_ns=(max(chunk_ms, default=sent_ms) + 1) * MS,
        prompt_tokens=40,
        output_tokens=output_tokens,
    )


def failed(kind: ErrorKind, status: int | None = None) -> RequestRecord:
    return RequestRecord(index=0, error=RequestError(kind, "boom: a message that no label shows", status))


def text(telemetry: Telemetry, host: str = "127.0.0.1") -> str:
    connection = http.client.HTTPConnection(host, telemetry.port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def samples(exposition: str) -> list[Sample]:
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    ]


def shown(telemetry: Telemetry, name: str, **labels: str) -> float | None:
    """The value of the one sample with these labels; None when there is none."""
    found = [v for n, have, v in samples(text(telemetry)) if n == name and labels.items() <= have.items()]
    assert len(found) < 2, f"{name} {labels} is not one series"
    return found[0] if found else None


def buckets(telemetry: Telemetry, name: str, **labels: str) -> dict[float, float]:
    return {
        float(have["le"]): value
        for n, have, value in samples(text(telemetry))
        if n == name + "_bucket" and labels.items() <= have.items()
    }


def test_counts_sums_and_buckets_are_those_of_the_records(telemetry: Telemetry) -> None:
    telemetry.observe(completed(20, 30, 50), CELL)
    telemetry.observe(completed(400, 410), CELL)

    assert shown(telemetry, FIRST_CHUNK + "_count") == 2
    assert shown(telemetry, FIRST_CHUNK + "_sum") == pytest.approx(0.42)
    assert buckets(telemetry, FIRST_CHUNK) == {
        **{bound: (0 if bound < 0.02 else 1 if bound < 0.4 else 2) for bound in LATENCY_BUCKETS},
        float("inf"): 2,
    }
    assert shown(telemetry, DURATION + "_sum") == pytest.approx(0.051 + 0.411)
    assert shown(telemetry, GAP + "_count") == 3
    assert shown(telemetry, GAP + "_sum") == pytest.approx(0.04)
    assert buckets(telemetry, GAP) == {
        **{bound: (0 if bound < 0.01 else 2 if bound < 0.02 else 3) for bound in GAP_BUCKETS},
        float("inf"): 3,
    }
    assert shown(telemetry, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 80
    assert shown(telemetry, "gen_ai_client_token_usage_sum", gen_ai_token_type="output") == 18
    # 8 tokens after the first in 30 ms, 8 in 10 ms.
    assert shown(telemetry, "structbench_output_tokens_per_second_sum") == pytest.approx(8 / 0.03 + 8 / 0.01)


def test_gap_histogram_is_what_the_exporter_would_show() -> None:
    """Ours is not OpenTelemetry's: names, labels, buckets, sum and count must not tell."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider

    gap = next(i for i in INSTRUMENTS if i.name == CHUNK_GAP)
    gaps_ms = (0, 1, 2, 7, 10, 11, 300, 20_000)
    theirs = CollectorRegistry()
    reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=theirs)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    histogram = provider.get_meter("t").create_histogram(
        gap.name, gap.unit, gap.meaning, explicit_bucket_boundaries_advisory=gap.buckets
    )
    ours = CollectorRegistry()
    collector = _GapHistogram(CHUNK_GAP)
    ours.register(collector)
    for cell in (CELL, replace(CELL, suite="tools")):
        labels = _attributes(cell)[0]
        for ms in gaps_ms:
            histogram.record(ms / 1000, labels)
            collector.add((5, 5 + ms * MS), cell, labels)

    expected = generate_latest(theirs).decode()
    assert generate_latest(ours).decode() == expected
    assert f"{GAP}_bucket{{" in expected
    provider.shutdown()


@given(st.lists(st.integers(0, 30 * NS), max_size=40))
def test_every_gap_is_in_exactly_the_buckets_at_or_above_it(gaps: list[int]) -> None:
    instants = [0]
    for gap in gaps:
        instants.append(instants[-1] + gap)
    histogram = _GapHistogram(CHUNK_GAP)
    histogram.add(tuple(instants), CELL, _attributes(CELL)[0])

    got = {s.labels.get("le", s.name): s.value for family in histogram.collect() for s in family.samples}
    if not gaps:
        assert got == {}
        return
    for bound in GAP_BUCKETS:
        assert got[str(bound)] == sum(gap <= round(bound * NS) for gap in gaps)
    assert got["+Inf"] == got[GAP + "_count"] == len(gaps)
    assert got[GAP + "_sum"] == pytest.approx(sum(gaps) / NS)


def test_failed_request_gives_no_ttft_of_0(telemetry: Telemetry) -> None:
    telemetry.observe(replace(failed("connect"), due_ns=0, sent_ns=0, end_ns=2 * NS), CELL)
    telemetry.observe(replace(failed("dropped"), due_ns=0), CELL)

    exposition = text(telemetry)
    assert FIRST_CHUNK not in exposition
    assert GAP not in exposition
    assert "gen_ai_client_token_usage" not in exposition
    assert "structbench_output_tokens_per_second" not in exposition
    assert shown(telemetry, DURATION + "_count", error_type="connect") == 1
    assert shown(telemetry, DURATION + "_sum", error_type="connect") == 2
    assert shown(telemetry, DURATION + "_count", error_type="dropped") is None


def test_partial_stream_that_failed_is_not_among_the_completed(telemetry: Telemetry) -> None:
    telemetry.observe(replace(failed("stream"), sent_ns=0, end_ns=NS, chunk_ns=(5 * MS, 9 * MS)), CELL)
    telemetry.observe(completed(20, 30), CELL)

    assert shown(telemetry, FIRST_CHUNK + "_count") == 1
    assert shown(telemetry, GAP + "_count") == 1
    assert shown(telemetry, DURATION + "_count", error_type="") == 1
    assert shown(telemetry, DURATION + "_count", error_type="stream") == 1


def test_absent_figures_are_not_observed(telemetry: Telemetry) -> None:
    telemetry.observe(replace(completed(20, output_tokens=1), prompt_tokens=None, due_ns=None), CELL)
    telemetry.observe_score(CELL, "completed")

    exposition = text(telemetry)
    for name in ("output_tokens_per_second", "send_lag", "accuracy", "json_valid", "schema_valid", "tool_call"):
        assert f"structbench_{name}" not in exposition
    assert GAP not in exposition
    assert 'gen_ai_token_type="input"' not in exposition


def test_request_is_counted_once_whichever_way_it_ended(telemetry: Telemetry) -> None:
    telemetry.observe(completed(20, 30), CELL)
    telemetry.observe_score(CELL, "correct", accuracy_score=1.0)
    telemetry.observe(failed("http", 503), CELL)
    telemetry.observe(failed("timeout"), CELL)
    telemetry.observe(failed("rejected", 400), CELL)
    telemetry.observe_score(CELL, "rejected", accuracy_score=0.0)

    counted = {
        (labels["structbench_outcome"], labels["error_type"]): value
        for name, labels, value in samples(text(telemetry))
        if name == "structbench_requests_total"
    }
    assert counted == {
        ("correct", ""): 1,
        ("http", "503"): 1,
        ("timeout", "timeout"): 1,
        ("rejected", "rejected"): 1,
    }
    assert shown(telemetry, "structbench_accuracy_count") == 2


def test_average_of_scores_is_sum_over_count(telemetry: Telemetry) -> None:
    for valid in (True, True, True, False):
        telemetry.observe_score(CELL, "correct", 0.5, json_valid=valid, schema_valid=False, tool_call_accuracy=1.0)

    share = {
        score: (shown(telemetry, f"structbench_{score}_sum"), shown(telemetry, f"structbench_{score}_count"))
        for score in ("accuracy", "json_valid", "schema_valid", "tool_call_accuracy")
    }
    assert share == {
        "accuracy": (2, 4),
        "json_valid": (3, 4),
        "schema_valid": (0, 4),
        "tool_call_accuracy": (4, 4),
    }
    assert buckets(telemetry, "structbench_json_valid") == {0: 1, 1: 4, float("inf"): 4}


def test_early_send_is_no_lag_and_no_warning(telemetry: Telemetry, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        telemetry.observe(completed(20, sent_ms=1, due_ms=2), CELL)
        telemetry.observe(completed(20, sent_ms=9, due_ms=2), CELL)
    assert shown(telemetry, "structbench_send_lag_seconds_count") == 2
    assert shown(telemetry, "structbench_send_lag_seconds_sum") == pytest.approx(0.007)
    assert caplog.records == []


def test_cells_are_told_apart_and_in_flight_is_the_last_value(telemetry: Telemetry) -> None:
    other = replace(CELL, load="c=16")
    telemetry.in_flight(CELL, 4)
    telemetry.in_flight(other, 16)
    telemetry.in_flight(CELL, 0)
    telemetry.cache(CELL, "hit")
    telemetry.cache(other, "partial")
    telemetry.cache(other, "partial")
    for cell in (CELL, other, other):
        telemetry.observe(completed(20, 30), cell)

    assert shown(telemetry, "structbench_request_in_flight", structbench_load="c=4") == 0
    assert shown(telemetry, "structbench_request_in_flight", structbench_load="c=16") == 16
    assert shown(telemetry, "structbench_cache_total", structbench_cache_result="hit") == 1
    assert shown(telemetry, "structbench_cache_total", structbench_cache_result="partial") == 2
    assert shown(telemetry, GAP + "_count", structbench_load="c=4") == 1
    assert shown(telemetry, GAP + "_count", structbench_load="c=16") == 2


def test_awkward_model_names_are_escaped(telemetry: Telemetry) -> None:
    model = 'hf.co/a"b\\c:Q4\nK'
    telemetry.observe(completed(20, 30), replace(CELL, model=model))
    assert shown(telemetry, GAP + "_count", gen_ai_request_model=model) == 1
    assert shown(telemetry, DURATION + "_count", gen_ai_request_model=model) == 1


def test_more_requests_make_no_more_series(telemetry: Telemetry) -> None:
    def feed(first: int) -> None:
        for index in range(first, first + 50):
            telemetry.observe(replace(completed(20 + index, 500), index=index, output_text=f"text {index}"), CELL)
            telemetry.observe(replace(failed("stream"), index=index), CELL)
            telemetry.observe_score(CELL, "correct", index / 100)

    feed(0)
    before = {(name, *sorted(labels.items())) for name, labels, _ in samples(text(telemetry))}
    feed(50)
    assert {(name, *sorted(labels.items())) for name, labels, _ in samples(text(telemetry))} == before
    assert "boom" not in text(telemetry)


def test_scrape_amid_observations_never_sees_half_a_record() -> None:
    """Streams so long that the threads are switched within one: the sum must fit the count at every moment."""
    histogram = _GapHistogram(CHUNK_GAP)
    instants = tuple(range(0, 100_001 * MS, MS))

    def feed() -> None:
        for _ in range(10):
            histogram.add(instants, CELL, _attributes(CELL)[0])

    feeder = threading.Thread(target=feed)
    feeder.start()
    seen: list[dict[str, float]] = []
    while feeder.is_alive() or not seen:
        seen += [{s.name: s.value for s in family.samples} for family in histogram.collect()]
    feeder.join()
    for values in seen:
        assert values[GAP + "_count"] % 100_000 == 0
        assert values[GAP + "_sum"] == pytest.approx(values[GAP + "_count"] / 1000)


def test_two_instances_do_not_mix() -> None:
    with Telemetry(0) as one, Telemetry(0) as two:
        one.observe(completed(20, 30), CELL)
        assert one.port != two.port
        assert shown(one, DURATION + "_count") == 1
        assert shown(two, DURATION + "_count") is None
        assert "python_info" not in text(two), "the global registry's collectors are not ours to show"


def test_port_in_use_is_an_os_error_and_leaves_nothing(telemetry: Telemetry) -> None:
    before = set(threading.enumerate())
    with pytest.raises(OSError, match="in use"):
        Telemetry(telemetry.port)
    assert set(threading.enumerate()) <= before  # less: a thread of an earlier scrape may end meanwhile
    telemetry.observe(completed(20, 30), CELL)
    assert shown(telemetry, DURATION + "_count") == 1


def test_close_frees_port_and_thread_and_may_come_twice(caplog: pytest.LogCaptureFixture) -> None:
    before = set(threading.enumerate())
    first = Telemetry(0)
    first.observe(completed(20, 30), CELL)
    assert shown(first, DURATION + "_count") == 1
    with caplog.at_level(logging.WARNING):
        first.close()
        first.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before  # less: a thread of an earlier scrape may end meanwhile
    with pytest.raises(ConnectionRefusedError):
        text(first)
    with Telemetry(first.port) as second:
        assert second.port == first.port
        assert shown(second, DURATION + "_count") is None
    assert caplog.records == []


def test_importing_the_module_does_not_import_opentelemetry() -> None:
    code = (
        "import sys, loadgen.telemetry; print([m for m in ('opentelemetry', 'prometheus_client') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def feed_every_instrument(telemetry: Telemetry) -> None:
    telemetry.observe(completed(20, 30), CELL)
    telemetry.observe(replace(failed("http", 500), sent_ns=0, end_ns=NS, prompt_tokens=3), CELL)
    telemetry.observe_score(CELL, "correct", 1.0, True, True, 1.0)
    telemetry.cache(CELL, "miss")
    telemetry.in_flight(CELL, 1)


def table(header: str) -> list[list[str]]:
    """The rows of the table in the docs whose first column is called ``header``."""
    _, _, rest = DOCS.read_text(encoding="utf-8").partition(f"| {header} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_documented_instruments_are_those_exposed(telemetry: Telemetry) -> None:
    feed_every_instrument(telemetry)
    families = {f.name: f for f in text_string_to_metric_families(text(telemetry)) if f.name != "target_info"}
    bounds = {row[0]: [float(bound) for bound in row[1].split()] for row in table("Set")}
    cell_labels = {"gen_ai_request_model", "structbench_suite", "structbench_load"}
    genai_labels = {"gen_ai_operation_name", "gen_ai_provider_name", "server_address", "server_port"}

    rows = table("OpenTelemetry")
    assert {row[0].strip("`"): (row[2], row[3].strip("`")) for row in rows} == {
        i.name: (i.kind, i.unit) for i in INSTRUMENTS
    }
    documented = set()
    for name, prometheus, kind, _unit, besides, bucket_set, _meaning in rows:
        # The parser calls a counter's family by its name without "_total".
        family = families[prometheus.strip("`").removesuffix("_total")]
        documented.add(family.name)
        assert family.type == kind
        extra = {label.replace(".", "_") for label in re.findall(r"`([^`]+)`", besides)}
        expected = cell_labels | extra | (genai_labels if name.startswith("`gen_ai.") else set())
        assert {label for s in family.samples for label in s.labels} - {"le"} == expected, name
        shown_bounds = {float(s.labels["le"]) for s in family.samples if "le" in s.labels} - {float("inf")}
        assert sorted(shown_bounds) == bounds.get(bucket_set, []), name
        assert prometheus.strip("`") in {s.name for s in family.samples} or kind == "histogram"
    assert documented == set(families)
