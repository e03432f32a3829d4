"""The options used in several places: those of ``structbench load`` (command line, Python, --help), and run filters.

Each option's name, default, unit and meaning stands here once. No ``from __future__ import annotations``:
argparse_dataclass calls the annotations as types.
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from operator import index
from pathlib import Path
from typing import Any, ClassVar, Literal, Optional, Protocol, Union, get_args, get_origin

from loadgen.wire.access import Access, access_of, masked_address, masked_header
from structbench.errors import BadInput

DEFAULT_MODELS = ("gemma3n", "smollm2:360m", "llama3.2:1b")
MOST_UNASKED = 3
"""As many models at most are measured where none is named and the server has none of the default ones."""


def opt(
    default: Any, help: str, *, many: bool = False, type: Any = None, metavar: Optional[str] = None,
    args: Sequence[str] = (), secret: bool = False, read: Optional[Callable[[Any], Any]] = None,
    split: Optional[Callable[[str], list[str]]] = None,
) -> Any:  # fmt: skip
    """Return a dataclass field with the metadata that argparse_dataclass and ``Readable`` read.

    ``many``: the option takes several values. ``args``: the option's names, where ``--name`` alone is not enough:
    ``["-o", "--output"]``, or ``["name"]`` for a word without dashes. ``secret``: no ``repr`` shows the value.
    ``read`` makes a value of a word, or of a value given in Python; ``split`` makes several words of one.
    """
    metadata: dict[str, Any] = {"help": help, "read": read, "split": split}
    type = str if type is None and read is not None else type
    if args:
        metadata["args"] = list(args)
    if type is not None:
        metadata["type"] = type
    if metavar is not None:
        metadata["metavar"] = metavar
    if many:
        metadata["nargs"] = "*" if _is_word(args) else "+"
        return field(default_factory=lambda: list(default), repr=not secret, metadata=metadata)
    elif _is_word(args) and default is None:
        metadata["nargs"] = "?"
    return field(default=default, repr=not secret, metadata=metadata)


def _is_word(args: Sequence[str]) -> bool:
    return bool(args) and not args[0].startswith("-")


_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}
_TIME = re.compile(r"\s*".join(rf"(?:(?P<{unit}>\d+(?:\.\d*)?|\.\d+)\s*{unit}(?![a-z]))?" for unit in _UNITS))


def seconds_of(given: Any) -> float:
    """Return the seconds of a number or of a text such as ``30``, ``1m30s`` or ``500ms``; BadInput for others."""
    try:
        return float(_no_flag(given))
    except (TypeError, ValueError):
        found = _TIME.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None or not any(found.groups()):
        raise BadInput("give seconds, or a time such as 30s, 1m30s, 500ms or 2h")
    return sum(float(number) * _UNITS[unit] for unit, number in found.groupdict().items() if number)


def time_word(seconds: float) -> str:
    """Return the shortest word for whole seconds that ``seconds_of`` reads: ``4m30s``; others as a number."""
    if seconds % 1 or not seconds:
        return f"{seconds:g}"
    whole, word = int(seconds), ""
    for unit in ("h", "m", "s"):
        n, whole = divmod(whole, int(_UNITS[unit]))
        word += f"{n}{unit}" if n else ""
    return word


def _no_flag(given: Any) -> Any:
    """Return what is given; TypeError for True and False, which Python takes for 1 and 0."""
    if isinstance(given, bool):
        raise TypeError
    return given


def share_of(given: Any) -> float:
    """Return the share of a number from 0 to 1 or of a percentage such as ``5%``; BadInput for others."""
    try:
        percent = isinstance(given, str) and given.strip().endswith("%")
        share = float(given.strip()[:-1]) / 100 if percent else float(given)
    except (TypeError, ValueError):
        share = -1.0
    if not 0 <= share <= 1:
        raise BadInput("give a share from 0 to 1, or a percentage such as 5%")
    return share


def _number(given: Any) -> float:
    try:
        return float(_no_flag(given))
    except (TypeError, ValueError):
        raise BadInput("give a number") from None


def _whole_number(given: Any) -> int:
    try:
        return int(given if isinstance(given, str) else index(_no_flag(given)))
    except (TypeError, ValueError):
        raise BadInput("give a whole number") from None


LONGEST_S = 1e8
"""The longest time that a command waits: three years."""


def check_number(option: str, value: float | None, most: float, *, zero: bool = False) -> None:
    """Raise BadInput for a value that is no number, below or at 0, or above ``most``; None was not given."""
    if value is None or (value <= most and value > 0) or (zero and value == 0):
        return
    wanted = f"at most {most:,.0f}" if value > most else "0 or more" if zero else "more than 0"
    raise BadInput(f"{option} {value if isinstance(value, int) else f'{value:g}'}: give {wanted}")


def check_seed(seed: int) -> None:
    """Raise BadInput for a seed that is no whole number in the JSON of every language."""
    if abs(seed) > 2**53:
        raise BadInput(f"--seed {seed}: give a whole number from -2^53 to 2^53")


def port_of(given: Any) -> int:
    """Return a port, 0 for none or any; BadInput for what is none."""
    port = _whole_number(given)
    if not 0 <= port <= 65535:
        raise BadInput("give a port from 1 to 65535, or 0 (see --help)")
    return port


def names_in(word: str) -> list[str]:
    """Return the names or numbers in a word: ``a,b`` has two."""
    return [name for part in word.split(",") if (name := part.strip())] or [word]


def paths_in(word: str) -> list[str]:
    """Return the names in a word, of which one may be a file: what exists under the whole word is one."""
    return [word] if "," in word and Path(word.rpartition(":")[2]).exists() else names_in(word)


def addresses_in(word: str) -> list[str]:
    """Return the addresses in a word; one with a password or a socket's path, which may have commas, stands alone."""
    return [word] if "@" in word or word.startswith("unix:") else names_in(word)


def _text(given: Any) -> str:
    """Return a text, also of a number, and of True and False as ``on`` and ``off``."""
    if isinstance(given, bool):
        return "on" if given else "off"
    if isinstance(given, (str, int, float, Path)) and str(given).strip():
        return str(given)
    raise BadInput("give a text that is not empty")


def _flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise BadInput("give True or False")
    return given


def _path(given: Any) -> Path:
    if not isinstance(given, (str, os.PathLike)):
        raise BadInput("give the name of a file")
    return Path(given)


_READERS = {int: _whole_number, float: _number, str: _text, bool: _flag, Path: _path}


def _reader(option: Any) -> Callable[[Any], Any]:
    """Return what reads one value of the option: its own ``read``, else that of its type."""
    if option.metadata.get("read") is not None:
        read: Callable[[Any], Any] = option.metadata["read"]
        return read
    kinds = [kind for kind in get_args(option.type) if kind is not type(None)] or [option.type]
    if get_origin(option.type) is not Literal:
        return _READERS[kinds[0]]

    def choose(given: Any) -> Any:
        if given not in kinds:
            raise BadInput(f"give {', '.join(kinds[:-1])} or {kinds[-1]}")
        return given

    return choose


class Readable:
    """Options whose values are read when they are made, alike from the command line, a file or Python."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            if each.default_factory is not MISSING:
                setattr(self, each.name, _read_each(each, value))
            elif value == "" == each.default:
                continue
            elif value is not None or get_origin(each.type) is not Union:
                setattr(self, each.name, _read(each, value))


def _read_each(option: Any, given: Any) -> list[Any]:
    """Return an option's values: one may stand alone, a word may hold several, a table has KEY=VALUE."""
    if isinstance(given, Mapping):
        values: list[Any] = _pairs(option, given)
    elif given is None:
        values = []
    else:
        one = isinstance(given, (str, bytes)) or not isinstance(given, Iterable)
        values = [given] if one else list(given)
    split = option.metadata.get("split")
    if split is not None:
        values = [part for value in values for part in (split(value) if isinstance(value, str) else [value])]
    if blank := [value for value in values if isinstance(value, str) and not value.strip(" ,")]:
        raise BadInput(f"--{option.name.replace('_', '-')} {blank[0]!r}: give what is not empty, or leave it out")
    return [_read(option, value) for value in values]


LLMPERF: Mapping[str, str] = {
    "--num-concurrent-requests": "it is --concurrency here",
    "--max-num-completed-requests": "it is --requests here", "--llm-api": "it is --api here",
    "--additional-sampling-params": "its fields are --body KEY=JSON here, or --option for every API",
    "--results-dir": "it is --db here; `structbench export --format llmperf` writes LLMPerf's files",
    **dict.fromkeys(
        ("--api litellm", "--api vertexai", "--api sagemaker"),
        "--api openai speaks to it, at its OpenAI-compatible address or through a gateway",
    ),
}  # fmt: skip
"""LLMPerf's word -> what to give here."""
JSON_VALUES = ("option", "body")
"""Options whose values, KEY=VALUE, are JSON."""


def pairs_in(table: Mapping[str, Any], option: str) -> list[str]:
    """Return ``KEY=JSON`` for each value of an option's table; a list holds several values of its key."""
    if empty := [key for key, many in table.items() if isinstance(many, (list, tuple)) and not many]:
        raise BadInput(f"{option}: {empty[0]} has no value: give at least one, or leave it out")
    pairs = [(key, each) for key, many in table.items() for each in (many if isinstance(many, list) else [many])]
    try:
        return [f"{key}={json.dumps(each, ensure_ascii=False, allow_nan=False)}" for key, each in pairs]
    except (TypeError, ValueError) as error:
        raise BadInput(f"{option}: a value that JSON does not have: {error}") from None


def _pairs(option: Any, table: Mapping[str, Any]) -> list[str]:
    if option.name not in JSON_VALUES:
        return [f"{key}={value}" for key, value in table.items()]
    return pairs_in(table, f"--{option.name}")


def _read(option: Any, value: Any) -> Any:
    try:
        return _reader(option)(value)
    except BadInput as error:
        shown = f" {value!r}" if option.repr else ""
        raise BadInput(f"--{option.name.replace('_', '-')}{shown}: {error}") from None


class AccessOptions(Protocol):
    """How a server lets us in: the same options in every command that asks one (``access_opt``)."""

    api_key_env: Optional[str]
    header_env: list[str]
    header: list[str]
    ca: Optional[str]
    cert: list[str]
    insecure: bool


def access_opt(name: str) -> Any:
    """Return the field of that name of ``AccessOptions``."""
    match name:
        case "api_key_env":
            return opt(
                None,
                "environment variable that holds the key to send as Authorization: Bearer (default: OLLAMA_API_KEY, "
                "OPENAI_API_KEY or ANTHROPIC_API_KEY, by the API)",
                metavar="NAME",
            )
        case "header_env":
            return opt(
                (), "headers to send whose values are in environment variables, e.g. X-Api-Key=MY_KEY", many=True,
                metavar="NAME=VARIABLE",
            )  # fmt: skip
        case "header":
            return opt(
                (), "headers to send that are no secrets, e.g. X-Team=search: others can see a command line, so for "
                "secrets use --api-key-env or --header-env", many=True, metavar="NAME=VALUE", secret=True,
            )  # fmt: skip
        case "ca":
            return opt(
                None,
                "file or folder with the certificates to trust (default: those in SSL_CERT_FILE, "
                "SSL_CERT_DIR and REQUESTS_CA_BUNDLE, else the system's)",
                metavar="PATH",
            )
        case "cert":
            return opt((), "client certificate and its key, in one file or in two", many=True, metavar="FILE")
        case _:
            return opt(False, "do not check the server's certificate: anybody could answer in its place")


UNCHECKED = "--insecure: the server's certificate is not checked, so anybody on the way can read and change everything"


MANY_NEEDED = ("models", "suites", "host", "concurrency", "rate", "structured", "think", "slo")
"""Options whose absence means something else than none: an empty list was not meant."""


def check_not_empty(option: str, value: Any) -> None:
    """Raise BadInput for a list without values; a tuple is what Python's functions have by default."""
    if isinstance(value, (list, set, frozenset)) and not value:
        raise BadInput(f"{option} has no value: give at least one, or leave it out")


def access_from(options: AccessOptions, userinfo: str | None = None) -> Access:
    """Return the access that a command's options give, with ``user:password`` of an address; raise BadInput."""
    try:
        access = access_of(
            os.environ, api_key_env=options.api_key_env, header_env=options.header_env, header=options.header,
            ca=options.ca, cert=options.cert, insecure=options.insecure,
        )  # fmt: skip
        return access if userinfo is None else access.completed(userinfo, None, os.environ)
    except ValueError as error:
        raise BadInput(str(error)) from None


LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""How much a model may think, by the names that servers have for it."""


def think_value(text: str) -> bool | str:
    """Return True or False for on or off, else the text itself: a level such as high."""
    return {"on": True, "true": True, "off": False, "false": False}.get(text.lower(), text)


def think_word(value: bool | str) -> str:
    """Return the word of ``think_value``."""
    return value if isinstance(value, str) else "on" if value else "off"


@dataclass(kw_only=True)
class LoadOptions(Readable):
    """Send load to a server, score its answers and store every request; times are seconds, or such as 1m30s."""

    GROUPS: ClassVar[Mapping[str, Sequence[str]]] = {
        "what is measured": ("models", "suites", "tags", "structured", "think", "option", "body", "model_revision"),
        "the server": ("host", "base_url", "api", "endpoint", "api_key_env", "header_env", "header", "ca", "cert",
                       "insecure", "pull", "keep_alive", "limit_field", "simulate"),
        "how much, and how fast": ("requests", "until", "max_requests", "max_time", "duration", "max_tokens_total",
                                   "concurrency", "rate", "arrival", "burstiness", "max_in_flight", "warmup", "timeout",
                                   "patience", "grace", "seed"),
        "where it is sent from": ("workers", "engine", "ray_address", "nodes"),
        "the suite text": ("mean_input_tokens", "stddev_input_tokens", "mean_output_tokens", "stddev_output_tokens"),
        "what must be reached": ("slo", "goodput", "abort_on_slo", "max_error_rate", "junit", "embed_model"),
        "what is stored, and what goes on": ("db", "fsync", "label", "metadata", "skip_cached", "explain", "dry_run",
                                             "print_plan"),
        "what is shown": ("wide", "quiet", "json", "metrics_port", "metrics_host", "hold", "otlp", "otlp_content"),
    }  # fmt: skip
    """Title -> the options under it in --help."""

    models: list[str] = opt(
        (), f"models to measure, as the server names them (default: those of {', '.join(DEFAULT_MODELS)} that it has, "
        f"else its {MOST_UNASKED} smallest)",
        many=True, split=names_in,
    )  # fmt: skip
    suites: list[str] = opt(
        ("text", "json", "tools"),
        "suites to run: text, json, tools, turns, numbers, bfcl:CATEGORY, jsonschemabench:PATH, a .jsonl file or a "
        "folder of schemas",
        many=True, split=paths_in,
    )  # fmt: skip
    tags: list[str] = opt(
        (), "run only the cases that have one of these tags; not:TAG leaves cases out", many=True, split=names_in
    )
    host: list[str] = opt(
        (),
        "address of the server: 127.0.0.1:11434, https://user:password@gpu.lan, http://127.0.0.1:8080/v1, "
        "unix:///run/server.sock (default: OLLAMA_HOST, then OLLAMA_BASE_URL, then http://127.0.0.1:11434; with --api "
        "openai OPENAI_BASE_URL, with anthropic ANTHROPIC_BASE_URL); several servers make several cells",
        many=True, secret=True, split=addresses_in,
    )  # fmt: skip
    base_url: Optional[str] = opt(None, "the server's address with its whole path, to which nothing is added",
                                  secret=True)  # fmt: skip
    api: Literal["auto", "ollama", "openai", "responses", "anthropic"] = opt(
        "auto",
        "protocol: Ollama's own, or chat completions, Responses or Messages; auto: openai for an address that ends "
        "with /v1, else what the server speaks",
    )
    api_key_env: Optional[str] = access_opt("api_key_env")
    header_env: list[str] = access_opt("header_env")
    header: list[str] = access_opt("header")
    ca: Optional[str] = access_opt("ca")
    cert: list[str] = access_opt("cert")
    insecure: bool = access_opt("insecure")
    requests: Optional[int] = opt(None, "ask for exactly so many requests per cell (default: see --until)")
    until: Literal["auto", "settled"] = opt(
        "auto",
        "settled: go on with each cell until its rule is met or not met (--slo, else correct>=90% ttft_p95<=1s "
        "error_rate<=5%), and no longer; auto: that for text and suites with scores, where neither --requests nor "
        "--duration is given, and else one request per case",
    )
    max_requests: int = opt(1000, "until settled: requests per cell after which it ends undecided")
    max_time: float = opt(
        300.0, "until settled: time after which a cell ends undecided", read=seconds_of, metavar="TIME"
    )
    concurrency: list[int] = opt(
        (),
        "closed loop: number of requests in flight (default: 1); several values make several cells",
        many=True, read=_whole_number, split=names_in,
    )  # fmt: skip
    rate: list[float] = opt(
        (),
        "open loop: requests/s to send, however fast the server answers; several values make several cells",
        many=True, read=_number, split=names_in,
    )  # fmt: skip
    arrival: Literal["constant", "poisson", "gamma"] = opt("constant", "open loop: spacing of the arrivals")
    burstiness: float = opt(1.0, "gamma arrivals: shape; below 1 is burstier than Poisson, above 1 more even")
    max_in_flight: Optional[int] = opt(
        None,
        "open loop: drop a request that is due while this many are in flight (default: no limit)",
    )
    duration: Optional[float] = opt(
        None,
        "time after which a cell stops sending, unless --requests ends it sooner",
        read=seconds_of, metavar="TIME",
    )  # fmt: skip
    max_tokens_total: Optional[int] = opt(
        None, "end the load before its prompts and answers together pass this many tokens, for APIs that are paid by "
        "the token (default: no limit)", metavar="TOKENS",
    )  # fmt: skip
    warmup: Optional[int] = opt(
        None,
        "warm-up requests per cell, left out of the figures (default: by the load, one for each 64 streams or "
        "50 requests/s, at most 32)",
    )
    workers: Optional[int] = opt(None, "worker processes, with --engine ray on each node (default: chosen from cores "
                                 "and load)")  # fmt: skip
    engine: Literal["local", "ray"] = opt("local", "send from this machine, or from nodes of a Ray cluster")
    ray_address: Optional[str] = opt(
        None, "HOST:PORT of the Ray cluster's head (default: RAY_ADDRESS, then the cluster on this machine)",
        metavar="ADDRESS",
    )  # fmt: skip
    nodes: Optional[int] = opt(
        None, "nodes of the Ray cluster to send from (default: all but the server's and this one)"
    )
    timeout: float = opt(300.0, "time a request may take", read=seconds_of, metavar="TIME")
    patience: float = opt(
        10.0, "time to wait for a server that no longer answers amid a load, before the load ends (0: none)",
        read=seconds_of, metavar="TIME",
    )  # fmt: skip
    grace: float = opt(
        10.0, "time that requests in flight have to finish after an interruption", read=seconds_of, metavar="TIME"
    )
    mean_input_tokens: float = opt(550.0, "text suite: mean prompt length in tokens")
    stddev_input_tokens: float = opt(150.0, "text suite: standard deviation of the prompt length")
    mean_output_tokens: float = opt(150.0, "text suite: mean answer length in tokens")
    stddev_output_tokens: float = opt(10.0, "text suite: standard deviation of the answer length")
    structured: list[str] = opt(
        ("format",), "JSON suites: send the schema as the API's format, or only in the prompt; both: paired cells. "
        "Also: tools (as a tool's parameters), strict, structured_outputs (vLLM), json_schema (llama.cpp)",
        many=True, metavar="WAY", split=names_in,
    )  # fmt: skip
    think: list[str] = opt(
        (), "thinking: on, off, or a level such as high (default: as the server decides); several values make several "
        "cells", many=True, metavar="on|off|LEVEL", split=names_in,
    )  # fmt: skip
    endpoint: Literal["chat", "generate"] = opt("chat", "endpoint to load: /api/chat or /api/generate")
    seed: int = opt(0, "seed for prompts, arrivals and sampling (sampling uses seed + request index)")
    option: list[str] = opt(
        (), "options by Ollama's names, e.g. temperature=0 num_predict=64; other APIs get their own names for them; "
        "several values of one (num_ctx=2048 num_ctx=8192, or num_ctx=2048,8192) make several cells",
        many=True, metavar="KEY=VALUE",
    )  # fmt: skip
    body: list[str] = opt((), "fields to add to every request's body, e.g. top_k=40; several values of one make "
                          "several cells", many=True, metavar="KEY=JSON")  # fmt: skip
    model_revision: Optional[str] = opt(
        None, "what tells this model from another of its name, where the server does not: a commit, a date"
    )
    limit_field: Literal["auto", "max_tokens", "max_completion_tokens"] = opt(
        "auto", "chat completions: the field for the limit of an answer (default: max_completion_tokens on "
        "api.openai.com and where the server refuses max_tokens)",
    )  # fmt: skip
    keep_alive: Optional[str] = opt(
        None,
        "how long the server keeps the model loaded: 10m, seconds, or -1 for ever (default: as the server decides)",
    )
    pull: bool = opt(False, "pull missing models first")
    embed_model: Optional[str] = opt(None, "embedding model for scoring how similar answers are to their references")
    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)
    fsync: bool = opt(False, "write each row through to the disk, for a machine that may lose power")
    skip_cached: bool = opt(False, "skip cells that are already complete in --db, and complete the partial ones")
    explain: bool = opt(False, "explain why each cell is new, partial or done; send nothing")
    dry_run: bool = opt(False, "list the cells and their states; send nothing")
    print_plan: bool = opt(False, "print these options as a plan file, for structbench load PLAN.toml; send nothing")
    label: Optional[str] = opt(None, "name to store with these runs")
    metadata: list[str] = opt((), "facts to store with these runs, e.g. gpu=L4 batch=8", many=True,
                              metavar="KEY=VALUE")  # fmt: skip
    metrics_port: int = opt(9464, "port on which to serve Prometheus metrics (0: off)", read=port_of, metavar="N")
    metrics_host: str = opt("127.0.0.1", "address on which to serve the metrics")
    hold: float = opt(
        0.0, "time to keep serving metrics after the end; two scrape intervals are enough to miss nothing",
        read=seconds_of, metavar="TIME",
    )  # fmt: skip
    otlp: Optional[str] = opt(
        None,
        "push metrics and one span per request to this collector, e.g. http://127.0.0.1:4318",
        metavar="ENDPOINT",
        secret=True,
    )
    otlp_content: bool = opt(False, "include prompts and answers in the spans")
    max_error_rate: float = opt(
        1.0, "fail when more than this share of a cell's requests end in errors, e.g. 5% (1: never)",
        read=share_of, metavar="SHARE",
    )  # fmt: skip
    slo: list[str] = opt(
        (),
        "conditions that each cell must meet, e.g. ttft_p95<0.5 schema_valid>=95%; if one is not met, or "
        "not decided, the exit code is 99 (docs/ci.md lists the metrics)",
        many=True, metavar="METRIC<VALUE",
    )  # fmt: skip
    abort_on_slo: bool = opt(
        False,
        "end a cell as soon as one of its --slo can no longer be met (never certain in a cell that only --duration "
        "limits)",
    )
    goodput: Optional[str] = opt(
        None,
        "limits within which a request counts towards goodput and correct goodput, e.g. ttft<0.5,tpot<50ms; "
        "stored with the run (default: none)",
        metavar="METRIC<VALUE,…",
    )
    junit: Optional[Path] = opt(
        None, "write the result of each cell and --slo to this file as JUnit XML", type=Path, metavar="FILE"
    )
    json: bool = opt(False, "print the summary as JSON on stdout and everything else on stderr")
    quiet: bool = opt(False, "do not show progress")
    wide: bool = opt(False, "end with every figure, not with one table")
    simulate: bool = opt(False, "measure the built-in simulated server, not a real one")


@dataclass(kw_only=True)
class RunFilters(Readable):
    """Select the stored runs for a command: each option narrows the choice, several values of one widen it."""

    runs: list[str] = opt(
        (), "run ids, labels, models, suites, servers, versions or config hashes (default: all runs)", many=True,
        args=["runs"],
    )  # fmt: skip
    model: list[str] = opt((), "only runs of these models", many=True, split=names_in)
    suite: list[str] = opt((), "only runs of these suites", many=True, split=names_in)
    label: list[str] = opt((), "only runs with these labels", many=True)
    status: list[str] = opt((), "only runs that are complete, interrupted or running", many=True, split=names_in)
    since: Optional[str] = opt(None, "only runs started since a date, e.g. 2026-01-31, or within an age: 7d, 12h, 30m")
    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)


def as_arguments(options: LoadOptions) -> list[str]:
    """Return the words of the options' command that give them, without those at their default, with secrets masked."""
    default = type(options)()
    options = replace(
        options, header=[masked_header(pair) for pair in options.header],
        host=[masked_address(host) for host in options.host],
        base_url=None if options.base_url is None else masked_address(options.base_url),
        otlp=None if options.otlp is None else masked_address(options.otlp),
    )  # fmt: skip
    words: list[str] = []
    for each in fields(options):
        value, name = getattr(options, each.name), f"--{each.name.replace('_', '-')}"
        if value == getattr(default, each.name):
            continue
        texts = [] if value is True else [_word(item) for item in (value if isinstance(value, list) else [value])]
        words += words_for(name, texts)
    return words


def words_for(name: str, values: Sequence[str]) -> list[str]:
    """Return the words that give an option these values, of which one may begin with a dash."""
    if any(value.startswith("-") for value in values):
        return [f"{name}={value}" for value in values]
    return [name, *values]


def as_setting(key: str, value: Any) -> str:
    """Return ``KEY=VALUE`` as --option and --body read it back."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _word(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
