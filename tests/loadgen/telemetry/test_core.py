"""What the metrics port shows is what was observed: counts, sums, buckets, labels, and nothing invented."""

from __future__ import annotations

import http.client
import io
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.openmetrics.parser import text_fd_to_metric_families
from prometheus_client.parser import text_string_to_metric_families

from loadgen.telemetry import CellLabels, Telemetry, core
from loadgen.telemetry.core import MAX_OUTCOMES, SAMPLED
from loadgen.telemetry.histogram import Exemplar, Histograms, values_of
from loadgen.telemetry.instruments import (
    CHUNK_GAP,
    GAP_BUCKETS,
    INSTRUMENTS,
    LABEL_CHARACTERS,
    LATENCY_BUCKETS,
    Instrument,
    Labels,
    genai_attributes,
    own_attributes,
)
from loadgen.types import NS, ErrorKind, RequestError, RequestRecord
from structbench.metrics import INSTRUMENTS as OF_METRICS
from structbench.metrics import observed
from structbench.types import Score
from tests.support.paths import ROOT

MS = 1_000_000
CELL = CellLabels(model="m:1b", suite="json", load="c=4", server_address="127.0.0.1", server_port=11434)
DURATION = "gen_ai_client_operation_duration_seconds"
FIRST_CHUNK = "gen_ai_client_operation_time_to_first_chunk_seconds"
GAP = "gen_ai_client_operation_time_per_output_chunk_seconds"
LIVE = ROOT / "docs" / "live-metrics.md"
ALL_RIGHT = Score(
    outcome="correct", accuracy_score=1.0, json_valid=True, schema_valid=True, tool_call_accuracy=1.0
)  # fmt: skip
POLITE = Instrument("structbench.polite", "histogram", "1", "Says please: 1", (), (0.0, 1.0))
"""What a caller may want to know of an answer."""

STREAM = RequestError("stream", "boom")

Sample = tuple[str, dict[str, str], float]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    with Telemetry(0, instruments=[POLITE]) as it:
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


def served(*chunk_ms: int) -> RequestRecord:
    """A completed request with all that the server and the kernel may tell."""
    return replace(
        completed(*chunk_ms), load_ns=MS, prompt_eval_ns=2 * MS, eval_ns=3 * MS, read_lag_max_ns=MS, merged_chunks=1
    )


def failed(kind: ErrorKind, status: int | None = None) -> RequestRecord:
    return RequestRecord(index=0, error=RequestError(kind, "boom: a message that no label shows", status))


def text(telemetry: Telemetry, host: str = "127.0.0.1", accept: str = "*/*") -> str:
    connection = http.client.HTTPConnection(host, telemetry.port, timeout=10)
    try:
        connection.request("GET", "/metrics", headers={"Accept": accept})
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

    exposition = text(telemetry)
    for name in (
        "output_tokens_per_second", "send_lag", "read_lag", "accuracy", "json_valid", "schema_valid", "tool_call",
        "server", "queue", "client", "store", "verdict", "request_planned", "request_in_flight", "cells", "cache",
    ):  # fmt: skip
        assert f"structbench_{name}" not in exposition
    assert GAP not in exposition
    assert 'gen_ai_token_type="input"' not in exposition


def test_request_is_counted_once_whichever_way_it_ended(telemetry: Telemetry) -> None:
    telemetry.observe(completed(20, 30), CELL, "correct", {POLITE.name: 1.0})
    telemetry.observe(failed("http", 503), CELL)
    telemetry.observe(failed("timeout"), CELL)
    telemetry.observe(failed("rejected", 400), CELL, "rejected", {POLITE.name: 0.0})

    counted = {
        (labels["structbench_outcome"], labels["error_type"]): value
        for name, labels, value in samples(text(telemetry))
        if name == "structbench_requests_total"
    }
    assert counted == {
        ("correct", ""): 1,
        ("http", "503"): 1,
        ("timeout", "timeout"): 1,
        ("rejected", ""): 1,
    }
    assert shown(telemetry, "structbench_polite_count") == 2


def test_average_of_scores_is_sum_over_count() -> None:
    with Telemetry(0, instruments=OF_METRICS) as telemetry:
        for valid in (True, True, True, False):
            score = Score(
                outcome="correct", accuracy_score=0.5, json_valid=valid, schema_valid=False, tool_call_accuracy=1.0
            )
            record = completed(20)
            telemetry.observe(record, CELL, score.outcome, observed(record, score))

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


def series(telemetry: Telemetry) -> set[tuple[object, ...]]:
    return {(name, *sorted(labels.items())) for name, labels, _ in samples(text(telemetry))}


def test_more_requests_make_no_more_series(telemetry: Telemetry) -> None:
    def feed(first: int) -> None:
        for index in range(first, first + 50):
            record = replace(completed(20 + index, 500), index=index, output_text=f"text {index}")
            telemetry.observe(record, CELL, "correct", {POLITE.name: index / 100}, case_id=f"{index}")
            telemetry.observe(replace(failed("stream"), index=index), CELL)

    feed(0)
    before = series(telemetry)
    feed(50)
    assert series(telemetry) == before
    assert "boom" not in text(telemetry)


@pytest.mark.slow
def test_no_server_and_no_scorer_can_invent_series(telemetry: Telemetry) -> None:
    """Every status there can be, and more outcomes than there are words: the number of series stays bounded."""
    for status in range(100, 1000):
        telemetry.observe(replace(failed("http", status), sent_ns=0, end_ns=NS, prompt_tokens=1), CELL)
    for number in range(500):
        telemetry.observe(completed(20, 30), CELL, f"invented {number}")

    exposition = samples(text(telemetry))
    endings = {tuple(labels.items()): n for name, labels, n in exposition if name == "structbench_requests_total"}
    assert len(endings) == MAX_OUTCOMES + 1


def test_of_very_many_cells_the_newest_are_shown(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "MAX_CELLS", 2)
    for number in range(4):
        telemetry.observe(completed(5), replace(CELL, load=f"c={number}"))
    found = samples(text(telemetry))
    assert {labels["structbench_load"] for _, labels, _ in found if "structbench_load" in labels} == {"c=2", "c=3"}


def test_the_users_label_is_on_every_series_of_a_cell_and_not_endless(telemetry: Telemetry) -> None:
    cell = replace(CELL, label="night " * 50)
    telemetry.observe(completed(20, 30), cell)
    labels = {labels.get("structbench_label") for name, labels, _ in samples(text(telemetry)) if name != "target_info"}
    assert labels == {("night " * 50)[:LABEL_CHARACTERS]}


def test_names_that_are_no_utf_8_spoil_no_scrape(telemetry: Telemetry) -> None:
    telemetry.observe(completed(20, 30), replace(CELL, label="caf\udce9", suite="caf\udce9"))
    assert shown(telemetry, FIRST_CHUNK + "_count", structbench_label="caf?", structbench_suite="caf?") == 1


def test_the_exporter_would_give_the_same_names_labels_and_numbers() -> None:
    """Our histograms are not OpenTelemetry's: nothing that Prometheus sees may tell."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.metrics import MeterProvider
    from prometheus_client import CollectorRegistry, generate_latest

    theirs, ours = CollectorRegistry(), CollectorRegistry()
    reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=theirs)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    meter = provider.get_meter("t")
    instruments = {
        i.name: meter.create_histogram(i.name, i.unit, i.meaning, explicit_bucket_boundaries_advisory=i.buckets)
        for i in (*INSTRUMENTS, POLITE)
        if i.kind == "histogram"
    }
    histograms = Histograms([POLITE])
    ours.register(histograms)
    for cell in (CELL, replace(CELL, suite="tools", label="x")):
        for chunks in ((0, 0, 1), (5, 15, 22, 322), (20, 20_020)):
            for failure, record in ((None, served(*chunks)), ("stream", replace(served(*chunks), error=STREAM))):
                histograms.add(cell, record, {POLITE.name: True}, failure, None)
                instruments[POLITE.name].record(1.0, labels_for(POLITE.name, cell))
                for name, besides, (value,) in values_of([record], failure):
                    if value is not None:
                        instruments[name].record(value, {**labels_for(name, cell), **besides})
                for gap in record.gaps_s if failure is None else ():
                    instruments[CHUNK_GAP].record(gap, labels_for(CHUNK_GAP, cell))

    assert sorted(generate_latest(ours).splitlines()) == sorted(generate_latest(theirs).splitlines())
    assert len(instruments) == sum(
        f"# TYPE {n.replace('.', '_')}" in generate_latest(ours).decode() for n in instruments
    )
    provider.shutdown()


def labels_for(name: str, cell: CellLabels) -> Labels:
    return genai_attributes(cell) if name.startswith("gen_ai.") else own_attributes(cell)


def test_exemplars_name_the_request_where_the_scraper_takes_openmetrics(telemetry: Telemetry) -> None:
    telemetry.begin(CELL, "20261124T141018-23941ef7", 3)
    for index, ttft_ms in enumerate((20, 400, 410)):
        telemetry.observe(replace(completed(ttft_ms, ttft_ms + 9), index=index), CELL)

    before = text(telemetry)
    found = {
        float(sample.labels["le"]): sample.exemplar
        for family in text_fd_to_metric_families(io.StringIO(text(telemetry, accept="application/openmetrics-text")))
        for sample in family.samples
        if sample.name == FIRST_CHUNK + "_bucket" and sample.exemplar is not None
    }
    assert {bound: (e.labels["request_index"], e.value) for bound, e in found.items()} == {
        0.0215: ("0", 0.02), 0.422: ("2", 0.41),
    }  # fmt: skip
    assert {e.labels["run_id"] for e in found.values()} == {"20261124T141018-23941ef7"}
    assert "run_id" not in before
    assert text(telemetry) == before, "the plain text is what it was"


def test_an_exemplar_with_a_trace_keeps_openmetrics_limit() -> None:
    histograms = Histograms()
    exemplar = Exemplar("20261124T141018-23941ef7", 10**9, 0, trace_id=2**128 - 1, span_id=2**64 - 1)
    histograms.add(CELL, completed(20), {}, None, exemplar)
    labels = [s.exemplar.labels for family in histograms.collect() for s in family.samples if s.exemplar is not None]
    assert {frozenset(each) for each in labels} == {frozenset({"run_id", "request_index", "trace_id", "span_id"})}
    assert max(sum(len(name) + len(value) for name, value in each.items()) for each in labels) <= 128


def test_gauges_of_client_and_server_are_of_the_cell_that_runs(telemetry: Telemetry) -> None:
    other = replace(CELL, load="c=16")
    telemetry.sample(CELL, {"client_cpu_cores": 1.5, "workers": 2, "server_size_bytes": None})
    telemetry.sample(other, {"client_cpu_cores": 0.5, "workers": 4, "server_size_bytes": 7})

    assert shown(telemetry, "structbench_client_cpu_usage") == 0.5
    assert shown(telemetry, "structbench_client_workers", structbench_load="c=16") == 4
    assert shown(telemetry, "structbench_server_model_size_bytes") == 7
    assert shown(telemetry, "structbench_server_model_vram_bytes") is None, "absent is absent"


def test_progress_and_verdict_stay_when_a_cell_has_ended(telemetry: Telemetry) -> None:
    telemetry.cells({"waiting": 1, "running": 1})
    telemetry.begin(CELL, "r", planned=5)
    telemetry.in_flight(CELL, 3)
    telemetry.verdict(CELL, "valid")
    telemetry.end(CELL, "invalid")
    telemetry.cells({"waiting": 1, "running": 0, "complete": 1})

    assert shown(telemetry, "structbench_request_planned") == 5
    assert shown(telemetry, "structbench_request_in_flight") == 0
    assert shown(telemetry, "structbench_verdict") == 2
    assert shown(telemetry, "structbench_cells", structbench_cell_state="complete") == 1


def test_scrape_amid_observations_never_sees_half_a_request() -> None:
    """Streams so long that the threads are switched within one: sums and counts must fit each other at every moment."""
    histograms = Histograms()
    record = replace(completed(), chunk_ns=tuple(range(0, 20_001 * MS, MS)), end_ns=20_001 * MS)

    def feed() -> None:
        for _ in range(10):
            histograms.add(CELL, record, {}, None, None)

    feeder = threading.Thread(target=feed)
    feeder.start()
    seen: list[dict[str, float]] = []
    while feeder.is_alive() or not seen:
        seen += [{s.name: s.value for family in histograms.collect() for s in family.samples}]
    feeder.join()
    for values in seen:
        requests = values.get(DURATION + "_count", 0)
        assert values.get(GAP + "_count", 0) == 20_000 * requests
        assert values.get(GAP + "_sum", 0) == pytest.approx(20 * requests)


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
    """Something of everything, so that each instrument shows."""
    telemetry.begin(CELL, "run", planned=3)
    record = replace(served(20, 30), first_answer_ns=20 * MS)
    telemetry.observe(record, CELL, ALL_RIGHT.outcome, observed(record, ALL_RIGHT))
    telemetry.observe(replace(failed("http", 500), sent_ns=0, end_ns=NS, prompt_tokens=3), CELL)
    telemetry.cache(CELL, "miss")
    telemetry.in_flight(CELL, 1)
    telemetry.cells({"waiting": 2, "running": 1})
    telemetry.sample(CELL, dict.fromkeys(SAMPLED.values(), 0.5))
    telemetry.verdict(CELL, "degraded")


def table(header: str) -> list[list[str]]:
    """The rows of the table of the page whose first column is called ``header``."""
    _, _, rest = LIVE.read_text(encoding="utf-8").partition(f"| {header} |")
    rows = rest.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def items(section: str) -> list[list[str]]:
    """The items of the section of the page, each as what stands before and after its colon."""
    _, _, rest = LIVE.read_text(encoding="utf-8").partition(f"\n## {section}\n")
    lines = rest.partition("\n## ")[0].replace("\n  ", " ").splitlines()
    return [line.removeprefix("- ").split(": ", 1) for line in lines if line.startswith("- ")]


def test_documented_instruments_are_those_exposed() -> None:
    with Telemetry(0, instruments=OF_METRICS) as telemetry:
        feed_every_instrument(telemetry)
        exposition = text(telemetry)
    families = {f.name: f for f in text_string_to_metric_families(exposition) if f.name != "target_info"}
    instruments = {instrument.name: instrument for instrument in (*INSTRUMENTS, *OF_METRICS)}
    bounds = {
        re.findall(r"\*\*(.+?)\*\*", name)[0]: [float(bound) for bound in values.split()]
        for name, values in items("Buckets")
    }
    cell_labels = {"gen_ai_request_model", "structbench_suite", "structbench_load"}
    genai_labels = {"gen_ai_operation_name", "gen_ai_provider_name", "server_address", "server_port"}

    rows = table("OpenTelemetry")
    assert {row[0].strip("`"): (row[2], row[3].strip("`")) for row in rows} == {
        i.name: (i.kind, i.unit) for i in instruments.values()
    }
    documented = set()
    for name, prometheus, kind, _unit, besides, bucket_set in rows:
        # The parser calls a counter's family by its name without "_total".
        family = families[prometheus.strip("`").removesuffix("_total")]
        documented.add(family.name)
        assert family.type == kind
        extra = {label.replace(".", "_") for label in re.findall(r"`([^`]+)`", besides)}
        assert extra == {label.replace(".", "_") for label in instruments[name.strip("`")].attributes}
        assert prometheus == f"`{instruments[name.strip('`')].prometheus}`"
        own = set() if name == "`structbench.cells`" else cell_labels
        expected = own | extra | (genai_labels if name.startswith("`gen_ai.") else set())
        assert {label for s in family.samples for label in s.labels} - {"le"} == expected, name
        shown_bounds = {float(s.labels["le"]) for s in family.samples if "le" in s.labels} - {float("inf")}
        assert sorted(shown_bounds) == bounds.get(bucket_set, []), name
        assert prometheus.strip("`") in {s.name for s in family.samples} or kind == "histogram"
    assert documented == set(families)


def test_every_instrument_has_its_formula_in_the_docs() -> None:
    rows = items("What each counts")
    documented = [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(documented) == sorted(instrument.name for instrument in (*INSTRUMENTS, *OF_METRICS))
    assert all(len(row) == 2 and row[1] for row in rows)
