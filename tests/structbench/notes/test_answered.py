"""Who answered is told where it is another model than was asked for, or several, and not where an alias was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from structbench.notes.answered import ANSWERED, is_alias
from structbench.types import Note
from tests.support.in_memory import Tables, tables


@pytest.fixture(scope="module")
def store() -> Iterator[Tables]:
    with tables() as opened:
        yield opened


def noted(store: Tables, asked: str, *rows: tuple[str | None, str | None]) -> list[Note]:
    store.fill(
        runs=[{"run_id": "r", "model": asked}],
        requests=[
            {"run_id": "r", "request_index": index, "answered_by": model, "fingerprint": fingerprint}
            for index, (model, fingerprint) in enumerate(rows)
        ],
    )
    return list(ANSWERED.notes(store.query(ANSWERED.sql, ["r"])))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-4.1-mini", "gpt-4.1-mini-2025-04-14"), ("claude-haiku-4-5", "claude-haiku-4-5-20251001"),
        ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022"), ("gpt-4-0613", "gpt-4"), ("gpt-4", "gpt-4-0613"),
        ("gemini-2.5-flash", "models/gemini-2.5-flash"), ("openai/gpt-4o", "gpt-4o-2024-08-06"),
        ("meta-llama/Llama-3.1-8B", "llama-3.1-8b"), ("qwen3:4b", "qwen3:4b"), ("llama3", "llama3:latest"),
        ("mistral-large-latest", "mistral-large-2411"), ("gemini-2.5-pro", "gemini-2.5-pro-preview-06-05"),
        ("q4", "/models/q4.gguf"),
    ],
)  # fmt: skip
def test_a_version_of_the_model_that_was_asked_for_is_no_other_one(store: Tables, asked: str, answered: str) -> None:
    assert is_alias(asked, answered)
    assert noted(store, asked, (answered, "fp"), (answered, "fp"), (None, None)) == []


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("gpt-4.1", "gpt-4.1-mini"), ("gpt-4o", "gpt-4"), ("m", "another-model"), ("qwen3:4b", "qwen3:8b"), ("a", "b"),
     ("claude-haiku-4-5", "claude-sonnet-4-5-20250929"), ("gpt-4.1-mini-2025-04-14", "gpt-4.1-nano-2025-04-14")],
)  # fmt: skip
def test_another_model_than_was_asked_for_is_told(store: Tables, asked: str, answered: str) -> None:
    (note,) = noted(store, asked, (answered, None), (answered, None))
    assert (note.kind, note.share) == ("other_model", 1.0)
    assert note.text.startswith(f"2 of 2 answers say that they are of {answered}, although {asked} was asked for")


def test_several_models_and_fingerprints_in_one_run_are_told(store: Tables) -> None:
    old, new = "gpt-4o-2024-05-13", "gpt-4o-2024-08-06"
    notes = noted(store, "gpt-4o", (old, "fp_1"), (old, "fp_1"), (old, "fp_1"), (new, "fp_2"))
    assert [(note.kind, note.share) for note in notes] == [("model_changed", 0.25), ("fingerprint_changed", 0.25)]
    assert notes[0].text.startswith(f"several models answered: {old} (3), {new} (1): ")
    assert "fp_1 (3), fp_2 (1)" in notes[1].text


def test_what_tells_nothing_is_not_judged(store: Tables) -> None:
    assert noted(store, "m", (None, None)) == []
    assert noted(store, "m") == []
    failed = {"run_id": "r", "request_index": 0, "answered_by": "other", "error_kind": "stream"}
    store.fill(runs=[{"run_id": "r", "model": "m"}], requests=[failed, {**failed, "run_id": "q", "error_kind": None}])
    assert store.query(ANSWERED.sql, ["r"]) == []
