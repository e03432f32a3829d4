"""Child processes: a clean interpreter, whole messages, signals left to the parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.engine.child import MessageFramer, frame, receive, spawn

messages = st.lists(st.recursive(st.none() | st.integers() | st.binary() | st.text(), st.lists, max_leaves=5))

_CHILD = """
import os, pickle, signal, socket, sys
from loadgen.engine.child import frame

def tell(sock):
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    sock.sendall(frame({"pid": os.getpid(), "blocked": set(map(int, blocked)), "main": sorted(sys.modules),
                        "stdin": sys.stdin.read(), "fds": sorted(map(int, os.listdir("/proc/self/fd")))}))

def echo(sock):
    while data := sock.recv(1 << 16):
        sock.sendall(data)

def big(sock):
    sock.sendall(frame(b"x" * (3 << 20)))
"""


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_child.py").write_text(_CHILD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "a_child"


def talk(target: str, fds: tuple[int, ...] = ()) -> dict[str, Any]:
    process, sock = spawn(target, fds=fds)
    with sock:
        told = list(receive(sock))
    assert process.wait(20) == 0
    assert len(told) == 1
    return {**told[0], "expected_pid": process.pid}


@given(sent=messages, cuts=st.lists(st.integers(0, 2000)))
def test_messages_arrive_one_by_one_however_the_bytes_are_cut(sent: list[Any], cuts: list[int]) -> None:
    data = b"".join(map(frame, sent))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    frames = MessageFramer()
    got = [message for a, b in pairwise(edges) for message in frames.feed(data[a:b])]
    assert got == sent


def test_half_a_message_is_none() -> None:
    frames = MessageFramer()
    whole = frame("hello")
    for i in range(len(whole) - 1):
        assert list(frames.feed(whole[i : i + 1])) == []
    assert list(frames.feed(whole[-1:])) == ["hello"]


def test_the_child_cannot_be_interrupted_and_our_own_signals_stay_as_they_were(child: str) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    told = talk(f"{child}:tell")
    assert told["pid"] == told["expected_pid"]
    assert {signal.SIGINT, signal.SIGTERM} <= told["blocked"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_the_child_does_not_import_the_parents_main_module_nor_read_its_input(child: str) -> None:
    told = talk(f"{child}:tell")
    assert "pytest" not in told["main"]
    assert "ollama" not in told["main"]
    assert told["stdin"] == ""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_only_the_named_descriptors_reach_the_child(child: str) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        told = talk(f"{child}:tell", (read,))
    finally:
        os.close(read)
        os.close(write)
    assert read in told["fds"]
    assert write not in told["fds"]


def test_a_message_larger_than_any_buffer_arrives_whole(child: str) -> None:
    process, sock = spawn(f"{child}:big")
    with sock:
        assert next(receive(sock)) == b"x" * (3 << 20)
    assert process.wait(20) == 0


def test_the_child_sees_the_end_when_our_side_closes(child: str) -> None:
    process, sock = spawn(f"{child}:echo")
    sock.sendall(frame(5))
    assert next(receive(sock)) == 5
    sock.close()
    assert process.wait(20) == 0


def test_a_child_that_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[socket.socket] = []
    real = socket.socketpair

    def pair() -> tuple[socket.socket, socket.socket]:
        opened.extend(made := real())
        return made

    monkeypatch.setattr(socket, "socketpair", pair)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(OSError, match="nonexistent"):
        spawn("m:f")
    assert [sock.fileno() for sock in opened] == [-1, -1]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_an_unknown_target_ends_the_child_and_not_the_parent(capfd: pytest.CaptureFixture[str]) -> None:
    process, sock = spawn("loadgen.engine.child:nothing_of_that_name")
    with sock:
        assert list(receive(sock)) == []
    assert process.wait(20) == 1
    assert "nothing_of_that_name" in capfd.readouterr().err
    assert isinstance(process, subprocess.Popen)
