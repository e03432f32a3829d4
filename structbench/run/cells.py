"""From options to cells: one for each model × suite × load level × way of telling a schema, with its full identity.

Invariant: whatever is wrong with the options is said here, in one line, before anything is sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from loadgen.api.ollama_server import Server, full_name
from loadgen.types import ClosedLoop, Load, OpenLoop
from structbench.errors import BadInput
from structbench.formatting import load_text, suite_text
from structbench.gates.expressions import parse_limits, parse_slo
from structbench.identity import config_hash
from structbench.options import LoadOptions, think_value
from structbench.output import check_output
from structbench.scoring import SCORER_VERSION
from structbench.suites.catalog import load_suite, tagged, tags_of
from structbench.suites.generated import GeneratedCases, TextShape
from structbench.types import Case, Config, Suite

_DURATION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+")
"""What Go, in which Ollama is written, reads as a duration."""

SIMULATED = "simulated"
"""The address in the identity of a simulated cell: its real port is drawn anew for each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model under one suite under one load."""

    model: str
    suite: Suite
    load: Load
    requests: int | None
    """None: as many as the duration allows."""
    config: Config
    config_hash: str

    @property
    def load_name(self) -> str:
        return load_text(asdict(self.load))

    @property
    def suite_name(self) -> str:
        """The suite's name, with how it tells its schemas where that is not the usual way."""
        return suite_text(self.suite.name, self.config.structured)

    @property
    def name(self) -> str:
        return f"{self.model} {self.suite_name} {self.load_name}"


def check_options(options: LoadOptions) -> None:
    """BadInput for numbers that make no sense and options that exclude each other."""
    above_zero: dict[str, Sequence[float | None]] = {
        "requests": [options.requests], "concurrency": options.concurrency, "rate": options.rate,
        "burstiness": [options.burstiness], "max-in-flight": [options.max_in_flight], "duration": [options.duration],
        "workers": [options.workers], "timeout": [options.timeout], "mean-input-tokens": [options.mean_input_tokens],
        "mean-output-tokens": [options.mean_output_tokens],
    }  # fmt: skip
    not_negative: dict[str, Sequence[float | None]] = {
        "warmup": [options.warmup], "grace": [options.grace], "stddev-input-tokens": [options.stddev_input_tokens],
        "stddev-output-tokens": [options.stddev_output_tokens], "hold": [options.hold],
        "max-error-rate": [options.max_error_rate],
    }  # fmt: skip
    for name, values in {**above_zero, **not_negative}.items():
        for value in values:
            if value is None or (math.isfinite(value) and (value > 0 or (name in not_negative and value == 0))):
                continue
            raise BadInput(f"--{name} {value:g}: give {'0 or more' if name in not_negative else 'more than 0'}")
    parse_options(options.option)
    _keep_alive(options.keep_alive)
    _check_gates(options)
    if options.concurrency and options.rate:
        raise BadInput("--rate and --concurrency exclude each other (open loop, closed loop): leave one out")
    if not 0 <= options.metrics_port <= 65535:
        raise BadInput(f"--metrics-port {options.metrics_port}: give a port from 1 to 65535, or 0 for none")
    if options.max_in_flight is not None and not options.rate:
        raise BadInput("--max-in-flight is for an open loop: give --rate, or leave it out")
    if unknown := [mode for mode in options.structured if mode not in ("format", "prompt")]:
        raise BadInput(f"--structured {unknown[0]}: give format, prompt, or both")
    several = {"models": options.models, "suites": options.suites, "structured": options.structured}
    for name, names in several.items():
        same = [full_name(each) if name == "models" else each for each in names]
        if len(set(same)) < len(same):
            twice = next(each for each, whole in zip(names, same, strict=True) if same.count(whole) > 1)
            raise BadInput(f"--{name} names {twice!r} twice: leave one out")


def _check_gates(options: LoadOptions) -> None:
    slos = [parse_slo(text) for text in options.slo]
    if options.goodput is not None:
        parse_limits(options.goodput)
    elif any(slo.metric.name == "goodput" for slo in slos):
        raise BadInput("--slo on goodput needs the limits that make a request good: add --goodput, e.g. ttft<0.5")
    if options.abort_on_slo and not slos:
        raise BadInput("--abort-on-slo needs something to hold the load against: add --slo, e.g. ttft_p95<0.5")
    if options.junit is not None:
        check_output(options.junit, "--junit", [options.db])


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """``key=value`` as Ollama's options: true, false, numbers and [lists] are typed, the rest is text."""
    import json

    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise BadInput(f"--option {pair!r} has no '=': write key=value, e.g. --option temperature=0")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            value = text
        options[key] = text if isinstance(value, dict) or value is None else value
        try:
            json.dumps(options[key], allow_nan=False)
        except ValueError:
            raise BadInput(f"--option {pair!r}: give a finite number") from None
    return options


def _keep_alive(text: str | None) -> str | float | None:
    """As Ollama reads it: a number is seconds, below zero for ever; else a duration such as 10m or 1h30m."""
    if text is None or _DURATION.fullmatch(text):
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise BadInput(f"--keep-alive {text!r} is no duration: give 10m or 1h30m, seconds, or -1 for ever")
    return int(seconds) if seconds.is_integer() else seconds


def load_suites(options: LoadOptions) -> list[Suite]:
    shape = TextShape(
        mean_input_tokens=options.mean_input_tokens, stddev_input_tokens=options.stddev_input_tokens,
        mean_output_tokens=options.mean_output_tokens, stddev_output_tokens=options.stddev_output_tokens,
    )  # fmt: skip
    suites = [load_suite(name, text=shape, seed=options.seed) for name in options.suites]
    if options.tags:
        suites = _with_tags(suites, options.tags)
    if options.endpoint == "generate":
        for suite in suites:
            _check_for_generate(suite)
    return suites


def _check_for_generate(suite: Suite) -> None:
    """BadInput for what a conversation told as one text would leave out."""
    for case in _telling_cases(suite):
        if case.tools:
            raise BadInput(f"suite {suite.name} has tools, which /api/generate does not take: use --endpoint chat")
        for key in ("images", "tool_calls", "thinking"):
            if any(message.get(key) for message in case.messages):
                raise BadInput(
                    f"suite {suite.name}, case {case.id}: has {key} in its messages, which one prompt for "
                    f"/api/generate cannot hold: use --endpoint chat"
                )


def _with_tags(suites: Sequence[Suite], tags: Sequence[str]) -> list[Suite]:
    known = {tag for suite in suites for tag in tags_of(suite)}
    if unknown := [tag for tag in tags if tag not in known]:
        has = f"they have {', '.join(sorted(known))}" if known else "they have none"
        raise BadInput(f"--tags {unknown[0]}: no case of these suites has that tag: {has}")
    return [tagged(suite, tags) for suite in suites]


def _telling_cases(suite: Suite) -> Sequence[Case]:
    """The cases that tell what a suite asks for: all of a file's; a generated suite's are alike, and cost time."""
    return suite.cases[:1] if isinstance(suite.cases, GeneratedCases) else suite.cases


def loads(options: LoadOptions) -> list[Load]:
    if options.rate:
        return [
            OpenLoop(rate=rate, arrival=options.arrival, burstiness=options.burstiness,
                     max_in_flight=options.max_in_flight, duration_s=options.duration, seed=options.seed)
            for rate in options.rate
        ]  # fmt: skip
    return [ClosedLoop(concurrency=n, duration_s=options.duration) for n in options.concurrency or [1]]


def build_cells(options: LoadOptions, server: Server, suites: Sequence[Suite]) -> list[Cell]:
    """All cells, model by model, so that the server loads each model once."""
    own = parse_options(options.option)
    cells = []
    for model in options.models:
        for suite in suites:
            requests = options.requests
            if requests is None and options.duration is None:
                requests = suite.default_requests
            for load, structured in product(loads(options), _structured(options, suite)):
                config = _config(options, server, own, model, suite, load, requests, structured)
                cells.append(Cell(model=model, suite=suite, load=load, requests=requests, config=config,
                                  config_hash=config_hash(config)))  # fmt: skip
    return cells


def _structured(options: LoadOptions, suite: Suite) -> list[str]:
    """The ways in which a suite is to tell its schemas: neither for one that has none."""
    has_schema = any(case.schema is not None for case in _telling_cases(suite))
    return options.structured if has_schema else ["none"]


def _config(
    options: LoadOptions, server: Server, own: Mapping[str, Any], model: str, suite: Suite, load: Load,
    requests: int | None, structured: str,
) -> Config:  # fmt: skip
    kind = "closed" if isinstance(load, ClosedLoop) else "open"
    return Config(
        suite=suite.name,
        suite_hash=suite.content_hash,
        model=model,
        model_digest=server.digest(model) or "",
        server_version=server.version,
        server_address=SIMULATED if options.simulate else server.address,
        endpoint=options.endpoint,
        structured=structured,
        think=None if options.think is None else think_value(options.think),
        options=dict(own),
        keep_alive=_keep_alive(options.keep_alive),
        load={"kind": kind, **asdict(load)},
        seed=options.seed,
        requests=requests,
        warmup=options.warmup,
        timeout_s=options.timeout,
        scorer_version=SCORER_VERSION,
    )
