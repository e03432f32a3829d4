"""JSON Schema validation with format checking, in the draft that the schema names, else draft 2020-12.

There is no network access, and the order of explanations depends only on schema and value.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urljoin

import orjson

from structbench.scoring.answer import CannotScore, explain, first_distinct
from structbench.scoring.formats import FORMATS
from structbench.scoring.keywords import KEYWORDS
from structbench.scoring.patterns import BadPattern, compiled
from structbench.scoring.values import pointer_to

if TYPE_CHECKING:
    from jsonschema import FormatChecker
    from jsonschema.exceptions import ValidationError

_MAX_ERRORS = 1000
"""How many violations are examined to choose the ten most telling."""
_DRAFT = re.compile(
    r"https?://(?:www\.)?json-schema\.org/(?:(draft-0[3467]|draft/(?:2019-09|2020-12))/)?schema/?#?", re.IGNORECASE
)
"""``$schema`` of a draft, by either scheme; without a draft, the latest is meant."""


class _Validator(Protocol):
    def iter_errors(self, instance: Any) -> Iterator[ValidationError]: ...


@dataclass(frozen=True, slots=True)
class Violations:
    """The ways in which a value breaks a schema; false if there are none."""

    lines: tuple[str, ...] = ()
    """At most ten explanations, the most telling first."""
    keywords: tuple[str, ...] = ()
    """The violated keywords, each once."""

    def __bool__(self) -> bool:
        return bool(self.lines)


def violations(schema: Mapping[str, Any], value: Any, prefix: str = "") -> Violations:
    """Validate a value against a schema; ``prefix`` is the JSON pointer of the value."""
    errors = errors_of(schema, value)
    lines = first_distinct(
        explain(prefix + pointer, keyword, error.message) for *_, pointer, keyword, error in _ranked(errors)
    )
    return Violations(lines, tuple(sorted({_keyword(error) for error in errors})))


def errors_of(schema: Mapping[str, Any], value: Any) -> list[ValidationError]:
    """Return jsonschema's first thousand errors of a value; CannotScore if the schema cannot be applied."""
    validator = _validator(_canonical(schema))
    if isinstance(validator, str):
        raise CannotScore(validator)
    try:
        return list(islice(validator.iter_errors(value), _MAX_ERRORS))
    except BadPattern as error:
        raise CannotScore(str(error)) from error
    except Exception as error:  # an unresolvable reference, an endless schema
        raise CannotScore(f"the schema cannot be applied: {type(error).__name__}: {error}") from error


def draft_of(schema: Mapping[str, Any]) -> Any:
    """Return jsonschema's validator class for the draft that ``$schema`` names, else for draft 2020-12."""
    jsonschema = import_jsonschema()
    found = _DRAFT.fullmatch(str(schema.get("$schema", "")).strip())
    named = found[1].lower() if found is not None and found[1] is not None else "draft/2020-12"
    for draft in (jsonschema.Draft3Validator, jsonschema.Draft4Validator, jsonschema.Draft6Validator,
                  jsonschema.Draft7Validator, jsonschema.Draft201909Validator):  # fmt: skip
        if f"/{named}/" in draft.META_SCHEMA.get("$id", draft.META_SCHEMA.get("id")):
            return draft
    return jsonschema.Draft202012Validator


def is_known_draft(schema: Mapping[str, Any]) -> bool:
    """Return whether ``$schema`` is absent, names a draft that is known here, or is no text at all."""
    named = schema.get("$schema")
    return not isinstance(named, str) or _DRAFT.fullmatch(named.strip()) is not None


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """Return why a schema is not valid in its draft, or None if it is."""
    validator = _validator(_canonical(schema))
    return validator if isinstance(validator, str) else None


def schema_errors(schema: Mapping[str, Any]) -> list[ValidationError]:
    """Return everything that makes a schema invalid in its draft, each by its most telling cause."""
    best = import_jsonschema().exceptions.best_match
    return [best([error]) for error in islice(_metaschema(draft_of(schema)).iter_errors(schema), _MAX_ERRORS)]


def what_is_wrong(error: ValidationError) -> str:
    """Return in words what an error of ``schema_errors`` is."""
    if error.validator == "format" and error.validator_value == "regex":
        return f"not a regular expression of ECMA-262: {error.instance}"
    return f"not a valid JSON Schema: {error.message}"


def _ranked(errors: list[ValidationError]) -> list[tuple[int, bool, str, str, ValidationError]]:
    """Sort shallow before deep, and what failed before the ``anyOf`` that only says that all failed."""
    ranked = [
        (
            len(error.absolute_path),
            error.validator in ("anyOf", "oneOf"),
            pointer_to(error.absolute_path),
            _keyword(error),
            error,
        )
        for error in errors
    ]
    return sorted(ranked, key=lambda item: (*item[:4], item[4].message))


def _keyword(error: ValidationError) -> str:
    """Return the violated keyword; for a schema that is just ``false``, the keyword that contains it."""
    if error.validator is not None:
        return str(error.validator)
    jsonschema = import_jsonschema()
    known = {*jsonschema.Draft7Validator.VALIDATORS, *jsonschema.Draft202012Validator.VALIDATORS}
    return next((part for part in reversed(error.absolute_schema_path) if part in known), "false")


def _canonical(schema: Mapping[str, Any]) -> str:
    with suppress(orjson.JSONEncodeError):  # takes a fifth of the time, and not every number that JSON has
        return orjson.dumps(schema, default=dict, option=orjson.OPT_SORT_KEYS).decode()
    try:
        return json.dumps(schema, sort_keys=True, separators=(",", ":"), default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise CannotScore(f"the schema is not JSON: {error}") from error


@lru_cache(maxsize=1024)
def _validator(schema: str) -> _Validator | str:
    """Return the validator for a schema, or what is wrong with the schema."""
    jsonschema = import_jsonschema()
    from referencing import Registry

    loaded = json.loads(schema)
    draft = draft_of(loaded)
    try:
        error = jsonschema.exceptions.best_match(_metaschema(draft).iter_errors(loaded))
    except RecursionError:
        return "the schema is nested too deeply"
    if error is not None:
        return explain(pointer_to(error.absolute_path), str(error.validator), f"in the schema: {error.message}")
    # If a reference to the root leads to "$schema" again, jsonschema falls back to its own class for the draft.
    loaded.pop("$schema", None)
    made: _Validator = _extended(draft)(loaded, format_checker=_formats(), registry=Registry())
    return made


@cache
def _metaschema(draft: Any) -> _Validator:
    """Return the validator for schemas of a draft.

    Draft 2020-12 describes itself in parts that refer to each other dynamically. Merged into one schema with plain
    references, it does the same in a quarter of the time.
    """
    from jsonschema_specifications import REGISTRY

    meta = draft.META_SCHEMA
    if draft is import_jsonschema().Draft202012Validator:
        parts = [REGISTRY.contents(urljoin(meta["$id"], part["$ref"])) for part in meta["allOf"]]
        merged: dict[str, Any] = {"type": meta["type"], "properties": {}, "$defs": {}}
        for part in (*parts, meta):
            merged["properties"] |= part["properties"]
            merged["$defs"] |= part.get("$defs", {})
        text = json.dumps(merged).replace('"$dynamicRef": "#meta"', '"$ref": "#"')
        meta = json.loads(re.sub(r'"meta/\w+#/', '"#/', text))
    made: _Validator = draft(meta, format_checker=_formats(of_schemas=True))
    return made


@cache
def _extended(draft: Any) -> Any:
    """Extend the draft's validator with our own keywords."""
    known = {name: check for name, check in KEYWORDS.items() if name in draft.VALIDATORS}
    return import_jsonschema().validators.extend(draft, known)


@cache
def import_jsonschema() -> Any:
    """Import jsonschema without what its own checks of formats take, since ours are others.

    Of these, the grammar of rfc3987-syntax costs 0.8 s, 20 MB and 16 ms per string, and isoduration 40 ms.
    """
    blocked = [name for name in ("rfc3987_syntax", "isoduration") if name not in sys.modules]
    for name in blocked:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import jsonschema
    finally:
        for name in blocked:
            del sys.modules[name]
    return jsonschema


@cache
def _formats(*, of_schemas: bool = False) -> FormatChecker:
    """Return the format checks; ``of_schemas``: for schemas, whose patterns may be of ECMA-262's older mode."""
    checker: FormatChecker = import_jsonschema().FormatChecker(formats=())
    checker.checkers = {name: (partial(_is_of, check), ()) for name, check in FORMATS.items()}
    if of_schemas:
        checker.checkers["regex"] = (partial(_is_of, lambda text: compiled(text) is not None), ())
    return checker


def _is_of(check: Callable[[str], bool], value: object) -> bool:
    return check(value) if isinstance(value, str) else True
