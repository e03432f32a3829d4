"""A pool of connections that knows no HTTP library.

``WireTimings.sent_ns`` is taken when only connecting and sending are left, so that no latency contains the client
library's work or the wait for the due time.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections.abc import Callable, Iterable
from time import monotonic_ns

from loadgen.types import NS
from loadgen.wire.connection import ConnectFailed, Connection, TimedOut, WireTimings
from loadgen.wire.framing import Framing

_CLOSES_WITHIN_S = 0.05

Address = tuple[str, int]
"""Host and port; a host that begins with "/" is the path of a unix socket."""


class Connections:
    """Connections with kernel receive stamps, over TLS if there is a context, kept by address without a limit."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._idle: dict[Address, list[Connection]] = {}
        self._closing: set[Address] = set()
        """Servers that close each connection after an answer although they say that they keep it (llama.cpp)."""
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(
        self, address: Address, message: bytes, timings: WireTimings, framing: Callable[[], Framing]
    ) -> Connection:
        """Send once at the due instant and return when the answer's status and headers have arrived."""
        await wait_until_due(timings)
        connection = self._take(address)
        if connection is None:
            timings.connecting = True
            connection = await Connection.open(address, timings.timeouts.connect_s, self._context)
            timings.connected_ns = monotonic_ns()
            timings.connecting = False
        try:
            await connection.request(message, timings, framing)
        except BaseException:
            connection.close()
            raise
        if address in self._closing:  # the next request will need a new connection: it is opened meanwhile
            more = len(self._idle[address]) + 1
            self._keep(asyncio.create_task(self.preconnect(address, more, timings.timeouts.connect_s)))
        return connection

    def learn(self, address: Address) -> None:
        """Find out, now and a moment later, whether the server closes a connection after an answer, if it has."""
        answered = list(self._idle.get(address, ()))
        self._drop_closed(address, answered)

        async def look_again() -> None:
            await asyncio.sleep(_CLOSES_WITHIN_S)
            self._drop_closed(address, answered)

        if answered:
            self._keep(asyncio.create_task(look_again()))

    def _drop_closed(self, address: Address, answered: list[Connection]) -> None:
        """Drop those of the connections that the server has closed, and note that it does."""
        idle = self._idle.get(address, [])
        for connection in answered:
            if connection in idle and not connection.usable():
                idle.remove(connection)
                self._closing.add(address)

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold on to what goes on in the background."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def give_back(self, connection: Connection) -> None:
        """Keep the connection for the next request, or close it if the answer was not read to its end."""
        if connection.release() and connection.address not in self._closing:
            self._idle.setdefault(connection.address, []).append(connection)

    async def preconnect(self, address: Address, count: int, timeout_s: float) -> None:
        """Open connections in advance, so that no request of the load has to; the requests will report failures."""
        idle = self._idle.setdefault(address, [])
        for _ in range(count - len(idle)):
            try:
                idle.append(await Connection.open(address, timeout_s, self._context))
            except (ConnectFailed, TimedOut):
                return

    def _take(self, address: Address) -> Connection | None:
        idle = self._idle.get(address, [])
        while idle:
            connection = idle.pop()
            if connection.usable():
                return connection
        return None

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
        self._idle.clear()


def message(method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    """Serialize a request."""
    lines = [b"%s %s HTTP/1.1" % (method.encode(), target), *(b"%s: %s" % header for header in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def wait_until_due(timings: WireTimings) -> None:
    """Wait until the request is due, and set ``sent_ns``."""
    if timings.due_ns is not None:
        await sleep_until(timings.due_ns)
    timings.sent_ns = monotonic_ns()


async def sleep_until(instant_ns: int) -> None:
    """Return at the instant, within tens of microseconds: timers of the event loop are 1 ms coarse."""
    while (left := instant_ns - monotonic_ns()) > 0:  # noqa: ASYNC110 - time is the event
        await asyncio.sleep(left / NS - 0.0011)  # below zero it only lets others run


def proxy_for(scheme: str, host: str) -> str | None:
    """Return the proxy that the environment names for this host."""
    named = {} if urllib.request.proxy_bypass(host) else urllib.request.getproxies()
    proxy = named.get(scheme) or named.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
