"""Cells are held against each other only where nothing else differs than what is compared."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from structbench.comparison.comparison import Comparison
from structbench.comparison.pairing import SEVERAL, Pairing, check_fields, pair
from structbench.comparison.render import _remarks
from structbench.errors import BadInput
from structbench.results.groups import RunGroup, run_groups
from structbench.store import Reader
from tests.support.comparisons import config, database

OTHER = {"kind": "closed", "concurrency": 4}
RUNS: dict[str, dict[str, Any]] = {
    "small": {}, "again": {}, "large": {"model": "m:8b", "model_digest": "e"}, "newer": {"server_version": "0.6.0"},
    "newer_large": {"server_version": "0.6.0", "model": "m:8b", "model_digest": "e"}, "loaded": {"load": OTHER},
    "prompted": {"structured": "prompt"}, "prompted_large": {"structured": "prompt", "model": "m:8b"},
    "changed": {"suite_hash": "def"}, "tools": {"suite": "tools"}, "rescored": {"scorer_version": 2},
    "elsewhere": {"server_address": "http://10.0.0.2:11434"},
    "third": {"model": "m:70b", "model_digest": "f"}, "warm": {"options": {"temperature": 0.7}},
    "newer_warm": {"options": {"temperature": 0.7}, "server_version": "0.6.0"},
    "newer_prompted": {"structured": "prompt", "server_version": "0.6.0"},
}  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    runs = {name: ([], {"used": config(**more)}) for name, more in RUNS.items()}
    with Reader(database(tmp_path_factory.mktemp("pairing") / "s.duckdb", **runs)) as opened:
        yield opened


def paired(reader: Reader, a: str, b: str, *across: str) -> Pairing:
    def groups(words: str) -> list[RunGroup]:
        return run_groups(reader, words.split(), pool=True)

    return pair(groups(a), groups(b), across)


def shown(pairing: Pairing) -> list[tuple[str, str]]:
    return [(each.a.run_ids[0], each.b.run_ids[0]) for each in pairing.pairs if not each.blocking]


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        ("small", "again", [("small", "again")]), ("small", "large", [("small", "large")]),
        ("small", "elsewhere", [("small", "elsewhere")]), ("small", "large loaded", []), ("large loaded", "small", []),
        ("small", "newer", [("small", "newer")]), ("small", "newer_large", [("small", "newer_large")]),
        ("small large", "newer newer_large", [("small", "newer"), ("large", "newer_large")]),
        ("small large", "newer", [("small", "newer")]), ("small large", "newer third", [("small", "newer")]),
        ("small loaded", "newer", [("small", "newer")]), ("small", "tools", []),
    ],
)  # fmt: skip
def test_cells_that_differ_in_model_or_server_only(
    reader: Reader, a: str, b: str, pairs: list[tuple[str, str]]
) -> None:
    assert shown(paired(reader, a, b)) == pairs


def test_runs_of_one_config_are_pooled_before(reader: Reader) -> None:
    (each,) = paired(reader, "small again", "newer").pairs
    assert (each.a.run_ids, each.blocking) == (("small", "again"), ())
    assert each.changed == ("server_version: 0.5.4 → 0.6.0",)


@pytest.mark.parametrize(
    ("b", "blocking"),
    [
        ("loaded", "load.concurrency: 1 → 4"), ("prompted", "structured: format → prompt"),
        ("changed", "suite_hash: abc → def"), ("rescored", "scorer_version: 1 → 2"),
        ("warm", "options.temperature: (absent) → 0.7"),
    ],
)  # fmt: skip
def test_what_else_differs_is_named_and_can_be_allowed(reader: Reader, b: str, blocking: str) -> None:
    pairing = paired(reader, "small", b)
    (each,) = pairing.pairs
    assert (each.blocking, pairing.only_a, pairing.only_b) == ((blocking,), (), ())
    (allowed,) = paired(reader, "small", b, blocking.split(":")[0].split(".")[0]).pairs
    assert (allowed.blocking, allowed.changed) == ((), (blocking,))


def test_a_pair_is_named_by_its_cell_and_by_both_models(reader: Reader) -> None:
    for b, name in (("newer", "m:1b json c=1"), ("large", "m:1b → m:8b json c=1"), ("loaded", "m:1b json c=1")):
        (each,) = paired(reader, "small", b).pairs
        assert each.name == name


def test_no_two_pairs_have_one_name(reader: Reader) -> None:
    pairs = paired(reader, "small warm prompted", "newer newer_warm newer_prompted").pairs
    names = [each.name for each in pairs]
    assert len(set(names)) == 3
    assert all(name.startswith("m:1b json c=1 (structured ") for name in names)
    assert [sum(word in name for name in names) for word in ("temperature=0.7", "structured prompt")] == [1, 1]


def test_pairs_stand_in_the_order_of_a_s_cells(reader: Reader) -> None:
    pairing = paired(reader, "small tools", "tools loaded")
    assert [(each.a.run_ids[0], bool(each.blocking)) for each in pairing.pairs] == [("small", True), ("tools", False)]


def test_models_are_not_crossed_where_a_field_is_allowed_to_differ(reader: Reader) -> None:
    pairing = paired(reader, "small large", "prompted prompted_large", "structured")
    assert shown(pairing) == [("small", "prompted"), ("large", "prompted_large")]
    assert shown(paired(reader, "small", "large prompted", "structured")) == [("small", "prompted")]


def test_one_against_several_is_refused_not_guessed(reader: Reader) -> None:
    (each,) = paired(reader, "small", "newer newer_large prompted", "structured").pairs
    assert each.b.run_ids == ("newer",), "the same model and structured mode comes first"
    pairing = paired(reader, "small", "large newer_large")
    assert shown(pairing) == []
    assert [each.blocking for each in pairing.pairs] == [(SEVERAL,)]
    assert pairing.pairs[0].changed == ("model: m:1b → m:8b", "model_digest: d → e"), "the one that differs least"
    assert [*_remarks(Comparison(pairing.pairs[0], (), ()))] == [f"not comparable: {SEVERAL}"], "no --across helps"


def test_what_has_no_counterpart_is_told(reader: Reader) -> None:
    pairing = paired(reader, "small tools", "newer")
    assert [group.run_ids for group in pairing.only_a] == [("tools",)]
    assert pairing.only_b == ()
    pairing = paired(reader, "small", "newer tools")
    assert [group.run_ids for group in pairing.only_b] == [("tools",)]
    pairing = paired(reader, "small", "tools")
    assert (pairing.pairs, len(pairing.only_a), len(pairing.only_b)) == ((), 1, 1), "other questions"


def test_a_field_that_no_config_has() -> None:
    with pytest.raises(BadInput, match="did you mean structured"):
        check_fields(["structure"])
    with pytest.raises(BadInput, match="use suite, suite_hash"):
        check_fields(["xyzzy"])
    check_fields(["structured", "options", "load"])
