"""Which nodes of a cluster send a load: the server's and the driver's own only where not enough others remain. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from loadgen.engine import NotReady
from loadgen.engine.look import Target
from loadgen.types import ClosedLoop, Load


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A node of a cluster."""

    node_id: str
    address: str
    cpus: float
    is_driver: bool = False
    """Whether the load is driven from there."""
    has_server: bool = False
    name: str = ""
    """Its address, with a number where several nodes have the same."""

    @property
    def role(self) -> str:
        """What else runs there, in words; empty for nothing that is known."""
        server, driver = "the server" if self.has_server else "", "this command" if self.is_driver else ""
        return " and ".join(filter(None, (server, driver)))


@dataclass(frozen=True, slots=True)
class Placement:
    """The nodes that send, and what the user should know of the choice."""

    chosen: tuple[Member, ...]
    said: tuple[str, ...]


class Looked(NamedTuple):
    """What a node says of itself before anything is sent."""

    version: str | None
    """The version of structbench, None without one."""
    python: str
    missing: Sequence[str]
    """Variables of keys that are not set there."""
    unreached: Sequence[tuple[str, int | None, str]]
    """Servers that cannot be reached from there, and why."""
    own: Sequence[str | None] = ()
    """For each server, whose it is where it runs on the node itself, by a name that no two machines share."""
    unusable: Sequence[str] = ()
    """What is wrong with the certificates there."""


def misfit(node: Looked, version: str | None, python: str) -> str | None:
    """Return why a node cannot send a load that is driven with these versions, and what to do; None if it can."""
    if node.version != version:
        has = "no structbench" if node.version is None else f"structbench {node.version}"
        return f"has {has}, this machine {version or 'none'}: install the same on every node"
    if node.python.split(".")[:2] != python.split(".")[:2]:
        return f"has Python {node.python}, this machine {python}: install the same minor version"
    for variable in node.missing:
        return f"lacks the variable {variable}: export it there before `ray start`"
    for why in node.unusable:
        return f"reads its own certificates, and there {why}"
    for host, port, why in node.unreached:
        return f"does not reach the server at {_text(host, port)} ({why}): give an address that every node reaches"
    return None


def another(looked: Sequence[tuple[str, Looked]], targets: Sequence[Target]) -> str | None:
    """Return which machine finds a server of its own where another finds that one's, and what to do; None for none.

    Each machine is given by its name: those that send, and the one that drives, which asks the server too.
    """
    for number, target in enumerate(targets):
        here = [(name, own) for name, look in looked if (own := look.own[number]) is not None]
        for name, own in here[1:]:
            if own != here[0][1]:
                return (f"{name} has a server of its own at {_text(*target)}, which is not that of {here[0][0]}: "
                        "give an address at which every node reaches the same one")  # fmt: skip
    return None


def _text(host: str, port: int | None) -> str:
    if port is None:
        return f"unix://{host}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def place(members: Sequence[Member], wanted: int | None, loads: Sequence[Load] = ()) -> Placement:
    """Choose the nodes; NotReady if there are too few. ``wanted`` None: all that have no other part in the load."""
    usable = [member for member in named(members) if member.cpus >= 1]
    ranked = sorted(usable, key=lambda member: (member.has_server, member.is_driver))
    others = [member for member in ranked if not member.role]
    count = (len(others) or 1) if wanted is None else wanted
    if count > len(ranked):
        have = f"{len(ranked)} node{'' if len(ranked) == 1 else 's'}"
        raise NotReady(f"--nodes {count}: the cluster has {have} with a processor for Ray")
    chosen = ranked[:count]
    said = [f"sending from {_list(chosen)}"]
    said += [f"{each.name} runs {each.role} too: not enough other nodes remain" for each in chosen if each.role]
    if left := [f"{each.name} (runs {each.role})" for each in ranked[count:] if each.role]:
        said.append(f"left out: {', '.join(left)}")
    said += [text for load in loads for text in _split(load, count)]
    return Placement(tuple(chosen), tuple(said))


def named(members: Sequence[Member]) -> list[Member]:
    """Return the members with their names, in the order of these."""
    many, seen = Counter(member.address for member in members), Counter[str]()
    found = []
    for member in sorted(members, key=lambda member: (member.address, member.node_id)):
        seen[member.address] += 1
        number = f"#{seen[member.address]}" if many[member.address] > 1 else ""
        found.append(replace(member, name=f"{member.address}{number}"))
    return found


def _list(members: Sequence[Member]) -> str:
    return f"{len(members)} node{'' if len(members) == 1 else 's'}: {', '.join(member.name for member in members)}"


def _split(load: Load, count: int) -> list[str]:
    """Say how what is in flight is divided, where the user set a limit that divides unevenly or is divided at all."""
    limit = load.concurrency if isinstance(load, ClosedLoop) else load.max_in_flight
    if limit is None or count == 1:
        return []
    if limit < count:
        return [f"{limit} in flight: only {limit} of the nodes send{'s' if limit == 1 else ''}"]
    if isinstance(load, ClosedLoop):
        return []
    small, rest = divmod(limit, count)
    parts = f"{small} on each node" if not rest else f"{small + 1} on {rest} of the nodes, {small} on the others"
    return [f"--max-in-flight {limit}: {parts}"]
