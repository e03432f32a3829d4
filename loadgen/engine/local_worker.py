"""A worker process of the local engine: what it is told over its socket, and how it takes, tells and counts.

The parent is ``local``. The first message is ``(number, job, descriptors)``, then come start · stop · cancel; it
answers with what a Worker tells, and "bye".
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

from loadgen.engine.child import MessageFramer, frame
from loadgen.engine.feed import InFlight, take
from loadgen.engine.worker import Take, Taken, Worker
from loadgen.wire.connection import TimestampingSelector

_UNUSED = ("click", "trio")
"""httpx and httpcore import these where they are installed, for their command line and another kind of event loop:
0.2 s of the start of each worker."""


def main(sock: socket.socket) -> None:
    """Entry point of the child process."""
    for name in _UNUSED:
        sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: not installed
    raise_file_limit()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimestampingSelector())) as runner:
        runner.run(_work(sock))


def raise_file_limit() -> None:
    """Let this process open as many sockets as it may: many systems begin at 1,024."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # not a Unix; or one that allows no more
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _work(sock: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    messages = _messages(reader)
    told = await anext(messages, None)
    if told is None:
        return
    number, job, (pipe_fd, payload_fd, in_flight_fd) = told
    counts = InFlight(job.workers, in_flight_fd)

    def tell(*message: Any) -> None:
        # Never awaited: what the parent does not read yet waits in memory, not in the way of a request.
        writer.write(frame(message))

    def count(many: int) -> int:
        counts[number] = many
        return counts.total()

    worker = Worker(number, job, take=_taker(pipe_fd, payload_fd, lambda: worker.wake()), tell=tell, count=count)
    listener = asyncio.create_task(_listen(messages, worker))
    await worker.prepare()
    gc.collect()
    gc.freeze()
    await worker.run()
    counts.close()
    listener.cancel()
    tell("bye")
    writer.close()
    await writer.wait_closed()  # the parent may be behind: what it has not read yet must not go with us


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[Any]:
    framer = MessageFramer()
    with contextlib.suppress(ConnectionError):  # a reset, where the parent was killed with something of ours unread
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
    os._exit(1)  # the parent is gone: nobody is left to measure for


def _taker(pipe_fd: int, payload_fd: int, wake: Callable[[], None]) -> Take:
    """Take from the feed, and call ``wake`` once it has something for those who found nothing."""
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
