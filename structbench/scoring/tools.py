"""Scores of tool calls.

The ladder: rejected · broken_call · truncated · no_call · wrong_function · missing_argument · unexpected_argument ·
schema_violation · wrong_value · wrong_count · unwanted_call · correct.
Expected and made calls are paired one to one, in any order, with as many right pairs as possible; the outcome is the
lowest rung among the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from loadgen.types import NOT_JSON, is_broken
from structbench.scoring import bfcl
from structbench.scoring.answer import Answer, explain, first_distinct, quoted, told_apart
from structbench.scoring.bfcl import Verdict
from structbench.scoring.parsing import find_json
from structbench.scoring.rules import best_assignment
from structbench.scoring.validation import violations
from structbench.scoring.values import json_equal, limit_error, pointer_to
from structbench.types import Case, Score, ToolOutcome

RUNGS: tuple[ToolOutcome, ...] = (
    "broken_call",
    "truncated",
    "wrong_function",
    "missing_argument",
    "unexpected_argument",
    "schema_violation",
    "wrong_value",
    "correct",
)


@dataclass(frozen=True, slots=True)
class _MadeCall:
    """A call that was made, with the result of validating it against its tool."""

    index: int
    name: str
    arguments: Mapping[str, Any] | None
    """None if they are not a JSON object within the limits."""
    offered: bool
    required: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    """Explanations of how the arguments break the tool's schema."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """The tool's parameters."""
    unreadable: ToolOutcome | None = None
    """Why the arguments are no JSON, if they are not: the model broke them, or they were cut off."""


_Judge = Callable[[Mapping[str, Any], _MadeCall], Verdict]


def score_tools(case: Case, answer: Answer) -> Score:
    """Score the calls of an answer against the expected ones, or against the tools alone."""
    if answer.failure is not None:
        return replace(_score(answer.failure, 0, 0.0), tool_call_success=False)
    if not answer.tool_calls:
        return _no_call(case, answer)
    if case.expected_calls is not None and not case.expected_calls:
        names = [explain(f"/{i}", "unwanted_call", quoted(_name(call))) for i, call in enumerate(answer.tool_calls)]
        return _score("unwanted_call", len(names), 0.0, names, asked_for=False)
    if case.expected_calls is None and case.matching == "bfcl" and not any(map(is_broken, answer.tool_calls)):
        return _score("correct", len(answer.tool_calls), 1.0)
    tools = {str(_function(tool).get("name")): _function(tool) for tool in case.tools}
    made = [_made_call(index, call, case, tools, answer.cut_off) for index, call in enumerate(answer.tool_calls)]
    if case.expected_calls is None:
        scored = _against_tools(made)
    else:
        scored = _against_expected(case.expected_calls, made, _JUDGES[case.matching])
    return scored if any(call.unreadable is None for call in made) else replace(scored, tool_call_success=False)


def _no_call(case: Case, answer: Answer) -> Score:
    asked_for = case.expected_calls is None or len(case.expected_calls) > 0
    if answer.cut_off and (asked_for or not answer.output_text.strip()):
        # Cut off before a word or a call: a call could still have come, so this earns nothing.
        return _score("truncated", 0, 0.0)
    if not asked_for:
        return _score("correct", 0, 1.0, asked_for=False)
    notes = [explain("", "no_call", "a tool call stands in the text")] if _call_in_text(case, answer) else []
    return _score("no_call", 0, 0.0, notes)


def _score(
    outcome: str, made: int, accuracy: float, explanations: Sequence[str] = (), *, asked_for: bool = True
) -> Score:
    return Score(
        outcome=outcome,
        accuracy_score=accuracy,
        tool_call_success=(made > 0) == asked_for,
        tool_call_accuracy=accuracy,
        num_tool_calls=made,
        validation_errors=first_distinct(explanations),
    )


def _against_tools(made: Sequence[_MadeCall]) -> Score:
    """Score calls without expected ones: each must be of an offered tool, with valid arguments."""
    verdicts = [_judge_by_tool(call) for call in made]
    explanations = [why for call, verdict in zip(made, verdicts, strict=True) for why in _why(call, verdict, {})]
    right = sum(verdict.rung == "correct" for verdict in verdicts)
    return _score(_lowest(verdicts), len(made), right / len(made), explanations)


def _against_expected(expected: Sequence[Mapping[str, Any]], made: Sequence[_MadeCall], judge: _Judge) -> Score:
    verdicts = [[Verdict(call.unreadable) if call.unreadable else judge(wanted, call) for call in made]
                for wanted in expected]  # fmt: skip
    # One right pair outweighs any possible sum of partial credit.
    weight = {rung: place for place, rung in enumerate(RUNGS)}
    weight["correct"] *= min(len(expected), len(made))
    weights = [[weight[verdict.rung] for verdict in row] for row in verdicts]
    chosen = best_assignment(weights)
    pairs = [
        (wanted, made[column], row[column])
        for wanted, row, column in zip(expected, verdicts, chosen, strict=True)
        if column is not None
    ]
    outcome = _lowest([verdict for *_, verdict in pairs])
    explanations = [why for wanted, call, verdict in pairs for why in _why(call, verdict, wanted)]
    if len(made) != len(expected):
        explanations.append(explain("", "wrong_count", f"{len(expected)} expected, {len(made)} made"))
        outcome = "wrong_count" if outcome == "correct" else outcome
    right = sum(verdict.rung == "correct" for *_, verdict in pairs)
    return _score(outcome, len(made), right / max(len(expected), len(made)), explanations)


def _lowest(verdicts: Sequence[Verdict]) -> ToolOutcome:
    return min((verdict.rung for verdict in verdicts), key=RUNGS.index)


def _made_call(
    index: int, call: Mapping[str, Any], case: Case, tools: Mapping[str, Mapping[str, Any]], cut_off: bool
) -> _MadeCall:
    sent_name, arguments = _name(call), call.get("arguments")
    offered, tool = sent_name in tools, tools.get(sent_name, {})
    name = case.function_names.get(sent_name, sent_name)
    prefix = f"/{index}/arguments"
    if is_broken(call):
        text = explain(prefix, "broken_call", f"not JSON: {quoted(call['arguments'][NOT_JSON])}")
        return _MadeCall(index, name, None, offered, (), (text,), unreadable="truncated" if cut_off else "broken_call")
    reason = limit_error(arguments) if isinstance(arguments, Mapping) else "the arguments are not an object"
    if not isinstance(arguments, Mapping) or reason is not None:
        return _MadeCall(index, name, None, offered, broken=(explain(prefix, "type", str(reason)),))
    schema = tool.get("parameters")
    if not isinstance(schema, Mapping):
        return _MadeCall(index, name, arguments, offered)
    required = schema.get("required")
    names = tuple(str(item) for item in required) if isinstance(required, list | tuple) else ()
    broken = () if case.matching == "bfcl" else violations(schema, arguments, prefix).lines
    return _MadeCall(index, name, arguments, offered, names, broken, schema)


def _judge_by_tool(call: _MadeCall) -> Verdict:
    if call.unreadable is not None:
        return Verdict(call.unreadable)
    if not call.offered:
        return Verdict("wrong_function")
    for argument in call.required:
        if argument not in (call.arguments or {}):
            return Verdict("missing_argument", argument)
    return Verdict("schema_violation") if call.broken else Verdict("correct")


def _judge(wanted: Mapping[str, Any], call: _MadeCall) -> Verdict:
    """Find the first rung at which a call fails to be the expected one."""
    if call.name != wanted.get("name"):
        return Verdict("wrong_function")
    if call.arguments is None:
        return Verdict("schema_violation")
    allowed = _allowed(wanted)
    must = [name for name, values in allowed.items() if "" not in values]
    for argument in (*must, *call.required):
        if argument not in call.arguments:
            return Verdict("missing_argument", argument)
    for argument in call.arguments:
        if argument not in allowed:
            return Verdict("unexpected_argument", argument)
    if call.broken:
        return Verdict("schema_violation")
    for argument, value in call.arguments.items():
        if not any(json_equal(value, one, trim=True) for one in allowed[argument]):
            return Verdict("wrong_value", argument)
    return Verdict("correct")


def _judge_as_bfcl(wanted: Mapping[str, Any], call: _MadeCall) -> Verdict:
    if not call.offered or call.name != wanted.get("name"):
        return Verdict("wrong_function")
    if call.arguments is None:
        return Verdict("schema_violation")
    return bfcl.judge(call.arguments, _allowed(wanted), call.schema)


_JUDGES: Mapping[str, _Judge] = {"strict": _judge, "bfcl": _judge_as_bfcl}


def _why(call: _MadeCall, verdict: Verdict, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Explain what is wrong with a call; ``wanted`` is empty if the tools alone decide."""
    arguments = call.arguments or {}
    at = pointer_to((call.index, "arguments", verdict.argument))
    match verdict.rung:
        case "wrong_function":
            expected = wanted.get("name")
            detail = "no such tool" if expected in (None, call.name) else f"expected {quoted(expected)}"
            return (explain(f"/{call.index}/name", "wrong_function", f"{detail}, found {quoted(call.name)}"),)
        case "missing_argument":
            return (explain(at, "missing_argument", "must be given"),)
        case "unexpected_argument":
            return (explain(at, "unexpected_argument", "must not be given"),)
        case "schema_violation" if verdict.argument:
            detail = call.schema["properties"][verdict.argument].get("type")
            return (explain(at, "type", f"{quoted(arguments[verdict.argument])} is not of type {quoted(detail)}"),)
        case "schema_violation" | "broken_call" | "truncated":
            return call.broken
        case "wrong_value":
            values = _allowed(wanted)[verdict.argument][:5]
            detail = told_apart(values, arguments[verdict.argument])
            return (explain(at, "wrong_value", f"expected {detail}"),)
        case _:
            return ()


def _allowed(wanted: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the acceptable values of each argument; a single value counts as a list of one."""
    arguments = wanted.get("arguments")
    items = arguments.items() if isinstance(arguments, Mapping) else ()
    return {name: list(values) if isinstance(values, list | tuple) else [values] for name, values in items}


def _call_in_text(case: Case, answer: Answer) -> bool:
    """Return whether the text contains what should have been a call: a chat template's tag, or a tool call in JSON."""
    text = answer.output_text
    if "<tool_call>" in text or "[TOOL_CALLS]" in text:
        return True
    value, _ = find_json(text)
    names = {_function(tool).get("name") for tool in case.tools}
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, Mapping) and _name(_function(item)) in names for item in items)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = tool.get("function")
    return inner if isinstance(inner, Mapping) else tool


def _name(call: Mapping[str, Any]) -> str:
    name = call.get("name")
    return name if isinstance(name, str) else ""
