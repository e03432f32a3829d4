"""Semantic similarity comes after the load, costs each text one embedding, and fails no run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.api.ollama_server import embed
from loadgen.api.server import ServerError
from loadgen.simulator import Profile, Simulator
from loadgen.wire.access import Access
from structbench.errors import BadInput
from structbench.run.similarity import BATCH, Embeddings, cosine, reference_of
from structbench.suites.answer_book import answer_book
from structbench.types import Case
from tests.support.loads import FAST, MODELS, ask, inferences, load, small

pytestmark = pytest.mark.slow

VECTOR = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3)


@given(VECTOR, VECTOR)
def test_a_cosine_is_symmetric_and_within_its_bounds(one: list[float], other: list[float]) -> None:
    found = cosine(one, other)
    assert found is None or -1 <= found <= 1
    assert found == cosine(other, one)


@pytest.mark.parametrize(
    ("one", "other", "similarity"),
    [((1, 0), (2, 0), 1.0), ((1, 0), (-3, 0), -1.0), ((1, 0), (0, 1), 0.0), ((1, 1), (1, 0), 0.5**0.5),
     ((0, 0), (1, 0), None), ((1, 0), (1, 0, 0), None)],
)  # fmt: skip
def test_a_cosine_is_that_of_the_angle(one: Any, other: Any, similarity: float | None) -> None:
    assert cosine(one, other) == (None if similarity is None else pytest.approx(similarity))


def test_each_text_is_embedded_once_and_in_batches() -> None:
    asked: list[list[str]] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        asked.append(list(texts))
        return [[float(len(text)), 1.0] for text in texts]

    embeddings = Embeddings(embed)
    pairs = [(f"answer {i}", "the reference") for i in range(40)]
    first = embeddings.similarities(pairs)
    assert embeddings.similarities(pairs) == first
    assert [len(batch) for batch in asked] == [BATCH, 41 - BATCH]
    assert embeddings.similarities([(" \n", "the reference"), ("same", "same")]) == [None, pytest.approx(1)]
    assert asked[2:] == [["same"]]


def test_zeros_in_a_batch_are_asked_for_again_alone_and_what_stays_blank_is_counted() -> None:
    asked: list[list[str]] = []

    def embed(texts: Sequence[str]) -> list[list[float]]:
        asked.append(list(texts))
        return [[0.0, 0.0] if text == "never" or (text == "alone" and len(texts) > 1) else [1.0, 2.0] for text in texts]

    embeddings = Embeddings(embed)
    found = embeddings.similarities([("one", "alone"), ("one", "never")])
    assert found == [pytest.approx(1), None]
    assert asked == [["one", "alone", "never"], ["alone"], ["never"]]
    assert embeddings.blank == 1


def test_a_reference_goes_before_the_expected_text() -> None:
    def case(**more: Any) -> Case:
        return Case(id="a", messages=(), **more)

    assert reference_of(case(expected_text="x")) == "x"
    assert reference_of(case(expected_text="x", reference="y")) == "y"
    assert reference_of(case(schema={})) is None


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    other = Profile(capabilities=("embedding",), embedding_length=8)
    wrong = replace(FAST, text_shares={"wrong_value": 0.5})
    with Simulator({**MODELS, "wrong": wrong, "other-embed": other}, answers=answer_book()) as server:
        yield server


def similar(db: Path) -> list[tuple[Any, ...]]:
    return ask(db, "SELECT outcome, round(semantic_similarity, 6) FROM requests ORDER BY run_id, request_index")


def test_answers_are_compared_after_the_load_and_a_complete_run_is_not_measured_again(
    sim: Simulator, tmp_path: Path
) -> None:
    options = small(sim, tmp_path / "x.duckdb", models=["wrong"], requests=12, skip_cached=True)
    load(options)
    assert {similarity for _, similarity in similar(options.db)} == {None}
    sim.reset_truth()
    options.embed_model = "sim:embed"
    summary = load(options)
    assert summary.rows[0]["cache"] == "skipped"
    assert {entry["kind"] for entry in sim.truth()["requests"]} == {"embedding"}
    found = similar(options.db)
    assert {outcome for outcome, _ in found} == {"correct", "wrong_value"}
    for outcome, similarity in found:
        assert (similarity == 1) == (outcome == "correct"), "the simulated model knows equal texts only"
    mean = sum(similarity for _, similarity in found) / 12
    assert summary.rows[0]["semantic_similarity"] == pytest.approx(mean, abs=1e-5)
    sim.reset_truth()
    load(options)
    assert sim.truth()["requests"] == [], "everything is there already"
    options.embed_model = "other-embed"
    load(options)
    assert [similarity for _, similarity in similar(options.db)] != [similarity for _, similarity in found]
    assert ask(options.db, "SELECT embed_model FROM runs") == [("other-embed",)]


@pytest.mark.slow
def test_similarities_of_two_models_do_not_stay_mixed(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(address: str, model: str, texts: Sequence[str], **_: Access) -> Any:
        if pages and not pages.pop():
            raise ServerError("the server went away")
        return embed(address, model, texts)

    monkeypatch.setattr("structbench.run.similarity.PAGE", 4)
    pages: list[bool] = []
    options = small(sim, tmp_path / "x.duckdb", models=["wrong"], requests=12, skip_cached=True)
    options.embed_model = "sim:embed"
    load(options)
    of_one = similar(options.db)
    monkeypatch.setattr("loadgen.api.ollama_server.embed", breaks)
    options.embed_model, pages = "other-embed", [False]
    assert "the server went away" in load(options).rows[0]["warnings"][0]
    assert ask(options.db, "SELECT embed_model FROM runs") == [("sim:embed",)], "nothing was changed yet"
    pages = [False, True]
    load(options)
    assert similar(options.db) != of_one
    assert ask(options.db, "SELECT embed_model FROM runs") == [(None,)]
    options.embed_model = "sim:embed"
    load(options)
    assert similar(options.db) == of_one
    assert ask(options.db, "SELECT embed_model FROM runs") == [("sim:embed",)]


def test_references_of_a_suite_file_are_used_and_nothing_else_of_a_row_changes(sim: Simulator, tmp_path: Path) -> None:
    suite = tmp_path / "mine.jsonl"
    cases = [{"id": "a", "prompt": "x", "reference": "y"}, {"id": "b", "prompt": "x"}]
    suite.write_text("\n".join(map(json.dumps, cases)))
    options = small(sim, tmp_path / "x.duckdb", suites=[str(suite)], requests=2, skip_cached=True)
    load(options)
    columns = "* EXCLUDE (semantic_similarity)"
    before = ask(options.db, f"SELECT {columns} FROM requests ORDER BY request_index")
    options.embed_model = "sim:embed"
    load(options)
    assert ask(options.db, f"SELECT {columns} FROM requests ORDER BY request_index") == before
    first, second = similar(options.db)
    assert -1 <= first[1] < 1
    assert second[1] is None


def test_a_server_without_embeddings_gives_a_warning_and_no_failure(sim: Simulator, tmp_path: Path) -> None:
    summary = load(small(sim, tmp_path / "x.duckdb", suites=["numbers", "json"], requests=2, embed_model="sim:fast"))
    assert (summary.exit_code, summary.failures) == (0, [])
    warnings = {warning for row in summary.rows for warning in row["warnings"]}
    assert warnings == {
        "no semantic similarity: sim:fast makes no embeddings: This server does not support embeddings. "
        "Start it with `--embeddings`"
    }
    assert {similarity for _, similarity in similar(tmp_path / "x.duckdb")} == {None}
    with pytest.raises(ServerError, match="sim:fast makes no embeddings"):
        embed(sim.url, "sim:fast", ["a"])
    assert [len(vector) for vector in embed(sim.url, "other-embed", ["a", "b"])] == [8, 8]


def test_a_model_whose_vectors_are_zeros_gives_a_warning(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "loadgen.api.ollama_server.embed", lambda _address, _model, texts, **_: [[0.0, 0.0] for _ in texts]
    )
    summary = load(small(sim, tmp_path / "x.duckdb", suites=["numbers"], requests=1, embed_model="sim:embed"))
    assert summary.rows[0]["warnings"] == [
        "sim:embed returned zero vectors for 1 text: no semantic similarity for their answers"
    ]
    assert similar(tmp_path / "x.duckdb")[0][1] is None


def test_a_mistyped_embedding_model_ends_before_anything_is_sent(sim: Simulator, tmp_path: Path) -> None:
    sim.reset_truth()
    with pytest.raises(BadInput, match="does not have sim:embd"):
        load(small(sim, tmp_path / "x.duckdb", embed_model="sim:embd"))
    assert inferences(sim) == []
