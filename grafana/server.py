"""The dashboard *Server and machine*: what the server reports, and what the measuring client uses."""

from __future__ import annotations

from typing import Any

from grafana import parts
from grafana.parts import BYTES, COUNT, SECONDS, SHARE, TOKENS_PER_S, Query
from grafana.queries import INPUT, MODEL, OUTPUT, last, mean, quantile, recent, series, server_speed, total
from loadgen.telemetry import instruments as of
from loadgen.telemetry.instruments import prometheus

LOADING = prometheus(of.SERVER_LOAD)
PROMPT = prometheus(of.SERVER_PROMPT_EVAL)
EVALUATION = prometheus(of.SERVER_EVAL)
QUEUE = prometheus(of.QUEUE)
STEPS = {"load": LOADING, "prompt evaluation": PROMPT, "evaluation": EVALUATION, "queue and network": QUEUE}
BY_MODEL = f"{{{{{MODEL}}}}}"


def build() -> Any:
    rows = {"Server": _server(), "Where a request's time goes": _time(), "Client": _client(), "Work": _work()}
    text = "The model's memory and the server's durations; processor, memory and lag of the client that measures."
    return parts.board("structbench-server", "Server and machine", text, rows, live=True)


def _of_model(selected: str) -> str:
    return f"max by ({MODEL}) ({selected})"


def _server() -> list[Any]:
    return [
        parts.graph(
            "Model memory",
            "Memory that the model takes, as reported by /api/ps, and the part of it on a GPU.",
            BYTES,
            Query(_of_model(series(prometheus(of.MODEL_SIZE))), f"size {BY_MODEL}"),
            Query(_of_model(series(prometheus(of.MODEL_VRAM))), f"on GPU {BY_MODEL}"),
        ),
        parts.levels(
            "Share on GPU",
            "Blue: all on the processor. Orange: split, usually slower than a smaller model that fits. Green: all on "
            "the GPU. Shows the last value in the time range.",
            SHARE,
            Query(_of_model(last(prometheus(of.MODEL_VRAM_SHARE))), BY_MODEL),
            limits=((0.001, "orange"), (1, "green")),
            below="blue",
            max=1,
        ),
        parts.graph(
            "Time until unloaded",
            "Time until the server unloads the model without requests; the next load then has to load it again.",
            SECONDS,
            Query(_of_model(series(prometheus(of.MODEL_EXPIRY))), BY_MODEL),
            limits=((10, "green"),),
            below="orange",
        ),
    ]


def _time() -> list[Any]:
    return [
        parts.graph(
            "A request's time, mean",
            "Ollama's durations of load, prompt evaluation and evaluation, and the rest (waiting for a slot, network): "
            "means over the requests of the last minute. Stacked, they add up to the request.",
            SECONDS,
            *(Query(mean(metric), name) for name, metric in STEPS.items()),
            limits=parts.WAIT,
            stacked=True,
        ),
        parts.graph(
            "A request's time, p95",
            "The same as 95th percentiles, interpolated between bucket bounds; these do not add up.",
            SECONDS,
            *(Query(quantile(0.95, recent(f"{metric}_bucket")), name) for name, metric in STEPS.items()),
            limits=parts.WAIT,
        ),
        parts.graph(
            "Server speed",
            "Tokens / the server's own durations, of one slot: prompt tokens per second of prompt evaluation, output "
            "tokens per second of evaluation. A prompt found in a cache looks fast. Empty where an answer lacks one of "
            "them.",
            TOKENS_PER_S,
            Query(server_speed(INPUT, PROMPT), f"prompt {BY_MODEL}"),
            Query(server_speed(OUTPUT, EVALUATION), f"output {BY_MODEL}"),
        ),
    ]


def _worst(name: str) -> str:
    return f"max({series(name)})"


def _lags() -> list[Any]:
    def lag(name: str) -> list[Query]:
        buckets = recent(f"structbench_{name}_seconds_bucket")
        return [Query(quantile(q, buckets), f"p{q * 100:g}") for q in (0.5, 0.99)]

    return [
        parts.graph(
            "Send lag",
            "How much later than due this client sent a request. *Live load* has it as a share of TTFT.",
            SECONDS,
            *lag("send_lag"),
            width=6,
        ),
        parts.graph(
            "Read lag",
            "The longest that a request's received bytes waited for this client. *Live load* has it as a share of "
            "TTFT.",
            SECONDS,
            *lag("read_lag"),
            width=6,
        ),
        parts.graph(
            "Loop lag",
            "How late a worker's event loop ran a timer, at worst, in the last second.",
            SECONDS,
            Query(_worst(prometheus(of.LOOP_LAG)), "loop lag"),
            width=6,
        ),
    ]


def _client() -> list[Any]:
    return [
        *_lags(),
        parts.graph(
            "Client processor",
            "Cores that the load generator and its workers used in the last second; a server on the same machine "
            "cannot use them.",
            COUNT,
            Query(_worst(prometheus(of.CLIENT_CPU)), "cores"),
            width=6,
        ),
        parts.graph(
            "Client memory",
            "Resident memory of the load generator and its workers; shared pages count in each.",
            BYTES,
            Query(_worst(prometheus(of.CLIENT_MEMORY)), "resident"),
        ),
        parts.graph(
            "Workers",
            "Living worker processes. If the number drops, one died, and its requests with it.",
            COUNT,
            Query(_worst(prometheus(of.WORKERS)), "workers"),
            limits=((1, "green"),),
            below="red",
        ),
        parts.graph(
            "Rows waiting for the database",
            "Rows on disk that are not yet in DuckDB. A peak is normal, a steady rise is not.",
            COUNT,
            Query(_worst(prometheus(of.BACKLOG)), "rows"),
            limits=((10_000, "orange"),),
        ),
    ]


def _work() -> list[Any]:
    return [
        parts.graph(
            "Cells",
            "Cells of this load by state, regardless of the variables above.",
            COUNT,
            Query("sum by (structbench_cell_state) (structbench_cells)", "{{structbench_cell_state}}"),
            width=12,
            stacked=True,
        ),
        parts.levels(
            "Found in the database",
            "Cells by what --skip-cached found. hit: complete, skipped; partial: continued; miss: measured anew.",
            COUNT,
            Query(total(last(prometheus(of.CACHE)), ("structbench_cache_result",)), "{{structbench_cache_result}}"),
            width=12,
        ),
    ]
