"""The types of structbench: cases, suites, the identity of a cell, scores. ``loadgen.types`` has requests and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from loadgen.types import quickly_pickled

CaseKind = Literal["text", "json", "tools", "answer"]

JsonOutcome = Literal[
    "rejected", "broken_call", "no_output", "truncated", "invalid_json", "schema_violation", "wrong_value", "correct"
]  # fmt: skip
ToolOutcome = Literal[
    "rejected", "broken_call", "no_output", "truncated", "no_call", "wrong_function", "missing_argument",
    "unexpected_argument", "schema_violation", "wrong_value", "wrong_count", "unwanted_call", "correct",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question to ask, and perhaps how to check the answer."""

    id: str
    messages: tuple[Mapping[str, Any], ...]
    schema: Mapping[str, Any] | None = None
    """JSON Schema (draft 2020-12) that the answer must satisfy."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Tools as Ollama takes them: ``{"type": "function", "function": {name, description, parameters}}``."""
    expected: Mapping[str, Any] | None = None
    """JSON cases: JSON Pointer -> the value required there (``""`` is the whole answer)."""
    expected_calls: tuple[Mapping[str, Any], ...] | None = None
    """Tool cases: the required calls, each ``{"name", "arguments": {argument: [acceptable, …]}}``; an empty tuple
    means that no call may be made. An argument not listed must be absent; with ``""`` among its acceptable values it
    may be left out."""
    expected_text: str | None = None
    """The answer text, compared after trimming white space."""
    matching: Literal["strict", "bfcl"] = "strict"
    """The rules by which calls are compared with the expected ones (docs/scoring.md)."""
    function_names: Mapping[str, str] = field(default_factory=dict)
    """Name of a tool as it is sent -> its name in ``expected_calls``, where the two differ."""
    acceptable: Mapping[str, tuple[Any, ...]] | None = None
    """JSON Pointer -> the values of which one is required there; several expected texts are at ``""``."""
    compare: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """JSON Pointer -> how values are compared there (``structbench.scoring.rules``); else strictly."""
    mentions: tuple[tuple[str, ...], ...] = ()
    """Groups of texts; one of each group must be in the answer as a separate word."""
    tool_results: Mapping[str, str] | None = None
    """Tool -> the result to return to the model; the next case of the suite judges the answer to that."""
    follows: bool = False
    """Whether this is the second turn of the previous case's conversation; its request follows from that answer."""
    reference: str | None = None
    """A text that a good answer is similar to in meaning; used for ``semantic_similarity`` only."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Ollama options for this case, e.g. ``num_predict``; those of the command line override them."""
    tags: tuple[str, ...] = ()
    prompt_tokens: int | None = None
    """Tokens that the prompt was made to have, as in load tests."""

    @property
    def turn(self) -> int | None:
        """1 or 2 in a conversation; None for a single request."""
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
    """How many are asked where neither a number, a time nor a rule says so: each case once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The full identity of a cell: exactly what changes its results, so not how many requests or seconds are asked for.

    A field at its default is absent from the identity, so that a new field does not change old hashes.
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
    """None: by the load."""
    timeout_s: float
    scorer_version: int | None = None
    """None: the suite's answers are not scored."""
    api: str = "ollama"
    """The protocol: a name in ``loadgen.api.APIS``."""
    body: Mapping[str, Any] | None = None
    """Fields that the user adds to the body of every request."""
    headers: tuple[str, ...] = ()
    """Names of headers that the user adds."""
    limit_field: str | None = None
    """The field with the limit of an answer, where it is not the API's usual one."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a run's requests say of the server or the workload; nothing of the client, which the verdict is on.

    ``share`` of the requests (or chunks) it concerns, from 0 to 1; ``at_s`` seconds after the run's start; None where
    that means nothing.
    """

    kind: str
    text: str
    share: float | None = None
    at_s: float | None = None


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The score of an answer; a field is None if the case does not ask for it.

    ``json_valid`` and ``schema_valid`` are strict (the whole answer is the JSON text); the ``_lenient`` fields extract
    JSON from code fences or prose, and ``json_source`` says from which.
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
    """Whether a call was made if one was expected, and none if none was."""
    tool_call_accuracy: float | None = None
    """Share of calls right: right calls / max(expected, made); 1 if none were expected and none made."""
    num_tool_calls: int | None = None
    validation_errors: tuple[str, ...] = ()
    violated_keywords: tuple[str, ...] = ()
    """The schema keywords that a JSON answer violates, each once, sorted."""
