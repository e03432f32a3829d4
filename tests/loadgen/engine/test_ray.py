"""Loads from two nodes of a Ray cluster: what is sent, on whose clock, and what death and a stop do."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadgen import OpenLoop
from loadgen.arrivals import due_offsets
from loadgen.simulator import Simulator
from structbench.suites.answer_book import answer_book
from tests.support.loads import FAST, ask, inferences, start
from tests.support.loads import until as until_within
from tests.support.ray_cluster import LocalCluster, local_cluster

pytestmark = [
    pytest.mark.ray, pytest.mark.skipif(find_spec("ray") is None, reason="needs ray: pip install 'structbench[ray]'")
]  # fmt: skip
HEAD, OTHER = "127.0.0.2", "127.0.0.3"
MS = 1_000_000
SLOW = replace(FAST, prompt_tokens_per_s=250.0)
MODELS = {"sim:fast": FAST, "slow": SLOW}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_cluster(HEAD, OTHER, GATEWAY="theirs") as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[Simulator]:
    with Simulator(MODELS, answers=answer_book()) as running:
        yield running


def words(cluster: LocalCluster, server: Simulator, db: Path, *more: str, nodes: int = 2) -> list[str]:
    return ["load", "--host", server.url, "--suites", "numbers", "--db", str(db),
            "--metrics-port", "0", "--json", "--engine", "ray", "--ray-address", cluster.address, "--nodes",
            str(nodes), "--models", *(more if more[0] in MODELS else ("sim:fast", *more))]  # fmt: skip


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a process, which does not outlive the test."""
    with start(command, folder) as process:
        try:
            yield process
        finally:
            process.kill()


until = partial(until_within, limit_s=120.0)


def load(cluster: LocalCluster, server: Simulator, db: Path, *more: str, code: int = 0, nodes: int = 2) -> str:
    """Run a load to its end; return what it printed."""
    with running(words(cluster, server, db, *more, nodes=nodes), db.parent) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    return out + err


def workers() -> list[psutil.Process]:
    """The processes of structbench that nodes have started."""
    found = []
    for process in psutil.process_iter():
        try:
            if "loadgen.engine.local_worker:main" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            pass
    return [process for process in found if any("raylet" in parent.name() for parent in process.parents())]


def seen_sending() -> list[psutil.Process]:
    """The workers and the actors that have started them: whoever dies, they are known by their process from now on."""
    found = workers()
    return [*found, *{parent for worker in found if (parent := worker.parent()) is not None}]


def all_gone(seen: list[psutil.Process]) -> bool:
    """Whether each has ended, whoever its parent is by now."""
    return not any(is_there(each) for each in seen)


def is_there(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_two_nodes_send_a_closed_loop_as_one_and_a_run_goes_on_with_another_number(
    cluster: LocalCluster, server: Simulator, tmp_path: Path
) -> None:
    db = tmp_path / "s.duckdb"
    printed = load(cluster, server, db, "slow", "--requests", "40", "--concurrency", "6", "--skip-cached")
    assert "sending from 2 nodes: 127.0.0.3, 127.0.0.2" in printed
    assert "127.0.0.2 runs the server and this command too: not enough other nodes remain" in printed
    assert ask(db, "SELECT segment, nodes, workers, status FROM segments") == [(0, 2, 2, "complete")]
    rows = ask(db, "SELECT count(*), count(DISTINCT request_index), bool_and(error_kind IS NULL) FROM requests")
    assert rows == [(40, 40, True)]
    assert [node for (node,) in ask(db, "SELECT DISTINCT node FROM requests ORDER BY 1")] == [HEAD, OTHER]
    most = ask(db, """
        WITH steps AS (SELECT sent_ns AS moment, 1 AS step FROM requests UNION ALL SELECT end_ns, -1 FROM requests)
        SELECT max(busy) FROM (SELECT sum(step) OVER (ORDER BY moment, step) AS busy FROM steps)
    """)  # fmt: skip
    assert most == [(6,)]
    told = ask(db, "SELECT node, requests, workers, clock_error_ns, start_lag_s, server_rtt_s, cpu_s, died FROM nodes "
                   "ORDER BY node")  # fmt: skip
    assert [row[0] for row in told] == [HEAD, OTHER]
    assert sum(row[1] for row in told) == 40
    assert all(row[3] > 0 and row[4] > -0.001 and row[5] > 0 and row[6] > 0 and row[7] is False for row in told)
    load(cluster, server, db, "slow", "--requests", "50", "--concurrency", "6", "--skip-cached", nodes=1)
    assert ask(db, "SELECT segment, nodes FROM segments ORDER BY 1") == [(0, 2), (1, 1)]
    assert ask(db, "SELECT count(*), count(DISTINCT run_id) FROM requests") == [(50, 1)]


def test_an_open_loop_keeps_its_one_schedule(cluster: LocalCluster, server: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    printed = load(cluster, server, db, "--requests", "60", "--rate", "40", "--arrival", "poisson", "--seed", "3",
                   "--max-in-flight", "9")  # fmt: skip
    assert "--max-in-flight 9: 5 on 1 of the nodes, 4 on the others" in printed
    due = [ns for (ns,) in ask(db, "SELECT due_ns FROM requests ORDER BY request_index")]
    planned = due_offsets(OpenLoop(rate=40.0, arrival="poisson", seed=3), 60)
    assert [ns - due[0] for ns in due] == pytest.approx([ns - planned[0] for ns in planned], abs=MS)
    stripes = Counter(ask(db, "SELECT request_index % 2, node FROM requests"))
    assert sorted(stripes.values()) == [30, 30]


def test_explain_shows_where_it_would_be_sent_from(cluster: LocalCluster, server: Simulator, tmp_path: Path) -> None:
    printed = load(cluster, server, tmp_path / "s.duckdb", "--explain")
    assert "sending from 2 nodes: 127.0.0.3, 127.0.0.2" in printed
    assert "--nodes 7: the cluster has 2 nodes with a processor for Ray" in load(
        cluster, server, tmp_path / "s.duckdb", "--explain", code=2, nodes=7
    )


def test_keys_are_those_of_each_nodes_environment(
    cluster: LocalCluster, server: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLY_HERE", "ours")
    monkeypatch.setenv("GATEWAY", "ours")
    db, before = tmp_path / "s.duckdb", len(inferences(server, "sim:fast"))
    refused = load(cluster, server, db, "--api-key-env", "ONLY_HERE", code=2)
    assert "lacks the variable ONLY_HERE: export it there before `ray start`" in refused
    assert len(inferences(server, "sim:fast")) == before
    assert "--header Authorization would be sent to other machines: give --header-env Authorization=VARIABLE" in load(
        cluster, server, db, "--header", "Authorization=Bearer sk-1", code=2
    )
    assert len(inferences(server, "sim:fast")) == before
    load(cluster, server, db, "--api-key-env", "GATEWAY", "--requests", "4")
    assert len(inferences(server, "sim:fast")) > before


def test_ctrl_c_ends_all_nodes_in_good_order(cluster: LocalCluster, server: Simulator, tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with running(words(cluster, server, db, "slow", "--requests", "4000", "--concurrency", "4"), tmp_path) as process:
        until(lambda: len(inferences(server, "slow")) > 60, "it sends")
        seen = seen_sending()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    kinds = dict(ask(db, "SELECT coalesce(error_kind, 'done'), count(*) FROM requests GROUP BY 1"))
    assert kinds.keys() == {"done"}, "what was in flight has ended"
    assert len(seen) == 4
    until(lambda: all_gone(seen), "no process is left")


def test_the_drivers_death_leaves_no_process_behind(cluster: LocalCluster, server: Simulator, tmp_path: Path) -> None:
    command = words(cluster, server, tmp_path / "s.duckdb", "slow", "--requests", "4000", "--concurrency", "4")
    before = len(inferences(server, "slow"))
    with running(command, tmp_path) as process:
        until(lambda: len(inferences(server, "slow")) > before + 8, "it sends")
        seen = seen_sending()
        assert len(seen) == 4, "two actors, and a worker of each"
        process.kill()
    until(lambda: all_gone(seen), "no process is left")


def test_an_actor_that_is_killed_loses_what_it_had_and_the_other_does_the_rest(
    cluster: LocalCluster, server: Simulator, tmp_path: Path
) -> None:
    db, before = tmp_path / "s.duckdb", len(inferences(server, "slow"))
    with running(words(cluster, server, db, "slow", "--requests", "60", "--concurrency", "6"), tmp_path) as process:
        until(lambda: len(inferences(server, "slow")) > before + 12, "it sends")
        seen = seen_sending()
        seen[-1].kill()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    kinds = dict(ask(db, "SELECT coalesce(error_kind, 'done'), count(*) FROM requests GROUP BY 1"))
    assert kinds["done"] + kinds["node_died"] == 60
    assert kinds["node_died"] in range(1, 8)
    assert sorted(ask(db, "SELECT died FROM nodes")) == [(False,), (True,)]
    (run,) = json.loads(out)["runs"]
    assert "1 node died" in run["verdict_reason"]
    assert len(seen) == 4
    until(lambda: all_gone(seen), "no process is left")


def test_a_node_that_is_lost_is_noticed(server: Simulator, tmp_path: Path) -> None:
    db, before = tmp_path / "s.duckdb", len(inferences(server, "slow"))
    own_time = {"RAY_health_check_period_ms": "500", "RAY_health_check_failure_threshold": "3"}
    with local_cluster(HEAD, "127.0.0.4", **own_time) as lossy:
        with running(words(lossy, server, db, "slow", "--requests", "400", "--concurrency", "6"), tmp_path) as process:
            until(lambda: len(inferences(server, "slow")) > before + 12, "it sends")
            seen = seen_sending()
            psutil.Process(lossy.raylets["127.0.0.4"]).kill()
            out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err
        assert len(seen) == 4
        until(lambda: all_gone(seen), "no process is left, though nobody is there to end those of the lost node")
    rows: Any = ask(db, "SELECT count(*), count(*) FILTER (WHERE error_kind = 'node_died') FROM requests")
    assert rows[0][0] == 400
    assert rows[0][1] in range(1, 8)
    assert "node died" in out
