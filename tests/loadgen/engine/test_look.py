"""What a node says of itself: the servers that it reaches, whose they are, and what it lacks."""

from __future__ import annotations

import socket
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import NamedTuple

import pytest

from loadgen.engine.look import asker
from loadgen.engine.placement import Looked


def test_it_says_its_versions_and_which_variables_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "x")
    monkeypatch.setenv("BLANK", " ")
    monkeypatch.delenv("UNSET", raising=False)
    told = Looked(*asker()(["SET", "BLANK", "UNSET"], (), ()))
    assert told == Looked(version("structbench"), python_version(), ["BLANK", "UNSET"], [], [], [])


def test_a_server_of_this_machine_is_its_own_by_whichever_of_its_addresses() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        port = listening.getsockname()[1]
        told = Looked(*asker()((), [(host, port) for host in ("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0")], ()))
    assert told.unreached == []
    assert len(set(told.own)) == 1
    assert told.own[0]


def test_a_socket_is_known_by_its_file_and_not_by_its_path(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "link", "nothing")]
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as other:
        for each, path in ((one, paths[0]), (other, paths[1])):
            each.bind(str(path))
            each.listen()
        paths[2].symlink_to(paths[0])
        told = Looked(*asker()((), [(str(path), None) for path in paths], ()))
    assert told.own[0] == told.own[2] != told.own[1]
    assert told.own[3] is None
    assert told.unreached == [(str(paths[3]), None, "No such file or directory")]


def test_a_server_that_is_not_reached_is_nobodys_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    told = Looked(*asker()((), [("127.0.0.1", port)], ()))
    assert (told.own, told.unreached) == ([None], [("127.0.0.1", port, "Connection refused")])


class Connected(NamedTuple):
    """A connection by the addresses of its ends."""

    peer: str
    own: str

    def getpeername(self) -> tuple[str, int]:
        return self.peer, 80

    def getsockname(self) -> tuple[str, int]:
        return self.own, 50000

    def __enter__(self) -> Connected:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("peer", "own", "is_ours"),
    [("10.0.0.9", "10.0.0.1", False), ("fe80::9%eth0", "fe80::1%eth0", False), ("10.0.0.1", "10.0.0.1", True),
     ("127.0.0.2", "127.0.0.1", True), ("::1", "::1", True), ("::ffff:127.0.0.2", "::ffff:127.0.0.1", True)],
)  # fmt: skip
def test_a_server_elsewhere_is_not_this_machines_own(
    monkeypatch: pytest.MonkeyPatch, peer: str, own: str, is_ours: bool
) -> None:
    monkeypatch.setattr(socket, "create_connection", lambda *_: Connected(peer, own))
    (owner,) = Looked(*asker()((), [("gpu", 80)], ())).own
    assert (owner is not None) == is_ours


def test_files_of_certificates_are_read_where_they_will_be_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    ca, empty = tmp_path / "ca.pem", tmp_path / "empty.pem"
    empty.write_text("")
    told = Looked(*asker()((), (), [(str(ca), (), False), (None, (str(empty),), True), (None, (), True)]))
    assert told.unusable == [
        f"--ca {ca} cannot be read (No such file or directory): give a file or folder of certificates",
        f"--cert {empty}: give a certificate and its key in PEM form, in one file or in two",
    ]
    monkeypatch.setenv("SSL_CERT_FILE", str(ca))
    (why,) = Looked(*asker()((), (), [(None, (), False)])).unusable
    assert why.startswith(f"SSL_CERT_FILE {ca} cannot be read")
