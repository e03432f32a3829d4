"""What makes two cells the same: canonical JSON of a Config (the same on every machine), its hash, and differences."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from structbench.types import Config

SCHEME = "s1"
_EXACT = 2**53
_SHOWN = 12

KeyPath = tuple[str, ...]
"""Keys from the outside in."""


def canonical_json(value: object) -> str:
    """Return one JSON text for each value: sorted keys, no spaces, no escapes but the necessary ones.

    A float that equals an integer below 2**53 is written as that integer (``temperature=1`` and ``1.0`` are the same).
    ValueError for NaN and infinity, TypeError for types that JSON does not know.
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
    """Return the config as a plain mapping, as ``runs.config`` holds it, without fields at their default."""
    values = ((field, getattr(config, field.name)) for field in fields(config))
    return {field.name: value for field, value in values if field.default is MISSING or value != field.default}


def config_hash(config: Config) -> str:
    """Return ``s1:`` and the SHA-256 of the config's canonical JSON in UTF-8."""
    text = canonical_json(config_dict(config))
    # Words from a command line may hold bytes that are no UTF-8 (lone surrogates in Python).
    return f"{SCHEME}:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return one line for each field that differs, e.g. ``load.concurrency: 1 → 4``."""
    old, new = flat(before), flat(after)
    paths = [*old, *(path for path in new if path not in old)]
    return [
        _change(".".join(path), old.get(path), new.get(path))
        for path in paths
        if old.get(path) != new.get(path) and not _opened(path, old, new)
    ]


def flat(value: Mapping[str, Any], above: KeyPath = ()) -> dict[KeyPath, str]:
    """Return each innermost field by its path, as canonical JSON."""
    fields: dict[KeyPath, str] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            fields.update(flat(item, (*above, key)))
        else:
            fields[(*above, key)] = canonical_json(item)
    return fields


def _opened(path: KeyPath, old: dict[KeyPath, str], new: dict[KeyPath, str]) -> bool:
    """Return whether this is an empty mapping whose fields on the other side are listed anyway."""
    here, there = (old, new) if path in old else (new, old)
    return here[path] == "{}" and any(other[: len(path)] == path for other in there if len(other) > len(path))


def _change(name: str, old: str | None, new: str | None) -> str:
    shown = [_short(text) for text in (old, new)]
    if shown[0] == shown[1]:
        shown = ["(absent)" if text is None else text for text in (old, new)]
    return f"{name}: {shown[0]} → {shown[1]}"


def _short(text: str | None) -> str:
    if text is None:
        return "(absent)"
    bare = text[1:-1] if text.startswith('"') else text
    digest = len(bare) > 2 * _SHOWN and all(letter in "0123456789abcdef" for letter in bare.rpartition(":")[2])
    return bare[: bare.find(":") + 1 + _SHOWN] + "…" if digest else bare
