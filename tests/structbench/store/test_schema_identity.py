"""A file made before how much is asked for left the identity: it opens, holds, and its work is not done again."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import Any

import pytest

from loadgen.api import ollama_server
from structbench.options import LoadOptions
from structbench.results.verify import problems
from structbench.run import cells
from structbench.store import Reader, Store
from structbench.store.schema import MIGRATIONS, without_amount
from structbench.suites import catalog
from tests.support.loads import load
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

OLD = ROOT / "tests" / "recordings" / "results-schema-2.duckdb.xz"
"""Of structbench 0.1.0, schema 2: text, numbers, json and tools with 4 requests each, numbers and json with 9, numbers
for 0.4 s at 20/s, and turns with 4, on the simulated server (smollm2:360m, c=2, seed 0, one warm-up request)."""
GIVEN: dict[str, Any] = {
    "models": ["smollm2:360m"], "simulate": True, "skip_cached": True, "warmup": 1, "metrics_port": 0,
}  # fmt: skip


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cells, "SCORER_VERSION", 3)  # a later scorer rightly makes cells new
    monkeypatch.setattr(catalog, "TEXT_VERSION", 1)  # as later prompts do
    path = tmp_path / "old.duckdb"
    path.write_bytes(lzma.decompress(OLD.read_bytes()))
    return path


def test_what_was_done_is_skipped_and_nothing_is_sent(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ollama_server, "load_model", lambda *_: pytest.fail("nothing is to be sent"))
    # json and tools have other cases than then, and so are other cells.
    every = {"suites": ["text", "numbers"], "requests": 4, "concurrency": [2]}
    most = {"suites": ["numbers"], "requests": 9, "concurrency": [2]}
    timed = {"suites": ["numbers"], "duration": 0.4, "rate": [20.0]}
    turns = {"suites": ["turns"], "requests": 4}
    for given, n in ((every, 2), (most, 1), (timed, 1), (turns, 1)):
        summary = load(LoadOptions(**GIVEN, **given, db=old))
        assert [row["cache"] for row in summary.rows] == ["skipped"] * n, given
        assert summary.exit_code == 0


def test_runs_that_fall_together_go_on_from_the_largest(old: Path) -> None:
    asked = LoadOptions(**GIVEN, suites=["numbers"], requests=11, concurrency=[2], db=old, dry_run=True)
    (line,) = load(asked).planned
    assert line.endswith("resumed: run 20261126T161622-76fdb317 has 9 of 11 requests")
    (row,) = load(LoadOptions(**GIVEN, suites=["numbers"], requests=11, concurrency=[2], db=old)).rows
    assert (row["run_id"], row["cache"], row["requests"]) == ("20261126T161622-76fdb317", "resumed", 11)


def test_the_migrated_file_holds_and_keeps_what_was_asked_for(old: Path) -> None:
    with Store(old):
        pass
    with Reader(old) as reader:
        assert list(problems(reader)) == []
        asked = reader.query("SELECT suite, asked_requests AS n, asked_duration_s AS s FROM runs ORDER BY started_at")
        hashes = reader.query("SELECT count(DISTINCT config_hash) AS n FROM runs")
        (counted,) = reader.query("SELECT max(version) AS n FROM migrations")
    assert [(row["suite"], row["n"], row["s"]) for row in asked] == [
        ("text", 4, None), ("numbers", 4, None), ("json", 4, None), ("tools", 4, None), ("numbers", 9, None),
        ("json", 9, None), ("numbers", None, 0.4), ("turns", 4, None),
    ]  # fmt: skip
    assert hashes == [{"n": 6}]
    assert counted == {"n": len(MIGRATIONS)}


def test_a_stored_config_loses_what_is_no_identity_and_nothing_else() -> None:
    config = {"suite": "a", "requests": 3, "scorer_version": 3, "load": {"kind": "closed", "duration_s": None}}
    assert without_amount(config, unscored=False) == {"suite": "a", "scorer_version": 3, "load": {"kind": "closed"}}
    assert without_amount(config, unscored=True) == {"suite": "a", "load": {"kind": "closed"}}
    assert without_amount({"suite": "a", "load": None}, unscored=False) == {"suite": "a", "load": None}
