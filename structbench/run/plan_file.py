"""Plan files: the options of ``structbench load`` as TOML, under the names that the command line has; never secrets."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from loadgen.wire.access import masked_address
from structbench.errors import BadInput
from structbench.formatting import did_you_mean
from structbench.options import (
    JSON_VALUES,
    MANY_NEEDED,
    LoadOptions,
    check_not_empty,
    pairs_in,
    seconds_of,
    time_word,
)
from structbench.suites.reading import read_bytes

_SECRET = "would be a secret in a file: give it on the command line, or use header_env or api_key_env"


def with_plan(words: Sequence[str]) -> list[str]:
    """Return a load's words with those of the plan file that the first one names; what is given beside it wins."""
    if not words or words[0].startswith("-"):
        return list(words)
    path, rest = Path(words[0]), list(words[1:])
    if not path.suffix and not path.exists():
        raise BadInput(f"there is no plan file {words[0]}: a suite is --suites {words[0]}, a model --models {words[0]}")
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    found = [(name, value) for name, value in _read(path) if name not in given]
    try:
        return [*(word for name, value in found for word in _words(name, value)), *rest]
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def plan_text(options: LoadOptions) -> str:
    """Return the plan file that holds these options, without those at their default; secrets become a comment."""
    default, lines = LoadOptions(), []
    for each in fields(options):
        value = getattr(options, each.name)
        if each.name == "print_plan" or value == getattr(default, each.name):
            continue
        if _is_secret(each.name, value):
            lines.append(f"# {each.name} {_SECRET}")
        else:
            is_time = each.metadata.get("read") is seconds_of
            plain = time_word(value) if is_time else str(value) if isinstance(value, Path) else value
            lines.append(f"{each.name} = {_toml(plain)}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    """Return a value as TOML; a letter that drives terminals, or that TOML does not take, is escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def _read(path: Path) -> list[tuple[str, Any]]:
    """Return each option of the file, ``--name``, with its value; BadInput for what is no option or a secret."""
    try:
        table = tomllib.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not TOML: {error}") from None
    by_name = {each.name: each for each in fields(LoadOptions) if each.name != "print_plan"}
    known = [*by_name]
    found: dict[str, Any] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in known:
            raise BadInput(f"{path}: {key}: no option of load: {did_you_mean(name, known, otherwise='see --help')}")
        if _is_secret(name, value):
            raise BadInput(f"{path}: {key} {_SECRET}")
        if isinstance(value, dict) and name not in JSON_VALUES:
            raise BadInput(f"{path}: {key}: give one value or a list")
        option = f"--{name.replace('_', '-')}"
        if option in found:
            raise BadInput(f"{path}: {key} stands there under both its names: leave one out")
        _check_form(path, key, by_name[name], value)
        found[option] = value
    return [*found.items()]


def _check_form(path: Path, key: str, option: Field[Any], value: Any) -> None:
    """Raise BadInput for a list where one value is wanted, none where one is, and what is no switch for a switch."""
    if option.type is bool and not isinstance(value, bool):
        raise BadInput(f"{path}: {key} = {json.dumps(value, default=str)}: give true or false")
    if isinstance(value, list) and option.default_factory is MISSING:
        raise BadInput(f"{path}: {key}: give one value")
    if option.name in MANY_NEEDED:
        check_not_empty(f"{path}: {key}", value)


def _is_secret(name: str, value: Any) -> bool:
    """Return whether this is a header's value, or an address with a password."""
    if name == "header":
        return True
    texts = value if isinstance(value, list) else [value]
    return name in ("host", "base_url", "otlp") and any(masked_address(str(text)) != text for text in texts)


def _words(name: str, value: Any) -> list[str]:
    """Return the command-line words of an option; a table has a value, or a list of several, for each key."""
    if name != "--think" and isinstance(value, bool):
        return [name] if value else []
    if isinstance(value, dict):
        texts = pairs_in(value, name.removeprefix("--"))
    else:
        texts = [str(each) for each in (value if isinstance(value, list) else [value])]
    return [word for text in texts for word in ([f"{name}={text}"] if text.startswith("-") else [name, text])]
