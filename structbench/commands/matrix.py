"""``structbench matrix``: what each API of a server does with think, format, tools, tool_choice and stream."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from structbench.commands import print_json
from structbench.errors import BadInput, RunFailed
from structbench.formatting import did_you_mean
from structbench.options import (
    LONGEST_S,
    UNCHECKED,
    Readable,
    access_from,
    access_opt,
    addresses_in,
    check_number,
    names_in,
    opt,
    seconds_of,
)
from structbench.output import complain

if TYPE_CHECKING:
    from loadgen.api.server import Server
    from structbench.matrix.client import Prober
    from structbench.matrix.probes import Probe
    from structbench.store import Store


EXAMPLES = (
    "structbench matrix --models qwen3:4b",
    "structbench matrix --models qwen3:4b --host 127.0.0.1:11434 127.0.0.1:8080",
)


@dataclass(kw_only=True)
class Options(Readable):
    """Try think, format, tools and stream on every API of a server, or compare what is stored of two of them."""

    models: list[str] = opt((), "models to try, as the server names them", many=True, split=names_in)
    compare: list[str] = opt(
        (), "show what differs between two servers (kind, version or address) or models in --db; send nothing",
        many=True, metavar="A B",
    )  # fmt: skip
    host: list[str] = opt(
        (), "addresses of the servers, e.g. 127.0.0.1:11434 127.0.0.1:8080 (default: as for load)", many=True,
        secret=True, split=addresses_in,
    )  # fmt: skip
    api: list[str] = opt((), "APIs to try: ollama, openai, responses, anthropic (default: all that a server speaks)",
                         many=True)  # fmt: skip
    api_key_env: Optional[str] = access_opt("api_key_env")
    header_env: list[str] = access_opt("header_env")
    header: list[str] = access_opt("header")
    ca: Optional[str] = access_opt("ca")
    cert: list[str] = access_opt("cert")
    insecure: bool = access_opt("insecure")
    tokens: int = opt(128, "output tokens a probe may take; thinking models need more")
    timeout: float = opt(60.0, "time a probe may take", read=seconds_of, metavar="TIME")
    pull: bool = opt(False, "pull missing models first")
    db: Path = opt(Path("structbench.duckdb"), "results database", type=Path)
    json: bool = opt(False, "print the findings as JSON on stdout and everything else on stderr")
    simulate: bool = opt(False, "try the built-in simulated server, not a real one")


def run(options: Options) -> int:
    from loadgen.api import APIS

    if options.compare:
        return _compare(options)
    if not options.models:
        raise BadInput("name the models to try: structbench matrix --models qwen3:4b; or --compare two stored sides")
    check_number("--tokens", options.tokens, 1e9)
    check_number("--timeout", options.timeout, LONGEST_S)
    if unknown := [name for name in options.api if name not in APIS]:
        raise BadInput(f"--api {unknown[0]!r}: {did_you_mean(unknown[0], APIS)}")
    return _try(options)


def _try(options: Options) -> int:
    """Probe each model on each server, store each finding at once, and print a grid for each."""
    from rich.console import Console

    from structbench.matrix.grid import print_grid
    from structbench.run.plan import find_server, pull_missing
    from structbench.store import storing

    console = Console(stderr=options.json)
    rows: list[dict[str, Any]] = []
    access = access_from(options)
    if options.insecure:
        complain(UNCHECKED)
    with ExitStack() as stack:
        servers = [
            find_server(
                options.models, stack, host=host, access=access, simulate=options.simulate, pull=options.pull,
                api=options.api[0] if options.api else None,
            )
            for host in options.host or (None,)
        ]  # fmt: skip
        servers = [pull_missing(options.models, server, console.print) for server in servers]
        store = stack.enter_context(storing(options.db))
        for server, model in product(servers, options.models):
            found = list(_probe(options, server, store, model))
            print_grid(found, console)
            rows += found
    if options.json:
        print_json(rows)
    return 0


def _probe(options: Options, server: "Server", store: "Store", model: str) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import track

    from loadgen.api.server import ServerError
    from structbench.matrix.client import Prober, endpoints_of
    from structbench.matrix.probes import probes

    limit = server.limit_field
    try:
        _, refusal = server.load_model(model, limit_field=limit)
        if refusal is not None and limit is None and (limit := server.api.refused_limit(refusal)) is not None:
            _, refusal = server.load_model(model, limit_field=limit)
    except ServerError as error:
        raise BadInput(str(error)) from None
    if refusal is not None:
        complain(f"{model}: loading the model failed: {refusal}")
    shown = Console(stderr=True)
    todo = list(probes(endpoints_of(server, options.api)))
    with closing(Prober(server.address, options.timeout, server.access, server.api_name)) as prober:
        for probe in track(todo, description=model, console=shown, transient=True, disable=not sys.stderr.isatty()):
            row, failure = _try_one(prober, probe, server, model, options, limit)
            store.append("features", {**row, "probed_at": datetime.now(UTC)})
            yield row
            if failure is not None and not server.api.answers(server.address, server.access):
                raise RunFailed(f"the server at {server.address} no longer answers ({failure}): start it again")


def _try_one(
    prober: "Prober", probe: "Probe", server: "Server", model: str, options: Options, limit_field: Optional[str]
) -> tuple[dict[str, Any], Optional[str]]:
    """Return the row of one probe, and why its answer did not arrive (None if it did)."""
    from structbench.matrix.client import PLACES
    from structbench.matrix.probes import judge, request_of
    from structbench.run.cells import SIMULATED

    reply = prober.ask(probe.endpoint, request_of(probe, model, options.tokens, limit_field), probe.stream)
    finding = judge(probe, reply)
    row = {
        "server_version": server.version.removeprefix(server.kind).strip(), "server_kind": server.kind or None,
        "server_address": SIMULATED if options.simulate else server.address,
        "model": server.listed.get(server.full_name(model), model), "model_digest": server.digest(model) or "",
        "probe": probe.name, "api": PLACES[probe.endpoint].api_name, "endpoint": probe.endpoint,
        "stream": probe.stream, "think": probe.think, "question": probe.question, "result": finding.result,
        "status": reply.status, "evidence": finding.evidence, "example": finding.example, "seconds": reply.seconds,
    }  # fmt: skip
    return row, reply.failure


def _compare(options: Options) -> int:
    from rich.console import Console

    from structbench.matrix.grid import print_changes
    from structbench.matrix.sides import changes, paired, pick
    from structbench.store import Store

    if len(options.compare) != 2 or options.models:
        raise BadInput("--compare takes two servers or models and no --models: --compare ollama llama.cpp")
    if not options.db.exists():
        raise BadInput(f"{options.db} does not exist: run `structbench matrix --models …` first, or give --db")
    with Store(options.db) as store:
        rows = store.query("SELECT * FROM features ORDER BY probed_at")
    before, after = paired(*(pick(rows, name) for name in options.compare))
    found = list(changes(before, after))
    both = len(before.keys() & after.keys())
    if not both:
        raise BadInput(f"{options.compare[0]} and {options.compare[1]} have no probe in common: compare two servers, "
                       "or two models, or MODEL@SERVER with another")  # fmt: skip
    print_changes(options.compare, found, both, Console(stderr=options.json))
    if options.json:
        print_json([{"before": _finding(one), "after": _finding(other)} for _, one, other in found])
    return 0


def _finding(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "probed_at"}
