"""BFCL's own checker, recorded answers as calls, and calls changed by a seed: what the agreement is tested with.

The checker comes out of an installed bfcl-eval wheel; what its import drags in (every model's client) is stubbed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import PackageNotFoundError, version
from random import Random
from types import ModuleType, SimpleNamespace
from typing import Any

from structbench.scoring import Answer, score
from structbench.types import Case

Call = dict[str, Any]
PEER = "bfcl_eval.constants.model_config"


def installed() -> str | None:
    """The version of bfcl-eval, None without it."""
    try:
        return version("bfcl-eval")
    except PackageNotFoundError:
        return None


def load_checker() -> Callable[..., Any]:
    """``ast_checker`` for Python; its table of models is replaced by one model whose names keep their dots."""
    stub = ModuleType(PEER)
    stub.MODEL_CONFIG_MAPPING = {"any": SimpleNamespace(underscore_to_dot=False)}  # type: ignore[attr-defined]
    before = sys.modules.get(PEER)
    sys.modules[PEER] = stub
    try:
        from bfcl_eval.constants.enums import Language
        from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker
    finally:
        if before is None:
            del sys.modules[PEER]
        else:
            sys.modules[PEER] = before

    def check(functions: Any, calls: Any, truth: Any, category: str) -> Any:
        return ast_checker(functions, calls, truth, Language.PYTHON, category, "any")

    return check


def verdict_of_peer(check: Callable[..., Any], entry: Mapping[str, Any], truth: Any, calls: Sequence[Call]) -> bool:
    """Whether BFCL takes the calls for right; a checker that breaks down takes them for nothing."""
    category = str(entry["id"]).rsplit("_", 1)[0]
    made = [{call["name"]: call["arguments"]} for call in deepcopy(list(calls))]
    try:
        return bool(check(deepcopy(entry["function"]), made, deepcopy(truth), category)["valid"])
    except (AttributeError, TypeError, KeyError, IndexError):
        return False


def verdict_of_ours(case: Case, calls: Sequence[Call]) -> bool:
    """Whether our scorer takes them for right; they are named as the server would name them."""
    sent = {original: name for name, original in case.function_names.items()}
    made = tuple({**call, "name": sent.get(call["name"], call["name"])} for call in calls)
    result = score(case, Answer("", made, "stop"))
    return result is not None and result.outcome == "correct"


def recorded(case: Case) -> list[Call]:
    """The case's expected calls, each argument with its first acceptable value that its function can take."""
    parameters = {tool["function"]["name"]: tool["function"]["parameters"] for tool in case.tools}
    parameters = {case.function_names.get(name, name): found for name, found in parameters.items()}
    return [
        {"name": wanted["name"], "arguments": dict(_arguments(wanted["arguments"], parameters[wanted["name"]]))}
        for wanted in case.expected_calls or ()
    ]


def _arguments(allowed: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, values in allowed.items():
        if name in parameters["required"]:
            values = sorted(values, key=lambda value: value == "")  # must be given, although it may be left out
        elif values[:1] == [""] or ("" in values and name not in parameters["properties"]):
            continue
        if values:
            yield name, _first(values[0], parameters["properties"].get(name, {}))


def _first(value: Any, described: Mapping[str, Any]) -> Any:
    """Members of an object are lists of acceptable values, too."""
    if described.get("type") == "object" and isinstance(value, dict):
        return {name: values[0] for name, values in value.items() if values[0] != ""}
    inner = described.get("items", {})
    if described.get("type") == "array" and inner.get("type") == "object" and isinstance(value, list):
        return [_first(item, inner) for item in value]
    return value


def mutants(case: Case, rng: Random) -> Iterator[tuple[str, list[Call]]]:
    """One of each kind of change that the case allows, with its name."""
    for kind, change in CHANGES.items():
        calls = deepcopy(recorded(case))
        if change(calls, case, rng) is not False:
            yield kind, calls


def _pick(calls: list[Call], rng: Random) -> tuple[Call, str] | None:
    """A call and one of its arguments."""
    among = [(call, name) for call in calls for name in call["arguments"]]
    return rng.choice(among) if among else None


def _wrong_name(calls: list[Call], case: Case, rng: Random) -> None:
    call = rng.choice(calls)
    names = [case.function_names.get(tool["function"]["name"], tool["function"]["name"]) for tool in case.tools]
    call["name"] = rng.choice([*(name for name in names if name != call["name"]), call["name"] + "_x"])


def _missing(calls: list[Call], _case: Case, rng: Random) -> bool:
    picked = _pick(calls, rng)
    if picked:
        del picked[0]["arguments"][picked[1]]
    return picked is not None


def _extra(calls: list[Call], _case: Case, rng: Random) -> None:
    rng.choice(calls)["arguments"][rng.choice(["extra", "verbose", "unit", "limit"])] = rng.choice([1, "x", True, None])


def _wrong_type(calls: list[Call], _case: Case, rng: Random) -> bool:
    picked = _pick(calls, rng)
    if picked is None:
        return False
    call, name = picked
    value = call["arguments"][name]
    others: list[Any] = [str(value), [value], None, {"value": value}, True, 1, 1.5]
    call["arguments"][name] = rng.choice([other for other in others if type(other) is not type(value)])
    return True


def _wrong_value(calls: list[Call], _case: Case, rng: Random) -> bool:
    picked = _pick(calls, rng)
    if picked is None:
        return False
    call, name = picked
    call["arguments"][name] = _other(call["arguments"][name], rng)
    return True


def _other(value: Any, rng: Random) -> Any:
    """Another value of the same type: some changes BFCL forgives (case, blanks), most it does not."""
    match value:
        case bool():
            return not value
        case int() | float():
            return rng.choice([value + 1, -value, value * 10, float(value)])
        case str():
            return rng.choice([value + "s", value.upper(), f" {value}", value.replace(" ", "-"), value[1:], ""])
        case list() if value:
            return rng.choice([value[:-1], [*value, value[0]], value[::-1], [_other(value[0], rng), *value[1:]]])
        case dict() if value:
            name = rng.choice(sorted(value))
            return rng.choice([{**value, name: _other(value[name], rng)}, {**value, "extra": 1}])
        case _:
            return ["x"]


def _dropped_member(calls: list[Call], _case: Case, rng: Random) -> bool:
    among = [(call, name) for call in calls for name, value in call["arguments"].items() if isinstance(value, dict)]
    if not among:
        return False
    call, name = rng.choice(among)
    if call["arguments"][name]:
        del call["arguments"][name][rng.choice(sorted(call["arguments"][name]))]
    return True


def _reordered(calls: list[Call], _case: Case, rng: Random) -> None:
    rng.shuffle(calls)
    for call in calls:
        names = list(call["arguments"].items())
        rng.shuffle(names)
        call["arguments"] = dict(names)


def _duplicated(calls: list[Call], _case: Case, rng: Random) -> None:
    calls.insert(rng.randrange(len(calls) + 1), deepcopy(rng.choice(calls)))


def _lost(calls: list[Call], _case: Case, rng: Random) -> None:
    del calls[rng.randrange(len(calls))]


def _doubled(calls: list[Call], _case: Case, rng: Random) -> bool:
    """One call made twice instead of another."""
    if len(calls) < 2:
        return False
    one, other = rng.sample(range(len(calls)), 2)
    calls[one] = deepcopy(calls[other])
    return True


def _left_out(calls: list[Call], case: Case, _rng: Random) -> bool:
    """All that may be left out is."""
    for call, wanted in zip(calls, case.expected_calls or (), strict=True):
        for name, values in wanted["arguments"].items():
            if "" in values:
                call["arguments"].pop(name, None)
    return True


def _alternative(calls: list[Call], case: Case, _rng: Random) -> bool:
    """The last acceptable value of each plain argument instead of the first."""
    for call, wanted in zip(calls, case.expected_calls or (), strict=True):
        for name, values in wanted["arguments"].items():
            if values and values[-1] != "" and not isinstance(values[-1], dict | list):
                call["arguments"][name] = values[-1]
    return True


def _as_ollama_writes(calls: list[Call], _case: Case, _rng: Random) -> None:
    """Ollama's server writes a whole number without its fraction: 5.0 arrives as 5."""
    for call in calls:
        call["arguments"] = _whole(call["arguments"])


def _whole(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {name: _whole(member) for name, member in value.items()}
        case _:
            return value


CHANGES: dict[str, Callable[[list[Call], Case, Random], bool | None]] = {
    "wrong name": _wrong_name,
    "missing argument": _missing,
    "extra argument": _extra,
    "wrong type": _wrong_type,
    "wrong value": _wrong_value,
    "member left out": _dropped_member,
    "reordered": _reordered,
    "duplicated": _duplicated,
    "call left out": _lost,
    "one call twice": _doubled,
    "optional left out": _left_out,
    "another acceptable value": _alternative,
    "5.0 as 5": _as_ollama_writes,
}
