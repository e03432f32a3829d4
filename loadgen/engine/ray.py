"""The engine of many machines: on each of some nodes of a Ray cluster an actor that runs the local engine there.

Ray places the actors, carries batches and notices death; who gets which request is the affair of ``nodes``. A cluster
is joined, never started: nothing is opened to a network but, while a load runs, one port on each node for the clocks,
which answers whoever knows the load's token. Values of keys do not travel: nodes take them from their environments.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from platform import python_version
from typing import Any
from urllib.parse import urlsplit

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported
import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from loadgen.engine import Cluster, Job, LoadFailed, NotReady, Orders, Readings, nodes
from loadgen.engine.agent import Agent, Down, Prepared, Up, target_of
from loadgen.engine.clocks import Watch
from loadgen.engine.look import Files, Target, asker
from loadgen.engine.nodes import Lost
from loadgen.engine.placement import Looked, Member, Placement, another, misfit, place
from loadgen.types import Load, Request, RequestRecord
from loadgen.wire.access import Access, unix_path

_PACKAGE = "structbench"
_REACHED_S = 5.0
_PLACED_S = 15.0
"""How long Ray may take to find room on the nodes."""
_READY_S = 60.0
"""How long a node may take to start a process, and to say who it is."""
_CPUS = 1


def make_ready(cluster: Cluster, servers: Sequence[tuple[str, Access]], loads: Sequence[Load]) -> tuple[str, ...]:
    """Join the cluster and choose the nodes, for servers by address and access; return lines that say which.

    NotReady also if a node has another version of structbench or Python, lacks the variable of a key or a file of
    certificates, or does not reach a server, or one of its own instead.
    """
    _join(cluster)
    placement = _place(cluster, [address for address, _ in servers], loads)
    _check(placement, servers)
    return placement.said


def leave() -> None:
    """Leave the cluster, if it was joined here."""
    if _joined.is_set():
        _joined.clear()
        ray.shutdown()


def records(
    requests: Iterable[Request | None], due: list[int] | None, job: Job, orders: Orders, readings: Readings
) -> Iterator[RequestRecord]:
    """Run the load on nodes of the cluster ``job.cluster``."""
    cluster = job.cluster or Cluster()
    try:
        _join(cluster)
        placement = _place(cluster, [job.host or ""], [])
        _check(placement, [(job.host or "", job.access)])
        jobs = nodes.shares(job, len(placement.chosen))
        links = _Links(placement.chosen[: len(jobs)])
    except (NotReady, ValueError) as error:
        raise LoadFailed(str(error)) from None
    watch: Watch | None = None
    try:
        prepared = links.prepare(jobs, cluster.workers)
        watch = Watch([(member.address, told.port, told.token)
                       for member, told in zip(links.members, prepared, strict=True)])  # fmt: skip
        watch.begin()
        yield from nodes.records(requests, due, jobs, prepared, links, watch, orders, readings)
    except (NotReady, OSError) as error:
        raise LoadFailed(str(error)) from None
    finally:
        if watch is not None:
            watch.end()
        links.close()


_joined = threading.Event()
"""Whether this module has joined a cluster, unlike a user's session that had before."""


def _join(cluster: Cluster) -> None:
    """Connect to the cluster, unless this process is; NotReady if there is none, or one of other versions."""
    if ray.is_initialized():
        return
    address = cluster.address or os.environ.get("RAY_ADDRESS") or "auto"
    if address == "local" or address.startswith("ray://"):
        raise NotReady(
            f"Ray address {address}: give HOST:PORT of a cluster's head, on a machine that is one of its nodes"
        )
    if address != "auto":
        _reach_head(address)
    handlers = _signal_handlers()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except ConnectionError:
        raise NotReady(
            "no Ray cluster runs on this machine: start one (`ray start --head`) or give --ray-address HOST:PORT"
        ) from None
    except (RuntimeError, ValueError, RayError) as error:
        raise NotReady(f"cannot join the Ray cluster at {address}: {_first_line(error)}") from None
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    _joined.set()
    # Else Ray writes what it has to say of nodes and workers among our lines on stdout, also without their logs.
    if (worker := sys.modules.get("ray._private.worker")) is not None:
        worker._worker_logs_enabled = False  # type: ignore[attr-defined]


def _reach_head(address: str) -> None:
    """Raise NotReady unless something listens there; Ray itself would wait for minutes, or end this process."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise NotReady(f"--ray-address {address}: give HOST:PORT, as `ray start --head` prints it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_S).close()
    except OSError as error:
        raise NotReady(f"no Ray cluster answers at {address} ({error.strerror or error})") from None


def _signal_handlers() -> dict[int, Any]:
    """Return what Ctrl-C and SIGTERM do, which Ray changes when it joins."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


def _place(cluster: Cluster, hosts: Sequence[str], loads: Sequence[Load]) -> Placement:
    driver, servers = ray.get_runtime_context().get_node_id(), _addresses(hosts)
    members = [
        Member(
            node_id=node["NodeID"], address=node["NodeManagerAddress"], cpus=node["Resources"].get("CPU", 0.0),
            is_driver=node["NodeID"] == driver,
            has_server=bool(servers & {node["NodeManagerAddress"], _HERE if node["NodeID"] == driver else ""}),
        )
        for node in ray.nodes() if node["Alive"]
    ]  # fmt: skip
    return place(members, cluster.nodes, loads)


_HERE = "this machine"


def _addresses(hosts: Sequence[str]) -> set[str]:
    """Return the IP addresses of servers; those of a loopback address or a socket are this machine's."""
    found = set()
    for host in hosts:
        name = urlsplit(host if "://" in host else f"http://{host}").hostname
        if not host or unix_path(host) or name is None:
            found.add(_HERE)
            continue
        with contextlib.suppress(OSError):
            addresses = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
            found |= addresses | ({_HERE} if any(_is_loopback(address) for address in addresses) else set())
    return found


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _versions() -> tuple[str | None, str]:
    try:
        return version(_PACKAGE), python_version()
    except PackageNotFoundError:
        return None, python_version()


def _check(placement: Placement, servers: Sequence[tuple[str, Access]]) -> None:
    """Ask each node who it is before anything is sent; NotReady says what does not fit, and where."""
    variables = sorted({variable for _, access in servers for *_, variable in access.variables})
    targets, files = _to_check(servers)
    look = ray.remote(asker())
    asked = {
        member.name: look.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(member.node_id, soft=False)
        ).remote(variables, targets, files)
        for member in placement.chosen
    }
    looked = [("this machine", Looked(*asker()((), targets, ())))]
    for name, answer in asked.items():
        looked.append((f"node {name}", Looked(*_told(name, answer))))
        if (why := misfit(looked[-1][1], *_versions())) is not None:
            raise NotReady(f"node {name} {why}")
    if (why := another(looked, targets)) is not None:
        raise NotReady(why)


def _to_check(servers: Sequence[tuple[str, Access]]) -> tuple[list[Target], list[Files]]:
    """Return which servers each node is to reach, and with which certificates; NotReady if it may not be told them."""
    targets: list[Target] = []
    files: list[Files] = []
    for address, access in servers:
        if (target := target_of(address)) is None:
            raise NotReady("no server is named, and each node would take its own default: give its address")
        targets.append(target)
        try:
            told = access.by_name()
        except ValueError as error:
            raise NotReady(str(error)) from None
        if told.ca is not None or told.cert or urlsplit(address).scheme == "https":
            files.append((told.ca, told.cert, told.insecure))
    return targets, files


def _told(name: str, answer: Any, limit_s: float = _READY_S) -> Any:
    """Return what a node answers; NotReady if it does not, or cannot."""
    try:
        return ray.get(answer, timeout=limit_s)
    except GetTimeoutError:
        raise NotReady(f"node {name} did not answer within {limit_s:g} s: see `ray status`") from None
    except RayTaskError as error:
        raise NotReady(f"node {name}: {_first_line(error.cause or error)}") from None
    except RayError as error:
        raise NotReady(f"node {name}: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


class _Links:
    """An actor on each of the nodes, from its start to its end."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._group: PlacementGroup | None = None
        self._actors: list[Any] = []
        self._pending: dict[Any, int] = {}
        try:
            self.members = self._placed(members)
            self.names: Sequence[str] = [member.name for member in self.members]
            make = ray.remote(Agent)
            for place_number, member in enumerate(self.members):
                strategy = PlacementGroupSchedulingStrategy(self._group, place_number)
                options = make.options(num_cpus=_CPUS, max_restarts=0, scheduling_strategy=strategy)
                self._actors.append(options.remote(member.name, member.address))
        except BaseException:
            self.close()
            raise

    def _placed(self, members: Sequence[Member]) -> list[Member]:
        """Hold a processor on each node; return the members in the order of the group's bundles."""
        bundles = [{"CPU": _CPUS, f"node:{member.address}": 0.001} for member in members]
        self._group = placement_group(bundles, strategy="STRICT_SPREAD")
        if not self._group.wait(_PLACED_S):
            names = ", ".join(member.name for member in members)
            raise NotReady(f"Ray has no free processor on each of {names}: see `ray status` for what holds them")
        by_id = {member.node_id: member for member in members}
        placed = placement_group_table(self._group)["bundles_to_node_id"]
        return [by_id.get(placed[number], member) for number, member in enumerate(members)]

    def prepare(self, jobs: Sequence[Job], workers: int | None) -> list[Prepared]:
        """Give each node its job."""
        asked = [actor.prepare.remote(job, workers) for actor, job in zip(self._actors, jobs, strict=True)]
        return [_told(name, answer) for name, answer in zip(self.names, asked, strict=True)]

    def ask(self, node: int, down: Down) -> None:
        self._pending[self._actors[node].exchange.remote(down)] = node

    def answers(self, timeout_s: float) -> Iterator[tuple[int, Up | Lost]]:
        if not self._pending:
            return
        ray.wait([*self._pending], num_returns=1, timeout=timeout_s)
        come, _ = ray.wait([*self._pending], num_returns=len(self._pending), timeout=0)
        for answer in come:
            node = self._pending.pop(answer)
            try:
                yield node, ray.get(answer)
            except RayTaskError as error:
                raise LoadFailed(f"node {self.names[node]}: {_first_line(error.cause or error)}") from error
            except RayError as error:
                yield node, Lost(_first_line(error))

    def close(self) -> None:
        """End the actors, and with them every process that they started."""
        for actor in self._actors:
            with contextlib.suppress(RayError, ValueError):
                ray.kill(actor)
        if self._group is not None:
            with contextlib.suppress(RayError):
                remove_placement_group(self._group)
