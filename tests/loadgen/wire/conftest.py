"""What the tests of the wire share: a simulated server, and no proxy that this machine may have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from loadgen.simulator import Simulator
from tests.support.simulators import ANSWERS, MODELS

PROXIES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator(MODELS, ANSWERS) as running:
        yield running
