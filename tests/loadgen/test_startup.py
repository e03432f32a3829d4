"""What a process leaves out, and how rarely it looks for garbage."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT


def test_what_is_left_out_counts_as_not_installed() -> None:
    code = """
import gc
from loadgen.startup import collect_rarely, leave_out
leave_out("colorsys")
try:
    import colorsys
except ImportError:
    collect_rarely()
    print(gc.get_threshold()[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "10000\n"
