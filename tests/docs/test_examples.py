"""What examples/ and the documentation show is run here."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.slow


def run(command: list[str], folder: Path) -> str:
    """Its output; the tested tree comes first on the path, and `structbench` is the console script's module."""
    script = folder / "bin" / "structbench"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m structbench "$@"\n')
    script.chmod(0o755)
    (script.parent / "python").unlink(missing_ok=True)
    (script.parent / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (script.parent / "python").chmod(0o755)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{script.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_python_example_prints_its_figures(tmp_path: Path) -> None:
    printed = run([sys.executable, str(ROOT / "examples/load.py")], tmp_path)
    figures = r"llama3\.2:1b json: [\d.]+ requests/s, \d+% accurate, TTFT p50 \d+ ms, verdict (valid|degraded)"
    assert re.search(figures, printed)
    assert "slowest: " in printed


@pytest.mark.slow
def test_the_shell_example_ends_with_an_answer_in_sql(tmp_path: Path) -> None:
    printed = run(["bash", str(ROOT / "examples/load.sh")], tmp_path)
    assert "llama3.2:1b" in printed
    assert "outcome" in printed


@pytest.mark.parametrize("number", range(len(re.findall("```python\n", (ROOT / "README.md").read_text()))))
def test_the_python_in_the_readme_runs(number: int, tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "block.py").write_text(blocks[number])
    assert run([sys.executable, "block.py"], tmp_path)
