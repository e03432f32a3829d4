"""JSON Schema, draft 2020-12 with format checking.

Invariant: no network access (remote references are an error of the schema), and explanations
come out in an order that depends on schema and value alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from structbench.scoring.answer import CannotScore, explain, first
from structbench.scoring.values import pointer_to

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator, FormatChecker
    from jsonschema.exceptions import ValidationError

_EXAMINED = 1000
"""How many violations are looked at for the most telling ten."""
_UCSCHAR = re.compile("[\u00a0-\ud7ff\uf900-\ufdcf\ufdf0-\uffef\U00010000-\U000efffd]+")
"""RFC 3987's characters beyond ASCII (its gaps at the end of each plane are not kept)."""


def violations(schema: Mapping[str, Any], value: Any, prefix: str = "") -> tuple[str, ...]:
    """Explain how a value breaks a schema, the most telling first; nothing when it is valid."""
    validator = _validator(_canonical(schema))
    if isinstance(validator, str):
        raise CannotScore(validator)
    try:
        errors = list(islice(validator.iter_errors(value), _EXAMINED))
    except Exception as error:  # a reference to nowhere, a pattern that is no regular expression, an endless schema
        raise CannotScore(f"the schema cannot be applied: {type(error).__name__}: {error}") from error
    return first(explain(prefix + pointer, keyword, error.message) for *_, pointer, keyword, error in _ranked(errors))


def schema_problem(schema: Mapping[str, Any]) -> str | None:
    """Why a schema is no sound draft 2020-12 schema, or None."""
    validator = _validator(_canonical(schema))
    return validator if isinstance(validator, str) else None


def _ranked(errors: list[ValidationError]) -> list[tuple[int, bool, str, str, ValidationError]]:
    """Shallow before deep, and what failed before the ``anyOf`` that only says that all failed."""
    ranked = [
        (
            len(error.absolute_path),
            error.validator in ("anyOf", "oneOf"),
            pointer_to(error.absolute_path),
            str(error.validator),
            error,
        )
        for error in errors
    ]
    return sorted(ranked, key=lambda item: (*item[:4], item[4].message))


def _canonical(schema: Mapping[str, Any]) -> str:
    try:
        return json.dumps(schema, sort_keys=True, separators=(",", ":"), default=dict)
    except (TypeError, ValueError, RecursionError) as error:
        raise CannotScore(f"the schema is not JSON: {error}") from error


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Draft202012Validator | str:
    """The validator of a schema, or what is wrong with the schema."""
    jsonschema = import_jsonschema()
    from referencing import Registry

    loaded = json.loads(schema)
    try:
        jsonschema.Draft202012Validator.check_schema(loaded)
    except jsonschema.exceptions.SchemaError as error:
        return explain(pointer_to(error.absolute_path), str(error.validator), f"in the schema: {error.message}")
    except RecursionError:
        return "the schema is nested too deeply"
    return jsonschema.Draft202012Validator(loaded, format_checker=_formats(), registry=Registry())  # type: ignore[no-any-return]


@cache
def import_jsonschema() -> Any:
    """Import jsonschema without rfc3987-syntax, whose grammar costs 0.8 s, 20 MB and then 16 ms a string."""
    blocked = "rfc3987_syntax" not in sys.modules
    if blocked:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    try:
        import jsonschema
    finally:
        if blocked:
            del sys.modules["rfc3987_syntax"]
    return jsonschema


@cache
def _formats() -> FormatChecker:
    """The draft's formats; an IRI is checked as the URI that RFC 3987, 3.1 maps it to."""
    jsonschema = import_jsonschema()
    checker: FormatChecker = jsonschema.FormatChecker(formats=())
    checker.checkers = dict(jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers)
    for name, ascii_name in (("iri", "uri"), ("iri-reference", "uri-reference")):
        check, raises = checker.checkers[ascii_name]

        checker.checkers[name] = (partial(_is_iri, check), raises)
    return checker


def _is_iri(is_uri: Callable[[object], bool], value: object) -> bool:
    return is_uri(_UCSCHAR.sub(lambda found: quote(found[0]), value) if isinstance(value, str) else value)
