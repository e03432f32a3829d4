"""docs/llmperf.md against the code: every line of its tables is understood, and every command does what it says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest

from loadgen.simulator import Simulator
from structbench.cli import main, parser_of
from structbench.options import LoadOptions
from structbench.run.settings import Settings, settings_of
from structbench.suites.answer_book import answer_book
from tests.support.gateway import Refuses, gateway
from tests.support.loads import ROOT, ask
from tests.support.simulators import FAST

TEXT = (ROOT / "docs" / "llmperf.md").read_text()
BLOCK = re.findall(r"```sh\n(.*?)```", TEXT, re.S)[0]
COMMANDS = [shlex.split(line) for line in BLOCK.replace("\\\n", "").splitlines()]
LOADS = [words[2:] for words in COMMANDS if words[1] == "load"]
OPTIONS = (
    "model", "mean-input-tokens", "stddev-input-tokens", "mean-output-tokens", "stddev-output-tokens",
    "num-concurrent-requests", "timeout", "max-num-completed-requests", "additional-sampling-params", "results-dir",
    "llm-api", "metadata",
)  # fmt: skip
"""All options of both programs."""
APIS = ("openai", "anthropic", "litellm", "vertexai", "sagemaker")
VARIABLES = (
    "OPENAI_API_BASE", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GCLOUD_PROJECT_ID", "GCLOUD_REGION",
    "VERTEXAI_ENDPOINT_ID", "GCLOUD_ACCESS_TOKEN", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
    "AWS_REGION_NAME",
)  # fmt: skip
KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "LITELLM_KEY", "GCLOUD_ACCESS_TOKEN", "SAGEMAKER_TOKEN")


def rows(section: str) -> list[list[str]]:
    """The cells of the section's table, without its headings."""
    part = TEXT.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\| `.*\|$", part, re.M)]


def understood(cell: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in KEYS:
        monkeypatch.setenv(name, "sesame")
    (words,) = re.findall(r"`([^`]+)`", cell)
    options = parser_of("load").parse_args(shlex.split(words))
    assert isinstance(options, LoadOptions)
    return settings_of(options)


def test_words_of_llmperf_are_told_what_to_give_here(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("num-concurrent-requests", "max-num-completed-requests", "additional-sampling-params",
                 "results-dir", "llm-api"):  # fmt: skip
        assert main(["load", f"--{name}", "x"]) == 2
        assert re.fullmatch(rf"structbench: unknown option --{name}: it.* here.* \(docs/llmperf.md\) .*\n",
                            capsys.readouterr().err)  # fmt: skip
    for name in ("litellm", "vertexai", "sagemaker"):
        assert main(["load", "--api", name]) == 2
        assert capsys.readouterr().err.startswith(f"structbench: --api {name}: --api openai speaks to it")


def test_every_option_of_both_programs_has_its_line() -> None:
    named = [re.findall(r"--([a-z-]+)", line[0])[0] for line in rows("Options")]
    assert tuple(named) == OPTIONS


@pytest.mark.parametrize("line", rows("Options"), ids=lambda line: line[0].split()[0])
def test_what_an_option_is_called_here_is_understood(line: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings, plain = understood(line[1], monkeypatch), settings_of(LoadOptions())
    assert settings != plain or line[0].startswith("`--mean") or "stddev-input" in line[0], "it changes something"


def test_sampling_parameters_and_metadata_are_the_same_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = {line[0].split()[0].strip("`"): line for line in rows("Options")}
    given = json.loads(shlex.split(by_name["--additional-sampling-params"][0].strip("`"))[1])
    (variant,) = understood(by_name["--additional-sampling-params"][1], monkeypatch).variants
    assert variant.body == given
    assert understood(by_name["--metadata"][1], monkeypatch).metadata == {"name": "foo", "bar": "1"}


def test_every_api_and_variable_has_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tuple(line[0].strip("`") for line in rows("APIs")) == APIS
    assert [name for name in VARIABLES if f"`{name}`" not in " ".join(line[2] for line in rows("APIs"))] == []
    for line in rows("APIs"):
        assert understood(line[1], monkeypatch).api == ("anthropic" if "anthropic" in line[0] else "openai")


def front_of(options: LoadOptions, base: str) -> tuple[Refuses, str]:
    """What a provider's front door refuses (another key, another path), and the path of requests."""
    path = base + ("/v1/messages" if options.api == "anthropic" else "/chat/completions")
    key = options.api_key_env or ("ANTHROPIC_API_KEY" if options.api == "anthropic" else "OPENAI_API_KEY")

    def refuses(asked: str, headers: Mapping[str, str], body: bytes) -> int | None:  # noqa: ARG001
        if f"Bearer key of {key}" != headers.get("authorization"):
            return 401
        return None if asked == path else 404

    return refuses, path


@pytest.mark.slow
@pytest.mark.parametrize("words", LOADS, ids=lambda words: words[words.index("--models") + 1])
def test_every_load_runs_against_the_simulated_server_behind_its_providers_path_and_key(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = parser_of("load").parse_args(words)
    assert isinstance(options, LoadOptions)
    (model,) = options.models
    given = options.base_url or (options.host[0] if options.host else "")
    base = re.sub(r"^https?://[^/]+", "", given) or ("" if options.api == "anthropic" else "/v1")
    refuses, path = front_of(options, base)

    def path_there(asked: str) -> str:
        return asked if options.api == "anthropic" else "/v1" + asked.removeprefix(base)

    with Simulator({model: FAST}, answer_book(0)) as sim, gateway(sim.url, refuses, path_there) as front:
        address = front.url + base
        for name in KEYS:
            monkeypatch.setenv(name, f"key of {name}")
        monkeypatch.setenv("OPENAI_API_BASE", address)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
        here = [address if word == given else word for word in words]
        for option in ("--requests", "--metrics-port", "--db"):
            if option in here:
                del here[here.index(option) : here.index(option) + 2]
        db = tmp_path / "s.duckdb"
        assert main(["load", *here, "--requests", "3", "--metrics-port", "0", "--db", str(db), "--quiet"]) == 0
        assert {each["model"] for each in sim.truth()["requests"] if each["outcome"] == "completed"} == {model}
    assert front.let_in[path] >= 3
    assert not front.turned_away[path]
    assert ask(db, "SELECT count(*) FROM requests WHERE error_kind IS NULL AND output_tokens > 0") == [(3,)]
    assert main(["export", "--format", "llmperf", "--db", str(db), "-o", str(tmp_path / "out")]) == 0
    assert len(list((tmp_path / "out").glob("*_summary.json"))) == 1


def test_the_command_that_exports_is_understood() -> None:
    (words,) = [words[2:] for words in COMMANDS if words[1] == "export"]
    parser_of("export").parse_args(words)
