"""``structbench simulate``: run the simulated server in the foreground."""

import sys
from dataclasses import dataclass

from structbench.errors import BadInput
from structbench.options import opt


@dataclass(kw_only=True)
class Options:
    """Serve simulated models with known speeds, answers and faults, as Ollama would."""

    host: str = opt("127.0.0.1", "address to listen on")
    port: int = opt(11500, "port to listen on (0: any free one)")
    seed: int = opt(0, "seed for answers and speeds")


def run(options: Options) -> int:
    from loadgen.simulator import run_simulator
    from structbench.suites.answer_book import answer_book

    def ready(url: str) -> None:
        print(
            f"simulated Ollama server at {url}; press Ctrl-C to stop it\n"
            f"try: structbench load --host {url} --models sim:fast"
        )
        sys.stdout.flush()

    try:
        book = answer_book(options.seed)
        run_simulator(host=options.host, port=options.port, seed=options.seed, answers=book, on_ready=ready)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise BadInput(f"cannot listen on {where} ({error.strerror or error}): give another --port") from None
    return 0
