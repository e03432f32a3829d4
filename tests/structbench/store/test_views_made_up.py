"""Every column of every view is what the docs say, on data in which no two of them are alike."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from structbench.cli import main
from structbench.store import Store
from structbench.store.schema import FILE
from tests.support import made_up_rows
from tests.support.made_up_rows import Row


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with made_up_rows.database(tmp_path_factory.mktemp("views") / "s.duckdb") as opened:
        yield opened


def in_order(rows: list[Row]) -> list[Row]:
    """By whatever tells rows of a view apart, columns by name."""
    keys = ("run_id", "request_index", "metric", "adjusted", "outcome", "error_kind", "error_status", "keyword")
    return sorted((dict(sorted(row.items())) for row in rows), key=lambda row: [str(row.get(key)) for key in keys])


def nearly(row: Row) -> Row:
    return {name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in row.items()}


@pytest.mark.parametrize("view", made_up_rows.VIEWS)
def test_a_view_shows_what_the_docs_say(store: Store, view: str) -> None:
    got, want = in_order(store.query(f"FROM {view}")), in_order(made_up_rows.VIEWS[view]())
    assert len(got) == len(want)
    for shown, said in zip(got, want, strict=True):
        for name in {"goodput_limits", "tool_calls"} & shown.keys():  # JSON
            shown[name] = shown[name] and json.loads(shown[name])
        assert shown == nearly(said)


@pytest.mark.parametrize("view", ["summary", "compliance", "run_decomposition", "run_durations", "gap_percentiles"])
def test_no_two_figures_of_a_run_are_alike(view: str) -> None:
    """Else one in the place of the other would go unnoticed."""
    (row,) = (row for row in made_up_rows.VIEWS[view]() if row["run_id"] == "closed")
    row.pop("tool_calls_right", None)  # the earlier name of tool_call_accuracy
    numbers = [value for value in row.values() if isinstance(value, int | float)]
    assert len(numbers) == len(set(numbers)) > 1


def test_gap_percentiles_that_are_kept_are_those_of_the_run(store: Store) -> None:
    rows = made_up_rows.REQUESTS["recorded"]
    store.keep_gaps("recorded")
    (kept,) = store.query("FROM run_gaps WHERE run_id = 'recorded'")
    chunks, gaps = made_up_rows.values(rows, "chunks"), made_up_rows.gaps(rows)
    of = {"run_id": "recorded", "requests": len(rows), "chunks": sum(chunks), "gaps": len(gaps)}
    assert kept == nearly({**of, **made_up_rows.points(gaps)})


def test_no_view_is_left_out(store: Store) -> None:
    shown = store.query(f"SELECT view_name FROM duckdb_views() WHERE NOT internal AND database_name = '{FILE}'")
    assert {row["view_name"] for row in shown} == set(made_up_rows.VIEWS)


def test_the_list_of_runs_counts_as_the_summary_does(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert store.flush()
    assert main(["runs", "--json", "--db", str(store.path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == [
        listed(said) for said in sorted(made_up_rows.summary(), key=lambda said: str(said["started_at"] or ""))
    ]


def listed(said: Row) -> Row:
    run = made_up_rows.RUNS[said["run_id"]]
    names = (
        "run_id", "model", "suite", "load", "planned", "requests", "errors", "scored", "correct", "status", "verdict",
        "verdict_reason", "label", "config_hash",
    )  # fmt: skip
    return {
        **{name: said[name] for name in names}, "server_version": run["server_version"],
        **{name: said[name] for name in ("server_address", *made_up_rows.TOLD)},
        "forgotten": run["forgotten"] is True,
        "notes": [],
        "environment": {},
        "correct": said["correct"] if said["scored"] else said["scored"],  # of none that were scored none was right
        **{name: f"{run[name].isoformat()}+00:00" if run[name] else None for name in ("started_at", "finished_at")},
    }  # fmt: skip
