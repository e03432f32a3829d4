"""What requests mean: cases, suites, the identity of a cell, and what an answer was worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

CaseKind = Literal["text", "json", "tools", "answer"]

JsonOutcome = Literal[
    "rejected", "no_output", "truncated", "invalid_json", "schema_violation", "wrong_value", "correct"
]  # fmt: skip
ToolOutcome = Literal[
    "rejected", "no_output", "truncated", "no_call", "wrong_function", "missing_argument", "unexpected_argument",
    "schema_violation", "wrong_value", "wrong_count", "unwanted_call", "correct",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to ask, and perhaps how to tell whether the answer is right."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any] | None = None
    """JSON Schema (draft 2020-12) that the answer must satisfy."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools as Ollama takes them: ``{"type": "function", "function": {name, description, parameters}}``."""
    expected: Mapping[str, Any] | None = None
    """JSON cases: JSON Pointer -> the value that must stand there (``""`` is the whole answer)."""
    expected_calls: tuple[Mapping[str, Any], ...] | None = None
    """Tool cases: the calls to be made, each ``{"name", "arguments": {argument: [acceptable, …]}}``;
    an empty tuple: none must be made. An argument not listed must be absent; ``""`` among the
    acceptable values: it may be left out."""
    expected_text: str | None = None
    """The answer text, compared after trimming white space."""
    matching: Literal["strict", "bfcl"] = "strict"
    """The rules by which calls are compared with the expected ones (docs/scoring.md)."""
    function_names: Mapping[str, str] = field(default_factory=dict)
    """Name of a tool as it is sent -> its name in ``expected_calls``, where the two differ."""
    acceptable: Mapping[str, tuple[Any, ...]] | None = None
    """JSON Pointer -> the values of which one must stand there; several expected texts are at ``""``."""
    compare: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON Pointer -> how values are compared there: ``structbench.scoring.rules``; strictly without."""
    mentions: tuple[tuple[str, ...], ...] = ()
    """Of each group, one text must stand in the answer as a word of its own."""
    tool_results: Mapping[str, str] | None = None
    """What each tool answers, to be given back: the next case of the suite is about the answer to that."""
    follows: bool = False
    """The second turn of the conversation that the case before began; its request arises from that one's answer."""
    reference: str | None = None
    """A text that a good answer is near to in meaning; for ``semantic_similarity`` only."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Ollama options for this case, e.g. ``num_predict``; the command line's win."""
    tags: tuple[str, ...] = ()

    @property
    def turn(self) -> int | None:
        """1 or 2 of a conversation; None for a request that stands alone."""
        return 2 if self.follows else None if self.tool_results is None else 1

    @property
    def kind(self) -> CaseKind:
        if self.tools or self.expected_calls is not None:
            return "tools"
        if self.schema is not None or self.expected is not None:
            return "json"
        return "answer" if self.expected_text is not None or self.mentions else "text"


@dataclass(frozen=True, slots=True)
class Suite:
    """A named set of cases; ``content_hash`` changes when any case does."""

    name: str
    cases: Sequence[Case]
    content_hash: str
    default_requests: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A cell's full identity: exactly what changes its results; how many requests or seconds are asked for does not.

    A field at its default is absent from the identity, so that a new field leaves old hashes as they are.
    """

    suite: str
    suite_hash: str
    model: str
    model_digest: str
    server_version: str
    server_address: str
    endpoint: str
    structured: str
    think: bool | str | None
    options: Mapping[str, Any]
    keep_alive: str | float | None
    load: Mapping[str, Any]
    """kind, concurrency or rate, arrival, burstiness, max_in_flight, seed."""
    seed: int
    warmup: int | None
    """None: one a worker."""
    timeout_s: float
    scorer_version: int | None = None
    """None: a suite whose answers are not scored."""
    api: str = "ollama"
    """The protocol that is spoken: a name of ``loadgen.api.APIS``."""
    dialect: str | None = None
    """How schema and tools were asked for, where that is not the API's own way."""
    headers: tuple[str, ...] = ()
    """Names of headers that the user adds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What an answer was worth; None where the case does not ask for it.

    ``json_valid`` and ``schema_valid`` are strict (the whole answer is the JSON text); the
    ``_lenient`` twins take JSON out of code fences or prose, and ``json_source`` says which.
    """

    outcome: str
    accuracy_score: float | None = None
    json_valid: bool | None = None
    json_valid_lenient: bool | None = None
    json_source: Literal["plain", "fenced", "prose"] | None = None
    json_parse_error: str | None = None
    schema_valid: bool | None = None
    schema_valid_lenient: bool | None = None
    tool_call_success: bool | None = None
    """A call was made where one was asked for, and none where none was."""
    tool_call_accuracy: float | None = None
    """Share of calls right: right calls / max(expected, made); 1 when none were due and none made."""
    num_tool_calls: int | None = None
    validation_errors: tuple[str, ...] = ()
    violated_keywords: tuple[str, ...] = ()
    """The schema's keywords that a JSON answer breaks, each once, in the order of the alphabet."""
