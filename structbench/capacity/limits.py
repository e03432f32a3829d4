"""What the steps of a search say, in words: which load holds, what is served there, and what limits. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from structbench.capacity.search import Found, Step
from structbench.formatting import plural, printable, share_text, significant
from structbench.gates.slo import Gate

_MOST_FAILURES = 3
"""As many kinds of errors at most are named."""
_QUEUED = 0.15
"""The share of their time that requests must wait before slots count as what limits."""
_SLOT_SETTING = {"llama.cpp": "--parallel", "vllm": "--max-num-seqs"}


def level_text(level: float, over: str) -> str:
    """Return ``12 in flight`` or ``3.5 requests/s``."""
    return f"{level:g} in flight" if over == "concurrency" else f"{significant(level, 3)} requests/s"


def sentences(found: Found, over: str) -> Iterator[str]:
    """Yield the answer: the load that holds, the throughput there, where it no longer grows, and what limits."""
    holds, broken = found.holds, found.broken
    if holds is None:
        yield from _nowhere(found, over)
        return
    yield f"the rule holds up to {level_text(holds.level, over)}{_interval(found, over)}."
    if holds.throughput is not None:
        what = "requests/s" if holds.correct_per_s is None else "correct answers/s"
        yield f"There it gives {significant(holds.throughput, 3)} {what}."
    if (saturated := found.saturates) is not None:
        yield f"More than about {level_text(saturated.level, over)} brings no more."
    elif broken is None and len(found.steps) > 1:
        yield "Throughput still grows at the highest load that was measured."
    yield from (f"{text[0].upper()}{text[1:]}." for text in limits(found, over))
    if not found.complete:
        yield "The time was up before the search came to its end: give it more by --within."


def _nowhere(found: Found, over: str) -> Iterator[str]:
    step = found.steps[0] if found.steps else None
    if step is None:
        yield "nothing was measured: give it more time by --within."
        return
    word = "is not met" if step.state == "not met" else "is not decided"
    yield f"the rule {word} even at {level_text(step.level, over)}: {_missed(step.gates)}."
    yield from (f"{text[0].upper()}{text[1:]}." for text in limits(found, over))


def _interval(found: Found, over: str) -> str:
    if found.broken is None:
        above = [step for step in found.steps if found.holds is not None and step.level > found.holds.level]
        if above:
            return f" at least; {level_text(above[0].level, over)} is not decided"
        return " at least, the highest load that was measured"
    return f" (not at {level_text(found.broken.level, over)}: {_missed(found.broken.gates)})"


def _missed(gates: Sequence[Gate]) -> str:
    open_ones = [gate for gate in gates if gate.outcome not in ("met", "skip")]
    worst = [gate for gate in open_ones if gate.outcome == "not met"] or open_ones
    return "; ".join(f"{gate.slo}: {printable(gate.text)}" for gate in worst)


def limits(found: Found, over: str) -> Iterator[str]:
    """Yield what keeps more from being served, as far as the steps tell."""
    last = found.broken or (found.steps[-1] if found.steps else None)
    if last is None:
        return
    told = [
        text for text in (_errors(last), _client(last), _slots(last, over), *_notes(last), _processor(last)) if text
    ]
    missed = {gate.slo for gate in last.gates if gate.outcome == "not met"}
    wrong = {gate.slo for gate in last.gates if gate.outcome == "not met" and gate.slo.startswith(_CORRECTNESS)}
    if missed and missed == wrong:
        told.insert(0, "it is not the load: the answers are not right often enough")
    if found.broken is not None and not told:
        told.append("what limits is not seen from here: the server's own speed, as far as its figures tell")
    yield from told


_CORRECTNESS = ("correct>", "correct<", "schema_valid", "json_valid", "accuracy", "tool_call")


def _errors(step: Step) -> str | None:
    """Return how requests failed, by kind, where an error rate is missed or nothing was completed."""
    failures = [printable(text) for text in step.facts.get("failures", ())]
    missed = any(gate.slo.startswith("error_rate") and gate.outcome == "not met" for gate in step.gates)
    if not failures or not (missed or step.facts.get("completed") == 0):
        return None
    return f"requests fail: {'; '.join(failures[:_MOST_FAILURES])}"


def _client(step: Step) -> str | None:
    if step.facts.get("completed") == 0:
        return None  # the verdict only says that nothing was completed
    if step.facts.get("verdict") not in ("invalid", "degraded"):
        return None
    return f"this client is {step.facts['verdict']} there: {printable(str(step.facts.get('verdict_reason')))}"


def _slots(step: Step, over: str) -> str | None:
    """Return how many requests the server answers at a time, where they wait for their turn."""
    served, kind = step.facts.get("served"), step.facts.get("kind") or "ollama"
    if served is None or served > 1 - _QUEUED or over != "concurrency":
        return None
    at_once = step.facts.get("slots") or max(1, round(step.level * served))
    setting = _SLOT_SETTING.get(str(kind).lower(), "OLLAMA_NUM_PARALLEL")
    return (
        f"the server answers {at_once} at a time ({setting}), and requests wait {share_text(1 - served, 0)} of their "
        f"time for their turn"
    )


def _notes(step: Step) -> Iterator[str]:
    notes = step.facts.get("notes", {})
    yield from (printable(notes[kind]) for kind in ("reload", "prompt_cut", "rate_limited") if kind in notes)


def _processor(step: Step) -> str | None:
    share = step.facts.get("vram_share")
    if share is None or share >= 1:
        return None
    where = "on the processor" if not share else f"partly on the processor ({share_text(share, 0)} on the GPU)"
    return f"the model runs {where}, as the server says (/api/ps)"


def line(step: Step, over: str) -> str:
    """Return one step as a line: ``12 in flight: met, 80 requests, 5.2 correct/s``."""
    rate = "" if step.throughput is None else f", {significant(step.throughput, 3)}/s"
    return f"{level_text(step.level, over)}: {step.state}, {plural(step.requests, 'request')}{rate}"
