"""The scoring process, which scores answers beside the load without holding it up.

One thread of the parent talks to one child process, in batches. Every submitted answer comes back once, even if it
kills the child; the child ends by itself when its parent is gone.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import selectors
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import lru_cache
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from loadgen.engine.child import PARENTS, frame, receive, spawn
from structbench.scoring.answer import Answer, unscored
from structbench.scoring.time_limit import OutOfTime, limited

if TYPE_CHECKING:
    from structbench.types import Case, Score

READY_LIMIT_S = 60.0
GRACE_S = 30.0
"""How long after the time limit a silent child is killed: long, since it yields to other processes."""
MAX_STARTS = 3
"""Failed starts in a row after which scoring is given up."""
BATCH_S = 0.1
"""How long answers are collected, so that two processes do not wake up for each one; a kill loses them."""
BATCH_SIZE = 256
"""How many at most: where more wait than are scored in time, few large batches take a tenth less than many small."""
MAX_CASES = 1024
"""Cases that each side caches, pickled in the parent and unpickled in the child."""
NICENESS = 10
"""Makes the child yield to the load's processes when cores are scarce."""

Item = tuple[Any, "Case", Answer]


class Scorer:
    """Score answers in a separate process and pass each score to ``on_score`` from one thread."""

    def __init__(
        self,
        on_score: Callable[[Any, Score | None], None],
        *,
        start_now: bool = True,
        time_limit_s: float = 2.0,
        size_limit: int = 4_000_000,
    ) -> None:
        self._on_score = on_score
        self._start_now = start_now
        self._time_limit_s = time_limit_s
        self._size_limit = size_limit
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._hurry = threading.Event()
        self._cases: dict[int, tuple[Case, bytes]] = {}
        self._idle = threading.Condition()
        self._pending = 0
        self._failure: BaseException | None = None
        self._closing, self._close = socket.socketpair()
        self._closed = False
        self._scored: tuple[Sequence[Item], Sequence[Score | None]] = [], []
        """Scores that are not passed on yet."""
        self._child: _Child | None = None
        self._failed_starts = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scorer", daemon=True)
        self._thread.start()

    def submit(self, key: Any, case: Case, answer: Answer) -> None:
        """Queue an answer and return at once; the child starts with the first case that needs it, if not before."""
        with self._idle:
            if self._closed:
                raise ValueError("submit() after close()")
            self._pending += 1
        self._queue.put((key, case, answer))

    def wait_ready(self, timeout_s: float | None = None) -> bool:
        """Wait until the child has started, so that its imports do not disturb a measurement."""
        return self._started.wait(timeout_s)

    def drain(self, timeout_s: float | None = None) -> bool:
        """Wait until everything submitted is scored; False on time-out. Raises what ``on_score`` raised."""
        self._hurry.set()
        with self._idle:
            done = self._idle.wait_for(lambda: self._pending == 0 or self._closed, timeout_s)
            if done and not self._closed:
                self._hurry.clear()
            if self._failure is not None:
                raise self._failure
            return done and self._pending == 0

    def close(self) -> None:
        """End the child at once; pending answers stay without a score. May be called twice."""
        with self._idle:
            first_time, self._closed = not self._closed, True
            self._idle.notify_all()
        if first_time:
            self._hurry.set()
            self._close.close()
            self._queue.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        # A terminal's Ctrl-C reaches the whole process group: the child inherits this thread's mask.
        signal.pthread_sigmask(signal.SIG_BLOCK, PARENTS)
        if self._start_now:
            self._ready_child()
        self._started.set()
        while (batch := self._next_batch()) and not self._closed:
            scores = self._scores(batch)
            self._deliver()
            self._scored = batch, scores
            if self._queue.empty():
                self._deliver()
        self._drop_child()
        self._closing.close()

    def _next_batch(self) -> list[Item]:
        """Take what is queued, after a moment for more to arrive; empty once closed."""
        item = self._queue.get()
        if item is not None and self._queue.empty():
            self._hurry.wait(BATCH_S)
        batch, size = [], 0
        while item is not None:
            batch.append(item)
            size += len(item[2].output_text)
            if len(batch) == BATCH_SIZE or size > self._size_limit:
                break
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
        return batch

    def _deliver(self) -> None:
        """Pass on the scores that wait: called while the child scores the next ones."""
        (batch, scores), self._scored = self._scored, ([], [])
        delivered = 0
        for (key, _, _), score in zip(batch, scores, strict=True):
            if self._closed:
                break
            try:
                self._on_score(key, score)
            except BaseException as error:  # the caller's own, raised again by drain()
                self._failure = self._failure if self._failure is not None else error
            delivered += 1
        with self._idle:
            self._pending -= delivered
            self._idle.notify_all()

    def _scores(self, batch: list[Item]) -> list[Score | None]:
        """Score the batch: all questions at once, or one by one if that kills the child."""
        scores: list[Score | None] = [None] * len(batch)
        questions: dict[int, bytes] = {}
        for place, (_, case, answer) in enumerate(batch):
            if case.kind != "text":
                question = self._question(case, answer)
                if isinstance(question, bytes):
                    questions[place] = question
                else:
                    scores[place] = question
        found = self._ask(list(questions.values())) if questions else []
        if isinstance(found, str):
            found = [self._ask_alone(question, found, len(questions)) for question in questions.values()]
        for place, score in zip(questions, found, strict=True):
            scores[place] = score
        return scores

    def _question(self, case: Case, answer: Answer) -> bytes | Score:
        """Pickle case and answer, or return the score that says why that is impossible."""
        if len(answer.output_text) <= self._size_limit:
            try:
                question = pickle.dumps((self._pack_case(case), answer))
            except Exception as error:  # any object may refuse to be pickled, with any exception
                return unscored(f"the answer cannot be handed to the scoring process: {type(error).__name__}: {error}")
            if len(question) <= self._size_limit:
                return question
        return unscored(f"the answer is larger than {self._size_limit} bytes")

    def _pack_case(self, case: Case) -> bytes:
        """Pickle the case without its messages, once for a case that is asked repeatedly."""
        known = self._cases.get(id(case))
        if known is not None:
            return known[1]
        packed = pickle.dumps(dataclasses.replace(case, messages=()))
        if len(self._cases) >= MAX_CASES:
            self._cases.clear()
        self._cases[id(case)] = case, packed  # keeps the case alive, so that its id is not reused
        return packed

    def _ask_alone(self, question: bytes, failure: str, asked: int) -> Score:
        """Score one answer of a batch that failed as a whole."""
        if asked == 1 or self._closed:
            return unscored(failure)
        found = self._ask([question])
        return unscored(found) if isinstance(found, str) else found[0]

    def _ask(self, questions: list[bytes]) -> list[Score] | str:
        """Return the child's scores, or the reason why there are none."""
        child = self._ready_child()
        if child is None:
            return "the scoring process did not start"
        reply = child.ask(questions, len(questions) * self._time_limit_s + GRACE_S, self._closing, self._deliver)
        if isinstance(reply, str):
            self._drop_child()
        return reply

    def _ready_child(self) -> _Child | None:
        if self._child is not None and self._child.process.poll() is not None:
            self._drop_child()
        if self._child is None and self._failed_starts < MAX_STARTS:
            self._failed_starts += 1
            try:
                child = _Child(self._time_limit_s)
            except OSError:  # out of memory or processes: counted as a failed start
                return None
            if child.is_ready(READY_LIMIT_S, self._closing):
                self._child, self._failed_starts = child, 0
            else:
                child.end()
        return self._child

    def _drop_child(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class _Child:
    """The parent's end of one scoring process."""

    def __init__(self, time_limit_s: float) -> None:
        self.process, self._sock = spawn("structbench.scoring.process:serve")
        self._messages = receive(self._sock)
        self._time_limit_s = time_limit_s

    def is_ready(self, limit_s: float, closing: socket.socket) -> bool:
        """Wait until the child reports that it is ready."""
        try:
            return bool(self._reply(self._time_limit_s, limit_s, closing) == "ready")
        except (EOFError, OSError):
            return False

    def ask(
        self, questions: list[bytes], limit_s: float, closing: socket.socket, meanwhile: Callable[[], None]
    ) -> list[Score] | str:
        """Return the child's scores, or the reason why there are none; then do not use this child again.

        ``meanwhile`` is what to do while it works.
        """
        try:
            reply: list[Score] = self._reply(questions, limit_s, closing, meanwhile)
            return reply
        except TimeoutError:
            return f"the scoring process gave no answer within {limit_s:g} s"
        except (EOFError, OSError):
            self.process.kill()
            return f"the scoring process died (exit code {self.process.wait()})"

    def _reply(
        self, message: Any, limit_s: float, closing: socket.socket, meanwhile: Callable[[], None] = lambda: None
    ) -> Any:
        """Return the child's reply to the message; TimeoutError after the limit or once ``closing`` is closed."""
        self._sock.sendall(frame(message))
        meanwhile()
        with selectors.DefaultSelector() as selector:
            selector.register(self._sock, selectors.EVENT_READ)
            selector.register(closing, selectors.EVENT_READ)
            if all(key.fileobj is not self._sock for key, _ in selector.select(limit_s)):
                raise TimeoutError
        for reply in self._messages:
            return reply
        raise EOFError

    def end(self) -> None:
        self._sock.close()
        self.process.kill()
        self.process.wait()


@lru_cache(MAX_CASES)
def _unpack_case(case: bytes) -> Case:
    found: Case = pickle.loads(case)
    return found


def _score_in_time(questions: Sequence[bytes], limit_s: float) -> list[Score | None]:
    """Return the scores, ``unscored`` for an answer that takes longer than the limit.

    One limit is set for all, which is cheaper than scoring; only where they pass it together does each get its own.
    """
    from structbench.scoring import score

    def run() -> list[Score | None]:
        asked = map(pickle.loads, questions)
        return [score(_unpack_case(case), answer) for case, answer in asked]

    try:
        return limited(limit_s, run)
    except OutOfTime:
        if len(questions) > 1:
            return [found for question in questions for found in _score_in_time([question], limit_s)]
        return [unscored(f"scoring took longer than {limit_s:g} s of CPU time")]


def serve(sock: socket.socket) -> None:
    """Run in the child: answer questions until the parent closes its end of the socket."""
    from structbench.scoring.validation import schema_problem

    os.nice(NICENESS)
    with sock, suppress(OSError, StopIteration):  # the parent is gone
        messages = receive(sock)
        limit_s = next(messages)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGPROF})
        schema_problem({})  # imports jsonschema before the first answer
        sock.sendall(frame("ready"))
        for questions in messages:
            sock.sendall(frame(_score_in_time(questions, limit_s)))
