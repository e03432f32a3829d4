"""The simulated server that test files share unless they make one of their own."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import ollama
import pytest
from hypothesis import HealthCheck, settings

from loadgen.simulator import Simulator
from loadgen.types import NS, ErrorKind, RequestError, RequestRecord
from structbench.identity import config_hash
from structbench.scoring.validation import import_jsonschema
from structbench.store import Reader, Store, row_of, run_columns
from structbench.suites.answer_book import answer_book
from structbench.types import Config
from tests.support import loads as loading
from tests.support.loads import load
from tests.support.simulators import ANSWERS, MODELS

import_jsonschema()  # before a test does: with its own formats it takes a second longer

# Nothing here is judged by how fast the machine is.
settings.register_profile("structbench", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50)
settings.load_profile("structbench")

FAILED: tuple[ErrorKind, ...] = ("timeout", "dropped", "http", "http")


@pytest.fixture(scope="session", autouse=True)
def _no_calibration_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the user of this machine found with ``structbench calibrate`` adds no line to a test's load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS, ANSWERS) as running:
        yield running


@pytest.fixture
def client(sim: Simulator) -> Iterator[ollama.Client]:
    sim.reset_truth()
    with ollama.Client(sim.url) as connected:
        yield connected


@pytest.fixture(scope="session")
def results_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with four complete runs, loaded for real, and one that was interrupted, with errors.

    Made once for all processes of a run, of which the others wait for the first.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "results"
    folder.mkdir(exist_ok=True)
    path = folder / "structbench.duckdb"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            making = folder / "making" / path.name
            making.parent.mkdir()
            make_results(making)
            making.replace(path)
    return path


def make_results(path: Path) -> None:
    with Simulator(loading.MODELS, answers=answer_book(), seed=4) as server:  # answers of every kind
        load(loading.small(server, path, models=["sim:fast", "mixed"], suites=["json", "tools"], label="first",
                           concurrency=[2], skip_cached=True))  # fmt: skip
    with Store(path) as store:
        (run,) = store.query("SELECT config FROM runs WHERE model = 'mixed' AND suite = 'json'")
        config = replace(Config(**json.loads(run["config"])), server_version="0.5.4")
        store.append("runs", {**run_columns(config), "run_id": "20260101T000000-00000000", "status": "interrupted",
                              "planned": 10, "asked_requests": 10, "label": "older",
                              "started_at": "2026-01-01"})  # fmt: skip
        store.append("segments", {"run_id": "20260101T000000-00000000", "segment": 0, "status": "interrupted"})
        store.append("samples", {"run_id": "20260101T000000-00000000", "segment": 0, "sampled_at": "2026-01-01",
                                 "t_s": 0.0, "client_cpu_percent": 12.5, "in_flight": 2})  # fmt: skip
        for index, kind in enumerate(FAILED):
            failed = RequestRecord(
                index=index, worker=0, due_ns=index * NS, sent_ns=None if kind == "dropped" else index * NS + 1000,
                end_ns=index * NS + NS // 2, clock="kernel", error=RequestError(kind, f"a {kind} error", None),
            )  # fmt: skip
            turn = {0: 1, 1: 2}.get(index)
            row = row_of("20260101T000000-00000000", config_hash(config), 0, "case", 0, failed, None, turn)
            store.append("requests", row)
        for version, result in (("1", "works"), ("2", "refused")):
            probe = {"server_version": version, "server_address": "", "model": "m", "model_digest": "d", "probe": "p"}
            store.append("features", {**probe, "result": result})
    with Reader(path):
        pass


@pytest.fixture
def results(results_once: Path, tmp_path: Path) -> Path:
    """A copy of that file, to do with as one likes."""
    return Path(shutil.copy(results_once, tmp_path))
