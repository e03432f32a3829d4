"""A file system without locks is told at once, as what it is; a file that somebody holds is waited for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import duckdb
import pytest

from structbench.errors import BadInput
from structbench.store import database
from structbench.store.database import usable


def failing(text: str, tries: list[str]) -> Callable[[], NoReturn]:
    def get() -> NoReturn:
        tries.append(text)
        raise duckdb.IOException(text)

    return get


@pytest.mark.parametrize(
    ("why", "tried", "told"),
    [
        (
            "No locks available. See also https://duckdb.org/docs/connect/concurrency",
            1,
            "is on a file system that has no locks: use a local disk",
        ),
        ("Function not implemented", 1, "has no locks"),
        ("Operation not supported", 1, "has no locks"),
        ("Conflicting lock is held in /usr/bin/python3 (PID 1)", 3, "is in use by another process (PID 1"),
    ],
)
def test_only_a_lock_that_somebody_holds_is_waited_for(
    why: str, tried: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, tries = iter((0.0, 1.0, 2.0, 3.0)), list[str]()
    monkeypatch.setattr(database, "wait_a_little", lambda: None)
    monkeypatch.setattr(database.time, "monotonic", lambda: next(clock))
    text = f'IO Error: Could not set lock on file "/mnt/s.duckdb": {why}'
    with pytest.raises(BadInput) as caught, usable(Path("/mnt/s.duckdb")):
        database._patiently(failing(text, tries), 3.0)
    assert str(caught.value).startswith("/mnt/s.duckdb ")
    assert told in str(caught.value)
    assert len(tries) == tried
