"""A against B from the database to the words and the exit code."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from structbench.cli import main
from structbench.commands.compare import Options
from structbench.comparison.comparison import Comparison, Result, change_text, compare, interval_text, judge_changes
from structbench.comparison.pairing import Pair, pair
from structbench.comparison.render import answer, markdown, to_json
from structbench.comparison.samples import Compared
from structbench.comparison.significance import Difference, holm
from structbench.gates.expressions import parse_change
from structbench.gates.slo import Gate
from structbench.metrics import COMPARED, metric_of
from structbench.results.groups import run_groups
from structbench.store import Reader
from tests.support.comparisons import config, database, fewer_resamples, requests
from tests.support.paths import ROOT

LARGE = config(model="m:8b", model_digest="e")
HALF_WRONG = range(0, 40, 2)
RUNS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "plain": (requests(), {"label": "before"}),
    "same": (requests(seed=1), {"label": "after"}),
    "slow": (requests(seed=2, slower=2.0), {"label": "slow", "environment": {"system": "Linux", "cores": 8}}),
    "wrong": (requests(seed=3, wrong=[*HALF_WRONG, *(i + 40 for i in HALF_WRONG)]), {"used": LARGE}),
    "few_right": (requests(80, seed=10, cases=5), {"label": "few"}),
    "few_wrong": (requests(80, seed=11, cases=5, wrong=range(80)), {"label": "few"}),
    "all_wrong": (requests(seed=12, wrong=range(80)), {"label": "collapsed"}),
    "short": (requests(12, seed=4), {"label": "short"}),
    "broken": (requests(60, seed=5, slower=2.0), {"status": "interrupted", "label": "broken"}),
    "untrue": (requests(seed=6), {"verdict": "invalid", "verdict_reason": "sent late", "label": "untrue"}),
    "failing": (requests(seed=7, failed=range(0, 80, 4)), {"label": "failing"}),
    "made_up": (requests(seed=8), {"simulated": True, "label": "made-up"}),
    "loaded": ([], {"used": config(load={"kind": "closed", "concurrency": 4}), "label": "loaded"}),
    "limited": (requests(seed=9), {"goodput_limits": {"ttft_s": 0.1}, "label": "limited"}),
    "two_limits": (requests(20), {"goodput_limits": {"ttft_s": 0.1, "tpot_s": 1.0}}),
    "two_turned": (requests(20), {"goodput_limits": {"tpot_s": 1.0, "ttft_s": 0.1}}),
    "other_client": (
        [],
        {
            "environment": {"system": "Darwin", "cores": 2},
            "simulated": True,
            "verdict": "degraded",
            "verdict_reason": "late",
        },
    ),
    "tools_a": (requests(30), {"used": config(suite="tools")}),
    "tools_b": (requests(30, seed=1, slower=3.0), {"used": config(suite="tools")}),
}

NAMES = {metric.name for metric in COMPARED}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    with fewer_resamples():
        yield


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return database(tmp_path_factory.mktemp("comparing") / "s.duckdb", **RUNS)


@pytest.fixture(scope="module")
def reader(db: Path) -> Iterator[Reader]:
    with Reader(db) as opened:
        yield opened


def compared(reader: Reader, a: str, b: str, *fail_on: str, limits: dict[str, float] | None = None) -> Result:
    pairing = pair(run_groups(reader, a.split(), pool=True), run_groups(reader, b.split(), pool=True))
    return compare((reader, reader), pairing, [parse_change(text) for text in fail_on], limits)


def rows(result: Result) -> dict[str, Compared]:
    return {row.metric.name: row for row in result.comparisons[0].rows}


def words(result: Result) -> dict[str, str]:
    return {name: row.word for name, row in rows(result).items() if row.a is not None or row.b is not None}


def test_two_runs_of_the_same_are_no_different(reader: Reader) -> None:
    result = compared(reader, "plain", "same")
    found = words(result)
    left_out = {"semantic_similarity", "first_answer_p50", "first_answer_p95"}
    assert list(rows(result)) == [metric.name for metric in COMPARED if metric.name not in left_out]
    assert set(found) == NAMES - left_out - {"goodput", "tool_call_accuracy"}
    assert {word for name, word in found.items() if name != "itl_p99"} == {"no detectable difference"}
    assert (result.tested, result.gated) == (15, 0)
    assert answer(result.comparisons[0]).startswith(
        "m:1b json c=1: B is neither better nor worse in anything that these requests show; no difference "
    )


@pytest.mark.slow
def test_the_first_answer_is_compared_where_some_answer_had_thinking_or_a_gate_asks_for_it(tmp_path: Path) -> None:
    def thought(seed: int, thinking_s: float | None) -> list[dict[str, Any]]:
        later = 0.0 if thinking_s is None else thinking_s
        return [
            {**row, "first_thinking_s": None if thinking_s is None else row["ttft_s"],
             "first_answer_s": row["ttft_s"] + later, "semantic_similarity": 0.5}
            for row in requests(seed=seed)
        ]  # fmt: skip

    path = database(
        tmp_path / "s.duckdb", none=(thought(0, None), {}), still=(thought(1, None), {}), short=(thought(2, 0.1), {}),
        long=(thought(3, 0.5), {}),
    )  # fmt: skip
    with Reader(path) as opened:
        assert "first_answer_p50" not in words(compared(opened, "none", "still"))
        assert rows(compared(opened, "none", "still", "first_answer_p50>10%"))["first_answer_p50"].gated
        found = rows(compared(opened, "short", "long"))
    assert (found["first_answer_p50"].word, found["ttft_p50"].word) == ("worse", "no detectable difference")
    assert found["first_answer_p95"].word == "worse"
    assert (found["semantic_similarity"].a, found["semantic_similarity"].word) == (0.5, "no detectable difference")


def test_a_slower_server_is_worse_in_latency_and_rate_and_no_less_right(reader: Reader) -> None:
    found = words(compared(reader, "plain", "slow"))
    for name in ("ttft_p50", "ttft_p95", "e2e_p50", "requests_per_s", "tokens_per_s", "correct_goodput"):
        assert found[name] == "worse", name
    assert {found[name] for name in ("schema_valid", "correct", "accuracy", "error_rate", "tpot_p50")} == {
        "no detectable difference"
    }
    assert words(compared(reader, "slow", "plain"))["requests_per_s"] == "better"


def test_the_figures_are_those_of_the_summary(reader: Reader) -> None:
    found = rows(compared(reader, "plain", "failing"))
    for run, side in (("plain", "a"), ("failing", "b")):
        (told,) = reader.query("SELECT * FROM summary WHERE run_id = $1", [run])
        for name, column in {
            "ttft_p50": "ttft_p50_s", "ttft_p95": "ttft_p95_s", "itl_p99": "itl_p99_s", "tpot_p50": "tpot_p50_s",
            "requests_per_s": "requests_per_s", "tokens_per_s": "tokens_per_s", "correct_goodput": "correct_goodput",
        }.items():  # fmt: skip
            assert getattr(found[name], side) == pytest.approx(told[column]), name
    assert found["error_rate"].b == 0.25
    assert found["error_rate"].word == "worse"
    assert found["correct"].why == "excludes 20 answers without a counterpart"


def test_wrong_answers_are_found_case_by_case(reader: Reader) -> None:
    result = compared(reader, "plain", "wrong")
    found = rows(result)
    assert {found[name].word for name in ("schema_valid", "correct", "accuracy", "correct_goodput")} == {"worse"}
    assert found["correct"].difference is not None
    assert (found["correct"].a, found["correct"].b, found["correct"].difference.method) == (1.0, 0.5, "McNemar")
    (comparison,) = result.comparisons
    assert comparison.pair.changed == ("model: m:1b → m:8b", "model_digest: d → e")
    assert comparison.pair.name == "m:1b → m:8b json c=1"
    assert any("split text into tokens differently" in note for note in comparison.notes)


def test_pooled_runs_are_all_counted(reader: Reader) -> None:
    result = compared(reader, "plain same", "slow")
    assert rows(result)["ttft_p50"].n_a == 160
    assert any("A is 2 runs of one config, pooled" in note for note in result.comparisons[0].notes)
    assert rows(result)["ttft_p50"].word == "worse"
    together = [row["ttft_s"] for name in ("plain", "same") for row in RUNS[name][0]]
    assert rows(result)["ttft_p50"].a == pytest.approx(np.median(together))
    seconds = sum(max(row["end_ns"] for row in RUNS[name][0]) / 1e9 for name in ("plain", "same"))
    assert rows(result)["requests_per_s"].a == pytest.approx(160 / seconds)


def test_too_few_requests_have_figures_but_no_interval(reader: Reader) -> None:
    found = rows(compared(reader, "plain", "short"))
    assert (found["ttft_p95"].word, found["ttft_p95"].why) == ("too few", "needs 72 requests")
    assert found["ttft_p95"].b is not None
    assert (found["itl_p99"].word, found["itl_p99"].why) == ("too few", "needs 20 requests")
    assert interval_text(found["ttft_p95"]) == "–"


def test_a_collapse_in_few_cases_does_not_pass(reader: Reader) -> None:
    result = compared(reader, "few_right", "few_wrong", "schema_valid<-2pp", "correct<-5pp", "accuracy<-5pp")
    assert [gate.outcome for gate in result.gates] == ["not decided"] * 3
    assert {gate.text for gate in result.gates} == {"needs 20 cases"}
    row = rows(result)["correct"]
    assert (row.a, row.b, row.n_a, row.n_b, row.word) == (1.0, 0.0, 80, 80, "too few")


def test_runs_of_unequal_number_are_compared_in_all_their_answers(reader: Reader) -> None:
    result = compared(reader, "plain", "same all_wrong", "correct<-5pp")
    row = rows(result)["correct"]
    assert (row.a, row.b, row.n_a, row.n_b) == (1.0, 0.5, 80, 160)
    assert row.why is None
    assert [gate.outcome for gate in result.gates] == ["not met"]
    assert rows(compared(reader, "same all_wrong", "plain"))["correct"].a == 0.5


def test_an_invalid_run_has_answers_but_no_times_to_compare(reader: Reader) -> None:
    result = compared(reader, "plain", "untrue", "ttft_p50>10%", "schema_valid<-2pp")
    assert words(result)["ttft_p50"] == "not comparable"
    assert words(result)["schema_valid"] == "no detectable difference"
    assert [gate.outcome for gate in result.gates] == ["not decided", "not decided"]
    assert "is invalid" in result.gates[0].text
    assert any("B is invalid: sent late" in note for note in result.comparisons[0].notes)


@pytest.mark.parametrize(
    ("a", "b", "notes"),
    [
        ("plain", "same", ()), ("plain", "broken", ("B is interrupted",)), ("made_up", "same", ("A is SIMULATED",)),
        ("plain", "slow", ("the client's number of cores differs: 2 → 8",)),
        ("other_client", "plain untrue", ("A is SIMULATED, degraded: late", "B is invalid: sent late",
                                          "B is 2 runs of one config, pooled",
                                          "the client's system differs: Darwin → Linux")),
        ("plain", "wrong",
         ("the two models split text into tokens differently: TPOT, ITL and tokens/s count tokens, not text",)),
        ("two_limits", "two_turned", ("goodput counts requests with ttft<0.1,tpot<1",)),
        *((a, b, ("the runs had different --goodput limits, so none are used: give --goodput to set them for both",))
          for a, b in (("limited", "two_turned"), ("two_turned", "plain"))),
    ],
)  # fmt: skip
def test_what_a_reader_must_know_of_two_cells_is_said(reader: Reader, a: str, b: str, notes: tuple[str, ...]) -> None:
    result = compared(reader, a, b)
    assert result.comparisons[0].notes == notes
    assert (rows(result)["goodput"].a is None) is ("goodput counts requests" not in str(notes))


def test_goodput_is_compared_under_limits_that_are_those_of_both(reader: Reader) -> None:
    mixed = compared(reader, "plain", "limited")
    assert "goodput" not in words(mixed)
    assert any("different --goodput limits" in note for note in mixed.comparisons[0].notes)
    given = rows(compared(reader, "plain", "limited", limits={"ttft_s": 0.1}))
    notes = compared(reader, "plain", "limited", limits={"ttft_s": 0.1}).comparisons[0].notes
    assert "goodput counts requests with ttft<0.1" in notes
    (told,) = reader.query("SELECT goodput, correct_goodput FROM summary WHERE run_id = 'limited'")
    assert (given["goodput"].b, given["correct_goodput"].b) == pytest.approx((told["goodput"], told["correct_goodput"]))


@pytest.mark.parametrize(
    ("b", "change", "outcome", "text"),
    [
        ("slow", "ttft_p95>10%", "not met", "beyond the limit"),
        ("slow", "ttft_p95>500%", "met", "within the limit"),
        ("same", "ttft_p95<0%", "not decided", "the interval contains 0"),
        ("same", "ttft_p95>5%", "not decided", "the interval contains the limit"),
        ("same", "schema_valid<-2pp", "met", "+0.0 pp"),
        ("wrong", "schema_valid<-2pp", "not met", "-50 pp"),
        ("slow", "ttft_p99.9>10%", "not decided", "needs 3688 requests"),
        ("slow", "ttft_p100>10%", "not decided", "the extreme of a sample has no interval"),
        ("slow", "goodput<0%", "not decided", "neither side has this figure"),
        ("broken", "ttft_p50>10%", "not met", "beyond the limit"),
        ("broken", "schema_valid<-2pp", "not decided", "B is interrupted"),
        ("loaded", "ttft_p50>10%", "not decided", "not comparable: load.concurrency: 1 → 4"),
        ("slow", "tool_calls_right<-1pp", "not decided", "neither side has this figure"),
    ],
)  # fmt: skip
def test_a_change_is_judged_by_its_whole_interval(reader: Reader, b: str, change: str, outcome: str, text: str) -> None:
    result = compared(reader, "plain", b, change)
    (gate,) = result.gates
    assert (gate.outcome, gate.slo) == (outcome, change)
    assert text in gate.text


def test_p_values_are_adjusted_over_all_pairs_together(reader: Reader) -> None:
    result = compared(reader, "plain tools_a", "slow tools_b", "ttft_p50>10%", "correct<-5pp", "ttft_p50>1s")
    assert [[row.metric.name for row in each.rows[:3]] for each in result.comparisons] == [
        ["ttft_p50", "correct", "ttft_p95"]
    ] * 2
    sizes = []
    for gated in (False, True):
        family = [row for each in result.comparisons for row in each.rows if row.gated is gated and row.difference]
        p_values = [row.difference.p_value for row in family if row.difference is not None]
        assert [row.adjusted_p for row in family] == holm(p_values)
        sizes.append(len(family))
    assert [result.tested, result.gated] == sizes
    assert result.gated == 4, "two metrics of two pairs"
    assert [(gate.cell, gate.slo, gate.outcome) for gate in result.gates] == [
        (cell, *judged)
        for cell in ("m:1b json c=1", "m:1b tools c=1")
        for judged in (("ttft_p50>10%", "not met"), ("correct<-5pp", "met"), ("ttft_p50>1s", "met"))
    ]


def test_what_fail_on_names_is_a_family_of_its_own(reader: Reader) -> None:
    plain, gated = compared(reader, "plain", "slow"), compared(reader, "plain", "slow", "ttft_p95>10%", "correct<-1pp")
    assert (plain.tested, gated.tested, gated.gated) == (15, 13, 2)
    for result in (plain, gated):
        for row in rows(result).values():
            if row.difference is not None:
                assert row.adjusted_p is not None
                assert row.adjusted_p >= row.difference.p_value
    row = rows(gated)["ttft_p95"]
    assert row.difference is not None
    assert row.adjusted_p == pytest.approx(2 * row.difference.p_value)


@pytest.mark.parametrize("name", [*sorted(NAMES), "ttft_due_mean", "e2e_due_p90"])
def test_less_is_better_of_times_and_errors_and_worse_of_all_else(name: str) -> None:
    less = name.startswith(("ttft", "first_answer", "itl", "tpot", "e2e", "error"))
    for change in (-0.1, 0.1):
        row = figures(name, 1.0, 1.0 + change, adjusted_p=0.05)
        assert row.word == ("better" if (change < 0) is less else "worse")
        assert replace(row, adjusted_p=0.0501).word == "no detectable difference"
        assert replace(row, adjusted_p=None).word == "no detectable difference", "not yet adjusted"
    assert figures(name, 1.0, None).word == "not comparable"
    assert replace(figures(name, 1.0, None), untested="too few").word == "too few"


def figures(name: str, a: float | None, b: float | None, n: tuple[int, int] = (40, 30), **more: Any) -> Compared:
    metric = metric_of(name)
    assert metric is not None
    found = None if a is None or b is None else Difference(a, b, (b - a) / 2, (b - a) * 2, 0.001, "by hand")
    return Compared(metric, a, b, *n, found, **more)


NONE = figures("ttft_p50", None, None, (0, 0))
SLOWER = figures("ttft_p50", 1.0, 1.2)
SURE = "+20 % (+10 … +40 %)"
OPEN = f"{SURE}: the interval contains the limit: only more requests or runs can tell"


@pytest.mark.parametrize(
    ("row", "change", "sides", "completed", "outcome", "text"),
    [
        (SLOWER, "ttft_p50>5%", {}, (9, 9), "not met", f"{SURE}: the whole interval is beyond the limit"),
        (SLOWER, "ttft_p50>5%", {"a": {"status": "interrupted"}}, (9, 9), "not met",
         f"{SURE}: the whole interval is beyond the limit"),
        (SLOWER, "ttft_p50>0.05s", {}, (9, 9), "not met", f"{SURE}: the whole interval is beyond the limit"),
        (SLOWER, "ttft_p50>30%", {}, (9, 9), "not decided", OPEN),
        (SLOWER, "ttft_p50<-5%", {}, (9, 9), "met", f"{SURE}: the whole interval is within the limit"),
        (SLOWER, "ttft_p50>50%", {}, (9, 9), "met", f"{SURE}: the whole interval is within the limit"),
        (SLOWER, "ttft_p50>50%", {"b": {"status": "interrupted"}}, (9, 9), "not decided",
         f"{SURE}; but B is interrupted"),
        (SLOWER, "ttft_p50>50%", {"a": {"verdict": "invalid"}, "b": {"status": "running"}}, (9, 9), "not decided",
         f"{SURE}; but A is invalid and B is running"),
        (SLOWER, "ttft_p50>50%", {"a": {"verdict": "degraded"}}, (9, 0), "not decided",
         f"{SURE}; but B completed no request"),
        (figures("ttft_p50", None, 1.2), "ttft_p50>1s", {}, (9, 9), "not decided", "A does not have this figure"),
        (figures("ttft_p50", 1.0, None), "ttft_p50>1s", {}, (9, 9), "not decided", "B does not have this figure"),
        (replace(SLOWER, difference=None, why="needs 20 requests"), "ttft_p50>1s", {}, (9, 9), "not decided",
         "needs 20 requests"),
        (NONE, "ttft_p50>1s", {}, (9, 9), "skip", "does not apply: neither side has this figure"),
        (NONE, "ttft_p50>1s", {}, (0, 9), "not decided", "neither side has this figure; but A completed no request"),
        (figures("error_rate", 0.2, 0.0), "error_rate>0pp", {}, (9, 9), "met",
         "-20 pp (-10 … -40 pp): B is as good as can be"),
        (figures("correct", 0.9, 1.0), "correct<-1pp", {}, (9, 9), "met",
         "+10 pp (+5.0 … +20 pp): B is as good as can be"),
    ],
)  # fmt: skip
def test_what_a_gate_says_of_a_pair(
    reader: Reader, row: Compared, change: str, sides: dict[str, Any], completed: tuple[int, int], outcome: Any,
    text: str,
) -> None:  # fmt: skip
    (plain,) = run_groups(reader, ["plain"], pool=True)
    held = Pair(replace(plain, **sides.get("a", {})), replace(plain, **sides.get("b", {})), ())
    rate = figures("requests_per_s", 1.0, 1.0, completed)
    settled = Comparison(
        Pair(plain, plain, ()), (replace(SLOWER, metric=row.metric), figures("requests_per_s", 1.0, 1.0)), ()
    )
    gate, _ = judge_changes([Comparison(held, (row, rate), ()), settled], [], [parse_change(change)])
    value = None if row.difference is None else row.difference.value
    told = 0 if row is NONE else 30
    assert gate == Gate("m:1b json c=1", change, outcome, value, told, text)


def test_nothing_to_compare_is_no_silent_pass(reader: Reader) -> None:
    result = compared(reader, "plain", "", "ttft_p95>10%")
    why = "no counterpart in B: measure it there, or exclude it with --only"
    assert result.gates == (Gate("m:1b json c=1", "ttft_p95>10%", "not decided", None, 0, why),)
    assert compared(reader, "", "plain", "ttft_p95>10%").gates == (
        Gate("A → B", "ttft_p95>10%", "not decided", None, 0, "A has no cells"),
    )


@pytest.mark.slow
def test_a_cell_that_b_lacks_is_no_silent_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tools = config(suite="tools")
    path = database(
        tmp_path / "s.duckdb", j=RUNS["plain"], t=(requests(), {"used": tools, "label": "before"}), k=RUNS["same"]
    )
    assert command(path, "before", "after", "--fail-on", "correct<-5pp") == 99
    out = capsys.readouterr().out
    assert "met: m:1b json c=1: correct<-5pp: " in out
    assert "not decided: m:1b tools c=1: correct<-5pp: no counterpart in B" in out
    assert command(path, "before", "after", "--only", "suite=json", "--fail-on", "correct<-5pp") == 0
    assert command(path, "after", "before", "--fail-on", "correct<-5pp") == 0, (
        "what is new in B is held against nothing"
    )


@pytest.mark.parametrize(
    ("verdict", "doubt"),
    [("invalid", "A is invalid and B is invalid"), ("valid", "A completed no request and B completed no request")],
)
def test_where_nothing_completed_no_gate_is_skipped(tmp_path: Path, verdict: str, doubt: str) -> None:
    nothing = (requests(failed=range(80)), {"verdict": verdict})
    tools = config(suite="tools")
    path = database(tmp_path / "s.duckdb", a=nothing, b=nothing, c=(requests(), {"used": tools}),
                    d=(requests(seed=1), {"used": tools}))  # fmt: skip
    with Reader(path) as reader:
        failed, fine = compared(reader, "a c", "b d", "correct<-5pp").gates
    assert (failed.outcome, failed.text) == ("not decided", f"neither side has this figure; but {doubt}")
    assert fine.outcome == "met"


def test_the_same_data_give_the_same_text(reader: Reader) -> None:
    assert markdown(compared(reader, "plain", "slow")) == markdown(compared(reader, "plain", "slow"))


def test_markdown_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    evil = config(model="<img src=x onerror=alert(1)>|[a](b)")
    path = database(tmp_path / "s.duckdb", a=([], {"used": evil}), b=([], {"used": evil, "label": "x|y\n# z"}))
    with Reader(path) as reader:
        text = markdown(compared(reader, "a", "b"))
    assert "<img" not in text.replace("\\<", "")
    assert "\n# z" not in text
    assert not re.search(r"(?<!\\)\[a", text)


def test_changes_are_in_parts_of_a_or_in_points(reader: Reader) -> None:
    found = rows(compared(reader, "plain", "wrong"))
    assert change_text(found["correct"]) == "-50 pp"
    assert re.fullmatch(r"-\d\d … -\d\d pp", interval_text(found["correct"]))
    assert change_text(rows(compared(reader, "plain", "slow"))["ttft_p50"]).startswith("+1")
    assert change_text(found["error_rate"]) == "+0.0 pp"
    text = html.unescape(markdown(compared(reader, "plain", "wrong")))
    assert "| correct | 100.0 % | 50.0 % | -50 pp |" in text
    for name, unit in (("ttft_p50", "ms"), ("requests_per_s", r"/s"), ("goodput", None), ("error_rate", " %")):
        assert bool(re.search(rf"^\| {name} \| [\d,.]+ ?{unit} \| [\d,.]+ ?{unit} \| ", text, re.M)) is bool(unit)


def test_json_holds_everything(reader: Reader) -> None:
    told = json.loads(json.dumps(to_json(compared(reader, "plain", "slow", "ttft_p95>10%"))))
    (each,) = told["pairs"]
    assert (each["a"]["runs"], each["b"]["runs"], each["not_comparable"]) == (["plain"], ["slow"], [])
    by_name = {row["metric"]: row for row in each["metrics"]}
    row = by_name["ttft_p95"]
    assert row["low"] < row["difference"] < row["high"]
    assert row["difference"] == pytest.approx(row["b"] - row["a"])
    assert row["b_is"] == "worse"
    assert re.match(
        r"m:1b json c=1: B is worse in .*ttft_p50 \(\+\d+ %\).*; no difference was detected in", each["answer"]
    )
    assert told["fail_on"][0]["outcome"] == "not met"
    assert told["tests"] == {"exploring": 14, "fail_on": 1, "adjusted_by": "Holm"}


def command(db: Path, *argv: str) -> int:
    return main(["compare", *argv, "--db", str(db)])


@pytest.mark.slow
def test_the_command_prints_a_table_and_the_exit_code_tells(
    db: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "130")
    assert command(db, "plain", "slow") == 0
    out = capsys.readouterr().out
    assert re.search(r"^ttft_p50 +[\d.]+ ms +[\d.]+ ms +\+\d+ % .* worse", out, re.M)
    assert "adjusted by Holm's method for 15 tests" in out
    assert command(db, "plain", "slow", "--fail-on", "ttft_p95>10%") == 99
    assert "NOT MET: m:1b json c=1: ttft_p95>10%: " in capsys.readouterr().out
    assert command(db, "label=before", "after", "--fail-on", "ttft_p95>50%", "schema_valid<-2pp") == 0
    assert command(db, "plain", "loaded") == 0
    out = capsys.readouterr().out
    assert "not comparable: load.concurrency: 1 → 4" in out
    assert "to compare anyway, add --across load" in out


@pytest.mark.parametrize("kind", ["terminal", "markdown", "json"])
@pytest.mark.slow
def test_the_command_writes_a_file_whole(db: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out"
    assert command(db, "plain", "slow", "--format", kind, "-o", str(path)) == 0
    text = path.read_text()
    assert "worse" in text
    assert (kind == "markdown") is text.startswith("# Comparison\n")
    if kind == "json":
        json.loads(text)


@pytest.mark.slow
def test_two_files_are_compared(db: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = database(tmp_path / "other.duckdb", elsewhere=RUNS["slow"])
    baseline = database(tmp_path / "baseline.duckdb", then=RUNS["plain"])
    assert main(["compare", str(baseline), str(other), "--format", "json", "--fail-on", "ttft_p50>10%"]) == 99
    (each,) = json.loads(capsys.readouterr().out)["pairs"]
    assert (each["a"]["runs"], each["b"]["runs"]) == (["then"], ["elsewhere"])
    assert command(db, str(baseline), "slow", "--only", "suite=json") == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["plain", "plain"], "both include run plain: choose two that share no run"),
        (["plain", "pain"], "did you mean plain"), (["plain"], "give b too"),
        (["plain", "slow", "--fail-on", "ttft_p95>10"], '--fail-on "ttft_p95>10", at the end: expected the unit %'),
        (["plain", "slow", "--goodput", "tft<1"], "did you mean ttft?"),
        (["plain", "slow", "--across", "structure"], "did you mean structured"),
        (["plain", "slow", "-o", "/nowhere/x"], "-o /nowhere/x: the folder /nowhere does not exist"),
        (["plain", "slow", "--only", "label=slow"], "plain has no run that matches --only label=slow"),
        (["plain", "nothere.duckdb"], "nothere.duckdb does not exist"),
        (["plain", "slow", "--format", "html"], "--format"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_2(
    db: Path, argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(db, *argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1


def test_no_suite_in_common(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = database(tmp_path / "s.duckdb", a=([], {}), b=([], {"used": config(suite="tools")}))
    assert command(path, "a", "b") == 2
    assert "A and B have no suite in common: A has m:1b json c=1; B has m:1b tools c=1" in capsys.readouterr().err
    assert command(path, "a", "b", "--fail-on", "ttft_p95>10%") == 99


def test_the_database_is_not_written_over(db: Path) -> None:
    before = db.read_bytes()
    assert command(db, "plain", "slow", "-o", str(db)) == 2
    assert db.read_bytes() == before


def test_no_file_that_is_read_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (database(tmp_path / name, run=RUNS[run]) for name, run in (("a.duckdb", "plain"), ("b", "slow")))
    before = [path.read_bytes() for path in (a, b)]
    for path in (a, b):
        assert main(["compare", str(a), str(b), "-o", str(path), "--format", "markdown"]) == 2
        assert f"-o {path} is the database itself" in capsys.readouterr().err
    assert [path.read_bytes() for path in (a, b)] == before


def test_every_option_says_what_it_is_for() -> None:
    from dataclasses import fields

    assert all(len(field.metadata["help"]) > 5 for field in fields(Options))


def test_the_example_in_the_docs_is_what_the_command_writes() -> None:
    text = (ROOT / "docs/examples/comparison.md").read_text()
    assert text.startswith("# Comparison\n\n## ")
    table = re.findall(r"^\| (\S+) \| .* \| (.+?) \|$", text, re.M)
    names = {html.unescape(name).replace("\\", "") for name, _ in table} - {"metric", "---"}
    assert {"ttft_p50", "correct", "requests_per_s"} <= names <= NAMES
    said = {word.split(":")[0] for name, word in table if name not in ("metric", "---")}
    assert said <= {"better", "worse", "no detectable difference", "too few", "not comparable"}
    assert "SIMULATED" not in text


def test_an_undecided_change_comes_with_what_would_tell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the runs kept their command; 4 of 100 wrong against 8 may be a fall by 5 points, and may not."""
    environment = {"system": "Linux", "cores": 2, "command": ["--models", "m:1b", "--suites", "json"]}
    runs = {name: (requests(100, wrong=range(wrong)), {"label": name, "environment": environment})
            for name, wrong in (("before", 4), ("after", 8))}  # fmt: skip
    path = database(tmp_path / "a.duckdb", **runs)
    assert main(["compare", "before", "after", "--db", str(path), "--fail-on", "correct<-5pp"]) == 99
    told = capsys.readouterr()
    text = " ".join((told.out + told.err).split())
    assert re.search(r"about [\d,]+ requests would tell, for A \([^)]+ there\): structbench load --models m:1b "
                     r"--suites json --skip-cached --requests \d+; about", text), text  # fmt: skip
