"""Child processes: a fresh interpreter with one socket for messages, which ends when the parent is gone.

``multiprocessing`` would import the user's main module in every child; this works from any script, REPL or test.
"""

from __future__ import annotations

import json
import pickle
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from loadgen.startup import collect_rarely

_LENGTH = struct.Struct("<I")
_START = (
    "import sys,json;a=json.loads(sys.argv[1]);sys.path[:]=a['path'];"
    "from loadgen.engine.child import _enter;_enter(a['target'],a['socket'],a['words'])"
)


PARENTS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Signals that the parent alone acts on."""


def spawn(target: str, *words: str, fds: Sequence[int] = ()) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start ``module:function(socket, *words)`` in a new interpreter; return it and our end of the socket.

    ``fds`` stay open in the child under the same numbers. The signals of a terminal and SIGTERM are blocked in the
    child, since Ctrl-C reaches the whole process group and the parent decides when it ends.
    """
    ours, theirs = socket.socketpair()
    arguments = json.dumps({"path": sys.path, "target": target, "socket": theirs.fileno(), "words": words})
    before = signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _START, arguments], pass_fds=[theirs.fileno(), *fds], stdin=subprocess.DEVNULL
        )
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return process, ours


def _enter(target: str, fd: int, words: Sequence[str]) -> None:
    import importlib

    collect_rarely()
    module, function = target.split(":")
    getattr(importlib.import_module(module), function)(socket.socket(fileno=fd), *words)


def frame(message: Any) -> bytes:
    """Serialize a message with its length."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


class MessageFramer:
    """Splits received bytes into messages."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Any]:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            message = pickle.loads(memoryview(self._buffer)[_LENGTH.size : end])
            del self._buffer[:end]
            yield message


def receive(sock: socket.socket) -> Iterator[Any]:
    """Yield messages from a blocking socket until the other side closes it."""
    framer = MessageFramer()
    while data := sock.recv(1 << 16):
        yield from framer.feed(data)
