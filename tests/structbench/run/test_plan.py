"""What was done is not done again, and what was not done is never taken for done."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from loadgen.api.server import Server
from loadgen.simulator import Profile, Simulator
from structbench.errors import BadInput
from structbench.options import DEFAULT_MODELS, LoadOptions
from structbench.run import plan as module
from structbench.run.cells import build_cells
from structbench.run.plan import (
    PlannedCell,
    check_unlisted,
    estimate,
    explain,
    find_server,
    find_servers,
    plan,
    pull_missing,
    who_is_it,
    who_sends,
    with_models,
)
from structbench.run.settings import settings_of
from structbench.store import Store, StoredRun, run_columns
from tests.support.loads import FAST, MODELS, load, small
from tests.support.scripted_server import Peer, Scripted

SERVER = Server("http://127.0.0.1:11434", "0.33.0", {"a:latest": "d"})


class Memory:
    """A store that found what it is told."""

    def __init__(self, **found: Any) -> None:
        self.found = found

    def find(self, hashes: list[str]) -> dict[str, StoredRun]:
        if not self.found:
            return {}
        told: dict[str, Any] = {"run_id": "r1", "requests": 6, "asked_requests": 6, "next_segment": 2, "label": None,
                                "started_at": None}  # fmt: skip
        return dict.fromkeys(hashes, StoredRun(**{**told, **self.found}))


def planned(store: Memory, **given: Any) -> PlannedCell:
    options = LoadOptions(**{"models": ["a"], "suites": ["numbers"], "requests": 6, **given})
    settings = settings_of(options)
    (cell,) = plan(settings, build_cells(settings, [SERVER]), store)  # type: ignore[arg-type]
    return cell


@pytest.mark.parametrize("skip_cached", [False, True])
def test_what_never_ran_is_new(skip_cached: bool) -> None:
    cell = planned(Memory(), skip_cached=skip_cached)
    assert (cell.cache, cell.continued, cell.missing) == ("new", None, range(6))


def test_a_complete_run_is_skipped_only_when_asked_to() -> None:
    skipped = planned(Memory(status="complete"), skip_cached=True)
    assert (skipped.cache, skipped.missing, skipped.why) == ("skipped", (), "run r1 is complete")
    again = planned(Memory(status="complete"))
    assert (again.cache, again.continued, again.missing) == ("new", None, range(6))
    assert "--skip-cached would skip it" in again.why


def test_an_interrupted_run_goes_on_with_what_is_missing() -> None:
    partial = Memory(status="partial", done=frozenset({0, 1, 4}))
    resumed = planned(partial, skip_cached=True)
    assert (resumed.cache, resumed.missing, resumed.why) == ("resumed", [2, 3, 5], "run r1 has 3 of 6 requests")
    assert resumed.continued is not None
    assert (resumed.continued.run_id, resumed.continued.next_segment) == ("r1", 2)
    again = planned(partial)
    assert (again.cache, again.continued, again.missing) == ("new", None, range(6))
    assert "--skip-cached would continue it" in again.why


def test_an_interrupted_run_with_every_row_only_lacks_its_end() -> None:
    cell = planned(Memory(status="partial", done=frozenset(range(6))), skip_cached=True)
    assert (cell.cache, cell.missing) == ("resumed", [])


def test_a_skipped_run_whose_measurement_is_invalid_says_how_to_make_it_again() -> None:
    found = Memory(status="complete", done=frozenset(range(6)), requests=6, is_invalid=True)
    why = planned(found, skip_cached=True).why
    assert why == "run r1 is complete, but its measurement is invalid: without --skip-cached it is made again"


@pytest.mark.parametrize(("state", "skipped"), [("met", True), ("not met", True), ("not decided", False)])
def test_a_complete_run_is_done_if_it_decides_the_rule(
    state: str, skipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "_state", lambda *_: state)
    found = Memory(status="complete", done=frozenset(range(6)), requests=6)
    cell = planned(found, skip_cached=True, requests=None)
    if skipped:
        assert (cell.cache, cell.why) == ("skipped", f"run r1 is complete, and its rule is {state}")
    else:
        assert (cell.cache, cell.missing) == ("resumed", [*range(6, 1000)])
        assert cell.why == "run r1 has 6 requests, by which its rule is not decided"


class Held(Memory):
    """A store that holds runs under some hashes only."""

    def __init__(self, runs: dict[str, dict[str, Any]]) -> None:
        self.runs = runs

    def find(self, hashes: list[str]) -> dict[str, StoredRun]:
        told: dict[str, Any] = {
            "requests": 6,
            "asked_requests": 6,
            "next_segment": 1,
            "label": None,
            "started_at": None,
        }
        return {key: StoredRun(run_id=key, **{**told, **self.runs[key]}) for key in hashes if key in self.runs}


def test_what_is_stored_under_another_name_of_the_model_is_used_and_keeps_its_name() -> None:
    settings = settings_of(LoadOptions(models=["a"], suites=["numbers"], requests=6))
    short, long = (build_cells(settings, [SERVER])[0].under(name) for name in ("a", "a:latest"))
    complete, partial = {"status": "complete"}, {"status": "partial", "done": frozenset({0, 1})}

    def plan_of(runs: dict[str, dict[str, Any]], *, skip_cached: bool = True) -> tuple[str, str]:
        cell = planned(Held(runs), models=["a:latest"], skip_cached=skip_cached)
        return cell.cache, cell.cell.config.model

    assert plan_of({long.config_hash: complete}) == ("skipped", "a:latest")
    assert plan_of({long.config_hash: partial}) == ("resumed", "a:latest")
    assert plan_of({long.config_hash: partial, short.config_hash: complete}) == ("skipped", "a")
    assert plan_of({long.config_hash: complete, short.config_hash: partial}) == ("skipped", "a:latest")
    assert plan_of({long.config_hash: complete}, skip_cached=False) == ("new", "a")
    assert plan_of({}) == ("new", "a")


def test_a_conversation_that_lacks_a_turn_goes_on_from_its_first() -> None:
    cell = planned(Memory(status="partial", done=frozenset({0, 2, 3})), skip_cached=True, suites=["turns"])
    assert (cell.missing, cell.why) == ([0, 1, 4, 5], "run r1 has 2 of 6 requests")


def test_each_cell_has_a_state_of_its_own() -> None:
    options = LoadOptions(models=["a"], suites=["numbers"], requests=6, concurrency=[1, 2, 4], skip_cached=True)
    settings = settings_of(options)
    cells = build_cells(settings, [SERVER])
    told: dict[str, Any] = {"run_id": "r1", "requests": 6, "next_segment": 2, "label": None, "started_at": None}
    store: Any = Memory()
    stored = {
        cells[0].config_hash: StoredRun(**told, status="complete"),
        cells[2].config_hash: StoredRun(**told, status="partial", done=frozenset({5})),
    }
    store.find = lambda hashes: {key: run for key, run in stored.items() if key in hashes}
    found = [(each.cell.load_name, each.cache, each.missing) for each in plan(settings, cells, store)]
    assert found == [("c=1", "skipped", ()), ("c=2", "new", range(6)), ("c=4", "resumed", [0, 1, 2, 3, 4])]


@pytest.mark.parametrize("requests", [None, 6])
def test_a_cell_bound_by_time_starts_again(requests: int | None) -> None:
    found = Memory(status="partial", done=frozenset({0}))
    cell = planned(found, skip_cached=True, duration=3.0, requests=requests)
    assert (cell.cache, cell.continued) == ("new", None)
    assert cell.missing == (None if requests is None else range(6))
    assert "starts again" in cell.why


FOR_3_S = {"asked_requests": None, "requests": 5, "asked_duration_s": 3.0}


@pytest.mark.parametrize(
    ("had", "asked", "cache"),
    [
        ({"asked_requests": 6, "requests": 6}, {"requests": 6}, "skipped"),
        ({"asked_requests": 9, "requests": 9}, {"requests": 6}, "skipped"),
        ({"asked_requests": 9, "requests": 8}, {"requests": 9}, "skipped"),  # a second turn never arose
        (FOR_3_S, {"requests": 5}, "skipped"),
        (FOR_3_S, {"requests": 6}, "resumed"),
        (
            FOR_3_S,
            {"requests": None, "duration": 3.0},
            "skipped",
        ),
        (
            FOR_3_S,
            {"requests": None, "duration": 2.0},
            "skipped",
        ),
        (FOR_3_S, {"requests": None, "duration": 3.5}, "new"),
        ({"asked_requests": 5, "requests": 5, "asked_duration_s": 9.0}, {"requests": None, "duration": 3.0}, "new"),
        ({"asked_requests": 6, "requests": 5, "asked_duration_s": 3.0}, {"requests": 6, "duration": 3.0}, "skipped"),
    ],
)
def test_a_complete_run_is_done_where_it_holds_what_is_asked_for(had: Any, asked: Any, cache: str) -> None:
    found = Memory(status="complete", done=frozenset(range(5)), **had)
    assert planned(found, skip_cached=True, **asked).cache == cache


def test_more_requests_are_added_to_a_complete_run() -> None:
    found = Memory(status="complete", done=frozenset(range(6)))
    more = planned(found, skip_cached=True, requests=8)
    assert (more.cache, more.missing, more.why) == ("resumed", [6, 7], "run r1 has 6 of 8 requests")
    assert planned(found, requests=8).why == "run r1 has 6 of 8 requests; --skip-cached would continue it"


def test_a_run_under_way_in_another_process_is_left_alone() -> None:
    cell = planned(Memory(status="running"), skip_cached=True)
    assert (cell.cache, cell.continued) == ("new", None)
    assert "still running" in cell.why


def test_the_explanation_names_the_run_that_is_nearest_and_what_differs(tmp_path: Path) -> None:
    before = planned(Memory()).cell
    with Store(tmp_path / "s.duckdb") as store:
        assert explain(planned(Memory()), store) == "no run of this config yet"
        run = {"run_id": "r1", "status": "complete", "started_at": datetime.now(UTC)}
        store.append("runs", {**run_columns(before.config), **run})
        now = planned(Memory(), option=["temperature=0.5"], concurrency=[4])
        assert explain(now, store) == (
            "no run of this config yet; it differs from run r1 in "
            "load.concurrency: 1 → 4; options.temperature: (absent) → 0.5"
        )
        assert explain(planned(Memory(status="complete")), store) == "run r1 is complete; --skip-cached would skip it"


def test_missing_models_are_all_named_with_the_command_that_pulls_them() -> None:
    with Simulator(MODELS) as sim, ExitStack() as stack:
        with pytest.raises(BadInput) as caught:
            find_server(["sim:fast", "later", "nosuch:1b"], stack, host=sim.url, simulate=False, pull=False)
        assert "does not have later, nosuch:1b" in str(caught.value)
        assert "ollama pull later; ollama pull nosuch:1b" in str(caught.value)
        with pytest.raises(BadInput, match=r"sim:fats: did you mean sim:fast[?] Else run `ollama pull sim:fats`"):
            find_server(["sim:fats"], stack, host=sim.url, simulate=False, pull=False)


def test_the_model_that_compares_answers_must_be_there_too(tmp_path: Path) -> None:
    with Simulator(MODELS) as sim:
        with pytest.raises(BadInput, match="does not have later: run `ollama pull later`, or add --pull"):
            load(small(sim, tmp_path / "s.duckdb", embed_model="later"))
        assert settings_of(small(sim, tmp_path / "s.duckdb", embed_model="later")).wanted_models == (
            "sim:fast",
            "later",
        )


def test_a_model_that_is_not_there_after_its_pull_is_still_missing() -> None:
    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            answer = b'{"status": "success"}\n' if "/api/pull" in asked.head else b'{"models": [], "version": "1"}'
            peer.plain(200, answer)

    with Scripted(script) as server, ExitStack() as stack:
        found = find_server(["a"], stack, host=server.url, simulate=False, pull=True)
        with pytest.raises(BadInput, match="does not have a: run `ollama pull a`"):
            pull_missing(["a"], found, lambda _: None)


def test_pull_fetches_what_is_missing_and_says_what_cannot_be(capsys: pytest.CaptureFixture[str]) -> None:
    said: list[str] = []
    with Simulator(MODELS) as sim, ExitStack() as stack:
        models = ["later", "sim:fast"]
        server = find_server(models, stack, host=sim.url, simulate=False, pull=True)
        assert server.digest("later") is None
        server = pull_missing(models, server, said.append)
        assert said == ["pulled later"]
        assert server.digest("later")
        assert pull_missing(models, server, said.append) is server
        models.append("nosuch:1b")
        with pytest.raises(BadInput, match=r"nosuch:1b cannot be pulled: .*file does not exist"):
            pull_missing(models, server, said.append)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"pulling later \(success\) ━+ 1.0/1.0 MB ", err), "all of it"


def test_a_model_that_is_not_listed_is_asked_for_before_another_is_measured() -> None:
    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            model = asked.body["model"]
            page = {"usage": {}} if model == "alias" else {"error": {"message": f"the model {model} does not exist"}}
            peer.plain(200 if model == "alias" else 404, json.dumps(page).encode())

    with Scripted(script) as peer:
        server = Server(f"{peer.url}/v1", "", {"m": "name:m"}, "openai", listed={"m": "m"}, lists_all=False)

        def cells(*models: str) -> list[Any]:
            return build_cells(settings_of(LoadOptions(models=list(models), suites=["numbers"])), [server])

        check_unlisted(cells("m", "alias"))
        check_unlisted(cells("typo"))  # its first cell says so as early
        assert [asked.body["model"] for asked in peer.asked] == ["alias"]
        with pytest.raises(BadInput, match=r"does not have typo: it says .*: it has m: load the model there, or name"):
            check_unlisted(cells("m", "typo"))


def test_the_simulated_server_ends_with_the_load() -> None:
    with ExitStack() as stack:
        server = find_server(["gemma3n"], stack, host=None, simulate=True, pull=False)
        assert server.digest("gemma3n")
    with pytest.raises(BadInput, match="no server answers"), ExitStack() as stack:
        find_server([], stack, host=server.address, simulate=False, pull=False)


@pytest.mark.parametrize(
    ("identity", "revision", "told"),
    [
        ("d" * 64, None, f"by its digest ({'d' * 64})"),
        ("name:a:latest", None, "by its name alone (a:latest): give --model-revision, or another model of that name"),
        ("name:a:latest", "r7", "and the revision 'r7' that you give"),
        ("path:org/model", None, "by its path (org/model), whatever its files hold"),
        ("sha:0a1b", None, "by the commit of its repository (0a1b)"),
        ("9 bytes, 4 parameters, Q4, template 0a", None, "by its size, type and template (9 bytes, 4 parameters, Q4"),
    ],
)
def test_it_is_said_by_what_a_model_is_known(identity: str, revision: str | None, told: str) -> None:
    server = Server("http://h:8080/v1", "vllm 0.32.0", {"a:latest": identity}, "openai", kind="vllm")
    settings = settings_of(LoadOptions(models=["a:latest"], suites=["numbers"], model_revision=revision))
    (cell,) = build_cells(settings, [server])
    line = who_is_it(cell)
    assert line.startswith("a:latest on vllm 0.32.0 at h:8080 (API openai): known by ")
    assert told in line


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"concurrency": [1]}, "c=1: 1 worker, by its streams; the tokens/s of the warm-up decide"),
        ({"rate": [2.0]}, "rate=2/s constant: 1 worker, by its rate"),
        ({"concurrency": [8], "workers": 3}, "c=8: 3 workers, by --workers"),
    ],
)
def test_it_is_said_how_many_workers_send_and_why(given: dict[str, Any], told: str) -> None:
    settings = settings_of(LoadOptions(models=["a"], suites=["numbers"], **given))
    (cell,) = build_cells(settings, [Server("http://h:1", "0.12.0", {"a:latest": "sha256:0"}, kind="ollama")])
    assert who_sends(cell, settings.workers) == told


def chosen(there: dict[str, Profile], **given: Any) -> tuple[tuple[str, ...], str | None]:
    """The models that a load measures on a server with these, and what it says."""
    with Simulator(there) as sim, ExitStack() as stack:
        settings = settings_of(LoadOptions(host=[sim.url], **given))
        found, told = with_models(settings, find_servers(settings, stack))
        return found.models, told


def test_a_load_that_names_no_model_takes_the_default_ones_that_are_there() -> None:
    assert chosen({"llama3.2:1b": FAST, "gemma3n": FAST, "other": FAST}) == (
        ("gemma3n", "llama3.2:1b"),
        "no --models: measuring gemma3n, llama3.2:1b, the default models that are installed (not smollm2:360m)",
    )
    assert chosen({"other": FAST}, models=["other"]) == (("other",), None)
    assert chosen({"other": FAST}, pull=True)[0] == DEFAULT_MODELS


def test_with_none_of_them_it_takes_the_smallest_that_complete_and_run_there() -> None:
    models = {f"m{i}:{i}b": replace(FAST, size=i * 1000) for i in (9, 3, 4, 2)}
    others = {"nomic-embed-text": replace(FAST, size=1), "vectors": replace(FAST, size=2, capabilities=("embedding",)),
              "qwen3-coder:480b-cloud": replace(FAST, size=3)}  # fmt: skip
    assert chosen({**others, **models}) == (
        ("m2:2b", "m3:3b", "m4:4b"),
        "no --models: measuring m2:2b, m3:3b, m4:4b, the smallest that are installed",
    )


def test_a_server_on_which_none_can_be_chosen_is_told_with_what_it_has() -> None:
    settings = settings_of(LoadOptions())
    server = replace(SERVER, models={"a:latest": "d", "b:1b": "e"}, api_name="openai")
    with pytest.raises(BadInput, match=r"no --models, and of a:latest, b:1b at .* none is chosen unasked: name one"):
        with_models(settings, [server])


def test_how_long_a_load_takes_is_estimated_by_what_is_stored(tmp_path: Path) -> None:
    with Simulator({"a": FAST}) as sim, ExitStack() as stack, Store(tmp_path / "a.duckdb") as store:
        settings = settings_of(LoadOptions(host=[sim.url], models=["a"], suites=["json"], requests=8))
        cells = build_cells(settings, find_servers(settings, stack))
        planned = plan(settings, cells, store)
        assert estimate(planned, store, settings) == (
            "8 requests in 1 cell: how long that takes is not known, since nothing like it was measured"
        )
        open_loop = settings_of(LoadOptions(host=[sim.url], models=["a"], suites=["json"], requests=60, rate=[0.5]))
        planned = plan(open_loop, build_cells(open_loop, find_servers(open_loop, stack)), store)
        assert estimate(planned, store, open_loop) == "60 requests in 1 cell: about 2 min"
        settled = settings_of(LoadOptions(host=[sim.url], models=["a"], suites=["json", "tools"]))
        planned = plan(settled, build_cells(settled, find_servers(settled, stack)), store)
        assert estimate(planned, store, settled) == "at most 2,000 requests in 2 cells: at most 10 min"
