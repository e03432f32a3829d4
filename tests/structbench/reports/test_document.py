"""A report's figures are those of the rows, with n and interval, and runs are never mixed silently."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from structbench.reports.charts import chart_values
from structbench.reports.document import to_json
from structbench.reports.html import to_html
from structbench.reports.markdown import to_markdown
from structbench.results.chart_data import EDGES, POSITION_REQUESTS, TIMELINE_POINTS
from structbench.results.intervals import GAP_REQUESTS
from structbench.results.wrong_answers import MAX_CHARACTERS, MAX_PER_OUTCOME
from structbench.stats import Estimate, percentile, wilson
from structbench.store import Reader
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from tests.support.paths import ROOT
from tests.support.reports import FAILED, NOON, document, many, request, requests, run, write


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four lines: 100 requests with wrong and failed ones; 20 at another load; text without scores; an empty run."""
    runs = [
        run("r1", verdict="degraded", verdict_reason="slow [client]\x1b[31m", label="night"),
        run("r2", concurrency=4, planned=50, status="interrupted", goodput_limits={"ttft_s": 0.005}),
        run("r3", suite="text"),
        run("r4", suite="tools", verdict=None),
    ]
    unscored = {"outcome": "completed", "accuracy_score": None, "json_valid": None, "schema_valid": None}
    mixed = [
        {**row, "request_index": row["request_index"] * 61 % 100} for row in requests("r1", 100, wrong=10, failed=5)
    ]
    rows = [*mixed, *requests("r2", 20), *requests("r3", 40, **unscored)]
    return write(tmp_path_factory.mktemp("report") / "a.duckdb", runs, rows)


def test_figures_are_those_of_the_rows(path: Path) -> None:
    found = document(path)
    group = next(group for group in found.groups if group.run_ids == ("r1",))
    figures = found.figures[group.id]
    ttft = [(index + 1) / 1000 for index in range(95)]
    p50, p99 = figures.latencies["ttft_s"]["p50"], figures.latencies["ttft_s"]["p99"]
    assert p50.value == pytest.approx(percentile(ttft, 0.5))
    assert (p50.low or 0) < (p50.value or 0) < (p50.high or 0)
    assert p99 == Estimate(95, None, p99.low, None, needs=368)
    assert figures.latencies["itl_s"]["p50"].value == pytest.approx(0.01)
    assert figures.latencies["itl_s"]["p50"].n == 95
    assert figures.shares["correct"] == wilson(85, 95)
    assert figures.shares["accuracy"] == wilson(85 + 10 * 0.5, 95)
    assert figures.shares["error_rate"] == wilson(5, 100)
    assert figures.shares["tool_call_accuracy"].value is None
    assert figures.rates["correct_goodput"].value == pytest.approx(8.5)
    assert figures.rates["requests_per_s"].value == pytest.approx(9.5)
    assert figures.outcomes == [("correct", False, 85), ("wrong_value", False, 10), ("timeout", True, 5)]


def test_figures_agree_with_the_view_that_a_load_ends_with(path: Path) -> None:
    found = document(path)
    for row in Reader(path).query("SELECT * FROM summary"):
        group = next(group for group in found.groups if group.run_ids == (row["run_id"],))
        figures = found.figures[group.id]
        for name, of in (
            ("ttft_p50_s", "ttft_s"),
            ("itl_p50_s", "itl_s"),
            ("tpot_p50_s", "tpot_s"),
            ("e2e_p50_s", "e2e_s"),
        ):
            estimate = figures.latencies[of]["p50"]
            assert estimate.value is None or estimate.value == pytest.approx(row[name])
        for name in ("json_valid", "schema_valid", "accuracy"):
            assert figures.shares[name].value == (None if row[name] is None else pytest.approx(row[name]))
        assert figures.rates["correct_goodput"].value == (
            None if row["correct"] is None else pytest.approx(row["correct_goodput"])
        )
        assert {name: figures.counts[name] for name in ("requests", "errors", "completed")} == {
            name: row[name] for name in ("requests", "errors", "completed")
        }


@pytest.mark.slow
def test_the_first_answer_is_reported_where_some_answer_had_thinking(tmp_path: Path) -> None:
    thought = {"first_thinking_s": 0.001, "first_answer_s": 0.25}
    rows = [*requests("r1", 80, **thought), *requests("r2", 80, first_answer_s=0.001)]
    path = write(tmp_path / "t.duckdb", [run("r1"), run("r2", suite="tools")], rows)
    for words, there in (((), True), (("r1",), True), (("r2",), False)):
        found = document(path, *words, details=True)
        assert ("first answer p95" in to_markdown(found)) is there
        assert ("first answer p50" in to_html(found)) is there
        assert ("first_answer_s" in chart_values(found, found.details or {})["latencies"]) is there
    figures = document(path, "r1", details=True).figures[0]
    assert figures.latencies["first_answer_s"]["p95"].value == 0.25
    assert figures.counts["thinking"] == 80


def test_correct_goodput_keeps_to_the_limits_of_goodput(path: Path) -> None:
    found = document(path, "r2")
    figures = found.figures[found.groups[0].id]
    assert found.groups[0].goodput_limits == ("ttft_s <= 0.005",)
    # One request of 0.1 s; what the run waited for before it was interrupted is not kept.
    for name in ("correct_goodput", "goodput"):
        assert figures.rates[name].value == pytest.approx(10.0)
    assert figures.shares["correct"].value == 1.0


def test_what_stands_against_a_line_is_in_its_marks(path: Path) -> None:
    marks = {group.run_ids[0]: group.marks for group in document(path).groups}
    assert marks == {"r1": ("degraded",), "r2": ("interrupted",), "r3": (), "r4": ("no verdict",)}


def test_a_run_without_requests_has_no_figures(path: Path) -> None:
    found = document(path, "r4", details=True)
    figures = found.figures[found.groups[0].id]
    assert figures.counts["requests"] == 0
    assert figures.latencies["ttft_s"]["p50"].value is None
    assert figures.outcomes == []
    json.dumps(to_json(found), allow_nan=False)


def test_names_are_printable_and_tell_lines_apart(path: Path) -> None:
    groups = document(path).groups
    assert len({group.name for group in groups}) == len(groups)
    assert next(group for group in groups if group.labels).reasons == ("slow [client]�[31m",)


# Several runs of one config


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config run three times, once badly and once with another seed beside it; one of them simulated."""
    runs = [
        run("a1"), run("a2", started_at=NOON.replace(hour=13)), run("a3", verdict="invalid", verdict_reason="too late"),
        run("b1", config={"think": True}),
    ]  # fmt: skip
    rows = [row for name in ("a1", "a2", "a3", "b1") for row in requests(name, 50)]
    path = write(tmp_path_factory.mktemp("twice") / "a.duckdb", runs, rows)
    with_simulated = [run("c1", config={"server_address": "simulated"})]
    return write(path, with_simulated, requests("c1", 30), simulated=True)


def test_runs_of_one_config_stand_apart_with_names_of_their_own(twice: Path) -> None:
    names = {group.run_ids: group.name for group in document(twice).groups}
    assert len(set(names.values())) == 5
    assert "run 2 of 3" in names[("a2",)] or "run 3 of 3" in names[("a2",)]
    assert "think=on" in names[("b1",)]
    assert "ollama at simulated" in names[("c1",)]


def test_pooled_runs_are_those_of_one_config_and_the_worst_of_them_marks_the_line(twice: Path) -> None:
    found = document(twice, pool=True)
    pooled = next(group for group in found.groups if len(group.run_ids) > 1)
    assert sorted(pooled.run_ids) == ["a1", "a2", "a3"]
    assert "3 runs pooled" in pooled.name
    assert pooled.marks == ("invalid",)
    assert pooled.reasons == ("too late",)
    figures = found.figures[pooled.id]
    assert figures.counts["requests"] == 150
    assert figures.latencies["ttft_s"]["p95"].n == 150
    assert figures.rates["requests_per_s"].value == pytest.approx(150 / 30)
    assert len(found.groups) == 3


def test_a_simulated_line_is_called_so_everywhere(twice: Path) -> None:
    found = document(twice)
    assert [group.marks for group in found.groups if group.simulated] == [("SIMULATED",)]
    assert any(note.startswith("SIMULATED: some of these runs") for note in found.headline.notes)
    (alone,) = document(twice, "c1").headline.notes
    assert alone.startswith("SIMULATED: all of these runs")
    assert document(twice, "c1").headline.text.startswith("SIMULATED: ")


# What the charts draw


def test_details_hold_what_the_rows_say(path: Path) -> None:
    found = document(path, details=True)
    details = found.details or {}
    group = next(group.id for group in found.groups if group.run_ids == ("r1",))
    curve = next(each for each in details["curves"]["ttft_s"] if each["line"] == group)
    assert (curve["share"], curve["values"][0], curve["values"][100]) == (0.95, 0.001, 0.095)
    bins = [each for each in details["positions"] if each["line"] == group]
    assert [(each["from"], each["to"]) for each in bins] == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 6), (7, 8)]
    assert all(each["p50"]["value"] == pytest.approx(0.01) and each["n"] == 95 for each in bins)
    part = next(each for each in details["parts"] if each["line"] == group)
    assert part["prompt_eval_s"] + part["rest_s"] == pytest.approx(sum(range(1, 96)) / 95 / 1000)
    timeline = next(each for each in details["timeline"] if each["line"] == group)
    assert (timeline["shown"], timeline["requests"], sum(timeline["failed"])) == (100, 100, 5)
    assert timeline["t_s"][:3] == [0, 0.02, 0.04]
    assert details["wrong"]["total"] == 15
    assert len(details["wrong"]["listed"]) == 2 * MAX_PER_OUTCOME


def test_too_few_requests_draw_no_curve(tmp_path: Path) -> None:
    few = document(write(tmp_path / "few.duckdb", [run("r")], requests("r", 5)), details=True)
    assert few.details is not None
    assert few.details["curves"]["ttft_s"] == []
    assert all(each["p50"] is None for each in few.details["positions"])


def test_the_edges_of_the_answer_s_bins_ascend() -> None:
    assert list(EDGES) == sorted(set(EDGES))
    assert len(EDGES) < 1000  # the key of a bin is run group x 1000 + bin


def test_a_continued_run_s_second_segment_comes_after_its_first(tmp_path: Path) -> None:
    """Monotonic clocks start anew with each segment: instants of two segments must not be compared."""
    rows = requests("r", 10)
    rows += [{**request("r", index), "segment": 1, "due_ns": index, "sent_ns": index} for index in range(10, 12)]
    found = document(write(tmp_path / "two.duckdb", [run("r")], rows), details=True)
    instants = (found.details or {})["timeline"][0]["t_s"]
    assert instants == sorted(instants)
    assert instants[-1] > instants[9] >= 0.18


@pytest.mark.slow
def test_a_large_file_is_sampled_and_says_so(tmp_path: Path) -> None:
    found = document(many(tmp_path / "many.duckdb", 2, 4000), details=True)
    details = found.details or {}
    for each in details["timeline"]:
        assert each["requests"] == 4000
        assert 0.9 * TIMELINE_POINTS / 2 < each["shown"] < 1.1 * TIMELINE_POINTS / 2
    assert all(0 < each["n"] < 1.1 * POSITION_REQUESTS for each in details["positions"])
    assert all(
        0.9 * GAP_REQUESTS < figures.latencies["itl_s"]["p50"].n < 1.1 * GAP_REQUESTS
        for figures in found.figures.values()
    )
    assert len(json.dumps(to_json(found))) < 500_000


# What was asked


def test_prompts_are_those_of_the_suite_only_while_it_is_the_same(tmp_path: Path) -> None:
    suites = {name: load_suite(name, text=TextShape(), seed=3) for name in ("json", "numbers", "text")}
    runs, rows = [], []
    for name, suite in suites.items():
        runs.append(run(name, suite=name, config={"suite_hash": suite.content_hash, "seed": 3}))
        rows.append(request(name, 1, case_id=suite.cases[1].id, outcome="wrong_value", accuracy_score=0.0))
    runs += [run("changed", config={"suite_hash": "other"}), run("gone", suite="gone.jsonl")]
    first = {"case_id": suites["json"].cases[0].id, "outcome": "wrong_value", "output_text": "é" * 9000}
    rows += [request(name, 0, **first) for name in ("changed", "gone")]
    found = document(write(tmp_path / "asked.duckdb", runs, rows), details=True)
    listed = {row["run_id"]: row for row in (found.details or {})["wrong"]["listed"]}
    assert listed["json"]["asked"]["messages"][0]["content"] == suites["json"].cases[1].messages[0]["content"]
    assert json.loads(listed["json"]["asked"]["schema"])["type"] == "array"
    assert listed["numbers"]["asked"]["expected"] == json.dumps(suites["numbers"].cases[1].expected_text)
    assert [listed[name]["asked"] for name in ("text", "changed", "gone")] == [None, None, None]
    assert (len(listed["gone"]["output_text"]), listed["gone"]["output_letters"]) == (MAX_CHARACTERS, 9000)


def test_wrong_answers_are_of_different_cases(tmp_path: Path) -> None:
    rows = [request("r", index, case_id=f"case-{index % 5}", repeat=index // 5, **FAILED) for index in range(20)]
    found = document(write(tmp_path / "cases.duckdb", [run("r")], rows), details=True)
    listed = (found.details or {})["wrong"]["listed"]
    assert len({row["case_id"] for row in listed}) == len(listed) == MAX_PER_OUTCOME


# JSON


def test_json_is_strict_and_has_the_same_figures(path: Path) -> None:
    found = document(path, details=True)
    written = json.loads(json.dumps(to_json(found), allow_nan=False))
    group = next(each for each in written["lines"] if each["run_ids"] == ["r1"])
    figures = found.figures[group["id"]]
    assert group["ttft_s"]["p50"]["value"] == figures.latencies["ttft_s"]["p50"].value
    assert group["ttft_s"]["p99"] == {
        "n": 95,
        "value": None,
        "low": figures.latencies["ttft_s"]["p99"].low,
        "high": None,
        "needs": 368,
        "unit": "requests",
        "why": None,
        "seen": None,
    }
    assert group["marks"] == ["degraded"]
    assert group["started_at"] == "2026-09-01T12:00:00+00:00"
    assert written["database"] == "a.duckdb"
    assert str(path.parent) not in json.dumps(written)


def test_every_key_of_the_json_is_documented(path: Path) -> None:
    """One level into lists and objects, where the keys are ours and not names of metrics or fields of a config."""
    written = to_json(document(path, details=True))
    keys = [*written, *written["headline"], *written["headline"]["candidates"][0], *written["lines"][0]]
    keys += [*written["lines"][0]["correct"], *written["headline"]["candidates"][0]["checks"][0], *written["wrong"]]
    for name in ("positions", "parts", "timeline"):
        keys += written[name][0]
    keys += [*written["curves"]["ttft_s"][0], *written["lines"][0]["outcomes"][0]]
    documented = set(re.findall(r"\w+", (ROOT / "docs/report.md").read_text()))
    assert set(keys) <= documented
