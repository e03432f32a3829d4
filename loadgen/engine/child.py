"""Child processes: a fresh interpreter, one socket to talk over, gone when the parent is gone.

``multiprocessing`` would import the user's main module again in every child; this does not, so
that a load can be started from any script, REPL or test. Invariant: what one side sends as one
message arrives at the other side as one message.
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

_LENGTH = struct.Struct("<I")
_START = (
    "import sys,json;a=json.loads(sys.argv[1]);sys.path[:]=a['path'];"
    "from loadgen.engine.child import _enter;_enter(a['target'],a['socket'])"
)


def spawn(target: str, *, fds: Sequence[int] = ()) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Start ``module:function(socket)`` in a new interpreter; return it and our end of the socket.

    ``fds`` stay open in the child under the same numbers. Ctrl-C reaches the whole terminal group,
    and ending is the parent's decision, so the child is born with SIGINT and SIGTERM blocked.
    """
    ours, theirs = socket.socketpair()
    arguments = json.dumps({"path": sys.path, "target": target, "socket": theirs.fileno()})
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
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


def _enter(target: str, fd: int) -> None:
    import importlib

    module, function = target.split(":")
    getattr(importlib.import_module(module), function)(socket.socket(fileno=fd))


def frame(message: Any) -> bytes:
    """The message as bytes to send."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(data)) + data


class MessageFramer:
    """Takes bytes as they come and gives back the messages that are whole."""

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
    """Messages from a blocking socket until the other side closes it."""
    framer = MessageFramer()
    while data := sock.recv(1 << 16):
        yield from framer.feed(data)
