"""The plan of a load: the server, its models, its telemetry, and what the store already has of each cell."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Literal

from loadgen.api import DEFAULT_API
from loadgen.api.server import NotThisApi, Server, ServerApi, ServerError, reach, server_api
from loadgen.engine import default_workers
from loadgen.telemetry import Telemetry
from loadgen.telemetry.target import Target, is_disabled
from loadgen.types import ClosedLoop, OpenLoop
from loadgen.wire.access import NO_ACCESS, Access, split_userinfo
from loadgen.wire.deadline import within
from structbench.errors import BadInput
from structbench.formatting import about_text, place_text, plural, printable, version_text
from structbench.gates.slo import Judgement, judge_run, state_of
from structbench.identity import config_dict, config_hash, differences
from structbench.metrics import INSTRUMENTS
from structbench.options import DEFAULT_MODELS, MOST_UNASKED
from structbench.output import complain
from structbench.run.cells import Cell
from structbench.run.settings import Settings, check_api
from structbench.store import Store, StoredRun
from structbench.suites.answer_book import answer_book
from structbench.suites.requests import whole_conversations

_ANSWERED_S = 30.0
"""How long a server may take to say who it is."""
CacheState = Literal["new", "resumed", "skipped"]


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell and what the store has of it."""

    cell: Cell
    continued: StoredRun | None
    """The run to continue, or the one that makes this cell unnecessary."""
    missing: Sequence[int] | None
    """Indices of the requests to send; None: as many as the duration allows."""
    cache: CacheState
    why: str
    notice: str | None = None
    """What the user should know before the cell is measured anew."""
    away_s: float | None = None
    """How long the server was away before this part of a run."""
    left_s: float | None = None
    """What is left of the load's duration, if a part of it is over."""
    first_index: int = 0
    """Where a load that only its duration limits goes on."""


def find_server(
    models: Sequence[str], stack: ExitStack, *, host: str | None, access: Access = NO_ACCESS, simulate: bool,
    pull: bool, seed: int = 0, api: str | None = None, base_url: str | None = None,
) -> Server:  # fmt: skip
    """Return the server; raise BadInput if none answers, or if it lacks a model and ``pull`` is false.

    ``api`` None: the one that it speaks. A simulated server runs until ``stack`` closes.
    """
    try:
        server = _probe(_simulate(seed, stack) if simulate else host, access, api, base_url)
    except ServerError as error:
        raise BadInput(str(error)) from None
    if not pull:
        _check_models(models, server)
    return server


def find_servers(settings: Settings, stack: ExitStack) -> list[Server]:
    """Return the servers of a load; BadInput if one does not answer, lacks a model, or cannot be asked for this."""
    servers = [
        find_server(
            settings.wanted_models, stack, host=host, access=settings.access, simulate=settings.simulate,
            pull=settings.pull, seed=settings.seed, api=settings.api, base_url=settings.base_url,
        )
        for host in settings.hosts
    ]  # fmt: skip
    for server in servers:
        check_api(settings, server)
    return servers


def with_models(settings: Settings, servers: Sequence[Server]) -> tuple[Settings, str | None]:
    """Return the settings with models to measure, and a line that says which if none was named; else BadInput."""
    if settings.models:
        return settings, None
    if settings.simulate or settings.pull:
        return replace(settings, models=DEFAULT_MODELS), None

    def everywhere(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if all(each.lists(name) for each in servers))

    server = servers[0]
    if installed := everywhere(DEFAULT_MODELS):
        others = [name for name in DEFAULT_MODELS if name not in installed]
        why = f"the default models that are installed (not {', '.join(others)})" if others else None
    else:
        installed = everywhere(server.api.smallest(server, MOST_UNASKED))
        why = "the smallest that are installed" if len(server.models) > 1 else "the one that is installed"
    if not installed:
        get = "name one with --models"
        get += f", or run `ollama pull {DEFAULT_MODELS[1]}`" if server.kind == "ollama" else ""
        if not server.models:
            how = f": run `ollama pull {DEFAULT_MODELS[1]}`" if server.kind == "ollama" else ""
            raise BadInput(f"the server at {server.address} has no models{how}, or name one with --models")
        raise BadInput(f"no --models, and of {server.names()} at {server.address} none is chosen unasked: {get}")
    return replace(settings, models=installed), why and f"no --models: measuring {', '.join(installed)}, {why}"


def _probe(host: str | None, access: Access, api: str | None, base_url: str | None) -> Server:
    """Return the server at the address by its API; ServerError if there is none."""
    given = base_url or host
    if api is None and given is not None and given.rstrip("/").endswith("/v1"):
        api = "openai"
    speaks = server_api(api or DEFAULT_API)
    address, found = reach(speaks, given, access)
    if base_url is not None:
        address = split_userinfo(base_url)[0].rstrip("/")
    try:
        return _asked(speaks, address, found)
    except NotThisApi:
        if api is not None or base_url is not None:
            raise
        other = server_api("openai")
        try:
            return _asked(other, *reach(other, host, access))
        except ServerError:
            pass
        raise


def pull_missing(models: Sequence[str], server: Server, say: Callable[[str], None]) -> Server:
    """Pull the models that the server lacks, and return the server with them."""
    missing = _missing(models, server)
    if not missing:
        return server
    try:
        _pull(server, missing, say)
        server = server.api.probe(server.address, server.access)
    except ServerError as error:
        raise BadInput(str(error)) from None
    _check_models(models, server)
    return server


def _asked(api: ServerApi, address: str, access: Access) -> Server:
    """Return the server at the address; ServerError also for one whose answer does not end."""
    try:
        return within(_ANSWERED_S, lambda: api.probe(address, access))
    except TimeoutError as error:
        raise ServerError(f"what answers at {address} does not come to an end ({error}): check --host") from None


def _check_models(models: Sequence[str], server: Server) -> None:
    if missing := _missing(models, server):
        lacks = f"the server at {server.address} does not have {', '.join(missing)}"
        raise BadInput(f"{lacks}: {server.api.how_to_get(missing, server)}")


def check_unlisted(cells: Sequence[Cell]) -> None:
    """Raise BadInput for a model that its server neither lists nor answers for, before another is measured.

    A single one is asked for first of all anyway.
    """
    first = {(cell.server.address, cell.model): cell for cell in cells}
    for cell in first.values() if len(first) > 1 else ():
        if not cell.server.lists(cell.model):
            try:
                cell.server.load_model(cell.model, cell.config.options, limit_field=cell.config.limit_field)
            except ServerError as error:
                raise BadInput(str(error)) from None


def _missing(models: Sequence[str], server: Server) -> list[str]:
    return [model for model in models if server.digest(model) is None]


def _simulate(seed: int, stack: ExitStack) -> str:
    from loadgen.simulator import SimulatorProcess

    return stack.enter_context(SimulatorProcess(answers=answer_book(seed), seed=seed)).url


def _pull(server: Server, models: Sequence[str], say: Callable[[str], None]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    columns = (TextColumn("pulling {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for model in models:
            task = progress.add_task(escape(printable(model)), total=None)

            def show(status: str, done: int, total: int, model: str = model, task: TaskID = task) -> None:
                so_far: dict[str, Any] = {"completed": done, "total": total} if total else {}  # else it stays as it is
                progress.update(task, description=escape(printable(f"{model} ({status})")), **so_far)

            server.api.pull(server.address, model, show, server.access)
            say(f"pulled {model}")


def open_telemetry(port: int | None, host: str, collector: Target | None, stack: ExitStack) -> Telemetry | None:
    """Serve the port and push to the collector until the stack closes; return None if there is neither.

    BadInput says what is wrong with either before anything is sent.
    """
    if (port is None and collector is None) or is_disabled(os.environ):
        return None
    try:
        telemetry = Telemetry(port, host, instruments=INSTRUMENTS, target=collector, warn=complain)
    except OSError as error:
        where = f"{host}:{port} ({error.strerror or error})"
        raise BadInput(f"cannot serve metrics on {where}: give another --metrics-port, or 0 for none") from None
    except ValueError as error:
        raise BadInput(f"invalid OTEL_* variable in the environment: {error}") from None
    stack.callback(telemetry.close)
    return telemetry


def plan(settings: Settings, cells: Sequence[Cell], store: Store) -> list[PlannedCell]:
    """Find out for each cell whether it is new, partly done or done, and why.

    What is stored under another name of the same model is continued under that name.
    """
    ways = [cell.ways for cell in cells]
    found = store.find([way.config_hash for same in ways for way in same])
    unknown = [same for same in ways if not any(way.config_hash in found for way in same)]
    older = _scored_earlier(unknown, store)
    planned = []
    for cell, *others in ways:
        known = [way for way in (cell, *others) if way.config_hash in found]
        best = min(known, key=lambda way: found[way.config_hash].rank, default=cell)
        stored = found.get(best.config_hash)
        state = _state(best, stored, settings, store)
        judged = _plan(best, stored, skip_cached=settings.skip_cached, state=state)
        if (notice := older.get(cell.config_hash)) is not None:
            judged = replace(judged, why=f"{judged.why}; {notice}", notice=notice)
        planned.append(replace(judged, cell=cell) if judged.cache == "new" else judged)
    return planned


def _scored_earlier(unknown: Sequence[Sequence[Cell]], store: Store) -> dict[str, str]:
    """Return, by a cell's hash, how to make use of a complete run of it that an earlier scorer has scored.

    ``unknown`` are cells, each under all its names; one question for all, since there may be thousands.
    """
    earlier = {
        config_hash(replace(way.config, scorer_version=number)): cell.config_hash
        for cell, *others in unknown
        for way in (cell, *others)
        for number in range(1, way.config.scorer_version or 1)
    }
    runs = store.find([*earlier]) if earlier else {}
    return {
        earlier[key]: f"run {run.run_id} was scored by an earlier scorer: `structbench rescore {run.run_id}` makes it"
        " count"
        for key, run in runs.items()
        if run.status == "complete"
    }


def _state(cell: Cell, found: StoredRun | None, settings: Settings, store: Store) -> Judgement:
    """Return whether a complete run decides the rule until which its cell would go on."""
    if not cell.until_settled or found is None or found.status != "complete":
        return "not decided"
    (row,) = store.query("SELECT * FROM summary WHERE run_id = $1", [found.run_id])
    # By its figures, as the looks are: to ask more does not make an invalid measurement valid.
    return state_of(judge_run(store, cell.name, {**row, "verdict": None}, settings.rule))


def _plan(cell: Cell, found: StoredRun | None, *, skip_cached: bool, state: Judgement = "not decided") -> PlannedCell:
    everything = None if cell.requests is None else range(cell.requests)

    def new(why: str) -> PlannedCell:
        return PlannedCell(cell, None, everything, "new", why)

    if found is None:
        return new("no run of this config yet")
    run = f"run {found.run_id}"
    if found.status == "running":
        return new(f"{run} of this config is still running in another process")
    if found.status == "complete" and (state != "not decided" or _is_enough(cell, found)):
        whole = f"{run} is complete" + (f", and its rule is {state}" if state != "not decided" else "")
        if skip_cached:
            again = (
                ", but its measurement is invalid: without --skip-cached it is made again" if found.is_invalid else ""
            )
            return PlannedCell(cell, found, (), "skipped", whole + again)
        return new(f"{whole}; --skip-cached would skip it")
    if found.ended and found.lost and found.held > (cell.requests or 0) and cell.requests is not None:
        cell, everything = replace(cell, requests=found.held), range(found.held)
    if found.ended and found.lost and (cell.load.duration_s is not None or everything is None) and skip_cached:
        lost = whole_conversations(cell.suite.cases, sorted(found.lost), max(found.lost) + 2)
        return PlannedCell(cell, found, lost, "resumed", f"{run} has {len(lost)} requests to be sent again")
    if cell.load.duration_s is not None or everything is None:
        what = f"stopped after {found.asked_duration_s or 0:g} s" if found.status == "complete" else "was interrupted"
        return new(f"{run} {what}; a cell that --duration limits starts again")
    left = [index for index in everything if index not in found.done]
    missing = whole_conversations(cell.suite.cases, left, len(everything))
    has = len(everything) - len(missing)
    done = f"{run} has {has} of {len(everything)} requests"
    if cell.until_settled:
        done = f"{run} has {plural(has, 'request')}, by which its rule is not decided"
    if skip_cached:
        return PlannedCell(cell, found, missing, "resumed", done)
    return new(f"{done}; --skip-cached would continue it")


def _is_enough(cell: Cell, run: StoredRun) -> bool:
    """Return whether a complete run has as many requests as asked for, or ran for as long."""
    if cell.requests is not None and run.held >= cell.requests:
        return True
    time_was_up = run.asked_requests is None or run.requests < run.asked_requests
    asked_s, had_s = cell.load.duration_s, run.asked_duration_s
    return time_was_up and asked_s is not None and had_s is not None and had_s >= asked_s


def who_is_it(cell: Cell) -> str:
    """Return which server a cell is sent to, and by what the model is known there."""
    server, identity = cell.server, cell.config.model_digest
    said, _, revision = identity.partition("revision:")
    by_user = f", and the revision {revision!r} that you give" if revision else ""
    software = version_text(server.kind, server.version, server.api_name)
    return (
        f"{cell.model} on {software} at {place_text(cell.config.server_address)} (API {server.api_name}): known by "
        f"{_known_by(said.strip())}{by_user}"
    )


def who_sends(cell: Cell, workers: int | None) -> str:
    """Return how many worker processes of this machine send a cell, and what decides it."""
    by_streams = isinstance(cell.load, ClosedLoop)
    why = "by --workers"
    if workers is None:
        why = "by its streams; the tokens/s of the warm-up decide" if by_streams else "by its rate"
    return f"{cell.load_name}: {plural(workers or default_workers(cell.load), 'worker')}, {why}"


def _known_by(identity: str) -> str:
    """Return which kind of identity it is, and the identity."""
    kind, _, value = identity.partition(":")
    match kind:
        case "":
            return "nothing that the server tells"
        case "name":
            return f"its name alone ({value}): give --model-revision, or another model of that name counts as the same"
        case "path":
            return f"its path ({value}), whatever its files hold: --model-revision tells them apart"
        case "sha":
            return f"the commit of its repository ({value})"
    return f"its digest ({identity})" if " " not in identity else f"its size, type and template ({identity})"


_PACE = """
SELECT duration_s / requests AS request_s FROM summary
WHERE model = $1 AND suite = $2 AND duration_s > 0 AND requests > 0 ORDER BY load = $3 DESC, started_at DESC LIMIT 1
"""


def bound_s(cell: Cell, settings: Settings) -> float | None:
    """Return the time after which a cell ends, whatever it has by then; None: it has no such time."""
    return settings.max_time_s if cell.until_settled else cell.load.duration_s


def estimate(planned: Sequence[PlannedCell], store: Store | None, settings: Settings) -> str:
    """Return how many requests are to be sent, and about how long that takes by what is stored of these models."""
    seconds, requests, limited, unknown = 0.0, 0, 0, 0
    todo = [each for each in planned if each.cache != "skipped"]
    for each in todo:
        cell, n = each.cell, None if each.missing is None else len(each.missing)
        requests += n or 0
        took_s = None if n is None else n * pace_s if (pace_s := _pace_s(cell, store)) is not None else None
        ends = [end for end in (took_s, bound_s(cell, settings)) if end is not None]
        seconds += min(ends, default=0.0)
        limited += n is None
        unknown += not ends
    settled = any(each.cell.until_settled for each in todo)
    text = f"{'at most ' if settled else ''}{plural(requests, 'request')} in {plural(len(todo) - limited, 'cell')}"
    if limited:
        own = f"what {plural(limited, 'cell')} can in {'its' if limited == 1 else 'their'} time"
        text = f"{text}, and {own}" if limited < len(todo) else own
    if unknown == len(todo):
        return f"{text}: how long that takes is not known, since nothing like it was measured" if todo else text
    more = f", and {plural(unknown, 'cell')} of which nothing like it was measured" if unknown else ""
    return f"{text}: {about_text(seconds, 'at most' if settled else 'about')}{more}"


def _pace_s(cell: Cell, store: Store | None) -> float | None:
    """Return the seconds from one request to the next in this cell, or in the last one like it; None if unknown."""
    if isinstance(cell.load, OpenLoop):
        return 1 / cell.load.rate
    rows = [] if store is None else store.query(_PACE, [cell.model, cell.suite.name, cell.load_name])
    return rows[0]["request_s"] if rows else None


def explain(planned: PlannedCell, store: Store) -> str:
    """Return why a cell has its state and, for a new config, how it differs from the nearest stored one."""
    config = config_dict(planned.cell.config)
    nearest = store.nearest(config)
    if nearest is None or not (changed := differences(nearest[0], config)):
        return planned.why
    return f"{planned.why}; it differs from run {nearest[1]} in {'; '.join(changed)}"
