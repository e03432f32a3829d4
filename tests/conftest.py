"""The simulated server that test files share unless they make one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import ollama
import pytest
from simulated import ANSWERS, MODELS

from loadgen.simulator import Simulator


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS, ANSWERS) as running:
        yield running


@pytest.fixture
def client(sim: Simulator) -> Iterator[ollama.Client]:
    sim.reset_truth()
    with ollama.Client(sim.url) as connected:
        yield connected
