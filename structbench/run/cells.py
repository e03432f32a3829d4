"""Cells from settings: one for each model × variant × suite × load × way of sending a schema, with its identity."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from loadgen.api.openai import LIMIT_FIELDS
from loadgen.api.server import Server
from loadgen.types import ClosedLoop, Load, OpenLoop
from structbench.formatting import load_text, plural, suite_text
from structbench.identity import canonical_json, config_hash
from structbench.options import LoadOptions, as_arguments, as_setting, think_word
from structbench.run.settings import Settings, Variant
from structbench.scoring import SCORER_VERSION
from structbench.suites.catalog import PUBLIC, SHIPPED, representative_cases
from structbench.suites.shown import keyword_notes
from structbench.types import Config, Suite

_KEYWORDS = 5
"""How many odd keywords of a suite are told."""
SIMULATED = "simulated"
"""The server address in the identity of a simulated cell, whose real port changes with each run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model under one suite under one load."""

    server: Server
    model: str
    suite: Suite
    load: Load
    requests: int | None
    """None: as many as the duration allows; where the rule ends it, at most so many."""
    until_settled: bool = False
    """Whether it goes on until its rule is decided."""
    config: Config
    config_hash: str
    spellings: tuple[str, ...] = ()
    """Other names of the model, under which earlier runs of this cell may be stored."""
    variant: str = ""
    """What this cell is run with, of the settings that have several values: ``num_ctx=2048``."""
    place: str = ""
    """The server's host and port, where the load has several servers."""
    limit_open: bool = False
    """Whether the server may yet refuse the usual field for the limit of an answer."""

    def under(self, model: str) -> Cell:
        """Return the same cell with the model under another of its names."""
        config = replace(self.config, model=model)
        return replace(self, model=model, config=config, config_hash=config_hash(config))

    def limited_by(self, limit_field: str | None) -> Cell:
        """Return the same cell with this field for the limit of an answer; itself if it has one already."""
        if not self.limit_open or self.config.limit_field is not None or limit_field is None:
            return self
        config = replace(self.config, limit_field=limit_field)
        return replace(self, config=config, config_hash=config_hash(config))

    @property
    def ways(self) -> list[Cell]:
        """This cell, and the others under which its runs may be stored: other names and fields of one meaning."""
        named = [self, *map(self.under, self.spellings)]
        limited = [way.limited_by(LIMIT_FIELDS[1]) for way in named if self.server.api_name == "openai"]
        return named + [way for way in limited if way not in named]

    @property
    def load_name(self) -> str:
        return load_text(asdict(self.load))

    @property
    def suite_name(self) -> str:
        """The suite's name, with how schemas are sent if that is not the usual way."""
        return suite_text(self.suite.name, self.config.structured)

    @property
    def setting(self) -> str:
        """The load, and what else tells the cell from others of its model and suite: ``c=4 num_ctx=2048``."""
        place = f"at {self.place}" if self.place else ""
        return " ".join(filter(None, (self.load_name, self.variant, place)))

    @property
    def name(self) -> str:
        return f"{self.model} {self.suite_name} {self.setting}"


def words_of(settings: Settings, cell: Cell) -> list[str]:
    """Return the words of a command line that asks for this cell alone; secrets are masked.

    They name neither a rule nor a database: by which rule it is judged, and where, may be another each time.
    """
    default, given, variant = LoadOptions(), settings.given, cell.config
    place = next(number for number, suite in enumerate(settings.suites) if suite is cell.suite)
    return as_arguments(replace(
        given, models=[cell.model], suites=[given.suites[place]], requests=None, duration=None, skip_cached=False,
        host=given.host if len(given.host) < 2 else [cell.server.address],
        concurrency=[cell.load.concurrency] if isinstance(cell.load, ClosedLoop) and given.concurrency else [],
        rate=[cell.load.rate] if isinstance(cell.load, OpenLoop) else [],
        structured=given.structured if len(given.structured) < 2 else [variant.structured],
        think=[] if variant.think is None else [think_word(variant.think)],
        option=[as_setting(key, value) for key, value in variant.options.items()],
        body=[f"{key}={json.dumps(value)}" for key, value in (variant.body or {}).items()],
        junit=None, explain=False, dry_run=False, print_plan=False, until=default.until,
        max_requests=default.max_requests, max_time=default.max_time, db=default.db, slo=[], abort_on_slo=False,
    ))  # fmt: skip


def loading_options(cell: Cell, names: frozenset[str]) -> list[dict[str, Any]]:
    """Return the different sets of the options ``names`` that the cell's requests have, in the order of the cases."""
    cases = representative_cases(cell.suite)
    asked = cases if cell.requests is None else cases[: cell.requests]
    given = ({**case.options, **cell.config.options} for case in asked)
    sets = ({name: value for name, value in options.items() if name in names} for options in given)
    return list({canonical_json(each): each for each in sets}.values())


def reload_warning(cell: Cell, names: frozenset[str]) -> str | None:
    """Return a line if the cases make the server load the model with different options, again and again."""
    sets = loading_options(cell, names)
    if len(sets) < 2:
        return None
    differing = [name for name in sorted(set().union(*sets)) if len({canonical_json(s.get(name)) for s in sets}) > 1]
    shown = ", ".join(f"{name} {'/'.join(_loading_texts(name, sets))}" for name in differing)
    return (
        f"{cell.name}: its cases load the model with different options ({shown}): the server loads it again at each "
        f"change, and requests wait; give them one value (--option {differing[0]}=…), or a suite for each"
    )


def keyword_warnings(suite: Suite) -> list[str]:
    """Return a line for each of the first keywords in a file's schemas that bind nothing though they seem to."""
    if suite.name in SHIPPED or suite.name.partition(":")[0] in PUBLIC:
        return []
    return [f"{suite.name}: {note}" for note in keyword_notes(suite.cases)[:_KEYWORDS]]


def unreached_warning(cell: Cell) -> str | None:
    """Return a line if a closed loop is asked for fewer requests at a time than its load has places for."""
    if not isinstance(cell.load, ClosedLoop) or cell.requests is None or cell.requests >= 2 * cell.load.concurrency:
        return None
    cases = representative_cases(cell.suite)
    most = sum(not cases[index % len(cases)].follows for index in range(cell.requests))
    if most >= cell.load.concurrency:
        return None
    asked = plural(cell.requests, "request")
    return (
        f"{cell.load_name} is never reached with {asked} of {cell.suite.name}: at most {most} "
        f"are in flight; give --requests {4 * cell.load.concurrency} or more"
    )


def _loading_texts(name: str, sets: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(canonical_json(each[name]) if name in each else "unset" for each in sets))


def build_cells(settings: Settings, servers: Sequence[Server]) -> list[Cell]:
    """Return all cells by server, model and variant, so that a server loads each model as rarely as it can."""
    cells = []
    for server, given, variant, suite in product(servers, settings.models, settings.variants, settings.suites):
        model = server.name_of(given)
        names = (server.listed.get(server.full_name(given), given), given)
        spellings = tuple(name for name in dict.fromkeys(names) if name != model)
        for load, structured in product(settings.loads, _structured(settings.structured, suite)):
            settled = settings.until_settled
            if settled is None:
                settled = suite.name == "text" or _is_scored(suite)
            requests = settings.max_requests if settled else settings.requests
            if requests is None and load.duration_s is None:
                requests = suite.default_requests
            config = _config(settings, server, model, variant, suite, load, structured)
            cells.append(Cell(
                server=server, model=model, suite=suite, load=load, requests=requests, until_settled=settled,
                config=config, config_hash=config_hash(config), spellings=spellings, variant=variant.name,
                place=server.address.partition("://")[2] if len(servers) > 1 else "",
                limit_open=settings.limit_field is None and settings.endpoint == "chat",
            ))  # fmt: skip
    return cells


def _structured(wanted: Sequence[str], suite: Suite) -> Sequence[str]:
    """Return the wanted ways of sending schemas, or ``none`` for a suite without schemas."""
    has_schema = any(case.schema is not None for case in representative_cases(suite))
    return wanted if has_schema else ("none",)


def _is_scored(suite: Suite) -> bool:
    return any(case.kind != "text" for case in representative_cases(suite))


def _config(
    settings: Settings, server: Server, model: str, variant: Variant, suite: Suite, load: Load, structured: str
) -> Config:  # fmt: skip
    return Config(
        suite=suite.name,
        suite_hash=suite.content_hash,
        model=model,
        model_digest=identity_of(server, model, settings.model_revision),
        server_version=server.version,
        server_address=SIMULATED if settings.simulate else server.address,
        endpoint=settings.endpoint,
        structured=structured,
        think=variant.think,
        options=dict(variant.options),
        keep_alive=settings.keep_alive,
        load=_load(load),
        seed=settings.seed,
        warmup=settings.warmup,
        timeout_s=settings.timeout_s,
        scorer_version=SCORER_VERSION if _is_scored(suite) else None,
        api=server.api_name,
        body=dict(variant.body) or None,
        headers=tuple(name for name in settings.access.names if name != "authorization"),
        limit_field=_limit_field(settings, server),
    )


def _limit_field(settings: Settings, server: Server) -> str | None:
    """Return the field for the limit of an answer, as given or as the server is known to want; None for the usual."""
    if settings.endpoint != "chat" or settings.limit_field == LIMIT_FIELDS[0]:
        return None
    return settings.limit_field or server.limit_field


def identity_of(server: Server, model: str, revision: str | None) -> str:
    """Return what tells this model from another of its name: what the server says, and what the user does."""
    said = server.digest(model) or ""
    return said if revision is None else f"{said} revision:{revision}".strip()


def _load(load: Load) -> dict[str, Any]:
    """Return the load without its duration, which is not part of the identity."""
    fields = {"kind": "closed" if isinstance(load, ClosedLoop) else "open", **asdict(load)}
    del fields["duration_s"]
    return fields
