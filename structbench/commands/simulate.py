"""``structbench simulate``: run the simulated server in the foreground."""

import os
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Optional

from structbench.errors import BadInput
from structbench.options import Readable, check_seed, opt, port_of

if TYPE_CHECKING:
    from loadgen.simulator import Kind


EXAMPLES = (
    "structbench simulate",
    "structbench simulate --kind llama.cpp",
)


@dataclass(kw_only=True)
class Options(Readable):
    """Serve simulated models with known speeds, answers and faults, as Ollama would, or llama.cpp."""

    host: str = opt("127.0.0.1", "address to listen on; unix:///path for a unix socket")
    port: int = opt(11500, "port to listen on (0: any free one)", read=port_of, metavar="N")
    seed: int = opt(0, "seed for answers and speeds")
    kind: str = opt("ollama", "the server to be: ollama (its own API and /v1), or llama.cpp (/v1)")
    api_key_env: Optional[str] = opt(
        None, "environment variable with the key that clients must send (default: anybody may ask)", metavar="NAME"
    )
    tls_cert: Optional[str] = opt(None, "serve https with this certificate", metavar="FILE")
    tls_key: Optional[str] = opt(None, "the certificate's key, if it is in a file of its own", metavar="FILE")


def run(options: Options) -> int:
    from loadgen.simulator import run_simulator
    from structbench.suites.answer_book import answer_book

    def ready(url: str) -> None:
        print(
            f"simulated {kind} server at {url}; press Ctrl-C to stop it\n"
            f"try: structbench load --host {url} --models sim:fast"
        )
        sys.stdout.flush()

    check_seed(options.seed)
    kind = _kind(options.kind)
    key, tls = _key(options.api_key_env), _tls(options)
    try:
        book = answer_book(options.seed)
        run_simulator(
            host=options.host, port=options.port, seed=options.seed, answers=book, key=key, tls=tls, kind=kind,
            on_ready=ready,
        )  # fmt: skip
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise BadInput(f"cannot listen on {where} ({error.strerror or error}): give another --port") from None
    return 0


def _kind(asked: str) -> "Kind":
    if asked not in ("ollama", "llama.cpp"):
        raise BadInput(f"--kind {asked}: give ollama or llama.cpp")
    return "llama.cpp" if asked == "llama.cpp" else "ollama"


def _key(variable: Optional[str]) -> Optional[str]:
    if variable is not None and not os.environ.get(variable):
        raise BadInput("--api-key-env: the variable is not set, or empty: export the key that clients must send")
    return None if variable is None else os.environ[variable]


def _tls(options: Options) -> Optional[ssl.SSLContext]:
    from loadgen.wire.tls import server_context

    if options.tls_cert is None:
        if options.tls_key is not None:
            raise BadInput("--tls-key needs its certificate: add --tls-cert")
        return None
    try:
        return server_context(options.tls_cert, options.tls_key)
    except ValueError as error:
        raise BadInput(str(error)) from None
