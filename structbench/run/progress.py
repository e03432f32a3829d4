"""The figures of a running cell so far, in bounded memory; one thread may read while another adds."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from structbench.stats import percentile

if TYPE_CHECKING:
    from loadgen.types import RequestRecord
    from structbench.types import Score

WINDOW_S = 10.0
MIN_IN_WINDOW = 10
"""The window grows until it holds this many requests: a rate over one request of 30 s says nothing."""
MAX_TTFTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class CellProgress:
    """How far a cell is: what the display shows of it, as figures; rates are those of the last 10 s or 10 requests."""

    name: str
    state: Literal["starting", "running", "done", "stopped"]
    done: int
    planned: int | None
    """None: only the time is limited."""
    share: float | None
    """Share done, by requests or by time, whichever is nearer the end."""
    in_flight: int
    errors: int
    elapsed_s: float | None
    eta_s: float | None
    requests_per_s: float | None
    tokens_per_s: float | None
    ttft_p50_s: float | None
    share_correct: float | None


@dataclass(slots=True)
class _Counts:
    """Counts of requests that ended within one second of the clock, or in the whole cell."""

    second: int = 0
    last: float = 0.0
    done: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    uncounted: int = 0
    """Completed requests whose tokens are not known."""


class Progress:
    """The figures of one cell so far; time before its first request was sent does not count."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._started: float | None = None
        self._ended: float | None = None
        self._all = _Counts()
        self._recent: deque[_Counts] = deque()
        self._in_recent = 0
        self._since = 0.0
        """Where the window of the rates begins: at the start, or at the last request that left it."""
        self._ttfts: deque[float] = deque(maxlen=MAX_TTFTS)
        self._scored = 0
        self._correct = 0

    def start(self) -> None:
        """Start the clock as the first request is sent; later calls change nothing."""
        if self._started is None:
            with self._lock:
                self._start(self._clock())

    def _start(self, instant: float) -> None:
        if self._started is None:
            self._started = self._since = instant

    def stop(self) -> None:
        """Stop the clock; from now on the rates are those of the whole cell."""
        with self._lock:
            if self._ended is None:
                self._ended = self._clock()

    def add(self, record: RequestRecord) -> None:
        """Count one request that has ended."""
        now = self._clock()
        with self._lock:
            if self._started is None:
                unsent = record.sent_ns is None or record.end_ns is None
                self._start(now if unsent else now - (record.end_ns - record.sent_ns) / 1e9)  # type: ignore[operator]
            if not self._recent or self._recent[-1].second != int(now):
                self._trim(now)
                self._recent.append(_Counts(int(now)))
            self._in_recent += 1
            for counts in (self._recent[-1], self._all):
                counts.last = now
                counts.done += 1
                counts.failed += record.failed
                if record.error is None:
                    counts.completed += 1
                    if record.is_covered:
                        counts.tokens += record.output_tokens or 0
                    else:
                        counts.uncounted += 1
            if record.error is None and (ttft_s := record.ttft_s) is not None:
                self._ttfts.append(ttft_s)

    def add_score(self, score: Score | None) -> None:
        """Count one score, unless it has no ``accuracy_score``."""
        if score is not None and score.accuracy_score is not None:
            with self._lock:
                self._scored += 1
                self._correct += score.outcome == "correct"

    def _trim(self, now: float) -> None:
        recent = self._recent
        while recent and now - recent[0].last > WINDOW_S and self._in_recent - recent[0].done >= MIN_IN_WINDOW:
            self._since = recent[0].last
            self._in_recent -= recent.popleft().done

    def _rate(self, what: Literal["done", "completed", "tokens", "uncounted"]) -> float | None:
        with self._lock:
            if self._started is None:
                return None
            if self._ended is not None:
                n, span_s = getattr(self._all, what), self._ended - self._started
            else:
                now = self._clock()
                self._trim(now)
                n, span_s = sum(getattr(counts, what) for counts in self._recent), now - self._since
            return n / span_s if span_s > 0 else None

    @property
    def done(self) -> int:
        """Requests that ended, completed or failed."""
        return self._all.done

    @property
    def errors(self) -> int:
        """Requests that the server or this client failed; the model's failures are scored instead."""
        return self._all.failed

    @property
    def elapsed_s(self) -> float | None:
        """Seconds since the first request was sent."""
        if self._started is None:
            return None
        return (self._clock() if self._ended is None else self._ended) - self._started

    @property
    def done_per_s(self) -> float | None:
        """Requests that ended, completed or failed, per second of the window."""
        return self._rate("done")

    @property
    def requests_per_s(self) -> float | None:
        """Completed requests per second of the window (the last 10 s or the last 10 requests)."""
        return self._rate("completed")

    @property
    def tokens_per_s(self) -> float | None:
        """Output tokens of requests completed within the window, per second; None if those of any are not known."""
        return None if self._rate("uncounted") else self._rate("tokens")

    @property
    def ttft_p50_s(self) -> float | None:
        """Median TTFT of the last 1000 completed requests."""
        with self._lock:
            recent = list(self._ttfts)
        return percentile(recent, 0.5)

    @property
    def share_correct(self) -> float | None:
        """Correct answers / scored answers."""
        with self._lock:
            return self._correct / self._scored if self._scored else None
