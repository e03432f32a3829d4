"""What was found stays in the user's state folder, by machine, and a load that asks for more is warned once."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from loadgen.types import ClosedLoop, Load, OpenLoop
from structbench.calibration import kept as kept_module
from structbench.calibration.kept import Calibration, keep, kept, machine_key, state_folder, warning

FOUND = Calibration(
    streams=128, tokens_per_s=50, rate=400, streams_gave_out="client", rate_gave_out=None,
    calibrated_at="2026-11-26T19:00:00Z",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "not" / "yet"))


def test_what_is_kept_is_found_again_on_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept() is None
    path = keep(FOUND)
    assert path == state_folder() / "calibration.json"
    assert kept() == FOUND
    monkeypatch.setattr(kept_module, "machine_key", lambda: "another")
    assert kept() is None
    keep(Calibration(**{**json.loads(path.read_text())[machine_key()], "streams": 1}))
    assert len(json.loads(path.read_text())) == 2, "a shared home has several machines"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_process_that_died_left_beside_it_is_swept() -> None:
    left = keep(FOUND).with_name(".calibration.json.99999999-part")
    left.touch()
    os.utime(left, (0, 0))
    assert list(keep(FOUND).parent.iterdir()) == [keep(FOUND)]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"KEY": 5}', '{"KEY": {"streams": 5}}', '{"KEY": null}'])
def test_a_file_that_is_not_ours_is_none(text: str) -> None:
    state_folder().mkdir(parents=True)
    (state_folder() / "calibration.json").write_text(text.replace("KEY", machine_key()))
    assert kept() is None
    keep(FOUND)
    assert kept() == FOUND


@pytest.mark.parametrize("field", [field.name for field in fields(Calibration)])
def test_a_value_that_is_not_ours_counts_as_never_calibrated(field: str) -> None:
    """Every load on the machine ended in a traceback at a ``null`` in the place of a number."""
    path = keep(FOUND)
    machines = json.loads(path.read_text())
    for wrong in (None, "x", [], {}):
        spoiled = {**machines[machine_key()], field: wrong}
        path.write_text(json.dumps({machine_key(): spoiled}))
        fine = (wrong is None and field.endswith("gave_out")) or (wrong == "x" and field == "calibrated_at")
        assert (kept() is not None) == fine, wrong


def test_another_version_or_number_of_cores_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    key = machine_key()
    assert machine_key() == key
    monkeypatch.setattr(kept_module, "__version__", "0")
    other = machine_key()
    monkeypatch.setattr("os.cpu_count", lambda: 99)
    assert len({key, other, machine_key()}) == 3


@pytest.mark.parametrize(
    ("system", "inside"),
    [("linux", ".local/state/structbench"), ("darwin", "Library/Application Support/structbench"),
     ("win32", "AppData/Local/structbench")],
)  # fmt: skip
def test_the_folder_is_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, inside: str) -> None:
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(sys, "platform", system)
    assert state_folder() == tmp_path / inside


@pytest.mark.parametrize(
    ("loads", "begins"),
    [
        ([ClosedLoop(concurrency=128)], None),
        ([ClosedLoop(concurrency=1), ClosedLoop(concurrency=129)],
         "129 streams: this machine measured truthfully up to 128 streams x 50 tokens/s (`structbench calibrate` of "
         "2026-11-26)"),
        ([OpenLoop(rate=400.0)], None),
        ([OpenLoop(rate=400.5)], "400.5 requests/s: this machine measured truthfully up to 400 requests/s"),
        ([], None),
    ],
)  # fmt: skip
def test_a_load_that_asks_for_more_is_warned_in_one_line(loads: list[Load], begins: str | None) -> None:
    assert warning(loads, None) is None
    text = warning(loads, FOUND)
    assert text is None if begins is None else text is not None and text.startswith(begins) and "\n" not in text
