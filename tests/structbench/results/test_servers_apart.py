"""Runs on several servers: each has a name of its own, and words and comparisons tell them apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from structbench.comparison.pairing import pair
from structbench.errors import BadInput
from structbench.formatting import identity_text, place_text, server_text, version_text
from structbench.gates.slo import rule_of
from structbench.reports.headline import headline_of
from structbench.results.figures import figures_of
from structbench.results.groups import run_groups
from structbench.results.selection import select_runs
from structbench.store import Reader, Store, run_columns
from tests.support.comparisons import config, requests

OLLAMA = {"server_address": "http://127.0.0.1:11434", "server_version": "0.5.4", "model_digest": "a" * 64}
LLAMA = {"server_address": "http://127.0.0.1:8080/v1", "server_version": "llama.cpp b7", "model_digest": "9 bytes",
         "api": "openai"}  # fmt: skip
RUNS: dict[str, tuple[dict[str, Any], str | None]] = {
    "own": (OLLAMA, "ollama"),
    "ollama_v1": ({**OLLAMA, "server_address": "http://127.0.0.1:11434/v1", "server_version": "ollama 0.5.4",
                   "api": "openai"}, "ollama"),
    "llama": (LLAMA, "llama.cpp"),
    "newer": ({**LLAMA, "server_version": "llama.cpp b8"}, "llama.cpp"),
    "elsewhere": ({**OLLAMA, "server_address": "http://10.0.0.2:11434"}, "ollama"),
    "old": ({**OLLAMA, "server_version": "0.4.0"}, None),
    "unknown": ({**LLAMA, "server_address": "https://gw/llm", "server_version": ""}, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    path = tmp_path_factory.mktemp("servers") / "s.duckdb"
    with Store(path) as store:
        for name, (fields, kind) in RUNS.items():
            used = config(**fields)
            row = {**run_columns(used), "run_id": name, "status": "complete", "verdict": "valid", "server_kind": kind,
                   "api": None if name == "old" else used.api, "context_tokens": 4096}  # fmt: skip
            store.append("runs", row)
            for each in requests(80) if name in ("own", "llama") else ():
                store.append("requests", {**each, "run_id": name})
    with Reader(path) as opened:
        yield opened


@pytest.mark.parametrize(
    ("word", "chosen"),
    [
        ("server=ollama", {"own", "ollama_v1", "elsewhere", "old"}),
        ("llama.cpp", {"llama", "newer"}),
        ("127.0.0.1:8080", {"llama", "newer"}),
        ("http://127.0.0.1:8080/v1", {"llama", "newer"}),
        ("server=http://127.0.0.1:11434", {"own", "ollama_v1", "old"}),
        ("gw/llm", {"unknown"}),
        ("b8", {"newer"}),
        ("version=llama.cpp b7", {"llama"}),
        ("version=0.5.4", {"own", "ollama_v1", "elsewhere"}),
        ("api=openai", {"ollama_v1", "llama", "newer", "unknown"}),
        ("openai", {"ollama_v1", "llama", "newer", "unknown"}),
        ("api=ollama", {"own", "elsewhere", "old"}),
    ],
)
def test_a_word_selects_the_runs_of_a_server(reader: Reader, word: str, chosen: set[str]) -> None:
    assert set(select_runs(reader, [word])) == chosen


def test_a_word_for_a_server_and_an_api_is_refused(reader: Reader) -> None:
    with pytest.raises(BadInput, match="'ollama' is both a server and a api: write server=ollama or api=ollama"):
        select_runs(reader, ["ollama"])


def names(reader: Reader, *runs: str) -> dict[str, str]:
    return {group.run_ids[0]: group.name for group in run_groups(reader, runs, pool=False)}


def test_runs_on_several_servers_are_named_by_them_and_not_by_what_follows_from_that(reader: Reader) -> None:
    assert names(reader, "own", "llama", "ollama_v1") == {
        "own": "m:1b json c=1 (ollama at 127.0.0.1:11434)",
        "ollama_v1": "m:1b json c=1 (ollama (openai) at 127.0.0.1:11434)",
        "llama": "m:1b json c=1 (llama.cpp (openai) at 127.0.0.1:8080)",
    }
    assert names(reader, "llama", "unknown")["unknown"] == "m:1b json c=1 (server (openai) at gw/llm)"
    assert names(reader, "own")["own"] == "m:1b json c=1"


def test_two_versions_of_one_server_among_several_stay_apart(reader: Reader) -> None:
    found = names(reader, "own", "llama", "newer")
    assert found["newer"] == "m:1b json c=1 (llama.cpp (openai) at 127.0.0.1:8080, server_version llama.cpp b8)"
    assert found["own"] == "m:1b json c=1 (ollama at 127.0.0.1:11434)"
    assert names(reader, "llama", "newer")["llama"] == "m:1b json c=1 (server_version llama.cpp b7)"


def paired(reader: Reader, a: str, b: str) -> set[tuple[str, str]]:
    sides = [run_groups(reader, words.split(), pool=True) for words in (a, b)]
    return {(each.a.run_ids[0], each.b.run_ids[0]) for each in pair(*sides).pairs if not each.blocking}


@pytest.mark.parametrize(
    ("a", "b", "pairs"),
    [
        ("own", "llama", {("own", "llama")}),
        ("own", "ollama_v1", {("own", "ollama_v1")}),
        ("own llama", "old newer", {("own", "old"), ("llama", "newer")}),
        ("own llama", "elsewhere newer", {("own", "elsewhere"), ("llama", "newer")}),
    ],
)
def test_servers_are_compared_and_each_with_itself_where_both_sides_have_it(
    reader: Reader, a: str, b: str, pairs: set[tuple[str, str]]
) -> None:
    assert paired(reader, a, b) == pairs


def test_the_headline_names_the_server_and_each_that_meets_the_rule(reader: Reader) -> None:
    groups = run_groups(reader, ["own", "llama"], pool=False)
    found = headline_of(groups, figures_of(reader, groups, None), rule_of(["correct>=90%"]))
    assert {candidate.server for candidate in found.candidates} == {
        "ollama at 127.0.0.1:11434", "llama.cpp (openai) at 127.0.0.1:8080",
    }  # fmt: skip
    assert found.text.startswith("m:1b at c=1 (")
    assert "So does m:1b at c=1 (" in found.text
    alone = headline_of(groups[:1], figures_of(reader, groups[:1], None), rule_of(["correct>=90%"]))
    assert alone.text.startswith("m:1b at c=1 meets the rule")


def test_texts_for_servers_and_models() -> None:
    assert place_text("http://h:1/v1") == place_text("h:1") == place_text("h:1/") == "h:1"
    assert place_text(None) == "–"
    assert server_text(None, None, None) == "ollama at –"
    assert version_text("llama.cpp", "llama.cpp b7", "openai") == "llama.cpp b7"
    assert version_text("ollama", "0.5.4", "ollama") == version_text(None, "0.5.4", None) == "ollama 0.5.4"
    assert version_text(None, "", "openai") == "server"
    assert identity_text("a" * 64) == "a" * 12
    assert identity_text("sha256:" + "a" * 64) == "a" * 12
    assert identity_text("9 bytes, 4 parameters") == "9 bytes, 4 parameters"
    assert identity_text("name:m") == identity_text(None) == ""
