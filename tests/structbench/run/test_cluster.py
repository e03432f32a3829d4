"""The options of a load from a cluster, and what stands in the database of its nodes."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from loadgen.api.server import Server
from loadgen.engine import Cluster, NodeReadings, NotReady
from structbench.errors import BadInput
from structbench.options import LoadOptions
from structbench.run import cluster as module
from structbench.run.cluster import join_cluster, node_rows
from structbench.run.settings import settings_of


def test_the_options_of_a_cluster_belong_to_an_engine_that_has_one() -> None:
    given = LoadOptions(suites=["numbers"], engine="ray", ray_address="h:6379", nodes=3, workers=2)
    assert settings_of(given).cluster == Cluster(address="h:6379", nodes=3, workers=2)
    assert settings_of(LoadOptions(suites=["numbers"])).cluster is None
    for more, name in (({"nodes": 2}, "--nodes"), ({"ray_address": "h:1"}, "--ray-address")):
        with pytest.raises(BadInput, match=rf"^{name} is for a cluster: add --engine ray, or leave it out$"):
            settings_of(LoadOptions(suites=["numbers"], **more))
    with pytest.raises(BadInput, match=r"^--nodes 0: give more than 0$"):
        settings_of(LoadOptions(suites=["numbers"], engine="ray", nodes=0))


def test_a_load_from_this_machine_joins_nothing() -> None:
    with ExitStack() as stack:
        assert join_cluster(settings_of(LoadOptions(suites=["numbers"])), [], stack) == ()


def test_what_is_missing_is_bad_input_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    settings, servers = settings_of(LoadOptions(suites=["numbers"], engine="ray")), list[Server]()
    left: list[str] = []

    def refuse(*_: Any) -> None:
        raise NotReady("node 10.0.0.2 has no structbench")

    monkeypatch.setattr(module, "leave", left.append)
    monkeypatch.setattr(module, "make_ready", refuse)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with ExitStack() as stack, pytest.raises(BadInput, match=r"pip install 'structbench\[ray\]', on every node$"):
        join_cluster(settings, servers, stack)
    monkeypatch.setattr(module, "find_spec", bool)
    with ExitStack() as stack, pytest.raises(BadInput, match=r"^node 10\.0\.0\.2 has no structbench$"):
        join_cluster(settings, servers, stack)
    assert left == ["ray"]


def test_a_row_of_a_node_has_what_it_measured_of_itself() -> None:
    told = NodeReadings(name="10.0.0.2", workers=2, cores=4, requests=9, cpu_s=1.5, clock_offset_ns=-7, died=True)
    (row,) = node_rows("r", 3, [told])
    assert (row["run_id"], row["segment"], row["node"]) == ("r", 3, "10.0.0.2")
    assert (row["workers"], row["cores"], row["requests"], row["cpu_s"]) == (2, 4, 9, 1.5)
    assert (row["clock_offset_ns"], row["died"], row["start_lag_s"]) == (-7, True, None)
