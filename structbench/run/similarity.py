"""Semantic similarity of answers and references: the cosine of their embeddings, which the server makes after the load.

Nothing here can fail a run: if the server makes no embeddings, the column stays NULL and there is one warning.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from math import hypot, inf
from typing import Any

from structbench.store import Store
from structbench.suites.requests import case_of
from structbench.types import Case

BATCH = 32
"""Texts sent to the server in one request."""
MAX_VECTORS = 20_000
"""Vectors kept in memory before all are dropped."""

PAGE = 256
"""Rows held in memory at once."""

_ROWS = """
SELECT * FROM requests WHERE run_id = $1 AND request_index > $2 AND error_kind IS NULL
    AND (semantic_similarity IS NULL OR (SELECT embed_model FROM runs WHERE run_id = $1) IS DISTINCT FROM $3)
ORDER BY request_index LIMIT $4
"""

_HAS_ANOTHER_MODEL = "SELECT 1 FROM runs WHERE run_id = $1 AND embed_model <> $2"

Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]


def cosine(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the cosine of the angle between two vectors, -1 to 1; None if one is zero or lengths differ."""
    length = hypot(*one) * hypot(*other)
    if not 0 < length < inf or len(one) != len(other):
        return None
    return min(1.0, max(-1.0, sum(a * b for a, b in zip(one, other, strict=True)) / length))


class Embeddings:
    """Embeddings of texts, requested in batches and kept by the text's hash."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._kept: dict[bytes, array[float]] = {}
        self.blank = 0
        """Texts for which the server returned only a zero vector, which is similar to nothing."""

    def similarities(self, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return the similarity of each answer and its reference; None if either is blank."""
        if len(self._kept) > MAX_VECTORS:
            self._kept.clear()
        self._embed_new(text for pair in pairs if _have_words(pair) for text in pair)
        return [cosine(*(self._kept[_key(text)] for text in pair)) if _have_words(pair) else None for pair in pairs]

    def _embed_new(self, texts: Iterable[str]) -> None:
        new = list(dict.fromkeys(text for text in texts if _key(text) not in self._kept))
        for start in range(0, len(new), BATCH):
            batch = new[start : start + BATCH]
            for text, vector in zip(batch, self._embed(batch), strict=True):
                # Ollama 0.5.4 gives zeros for some texts of a batch, and the right vector for the same text alone.
                found = vector if any(vector) else next(iter(self._embed([text])))
                self._kept[_key(text)] = array("f", found)
                self.blank += not any(found)


def _have_words(pair: tuple[str, str]) -> bool:
    return all(text.strip() for text in pair)


def _key(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


def reference_of(case: Case) -> str | None:
    """Return what an answer is compared with: the case's reference, else its expected text."""
    return case.expected_text if case.reference is None else case.reference


def score_similarity(
    store: Store, runs: Mapping[str, Sequence[Case]], model: str, embeddings: Embeddings, timeout_s: float
) -> None:
    """Fill ``semantic_similarity`` of the runs' requests that lack it, or have it from another model."""
    for run_id, cases in runs.items():
        has_another_model = store.query(_HAS_ANOTHER_MODEL, [run_id, model], timeout_s=timeout_s)
        last = -1
        while rows := store.query(_ROWS, [run_id, last, model, PAGE], timeout_s=timeout_s):
            last = rows[-1]["request_index"]
            scored = list(_scored(rows, cases, embeddings))
            if has_another_model:  # from here until the end the rows are of two models: the run is none's
                store.append("runs", {"run_id": run_id, "embed_model": None})
                has_another_model.clear()
            for row in scored:
                store.append("requests", row)
        store.append("runs", {"run_id": run_id, "embed_model": model})


def _scored(rows: Sequence[dict[str, Any]], cases: Sequence[Case], embeddings: Embeddings) -> Iterator[dict[str, Any]]:
    """Yield complete rows, which replace the stored ones, for the cases that have a reference."""
    references = [reference_of(case_of(cases, row["request_index"])[0]) for row in rows]
    due = [(row, reference) for row, reference in zip(rows, references, strict=True) if reference is not None]
    found = embeddings.similarities([(row["output_text"], reference) for row, reference in due])
    for (row, _), similarity in zip(due, found, strict=True):
        # JSON comes out of the database as text.
        calls = None if row["tool_calls"] is None else json.loads(row["tool_calls"])
        yield {**row, "tool_calls": calls, "semantic_similarity": similarity}
