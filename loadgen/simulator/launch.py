"""Three ways to run the server: in a thread, in the main thread until a signal, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from loadgen.engine.child import frame, receive, spawn
from loadgen.simulator.models import PROFILES, KnownAnswer, Profile
from loadgen.simulator.server import SimulatedServer
from loadgen.simulator.v1_requests import Kind
from loadgen.wire.access import unix_path
from loadgen.wire.tls import server_context

_T = TypeVar("_T")


async def _serve(
    server: SimulatedServer,
    address: tuple[str, int],
    on_ready: Callable[[str], None],
    arm: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], None],
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve until the function that ``arm`` gets (with the loop) is called on the loop."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    arm(loop, stop.set)
    listening, url = await _listen(loop, server, *address, tls)
    on_ready(url)
    try:
        await stop.wait()
    finally:
        listening.close()
        server.close()
        await asyncio.sleep(0)  # so that the transports notice that they were aborted


async def _listen(
    loop: asyncio.AbstractEventLoop, server: SimulatedServer, host: str, port: int, tls: ssl.SSLContext | None
) -> tuple[asyncio.Server, str]:
    """Listen at the address, or at ``unix:///path``; return that with the URL."""
    if (path := unix_path(host)) is not None:
        return await loop.create_unix_server(server.protocol, path, backlog=4096, ssl=tls), host
    listening = await loop.create_server(server.protocol, host, port, backlog=4096, ssl=tls)
    host, port = listening.sockets[0].getsockname()[:2]
    return listening, f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


class Simulator:
    """Run the server in a thread of this process, as a context manager; ``url`` is its address."""

    def __init__(self, profiles: Mapping[str, Profile] = PROFILES, answers: Mapping[str, KnownAnswer] | None = None,
                 seed: int = 0, version: str = "0.33.0", host: str = "127.0.0.1", port: int = 0,
                 key: str | None = None, tls: ssl.SSLContext | None = None,
                 kind: Kind = "ollama") -> None:  # fmt: skip
        self._server = SimulatedServer(profiles, {} if answers is None else answers, seed, version, key, kind)
        self._address = (host, port)
        self._tls = tls
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self.url = ""

    def __enter__(self) -> Simulator:
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(_serve(self._server, self._address, self._started, self._arm, self._tls))
        except OSError as error:
            self._error = error
        finally:
            self._ready.set()

    def _arm(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        self._loop, self._stop = loop, stop

    def _started(self, url: str) -> None:
        self.url = url
        self._ready.set()

    def _on_loop(self, function: Callable[[], _T]) -> _T:
        """Call the function on the event loop, where alone the server's state is touched."""

        async def call() -> _T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result()

    def truth(self, summary: bool = False) -> dict[str, Any]:
        """Return what GET /truth answers."""
        return self._on_loop(lambda: self._server.truth.report(summary))

    def reset_truth(self) -> None:
        self._on_loop(self._server.truth.reset)


def run_simulator(profiles: Mapping[str, Profile] = PROFILES, answers: Mapping[str, KnownAnswer] | None = None,
                  seed: int = 0, version: str = "0.33.0", host: str = "127.0.0.1", port: int = 0,
                  key: str | None = None, tls: ssl.SSLContext | None = None, kind: Kind = "ollama", *,
                  on_ready: Callable[[str], None]) -> None:  # fmt: skip
    """Serve until SIGINT or SIGTERM; ``on_ready`` gets the URL. Raise OSError if the port is taken."""
    server = SimulatedServer(profiles, {} if answers is None else answers, seed, version, key, kind)

    def arm(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)

    asyncio.run(_serve(server, (host, port), on_ready, arm, tls))


class SimulatorProcess:
    """Run the server in a process of its own, which does not share our interpreter and ends with us at the latest."""

    def __init__(self, profiles: Mapping[str, Profile] = PROFILES, answers: Mapping[str, KnownAnswer] | None = None,
                 seed: int = 0, version: str = "0.33.0", host: str = "127.0.0.1", port: int = 0,
                 certificate: tuple[str, str] | None = None, kind: Kind = "ollama") -> None:  # fmt: skip
        """``certificate``: its file and its key's, to serve https."""
        self._process, self._sock = spawn("loadgen.simulator.launch:child")
        self._sock.sendall(frame((dict(profiles), dict(answers or {}), seed, version, host, port, certificate, kind)))
        first = next(receive(self._sock), None)
        if not isinstance(first, str):
            self.close()
            raise OSError(*first) if first is not None else OSError("the simulated server ended while starting")
        self.url = first

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """Stop the server; requests in flight are reset."""
        self._sock.close()
        self._process.wait()

    def __enter__(self) -> SimulatorProcess:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def child(sock: socket.socket) -> None:
    """Serve until the parent closes its end of the socket or ends: the entry point of the process."""
    if (told := next(receive(sock), None)) is None:
        return  # the parent has ended already
    profiles, answers, seed, version, host, port, certificate, kind = told
    server = SimulatedServer(profiles, answers, seed, version, kind=kind)
    gc.freeze()
    serving = _serve(
        server, (host, port), lambda url: sock.sendall(frame(url)), lambda loop, stop: loop.add_reader(sock, stop),
        None if certificate is None else server_context(*certificate),
    )  # fmt: skip
    with suppress(BrokenPipeError):  # the parent has ended meanwhile
        try:
            asyncio.run(serving)
        except OSError as error:
            sock.sendall(frame((error.errno, error.strerror)))
