"""``Settings``: the options of a load, parsed once and before anything is sent; no other module sees raw options."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from loadgen.api import APIS, DEFAULT_API
from loadgen.api.anthropic import MIN_THINKING_TOKENS
from loadgen.api.sending import chat_api
from loadgen.api.server import Server, server_api
from loadgen.engine import Cluster
from loadgen.telemetry.target import Target, is_installed, target_of
from loadgen.types import ClosedLoop, Load, OpenLoop
from loadgen.wire.access import Access
from structbench.errors import BadInput
from structbench.formatting import did_you_mean, setting_text
from structbench.gates.expressions import Condition, parse_limits, parse_slo
from structbench.gates.slo import rule_of
from structbench.identity import canonical_json
from structbench.options import (
    LEVELS,
    LONGEST_S,
    UNCHECKED,
    LoadOptions,
    access_from,
    check_number,
    check_seed,
    think_value,
)
from structbench.output import check_output, complain
from structbench.suites.catalog import NOT, load_suite, representative_cases, tagged, tags_of
from structbench.suites.generated import TextShape
from structbench.types import Suite

MOST: Mapping[str, float] = {
    "requests": 1e9, "max_requests": 1e9, "max_time": LONGEST_S, "max_tokens_total": 1e15, "concurrency": 1e6,
    "rate": 1e6, "burstiness": 1e6, "max_in_flight": 1e6, "duration": LONGEST_S, "workers": 1000, "nodes": 1e5,
    "timeout": LONGEST_S, "mean_input_tokens": 1e6, "mean_output_tokens": 1e6, "warmup": 1e6, "grace": LONGEST_S,
    "patience": LONGEST_S, "stddev_input_tokens": 1e6, "stddev_output_tokens": 1e6, "hold": LONGEST_S,
}  # fmt: skip
"""The largest value of each number that must be above 0, or may not be below: beyond it nothing was meant."""
_NOT_NEGATIVE = ("warmup", "grace", "patience", "stddev_input_tokens", "stddev_output_tokens", "hold")

_MEASURED = {
    "model": "give --models", "messages": "a suite has the messages, and a file can be one",
    "input": "a suite has the messages, and a file can be one",
    "prompt": "a suite has the prompts, and a file can be one",
    "tools": "a suite has the tools, and a file can be one", "stream": "every answer is streamed",
}  # fmt: skip
"""Fields of a request that say what is measured, and what to give instead."""
_LLMPERFS_LIST = re.compile(r"[^,=]*(,[A-Za-z_][\w-]*=[^,=]*)+")
"""What follows the first name where all pairs stand in one, as LLMPerf has them."""
_MISSPELT = 0.75
"""From this similarity on, an unknown option of Ollama is a known one with a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What a load is run with, where several values are given."""

    think: bool | str | None
    options: Mapping[str, Any]
    """Ollama options sent with every request."""
    body: Mapping[str, Any]
    """Fields added to the body of every request."""
    name: str
    """What has several values, with this one's: ``num_ctx=2048 think=on``; empty where nothing has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of one ``structbench load``; times are in seconds."""

    models: tuple[str, ...]
    suites: tuple[Suite, ...]
    loads: tuple[Load, ...]
    structured: tuple[str, ...]
    """How JSON suites send their schemas; each way is a cell of its own."""
    requests: int | None
    """None: as many as the duration allows, as settle the rule, or as the suite has cases."""
    until_settled: bool | None
    """Whether cells go on until the rule is decided; None: those of ``text`` and of suites with scores."""
    max_requests: int
    max_time_s: float
    rule: tuple[Condition, ...]
    """By what a cell is settled: --slo, else the default rule."""
    given: LoadOptions = field(repr=False)
    """The options themselves, for the command that goes on with a cell."""
    max_tokens_total: int | None
    """Tokens that the whole load may use."""
    warmup: int | None
    workers: int | None
    engine: str
    cluster: Cluster | None
    """Which machines send; None: this one."""
    timeout_s: float
    grace_s: float
    patience_s: float
    """How long a load waits for a server that no longer answers."""
    endpoint: str
    variants: tuple[Variant, ...]
    """Thinking, options and fields of the body; each combination of their values is a cell of its own."""
    keep_alive: str | float | None
    seed: int
    hosts: tuple[str | None, ...] = field(repr=False)
    """The servers' addresses as they were given, perhaps with credentials; None: the default."""
    api: str | None
    """None: what each server speaks."""
    base_url: str | None = field(repr=False)
    model_revision: str | None
    limit_field: str | None
    """The field for the limit of an answer; None: as the server takes it."""
    access: Access
    """Without the credentials of the address and the API's own key, which ``loadgen.api.server.reach`` adds."""
    simulate: bool
    pull: bool
    embed_model: str | None
    db: Path
    fsync: bool
    skip_cached: bool
    explain: bool
    dry_run: bool
    label: str | None
    text: TextShape
    """Lengths of the suite ``text``."""
    metadata: Mapping[str, str]
    """Facts to store with the runs, which change nothing about them."""
    max_error_rate: float
    slos: tuple[Condition, ...]
    abort_on_slo: bool
    goodput: Mapping[str, float] | None
    """Column of ``requests`` -> the limit for a good request; None: no limits were given."""
    junit: Path | None
    metrics_port: int | None
    metrics_host: str
    collector: Target | None
    notices: tuple[str, ...]
    """Lines to print before the load begins."""
    hold_s: float

    @property
    def wanted_models(self) -> tuple[str, ...]:
        """Every model that the server must have."""
        return self.models if self.embed_model is None else (*self.models, self.embed_model)


def settings_of(options: LoadOptions) -> Settings:
    """Parse the options and read the suites; raise BadInput for invalid or conflicting options."""
    _check_numbers(options)
    _check_choices(options)
    slos, goodput = _gates(options)
    keep_alive = _keep_alive(options.keep_alive)
    collector, notices = _collector(options)
    notices += (UNCHECKED,) if options.insecure else ()
    notices += tuple(_without_effect(options))
    shape = _shape(options)
    return Settings(
        models=tuple(options.models), suites=tuple(_suites(options, shape)), text=shape, loads=tuple(_loads(options)),
        structured=tuple(options.structured), requests=options.requests,
        until_settled=_until_settled(options), max_requests=options.max_requests, max_time_s=options.max_time,
        rule=slos or rule_of(()), given=options,
        max_tokens_total=options.max_tokens_total,
        warmup=options.warmup, workers=options.workers, engine=options.engine,
        cluster=_cluster(options), timeout_s=options.timeout, grace_s=options.grace,
        patience_s=options.patience,
        endpoint=options.endpoint, variants=tuple(variants_of(options)),
        keep_alive=keep_alive, seed=options.seed, access=access_from(options),
        hosts=tuple(options.host) or (None,), api=None if options.api == "auto" else options.api,
        base_url=options.base_url, model_revision=options.model_revision,
        limit_field=None if options.limit_field == "auto" else options.limit_field,
        simulate=options.simulate,
        pull=options.pull, embed_model=options.embed_model, db=Path(options.db), fsync=options.fsync,
        skip_cached=options.skip_cached,
        explain=options.explain, dry_run=options.dry_run,
        label=options.label, metadata=_facts(options.metadata),
        max_error_rate=options.max_error_rate, slos=slos, abort_on_slo=options.abort_on_slo,
        goodput=goodput, junit=options.junit, metrics_port=options.metrics_port or None,
        metrics_host=options.metrics_host, collector=collector, notices=notices, hold_s=options.hold,
    )  # fmt: skip


def _until_settled(options: LoadOptions) -> bool | None:
    asked = [f"--{name}" for name in ("requests", "duration") if getattr(options, name) is not None]
    if options.until == "settled" and asked:
        raise BadInput(f"--until settled and {asked[0]} cannot be combined: leave one out, or bound the former by "
                       "--max-requests and --max-time")  # fmt: skip
    return False if asked else True if options.until == "settled" else None


def _without_effect(options: LoadOptions) -> Iterator[str]:
    """Yield a line for each bound of a load until settled that was given beside what makes it another."""
    asked = [f"--{name}" for name in ("requests", "duration") if getattr(options, name) is not None]
    for name in ("max_requests", "max_time") if asked else ():
        if getattr(options, name) != getattr(LoadOptions(), name):
            word = f"--{name.replace('_', '-')}"
            yield f"{word} bounds a load until settled, and has no effect beside {asked[0]}: leave one out"


def _check_numbers(options: LoadOptions) -> None:
    for name, most in MOST.items():
        given = getattr(options, name)
        for value in given if isinstance(given, list) else [given]:
            check_number(f"--{name.replace('_', '-')}", value, most, zero=name in _NOT_NEGATIVE)
    check_seed(options.seed)


def _check_choices(options: LoadOptions) -> None:
    if options.concurrency and options.rate:
        raise BadInput("--rate and --concurrency cannot be combined (open loop, closed loop): leave one out")
    open_loop = {"max_in_flight": options.max_in_flight is not None, "arrival": options.arrival != "constant"}
    if not options.rate and (only := [name for name, given in open_loop.items() if given]):
        raise BadInput(f"--{only[0].replace('_', '-')} is for an open loop: give --rate, or leave it out")
    if options.burstiness != 1 and options.arrival != "gamma":
        raise BadInput("--burstiness is the shape of gamma arrivals: add --arrival gamma, or leave it out")
    if options.simulate and options.host:
        raise BadInput("--simulate measures a server of its own: leave out --host, or --simulate")
    if unknown := [word for word in options.think if isinstance(think_value(word), str) and word.lower() not in LEVELS]:
        raise BadInput(f"--think {unknown[0]}: give on, off, or a level: {', '.join(LEVELS)}")
    if options.base_url is not None and (options.host or options.simulate):
        raise BadInput("--base-url is the whole address of a server: leave out --host and --simulate")
    several: dict[str, list[Any]] = {
        "models": options.models, "suites": options.suites, "structured": options.structured, "host": options.host,
        "concurrency": options.concurrency, "rate": options.rate,
    }  # fmt: skip
    for name, names in several.items():
        same = [server_api(DEFAULT_API).full_name(each) if name == "models" else each for each in names]
        if len(set(same)) < len(same):
            twice = next(each for each, whole in zip(names, same, strict=True) if same.count(whole) > 1)
            told = repr(twice) if isinstance(twice, str) else f"{twice:g}"
            raise BadInput(f"--{name} names {told} twice: leave one out")


def _gates(options: LoadOptions) -> tuple[tuple[Condition, ...], dict[str, float] | None]:
    """Return the --slo conditions and the --goodput limits."""
    slos = tuple(parse_slo(text) for text in dict.fromkeys(options.slo))
    goodput = None if options.goodput is None else parse_limits(options.goodput)
    if goodput is None and any(slo.metric.name == "goodput" for slo in slos):
        raise BadInput("--slo on goodput needs limits for a good request: add --goodput, e.g. ttft<0.5")
    if options.abort_on_slo and not slos:
        raise BadInput("--abort-on-slo needs a condition: add --slo, e.g. ttft_p95<0.5")
    if options.junit is not None:
        check_output(options.junit, "--junit", [options.db])
    return slos, goodput


def variants_of(options: LoadOptions) -> list[Variant]:
    """Return each combination of the values of thinking, options and fields of the body."""
    thinks: list[Any] = [think_value(text) for text in options.think] or [None]
    given: dict[tuple[str, str], list[Any]] = {("think", "think"): thinks}
    given |= {("option", key): values for key, values in parse_options(options.option).items()}
    given |= {("body", key): values for key, values in body_fields(options.body).items()}
    for (option, key), values in given.items():
        texts = [canonical_json(value) for value in values]
        if twice := [value for value, text in zip(values, texts, strict=True) if texts.count(text) > 1]:
            raise BadInput(f"--{option} gives {setting_text(key, twice[0])} twice: leave one out")
    found = []
    for chosen in product(*given.values()):
        pairs = list(zip(given, chosen, strict=True))
        found.append(Variant(
            think=chosen[0],
            options={key: value for (option, key), value in pairs if option == "option"},
            body={key: value for (option, key), value in pairs if option == "body"},
            name=" ".join(setting_text(key, value) for (option, key), value in pairs if len(given[option, key]) > 1),
        ))  # fmt: skip
    return found


def parse_options(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """Parse ``key=value`` pairs as Ollama options, each with the values that it is given.

    true, false, numbers and [lists] are typed, the rest is text; several numbers with commas are several values.
    """
    options: dict[str, list[Any]] = {}
    for pair in pairs:
        key, text = _split(pair, "--option", "key=value", "temperature=0")
        values = [_typed(text)]
        if "," in text and values == [text]:
            parts = [_typed(part) for part in text.split(",")]
            values = parts if all(isinstance(part, int | float) for part in parts) else values
        try:
            json.dumps(values, allow_nan=False)
        except ValueError:
            raise BadInput(f"--option {pair!r}: give a finite number") from None
        options.setdefault(key, []).extend(values)
    return options


def _typed(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return text if isinstance(value, dict) or value is None else value


def body_fields(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """Parse ``KEY=JSON`` pairs, the fields to add to a request's body, each with the values that it is given."""
    found: dict[str, list[Any]] = {}
    for pair in pairs:
        key, text = _split(pair, "--body", "KEY=JSON", "top_k=40")
        if key in _MEASURED:
            raise BadInput(f"--body {key}: it would replace what the run says that it measured: {_MEASURED[key]}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise BadInput(f"--body {key}: {text!r} is not JSON; a text needs quotes, e.g. --body '{key}=\"{text}\"'"
                           ) from None  # fmt: skip
        try:
            json.dumps(value, allow_nan=False)
        except ValueError:
            raise BadInput(f"--body {key}: {text!r} has a number that JSON does not have: give finite ones") from None
        found.setdefault(key, []).append(value)
    return found


def _facts(pairs: Sequence[str]) -> dict[str, str]:
    """Parse the pairs of --metadata."""
    found: dict[str, str] = {}
    for key, text in (_split(pair, "--metadata", "KEY=VALUE", "gpu=L4") for pair in pairs):
        if found.setdefault(key, text) != text:
            raise BadInput(f"--metadata gives {key} twice, {found[key]} and {text}: leave one out")
    for key, text in found.items():
        if _LLMPERFS_LIST.fullmatch(text):
            apart = f"{key}={text}".replace(",", " ")
            raise BadInput(f"--metadata {key}={text}: pairs stand apart here, unlike LLMPerf's: --metadata {apart}")
    return found


def _split(pair: str, option: str, form: str, example: str) -> tuple[str, str]:
    """Return the key and the text of ``KEY=TEXT``."""
    key, equals, text = pair.partition("=")
    if not equals or not key:
        raise BadInput(f"{option} {pair!r} has no '=': write {form}, e.g. {option} {example}")
    return key, text


def check_api(settings: Settings, server: Server) -> None:
    """Raise BadInput for what the server's API cannot be asked, or if its official client is not installed."""
    if find_spec(package := server.api.PROVIDER) is None:
        raise BadInput(f"the API {server.api_name} needs the package {package}: pip install 'structbench[{package}]'")
    api = chat_api(server.api_name)
    ways = ("format", "prompt", *api.DIALECTS)
    if unknown := [way for way in settings.structured if way not in ways]:
        raise BadInput(f"--structured {unknown[0]}: the API {server.api_name} has {', '.join(ways)}")
    if settings.keep_alive is not None and server.api_name != DEFAULT_API:
        raise BadInput(f"--keep-alive: only Ollama's own API has it, and {server.address} is spoken to by "
                       f"{server.api_name}: leave it out")  # fmt: skip
    if settings.endpoint == "generate" and not api.PROMPTS:
        raise BadInput(f"--endpoint generate: the API {server.api_name} takes no prompt outside a chat: leave it out")
    only = api.OPTIONS["num_predict"]
    if settings.limit_field not in (None, only) and (server.api_name != "openai" or settings.endpoint == "generate"):
        raise BadInput(f"--limit-field {settings.limit_field}: the limit of an answer is {only} here: leave it out")
    if several := [variant.body["n"] for variant in settings.variants if variant.body.get("n", 1) != 1]:
        raise BadInput(f"--body n={several[0]}: a request is measured by its one answer: leave it out")
    _check_options(settings, server.api_name, api.OPTIONS)
    if server.api_name == "anthropic" and any(variant.think is True for variant in settings.variants):
        _tell_raised_limits(settings)


def _tell_raised_limits(settings: Settings) -> None:
    """Say that limits are raised which leave an answer nothing beside the least thinking that Anthropic's API takes."""
    options = [variant.options for variant in settings.variants]
    options += [case.options for suite in settings.suites for case in representative_cases(suite)]
    limits = [each.get("num_predict") for each in options]
    if any(isinstance(limit, int) and limit <= MIN_THINKING_TOKENS for limit in limits):
        complain(f"--think on: Anthropic's API wants a limit above the {MIN_THINKING_TOKENS:,} tokens of thinking: as "
                 "many are added to limits that are not")  # fmt: skip


def _check_options(settings: Settings, name: str, known: Mapping[str, str]) -> None:
    """Raise BadInput for an option without a counterpart, on the command line or in a case.

    Ollama ignores what it does not know, and other servers speak its API: a name that is like none is only told.
    """
    asked = [("--option", variant.options) for variant in settings.variants]
    for suite in settings.suites:
        asked += [(f"suite {suite.name}, case {case.id}", case.options) for case in representative_cases(suite)]
    told: dict[str, str] = {}
    for where, options in asked:
        _check_types(where, options)
        unknown = [option for option in options if option not in known]
        if name == DEFAULT_API:
            told |= {option: where for option in unknown if option not in told}
        elif unknown:
            raise BadInput(f"{where}: the API {name} has no counterpart of {unknown[0]} (it has {', '.join(known)}): "
                           f"use --body for a field of the server's own")  # fmt: skip
    for option, where in told.items():
        if near := _meant_option(option, known):
            raise BadInput(f"{where}: Ollama has no option {option}: {near}")
        complain(f"warning: {where}: {option} is no option of Ollama, which ignores those that it does not know")


_WHOLE = ("top_k", "seed", "num_predict", "num_keep", "repeat_last_n", "mirostat", "num_ctx", "num_batch", "num_gpu",
          "main_gpu", "num_thread", "num_gqa", "draft_num_predict")  # fmt: skip
_REAL = ("temperature", "top_p", "min_p", "typical_p", "tfs_z", "repeat_penalty", "presence_penalty",
         "frequency_penalty", "mirostat_tau", "mirostat_eta", "rope_frequency_base",
         "rope_frequency_scale")  # fmt: skip
_SWITCHES = ("penalize_newline", "use_mmap", "use_mlock", "low_vram", "numa", "f16_kv", "vocab_only", "logits_all",
             "embedding_only")  # fmt: skip


def _check_types(where: str, options: Mapping[str, Any]) -> None:
    """Raise BadInput for a value that no server can take for an option: each request would be refused for it."""
    for name, value in options.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        wanted = ""
        if name in _WHOLE and not (is_number and value == int(value)):
            wanted = "a whole number"
        elif name in _REAL and not is_number:
            wanted = "a number"
        elif name in _SWITCHES and not isinstance(value, bool):
            wanted = "true or false"
        elif name == "stop" and not all(
            isinstance(each, str) for each in (value if isinstance(value, list) else [value])
        ):
            wanted = 'a text, or several: stop=\'["a", "5"]\''
        if wanted:
            raise BadInput(f"{where}: {setting_text(name, value)}: give {wanted}")


def _meant_option(option: str, known: Mapping[str, str]) -> str:
    """Return ``did you mean num_predict?`` for a misspelt name or another API's; empty for one that is like none."""
    by_other_apis = {theirs: ours for api in APIS for ours, theirs in chat_api(api).OPTIONS.items()}
    if option in by_other_apis:
        return f"did you mean {by_other_apis[option]}?"
    return did_you_mean(option.lower(), known, otherwise="", cutoff=_MISSPELT)


def _keep_alive(text: str | None) -> str | float | None:
    try:
        return None if text is None else server_api(DEFAULT_API).keep_alive(text)
    except ValueError:
        raise BadInput(
            f"--keep-alive {text!r} is not a valid duration: give 10m or 1h30m, seconds, or -1 for ever"
        ) from None


def _loads(options: LoadOptions) -> list[Load]:
    if options.rate:
        return [
            OpenLoop(rate=rate, arrival=options.arrival, burstiness=options.burstiness,
                     max_in_flight=options.max_in_flight, duration_s=options.duration, seed=options.seed)
            for rate in options.rate
        ]  # fmt: skip
    return [ClosedLoop(concurrency=n, duration_s=options.duration) for n in options.concurrency or [1]]


def _cluster(options: LoadOptions) -> Cluster | None:
    if options.engine != "local":
        return Cluster(address=options.ray_address, nodes=options.nodes, workers=options.workers)
    for name in ("ray_address", "nodes"):
        if getattr(options, name) is not None:
            raise BadInput(f"--{name.replace('_', '-')} is for a cluster: add --engine ray, or leave it out")
    return None


def _shape(options: LoadOptions) -> TextShape:
    return TextShape(
        mean_input_tokens=options.mean_input_tokens, stddev_input_tokens=options.stddev_input_tokens,
        mean_output_tokens=options.mean_output_tokens, stddev_output_tokens=options.stddev_output_tokens,
    )  # fmt: skip


def _suites(options: LoadOptions, shape: TextShape) -> list[Suite]:
    suites = [load_suite(name, text=shape, seed=options.seed) for name in options.suites]
    if options.tags:
        suites = _with_tags(suites, options.tags)
    if options.endpoint == "generate":
        for suite in suites:
            _check_for_generate(suite)
    return suites


def _with_tags(suites: Sequence[Suite], tags: Sequence[str]) -> list[Suite]:
    known = {tag for suite in suites for tag in tags_of(suite)}
    if unknown := [tag for tag in tags if tag.removeprefix(NOT) not in known]:
        has = f"they have {', '.join(sorted(known))}" if known else "they have none"
        raise BadInput(f"--tags {unknown[0]}: no case of these suites has this tag; {has}")
    return [tagged(suite, tags) for suite in suites]


def _check_for_generate(suite: Suite) -> None:
    """Raise BadInput if a case has something that one prompt for /api/generate cannot hold."""
    for case in representative_cases(suite):
        if case.tools:
            raise BadInput(f"suite {suite.name} has tools, which /api/generate does not take: use --endpoint chat")
        for key in ("images", "tool_calls", "thinking"):
            if any(message.get(key) for message in case.messages):
                raise BadInput(
                    f"suite {suite.name}, case {case.id}: has {key} in its messages, which one prompt for "
                    f"/api/generate cannot hold: use --endpoint chat"
                )


def _collector(options: LoadOptions) -> tuple[Target | None, tuple[str, ...]]:
    """Return the collector to push to, and the lines to print about it."""
    try:
        target = target_of(options.otlp, options.otlp_content, os.environ)
    except ValueError as error:
        raise BadInput(str(error)) from None
    if options.otlp_content and target is None:
        raise BadInput("--otlp-content needs a collector to push to: give --otlp ENDPOINT, or leave it out")
    what_to_do = "pip install 'structbench[otlp]'"
    if target is None or is_installed():
        by_environment = target is not None and options.otlp is None
        pushed = f"pushing metrics and traces to {target.name}, as set in the environment" if target else ""
        return target, (pushed,) if by_environment else ()
    if options.otlp is not None or options.otlp_content:
        raise BadInput(f"--otlp needs the OpenTelemetry exporter: run {what_to_do}")
    return None, (f"not pushing to {target.name}, which is set in the environment: to push, run {what_to_do}",)
