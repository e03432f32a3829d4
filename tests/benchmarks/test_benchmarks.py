"""The benchmarks' own arithmetic: a wrong table would be believed."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from contextlib import nullcontext
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from tests.support.paths import ROOT

sys.path.insert(0, str(ROOT))  # benchmarks/ is not installed

from benchmarks import machine, results, scoring, telemetry, timing
from benchmarks.__main__ import benchmarks, parser, undisturbed
from benchmarks.baseline import measure as measure_plain_client
from benchmarks.machine import TreeSample, Usage
from benchmarks.servers import ServerTiming, Timetable, arguments_of, serve, truth_of_stats
from benchmarks.table import Figure, lines, markdown, number
from benchmarks.timing import ANSWERS, SCENARIOS, STREAM, Scenario, plain_figures
from structbench.results.verify import problems
from structbench.scoring import score
from structbench.store import Reader
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape


def figure(value: float, name: str = "lag", at_most: float | None = None, at_least: float | None = None) -> Figure:
    return Figure(benchmark="open loop", name=name, value=value, unit="ms", at_most=at_most, at_least=at_least)


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_every_command_can_be_imported(path: Path) -> None:
    """None is run by the fast tests: one that names what is no longer there would be found by who needs it."""
    import_module(f"benchmarks.{path.stem}")


def usage(*samples: TreeSample) -> Usage:
    return Usage(
        started_ns=0, wall_s=1.0, cpu_s=2.0, others_cores=0.0, samples=samples, exit_code=0, output=""
    )  # fmt: skip


@pytest.mark.parametrize(
    ("limits", "value", "met"),
    [
        ({"at_most": 1.0}, 1.0, True),
        ({"at_most": 1.0}, 1.01, False),
        ({"at_least": 42.5}, 42.5, True),
        ({"at_least": 42.5}, 42.4, False),
        ({"at_most": 0.0}, 0.1, False),
        ({}, 5.0, None),
    ],
)
def test_a_target_is_missed_on_its_own_side(limits: dict[str, float], value: float, met: bool | None) -> None:
    assert figure(value, **limits).is_met_by(value) is met


def test_the_median_counts_not_the_best_nor_the_mean() -> None:
    (line,) = lines([[figure(9.0)], [figure(1.0)], [figure(2.0)]])
    assert line.middle == 2.0
    assert line.cells[2:4] == ("2.00 ms", "1.00 to 9.00")


def test_figures_of_one_name_in_two_benchmarks_stay_apart() -> None:
    other = Figure(benchmark="closed loop", name="lag", value=7.0)
    assert [line.values for line in lines([[figure(1.0), other], [figure(3.0), other]])] == [(1.0, 3.0), (7.0, 7.0)]


def test_the_table_shows_targets_and_says_what_is_missed() -> None:
    table = markdown(lines([[figure(2.0, at_most=1.0), figure(50.0, "rate", at_least=42.5), figure(3.0, "p50")]]))
    assert table.splitlines() == [
        "### open loop",
        "",
        "| figure | target    | median  | range |            |",
        "|--------|-----------|---------|-------|------------|",
        "| lag    | ≤ 1.00 ms | 2.00 ms |       | **missed** |",
        "| rate   | ≥ 42.5 ms | 50.0 ms |       | met        |",
        "| p50    |           | 3.00 ms |       |            |",
    ]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (0.0018, "0.0018"), (-0.127, "-0.13"), (9.99, "9.99"), (42.5, "42.5"),
                        (-100.4, "-100"), (14587.6, "14,588")]
)  # fmt: skip
def test_numbers_are_short_without_hiding_their_size(value: float, text: str) -> None:
    assert number(value) == text


def test_the_ideal_counts_gaps_not_tokens() -> None:
    scenario = Scenario(name="x", concurrency=32)
    assert scenario.ideal_per_s(0.1) == pytest.approx(32 / 0.73)
    assert Scenario(name="x", rate=200.0).ideal_per_s(0.1) == 200.0


def test_each_stream_of_a_closed_loop_gets_as_many_requests_as_the_others() -> None:
    assert Scenario(name="x", concurrency=32).count(10.0) == 32 * 14
    assert Scenario(name="x", concurrency=128).count(0.1) == 128
    assert Scenario(name="x", rate=200.0).count(10.0) == 2000
    assert Scenario(name="x", concurrency=4, requests=20_000).count(10.0) == 20_000


def test_processor_time_before_the_load_is_that_of_the_last_sample_before_it() -> None:
    used = usage(TreeSample(10, 0.5, 100), TreeSample(20, 0.9, 300), TreeSample(30, 1.5, 200))
    assert used.cpu_before_s(25) == 0.9
    assert used.cpu_before_s(5) == 0.0
    assert used.rss_max_bytes == 300


def test_memory_is_compared_between_thirds_of_the_load_only() -> None:
    samples = [(0, 9000), (10, 100), (19, 110), (20, 900), (35, 400), (40, 9000)]
    used = usage(*(TreeSample(at, 0.0, rss) for at, rss in samples))
    assert used.rss_thirds(10, 40) == [[100, 110], [900], [400]]
    with pytest.raises(ValueError, match="too short"):
        used.rss_thirds(36, 40)


def test_a_command_is_measured_with_its_children_and_its_exit_code() -> None:
    child = "sum(range(2_000_000))"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print('done'); sys.exit(3)"
    used = machine.run([sys.executable, "-c", code])
    alone = machine.run([sys.executable, "-c", "pass"])
    assert (used.exit_code, used.output) == (3, "done\n")
    assert used.cpu_s > alone.cpu_s


def test_stats_of_the_truth_server_are_read_as_seconds() -> None:
    ttft = {"p50": 100.05, "p90": 101.0, "p99": 102.5, "max": 110.0}
    at = {"first_request_monotonic_s": 12.5}
    assert truth_of_stats({"completed": 7, "ttft_ms": ttft, **at}) == ServerTiming(
        requests=7, ttft_p50_s=0.10005, ttft_p99_s=0.1025, first_ns=12_500_000_000
    )


def test_the_truth_server_is_told_milliseconds() -> None:
    assert arguments_of(Timetable(ttft_s=0.1, itl_s=0.0125, tokens=64), 99) == ["99", "100", "12.5", "64"]


def test_the_plain_client_s_error_is_against_the_server_s_own_figures() -> None:
    found = {"ttft_p50_s": 0.5, "ttft_p99_s": 0.8, "requests_per_s": 101.0, "tokens": 1000.0}
    figures = plain_figures(found, ServerTiming(requests=9, ttft_p50_s=0.1, ttft_p99_s=0.2, first_ns=0), 0.13)
    assert figures == {
        "TTFT p50, off by": pytest.approx(400.0),
        "TTFT p99, off by": pytest.approx(600.0),
        "requests/s": 101.0,
        "processor time per token, all": pytest.approx(130.0),
    }


def test_the_suite_that_keeps_the_scorer_busy_is_a_sound_suite() -> None:
    suite = load_suite(str(ANSWERS), text=TextShape(), seed=0)
    assert [case.kind for case in suite.cases] == ["json"]


def test_a_run_that_others_disturbed_is_run_again_but_not_for_ever() -> None:
    def runs(*others: float) -> list[Figure]:
        left = iter(others)
        return undisturbed(lambda: [Figure(benchmark="x", name=timing.OTHERS, value=next(left))], tries=3)

    assert runs(0.0)[0].value == 0.0
    assert runs(0.9, 0.1)[0].value == 0.1
    assert runs(0.9, 0.8, 0.7)[0].value == 0.7


def test_every_benchmark_can_be_chosen_by_its_name() -> None:
    names = list(benchmarks(parser().parse_args([])))
    assert len(names) == len(set(names)) == len(SCENARIOS) + 8
    assert {scenario.name for scenario in SCENARIOS} < set(names)


def test_watched_and_unwatched_loads_take_turns_and_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each watched load here takes 3 s where an unwatched one takes 2, and stores its TTFT 0.05 ms later."""
    given: list[tuple[str, ...]] = []

    def timed(
        _scenario: object, _seconds: float, _server: object, *more: str
    ) -> tuple[Usage, dict[str, float], ServerTiming]:
        given.append(more)
        watched = "--otlp" in more
        if watched:
            body = urllib.request.Request(more[more.index("--otlp") + 1] + "/v1/traces", data=b"x")
            assert urllib.request.urlopen(body, timeout=5).status == 200
        facts = {"tokens": 1e6, "ttft_p50_s": 0.10005 if watched else 0.1}
        return (
            replace(usage(), cpu_s=3.0 if watched else 2.0),
            facts,
            ServerTiming(requests=1, ttft_p50_s=0.1, ttft_p99_s=0.1, first_ns=0),
        )

    monkeypatch.setattr(telemetry, "timed_load", timed)
    monkeypatch.setattr(telemetry, "settle", lambda: None)
    monkeypatch.setattr(telemetry, "serve", lambda *_: nullcontext())
    figures = {figure.name: figure.value for figure in telemetry.measure(1.0, None)}
    assert ["--otlp" in more for more in given] == [False, True, True, False]
    assert [more[:2] == ("--metrics-port", "0") for more in given] == [True, False, False, True]
    assert figures["processor time, on / off"] == 1.5
    assert figures["processor time per token, off"] == 2.0
    assert figures["TTFT p50, on - off"] == pytest.approx(0.05)


@pytest.mark.slow
def test_a_whole_run_against_the_simulator_gives_every_figure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small and as it comes: no figure's value is looked at, only that each can be had."""
    monkeypatch.setattr(machine, "wait_until_quiet", lambda _limit: True)
    quick = Scenario(name="smoke", timetable=Timetable(ttft_s=0.02, itl_s=0.005, tokens=4), tokens=4, concurrency=2,
                     requests=8, suite=str(ANSWERS), baseline=True, cpu_us_per_token=130.0)  # fmt: skip
    figures = timing.measure(quick, 1.0, None)
    names = [figure.name for figure in figures]
    assert len(names) == len(set(names))
    assert {"TTFT p50, off by", "requests/s", "processor time per token, all", "first request after the command",
            "plain client: requests/s", "resident memory, all processes"} <= set(names)  # fmt: skip
    assert all(json.dumps(figure.value, allow_nan=False) for figure in figures)


@pytest.mark.slow
def test_the_large_file_is_as_a_load_would_have_left_it(tmp_path: Path) -> None:
    results.build(tmp_path / "small.duckdb", runs=3, requests=100)
    with Reader(tmp_path / "small.duckdb") as reader:
        assert list(problems(reader)) == []
        (row,) = reader.query("SELECT count(*) AS n, sum(gaps)::BIGINT AS gaps FROM kept_gaps")
        assert row == {"n": 3, "gaps": 3 * 100 * 59}


def test_the_simulator_keeps_the_timetable_it_is_given() -> None:
    with serve(STREAM, None) as server:
        server.forget()
        asyncio.run(measure_plain_client(server.url, server.model, "text", 2, 4, 3))
        truth = server.truth()
    assert truth.requests == 4
    assert 0.0 < truth.ttft_p50_s <= truth.ttft_p99_s


def test_scoring_is_measured_with_right_fenced_and_broken_answers() -> None:
    outcomes = [result.outcome for case, answer in scoring.work(1) if (result := score(case, answer)) is not None]
    assert len(outcomes) == 3 * (82 + 88)
    assert set(outcomes[::3]) == {"correct"}
    assert {"invalid_json", "schema_violation", "no_call", "wrong_count"} & set(outcomes[1::3] + outcomes[2::3])
    assert outcomes[1::3].count("correct") < 20
