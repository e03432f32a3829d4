"""A plan file holds what the command line holds, and no secret."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structbench.cli import main
from structbench.errors import BadInput
from structbench.options import LoadOptions
from structbench.run.plan_file import plan_text, with_plan


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "plan.toml"
    path.write_text(text)
    return str(path)


def test_a_plan_is_the_words_that_it_stands_for_and_words_beside_it_win(tmp_path: Path) -> None:
    plan = written(
        tmp_path,
        """
models = ["a", "b"]
concurrency = [1, 4]
duration = "1m30s"
think = true
seed = -3
skip-cached = true
pull = false
[option]
num_ctx = [2048, 8192]
temperature = 0
""",
    )
    assert with_plan([plan, "--models", "c", "--seed=5"]) == [
        "--concurrency", "1", "--concurrency", "4", "--duration", "1m30s", "--think", "True", "--skip-cached",
        "--option", "num_ctx=2048", "--option", "num_ctx=8192", "--option", "temperature=0",
        "--models", "c", "--seed=5",
    ]  # fmt: skip
    assert with_plan(["--models", "c"]) == ["--models", "c"]


def test_a_printed_plan_gives_the_same_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--models", "a,b", "--rate", "0.5", "--duration", "30s", "--think", "on,off", "--db", "x/y.duckdb",
             "--option", 'stop=say "x"', "num_ctx=2048,8192", "--quiet", "--slo", "ttft_p95<0.5"]  # fmt: skip
    assert main(["load", *given, "--print-plan"]) == 0
    plan = written(tmp_path, capsys.readouterr().out)
    assert main(["load", plan, "--print-plan"]) == 0
    assert capsys.readouterr().out == Path(plan).read_text()


@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip))
def test_a_printed_plan_is_toml_that_no_terminal_obeys(text: str) -> None:
    printed = plan_text(LoadOptions(label=text))
    assert tomllib.loads(printed) == {"label": text}
    assert all(line.isprintable() for line in printed.splitlines())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modles = ['a']", "modles: no option of load: did you mean models?"), ("a = ", "not TOML"),
        ("header = ['X-A=b']", "header would be a secret"), ("host = 'http://u:p@x'", "host would be a secret"),
        ("[option]\nnum_ctx = 2020-01-01", "option: a value that JSON does not have"),
        ("[body]\nx = [nan]", "body: a value that JSON does not have"),
        ("models = []", "models has no value: give at least one"), ("slo = []", "slo has no value"),
        ("option = {num_ctx = []}", "num_ctx has no value"), ("requests = [5, 6]", "requests: give one value"),
        ("label = ['a', 'b']", "label: give one value"), ("quiet = 'yes'", 'quiet = "yes": give true or false'),
        ("skip_cached = 1", "skip_cached = 1: give true or false"),
        ("max-requests = 5\nmax_requests = 6", "max_requests stands there under both its names"),
        ("[models]\na = 1", "models: give one value or a list"), ("print_plan = true", "print_plan: no option"),
    ],
)  # fmt: skip
def test_what_a_plan_cannot_hold_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said.replace("?", "\\?")):
        with_plan([written(tmp_path, text)])
    with pytest.raises(BadInput, match="there is no plan file json: a suite is --suites json"):
        with_plan(["json"])
    with pytest.raises(BadInput, match=r"none\.toml cannot be read: No such file"):
        with_plan([str(tmp_path / "none.toml")])


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a = " + "9" * 5000, "a = '\xff'"])
def test_a_plan_that_no_parser_takes_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput, match=r"plan\.toml: not TOML"):
        with_plan([str(path)])


def test_a_pipe_is_no_plan(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "plan.toml")
    with pytest.raises(BadInput, match="not a regular file"):
        with_plan([str(tmp_path / "plan.toml")])


def test_secrets_never_come_into_a_plan() -> None:
    text = plan_text(LoadOptions(header=["X-Team=secret"], host=["https://user:secret@gpu"], models=["m"]))
    assert "secret@" not in text
    assert "=secret" not in text
    assert 'models = ["m"]' in text
