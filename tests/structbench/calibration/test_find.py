"""Both limits are found, said in words with who gave out, and told from what others spoiled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from structbench.calibration.find import find, sentences
from structbench.calibration.kept import Calibration
from structbench.calibration.measuring import Kind, Measurement

FINE = Measurement(requests=100, off=0.01, server_late=0.0, server_cores=0.2, others_cores=0.02, doubt=None)


class Fake:
    def __init__(self, able: dict[Kind, int], beyond: Measurement) -> None:
        self.able, self.beyond = able, beyond

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def measure(self, kind: Kind, size: int) -> Measurement:
        return FINE if size <= self.able[kind] else self.beyond


def found(streams: int, rate: int, **beyond: Any) -> tuple[Calibration, list[str]]:
    told: list[str] = []
    machine: Any = Fake({"streams": streams, "rate": rate}, replace(FINE, **beyond))
    return find(told.append, machine), told


def test_both_limits_are_found_and_each_measurement_is_told() -> None:
    calibration, told = found(70, 9999, off=0.3)
    assert 64 <= calibration.streams <= 70
    assert (calibration.rate, calibration.streams_gave_out, calibration.rate_gave_out) == (3200, "client", None)
    assert told[:2] == [f"{n} streams x 50 tokens/s: measured within 1.0%" for n in (16, 32)]
    assert "128 streams x 50 tokens/s: off by 30%" in told
    first, *more = sentences(calibration)
    tokens = calibration.streams * 50
    assert first == (f"This machine measures TTFT and ITL within 5% up to {calibration.streams} streams x 50 tokens/s "
                     f"({tokens:,} tokens/s) and 3200 requests/s.")  # fmt: skip
    assert more == ["With more streams this client gives out."]


def test_a_server_that_gives_out_first_is_named() -> None:
    calibration, told = found(20, 60, server_late=0.5, server_cores=0.97)
    assert (calibration.streams_gave_out, calibration.rate_gave_out) == ("server", "server")
    assert "32 streams x 50 tokens/s: the server gave out (50% late, 0.97 cores)" in told
    assert [line.split(" gave out")[0] for line in sentences(calibration)][1:] == [
        "With more streams the simulated server", "With more requests/s the simulated server"
    ]  # fmt: skip


def test_beside_other_work_the_result_says_so() -> None:
    calibration, told = found(0, 0, doubt="this client read late", others_cores=1.234)
    assert (calibration.streams, calibration.rate, calibration.others_cores) == (0, 0, 1.23)
    assert told[0] == "16 streams x 50 tokens/s: this client read late; others used 1.23 cores"
    lines = list(sentences(calibration))
    assert lines[0] == "This machine measures TTFT and ITL within 5% up to no load that was tried."
    assert len(lines) == 2, "nobody is blamed for what others did"
    assert lines[-1] == "Other processes used up to 1.23 cores meanwhile: the machine alone can do more."
