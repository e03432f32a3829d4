"""What two scrapes show: rates of the window, percentiles within it, cells that run and that have ended."""

from __future__ import annotations

import pytest

from structbench.watch import snapshot as module
from structbench.watch.endpoint import CellKey
from structbench.watch.snapshot import CellSnapshot, snapshot_of
from tests.support.expositions import BOUNDS, CELL, exposition, scrape
from tests.support.loads import ROOT

FAST, SLOW = 0.05, 0.5
"""In the buckets up to 0.11 and up to 1."""


def one(*scrapes: str, every_s: float = 10.0) -> CellSnapshot:
    """The only cell, after scrapes 10 s apart."""
    read = [scrape(i * every_s, text) for i, text in enumerate(scrapes)]
    (cell,) = snapshot_of(read[-1], read[:-1]).cells
    return cell


def test_rates_are_of_the_window() -> None:
    cell = one(exposition(latencies=[FAST] * 100), exposition(latencies=[FAST] * 130, in_flight=4))
    assert (cell.done, cell.requests_per_s, cell.tokens_per_s) == (130, 3.0, 30.0)


def test_no_tokens_per_s_are_shown_where_some_answers_came_without_a_count() -> None:
    cell = one(exposition(latencies=[FAST] * 100), exposition(latencies=[FAST] * 130, in_flight=4, uncounted=15))
    assert (cell.requests_per_s, cell.tokens_per_s) == (3.0, None)


def test_requests_that_the_model_failed_need_no_count() -> None:
    cell = one(exposition(latencies=[FAST] * 100), exposition(latencies=[FAST] * 130, in_flight=4, rejected=10))
    assert (cell.done, cell.requests_per_s, cell.tokens_per_s) == (140, 4.0, 30.0)


def test_percentiles_are_of_the_window_and_not_of_what_was_before() -> None:
    cell = one(exposition(latencies=[FAST] * 100), exposition(latencies=[FAST] * 100 + [SLOW] * 10, in_flight=1))
    for of in (cell.ttft, cell.itl, cell.e2e):
        assert of.p50 is not None
        assert BOUNDS[1] < of.p50 <= BOUNDS[2]


def test_where_nothing_came_in_the_window_the_run_so_far_stands() -> None:
    text = exposition(latencies=[FAST] * 9, in_flight=1)
    cell = one(text, text)
    assert cell.ttft.p50 is not None
    assert cell.ttft.p50 <= BOUNDS[1]
    assert cell.requests_per_s == 0.0


def test_one_reading_tells_no_rate() -> None:
    cell = one(exposition(latencies=[FAST], in_flight=1))
    assert (cell.requests_per_s, cell.tokens_per_s) == (None, None)
    assert cell.ttft.p50 is not None


def test_a_cell_that_has_just_begun_is_measured_from_there() -> None:
    other = exposition(CellKey("m", "text", "c=1"), latencies=[FAST])
    old, before = scrape(0, other), scrape(9, other)
    now = scrape(10, other, exposition(latencies=[FAST] * 5, in_flight=2))
    assert {cell.key: cell.requests_per_s for cell in snapshot_of(now, [old, before]).cells}[CELL] == 5.0


def test_a_load_that_was_started_again_counts_from_zero() -> None:
    cell = one(exposition(latencies=[SLOW] * 50), exposition(latencies=[FAST] * 20, in_flight=1))
    assert cell.requests_per_s == 2.0
    assert cell.ttft.p95 is not None
    assert cell.ttft.p95 <= BOUNDS[1]


@pytest.mark.parametrize(
    ("before", "now", "state"),
    [
        (exposition(), exposition(in_flight=2), "running"),
        (exposition(latencies=[FAST]), exposition(latencies=[FAST] * 2), "running"),  # between two requests
        (exposition(latencies=[FAST]), exposition(latencies=[FAST] * 2, planned=2), "done"),
        (exposition(latencies=[FAST]), exposition(latencies=[FAST]), "ended"),
        (exposition(latencies=[FAST]), exposition(latencies=[FAST], planned=5), "ended"),
    ],
)
def test_the_state_of_a_cell(before: str, now: str, state: str) -> None:
    assert one(before, now).state == state


def test_correct_is_a_share_of_all_requests_and_errors_have_their_kinds() -> None:
    cell = one(exposition(latencies=[FAST] * 8, correct=6, errors={"timeout": 1, "503": 1}, verdict=1))
    assert (cell.share_correct, cell.errors, cell.verdict) == (0.6, {"timeout": 1, "503": 1}, "degraded")
    assert one(exposition()).share_correct is None
    assert one(exposition()).verdict is None


def test_client_and_server_are_those_of_the_cell_that_runs() -> None:
    gauges = {module.CPU: 1.5, module.MEMORY: 2e8, module.WORKERS: 2, module.BACKLOG: 7, module.MODEL_SIZE: 1.6e9}
    shown = snapshot_of(scrape(0, exposition(in_flight=1, more=gauges)))
    assert (shown.client.cores, shown.client.workers, shown.client.backlog) == (1.5, 2, 7)
    assert shown.client.loop_lag_s is None
    assert shown.server is not None
    assert (shown.server.model, shown.server.size_bytes, shown.server.vram_share) == ("llama3.2:1b", 1.6e9, None)
    assert shown.states == {"running": 1}
    ended = snapshot_of(scrape(0, exposition(more=gauges)))
    assert ended.server is None


def test_the_names_are_those_of_the_documentation() -> None:
    names = {value for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    documented = (ROOT / "docs/live-metrics.md").read_text()
    assert len(names) > 15
    assert [name for name in names if f"`{name}`" not in documented] == []
