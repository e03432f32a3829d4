"""A gateway on 127.0.0.1 that lets in who shows what it asks for, and passes on what is asked; its errors repeat it."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Refuses = Callable[[str, Mapping[str, str], bytes], int | None]
"""From path, headers (names in lower case) and body: the status of a refusal, or None."""


@dataclass
class Gateway:
    url: str = ""
    let_in: Counter[str] = field(default_factory=Counter)
    """By path."""
    turned_away: Counter[str] = field(default_factory=Counter)


@contextmanager
def gateway(onward: str, refuses: Refuses, path_there: Callable[[str], str] = str) -> Iterator[Gateway]:
    """Run a gateway to the server at ``onward``, where each path is called ``path_there(path)``."""
    made, host = Gateway(), onward.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            given = {name.lower(): value for name, value in self.headers.items()}
            status = refuses(self.path, given, body)
            (made.let_in if status is None else made.turned_away)[self.path] += 1
            if status is not None:
                said = json.dumps({"error": f"not with {given.get('authorization')} and {given.get('x-api-key')}"})
                return self.answer(status, "application/json", said.encode())
            connection = http.client.HTTPConnection(host, timeout=20)
            connection.request(self.command, path_there(self.path), body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            self.answer(answer.status, answer.headers["Content-Type"], answer.read())
            connection.close()

        do_POST = do_GET

        def answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()
