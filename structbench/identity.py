"""What makes two cells the same: canonical JSON of a Config (the same on every machine), its hash, and differences."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from structbench.strict_json import stored
from structbench.types import Config

SCHEME = "s1"
_EXACT = 2**53
_DIGEST_LENGTH = 12

KeyPath = tuple[str, ...]
"""The keys of a nested field, outermost first."""


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, only necessary escapes.

    A float that equals an integer below 2**53 is written as that integer (``temperature=1`` and ``1.0`` mean the
    same), any other in Python's shortest form. NaN and infinity raise ValueError, types without JSON TypeError.
    """
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _plain(value: object) -> object:
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            if not math.isfinite(value):
                raise ValueError(f"no canonical JSON for {value}")
            return int(value) if value.is_integer() and abs(value) < _EXACT else value
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError("a key of canonical JSON is a string")
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            raise TypeError(f"no canonical JSON for {type(value).__name__}")


def config_dict(config: Config) -> dict[str, Any]:
    """Return the config as ``runs.config`` holds it: a plain mapping without the fields at their defaults."""
    values = ((field, getattr(config, field.name)) for field in fields(config))
    return {field.name: value for field, value in values if field.default is MISSING or value != field.default}


def config_of(text: str | None) -> Config | None:
    """Return the config that ``runs.config`` holds; None without one, and for what is none that is known here."""
    held, kinds = stored(text), get_type_hints(Config)
    if not isinstance(held, dict) or not all(_is_of(value, kinds.get(name)) for name, value in held.items()):
        return None
    try:
        return Config(**held)
    except TypeError:  # a field is missing
        return None


def _is_of(value: object, kind: Any) -> bool:
    """Return whether JSON's value is one of a type, of which the parts of a container do not matter."""
    if isinstance(kind, UnionType):
        return any(_is_of(value, each) for each in get_args(kind))
    known = get_origin(kind) or kind
    if known is tuple:
        return isinstance(value, list)
    if known is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(known, type) and isinstance(value, known) and (known is bool or not isinstance(value, bool))


def config_hash(config: Config) -> str:
    """Return ``s1:`` and the SHA-256 of the config's canonical JSON in UTF-8."""
    text = canonical_json(config_dict(config))
    # Command-line words may hold bytes that are not UTF-8 (lone surrogates in Python).
    return f"{SCHEME}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return a line for each field that differs, e.g. ``load.concurrency: 1 → 4``."""
    old, new = flat(before), flat(after)
    paths = [*old, *(path for path in new if path not in old)]
    return [
        _change(".".join(path), old.get(path), new.get(path))
        for path in paths
        if old.get(path) != new.get(path) and not _is_expanded(path, old, new)
    ]


def flat(value: Mapping[str, Any], above: KeyPath = ()) -> dict[KeyPath, str]:
    """Return path -> canonical JSON for each innermost field."""
    fields: dict[KeyPath, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            fields.update(flat(item, (*above, key)))
        else:
            fields[(*above, key)] = canonical_json(item)
    return fields


def _is_expanded(path: KeyPath, old: dict[KeyPath, str], new: dict[KeyPath, str]) -> bool:
    """Return whether this is an empty mapping whose fields on the other side are listed anyway."""
    here, there = (old, new) if path in old else (new, old)
    return here[path] == "{}" and any(other[: len(path)] == path for other in there if len(other) > len(path))


def _change(name: str, old: str | None, new: str | None) -> str:
    shown = [_abbreviated(text) for text in (old, new)]
    if shown[0] == shown[1]:
        shown = ["(absent)" if text is None else text for text in (old, new)]
    return f"{name}: {shown[0]} → {shown[1]}"


def _abbreviated(text: str | None) -> str:
    if text is None:
        return "(absent)"
    bare = text[1:-1] if text.startswith('"') else text
    digest = len(bare) > 2 * _DIGEST_LENGTH and all(letter in "0123456789abcdef" for letter in bare.rpartition(":")[2])
    return bare[: bare.find(":") + 1 + _DIGEST_LENGTH] + "…" if digest else bare
