"""The demo measures what is there, says what that is."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from loadgen.api import ollama_server
from loadgen.simulator import Profile, Simulator
from structbench import cli
from structbench.commands import demo as demo_module
from structbench.commands import load
from structbench.commands.demo import LIMIT_S, demo_options
from structbench.options import LoadOptions
from structbench.run.settings import settings_of
from tests.support.loads import FAST


def test_with_ollama_it_measures_the_first_default_model_that_is_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[LoadOptions] = []
    monkeypatch.setattr(load, "run", lambda options: asked.append(options) or 7)
    with Simulator({"llama3.2:1b": FAST, "smollm2:360m": FAST, "other": FAST}) as sim:
        monkeypatch.setenv("OLLAMA_HOST", sim.url)
        assert cli.main(["demo", "--db", "mine.duckdb"]) == 7
    (options,) = asked
    assert (options.models, options.simulate, options.db) == (["smollm2:360m"], False, Path("mine.duckdb"))
    assert options.suites == ["text", "json", "tools"]
    assert options.duration is not None
    assert LIMIT_S + options.grace < 85, "README promises 90 seconds"
    settings_of(options)
    assert capsys.readouterr().out == f"Measuring smollm2:360m on Ollama 0.33.0 at {sim.url}.\n"


def test_with_none_of_them_it_measures_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    with Simulator({"big:7b": replace(FAST, size=9_000), "small:1b": replace(FAST, size=2_000)}) as sim:
        monkeypatch.setenv("OLLAMA_HOST", sim.url)
        options, text = demo_options("x.duckdb")
    assert (options.models, options.simulate) == (["small:1b"], False)
    assert text.startswith("Measuring small:1b on Ollama")


@pytest.mark.parametrize("there", [True, False])
def test_without_it_measures_the_simulated_server_and_says_so(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    if there:
        monkeypatch.setattr(ollama_server, "smallest", lambda server, most: [])  # noqa: ARG005
        with Simulator({"vectors": FAST}) as sim:
            monkeypatch.setenv("OLLAMA_HOST", sim.url)
            options, text = demo_options("x.duckdb")
        assert f"because Ollama at {sim.url} has no model that answers prompts" in text
    else:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{taken.getsockname()[1]}")
            options, text = demo_options("x.duckdb")
        assert "because no server answers at http://127.0.0.1:" in text
    assert "SIMULATED" in text
    assert "figures are made up" in text
    assert "\n" not in text
    assert (options.simulate, options.db) == (True, Path("x.duckdb"))
    settings_of(options)


@pytest.mark.slow
def test_a_server_too_slow_for_it_ends_the_demo_in_good_order(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo_module, "LIMIT_S", 3)
    slow = Profile(tokens_per_s=2.0, prompt_tokens_per_s=1000.0)
    with Simulator({"gemma3n": slow}) as sim:
        monkeypatch.setenv("OLLAMA_HOST", sim.url)
        assert cli.main(["demo", "--db", str(tmp_path / "demo.duckdb")]) == 0
    assert "The demo stopped after 3 s" in capsys.readouterr().out
