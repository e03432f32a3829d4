"""A closed loop that was never as full as asked for is said to be so."""

from __future__ import annotations

from pathlib import Path

from structbench.notes import notes_of
from structbench.store import Store
from tests.support.reports import request, run


def kinds(path: Path, at: list[tuple[float, float]], **more: object) -> list[str]:
    """The notes on a run of four places, with requests from and to these seconds."""
    with Store(path) as store:
        store.append("runs", run("r", concurrency=4, **more))
        for index, (sent, ended) in enumerate(at):
            store.append("requests", request("r", index, sent_ns=int(sent * 1e9), end_ns=int(ended * 1e9)))
        return [note.text for note in notes_of(store.query, "r") if note.kind == "load_not_reached"]


def test_a_load_that_was_never_full_is_said_to_be_a_lighter_one(tmp_path: Path) -> None:
    (text,) = kinds(tmp_path / "a.duckdb", [(0, 3), (1, 3), (2, 3), (3, 4)], planned=4)
    assert text.startswith("at most 3 of 4 requests were in flight")
    assert "--requests 16" in text


def test_a_load_that_was_full_for_a_moment_was_reached(tmp_path: Path) -> None:
    assert kinds(tmp_path / "a.duckdb", [(0, 3), (1, 3), (1, 3), (2.9, 4)], planned=4) == []


def test_a_stream_that_the_server_held_was_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    at = [(0, 2), (1, 2), (2, 3), (2.5, 4)]
    assert kinds(path, at, planned=4)
    with Store(path) as store:
        store.append("runs", run("s", concurrency=4, planned=4))
        for index, (sent, ended) in enumerate(at):
            store.append("requests", request("s", index, sent_ns=int(sent * 1e9), end_ns=int(ended * 1e9), held_s=2.0))
        assert [note.kind for note in notes_of(store.query, "s") if note.kind == "load_not_reached"] == []


def test_nothing_is_said_of_a_run_without_all_its_requests(tmp_path: Path) -> None:
    assert kinds(tmp_path / "a.duckdb", [(0, 3), (1, 3)], planned=4) == []
