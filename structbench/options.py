"""The options that have more than one home: of ``structbench load`` (command line, Python, --help) and of runs.

Invariant: an option's name, default, unit and meaning stand here once. No ``from __future__ import
annotations``: argparse_dataclass calls the annotations as types.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Optional

DEFAULT_MODELS = ("gemma3n", "smollm2:360m", "llama3.2:1b")


def opt(
    default: Any, help: str, *, many: bool = False, type: Any = None, metavar: Optional[str] = None,
    args: Sequence[str] = (),
) -> Any:  # fmt: skip
    """A field with what argparse_dataclass wants to know.

    ``many``: the option takes several values. ``args``: the option's names, where ``--name`` alone will not do;
    ``["-o", "--output"]``, or ``["name"]`` for a word without dashes.
    """
    metadata: dict[str, Any] = {"help": help}
    if args:
        metadata["args"] = list(args)
    if type is not None:
        metadata["type"] = type
    if metavar is not None:
        metadata["metavar"] = metavar
    if many:
        metadata["nargs"] = "*" if _is_word(args) else "+"
        return field(default_factory=lambda: list(default), metadata=metadata)
    elif _is_word(args) and default is None:
        metadata["nargs"] = "?"
    return field(default=default, metadata=metadata)


def _is_word(args: Sequence[str]) -> bool:
    return bool(args) and not args[0].startswith("-")


def think_value(text: str) -> bool | str:
    """--think on|off, or a level such as high."""
    return {"on": True, "true": True, "off": False, "false": False}.get(text.lower(), text)


@dataclass(kw_only=True)
class LoadOptions:
    """Load a server, score its answers, keep every request; times are seconds."""

    models: list[str] = opt(DEFAULT_MODELS, "models to measure, as the server names them", many=True)
    suites: list[str] = opt(
        ("text", "json", "tools"),
        "suites: text, json, tools, turns, numbers, bfcl:CATEGORY, jsonschemabench:PATH, a .jsonl file, a folder of "
        "schemas",
        many=True,
    )
    tags: list[str] = opt((), "only the suites' cases that have one of these tags", many=True)
    host: Optional[str] = opt(
        None, "server, e.g. 127.0.0.1:11434 (default: OLLAMA_HOST, then OLLAMA_BASE_URL, then http://127.0.0.1:11434)"
    )
    requests: Optional[int] = opt(
        None,
        "requests per cell (default by suite: text 50, json 30, tools 20, turns 16, numbers 50, a file its cases; "
        "with --duration: no limit)",
    )
    concurrency: list[int] = opt(
        (),
        "closed loop: requests in flight (default 1); several values make several cells",
        many=True,
    )
    rate: list[float] = opt(
        (),
        "open loop: requests/s sent whatever the server does; several values make several cells",
        many=True,
    )
    arrival: Literal["constant", "poisson", "gamma"] = opt("constant", "open loop: how arrivals are spaced")
    burstiness: float = opt(1.0, "gamma arrivals: shape; below 1 burstier than Poisson, above 1 more even")
    max_in_flight: Optional[int] = opt(
        None,
        "open loop: a request due while so many are in flight is dropped (default: no limit)",
    )
    duration: Optional[float] = opt(
        None,
        "seconds after which a cell stops sending, if --requests did not end it before",
    )
    warmup: Optional[int] = opt(None, "warm-up requests per cell, not in the figures (default: one a worker)")
    workers: Optional[int] = opt(None, "worker processes (default: from cores and load)")
    timeout: float = opt(300.0, "seconds a request may take")
    grace: float = opt(10.0, "seconds that requests in flight get after an interruption")
    mean_input_tokens: float = opt(550.0, "text suite: mean prompt length in tokens")
    stddev_input_tokens: float = opt(150.0, "text suite: its standard deviation")
    mean_output_tokens: float = opt(150.0, "text suite: mean answer length in tokens")
    stddev_output_tokens: float = opt(10.0, "text suite: its standard deviation")
    structured: list[str] = opt(
        ("format",), "JSON suites: schema as Ollama's format, or only in the prompt; both: paired cells", many=True,
        metavar="format|prompt",
    )  # fmt: skip
    think: Optional[str] = opt(
        None,
        "thinking: on, off, or a level such as high (default: the server's)",
        metavar="on|off|LEVEL",
    )
    endpoint: Literal["chat", "generate"] = opt("chat", "/api/chat or /api/generate")
    seed: int = opt(0, "seed of prompts, arrivals and sampling (sampling: seed + request index)")
    option: list[str] = opt((), "Ollama options, e.g. temperature=0 num_ctx=8192", many=True, metavar="KEY=VALUE")
    keep_alive: Optional[str] = opt(
        None, "how long the server keeps the model: 10m, seconds, or -1 for ever (default: the server's)"
    )
    pull: bool = opt(False, "pull models that are missing")
    embed_model: Optional[str] = opt(None, "score answers by their nearness to a reference, with this embedding model")
    db: Path = opt(Path("structbench.duckdb"), "file for the results", type=Path)
    skip_cached: bool = opt(False, "skip cells of which --db holds what is asked for, add what is missing to others")
    explain: bool = opt(False, "say what makes each cell new, partial or done; send nothing")
    dry_run: bool = opt(False, "list the cells and their state; send nothing")
    label: Optional[str] = opt(None, "name for these runs, kept in --db")
    metrics_port: int = opt(9464, "port of the Prometheus metrics (0: off)")
    metrics_host: str = opt("127.0.0.1", "address on which the metrics are served")
    hold: float = opt(0.0, "seconds to keep the metrics up after the end; two scrape intervals miss nothing")
    otlp: Optional[str] = opt(
        None, "push metrics and one span per request to this collector, e.g. http://127.0.0.1:4318", metavar="ENDPOINT"
    )
    otlp_content: bool = opt(False, "spans carry prompts and answers too")
    max_error_rate: float = opt(1.0, "the run fails when a larger share of a cell's requests end in errors (1: never)")
    slo: list[str] = opt(
        (),
        "what each cell must reach, e.g. ttft_p95<0.5 schema_valid>=95%; exit code 99 when one does not "
        "(docs/ci.md has the metrics)",
        many=True, metavar="METRIC<VALUE",
    )  # fmt: skip
    abort_on_slo: bool = opt(
        False,
        "end a cell once one of its --slo is certain to fail, whatever is still to come (never so where only "
        "--duration bounds the cell)",
    )
    goodput: Optional[str] = opt(
        None,
        "limits that a request must keep to count in goodput and correct goodput, e.g. ttft<0.5,tpot<50ms; "
        "kept with the run (default: none)",
        metavar="METRIC<VALUE,…",
    )
    junit: Optional[Path] = opt(
        None, "file for the outcome of each cell and --slo as JUnit XML", type=Path, metavar="FILE"
    )
    json: bool = opt(False, "summary as JSON on stdout, people's text on stderr")
    quiet: bool = opt(False, "no progress display")
    simulate: bool = opt(False, "measure the built-in simulated server instead of a real one")

    def __post_init__(self) -> None:
        if isinstance(self.structured, str):  # from Python, one value may stand alone
            self.structured = [self.structured]


@dataclass(kw_only=True)
class RunFilters:
    """Which stored runs a command is about: each option narrows the choice, several values of one widen it."""

    runs: list[str] = opt(
        (), "run ids, labels, models, suites, server versions or config hashes (default: all runs)", many=True,
        args=["runs"],
    )  # fmt: skip
    model: list[str] = opt((), "runs of these models", many=True)
    suite: list[str] = opt((), "runs of these suites", many=True)
    label: list[str] = opt((), "runs with these labels", many=True)
    status: list[str] = opt((), "runs that are complete, interrupted or running", many=True)
    since: Optional[str] = opt(None, "runs started since a date such as 2026-01-31, or an age: 7d, 12h, 30m")
    db: Path = opt(Path("structbench.duckdb"), "file with the results", type=Path)


def as_arguments(options: LoadOptions) -> list[str]:
    """The words of a command line that gives these options; what is at its default is left out."""
    default = LoadOptions()
    words: list[str] = []
    for each in fields(options):
        value, name = getattr(options, each.name), f"--{each.name.replace('_', '-')}"
        if value == getattr(default, each.name):
            continue
        texts = [] if value is True else [_text(item) for item in (value if isinstance(value, list) else [value])]
        if texts and texts[0].startswith("-"):
            words.append(f"{name}={texts[0]}")
        else:
            words += [name, *texts]
    return words


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
