"""Planning an answer, token by token, from a request, a profile and perhaps the known right answer."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from loadgen.simulator.models import KnownAnswer, Profile, Shares
from loadgen.simulator.schemas import WORDS, alter, instance, invalid_json, violate

Call = Mapping[str, Any]
_PIECES = re.compile(r"\s?\w{1,7}|\s?[^\w\s]|\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An answer, token by token; ``whole``: sent as one chunk after its last token."""

    kind: str
    prompt_tokens: int = 0
    thinking: tuple[str, ...] = ()
    pieces: tuple[str, ...] = ()
    calls: tuple[Call, ...] = ()
    call_tokens: int = 0
    whole: bool = False
    done_reason: str = "stop"

    @property
    def tokens(self) -> int:
        """Generated tokens, without the one that ends the answer."""
        return len(self.thinking) + len(self.pieces) + self.call_tokens


def seeded(seed: int, body: Mapping[str, Any]) -> Random:
    """Return the random state of a request, from the server's seed and a hash of the body."""
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return Random(hashlib.sha256(f"{seed}:{text}".encode()).digest())


def split(text: str) -> tuple[str, ...]:
    """Split the text into token-like pieces."""
    return tuple(_PIECES.findall(text))


def count_tokens(text: str) -> int:
    return len(split(text))


def prompt_tokens(body: Mapping[str, Any]) -> int:
    """Count the tokens of the whole prompt, with a few for the template, each message and each tool."""
    texts = [m.get("content") or "" for m in body.get("messages") or ()]
    texts += [body.get("prompt") or "", body.get("system") or ""]
    tools = json.dumps(body["tools"]) if body.get("tools") else ""
    return 6 + 4 * len(body.get("messages") or ()) + sum(map(count_tokens, texts)) + count_tokens(tools)


def last_user_content(body: Mapping[str, Any]) -> str:
    """Return the key of ``answers``: the last user message, or the prompt."""
    if body.get("prompt"):
        return str(body["prompt"])
    users = [m.get("content") or "" for m in body.get("messages") or () if m.get("role") == "user"]
    return str(users[-1]) if users else ""


def plan(body: Mapping[str, Any], profile: Profile, known: KnownAnswer | None, rng: Random) -> Plan:
    """Plan the answer to a request to /api/chat or /api/generate, with ``tool_choice`` also as under /v1."""
    options = body.get("options") or {}
    limit = int(options.get("num_predict", -1))
    context = min(profile.context_length, int(options.get("num_ctx") or 4096))
    made = _with_thinking(_answer(body, profile, known, limit, rng), body, rng)
    made = replace(made, prompt_tokens=min(prompt_tokens(body), context))
    return _cut_at_limit(_cut_at_stop(made, options.get("stop")), limit)


def prompt_pieces(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the pieces of the whole prompt in the order that a template gives them."""
    texts = [json.dumps(body["tools"])] if body.get("tools") else []
    texts += [body.get("system") or "", *(str(m.get("content") or "") for m in body.get("messages") or ())]
    return split(" ".join(filter(None, [*texts, body.get("prompt")])))


def _answer(body: Mapping[str, Any], profile: Profile, known: KnownAnswer | None, limit: int, rng: Random) -> Plan:
    known = known or {}
    whole = bool(body.get("tools"))
    tool_answered = bool(body.get("messages")) and body["messages"][-1].get("role") == "tool"
    if (choice := body.get("tool_choice")) is not None:
        return _chosen_plan(choice, body["tools"], profile, known, rng)
    if body.get("format"):
        schema = {} if body["format"] == "json" else body["format"]
        return replace(_json_plan(schema, profile.json_shares, known, rng), whole=whole)
    if whole and not tool_answered and not known.keys() & {"text", "json"}:
        return _tools_plan(body["tools"], profile, known, rng)
    if tool_answered and "then" in known:
        return replace(_text_plan(str(known["then"]), profile.text_shares, rng), whole=whole)
    if "json" in known:
        return replace(_json_plan(None, profile.prompt_shares, known, rng), whole=whole)
    if "text" in known:
        return replace(_text_plan(str(known["text"]), profile.text_shares, rng), whole=whole)
    count = limit if limit > 0 else rng.randint(*profile.text_tokens)
    return Plan(kind="text", pieces=_words(count, rng), whole=whole)


def _words(count: int, rng: Random) -> tuple[str, ...]:
    words = rng.choices(WORDS, k=max(count, 1))
    return (words[0].capitalize(), *(f" {word}" for word in words[1:]))


def _draw_kind(shares: Shares, rng: Random) -> str:
    point = rng.random()
    for kind, share in shares.items():
        if (point := point - share) < 0:
            return kind
    return "correct"


def _text_plan(right: str, shares: Shares, rng: Random) -> Plan:
    kind = _draw_kind(shares, rng)
    text = {"wrong_value": f"Not {right[::-1]}x", "no_output": ""}.get(kind, right)
    return Plan(kind=kind, pieces=split(text))


def _json_plan(schema: Any, shares: Shares, known: KnownAnswer, rng: Random) -> Plan:
    """Plan a JSON answer; with ``schema`` None only the right answer is known."""
    kind = _draw_kind(shares, rng)
    right = known["json"] if "json" in known else instance(schema or _ANY_OBJECT, rng)
    value = right
    if kind == "wrong_value" and "json" in known:
        value = alter(right, schema or {}, schema or {}, rng)
    elif kind == "schema_violation" and schema is None:
        value = {"items": right} if isinstance(right, list) else [right]
    elif kind == "schema_violation" and (found := violate(right, schema, rng)):
        value = found[0]
    text = _dumps(value)
    if kind in ("wrong_value", "schema_violation") and text == _dumps(right):
        kind = "correct"
    pieces = split(text)
    if kind == "truncated" and len(pieces) > 1:
        return Plan(kind=kind, pieces=pieces[: rng.randint(1, len(pieces) - 1)], done_reason="length")
    wrapped = {
        "invalid_json": invalid_json(value),
        "fenced": f"```json\n{json.dumps(value, ensure_ascii=False, indent=2)}\n```",
        "prose": f"Here is what you asked for:\n\n{text}\n\nLet me know if you need anything else.",
        "think_tags": f"<think>Perhaps {_dumps({'first': 'thought'})}? No.</think>\n{text}",
        "no_output": "",
    }
    return Plan(kind="correct" if kind == "truncated" else kind, pieces=split(wrapped.get(kind, text)))


_ANY_OBJECT = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _function(tool: Any) -> Mapping[str, Any]:
    found = tool.get("function") if isinstance(tool, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _tools_plan(tools: Sequence[Any], profile: Profile, known: KnownAnswer, rng: Random) -> Plan:
    functions = {str(f.get("name", "")): f.get("parameters") or {} for f in map(_function, tools)}
    kind = _draw_kind(profile.tool_shares, rng)
    if "calls" in known:
        right: list[Call] = [{"name": c["name"], "arguments": dict(c["arguments"])} for c in known["calls"]]
    else:
        right = [_any_call(functions, rng)]
    if not right:
        unwanted = kind not in ("correct", "no_call", "no_output", "truncated")
        calls, kind = ([_any_call(functions, rng)], "unwanted_call") if unwanted else ([], "correct")
    else:
        calls, kind = _broken_calls(kind, right, functions, rng, known="calls" in known)
    if not calls:
        pieces = () if kind == "no_output" else _words(12, rng)
        reason = "length" if kind == "truncated" else "stop"
        return Plan(kind=kind, pieces=pieces, whole=True, done_reason=reason)
    tokens = sum(count_tokens(_dumps(call)) for call in calls)
    return Plan(kind=kind, calls=tuple(calls), call_tokens=tokens, whole=True)


def _chosen_plan(choice: str, tools: Sequence[Any], profile: Profile, known: KnownAnswer, rng: Random) -> Plan:
    """Plan a call where one is required; if a tool is named and JSON is known, that is its arguments."""
    named = [tool for tool in tools if _function(tool).get("name") == choice]
    if named and "calls" not in known:
        made = _json_plan(_function(named[0]).get("parameters") or {}, profile.json_shares, known, rng)
        call = {"name": choice, "arguments": "".join(made.pieces)}
        tokens = max(1, len(made.pieces))
        return Plan(kind=made.kind, calls=(call,), call_tokens=tokens, whole=True, done_reason=made.done_reason)
    shares = {kind: share for kind, share in profile.tool_shares.items() if kind not in _WITHOUT_CALL}
    calls = {"calls": known["calls"]} if known.get("calls") else {}
    return _tools_plan(named or tools, replace(profile, tool_shares=shares), calls, rng)


_WITHOUT_CALL = ("no_call", "no_output", "truncated")


def _any_call(functions: Mapping[str, Any], rng: Random) -> Call:
    name = rng.choice(list(functions))
    return {"name": name, "arguments": _arguments(functions[name], rng)}


def _arguments(parameters: Any, rng: Random) -> dict[str, Any]:
    value = instance({"type": "object", **parameters}, rng, parameters)
    return value if isinstance(value, dict) else {}


def _broken_calls(
    kind: str, right: list[Call], functions: Mapping[str, Any], rng: Random, known: bool
) -> tuple[list[Call], str]:
    """Break one of the calls as asked, or else in the nearest possible way."""
    which = rng.randrange(len(right))
    name, arguments = right[which]["name"], right[which]["arguments"]
    parameters = functions.get(name, {})
    match kind:
        case "no_call" | "no_output" | "truncated":
            return [], kind
        case "wrong_count":
            return [*right, right[which]], kind
        case "wrong_function":
            used = {call["name"] for call in right}
            other = next((n for n in functions if n not in used), f"{name}_v2")
            broken: Call = {"name": other, "arguments": _arguments(functions.get(other, parameters), rng)}
        case "missing_argument" if required := [n for n in parameters.get("required", ()) if n in arguments]:
            lost = rng.choice(required)
            broken = {"name": name, "arguments": {k: v for k, v in arguments.items() if k != lost}}
        case "schema_violation" if wrong := _wrong_types(arguments, parameters):
            broken = {"name": name, "arguments": rng.choice(wrong)}
        case "wrong_value" if known and (altered := alter(arguments, parameters, parameters, rng)) != arguments:
            broken = {"name": name, "arguments": altered}
        case "missing_argument" | "schema_violation" | "unexpected_argument":
            kind = "unexpected_argument"
            broken = {"name": name, "arguments": {**arguments, "unexpected_argument": "unexpected"}}
        case _:
            return right, "correct"
    return [*right[:which], broken, *right[which + 1 :]], kind


def _wrong_types(arguments: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arguments with one of them invalid by its own schema, none missing or added."""
    found = []
    for name, sub in (parameters.get("properties") or {}).items():
        alone = {"properties": {name: sub}}
        if name in arguments and (wrong := violate({name: arguments[name]}, alone, Random(0), parameters)):
            found.append({**arguments, name: wrong[0][name]})
    return found


def _with_thinking(made: Plan, body: Mapping[str, Any], rng: Random) -> Plan:
    if not body.get("think"):
        return made
    count = {"low": 8, "high": 48}.get(str(body["think"]), 24)
    return replace(made, thinking=_words(rng.randint(count // 2, count), rng))


def _cut_at_stop(made: Plan, stop: Any) -> Plan:
    """Cut the answer before the first of the stop strings."""
    stops = [stop] if isinstance(stop, str) else [s for s in stop or () if isinstance(s, str) and s]
    text = "".join(made.pieces)
    ends = [at for s in stops if s and (at := text.find(s)) >= 0]
    return replace(made, pieces=split(text[: min(ends)])) if ends else made


def _cut_at_limit(made: Plan, limit: int) -> Plan:
    """Cut the answer at ``num_predict`` tokens, including thinking; a cut tool call is lost."""
    if limit <= 0 or made.tokens < limit or (made.tokens == limit and made.calls):
        return made
    kind = made.kind if made.kind == "text" or made.tokens == limit else "truncated"
    thinking = made.thinking[:limit]
    left = limit - len(thinking)
    return replace(made, kind=kind, thinking=thinking, pieces=made.pieces[:left], calls=(),
                   call_tokens=left if made.calls else 0, done_reason="length")  # fmt: skip
