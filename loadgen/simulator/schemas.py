"""Valid JSON values from a JSON Schema, values made wrong in a known way, and schemas that a server would refuse. Pure.

Covers what suites use (docs/simulator.md lists it); ``not``, ``if`` and remote references are ignored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from random import Random
from typing import Any

from loadgen.simulator import patterns

Schema = Mapping[str, Any]
TYPES = ("object", "array", "string", "integer", "number", "boolean", "null")
_TEXT = (
    "the of and to in is that it was for on are as with they be at one have this from by hot but some what there we "
    "can out other were all your when up use word how said an each she which do their time if will way about many then "
    "them would write like so these her long make thing see him two has look more day could go come did my sound no "
    "most number who over know water than call first people may down side been now find any new work part take get "
    "place made live where after back little only round man year came show every good me give our under name very "
    "through just form much great think say help low line before turn cause same mean differ move right boy old too"
)
WORDS = _TEXT.split()
_DEEP = 5
_IMPLIED = (
    ("object", ("properties", "required", "additionalProperties", "patternProperties", "minProperties")),
    ("array", ("items", "prefixItems", "minItems", "maxItems", "contains", "uniqueItems")),
    ("string", ("minLength", "maxLength", "pattern", "format")),
    ("number", ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")),
)


def instance(schema: Any, rng: Random, root: Any = None, depth: int = 0) -> Any:
    """Return a value that is valid under ``schema``."""
    root = schema if root is None else root
    flat = flatten(schema, root)
    for key in ("anyOf", "oneOf"):
        if flat.get(key):
            options = [o for o in flat[key] if o is not False]
            if depth >= _DEEP:
                options = sorted(options, key=lambda o: len(json.dumps(o)) + 1000 * ("$ref" in str(o)))[:1]
            base = {k: v for k, v in flat.items() if k != key}
            return instance(_merge(base, flatten(rng.choice(options), root)), rng, root, depth)
    if "const" in flat:
        return flat["const"]
    if "enum" in flat:
        allowed = types_of(flat)
        return rng.choice([v for v in flat["enum"] if not allowed or _is_type(v, allowed)] or flat["enum"])
    return _typed(flat, rng, root, depth)


def _typed(flat: Schema, rng: Random, root: Any, depth: int) -> Any:
    kinds = types_of(flat) or [next((kind for kind, keys in _IMPLIED if any(k in flat for k in keys)), "string")]
    kind = "null" if "null" in kinds and depth >= _DEEP else rng.choice([k for k in kinds if k != "null"] or kinds)
    match kind:
        case "object":
            return _object(flat, rng, root, depth)
        case "array":
            return _array(flat, rng, root, depth)
        case "integer" | "number":
            return _number(flat, rng, whole=kind == "integer")
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
        case _:
            return _string(flat, rng)


def _object(flat: Schema, rng: Random, root: Any, depth: int) -> dict[str, Any]:
    properties: Schema = flat.get("properties", {})
    required = list(flat.get("required", ()))
    most = flat.get("maxProperties", math.inf)
    value: dict[str, Any] = {}
    missing = len([name for name in required if name not in properties])
    for name, sub in properties.items():
        due = len([n for n in required if n in properties and n not in value]) + missing
        optional = sub is not False and depth < _DEEP and rng.random() < 0.7 and len(value) + due < most
        if name in required or optional:
            value[name] = instance(sub, rng, root, depth + 1)
    others = flat.get("additionalProperties", True)
    least = flat.get("minProperties", 1 if isinstance(others, Mapping) and not properties and depth < _DEEP else 0)
    for name in required:
        if name not in value:
            value[name] = _other(name, flat, rng, root, depth)
    for name in properties:
        if len(value) < least and name not in value:
            value[name] = instance(properties[name], rng, root, depth + 1)
    while len(value) < min(least, most) and others is not False:
        value[f"extra{len(value)}"] = _other(f"extra{len(value)}", flat, rng, root, depth)
    for name, needed in flat.get("dependentRequired", {}).items():
        for other in needed if name in value else ():
            if other not in value:
                value[other] = instance(properties.get(other, {}), rng, root, depth + 1)
    return value


def _other(name: str, flat: Schema, rng: Random, root: Any, depth: int) -> Any:
    for pattern, sub in flat.get("patternProperties", {}).items():
        if pattern in name or pattern in ("", ".*", "^.*$"):
            return instance(sub, rng, root, depth + 1)
    return instance(flat.get("additionalProperties", True), rng, root, depth + 1)


def _array(flat: Schema, rng: Random, root: Any, depth: int) -> list[Any]:
    prefix = flat.get("prefixItems", ())
    items = flat.get("items", True)
    least = max(flat.get("minItems", 0), len(prefix) + 1 if "contains" in flat else 0)
    most = flat.get("maxItems", max(least, len(prefix)) + 2)
    if items is False:
        most = min(most, len(prefix))
    count = least if depth >= _DEEP else rng.randint(min(max(least, 1), most), max(least, min(most, max(least, 1) + 2)))
    count = min(max(count, min(len(prefix), most)) if depth < _DEEP else count, most)
    value: list[Any] = []
    for index in range(count):
        sub = prefix[index] if index < len(prefix) else items
        if index == len(prefix) and "contains" in flat:
            sub = _merge(flatten(sub, root), flatten(flat["contains"], root))
        tries = (instance(sub, rng, root, depth + 1) for _ in range(200))
        if flat.get("uniqueItems"):
            seen = {json.dumps(old, sort_keys=True) for old in value}
            new = next((v for v in tries if json.dumps(v, sort_keys=True) not in seen), None)
            if new is None and index >= least:
                break
            value.append(new)
        else:
            value.append(next(tries))
    return value


def _number(flat: Schema, rng: Random, whole: bool) -> int | float:
    low, high = _bounds(flat)
    if step := flat.get("multipleOf"):
        return _multiple(step, low, high, rng, whole)
    if whole:
        first, last = math.ceil(low), math.floor(high)
        first += first == flat.get("exclusiveMinimum")
        last -= last == flat.get("exclusiveMaximum")
        return rng.randint(first, max(first, last))
    drawn = low + (high - low) * rng.uniform(0.01, 0.99)
    rounded = round(drawn, 2)
    return rounded if low < rounded < high else drawn


def _bounds(flat: Schema) -> tuple[float, float]:
    lows = [flat[k] for k in ("minimum", "exclusiveMinimum") if k in flat]
    highs = [flat[k] for k in ("maximum", "exclusiveMaximum") if k in flat]
    if lows:
        low = max(lows)
        return low, min(highs) if highs else low + 100
    if highs:
        return min(0, min(highs) - 100), min(highs)
    return 0, 100


def _multiple(step: float, low: float, high: float, rng: Random, whole: bool) -> int | float:
    """Return a multiple that also passes a validator's floating-point division."""
    exact = Decimal(str(step))
    first, last = math.ceil(Decimal(str(low)) / exact), math.floor(Decimal(str(high)) / exact)
    if last - first > 2:
        first, last = first + 1, last - 1
    start = rng.randint(first, max(first, last))
    candidates = ((start - first + i) % max(1, last - first + 1) + first for i in range(1000))
    for factor in candidates:
        value = exact * factor
        if value == int(value) and (whole or isinstance(step, int)):
            return int(value)
        if not whole and (float(value) / step).is_integer():
            return float(value)
    return int(exact * first) if whole else float(exact * first)


_FORMATS: Mapping[str, Callable[[Random], str]] = {
    "date": lambda r: f"20{r.randint(10, 29)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}",
    "time": lambda r: f"{r.randint(0, 23):02}:{r.randint(0, 59):02}:{r.randint(0, 59):02}Z",
    "date-time": lambda r: f"{_FORMATS['date'](r)}T{_FORMATS['time'](r)}",
    "duration": lambda r: f"PT{r.randint(1, 59)}M",
    "email": lambda r: f"{r.choice(WORDS)}.{r.choice(WORDS)}@example.com",
    "uri": lambda r: f"https://example.com/{r.choice(WORDS)}/{r.randint(1, 999)}",
    "uri-reference": lambda r: f"/{r.choice(WORDS)}",
    "hostname": lambda r: f"{r.choice(WORDS)}.example.com",
    "ipv4": lambda r: ".".join(str(r.randint(1, 254)) for _ in range(4)),
    "ipv6": lambda r: ":".join(f"{r.randint(0, 65535):x}" for _ in range(8)),
    "uuid": lambda r: f"{r.getrandbits(32):08x}-{r.getrandbits(16):04x}-4{r.getrandbits(12):03x}"
                      f"-8{r.getrandbits(12):03x}-{r.getrandbits(48):012x}",
    "regex": lambda r: f"^{r.choice(WORDS)}$",
    "json-pointer": lambda r: f"/{r.choice(WORDS)}",
}  # fmt: skip


def _string(flat: Schema, rng: Random) -> str:
    least, most = int(flat.get("minLength", 0)), flat.get("maxLength")
    if made := _FORMATS.get(flat.get("format", "")):
        return made(rng)
    if "pattern" in flat and (text := patterns.matching(flat["pattern"], rng, least, most)) is not None:
        return text
    text = " ".join(rng.choices(WORDS, k=rng.randint(1, 3)))
    while len(text) < least:
        text += " " + rng.choice(WORDS)
    if most is not None and len(text) > most:
        text = text[: int(most)].rstrip().ljust(least, "x")
    return text


def types_of(flat: Schema) -> list[str]:
    """Return the types that the schema names, perhaps none."""
    named = flat.get("type", [])
    return [named] if isinstance(named, str) else list(named)


def _is_type(value: Any, allowed: list[str]) -> bool:
    return type_name(value) in allowed or (type_name(value) == "integer" and "number" in allowed)


def type_name(value: Any) -> str:
    """Return the JSON Schema type of a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}
    return names.get(type(value), "null")


def flatten(schema: Any, root: Any) -> dict[str, Any]:
    """Return the schema with ``$ref`` and ``allOf`` resolved."""
    flat: dict[str, Any] = dict(schema) if isinstance(schema, Mapping) else {}
    for _ in range(20):
        if "$ref" in flat:
            try:
                target = resolve(str(flat.pop("$ref")), root)
            except KeyError:  # in a tool's parameters: real servers do not look at it either
                continue
            flat = _merge(dict(target) if isinstance(target, Mapping) else {}, flat)
        elif "allOf" in flat:
            for part in flat.pop("allOf"):
                flat = _merge(flat, flatten(part, root))
        else:
            break
    return flat


def resolve(ref: str, root: Any) -> Any:
    """Return what a local reference points at; raise KeyError with the missing part."""
    target = root
    for part in islice(ref.split("/"), 1, None):
        name = part.replace("~1", "/").replace("~0", "~").replace("%25", "%")
        if isinstance(target, list) and name.isdigit() and int(name) < len(target):
            target = target[int(name)]
        elif isinstance(target, Mapping) and name in target:
            target = target[name]
        else:
            raise KeyError(name, target)
    return target


def _merge(a: dict[str, Any], b: Schema) -> dict[str, Any]:
    """Return a schema that demands what both demand."""
    merged = dict(a)
    for key, value in b.items():
        if key not in merged:
            merged[key] = value
        elif key == "properties":
            merged[key] = {**merged[key], **value}
            for name in merged[key].keys() & a[key].keys() & value.keys():
                merged[key][name] = {"allOf": [a[key][name], value[name]]}
        elif key == "required":
            merged[key] = [*merged[key], *(name for name in value if name not in merged[key])]
        elif key == "enum":
            merged[key] = [v for v in merged[key] if v in value] or value
        elif key == "type":
            both = [t for t in types_of(a) if t in types_of(b) or (t == "integer" and "number" in types_of(b))]
            merged[key] = both or value
        elif key in ("anyOf", "oneOf", "allOf"):
            merged.setdefault("allOf", [])
            merged["allOf"] = [*merged["allOf"], {key: value}] if key != "allOf" else [*merged["allOf"], *value]
        elif key in ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"):
            merged[key] = max(merged[key], value)
        elif key in ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"):
            merged[key] = min(merged[key], value)
        else:
            merged[key] = value
    return merged


def refusal(schema: Any, root: Any = None) -> str | None:
    """Return why the server's grammar converter would refuse the schema, or None."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping):
        return None
    ref = schema.get("$ref")
    if isinstance(ref, str):
        try:
            resolve(ref if ref.startswith("#") else f"#/{ref}", root)
        except KeyError as missing:
            name, target = missing.args
            return f"Error resolving ref {ref}: {name} not in {json.dumps(target, separators=(',', ':'))}"
    if any(kind not in TYPES for kind in types_of(schema)):
        return f"Unrecognized schema: {json.dumps(schema, separators=(',', ':'))}"
    inner = [*(schema.get("properties") or {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        inner += schema.get(key) or []
    return next((found for sub in inner if (found := refusal(sub, root)) is not None), None)


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
