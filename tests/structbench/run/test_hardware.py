"""What a run keeps of the machine it was measured on, and how that is said."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from structbench.formatting import machine_text, placement_text
from structbench.run import hardware as module
from structbench.run.hardware import hardware, is_here

H200 = {"name": "NVIDIA H200", "memory_bytes": 143_771 * 2**20, "driver": "580.65.06"}


@pytest.fixture
def smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Put a program nvidia-smi in front that prints this, and ends with this code."""

    def install(text: str, code: int = 0) -> None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {code}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    return install


def test_gpus_are_those_that_the_driver_names(smi: Any) -> None:
    smi("NVIDIA H200, 143771, 580.65.06\nNVIDIA GB10, [N/A], 580.65.06")
    assert [*module._nvidia()] == [H200, {"name": "NVIDIA GB10", "memory_bytes": None, "driver": "580.65.06"}]


@pytest.mark.parametrize(("text", "code"), [("No devices were found", 0), ("", 0), ("NVIDIA H200, 1, 2", 9)])
def test_no_gpu_is_made_up(smi: Any, text: str, code: int) -> None:
    smi(text, code)
    assert [*module._nvidia()] == []


def test_a_driver_that_hangs_is_not_waited_for(smi: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: Any, timeout: float, **__: Any) -> None:
        raise subprocess.TimeoutExpired("nvidia-smi", timeout)

    smi("")
    monkeypatch.setattr(subprocess, "run", hang)
    assert [*module._nvidia()] == []


def test_amd_tells_in_files(tmp_path: Path) -> None:
    device = tmp_path / "class/drm/card0/device"
    device.mkdir(parents=True)
    (device / "mem_info_vram_total").write_text("206141652992\n")
    assert [*module._amd(tmp_path)] == [{"name": "AMD GPU", "memory_bytes": 206141652992, "driver": None}]
    (device / "product_name").write_text("AMD Instinct MI300X\n")
    (tmp_path / "module/amdgpu").mkdir(parents=True)
    (tmp_path / "module/amdgpu/version").write_text("6.12.12\n")
    assert [*module._amd(tmp_path)] == [
        {"name": "AMD Instinct MI300X", "memory_bytes": 206141652992, "driver": "6.12.12"}
    ]


def test_this_machine_has_memory() -> None:
    assert hardware()["memory_bytes"] > 2**20


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:11434", True), ("127.0.0.2:11434", True), ("http://localhost:8080/v1", True),
        ("http://[::1]:11434", True), ("unix:///run/s.sock", True), ("https://gpu.lan", False),
        ("http://10.0.0.2:11434", False), ("https://localhost.example.com", False),
    ],
)  # fmt: skip
def test_a_server_is_here_or_elsewhere(address: str, here: bool) -> None:
    assert is_here(address) is here


def test_a_machine_is_said_in_a_line() -> None:
    machine = {"processor": "AMD EPYC 9R14", "cores": 16, "memory_bytes": 137_000_000_000, "gpus": [H200]}
    assert machine_text(machine) == "AMD EPYC 9R14; 16 cores; 137 GB memory; NVIDIA H200, 151 GB, driver 580.65.06"
    assert machine_text({"cores": 2}) == "2 cores"
    assert machine_text({}) == "–"
    assert machine_text({"processor": "x\x1b[2J", "gpus": "many"}) == "x\ufffd[2J"


@pytest.mark.parametrize(("share", "text"), [(1.0, "GPU"), (0, "processor"), (0.627, "63% on GPU"), (None, "–")])
def test_where_the_model_is_is_said(share: float | None, text: str) -> None:
    assert placement_text({"model_on_gpu": share}) == text
