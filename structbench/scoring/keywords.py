"""Keywords of JSON Schema that jsonschema checks slowly, inexactly, or by Python's regular expressions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from structbench.scoring.patterns import search

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_UNEVALUATED = "unevaluatedProperties"
_IN_PLACE = ("allOf", "oneOf", "anyOf")


def _error(message: str) -> ValidationError:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _multiple_of(validator: Any, step: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    """Check in exact decimals: 19.99 is a multiple of 0.01, though not of the double nearest to it."""
    if validator.is_type(instance, "number") and _exact(instance) % _exact(step):
        yield _error(f"{instance!r} is not a multiple of {step}")


def _exact(number: float) -> int | Fraction:
    return number if isinstance(number, int) else Fraction(repr(number))


def _unique_items(validator: Any, wanted: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if wanted and validator.is_type(instance, "array"):
        seen = {_key(item) for item in instance}
        if len(seen) < len(instance):
            yield _error(f"{instance!r} has non-unique elements")


def _key(value: Any) -> Any:
    """Return a hashable key that is equal only for equal JSON values: 1 is 1.0, true is not 1."""
    if isinstance(value, bool):
        return ("truth", value)
    if isinstance(value, list | tuple):
        return tuple(map(_key, value))
    if isinstance(value, Mapping):
        return frozenset((name, _key(member)) for name, member in value.items())
    return value


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "string") and not search(pattern, instance):
        yield _error(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(instance, "object"):
        for pattern, subschema in patterns.items():
            for name, value in instance.items():
                if search(pattern, name):
                    yield from validator.descend(value, subschema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    patterns = schema.get("patternProperties", {})
    extra = [name for name in instance if name not in schema.get("properties", {}) and not _any_found(patterns, name)]
    if validator.is_type(allowed, "object"):
        for name in extra:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and extra:
        if patterns:
            of = ", ".join(map(repr, sorted(patterns)))
            yield _error(f"{_listed(extra)} {'does' if len(extra) == 1 else 'do'} not match any of the regexes: {of}")
        else:
            yield _error(f"Additional properties are not allowed ({_listed(extra)} {_was(extra)} unexpected)")


def _unevaluated_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(instance, "object"):
        return
    known = _evaluated(validator, instance, {name: each for name, each in schema.items() if name != _UNEVALUATED})
    wrong = [
        name for name in instance
        if name not in known and not _is_valid(validator, instance[name], allowed)
    ]  # fmt: skip
    if wrong and allowed is False:
        yield _error(f"Unevaluated properties are not allowed ({_listed(wrong)} {_was(wrong)} unexpected)")
    elif wrong:
        what = f"{_listed(wrong)} {_was(wrong)} unevaluated and invalid"
        yield _error(f"Unevaluated properties are not valid under the given schema ({what})")


def _evaluated(validator: Any, instance: Mapping[str, Any], schema: Any) -> set[str]:
    """Return the names that a schema evaluates, by itself and by those that it applies in place and that hold."""
    if not validator.is_type(schema, "object"):
        return set()
    known = {name for name in schema.get("properties", {}) if name in instance}
    known.update(name for name in instance if _any_found(schema.get("patternProperties", {}), name))
    if "additionalProperties" in schema or _UNEVALUATED in schema:
        known.update(instance)
    for inner_validator, inner in _applied(validator, instance, schema):
        known |= _evaluated(inner_validator, instance, inner)
    return known


def _applied(validator: Any, instance: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the schemas that a schema applies to the same object and that hold, each with its validator."""
    for keyword in ("$ref", "$dynamicRef", "$recursiveRef"):
        if keyword in schema and keyword in validator.VALIDATORS:
            found = _resolved(validator, keyword, schema[keyword])
            yield validator.evolve(schema=found.contents, _resolver=found.resolver), found.contents
    inner = [each for keyword in _IN_PLACE for each in schema.get(keyword, ())]
    inner += [each for name, each in schema.get("dependentSchemas", {}).items() if name in instance]
    if "if" in schema:
        holds = _is_valid(validator, instance, schema["if"])
        inner += [schema[word] for word in (("if", "then") if holds else ("else",)) if word in schema]
    for each in inner:
        if _is_valid(validator, instance, each):
            yield validator, each


def _resolved(validator: Any, keyword: str, reference: str) -> Any:
    from referencing.jsonschema import lookup_recursive_ref

    resolver = validator._resolver
    return lookup_recursive_ref(resolver) if keyword == "$recursiveRef" else resolver.lookup(reference)


def _is_valid(validator: Any, value: Any, schema: Any) -> bool:
    return next(validator.descend(value, schema), None) is None


def _any_found(patterns: Mapping[str, Any], name: str) -> bool:
    return any(search(pattern, name) for pattern in patterns)


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, sorted(names)))


def _was(names: list[str]) -> str:
    return "was" if len(names) == 1 else "were"


KEYWORDS: Mapping[str, Any] = {
    "uniqueItems": _unique_items,
    "multipleOf": _multiple_of,
    "divisibleBy": _multiple_of,
    "pattern": _pattern,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    _UNEVALUATED: _unevaluated_properties,
}
