"""A worker process of the local engine: a Worker with ``feed`` and a socket to the parent (``local``).

The parent sends three descriptors (the feed's pipe and file, the counts in flight) and ``(number, job)``, then start ·
stop · cancel; it gets lists of what a Worker tells, and "bye". Where the number of workers depends on the warm-up, it
gets "warmed" with the tokens/s of a stream first, and sends workers, their number.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

from loadgen.engine.child import MessageFramer, frame
from loadgen.engine.feed import InFlight, take
from loadgen.engine.worker import Take, Taken, Worker
from loadgen.startup import leave_out
from loadgen.wire.stamps import TimestampingSelector

_UNUSED = ("click", "trio")
"""httpx and httpcore import these if they are installed, which costs 0.2 s at the start of each worker."""
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_COLLECT_S = 0.02
"""How long records are collected. What was taken is told at once: it would be lost with this process."""


def main(sock: socket.socket, api: str) -> None:
    """Run the child process, for a load by an API that it may be told of before the load is known."""
    leave_out(*_UNUSED)
    _raise_file_limit()
    _import_client(api)
    _, fds, _, _ = socket.recv_fds(sock, 1, 3)
    if not fds:
        return  # the parent is gone, or needs no more workers
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(TimestampingSelector())) as runner:
        runner.run(_work(sock, *fds))


def _import_client(api: str) -> None:
    """Import the API's official client.

    Ollama's makes one for everybody, which would read all certificates for its own TLS context: 30 ms for nothing.
    """
    from loadgen.api.sending import chat_api

    before = {name: value for name in _CERTIFICATES if (value := os.environ.pop(name, None)) is not None}
    os.environ["SSL_CERT_DIR"] = os.devnull
    try:
        with contextlib.suppress(ImportError):  # it is told where the load begins
            chat_api(api).make_client("http://127.0.0.1")
    finally:
        del os.environ["SSL_CERT_DIR"]
        os.environ.update(before)


def _raise_file_limit() -> None:
    """Allow this process as many sockets as the system permits: the default is often 1,024."""
    with contextlib.suppress(OSError, ValueError):  # some systems reject their own limit
        _, maximum = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (maximum, maximum))


async def _work(sock: socket.socket, pipe_fd: int, payload_fd: int, in_flight_fd: int) -> None:
    reader, writer = await asyncio.open_connection(sock=sock)
    messages = _messages(reader)
    told = await anext(messages, None)
    if told is None:
        return
    number, job = told
    counts, post = InFlight.of(in_flight_fd), _Post(writer)

    def count(many: int) -> int:
        counts[number] = many
        return counts.total()

    worker = Worker(number, job, take=_taker(pipe_fd, payload_fd, lambda: worker.wake()), tell=post.tell, count=count)
    workers: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    listener = asyncio.create_task(_listen(messages, worker, workers))
    stream_tokens_per_s = await worker.warm_up()
    gc.collect()
    gc.freeze()
    if job.adapts:
        post.tell("warmed", stream_tokens_per_s)
    await worker.connect(await workers if job.adapts else job.workers)
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


async def _listen(messages: AsyncIterator[Any], worker: Worker, workers: asyncio.Future[int]) -> None:
    async for message in messages:
        match message:
            case ("workers", int(many)):
                workers.set_result(many)
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
