"""``structbench demo``, which ``make demo`` runs: a load that ends within 90 seconds, on whatever server is there."""

import signal
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from structbench.commands import load
from structbench.options import DEFAULT_MODELS, LoadOptions, opt
from structbench.output import say

LIMIT_S = 70
"""Seconds after which the demo asks the load to end; the load then has its grace period."""


EXAMPLES = ("structbench demo",)


@dataclass(kw_only=True)
class Options:
    """Run a small load in under 90 seconds, on your Ollama if it is running, else on the simulated server."""

    db: str = opt("structbench.duckdb", "results database")


def run(options: Options) -> int:
    chosen, text = demo_options(options.db)
    say(text)
    time_is_up = monotonic() + LIMIT_S
    signal.alarm(LIMIT_S)
    try:
        code = load.run(chosen)
    finally:
        signal.alarm(0)
    if code == 130 and monotonic() >= time_is_up:
        print(f"The demo stopped after {LIMIT_S} s because this server is slow; `structbench load` has no such limit.")
        return 0
    return code


def demo_options(db: str) -> tuple[LoadOptions, str]:
    """Return the options for the demo, and the line that says what it measures."""
    from loadgen.api import DEFAULT_API
    from loadgen.api.server import ServerError, reach, server_api
    from loadgen.wire.access import NO_ACCESS

    try:
        api = server_api(DEFAULT_API)
        server = api.probe(*reach(api, None, NO_ACCESS))
        present = [model for model in DEFAULT_MODELS if server.digest(model) is not None] or api.smallest(server, 1)
        if present:
            # One model and a bounded time for each suite: a model on a laptop's processor may take its time.
            options = LoadOptions(
                models=present[:1], requests=8, duration=15.0, grace=5.0, db=Path(db), label="demo", metrics_port=0,
                mean_input_tokens=120, stddev_input_tokens=30, mean_output_tokens=48, stddev_output_tokens=8,
            )  # fmt: skip
            return options, f"Measuring {present[0]} on Ollama {server.version} at {server.address}."
        why = f"Ollama at {server.address} has no model that answers prompts"
    except ServerError as error:
        why = str(error).split(": ", 1)[0]
    options = LoadOptions(requests=10, concurrency=[2], simulate=True, db=Path(db), label="demo", metrics_port=0)
    return options, f"Measuring the built-in SIMULATED server, because {why}: its figures are made up."
