"""The example for CI would run: its YAML parses, and each option and expression in it exists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest
import yaml

from structbench.cli import command_module
from structbench.comparison.pairing import check_fields
from structbench.gates.expressions import parse_change, parse_limits, parse_slo
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
PARSERS = {"--slo": parse_slo, "--fail-on": parse_change, "--goodput": parse_limits}


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / name).read_text(), re.M | re.S)


def workflow() -> Any:
    (text,) = blocks("ci.md", "yaml")
    return yaml.safe_load(text)


def commands() -> Iterator[list[str]]:
    scripts = [step["run"] for job in workflow()["jobs"].values() for step in job["steps"] if "run" in step]
    for script in [*scripts, *blocks("ci.md", "sh"), *blocks("compare.md", "sh")]:
        for line in script.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["structbench"]:
                yield words[1:]


def options(command: str) -> set[str]:
    found = {"--help"}
    for field in fields(command_module(command).Options):
        found |= set(field.metadata.get("args", [f"--{field.name.replace('_', '-')}"]))
    return found


@pytest.mark.parametrize("words", list(commands()), ids=lambda words: " ".join(words)[:60])
def test_each_command_line_of_the_docs_would_be_taken(words: list[str]) -> None:
    command, option = words[0], ""
    known = options(command)
    for word in words[1:]:
        if word.startswith("-"):
            assert word in known, f"{command} has no {word}"
            option = word
        elif option in PARSERS:
            PARSERS[option](word)
        elif option == "--across":
            check_fields([word])


def test_the_workflow_does_what_it_says() -> None:
    told = workflow()
    (job,) = told["jobs"].values()
    names = [command[0] for command in commands()]
    assert {"load", "compare"} <= set(names)
    uses = [step.get("uses", "") for step in job["steps"]]
    for action in ("checkout", "setup-python", "cache", "cache/restore", "cache/save", "upload-artifact"):
        assert any(use.startswith(f"actions/{action}@") for use in uses), action
    assert all("run" in step or "uses" in step for step in job["steps"])
    (kept,) = (step for step in job["steps"] if "upload-artifact" in step.get("uses", ""))
    assert "always()" in kept["if"], "results are kept when a gate fails"


def test_main_gets_a_new_baseline_also_where_it_differs_from_the_old_one() -> None:
    """Else a baseline that is no longer comparable would fail every build for ever."""
    (job,) = workflow()["jobs"].values()
    steps = {step.get("name"): step for step in job["steps"]}
    assert list(steps).index("Load") < list(steps).index("Compare") < list(steps).index("New baseline")
    for name in ("New baseline", "Keep the baseline"):
        condition = steps[name]["if"]
        assert "!cancelled()" in condition, "a step that only names an outcome is skipped after a failed one"
        assert f"steps.{steps['Load']['id']}.outcome == 'success'" in condition
        assert "success()" not in condition
        assert "github.ref == 'refs/heads/main'" in condition


def test_the_exit_codes_are_told() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    assert re.findall(r"^\| (\d+) \|", readme, re.M) == ["0", "1", "2", "99", "130"]
