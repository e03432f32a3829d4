"""The scoring process: whatever an answer does to it, the load and the other answers go on."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from loadgen.engine.child import spawn
from structbench.scoring import Answer, score
from structbench.scoring import process as scorer_module
from structbench.scoring.process import Scorer
from structbench.types import Case, Score
from tests.support.loads import until

NUMBERS = {"type": "array", "items": {"type": "integer"}}
CASES = {
    case.id: case
    for case in (
        Case(id="json", messages=({"role": "user", "content": object()},), schema=NUMBERS),
        Case(id="slow", messages=(), schema={"pattern": "^(a+)+$"}),
        Case(id="number", messages=(), expected_text="7"),
        Case(id="text", messages=()),
    )
}
CATASTROPHE = Answer(output_text='"' + "a" * 60 + '!"')


class Scores:
    """Collects what ``on_score`` is called with, and by which thread."""

    def __init__(self) -> None:
        self.by_key: dict[Any, Score | None] = {}
        self.threads: set[str] = set()

    def __call__(self, key: Any, result: Score | None) -> None:
        assert key not in self.by_key
        self.by_key[key] = result
        self.threads.add(threading.current_thread().name)

    def outcome(self, key: Any) -> str:
        result = self.by_key[key]
        assert result is not None
        return result.outcome

    def reason(self, key: Any) -> str:
        result = self.by_key[key]
        assert result is not None
        assert result.outcome == "unscored"
        return result.validation_errors[0]


@pytest.fixture
def scores() -> Scores:
    return Scores()


@pytest.fixture
def scorer(scores: Scores) -> Iterator[Scorer]:
    with Scorer(scores, time_limit_s=0.3) as running:
        yield running


def child_of(scorer: Scorer) -> psutil.Process:
    assert scorer.wait_ready(60)
    child = scorer._child
    assert child is not None
    return psutil.Process(child.process.pid)


def hung(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> psutil.Process:
    """A child that says nothing more, and is waited for a moment only; for the next one as long as usual."""
    process, child = child_of(scorer), scorer._child
    assert child is not None
    ask = child.ask
    monkeypatch.setattr(child, "ask", lambda questions, _limit_s, *rest: ask(questions, 0.4, *rest))
    process.suspend()
    return process


def test_scores_are_those_of_the_pure_function(scorer: Scorer, scores: Scores) -> None:
    answers = [Answer(output_text=text) for text in ("[1]", "[1", '["x"]', "", "\ud800", "7")]
    for case_id in ("json", "number"):
        for position, answer in enumerate(answers):
            scorer.submit((case_id, position), CASES[case_id], answer)
    assert scorer.drain(60)
    assert scores.by_key == {(c, i): score(CASES[c], a) for c in ("json", "number") for i, a in enumerate(answers)}
    assert scores.threads == {"scorer"}


@pytest.mark.slow
def test_a_catastrophic_pattern_costs_one_answer_and_no_process(scorer: Scorer, scores: Scores) -> None:
    child = child_of(scorer)
    scorer.submit(1, CASES["slow"], CATASTROPHE)
    scorer.submit(2, CASES["json"], Answer(output_text="[1]"))
    assert scorer.drain(60)
    assert scores.reason(1) == "scoring took longer than 0.3 s of CPU time"
    assert scores.outcome(2) == "correct"
    assert child_of(scorer) == child


@pytest.mark.slow
def test_a_child_that_hangs_beyond_its_alarm_is_replaced(
    scorer: Scorer, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = hung(scorer, monkeypatch)
    scorer.submit(1, CASES["json"], Answer(output_text="[1]"))
    assert scorer.drain(60)
    scorer.submit(2, CASES["number"], Answer(output_text="7"))
    assert scorer.drain(60)
    assert scores.reason(1) == "the scoring process gave no answer within 0.4 s"
    assert scores.outcome(2) == "correct"
    assert not child.is_running()


def test_the_others_of_a_batch_that_got_no_reply_are_asked_again_one_by_one(
    scorer: Scorer, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung(scorer, monkeypatch)
    for key in range(3):
        scorer.submit(key, CASES["json"], Answer(output_text="[1]"))
    assert scorer.drain(60)
    assert [scores.outcome(key) for key in range(3)] == ["correct"] * 3


def test_answers_are_scored_in_batches_and_none_waits_for_a_full_one(
    scorer: Scorer, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    child_of(scorer)
    assert scorer._child is not None
    asked: list[int] = []
    ask = scorer._child.ask

    def counting(questions: list[bytes], *rest: Any) -> Any:
        asked.append(len(questions))
        return ask(questions, *rest)

    monkeypatch.setattr(scorer._child, "ask", counting)
    count = 3 * scorer_module.BATCH_SIZE + 5
    for key in range(count):
        scorer.submit(key, CASES["number"], Answer(output_text=str(key)))
    assert scorer.drain(60)
    assert sum(asked) == count
    assert len(asked) <= 5
    assert max(asked) == scorer_module.BATCH_SIZE
    assert list(scores.by_key) == list(range(count))
    scorer.submit("late", CASES["number"], Answer(output_text="7"))
    until(lambda: "late" in scores.by_key, "an answer that nobody drains is scored")


def test_scores_are_passed_on_while_the_next_answers_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer_module, "BATCH_S", 60.0)
    asked: list[int] = []
    frame = scorer_module.frame

    def counting(message: Any) -> bytes:
        if isinstance(message, list):
            asked.append(len(message))
        return frame(message)

    monkeypatch.setattr(scorer_module, "frame", counting)

    def on_score(key: int, _: Score | None) -> None:
        if key < scorer_module.BATCH_SIZE:
            until(lambda: len(asked) > 1, "the second batch is asked")

    with Scorer(on_score) as scorer:
        for key in range(2 * scorer_module.BATCH_SIZE):
            scorer.submit(key, CASES["number"], Answer(output_text="7"))
        assert scorer.drain(60)
    assert asked == [scorer_module.BATCH_SIZE] * 2


def test_after_a_drain_answers_are_gathered_again(
    scorer: Scorer, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "BATCH_S", 60.0)
    child_of(scorer)
    assert scorer._child is not None
    asked: list[int] = []
    ask = scorer._child.ask

    def counting(questions: list[bytes], *rest: Any) -> Any:
        asked.append(len(questions))
        return ask(questions, *rest)

    def until_taken() -> None:
        while not scorer._queue.empty():
            time.sleep(0.001)
        time.sleep(0.01)  # time enough to ask for this one alone, where nothing is gathered

    monkeypatch.setattr(scorer._child, "ask", counting)
    for turn in range(2):
        for key in range(3):
            scorer.submit((turn, key), CASES["number"], Answer(output_text="7"))
            if key == 0:
                until_taken()
        assert scorer.drain(50)
    assert asked == [3, 3]
    for key in range(4):
        scorer.submit(key, CASES["number"], Answer(output_text="x" * 1_500_000))
        if key == 0:
            until_taken()
    assert scorer.drain(50)
    assert asked == [3, 3, 3, 1], "what is asked at once is bounded by its size"
    assert [score.outcome for score in scores.by_key.values() if score] == ["correct"] * 6 + ["wrong_value"] * 4


class Stubborn:
    """Whoever unpickles it never gets done, whatever is raised there the first time."""

    def __reduce__(self) -> Any:
        code = "try:\n    while True: pass\nexcept BaseException:\n    pass\nwhile True: pass"
        return exec, (code,)


@pytest.mark.slow
def test_an_answer_that_swallows_the_alarm_is_stopped_by_the_next_also_where_the_program_blocks_it(
    scores: Scores,
) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    try:
        scorer = Scorer(scores, time_limit_s=0.3)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with scorer:
        child = child_of(scorer)
        scorer.submit(1, CASES["json"], Answer(tool_calls=({"name": "f", "arguments": Stubborn()},)))
        scorer.submit(2, CASES["json"], Answer(output_text="[2]"))
        assert scorer.drain(60)
        assert scores.reason(1) == "scoring took longer than 0.3 s of CPU time"
        assert scores.outcome(2) == "correct"
        assert child_of(scorer) == child


class Message(dict[str, str]):
    """A message that a weak reference may be of."""


@pytest.mark.slow
def test_more_cases_than_are_kept_are_told_apart_and_the_first_ones_let_go(
    scorer: Scorer, scores: Scores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "MAX_CASES", 2)
    message = Message()
    there = weakref.ref(message)
    scorer.submit("first", Case(id="first", messages=(message,), expected_text="7"), Answer(output_text="8"))
    del message
    assert scorer.drain(60)
    for turn in range(2):
        for number in range(5):
            case = Case(id=str(number), messages=(), expected_text=str(number))
            scorer.submit((turn, number), case, Answer(output_text=str(number if turn else 0)))
    assert scorer.drain(60)
    assert [key for key, result in scores.by_key.items() if result and result.outcome == "correct"] == [
        (0, 0), *((1, number) for number in range(5))
    ]  # fmt: skip
    gc.collect()
    assert there() is None


class Bomb:
    """Ends the process that unpickles it."""

    def __reduce__(self) -> Any:
        return os._exit, (3,)


@pytest.mark.slow
def test_an_answer_that_kills_the_child_costs_only_itself(scorer: Scorer, scores: Scores) -> None:
    scorer.submit(1, CASES["json"], Answer(tool_calls=({"name": "f", "arguments": Bomb()},)))
    scorer.submit(2, CASES["json"], Answer(output_text="[2]"))
    assert scorer.drain(60)
    assert scores.reason(1) == "the scoring process died (exit code 3)"
    assert scores.outcome(2) == "correct"


def test_a_child_killed_while_idle_costs_no_answer(scorer: Scorer, scores: Scores) -> None:
    child = child_of(scorer)
    child.kill()
    child.wait()
    scorer.submit(1, CASES["json"], Answer(output_text="[1]"))
    assert scorer.drain(60)
    assert scores.outcome(1) == "correct"


def test_no_child_to_be_had_ends_in_unscored_answers(monkeypatch: pytest.MonkeyPatch, scores: Scores) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with Scorer(scores) as scorer:
        for key in range(5):
            scorer.submit(key, CASES["json"], Answer(output_text="[1]"))
        scorer.submit("text", CASES["text"], Answer())
        assert scorer.drain(60)
    assert {scores.reason(key) for key in range(5)} == {"the scoring process did not start"}
    assert scores.by_key["text"] is None


def test_a_child_that_breaks_at_start_is_given_up_after_three(monkeypatch: pytest.MonkeyPatch, scores: Scores) -> None:
    starts: list[str] = []

    def broken(target: str) -> Any:
        starts.append(target)
        return spawn("loadgen.engine.child:no_such_function")

    monkeypatch.setattr(scorer_module, "spawn", broken)
    with Scorer(scores) as scorer:
        for key in range(6):
            scorer.submit(key, CASES["json"], Answer(output_text="[1]"))
        assert scorer.drain(60)
    assert len(scores.by_key) == 6
    assert len(starts) == 3


def test_what_is_too_large_or_cannot_be_sent_is_unscored(scores: Scores) -> None:
    with Scorer(scores, size_limit=2000) as scorer:
        scorer.submit("text", CASES["json"], Answer(output_text="[" + " " * 2000 + "]"))
        scorer.submit("calls", CASES["json"], Answer(tool_calls=({"name": "f", "arguments": {"a": "x" * 2000}},)))
        scorer.submit("lambda", CASES["json"], Answer(tool_calls=({"name": "f", "arguments": lambda: 1},)))
        scorer.submit("small", CASES["json"], Answer(output_text="[1]"))
        assert scorer.drain(60)
    assert scores.reason("text") == scores.reason("calls") == "the answer is larger than 2000 bytes"
    assert scores.reason("lambda").startswith("the answer cannot be handed to the scoring process: ")
    assert scores.outcome("small") == "correct"


def test_text_cases_need_no_process(scores: Scores) -> None:
    with Scorer(scores, start_now=False) as scorer:
        scorer.submit(1, CASES["text"], Answer(output_text="x" * 9_000_000))
        assert scorer.drain(60)
        assert scorer._child is None
    assert scores.by_key == {1: None}


def test_an_error_of_the_callback_reaches_the_caller_and_stops_nothing() -> None:
    seen = []

    def on_score(key: Any, _: Score | None) -> None:
        seen.append(key)
        raise LookupError(f"callback of {key}")

    with Scorer(on_score, start_now=False) as scorer:
        scorer.submit(1, CASES["text"], Answer())
        scorer.submit(2, CASES["text"], Answer())
        with pytest.raises(LookupError, match="callback of 1"):
            scorer.drain(60)
    assert seen == [1, 2]


def test_late_submit_is_refused_at_once(scorer: Scorer) -> None:
    scorer.close()
    scorer.close()
    with pytest.raises(ValueError, match="after close"):
        scorer.submit(1, CASES["json"], Answer())


def test_a_child_not_started_at_once_starts_when_needed(scores: Scores) -> None:
    with Scorer(scores, start_now=False) as scorer:
        assert scorer.wait_ready(60)
        assert scorer._child is None
        scorer.submit(1, CASES["json"], Answer("[1]"))
        assert scorer.drain(60)
    assert scores.outcome(1) == "correct"


def test_close_waits_for_no_answer_and_leaves_no_process(scores: Scores) -> None:
    scorer = Scorer(scores, time_limit_s=3600)
    child = child_of(scorer)
    for key in range(100):
        scorer.submit(key, CASES["slow"], CATASTROPHE)
    assert not scorer.drain(0.05)
    scorer.close()
    assert not child.is_running()
    assert scores.by_key == {}
    assert not scorer.drain()


def test_ctrl_c_in_the_terminal_does_not_stop_scoring(scorer: Scorer, scores: Scores) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    child = child_of(scorer)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)
    scorer.submit(1, CASES["json"], Answer(output_text="[1]"))
    assert scorer.drain(60)
    assert scores.outcome(1) == "correct"
    assert child_of(scorer) == child
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


@pytest.mark.slow
def test_the_child_ends_with_its_parent() -> None:
    code = (
        "import os, signal, sys; sys.path[:] = sys.argv[1:]\n"
        "from structbench.scoring.process import Scorer\nscorer = Scorer(print)\n"
        "scorer.wait_ready()\nprint(scorer._child.process.pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *sys.path], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    gone = psutil.Process(int(done.stdout)) if psutil.pid_exists(int(done.stdout)) else None
    if gone is not None:
        # An orphan may stay a zombie where nothing reaps it.
        psutil.wait_procs([gone], timeout=10)
        assert not gone.is_running() or gone.status() == psutil.STATUS_ZOMBIE


def test_the_child_imports_only_what_scoring_needs(scorer: Scorer) -> None:
    child = child_of(scorer)
    # A native part of what jsonschema needs: loaded before the first answer comes, not while it waits.
    assert any("rpds" in place.path for place in child.memory_maps())
    scorer.submit(1, CASES["json"], Answer(output_text="[1]"))
    assert scorer.drain(60)
    assert child.memory_info().rss < 45 * 2**20
    assert child.nice() >= min(19, os.nice(0) + scorer_module.NICENESS)
