"""Which nodes send: the server's and the driver's own only where not enough others remain, and said."""

from __future__ import annotations

import pytest

from loadgen import ClosedLoop, OpenLoop
from loadgen.engine import NotReady
from loadgen.engine.look import Target
from loadgen.engine.placement import Looked, Member, another, misfit, place


def member(number: int, **more: object) -> Member:
    return Member(node_id=f"id{number}", address=f"10.0.0.{number}", cpus=4.0, **more)  # type: ignore[arg-type]


DRIVER, SERVER = member(1, is_driver=True), member(2, has_server=True)
OTHERS = [member(3), member(4)]
ALL = [SERVER, OTHERS[1], DRIVER, OTHERS[0]]


def names(members: list[Member], wanted: int | None) -> list[str]:
    return [each.name for each in place(members, wanted).chosen]


@pytest.mark.parametrize(
    ("members", "wanted", "chosen"),
    [
        (ALL, None, ["10.0.0.3", "10.0.0.4"]),
        (ALL, 1, ["10.0.0.3"]),
        (ALL, 3, ["10.0.0.3", "10.0.0.4", "10.0.0.1"]),
        (ALL, 4, ["10.0.0.3", "10.0.0.4", "10.0.0.1", "10.0.0.2"]),
        ([SERVER, DRIVER], None, ["10.0.0.1"]),
        ([member(1, is_driver=True, has_server=True)], None, ["10.0.0.1"]),
    ],
)
def test_the_drivers_node_comes_after_others_and_the_servers_last(
    members: list[Member], wanted: int | None, chosen: list[str]
) -> None:
    assert names(members, wanted) == chosen


def test_who_sends_though_it_has_another_part_is_said_and_who_is_left_out() -> None:
    assert place(ALL, 3).said == (
        "sending from 3 nodes: 10.0.0.3, 10.0.0.4, 10.0.0.1",
        "10.0.0.1 runs this command too: not enough other nodes remain",
        "left out: 10.0.0.2 (runs the server)",
    )
    both = member(1, is_driver=True, has_server=True)
    assert place([both], None).said[1:] == ("10.0.0.1 runs the server and this command too: "
                                           "not enough other nodes remain",)  # fmt: skip


def test_too_few_nodes_are_no_cluster_for_this() -> None:
    small = Member(node_id="head", address="10.0.0.9", cpus=0.0)
    with pytest.raises(NotReady, match=r"^--nodes 2: the cluster has 1 node with a processor for Ray$"):
        place([small, member(3)], 2)
    with pytest.raises(NotReady, match="has 0 nodes"):
        place([small], None)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (Looked("1.2", "3.11.9", (), ()), None),
        (Looked("1.1", "3.11.7", (), ()), "has structbench 1.1, this machine 1.2: install the same on every node"),
        (Looked(None, "3.11.7", (), ()), "has no structbench, this machine 1.2: install the same on every node"),
        (Looked("1.2", "3.12.7", ("KEY",), ()),
         "has Python 3.12.7, this machine 3.11.7: install the same minor version"),
        (Looked("1.2", "3.11.7", ("KEY", "B"), ()), "lacks the variable KEY: export it there before `ray start`"),
        (Looked("1.2", "3.11.7", (), [("h", 80, "refused")]),
         "does not reach the server at h:80 (refused): give an address that every node reaches"),
        (Looked("1.2", "3.11.7", (), [("::1", 80, "refused")]),
         "does not reach the server at [::1]:80 (refused): give an address that every node reaches"),
        (Looked("1.2", "3.11.7", (), [("/run/s", None, "No such file")]),
         "does not reach the server at unix:///run/s (No such file): give an address that every node reaches"),
        (Looked("1.2", "3.11.7", (), (), (), ["--ca /ca.pem cannot be read (no): give one"]),
         "reads its own certificates, and there --ca /ca.pem cannot be read (no): give one"),
    ],
)  # fmt: skip
def test_a_node_that_cannot_do_its_part_is_told_in_one_line(node: Looked, why: str | None) -> None:
    assert misfit(node, "1.2", "3.11.7") == why


@pytest.mark.parametrize(
    ("owners", "whose"),
    [
        ({"this machine": "a", "node n1": "a", "node n2": "a"}, None),
        ({"this machine": None, "node n1": None, "node n2": None}, None),
        ({"this machine": None, "node n1": "b", "node n2": None}, None),
        ({"this machine": "a", "node n1": "b"}, ("node n1", "this machine")),
        ({"this machine": "a", "node n1": "a", "node n2": "b"}, ("node n2", "this machine")),
        ({"this machine": None, "node n1": None, "node n2": "b", "node n3": "c"}, ("node n3", "node n2")),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("target", "text"),
    [(("127.0.0.1", 11434), "127.0.0.1:11434"), (("::1", 1), "[::1]:1"), (("/run/s", None), "unix:///run/s")],
)
def test_one_address_that_is_another_server_on_each_machine_is_refused(
    owners: dict[str, str | None], whose: tuple[str, str] | None, target: Target, text: str
) -> None:
    looked = [(name, Looked("1", "3", (), (), (None, own))) for name, own in owners.items()]
    wanted = whose and (f"{whose[0]} has a server of its own at {text}, which is not that of {whose[1]}: "
                        "give an address at which every node reaches the same one")  # fmt: skip
    assert another(looked, [("gpu", 80), target]) == wanted


def test_nodes_with_one_address_have_numbers() -> None:
    twins = [Member(node_id=name, address="10.0.0.7", cpus=1.0) for name in "ba"]
    assert [(each.node_id, each.name) for each in place(twins, 2).chosen] == [("a", "10.0.0.7#1"), ("b", "10.0.0.7#2")]


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (OpenLoop(rate=1, max_in_flight=8), ["--max-in-flight 8: 4 on each node"]),
        (OpenLoop(rate=1, max_in_flight=9), ["--max-in-flight 9: 5 on 1 of the nodes, 4 on the others"]),
        (OpenLoop(rate=1, max_in_flight=1), ["1 in flight: only 1 of the nodes sends"]),
        (OpenLoop(rate=1), []),
        (ClosedLoop(concurrency=9), []),
        (ClosedLoop(concurrency=1), ["1 in flight: only 1 of the nodes sends"]),
    ],
)
def test_how_what_is_in_flight_is_divided_is_said(load: OpenLoop | ClosedLoop, said: list[str]) -> None:
    assert list(place(OTHERS, 2, [load]).said[1:]) == said
    assert place(OTHERS, 1, [load]).said[1:] in ((), ("left out",))
