"""``structbench calibrate`` prints what was found and keeps it, unless other work was in the way."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from structbench.calibration import find as find_module
from structbench.calibration import kept as kept_module
from structbench.calibration.kept import Calibration, kept, state_folder
from structbench.cli import main

FOUND = Calibration(
    streams=128, tokens_per_s=50, rate=400, streams_gave_out="client", rate_gave_out=None,
    calibrated_at="2026-11-26T19:00:00Z", others_cores=0.15,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def found(monkeypatch: pytest.MonkeyPatch, calibration: Calibration) -> None:
    monkeypatch.setattr(find_module, "find", lambda **_: calibration)


def test_what_was_found_is_printed_and_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(monkeypatch, FOUND)
    assert main(["calibrate"]) == 0
    told = capsys.readouterr().out
    assert "128 streams x 50 tokens/s (6,400 tokens/s) and 400 requests/s." in told
    assert told.endswith(f"kept in {state_folder() / 'calibration.json'}\n")
    assert kept() == FOUND
    assert main(["calibrate", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["streams"], printed["kept"]) == (128, str(state_folder() / "calibration.json"))


def test_beside_other_work_nothing_is_kept_and_the_command_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found(monkeypatch, replace(FOUND, others_cores=0.16))
    assert main(["calibrate"]) == 1
    told = capsys.readouterr().out
    assert "Other processes used up to 0.16 cores meanwhile" in told
    assert "not kept: stop what else is running and calibrate again" in told
    assert main(["calibrate", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["kept"] is None
    assert kept() is None


def test_a_folder_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    found(monkeypatch, FOUND)
    (tmp_path / "structbench").write_text("in the way")
    assert main(["calibrate"]) == 1
    assert "the calibration cannot be kept: " in capsys.readouterr().err
    assert kept_module.kept() is None
