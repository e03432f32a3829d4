"""The plot against a server that knows the truth: rows, scores, skip, resume, and what ends a load early."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadgen.simulator import Simulator
from structbench.run import sampler
from structbench.run.runner import Stop, Summary
from structbench.suites.answer_book import answer_book
from tests.support.loads import FAST, MODELS, SLOW, ask, inferences, listening, load, small, until, when

CLOCKS_NS = 100_000
"""The kernel stamps with another clock than the server's; to bring them together costs some precision."""
ONE_ROW = "SELECT count(*), count(DISTINCT request_index), min(request_index), max(request_index) FROM requests"


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    models = {**MODELS, "slow": SLOW, "timed": SLOW, "fault:500@0.5": FAST}
    with Simulator(models, answers=answer_book()) as server:
        yield server


@pytest.fixture(scope="module")
def first(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summary, list[dict[str, Any]]]:
    """Two models under two suites; what the server did."""
    db = tmp_path_factory.mktemp("first") / "s.duckdb"
    sim.reset_truth()
    sim._server.models["mixed:latest"].profile = replace(MODELS["mixed"], tokens_per_s=50_000.0)
    before, sampler.PERIOD_S = sampler.PERIOD_S, 0.05
    try:
        options = small(sim, db, models=["mixed", "deaf"], suites=["json", "tools"], requests=16, label="first")
        summary = load(options)
    finally:
        sampler.PERIOD_S = before
    return db, summary, inferences(sim)


First = tuple[Path, Summary, list[dict[str, Any]]]


def test_a_run_for_each_cell_and_a_row_for_each_request(first: First) -> None:
    db, summary, _ = first
    assert [(row["model"], row["suite"], row["load"], row["cache"]) for row in summary.rows] == [
        (model, suite, "c=1", "new") for model in ("mixed", "deaf") for suite in ("json", "tools")
    ]
    assert (summary.exit_code, summary.failures, summary.interrupted) == (0, [], False)
    assert ask(db, "SELECT DISTINCT status, planned, label FROM runs") == [("complete", 16, "first")]
    assert ask(db, f"{ONE_ROW} GROUP BY run_id") == [(16, 16, 0, 15)] * 4
    assert ask(db, "SELECT DISTINCT status, segment, planned, workers, warmup_requests FROM segments") == [
        ("complete", 0, 16, 1, 1)
    ]
    assert not db.with_name(db.name + ".spool").exists()


@pytest.mark.parametrize("suite", ["json", "tools"])
def test_scores_are_what_the_server_knows_it_answered(first: First, suite: str) -> None:
    db, _, told = first
    entries = [entry for entry in told if entry["model"] == "mixed"]
    kinds = [entry["kind"] for entry in (entries[:16] if suite == "json" else entries[16:])]
    where = f"run_id = (SELECT run_id FROM runs WHERE model = 'mixed' AND suite = '{suite}') ORDER BY request_index"
    assert [outcome for (outcome,) in ask(db, f"SELECT outcome FROM requests WHERE {where}")] == kinds
    assert len(set(kinds)) > 3, "not the variety that this test is about"


def test_scores_agree_with_their_numbers(first: First) -> None:
    db, summary, _ = first
    wrong = ask(
        db,
        "SELECT outcome, json_valid, schema_valid, accuracy_score FROM requests JOIN runs USING (run_id) WHERE"
        " suite = 'json' AND error_kind IS NULL AND (json_valid IS NULL OR accuracy_score IS NULL"
        " OR (outcome = 'correct') <> (accuracy_score = 1 AND schema_valid)"
        " OR (outcome = 'schema_violation' AND (schema_valid OR NOT json_valid))"
        " OR (outcome = 'invalid_json' AND json_valid))",
    )
    assert wrong == []
    shown = summary.rows[0]
    assert shown["correct"] == ask(db, "SELECT count(*) FROM requests JOIN runs USING (run_id) WHERE model = 'mixed'"
                                       " AND suite = 'json' AND outcome = 'correct'")[0][0]  # fmt: skip


def test_a_model_that_cannot_is_rejected_and_that_is_no_infrastructure(first: First) -> None:
    db, summary, _ = first
    row = summary.rows[3]
    assert (row["model"], row["suite"]) == ("deaf", "tools")
    assert ask(db, f"SELECT DISTINCT outcome, error_kind, error_status, accuracy_score FROM requests"
                   f" WHERE run_id = '{row['run_id']}'") == [("rejected", "rejected", 400, 0.0)]  # fmt: skip
    assert (row["requests"], row["errors"], row["completed"], row["accuracy"], row["correct"]) == (16, 0, 0, 0.0, 0)
    assert (row["verdict"], row["verdict_reason"]) == ("valid", None)
    assert summary.rows[2]["errors"] == 0


def test_tokens_and_times_are_the_servers(first: First) -> None:
    db, _, told = first
    rows = ask(db, "SELECT output_tokens, prompt_tokens, round(eval_s * 1e9), sent_ns, ttft_s, e2e_s, chunks"
                   " FROM requests JOIN runs USING (run_id) WHERE model = 'mixed' AND suite = 'json'"
                   " ORDER BY request_index")  # fmt: skip
    for (tokens, prompt, eval_ns, sent_ns, ttft_s, e2e_s, chunks), entry in zip(rows, told[:16], strict=True):
        assert (tokens, prompt, eval_ns, chunks) == (
            entry["tokens"], entry["prompt_tokens"], entry["eval_ns"], entry["chunks"]
        )  # fmt: skip
        assert sent_ns <= entry["received_ns"]
        assert sent_ns + e2e_s * 1e9 >= entry["done_ns"] - CLOCKS_NS
        if entry["first_ns"] is None:
            assert ttft_s is None
        else:
            assert sent_ns + ttft_s * 1e9 >= entry["first_ns"] - CLOCKS_NS


def test_samples_are_taken_while_it_runs(first: First) -> None:
    db, _, _ = first
    ((runs, least_rss, vram),) = ask(
        db, "SELECT count(DISTINCT run_id), min(client_rss_bytes), count(server_vram_bytes) FROM samples"
    )
    assert runs > 0
    assert least_rss > 1_000_000
    assert vram > 0


def again(first: First, sim: Simulator, **more: Any) -> tuple[Summary, int]:
    """The same command once more, and how many requests it sent."""
    sim.reset_truth()
    given = {"models": ["mixed", "deaf"], "suites": ["json", "tools"], "requests": 16, "label": "first", **more}
    summary = load(small(sim, first[0], **given))
    return summary, int(sim.truth(summary=True)["totals"]["requests"])


def test_what_is_complete_is_skipped_and_nothing_is_sent(first: First, sim: Simulator) -> None:
    summary, sent = again(first, sim, skip_cached=True)
    assert sent == 0
    assert [(row["run_id"], row["cache"]) for row in summary.rows] == [
        (row["run_id"], "skipped") for row in first[1].rows
    ]
    assert (summary.exit_code, len(summary.records("run_id"))) == (0, 64)


def test_dry_run_and_explain_tell_and_send_nothing(first: First, sim: Simulator, tmp_path: Path) -> None:
    before = first[0].read_bytes()
    summary, sent = again(first, sim, dry_run=True, skip_cached=True)
    assert [line.split(": ")[1] for line in summary.planned] == ["skipped"] * 4
    explained, sent_too = again(first, sim, explain=True, skip_cached=True, timeout=7.0, suites=["json"])
    assert (sent, sent_too, summary.rows, summary.records()) == (0, 0, [], [])
    assert [": known by its digest" in line for line in explained.planned] == [False] * 3 + [True] * 2 + [False]
    assert explained.planned[5] == "c=1: 1 worker, by --workers"
    assert "requests in 2 cells" in explained.planned[2]
    run_id = first[1].rows[0]["run_id"]
    assert explained.planned[0] == (
        f"mixed json c=1: new: no run of this config yet; it differs from run {run_id} in timeout_s: 300 → 7"
    )
    assert first[0].read_bytes() == before
    elsewhere = load(small(sim, tmp_path / "new.duckdb", dry_run=True))
    assert "does not exist yet" in elsewhere.planned[0]
    assert elsewhere.records() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_options_reach_the_server_and_the_command_lines_win(sim: Simulator, tmp_path: Path) -> None:
    with listening(sim) as heard:
        given: dict[str, Any] = {
            "models": ["think"], "suites": ["json", "text"], "requests": 3, "warmup": 0, "structured": "prompt",
            "endpoint": "generate", "think": "on", "keep_alive": "10m", "seed": 40, "mean_input_tokens": 60.0,
            "option": ["temperature=0.5", "num_ctx=8192", 'stop=["Ende"]', "num_predict=6"],
        }  # fmt: skip
        load(small(sim, tmp_path / "s.duckdb", **given))
    asked = [body for path, body in heard if path == "/api/generate" and body["options"].get("num_predict") == 6]
    assert len(asked) == 6
    assert [body["options"] for body in asked] == [
        {"seed": 40 + i % 3, "temperature": 0.5, "num_ctx": 8192, "stop": ["Ende"], "num_predict": 6} for i in range(6)
    ]
    assert {(body["think"], body["keep_alive"], body["stream"]) for body in asked} == {(True, "10m", True)}
    assert all("format" not in body for body in asked)
    assert all("JSON Schema" in body["prompt"] for body in asked[:3])
    texts = [tuple(body["prompt"].split()[:2]) for body in asked[3:]]
    assert len(set(texts)) == 3


def counts(sim: Simulator, model: str, least: int) -> Any:
    return lambda: sum(entry["outcome"] == "completed" for entry in inferences(sim, model)) >= least


@pytest.mark.slow
def test_a_stopped_run_goes_on_where_it_was(sim: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    options = small(sim, db, models=["slow"], requests=40, concurrency=[4], warmup=0)
    stop = Stop()
    asking = when(counts(sim, "slow", 5), stop.ask)
    stopped = load(options, stop=stop)
    asking.join()
    assert (stopped.exit_code, stopped.interrupted, stopped.rows[0]["status"]) == (130, True, "interrupted")
    kept = ask(db, "SELECT request_index, end_ns FROM requests ORDER BY 1")
    assert 5 <= len(kept) < 40, "what was in flight ends, nothing more is sent"
    sim._server.models["slow:latest"].profile = FAST
    sim.reset_truth()
    resumed = load(replace(options, skip_cached=True))
    (row,) = resumed.rows
    assert (row["run_id"], row["cache"], row["status"]) == (stopped.rows[0]["run_id"], "resumed", "complete")
    assert len(inferences(sim, "slow")) == 40 - len(kept)
    assert ask(db, ONE_ROW) == [(40, 40, 0, 39)]
    assert ask(db, "SELECT request_index, end_ns FROM requests WHERE segment = 0 ORDER BY 1") == kept
    assert ask(db, "SELECT segment, status, planned FROM segments ORDER BY 1") == [
        (0, "interrupted", 40), (1, "complete", 40 - len(kept))
    ]  # fmt: skip
    sim.reset_truth()
    assert load(replace(options, skip_cached=True)).rows[0]["cache"] == "skipped"
    assert inferences(sim) == []
    (planned,) = load(replace(options, dry_run=True)).planned
    assert planned.startswith("slow numbers c=4: new: "), "without --skip-cached it is a new run"


@pytest.mark.slow
def test_a_cell_bound_by_time_is_complete_when_time_was_up_and_else_starts_again(
    sim: Simulator, tmp_path: Path
) -> None:
    db = tmp_path / "s.duckdb"
    options = small(sim, db, models=["timed"], requests=None, duration=60.0, warmup=0)
    stop = Stop()
    asking = when(counts(sim, "timed", 2), stop.ask)
    broken = load(options, stop=stop)
    asking.join()
    assert broken.rows[0]["status"] == "interrupted"
    brief = replace(options, duration=0.3, skip_cached=True)
    whole = load(brief)
    assert (whole.exit_code, whole.rows[0]["status"], whole.rows[0]["cache"]) == (0, "complete", "new")
    done = whole.rows[0]["requests"]
    assert 1 <= done < 1000
    assert whole.rows[0]["planned"] == done
    assert load(brief).rows[0]["cache"] == "skipped"
    (planned,) = load(replace(options, skip_cached=True, dry_run=True)).planned
    assert "timed numbers c=1: new: run " in planned
    assert "a cell that --duration limits starts again" in planned


@pytest.mark.slow
def test_a_server_that_goes_away_ends_the_run_and_not_what_was_measured(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    server = Simulator({**MODELS, "slow": SLOW}, answers=answer_book()).__enter__()
    options = small(server, db, models=["slow"], suites=["numbers", "tools"], requests=300, concurrency=[4])
    going = when(counts(server, "slow", 5), server.__exit__)
    summary = load(options)
    going.join()
    assert (summary.exit_code, summary.interrupted, len(summary.rows)) == (1, False, 1)
    assert "no longer answers: start it again and continue with --skip-cached" in summary.failures[0]
    assert summary.rows[0]["status"] == "interrupted"
    outcomes = Counter(outcome for (outcome,) in ask(db, "SELECT outcome FROM requests"))
    assert outcomes["correct"] >= 5
    assert set(outcomes) <= {"correct", "connect", "protocol", "cancelled"}


@pytest.mark.slow
def test_too_many_errors_fail_the_run_only_where_a_limit_was_set(sim: Simulator, tmp_path: Path) -> None:
    options = small(sim, tmp_path / "s.duckdb", models=["fault:500@0.5"], requests=20, warmup=0, concurrency=[2])
    failed = load(replace(options, max_error_rate=0.1))
    assert (failed.exit_code, failed.rows[0]["status"]) == (1, "interrupted")
    assert "more than --max-error-rate 0.1 allows" in failed.failures[0]
    tolerant = load(options)
    assert (tolerant.exit_code, tolerant.failures, tolerant.rows[0]["status"]) == (0, [], "complete")
    assert tolerant.rows[0]["errors"] > 0
    assert ask(tmp_path / "s.duckdb", "SELECT DISTINCT outcome, error_status, accuracy_score FROM requests"
                                      " WHERE error_kind = 'http'") == [("http", 500, None)]  # fmt: skip


@pytest.mark.slow
def test_metrics_can_be_scraped_until_the_hold_ends(sim: Simulator, tmp_path: Path) -> None:
    port = free_port()
    stop, scraped = Stop(), []

    def scrape() -> None:
        until(lambda: reported.is_set(), "the summary")
        scraped.append(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
        stop.ask()

    reported = threading.Event()
    thread = threading.Thread(target=scrape)
    thread.start()
    options = small(sim, tmp_path / "s.duckdb", metrics_port=port, hold=60.0, rate=[200.0], requests=10)
    summary = load(options, stop=stop, report=lambda _: reported.set())
    thread.join()
    assert summary.exit_code == 0, "the end of the hold is no interruption"
    lines = [line for line in scraped[0].splitlines() if line.startswith("structbench_requests_total{")]
    assert len(lines) == 1
    assert lines[0].endswith(" 10.0")
    assert 'outcome="correct"' in lines[0]
    finals = {line.split("{")[0]: line.split("} ")[1] for line in scraped[0].splitlines() if "{" in line}
    verdict = ("valid", "degraded", "invalid").index(summary.rows[0]["verdict"])  # what a busy machine makes of it
    assert (finals["structbench_verdict"], finals["structbench_request_in_flight"]) == (f"{verdict}.0", "0.0")
    assert 'structbench_cells{structbench_cell_state="complete"} 1.0' in scraped[0].splitlines()
    assert any(line.startswith("structbench_cache_total{") and 'result="miss"' in line
               for line in scraped[0].splitlines())  # fmt: skip
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
