"""What is wrong with a schema that its metaschema does not say.

References that lead nowhere, a schema that cannot be applied, keywords that bind nothing, bounds that nothing meets.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from structbench.formatting import did_you_mean
from structbench.scoring.answer import CannotScore
from structbench.scoring.validation import draft_of, errors_of, import_jsonschema
from structbench.scoring.values import is_index

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_TRIED: tuple[Any, ...] = ({}, [], "", 0, None)
_LONGEST = 1000
_CONDITIONAL = frozenset({"if", "then", "else", "dependencies", "dependentSchemas"})
_SILENT = frozenset({
    "$schema", "$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$vocabulary", "$comment", "$defs",
    "definitions", "title", "description", "default", "deprecated", "readOnly", "writeOnly", "examples", "example",
    "contentMediaType", "contentEncoding", "contentSchema", "then", "else", "minContains", "maxContains",
    "exclusiveMinimum", "exclusiveMaximum",
})  # fmt: skip
"""Keywords that no validator has a function for, and that mean what they mean all the same."""
_NULLABLE = 'OpenAPI\'s: list "null" among the types'
_BOUNDS = (("minLength", "maxLength"), ("minItems", "maxItems"), ("minProperties", "maxProperties"),
           ("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum"))  # fmt: skip


def lost_references(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the references, at any depth, that lead to no schema, as (keyword, reference).

    Each is resolved against its own base; the metaschemas of all drafts are known.
    """
    from jsonschema_specifications import REGISTRY
    from referencing.jsonschema import specification_with

    draft = draft_of(schema)
    specification = specification_with(draft.ID_OF(draft.META_SCHEMA))
    root = specification.create_resource(schema)
    ahead, seen = [(root, REGISTRY.resolver_with_root(root), ("$ref", ""))], set()
    while ahead:
        resource, resolver, by = ahead.pop()
        contents = resource.contents
        if not isinstance(contents, dict) or id(contents) in seen:
            continue
        seen.add(id(contents))
        if isinstance(contents.get("extends"), dict):  # as draft 3 has it besides a list
            resource = specification.create_resource({**contents, "extends": [contents["extends"]]})
        try:
            ahead += [(inner, resolver.in_subresource(inner), by) for inner in resource.subresources()]
            for keyword in _REFERENCES:
                reference = contents.get(keyword)
                if not isinstance(reference, str) or keyword not in draft.VALIDATORS:
                    continue
                by = (keyword, reference)
                found = resolver.lookup(reference)
                if not isinstance(found.contents, dict | bool):
                    yield by
                ahead.append((specification.create_resource(found.contents), found.resolver, by))
        except Exception:  # no target, a pointer into a string, a word that is not a URI, a target that is not a schema
            yield by


def why_inapplicable(schema: Mapping[str, Any]) -> str | None:
    """Return why no value can be judged by a schema whose references resolve, as where it refers to itself at once."""
    try:
        for value in _TRIED:
            errors_of(schema, value)
    except CannotScore as error:
        return "it refers to itself without end" if "RecursionError" in str(error) else str(error)
    return None


def why_never(schema: Mapping[str, Any], pointer: str, value: Any) -> str | None:
    """Return why a value at a JSON pointer breaks the schema whatever stands beside it, or None."""
    names = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    path: list[str | int] = [int(name) if is_index(name) else name for name in names]
    if any(isinstance(step, int) and step > _LONGEST for step in path):
        return None
    while True:
        blocking = [error for error in errors_of(schema, _holding(path, value)) if _blocks(error, path)]
        if not blocking:
            return None
        depth = len(blocking[0].absolute_path)
        if depth >= len(path) or not isinstance(path[depth], int) or blocking[0].validator != "type":
            return str(blocking[0].message)
        path[depth] = str(path[depth])  # a name that looks like an index


def _holding(path: Sequence[str | int], value: Any) -> Any:
    """Return a value that holds nothing but the given one, at that path."""
    for step in reversed(path):
        value = [*[None] * step, value] if isinstance(step, int) else {step: value}
    return value


def _blocks(error: ValidationError, path: Sequence[str | int]) -> bool:
    """Return whether an error is of the value at that path, or of what must be above it for it to be there."""
    if not _CONDITIONAL.isdisjoint(map(str, error.absolute_schema_path)):
        return False
    at = [*error.absolute_path]
    if at[: len(path)] == list(path):
        return True
    return at == list(path[: len(at)]) and error.validator in ("type", "additionalProperties")


def odd_keywords(schema: Mapping[str, Any]) -> dict[str, str]:
    """Return the keywords that bind nothing though they seem to, and bounds that nothing meets, each with a hint."""
    from referencing.jsonschema import specification_with

    draft = draft_of(schema)
    specification = specification_with(draft.ID_OF(draft.META_SCHEMA))
    found: dict[str, str] = {}
    ahead = [specification.create_resource(schema)]
    while ahead:
        resource = ahead.pop()
        if not isinstance(resource.contents, Mapping):
            continue
        for keyword in resource.contents:
            hint = _hint(str(keyword), draft)
            if hint is not None:
                found.setdefault(str(keyword), f"binds nothing: {hint}")
        for low, high in _BOUNDS:
            least, most = resource.contents.get(low), resource.contents.get(high)
            if _is_number(least) and _is_number(most) and least > most:
                found.setdefault(low, f"{least} is above {high}, {most}: nothing satisfies both")
        ahead += resource.subresources()
    return found


def _hint(keyword: str, draft: Any) -> str | None:
    """Return what is wrong with a keyword: a slip, or one of another draft; None for a known one and for a remark."""
    if keyword in draft.VALIDATORS or keyword in _SILENT:
        return None
    jsonschema = import_jsonschema()
    if keyword in jsonschema.Draft202012Validator.VALIDATORS:
        return 'of a later draft than "$schema" names'
    for named, older in (("draft-07", jsonschema.Draft7Validator), ("draft-03", jsonschema.Draft3Validator)):
        if keyword in older.VALIDATORS:
            return f'of {named}: name that draft in "$schema", or use the present keyword'
    if keyword == "nullable":
        return _NULLABLE
    return did_you_mean(keyword, draft.VALIDATORS, otherwise="", quote='"', cutoff=0.8) or None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
