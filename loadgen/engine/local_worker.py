"""A worker process of the local engine: a Worker with ``feed`` and a socket to the parent (``local``).

The parent sends ``(number, job, descriptors)``, then start · stop · cancel; it gets lists of what a Worker tells,
and "bye".
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from loadgen.engine.child import MessageFramer, frame
from loadgen.engine.feed import InFlight, take
from loadgen.engine.worker import Take, Taken, Worker
from loadgen.wire.stamps import TimestampingSelector

_UNUSED = ("click", "trio")
"""httpx and httpcore import these if they are installed, which costs 0.2 s at the start of each worker."""
_COLLECT_S = 0.02
"""How long records are collected. What was taken is told at once: it would be lost with this process."""


def main(sock: socket.socket) -> None:
    """Run the child process."""
    for name in _UNUSED:
        sys.modules[name] = None  # type: ignore[assignment]  # to Python: not installed
    _raise_file_limit()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimestampingSelector())) as runner:
        runner.run(_work(sock))


def _raise_file_limit() -> None:
    """Allow this process as many sockets as the system permits: the default is often 1,024."""
    with contextlib.suppress(OSError, ValueError):  # some systems reject their own limit
        _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))


async def _work(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    messages = _messages(reader)
    told = await anext(messages, None)
    if told is None:
        return
    number, job, (pipe_fd, payload_fd, in_flight_fd) = told
    counts = InFlight(job.workers, in_flight_fd)

    post = _Post(writer)

    def count(many: int) -> int:
        counts[number] = many
        return counts.total()

    worker = Worker(number, job, take=_taker(pipe_fd, payload_fd, lambda: worker.wake()), tell=post.tell, count=count)
    listener = asyncio.create_task(_listen(messages, worker))
    await worker.prepare()
    gc.collect()
    gc.freeze()
    await worker.run()
    counts.close()
    listener.cancel()
    post.tell("bye")
    writer.close()
    await writer.wait_closed()  # the parent may not have read everything yet


class _Post:
    """Messages to the parent, several at a time: to wake it for each one costs more than to make it.

    Nobody waits for them: what the parent has not read yet is kept in memory and delays no request.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._loop = asyncio.get_running_loop()
        self._messages: list[tuple[Any, ...]] = []

    def tell(self, *message: Any) -> None:
        self._messages.append(message)
        if message[0] != "record":
            self._send()
        elif len(self._messages) == 1:
            self._loop.call_later(_COLLECT_S, self._send)

    def _send(self) -> None:
        if self._messages:
            self._writer.write(frame(self._messages))
            self._messages = []


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    framer = MessageFramer()
    with contextlib.suppress(ConnectionError):  # reset if the parent was killed with something unread
        while data := await reader.read(1 << 16):
            for message in framer.feed(data):
                yield message


async def _listen(messages: AsyncIterator[Any], worker: Worker) -> None:
    async for message in messages:
        match message:
            case ("start", int(start_ns)):
                worker.start(start_ns)
            case ("stop",):
                worker.stop()
            case ("cancel",):
                worker.cancel()
    os._exit(1)  # the parent is gone


def _taker(pipe_fd: int, payload_fd: int, wake: Callable[[], None]) -> Take:
    """Make a function that takes from the feed, and has ``wake`` called when the feed has more after being empty."""
    loop = asyncio.get_running_loop()

    def readable() -> None:
        loop.remove_reader(pipe_fd)
        wake()

    def take_next() -> Taken | None:
        try:
            return take(pipe_fd, payload_fd)
        except BlockingIOError:
            loop.add_reader(pipe_fd, readable)
            raise

    return take_next
