"""``python -m benchmarks.settled``: how many decisions of ``--until settled`` are wrong, and how long they take.

Models whose true figures are known are measured look by look, as a load does, under the default rule. At its limit a
rule is met, so that "not met" is wrong there; just below it "met" is. Prints the table of docs/methods.md.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from structbench.gates.expressions import parse_slo
from structbench.gates.settled import Decision, decide, looks
from structbench.gates.slo import DEFAULT_RULE, Judgement
from structbench.stats import Estimate, percentile_estimate, wilson

RULE = tuple(parse_slo(text) for text in DEFAULT_RULE)
MOST = 1000
"""The default of --max-requests."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a simulated model does: shares of right answers, of TTFTs within a second, and of errors."""

    name: str
    right: float
    quick: float = 0.999
    failed: float = 0.001

    @property
    def truth(self) -> Judgement:
        return "met" if self.right >= 0.9 and self.quick >= 0.95 and self.failed <= 0.05 else "not met"


MODELS = (
    Model("perfect", 1.0, 1.0, 0.0),
    Model("good", 0.97),
    Model("fair", 0.94),
    Model("correct at its limit", 0.9),
    Model("correct just below it", 0.899),
    Model("poor", 0.84),
    Model("hopeless", 0.5),
    Model("TTFT at its limit", 0.99, 0.95),
    Model("TTFT just beyond it", 0.99, 0.949),
    Model("errors at their limit", 0.99, failed=0.05),
    Model("errors just beyond it", 0.99, failed=0.051),
    Model("all three at their limits", 0.9, 0.95, 0.05),
)


def settle(model: Model, generator: np.random.Generator, most: int = MOST) -> Decision:
    """Measure a model until it is settled, or has been asked ``most`` times."""
    right = generator.random(most) < model.right
    failed = generator.random(most) < model.failed
    ttft_s = np.where(generator.random(most) < model.quick, 0.5, 1.5) + generator.random(most) * 0.4
    decision = Decision("not decided", (), 0)
    for at in looks():
        n = min(at, most)

        def estimates(confidence: float, n: int = n) -> Mapping[str, Estimate]:
            answered = ~failed[:n]
            return {
                "correct": wilson(int(right[:n][answered].sum()), int(answered.sum()), confidence),
                "ttft_p95": percentile_estimate(ttft_s[:n][answered], 0.95, confidence),
                "error_rate": wilson(int(failed[:n].sum()), n, confidence),
            }

        decision = decide(RULE, n, estimates, closed=True)
        if decision.state != "not decided" or n == most:
            break
    return decision


def decisions(model: Model, tries: int, seed: int = 1) -> tuple[Counter[str], float]:
    """Return how often a model was decided how, and the mean number of requests that took."""
    generator = np.random.default_rng((seed, round(model.right * 1e4), round(model.quick * 1e4)))
    found = [settle(model, generator) for _ in range(tries)]
    return Counter(each.state for each in found), float(np.mean([each.requests for each in found]))


def lines(tries: int) -> Iterator[str]:
    yield "| model | correct | TTFT ≤ 1 s | errors | met | not met | not decided | wrong | requests |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for model in MODELS:
        states, requests = decisions(model, tries)
        shares = [states[state] / tries for state in ("met", "not met", "not decided")]
        wrong = states["not met" if model.truth == "met" else "met"] / tries
        figures = (model.right, model.quick, model.failed, *shares, wrong)
        yield f"| {model.name} | {' | '.join(f'{each * 100:.1f} %' for each in figures)} | {requests:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.settled", description=__doc__)
    parser.add_argument("--tries", type=int, default=1000, help="loads for each model (default: 1000)")
    for line in lines(parser.parse_args().tries):
        print(line, flush=True)


if __name__ == "__main__":
    main()
