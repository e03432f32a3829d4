"""Three ways to run the server: in a thread, in the main thread until a signal, in a process of its own.

Invariant: the server's state is touched on its event loop only.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
import threading
from collections.abc import Callable, Coroutine, Mapping
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from loadgen.simulator.profiles import PROFILES, Answer, Profile
from loadgen.simulator.server import Server

_T = TypeVar("_T")


async def _serve(server: Server, host: str, port: int, on_ready: Callable[[str], None], stop: asyncio.Event) -> None:
    listening = await asyncio.get_running_loop().create_server(server.protocol, host, port, backlog=4096)
    bound = listening.sockets[0].getsockname()
    on_ready(f"http://[{bound[0]}]:{bound[1]}" if ":" in bound[0] else f"http://{bound[0]}:{bound[1]}")
    try:
        await stop.wait()
    finally:
        listening.close()
        server.close()
        await asyncio.sleep(0)  # so that the transports notice that they were aborted


class Simulator:
    """The server in a thread of this process, as a context manager; ``url`` says where it listens."""

    def __init__(self, profiles: Mapping[str, Profile] = PROFILES, answers: Mapping[str, Answer] | None = None,
                 seed: int = 0, version: str = "0.33.0", host: str = "127.0.0.1", port: int = 0) -> None:  # fmt: skip
        self._server = Server(profiles, {} if answers is None else answers, seed, version)
        self._address = (host, port)
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
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except OSError as error:
            self._error = error
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        await _serve(self._server, *self._address, self._started, self._stop)

    def _started(self, url: str) -> None:
        self.url = url
        self._ready.set()

    def _ask(self, what: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def truth(self, summary: bool = False) -> dict[str, Any]:
        """What GET /truth answers."""

        async def report() -> dict[str, Any]:
            return self._server.truth.report(summary)

        return self._ask(report())

    def reset_truth(self) -> None:
        async def reset() -> None:
            self._server.truth.reset()

        self._ask(reset())


def run_simulator(profiles: Mapping[str, Profile] = PROFILES, answers: Mapping[str, Answer] | None = None,
                  seed: int = 0, version: str = "0.33.0", host: str = "127.0.0.1", port: int = 0, *,
                  on_ready: Callable[[str], None]) -> None:  # fmt: skip
    """Serve until SIGINT or SIGTERM; ``on_ready`` gets the URL. Raises OSError where the port is taken."""
    server = Server(profiles, {} if answers is None else answers, seed, version)

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await _serve(server, host, port, on_ready, stop)

    asyncio.run(main())


def start_simulator_process(answers: Mapping[str, Answer] | None = None, profiles: Mapping[str, Profile] | None = None,
                            seed: int = 0, version: str = "0.33.0", host: str = "127.0.0.1",
                            port: int = 0) -> tuple[BaseProcess, str]:  # fmt: skip
    """The server in a spawned process and its URL; it ends with ``terminate()`` or with its parent."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, dict(answers or {}), None if profiles is None else dict(profiles), seed, version, host, port)
    process = context.Process(target=_child, args=arguments, name="simulator", daemon=True)
    process.start()
    theirs.close()
    with ours:
        try:
            told = ours.recv()
        except EOFError:
            process.join()
            raise OSError(f"the simulated server ended at its start (exit code {process.exitcode})") from None
    if isinstance(told, OSError):
        process.join()
        raise told
    return process, str(told)


def _child(pipe: Pipe, answers: Mapping[str, Answer], profiles: Mapping[str, Profile] | None, seed: int, version: str,
           host: str, port: int) -> None:  # fmt: skip
    # Ctrl-C in a terminal reaches us too; requests in flight must still be answered while the parent winds down.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(PROFILES if profiles is None else profiles, answers, seed, version)

    def ready(url: str) -> None:
        pipe.send(url)
        pipe.close()

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        if (parent := multiprocessing.parent_process()) is not None:
            loop.add_reader(parent.sentinel, stop.set)
        await _serve(server, host, port, ready, stop)

    try:
        asyncio.run(main())
    except OSError as error:
        if pipe.closed:
            raise
        pipe.send(error)
