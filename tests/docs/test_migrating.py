"""docs/migrating.md against the code: every command line in it is one, and every earlier name has its answer."""

from __future__ import annotations

import re
import shlex

import pytest

from structbench.cli import command_module, parser_of
from tests.support.loads import ROOT

TEXT = (ROOT / "docs" / "migrating.md").read_text()
LINES = [
    line for block in re.findall(r"```sh\n(.*?)```", TEXT, re.S) for line in block.replace("\\\n", "").splitlines()
]
EARLIER = (
    "stats", "list", "consolidate", "clean --days 7", "clear-cache", "json_benchmark", "tool_calling_benchmark",
    "token_benchmark", "llm_correctness", "master_benchmark", "--model M", "--mean-input-tokens",
    "--stddev-input-tokens", "--mean-output-tokens", "--stddev-output-tokens", "--max-num-completed-requests N",
    "--timeout S", "--num-concurrent-requests N", "--results-dir DIR", "--llm-api openai",
)  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_every_command_line_is_understood(line: str) -> None:
    program, command, *words = shlex.split(line)
    assert program == "structbench"
    parser_of(command).parse_args(words)


def test_inline_commands_and_options_exist() -> None:
    for command, words in re.findall(r"`structbench ([a-z-]+)([^`]*)`", TEXT):
        options = command_module(command).Options.__dataclass_fields__
        for option in re.findall(r"--([a-z-]+)", words):
            assert option.replace("-", "_") in options, f"{command} --{option}"


@pytest.mark.parametrize("name", EARLIER)
def test_every_earlier_name_stands_in_a_first_column(name: str) -> None:
    assert any(f"`{name}`" in row or f"`{name} " in row for row in re.findall(r"^\| ([^|]+) \|", TEXT, re.M))
