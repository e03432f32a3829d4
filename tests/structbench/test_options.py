"""Every option that the issue and the documentation name is there, with that default."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

import pytest
from argparse_dataclass import ArgumentParser

from structbench.errors import BadInput
from structbench.options import LoadOptions, RunFilters, as_arguments, opt, seconds_of, think_value

DEFAULTS: dict[str, Any] = {
    "models": [], "suites": ["text", "json", "tools"], "tags": [], "host": [],
    "base_url": None, "api": "auto", "body": [], "model_revision": None, "limit_field": "auto",
    "api_key_env": None, "header_env": [], "header": [], "ca": None, "cert": [], "insecure": False,
    "requests": None, "concurrency": [], "rate": [], "arrival": "constant", "burstiness": 1.0, "max_in_flight": None,
    "duration": None, "warmup": None, "workers": None, "engine": "local", "ray_address": None, "nodes": None,
    "timeout": 300.0, "patience": 10.0, "grace": 10.0,
    "mean_input_tokens": 550.0, "stddev_input_tokens": 150.0, "mean_output_tokens": 150.0,
    "stddev_output_tokens": 10.0, "structured": ["format"], "think": [], "endpoint": "chat", "seed": 0, "option": [],
    "keep_alive": None, "pull": False, "embed_model": None,
    "db": Path("structbench.duckdb"), "skip_cached": False, "explain": False,
    "max_tokens_total": None, "metadata": [],
    "dry_run": False, "print_plan": False,
    "label": None, "metrics_port": 9464, "metrics_host": "127.0.0.1", "hold": 0.0, "otlp": None,
    "otlp_content": False, "max_error_rate": 1.0, "json": False, "quiet": False, "wide": False, "simulate": False,
    "until": "auto", "max_requests": 1000, "max_time": 300.0,
    "slo": [], "abort_on_slo": False, "fsync": False, "goodput": None, "junit": None,
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


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (30, 30.0), (0.5, 0.5), ("30", 30.0), ("1e3", 1000.0), ("30s", 30.0), ("1m30s", 90.0), ("1m 30s", 90.0),
        ("500ms", 0.5), ("250us", 0.00025), ("2h", 7200.0), ("1.5h", 5400.0), (".5m", 30.0), ("1d12h", 129600.0),
    ],
)  # fmt: skip
def test_a_time_is_seconds_or_has_units(given: Any, seconds: float) -> None:
    assert seconds_of(given) == pytest.approx(seconds)
    assert LoadOptions(duration=given).duration == pytest.approx(seconds)


@pytest.mark.parametrize("given", ["", "s", "30x", "30 seconds", "30s1m", "1m1m", "-30s", "3,5", "m30", [3], {}])
def test_what_is_no_time_is_refused_by_name(given: Any) -> None:
    with pytest.raises(BadInput, match=r"--timeout .*: give seconds, or a time such as 30s"):
        LoadOptions(timeout=given)


@pytest.mark.parametrize(
    ("given", "share"), [("5%", 0.05), (" 0.5 % ", 0.005), ("0.05", 0.05), (0, 0.0), (1, 1.0), ("100%", 1.0)]
)
def test_a_share_is_a_number_up_to_1_or_a_percentage(given: Any, share: float) -> None:
    assert LoadOptions(max_error_rate=given).max_error_rate == pytest.approx(share)


@pytest.mark.parametrize("given", [5, "5", -0.1, "101%", "-1%", "nan", "%", "", "x", None, [5]])
def test_what_is_no_share_is_refused_by_name(given: Any) -> None:
    """--max-error-rate 5 meant never."""
    with pytest.raises(BadInput, match=r"--max-error-rate .*: give a share from 0 to 1, or a percentage such as 5%"):
        LoadOptions(max_error_rate=given)


def test_lists_of_names_and_numbers_take_commas_and_values_that_stand_alone(tmp_path: Path) -> None:
    path = tmp_path / "one,two.jsonl"
    path.touch()
    options = LoadOptions(
        models=["a,b", "c:1b"], suites=[f"json,tools,{tmp_path}", str(path)], concurrency=["1,4", 16],  # type: ignore[list-item]
        rate=0.5, structured="format,prompt", tags="x, not:y",  # type: ignore[arg-type]
        host=["one:1,two:2", "https://user:a,b@three", "unix:///a,b.sock"],
    )  # fmt: skip
    assert options.models == ["a", "b", "c:1b"]
    assert options.suites == ["json", "tools", str(tmp_path), str(path)]
    assert (options.concurrency, options.rate) == ([1, 4, 16], [0.5])
    assert (options.structured, options.tags) == (["format", "prompt"], ["x", "not:y"])
    assert options.host == ["one:1", "two:2", "https://user:a,b@three", "unix:///a,b.sock"]
    assert RunFilters(model=["a,b"], label=["a,b"]) == RunFilters(model=["a", "b"], label=["a,b"])


@pytest.mark.parametrize(("name", "given"), [("concurrency", "1,x"), ("concurrency", 1.5), ("rate", "fast")])
def test_a_list_of_numbers_names_the_one_that_is_none(name: str, given: Any) -> None:
    with pytest.raises(BadInput, match=f"--{name} .*: give a (whole )?number"):
        LoadOptions(**{name: given})
