"""Selects runs by the words of a command line; a word with two meanings, or none, is refused with suggestions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from loadgen.api import DEFAULT_API
from loadgen.api.server import server_api
from structbench.errors import BadInput
from structbench.formatting import did_you_mean, place_text
from structbench.options import RunFilters, seconds_of
from structbench.store import Reader

Run = Mapping[str, Any]

_MIN_PREFIX = 4
"""The minimum length of a prefix of a run id or hash."""
_MAX_NAMES = 8
STATES = ("complete", "interrupted", "running")
_RUNS = """
SELECT run_id, label, model, suite, server_version AS version, config_hash AS hash,
    coalesce(api, 'ollama') AS api,
    coalesce(server_kind, CASE coalesce(api, 'ollama') WHEN 'ollama' THEN 'ollama' END) AS server,
    config ->> '$.server_address' AS address,
    CASE WHEN rate IS NOT NULL THEN format('rate={:g}/s ', rate) || coalesce(arrival, '')
        WHEN concurrency IS NOT NULL THEN 'c=' || concurrency END AS load
FROM runs ORDER BY started_at NULLS FIRST, run_id
"""


def _equals(run: Run, key: str, word: str) -> bool:
    return bool(run[key] == word)


def _is_same_model(run: Run, key: str, word: str) -> bool:
    """Return whether the run is of this model; ``gemma3n`` and ``gemma3n:latest`` are the same."""
    full_name = server_api(DEFAULT_API).full_name
    return run[key] is not None and full_name(run[key]) == full_name(word)


def _is_version(run: Run, key: str, word: str) -> bool:
    """Return whether the run is of this version, which may come without the kind of the server."""
    return run[key] is not None and word in (run[key], run[key].removeprefix(f"{run['server']} "))


def _is_server(run: Run, key: str, word: str) -> bool:
    """Return whether the run is of this kind of server, or of the server at this address."""
    return word == run[key] or (run["address"] is not None and place_text(word) == place_text(run["address"]))


_KEYS: dict[str, Callable[[Run, str, str], bool]] = {
    "label": _equals, "model": _is_same_model, "suite": _equals, "load": _equals, "version": _is_version,
    "server": _is_server, "api": _equals,
}  # fmt: skip
"""Key of ``key=word`` -> whether a run matches; a bare word may match by any key."""


def select_runs(reader: Reader, words: Sequence[str]) -> list[str]:
    """Return the ids of all runs that match any of the words, newest last; all runs if there are no words.

    A word is a run id or the beginning of one, a label, a model, a suite, a load (``c=4``), a server's kind, address or
    version, an API, a config hash or its beginning, or ``label=…``, ``model=…``, ``suite=…``, ``load=…``, ``server=…``,
    ``version=…``, ``api=…``.
    BadInput names the nearest known ones.
    """
    runs = reader.query(_RUNS)
    chosen = {run_id for word in words for run_id in _matching(runs, word)}
    return [run["run_id"] for run in runs if not words or run["run_id"] in chosen]


def restricted(reader: Reader, words: Sequence[str]) -> set[str]:
    """Return the ids of the runs that match a word of each key: ``suite=json load=c=4`` are both asked for."""
    by_key: dict[str, list[str]] = {}
    for word in words:
        key, equals, _ = word.partition("=")
        by_key.setdefault(key if equals and key in _KEYS else "", []).append(word)
    found = [set(select_runs(reader, each)) for each in by_key.values()]
    return set.intersection(*found) if found else set(select_runs(reader, ()))


def filtered_runs(reader: Reader, filters: RunFilters) -> list[str]:
    """Return the ids of the runs that pass every filter, newest last; BadInput for a word that matches nothing."""
    chosen = select_runs(reader, filters.runs)
    for key in ("model", "suite", "label"):
        meant = set(select_runs(reader, [f"{key}={value}" for value in getattr(filters, key)]))
        chosen = [run_id for run_id in chosen if run_id in meant]
    for status in filters.status:
        if status not in STATES:
            raise BadInput(f"--status {status!r}: {_suggestion(status, STATES)}")
    sql = (
        "SELECT run_id FROM runs WHERE ($1 = [] OR status IN (SELECT unnest($1))) AND ($2 IS NULL OR started_at >= $2)"
    )
    since = None if filters.since is None else instant(filters.since, "--since")
    passed = {row["run_id"] for row in reader.query(sql, [filters.status, since])}
    return [run_id for run_id in chosen if run_id in passed]


def instant(text: str, option: str) -> datetime:
    """Parse a date, an instant (UTC unless it names a zone) or an age before now; returns UTC without a zone."""
    try:
        if re.search(r"\d\s*[dhms]", text):
            return ago(timedelta(seconds=seconds_of(text)))
        given = datetime.fromisoformat(text)
        return given if given.tzinfo is None else given.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError, BadInput):
        raise BadInput(f"{option} {text!r}: give a date such as 2026-01-31, or an age such as 7d, 12h, 30m") from None


def ago(age: timedelta) -> datetime:
    """Return the instant ``age`` before now, as UTC without a zone; OverflowError before year 1."""
    return datetime.now(UTC).replace(tzinfo=None) - age


def _matching(runs: Sequence[Run], word: str) -> set[str]:
    key, equals, value = word.partition("=")
    if equals and key in _KEYS:
        found = _ids(run for run in runs if _KEYS[key](run, key, value))
        if not found:
            raise BadInput(f"no run has {key} {value!r}: {_suggestion(value, [run[key] for run in runs])}")
        return found
    if any(_equals(run, "run_id", word) for run in runs):
        return {word}
    meanings = {key: ids for key, is_meant in _KEYS.items() if (ids := _ids(r for r in runs if is_meant(r, key, word)))}
    if len({frozenset(ids) for ids in meanings.values()}) > 1:
        raise BadInput(
            f"{word!r} is both a {' and a '.join(meanings)}: write {' or '.join(f'{k}={word}' for k in meanings)}"
        )
    return next(iter(meanings.values()), None) or _by_prefix(runs, word)


def _by_prefix(runs: Sequence[Run], word: str) -> set[str]:
    """Return the run whose id, or the runs whose config hash, starts with the word."""
    by_id = [run["run_id"] for run in runs if run["run_id"].startswith(word)]
    by_hash = [run for run in runs if (run["hash"] or "").removeprefix("s1:").startswith(word.removeprefix("s1:"))]
    several = by_id if len(by_id) > 1 else sorted({run["hash"] for run in by_hash}) if not by_id else []
    if len(word) < _MIN_PREFIX or not (by_id or by_hash):
        known = [run[key] for run in runs for key in ("run_id", *_KEYS)]
        told = [run[key] for key in ("suite", "load", "model", "label") for run in runs]
        what = "run, label, model, suite, load, server, version or API"
        raise BadInput(f"no {what} {word!r}: {_suggestion(word, known, told)}")
    if len(several) > 1:
        shown = ", ".join(several[:_MAX_NAMES]) + (", …" if len(several) > _MAX_NAMES else "")
        raise BadInput(f"{word!r} matches {len(several)} {'runs' if by_id else 'configs'} ({shown}): type more of it")
    return set(by_id) or _ids(by_hash)


def _ids(runs: Iterable[Run]) -> set[str]:
    return {run["run_id"] for run in runs}


def _suggestion(word: str, known: Iterable[str | None], told: Iterable[str | None] | None = None) -> str:
    """Return the names like the word; where there are none, the last of the names to be ``told``."""
    names = list(dict.fromkeys(name for name in known if name))
    shown = names if told is None else list(dict.fromkeys(name for name in told if name))
    there_are = f"there are {', '.join(shown[-_MAX_NAMES:])}" if shown else "there is none"
    return did_you_mean(word, names, otherwise=there_are, most=3)
