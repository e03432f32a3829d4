"""LLMPerf's files: its keys, and its formulas over what the requests of a run did."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import quantiles
from typing import Any

import pytest

from loadgen.types import NS, RequestError, RequestRecord
from structbench.cli import main
from structbench.store import Store, row_of
from structbench.types import Score

MS = NS // 1000
SPREAD = ("quantiles_p25", "quantiles_p50", "quantiles_p75", "quantiles_p90", "quantiles_p95", "quantiles_p99", "mean",
          "min", "max", "stddev")  # fmt: skip
METRICS = ("inter_token_latency_s", "ttft_s", "end_to_end_latency_s", "request_output_throughput_token_per_s",
           "number_input_tokens", "number_output_tokens")  # fmt: skip
COUNTS = ("num_requests_started", "error_rate", "number_errors", "error_code_frequency",
          "mean_output_throughput_token_per_s", "num_completed_requests", "num_completed_requests_per_min")  # fmt: skip
ASKED = ("mean_input_tokens", "stddev_input_tokens", "mean_output_tokens", "stddev_output_tokens")
RESPONSE = {"error_code", "error_msg", "inter_token_latency_s", "ttft_s", "end_to_end_latency_s", "number_total_tokens",
            "request_output_throughput_token_per_s", "number_output_tokens", "number_input_tokens"}  # fmt: skip


def answered(index: int, tokens: int | None = 10) -> RequestRecord:
    """Sent at index s; first chunk after 100 ms more than the one before it, the last after 1 s, the end at 1.25 s."""
    sent = index * NS
    return RequestRecord(
        index=index, due_ns=sent, sent_ns=sent, chunk_ns=(sent + (index + 1) * 100 * MS, sent + NS), clock="kernel",
        end_ns=sent + 1250 * MS, prompt_tokens=40, output_tokens=tokens, output_text="7",
    )  # fmt: skip


def failed(index: int, kind: Any, status: int | None = None) -> RequestRecord:
    sent = index * NS
    return RequestRecord(index=index, due_ns=sent, sent_ns=sent, end_ns=sent + NS,
                         error=RequestError(kind, "no", status))  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The files of a text run, of a run of numbers, and of one of an old version, by the word that tells them apart."""
    folder = tmp_path_factory.mktemp("llmperf")
    shape = {"mean_input_tokens": 550.0, "stddev_input_tokens": 150.0, "mean_output_tokens": 10.0,
             "stddev_output_tokens": 2.5}  # fmt: skip
    config = {"options": {"temperature": 0}, "body": {"logit": {"7": 1}}}
    run = {"model": "org/m:1", "status": "complete", "load_kind": "closed", "concurrency": 2, "api": "openai",
           "started_at": "2026-01-01T00:00:00Z", "finished_at": "2026-01-01T00:00:10Z", "config": config}  # fmt: skip
    records = [answered(0), answered(1), answered(2, 20), failed(3, "rate_limited", 429), failed(4, "timeout"),
               failed(5, "cancelled"), failed(6, "stream", 200)]  # fmt: skip
    wrong, right = Score(outcome="wrong_value", accuracy_score=0.0), Score(outcome="correct", accuracy_score=1.0)
    scores = {0: right, 1: wrong, 2: right}
    with Store(folder / "s.duckdb") as store:
        for run_id, suite, more in (
            ("texts", "text", {"metadata": {"gpu": "L4", "name": "foo"}, "environment": {"options": {"text": shape}}}),
            ("numbers", "numbers", {"environment": {}}),
            ("old", "text", {"concurrency": None, "rate": 2.0}),
        ):
            store.append("runs", {**run, "run_id": run_id, "suite": suite, "config_hash": run_id, **more})
            store.append("segments", {"run_id": run_id, "segment": 0, "status": "complete", "duration_s": 8.0})
            for record in records if run_id != "old" else [answered(0, None)]:
                score = scores.get(record.index) if suite == "numbers" else None
                store.append("requests", row_of(run_id, run_id, 0, "case", 0, record, score))
    assert main(["export", "--format", "llmperf", "--db", str(folder / "s.duckdb"), "-o", str(folder / "out")]) == 0
    return {path.stem: json.loads(path.read_text()) for path in (folder / "out").iterdir()}


def of(exported: dict[str, Any], word: str, kind: str) -> Any:
    (name,) = (name for name in exported if word in name and name.endswith(kind))
    return exported[name]


def test_each_run_has_two_files_named_as_llmperf_names_them(exported: dict[str, Any]) -> None:
    names = {f"org-m-1_{run}_{kind}" for run in ("550_10_texts", "correctness_numbers", "text_old")
             for kind in ("summary", "individual_responses")}  # fmt: skip
    assert set(exported) == names


def test_a_summary_has_llmperfs_keys(exported: dict[str, Any]) -> None:
    own = {"version", "name", "model", "num_concurrent_requests", "timestamp", *ASKED, "gpu",
           "additional_sampling_params_temperature", "additional_sampling_params_logit_7"}  # fmt: skip
    figures = {f"results_{metric}_{figure}" for metric in METRICS for figure in SPREAD}
    assert set(of(exported, "texts", "summary")) == own | figures | {f"results_{name}" for name in COUNTS}


def test_the_figures_of_a_summary(exported: dict[str, Any]) -> None:
    summary = of(exported, "texts", "summary")
    told = {"version": "2023-08-31", "name": "foo", "model": "org/m:1", "num_concurrent_requests": 2, "gpu": "L4",
            "mean_input_tokens": 550, "stddev_output_tokens": 2.5, "timestamp": 1767225610,
            "additional_sampling_params_temperature": 0, "additional_sampling_params_logit_7": 1,
            "results_num_requests_started": 6, "results_number_errors": 3, "results_error_rate": 0.5,
            "results_error_code_frequency": "{429: 1, -1: 2}", "results_num_completed_requests": 3,
            "results_num_completed_requests_per_min": 3 / 8 * 60,
            "results_mean_output_throughput_token_per_s": 40 / 8,
            "results_inter_token_latency_s_quantiles_p50": 0.1, "results_inter_token_latency_s_min": 0.05,
            "results_end_to_end_latency_s_max": 1.25, "results_number_input_tokens_stddev": 0}  # fmt: skip
    assert {name: summary[name] for name in told} == told
    ttfts = [0.1, 0.2, 0.3]
    percent = quantiles(ttfts, n=100, method="inclusive")
    for p in (25, 50, 75, 90, 95, 99):
        assert summary[f"results_ttft_s_quantiles_p{p}"] == pytest.approx(percent[p - 1])
    assert summary["results_ttft_s_mean"] == pytest.approx(0.2)
    assert summary["results_ttft_s_stddev"] == pytest.approx(0.1)


def test_the_individual_responses(exported: dict[str, Any]) -> None:
    responses = of(exported, "texts", "responses")
    assert all(set(each) == RESPONSE for each in responses)
    assert responses[0] == {
        "error_code": None, "error_msg": "", "inter_token_latency_s": 0.1, "ttft_s": 0.1, "end_to_end_latency_s": 1.25,
        "request_output_throughput_token_per_s": 8.0, "number_total_tokens": 50, "number_output_tokens": 10,
        "number_input_tokens": 40,
    }  # fmt: skip
    assert [(each["error_code"], each["error_msg"]) for each in responses[3:]] == [
        (429, "rate_limited: no"), (-1, "timeout: no"), (-1, "stream: no"),
    ]  # fmt: skip
    assert responses[3]["ttft_s"] is None


def test_correctness_is_counted_as_llm_correctness_does(exported: dict[str, Any]) -> None:
    summary = of(exported, "numbers", "summary")
    told = {"number_errors": 3, "num_mismatched_requests": 1, "error_rate": 0.5, "mismatch_rate": 1 / 6,
            "num_completed_requests": 6, "num_non_errored_requests": 3, "llm_api": "openai",
            "num_concurrent_requests": 2, "model": "org/m:1"}  # fmt: skip
    assert {name: summary[name] for name in told} == told
    first = of(exported, "numbers", "responses")[0]
    assert set(first) == {"metrics", "generated_text", "request_config"}
    assert (set(first["metrics"]), first["generated_text"]) == (RESPONSE, "7")


def test_what_an_old_run_does_not_tell_is_null(exported: dict[str, Any]) -> None:
    summary, (response,) = of(exported, "old", "summary"), of(exported, "old", "responses")
    assert (summary["mean_input_tokens"], summary["num_concurrent_requests"]) == (None, None)
    assert summary["results_mean_output_throughput_token_per_s"] is None
    assert (summary["results_number_output_tokens_mean"], response["number_total_tokens"]) == (None, None)
    assert summary["results_ttft_s_stddev"] is None


def test_the_files_need_a_folder(results_once: Path, capsys: Any) -> None:
    assert main(["export", "--format", "llmperf", "--db", str(results_once)]) == 2
    assert "give a folder for them" in capsys.readouterr().err
