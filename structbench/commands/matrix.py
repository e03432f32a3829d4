"""``structbench matrix``: find out which combinations of think, format, tools and stream a model supports."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from structbench.commands import print_json
from structbench.errors import BadInput, RunFailed
from structbench.options import UNCHECKED, Readable, access_from, access_opt, names_in, opt, seconds_of
from structbench.output import complain

if TYPE_CHECKING:
    from loadgen.api.server import Server
    from structbench.matrix.client import Prober
    from structbench.matrix.probes import Probe
    from structbench.store import Store


@dataclass(kw_only=True)
class Options(Readable):
    """Try think, format, tools and stream on every endpoint, or compare what is stored of two versions or models."""

    models: list[str] = opt((), "models to try, as the server names them", many=True, split=names_in)
    compare: list[str] = opt(
        (), "show what changed between two server versions or models in --db; send nothing", many=True, metavar="A B"
    )
    host: Optional[str] = opt(None, "address of the server, e.g. 127.0.0.1:11434 (default: as for load)", secret=True)
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
    if options.compare:
        return _compare(options)
    if not options.models:
        raise BadInput("name the models to try: structbench matrix --models qwen3:4b; or --compare two stored versions")
    if options.tokens < 1 or not options.timeout > 0:
        raise BadInput("--tokens and --timeout must be more than 0")
    return _try(options)


def _try(options: Options) -> int:
    """Probe each model, store each finding at once, and print one grid per model."""
    from rich.console import Console

    from structbench.matrix.grid import print_grid
    from structbench.matrix.probes import probes
    from structbench.run.plan import find_server, pull_missing
    from structbench.store import Store

    console = Console(stderr=options.json)
    rows: list[dict[str, Any]] = []
    access = access_from(options)
    if options.insecure:
        complain(UNCHECKED)
    with ExitStack() as stack:
        server = find_server(options.models, stack, host=options.host, access=access, simulate=options.simulate,
                             pull=options.pull)  # fmt: skip
        server = pull_missing(options.models, server, console.print)
        store = stack.enter_context(Store(options.db))
        for model in options.models:
            found = list(_probe(options, server, store, model, list(probes())))
            print_grid(found, console)
            rows += found
    if options.json:
        print_json(rows)
    return 0


def _probe(
    options: Options, server: "Server", store: "Store", model: str, todo: "Sequence[Probe]"
) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import track

    from loadgen.api.server import ServerError
    from structbench.matrix.client import Prober

    try:
        _, refusal = server.api.load_model(server.address, model, {}, None, server.access)
    except ServerError as error:
        raise BadInput(str(error)) from None
    if refusal is not None:
        complain(f"{model}: loading the model failed: {refusal}")
    shown = Console(stderr=True)
    with closing(Prober(server.address, options.timeout, server.access)) as prober:
        for probe in track(todo, description=model, console=shown, transient=True, disable=not sys.stderr.isatty()):
            row, failure = _try_one(prober, probe, server, model, options.tokens)
            store.append("features", {**row, "probed_at": datetime.now(UTC)})
            yield row
            if failure is not None and not server.api.answers(server.address, server.access):
                raise RunFailed(f"the server at {server.address} no longer answers ({failure}): start it again")


def _try_one(
    prober: "Prober", probe: "Probe", server: "Server", model: str, tokens: int
) -> tuple[dict[str, Any], Optional[str]]:
    """Return the row of one probe, and why its answer did not arrive (None if it did)."""
    from structbench.matrix.probes import judge, request_of

    reply = prober.ask(probe.endpoint, request_of(probe, model, tokens), probe.stream)
    finding = judge(probe, reply)
    row = {
        "server_version": server.version, "model": server.listed.get(server.api.full_name(model), model),
        "model_digest": server.digest(model) or "", "probe": probe.name, "endpoint": probe.endpoint,
        "stream": probe.stream, "think": probe.think, "question": probe.question, "result": finding.result,
        "status": reply.status, "evidence": finding.evidence, "example": finding.example, "seconds": reply.seconds,
        "server_address": server.address,
    }  # fmt: skip
    return row, reply.failure


def _compare(options: Options) -> int:
    from rich.console import Console

    from structbench.matrix.grid import print_changes
    from structbench.matrix.probes import changes, pick
    from structbench.store import Store

    if len(options.compare) != 2 or options.models:
        raise BadInput("--compare takes two server versions or models and no --models: --compare 0.5.4 0.33.0")
    if not options.db.exists():
        raise BadInput(f"{options.db} does not exist: run `structbench matrix --models …` first, or give --db")
    with Store(options.db) as store:
        rows = store.query("SELECT * FROM features ORDER BY probed_at")
    before, after = (pick(rows, name) for name in options.compare)
    found = list(changes(before, after))
    both = len(before.keys() & after.keys())
    if not both:
        raise BadInput(f"{options.compare[0]} and {options.compare[1]} have no probe in common: compare two versions, "
                       "or two models, or MODEL@VERSION with another")  # fmt: skip
    print_changes(options.compare, found, both, Console(stderr=options.json))
    if options.json:
        print_json([{"before": _finding(one), "after": _finding(other)} for _, one, other in found])
    return 0


def _finding(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "probed_at"}
