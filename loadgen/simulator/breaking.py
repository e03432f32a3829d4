"""Making right values wrong in a known way: another value, or one that certainly violates the schema.

Invariant: what ``violations`` yields is invalid under the schema, whatever else the schema says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from loadgen.simulator.schemas import WORDS, Schema, flatten, instance, type_name, types_of

_WRONG_TYPES: tuple[tuple[str, Any], ...] = (
    ("string", "unexpected"), ("number", 1.5), ("boolean", True), ("null", None), ("array", []), ("object", {}),
)  # fmt: skip


def violations(value: Any, schema: Any, root: Any, depth: int = 0) -> Iterator[Any]:
    """Yield copies of ``value``, each with one violation of ``schema``.

    It goes only through properties, items and references: breaking one branch of an ``anyOf`` may satisfy another.
    """
    flat = flatten(schema, root)
    kinds = types_of(flat)
    if depth and kinds:
        wrong = [v for kind, v in _WRONG_TYPES if kind not in kinds and not (kind == "number" and "integer" in kinds)]
        yield from wrong[:1]
    if depth and ("enum" in flat or "const" in flat):
        yield "no such value " + "-".join(WORDS[:3])
    if isinstance(value, dict):
        yield from _object_violations(value, flat, root, depth)
    elif isinstance(value, list):
        if flat.get("minItems", 0) > 0:
            yield []
        if value and not flat.get("prefixItems"):
            yield from ([wrong, *value[1:]] for wrong in violations(value[0], flat.get("items", {}), root, depth + 1))
    if not depth and kinds:
        yield from [v for kind, v in _WRONG_TYPES if kind not in kinds][:1]


def _object_violations(value: dict[str, Any], flat: Schema, root: Any, depth: int) -> Iterator[Any]:
    for name in flat.get("required", ()):
        if name in value:
            yield {k: v for k, v in value.items() if k != name}
    if flat.get("additionalProperties") is False and not flat.get("patternProperties"):
        yield {**value, "unexpected_property": "unexpected"}
    if depth > 4:
        return
    for name, sub in flat.get("properties", {}).items():
        if name in value:
            yield from ({**value, name: wrong} for wrong in violations(value[name], sub, root, depth + 1))


def violate(value: Any, schema: Any, rng: Random, root: Any = None) -> tuple[Any] | None:
    """Return one violation (in a 1-tuple, since null can be one), preferring others to a wrong top-level type."""
    found = list(violations(value, schema, schema if root is None else root))
    if len(found) > 1 and type_name(found[-1]) != type_name(value):
        found.pop()
    return (rng.choice(found),) if found else None


def alter(value: Any, schema: Any, root: Any, rng: Random) -> Any:
    """Return an equally valid value that differs in every part that can differ."""
    flat = flatten(schema, root)
    chosen = flat.keys() & {"enum", "const", "anyOf", "oneOf"}
    if isinstance(value, dict) and not chosen:
        properties, others = flat.get("properties", {}), flat.get("additionalProperties", {})
        return {k: alter(v, properties.get(k, others), root, rng) for k, v in value.items()}
    if isinstance(value, list) and not chosen:
        subs = [*flat.get("prefixItems", ()), *[flat.get("items", {})] * len(value)]
        return [alter(v, sub, root, rng) for v, sub in zip(value, subs, strict=False)]
    if flat.keys() - {"type", "title", "description", "default", "examples"}:
        drawn = (instance(flat, rng, root) for _ in range(50))
        return next((v for v in drawn if json.dumps(v) != json.dumps(value)), value)
    return _alter_leaf(value, rng)


def _alter_leaf(value: Any, rng: Random) -> Any:
    match value:
        case bool():
            return not value
        case int() | float():
            return value + rng.randint(1, 9)
        case str():
            return f"{rng.choice(WORDS)} {value[::-1]}" if value else rng.choice(WORDS)
        case _:
            return value


def invalid_json(value: Any) -> str:
    """Return text that is not JSON and contains no JSON object."""
    return json.dumps(value, ensure_ascii=False, separators=(" ", "= "))[:-1] + ","
