"""Words of a command line mean runs: each by one meaning only, and a mistyped one is told its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from structbench.errors import BadInput
from structbench.results.selection import restricted, select_runs
from structbench.store import Reader, Store

RUNS = (
    # run id, label, model, suite, server version, config hash, started
    ("20260101T000000-aaaa", "nightly", "smollm2:360m", "json", "0.5.4", "s1:abcd11", "2026-01-01"),
    ("20260103T000000-bbbb", "nightly", "gemma3n", "json", "0.6.0", "s1:abcd22", "2026-01-03"),
    ("20260102T000000-cccc", "tools", "smollm2:360m", "tools", "0.6.0", "s1:ef0033", "2026-01-02"),
    ("odd", "text", "gemma3n:latest", "text", "0.6.0", "s1:ef0033", None),
)
A, B, C, ODD = (run[0] for run in RUNS)


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = tmp_path_factory.mktemp("selection") / "db.duckdb"
    names = ("run_id", "label", "model", "suite", "server_version", "config_hash", "started_at")
    with Store(path) as store:
        for run in RUNS:
            store.append("runs", {**dict(zip(names, run, strict=True)), "concurrency": 4 if run[0] == A else None})
    with Reader(path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        ("", [ODD, A, C, B]),
        (A, [A]),
        ("20260103", [B]),
        ("odd", [ODD]),
        ("nightly", [A, B]),
        ("smollm2:360m", [A, C]),
        ("gemma3n", [ODD, B]),
        ("gemma3n:latest", [ODD, B]),
        ("json", [A, B]),
        ("0.5.4", [A]),
        ("s1:abcd22", [B]),
        ("s1:ef00", [ODD, C]),
        ("ef00", [ODD, C]),
        ("version=0.6.0", [ODD, C, B]),
        ("label=tools", [C]),
        ("suite=text model=smollm2:360m", [ODD, A, C]),
        ("nightly 20260101", [A, B]),
        ("text", [ODD]),
        ("c=4", [A]),
        ("load=c=4 20260103", [A, B]),
    ],
)
def test_a_word_selects_runs_newest_last(reader: Reader, words: str, chosen: list[str]) -> None:
    assert select_runs(reader, words.split()) == chosen


def test_what_restricts_asks_for_a_word_of_each_key(reader: Reader) -> None:
    assert restricted(reader, ["suite=json", "model=gemma3n"]) == {B}
    assert restricted(reader, ["suite=json", "suite=tools", "model=smollm2:360m"]) == {A, C}
    assert restricted(reader, ["suite=tools", "load=c=4"]) == set()
    assert restricted(reader, ["nightly", "suite=json"]) == {A, B}
    assert restricted(reader, []) == {A, B, C, ODD}


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("nighly", r"no run, label, model, suite, load, server, version or API 'nighly': did you mean nightly\?"),
        ("label=tool", r"no run has label 'tool': did you mean tools\?"),
        ("label=zzz", "no run has label 'zzz': there are text, nightly, tools"),
        ("model=smollm2:135m", r"did you mean smollm2:360m\?"),
        ("2026", r"'2026' matches 3 runs \(20260101T000000-aaaa, .*\): type more of it"),
        ("abcd", r"'abcd' matches 2 configs \(s1:abcd11, s1:abcd22\): type more of it"),
        ("", "no run, label"),
        ("ef", "no run, label"),
        ("colour=red", "no run, label.*: there are .*text, .*c=4, .*nightly"),
    ],
)
def test_a_word_that_means_nothing_or_too_much_is_refused_with_what_is_near(
    reader: Reader, word: str, told: str
) -> None:
    with pytest.raises(BadInput, match=told) as caught:
        select_runs(reader, [A, word])
    assert "\n" not in str(caught.value)


def test_a_word_with_two_meanings_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path / "db.duckdb") as store:
        store.append("runs", {"run_id": "1", "label": "json", "suite": "text"})
        store.append("runs", {"run_id": "2", "label": None, "suite": "json"})
    with pytest.raises(BadInput, match="'json' is both a label and a suite: write label=json or suite=json"):
        select_runs(Reader(tmp_path / "db.duckdb"), ["json"])
