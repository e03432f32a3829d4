"""Every option that the issue and the documentation name is there, with that default."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import pytest
from argparse_dataclass import ArgumentParser

from structbench.options import LoadOptions, as_arguments, opt, think_value

DEFAULTS: dict[str, Any] = {
    "models": ["gemma3n", "smollm2:360m", "llama3.2:1b"], "suites": ["text", "json", "tools"], "tags": [], "host": [],
    "base_url": None, "api": "auto", "body": [], "model_revision": None,
    "api_key_env": None, "header_env": [], "header": [], "ca": None, "cert": [], "insecure": False,
    "requests": None, "concurrency": [], "rate": [], "arrival": "constant", "burstiness": 1.0, "max_in_flight": None,
    "duration": None, "warmup": None, "workers": None, "timeout": 300.0, "patience": 10.0, "grace": 10.0,
    "mean_input_tokens": 550.0, "stddev_input_tokens": 150.0, "mean_output_tokens": 150.0,
    "stddev_output_tokens": 10.0, "structured": ["format"], "think": None, "endpoint": "chat", "seed": 0, "option": [],
    "keep_alive": None, "pull": False, "embed_model": None,
    "db": Path("structbench.duckdb"), "skip_cached": False, "explain": False,
    "max_tokens_total": None, "metadata": [],
    "dry_run": False, "label": None, "metrics_port": 9464, "metrics_host": "127.0.0.1", "hold": 0.0, "otlp": None,
    "otlp_content": False, "max_error_rate": 1.0, "json": False, "quiet": False, "simulate": False, "slo": [],
    "abort_on_slo": False, "fsync": False, "goodput": None, "junit": None,
}  # fmt: skip


def test_names_and_defaults_are_those_of_the_documentation() -> None:
    options = LoadOptions()
    assert {field.name: getattr(options, field.name) for field in fields(options)} == DEFAULTS


def test_lists_are_not_shared_between_two_loads() -> None:
    LoadOptions().models.append("another")
    assert LoadOptions().models == DEFAULTS["models"]


@dataclass
class Words:
    """Options of the kinds that ``load`` has none of."""

    words: list[str] = opt((), "several words", many=True, args=["words"])
    output: Path = opt(Path("-"), "a short name too", type=Path, args=["-o", "--output"])


@dataclass
class Statement:
    """One word, or none."""

    statement: Optional[str] = opt(None, "an optional word", args=["statement"])


@pytest.mark.parametrize(
    ("line", "want"),
    [
        ("", Words()),
        ("a b", Words(words=["a", "b"])),
        ("-o x", Words(output=Path("x"))),
        ("--output x a", Words(words=["a"], output=Path("x"))),
        ("", Statement()),
        ("a", Statement("a")),
    ],
)
def test_words_and_short_names_are_read(line: str, want: object) -> None:
    assert ArgumentParser(type(want)).parse_args(line.split()) == want


def test_every_option_says_what_it_is_for() -> None:
    assert all(len(field.metadata["help"]) > 5 for field in fields(LoadOptions))


@pytest.mark.parametrize(
    ("text", "value"),
    [("on", True), ("ON", True), ("true", True), ("off", False), ("False", False), ("high", "high"), ("low", "low")],
)
def test_think_is_a_switch_or_a_level(text: str, value: bool | str) -> None:
    assert think_value(text) is value or think_value(text) == value
    assert type(think_value(text)) is type(value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, ""),
        ({"skip_cached": True, "db": Path("x.duckdb")}, "--db x.duckdb --skip-cached"),
        ({"rate": [2.0, 0.5], "duration": 30.0}, "--rate 2 0.5 --duration 30"),
        ({"models": ["a", "b"], "option": ["x=-1", "y=a b"], "seed": -3}, "--models a b --seed=-3 --option x=-1 y=a b"),
        ({"label": "-x", "max_error_rate": 0.125, "think": "off"}, "--think off --label=-x --max-error-rate 0.125"),
    ],
)
def test_the_command_that_continues_a_load_gives_the_same_options(given: dict[str, Any], words: str) -> None:
    options = LoadOptions(**given)
    assert " ".join(as_arguments(options)) == words
    assert ArgumentParser(LoadOptions).parse_args(as_arguments(options)) == options
