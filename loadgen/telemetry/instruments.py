"""The instruments of every load (name, kind, unit, meaning, attributes and buckets of each) and the labels of series.

Other values of a request, such as its scores, are passed to ``Telemetry`` as more instruments when it is created.
docs/methods.md has each formula, docs/live-metrics.md what Prometheus makes of it; tests compare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from loadgen.types import RequestError

Kind = Literal["counter", "gauge", "histogram"]
Labels = Mapping[str, str | int]


def _decades(first: int, last: int, steps: int) -> tuple[float, ...]:
    """Return bounds from 10^first to 10^last with so many steps a decade, each of the same ratio."""
    return tuple(float(f"{10 ** (first + step / steps):.3g}") for step in range((last - first) * steps + 1))


LATENCY_BUCKETS = (*_decades(-3, 2, 24), 110.0, 120.0, 150.0, 180.0, 210.0, 250.0, 300.0, 350.0, 400.0, 500.0, 600.0)
"""10 % wide: a percentile read from them is off by 1 to 2 % as a rule, by 10 % at most."""
GAP_BUCKETS = _decades(-3, 1, 24)
PART_BUCKETS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0,
)  # fmt: skip
LAG_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)
RATE_BUCKETS = (
    1.0, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 75.0, 100.0, 150.0, 200.0, 300.0, 500.0, 1000.0,
)  # fmt: skip
TOKEN_BUCKETS = (
    1.0, 4.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0,
    131072.0,
)  # fmt: skip

DURATION = "gen_ai.client.operation.duration"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
CHUNK_GAP = "gen_ai.client.operation.time_per_output_chunk"
TOKENS = "gen_ai.client.token.usage"
REQUESTS = "structbench.requests"
PLANNED = "structbench.request.planned"
IN_FLIGHT = "structbench.request.in_flight"
TOKEN_RATE = "structbench.output_tokens_per_second"
SEND_LAG = "structbench.send_lag"
READ_LAG = "structbench.read_lag"
CHUNKS = "structbench.chunks"
MERGED_CHUNKS = "structbench.merged_chunks"
QUEUE = "structbench.queue.duration"
SERVER_LOAD = "structbench.server.load.duration"
SERVER_PROMPT_EVAL = "structbench.server.prompt_eval.duration"
SERVER_EVAL = "structbench.server.eval.duration"
MODEL_SIZE = "structbench.server.model.size"
MODEL_VRAM = "structbench.server.model.vram"
MODEL_VRAM_SHARE = "structbench.server.model.vram_share"
MODEL_EXPIRY = "structbench.server.model.expiry"
CLIENT_CPU = "structbench.client.cpu.usage"
CLIENT_MEMORY = "structbench.client.memory.usage"
LOOP_LAG = "structbench.client.loop_lag"
WORKERS = "structbench.client.workers"
BACKLOG = "structbench.store.backlog"
CACHE = "structbench.cache"
CELLS = "structbench.cells"
VERDICT = "structbench.verdict"

ERROR_TYPE = "error.type"
TOKEN_TYPE = "gen_ai.token.type"
OUTCOME = "structbench.outcome"
CACHE_RESULT = "structbench.cache.result"
CELL_STATE = "structbench.cell.state"


_UNITS = {"s": "seconds", "By": "bytes", "{token}/s": "per_second"}
"""OpenTelemetry unit -> the suffix that its Prometheus exporter adds to the name."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric as it is declared to OpenTelemetry."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    attributes: tuple[str, ...] = ()
    """Besides the cell's, and those of the GenAI conventions if the name begins with ``gen_ai.``."""
    buckets: tuple[float, ...] = ()

    @property
    def prometheus_unit(self) -> str:
        return _UNITS.get(self.unit, "")

    @property
    def prometheus(self) -> str:
        """The name in Prometheus."""
        name, unit = self.name.replace(".", "_"), self.prometheus_unit
        with_unit = name if not unit or name.endswith(unit) else f"{name}_{unit}"
        return f"{with_unit}_total" if self.kind == "counter" else with_unit


INSTRUMENTS: tuple[Instrument, ...] = (
    # Of every request.
    Instrument(DURATION, "histogram", "s", "Sent to last message; error_type is set on failures", (ERROR_TYPE,),
               LATENCY_BUCKETS),
    Instrument(FIRST_CHUNK, "histogram", "s", "Sent to first chunk that carries output (TTFT)", (), LATENCY_BUCKETS),
    Instrument(CHUNK_GAP, "histogram", "s", "Each gap between two neighbouring chunks (ITL)", (), GAP_BUCKETS),
    Instrument(TOKENS, "histogram", "{token}", "Tokens of one request as the server counted them",
               (TOKEN_TYPE, ERROR_TYPE), TOKEN_BUCKETS),
    Instrument(TOKEN_RATE, "histogram", "{token}/s", "1 / TPOT of one request, as the client saw it", (), RATE_BUCKETS),
    Instrument(REQUESTS, "counter", "{request}", "Requests by how they ended", (OUTCOME, ERROR_TYPE)),
    Instrument(PLANNED, "gauge", "{request}", "Requests that this load is to send in the cell"),
    Instrument(IN_FLIGHT, "gauge", "{request}", "Requests sent and not yet ended"),
    Instrument(CHUNKS, "counter", "{chunk}", "Chunks that carried output"),
    Instrument(MERGED_CHUNKS, "counter", "{chunk}", "Chunks whose own receive instants were lost"),
    # Of the server.
    Instrument(SERVER_LOAD, "histogram", "s", "Ollama's load_duration of one request", (), PART_BUCKETS),
    Instrument(SERVER_PROMPT_EVAL, "histogram", "s", "Ollama's prompt_eval_duration of one request", (),
               PART_BUCKETS),
    Instrument(SERVER_EVAL, "histogram", "s", "Ollama's eval_duration of one request", (), PART_BUCKETS),
    Instrument(QUEUE, "histogram", "s", "What the server's durations leave of one request: queue and network", (),
               PART_BUCKETS),
    Instrument(MODEL_SIZE, "gauge", "By", "Memory that the model takes, as /api/ps tells"),
    Instrument(MODEL_VRAM, "gauge", "By", "The part of it that lies on a GPU"),
    Instrument(MODEL_VRAM_SHARE, "gauge", "1", "That part as a share, 0 to 1"),
    Instrument(MODEL_EXPIRY, "gauge", "s", "Time until the server unloads the model, if nobody asks it"),
    # Of the client.
    Instrument(SEND_LAG, "histogram", "s", "How much later than due this client sent a request", (), LAG_BUCKETS),
    Instrument(READ_LAG, "histogram", "s", "The longest that a request's bytes waited for this client", (),
               LAG_BUCKETS),
    Instrument(CLIENT_CPU, "gauge", "{cpu}", "Cores that this client and its workers used in the last second"),
    Instrument(CLIENT_MEMORY, "gauge", "By", "Resident memory of this client and its workers"),
    Instrument(LOOP_LAG, "gauge", "s", "How late a worker's event loop was at worst in the last second"),
    Instrument(WORKERS, "gauge", "{process}", "Worker processes that are alive"),
    Instrument(BACKLOG, "gauge", "{row}", "Rows that wait to be put into the database"),
    Instrument(CACHE, "counter", "{cell}", "Cells by what the store had of them", (CACHE_RESULT,)),
    Instrument(CELLS, "gauge", "{cell}", "Cells of this invocation by state", (CELL_STATE,)),
    Instrument(VERDICT, "gauge", "1", "The verdict so far: 0 valid, 1 degraded, 2 invalid"),
)  # fmt: skip
BY_NAME: Mapping[str, Instrument] = {instrument.name: instrument for instrument in INSTRUMENTS}


def prometheus(name: str) -> str:
    """Return the name in Prometheus of one of these instruments."""
    return BY_NAME[name].prometheus


LABEL_CHARACTERS = 100
_STATUSES = frozenset(HTTPStatus)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellLabels:
    """The labels that identify the series of one cell."""

    model: str
    suite: str
    load: str
    """The load level as text, such as ``c=4`` or ``rate=2.5/s constant``, and what else sets the cell apart."""
    server_address: str
    server_port: int
    operation: Literal["chat", "text_completion"] = "chat"
    """The GenAI conventions' word for what is asked for: an answer in a chat, or to a prompt."""
    provider: str = "ollama"
    """The conventions' word for the server's API."""
    label: str | None = None
    """The user's own name for the run."""

    def __hash__(self) -> int:
        """Return a hash of what differs between most cells: every request looks for its own."""
        return hash((self.model, self.suite, self.load))


def own_attributes(cell: CellLabels) -> Labels:
    """Return the attributes that every instrument of a cell has."""
    label = {} if cell.label is None else {"structbench.label": sendable(cell.label[:LABEL_CHARACTERS])}
    return {
        "gen_ai.request.model": sendable(cell.model), "structbench.suite": sendable(cell.suite),
        "structbench.load": sendable(cell.load), **label,
    }  # fmt: skip


def sendable(text: str) -> str:
    """Return the text as valid UTF-8: lone surrogates, which would spoil a whole scrape or batch, become ``?``."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def genai_attributes(cell: CellLabels) -> Labels:
    """Return the cell's own attributes and those of the GenAI conventions."""
    return {
        **own_attributes(cell),
        "gen_ai.operation.name": cell.operation,
        "gen_ai.provider.name": cell.provider,
        "server.address": cell.server_address,
        "server.port": cell.server_port,
    }


def error_type(error: RequestError) -> str:
    """Return the HTTP status if that is what failed (as in the GenAI conventions), else the error kind.

    A non-standard status becomes its class, such as ``5xx``, so that no server can create series.
    """
    if error.kind != "http" or error.status is None:
        return error.kind
    return str(error.status) if error.status in _STATUSES else f"{error.status // 100 % 10}xx"
