"""Requests, loads and records: frozen data.

Instants are stored in integer nanoseconds of ``time.monotonic_ns``; durations are properties in float seconds, None
where they cannot be computed, never 0. docs/methods.md repeats each formula.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise, repeat
from operator import attrgetter
from typing import Any, Literal, TypeVar

T = TypeVar("T")

ErrorKind = Literal[
    "connect", "timeout", "http", "rate_limited", "rejected", "broken_call", "truncated", "stream", "protocol",
    "dropped", "cancelled", "worker_died", "node_died",
]  # fmt: skip
MODEL_ERRORS: tuple[ErrorKind, ...] = ("rejected", "broken_call", "truncated")
"""Kinds that say something about the model: such a request is scored, and is in no error rate."""
Clock = Literal["kernel", "read", "stepped"]
"""Receive instants are the kernel's, or those of the reads; stepped: of the reads where the wall clock had been set."""
Arrival = Literal["constant", "poisson", "gamma"]

NS = 1_000_000_000
NOT_JSON = "(not JSON)"
"""The one argument of a call whose arguments are not JSON; its value is their text."""
ANSWER = "answer"
"""The function by whose arguments a model answers where a schema is asked for as a tool."""
NO_UPSTREAM = (502, 503, 504, 520, 521, 522, 523, 524)
"""Statuses with which a gateway says that the server behind it does not answer.

503 is also what a server says that still loads its model, or that is full.
"""
_BUSY = 503
"""A server that is full says so to some, while it answers others."""
GATHERED = 0.2
"""The share of gathered chunks above which an answer has no spacing to be measured."""
NEARLY_ALL = 0.9
"""What is called a summary of the thinking is all of it where the chunks are at least this share of the tokens."""
_THINKING_TAGS = ("<think", "<thought")
"""So begins an answer whose thinking is in its text."""
FASTER = 0.95
CLOSE_NS = 2_000_000
"""A stream in less than this share of the time that the server gives, and by more than this, came faster than made."""
SLOWER = 1.5
APART_NS = 100_000_000
"""Thinking and an answer that took so many times as long as the server gives, and so much longer, are not what it
counted: it did so in two passes, and tells of the second."""
UNSEEN_TOKENS = 16
"""Tokens that may be in no byte of an answer: what marks thinking and calls, a stop sequence, half a character."""
MANY_A_CHUNK, FEW_CHUNKS = 8, 8
"""Fewer chunks than this, of more tokens each than that, do not tell when these were made: the first may hold most."""
LEAST_EVAL_NS = 50_000
"""Nobody makes a token in less."""
LONGER, LONGER_NS = 1.05, 2_000_000
"""Durations of a server are of this request if they are together at most so much longer than it took."""


def quickly_pickled(kind: type[T]) -> type[T]:
    """Have a frozen dataclass with slots go to another process in a third of the time that dataclasses' code takes."""
    names = tuple(field.name for field in fields(kind))  # type: ignore[arg-type]
    get, put = attrgetter(*names), object.__setattr__

    def get_state(self: T) -> Any:
        return get(self)

    def set_state(self: T, state: tuple[Any, ...]) -> None:
        any(map(put, repeat(self), names, state))  # none of which returns anything

    kind.__getstate__ = get_state  # type: ignore[method-assign, assignment]
    kind.__setstate__ = set_state  # type: ignore[attr-defined]
    return kind


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to the server: a chat with ``messages``, or a completion of ``prompt`` if that is set."""

    index: int
    model: str
    messages: tuple[Mapping[str, Any], ...] = ()
    prompt: str | None = None
    format: Mapping[str, Any] | str | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    think: bool | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    keep_alive: str | float | None = None
    dialect: str | None = None
    """How the schema is asked for, where not in the API's own way."""
    body: Mapping[str, Any] = field(default_factory=dict)
    """Fields added to the body as they are."""
    limit_field: str | None = None
    """The field with the limit of an answer, where it is not the API's usual one."""
    tool_results: Mapping[str, str] | None = None
    """What each tool returns: an answer that calls tools is followed at once by the request ``index + 1`` with the
    results (``loadgen.turns``). No other request may have that index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedLoop:
    """``concurrency`` requests in flight at any time; ``duration_s`` stops sending after so long."""

    concurrency: int
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoop:
    """Requests due at instants drawn in advance at ``rate`` per second, whatever the server does."""

    rate: float
    arrival: Arrival = "constant"
    burstiness: float = 1.0
    """Gamma arrivals only: the shape; 1 is Poisson, below 1 burstier, above 1 more even."""
    max_in_flight: int | None = None
    duration_s: float | None = None
    seed: int = 0


Load = ClosedLoop | OpenLoop


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Limits in seconds, each for one request."""

    connect_s: float = 10.0
    first_chunk_s: float = 300.0
    between_chunks_s: float = 300.0
    total_s: float = 300.0

    @classmethod
    def of(cls, total_s: float) -> Timeouts:
        """Set all four limits from one: connect at most 10 s, the others ``total_s``."""
        return cls(connect_s=min(10.0, total_s), first_chunk_s=total_s, between_chunks_s=total_s, total_s=total_s)


@dataclass(frozen=True, slots=True)
class RequestError:
    """How a request failed; ``status`` is the HTTP status where there was one."""

    kind: ErrorKind
    message: str
    status: int | None = None
    retry_after_s: float | None = None
    """How long the server asks to wait before it is asked again."""

    @property
    def nobody_there(self) -> bool:
        """Return whether no server was reached, as far as an answer can tell: ask the server whether it is away."""
        return (
            self.kind == "connect"
            or (self.kind == "timeout" and self.message.startswith("connect:"))
            or (self.kind == "http" and self.status in NO_UPSTREAM)
        )

    @property
    def wants_a_pause(self) -> bool:
        """Return whether asking again at once would only fail again: nobody is there, or nobody wants to be asked.

        A full server takes the next request as soon as it has done with one: a pause would be a lighter load.
        """
        return (self.nobody_there and self.status != _BUSY) or self.kind == "rate_limited"


@quickly_pickled
@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """What one request did; every request ends in exactly one of these.

    ``chunk_ns`` holds the receive instant of each chunk that carried thinking, answer text or a
    tool call; ``end_ns`` that of the last message (or of the failure).
    """

    index: int
    node: str | None = None
    """The machine of a cluster that sent it; None: this one, or none did."""
    worker: int | None = None
    due_ns: int | None = None
    sent_ns: int | None = None
    sent_off_ns: int | None = None
    """How much later, at most, this client really sent it; None: unknown."""
    connected_ns: int | None = None
    """When the connection opened for this request was established; None if an open one was reused."""
    chunk_ns: tuple[int, ...] = ()
    chunk_early_ns: tuple[int, ...] | None = None
    """By how much each chunk may have been received before its instant; empty: by nothing, None: unknown."""
    first_thinking_ns: int | None = None
    first_answer_ns: int | None = None
    first_tool_call_ns: int | None = None
    end_ns: int | None = None
    held_ns: int | None = None
    """How long after ``end_ns`` its stream could not send by the server's doing: until the body ended, or through the
    pause after a refusal; None: unknown."""
    read_lag_max_ns: int | None = None
    """The longest time that received bytes waited in the kernel until this client read them."""
    processor_wait_ns: int | None = None
    """How long this client waited for a processor when the first chunk came; None if the server is elsewhere."""
    resent_segments: int | None = None
    """TCP segments that this end sent again while it was asked and answered; None: unknown."""
    out_of_order_segments: int | None = None
    """TCP segments of the answer that came after later ones, as where some were lost; None: unknown."""
    merged_chunks: int = 0
    """Chunks read late, together with a later one, so that their own receive instants are lost: the client's doing,
    unlike chunks that a server or proxy sends at once."""
    gathered_chunks: int = 0
    """Chunks that the server, or what stands before it, sent together with the one before."""
    clock: Clock | None = None
    output_text: str = ""
    thinking_text: str = ""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Each ``{"name": …, "arguments": {…}}``."""
    done_reason: str | None = None
    prompt_tokens: int | None = None
    cached_prompt_tokens: int | None = None
    """Those of ``prompt_tokens`` that the server had in its prefix cache; None if it does not tell."""
    output_tokens: int | None = None
    load_ns: int | None = None
    prompt_eval_ns: int | None = None
    eval_ns: int | None = None
    thinking_tokens: int | None = None
    """Of the output tokens, those of the thinking, where the server tells."""
    thinking_partial: bool | None = None
    """True: the server says that it thought more than it streamed, as where it streams a summary."""
    total_tokens: int | None = None
    """The server's own sum of what the request used, where it is more than the prompt's and the output tokens."""
    answered_by: str | None = None
    """The model that the answer says it is of, which is that behind an alias."""
    fingerprint: str | None = None
    """What the server says of its own make amid an answer (``system_fingerprint``)."""
    error: RequestError | None = None
    following: Request | None = None
    """The turn that follows from this answer, which the same worker sends next unless the load is stopped."""

    @property
    def completed(self) -> bool:
        """Return whether the server's last message arrived."""
        return self.error is None

    @property
    def failed(self) -> bool:
        """Return whether the server or this client failed; not if the model did, which is scored."""
        return self.error is not None and self.error.kind not in MODEL_ERRORS

    @property
    def first_ns(self) -> int | None:
        """Receive instant of the first chunk that carries thinking, answer text or a tool call."""
        return self.chunk_ns[0] if self.chunk_ns else None

    @property
    def ttft_s(self) -> float | None:
        """Time to first token: first chunk - sent."""
        return _between(self.sent_ns, self.first_ns)

    @property
    def ttft_off_s(self) -> float | None:
        """By how much TTFT may be too long through this client's own delay; None: unknown, or there is no TTFT."""
        if self.ttft_s is None or self.sent_off_ns is None or self.chunk_early_ns is None:
            return None
        return min(self.ttft_s, (self.sent_off_ns + (self.chunk_early_ns[0] if self.chunk_early_ns else 0)) / NS)

    @property
    def ttft_due_s(self) -> float | None:
        """TTFT from the instant the request was due (no coordinated omission)."""
        return _between(self.due_ns, self.first_ns)

    @property
    def first_thinking_s(self) -> float | None:
        return _between(self.sent_ns, self.first_thinking_ns)

    @property
    def first_answer_s(self) -> float | None:
        return _between(self.sent_ns, self.first_answer_ns)

    @property
    def first_tool_call_s(self) -> float | None:
        return _between(self.sent_ns, self.first_tool_call_ns)

    @property
    def e2e_s(self) -> float | None:
        """End-to-end latency: last message - sent; None for a request that failed, or was answered by nothing."""
        return _between(self.sent_ns, self.end_ns) if self.completed and self.chunk_ns else None

    @property
    def e2e_due_s(self) -> float | None:
        return _between(self.due_ns, self.end_ns) if self.completed and self.chunk_ns else None

    @property
    def send_lag_s(self) -> float | None:
        """Sent - due: how late this client was."""
        return _between(self.due_ns, self.sent_ns)

    @property
    def connect_s(self) -> float | None:
        """Time to open a connection, part of TTFT; 0 if an open one was reused."""
        if self.sent_ns is None:
            return None
        return 0.0 if self.connected_ns is None else (self.connected_ns - self.sent_ns) / NS

    @property
    def held_s(self) -> float | None:
        return _seconds(self.held_ns)

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Inter-token latencies (ITL): the gaps between consecutive chunks."""
        return tuple((b - a) / NS for a, b in pairwise(self.chunk_ns))

    @property
    def is_gathered(self) -> bool:
        """Whether so many chunks came together with others that neither gaps nor pace can be measured."""
        return self.gathered_chunks > GATHERED * len(self.chunk_ns)

    @property
    def is_covered(self) -> bool | None:
        """Whether the server's token count is of the whole stream, and of no more than it; None without one."""
        if self.output_tokens is None:
            return None
        return len(self.chunk_ns) <= self.output_tokens and not (self.is_overcounted or self.is_of_second_pass)

    @property
    def is_overcounted(self) -> bool:
        """Whether there are more tokens than the bytes of the answer can hold: it was a count of something else."""
        count = (self.output_tokens or 0) - UNSEEN_TOKENS
        if count <= len(self.output_text) + len(self.thinking_text):  # nearly always
            return False
        if self.thinking_is_hidden:
            count -= self.thinking_tokens or count
        try:
            texts = (self.output_text, self.thinking_text, json.dumps(self.tool_calls) if self.tool_calls else "")
        except RecursionError:  # a call that nobody can measure
            return False
        return count > sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) > 0

    @property
    def is_of_second_pass(self) -> bool:
        """Whether thinking and answer took much longer than the server's evaluation, which is then of the answer."""
        if not self.eval_ns or self.first_thinking_ns is None or self.first_answer_ns is None:
            return False
        if len(self.chunk_ns) < 2 or len(self.chunk_ns) > (self.output_tokens or 0):
            return False
        return self.chunk_ns[-1] - self.chunk_ns[0] > SLOWER * self.eval_ns + APART_NS

    @property
    def is_timed(self) -> bool:
        """Whether the server's durations, if it tells any, can be those of this request."""
        eval_ns, count = self.eval_ns, self.output_tokens
        if eval_ns is None:
            return True
        if count is not None and eval_ns < LEAST_EVAL_NS * (count - 1):
            return False
        told_ns, e2e_s = (self.load_ns or 0) + (self.prompt_eval_ns or 0) + eval_ns, self.e2e_s
        return e2e_s is None or told_ns <= LONGER * e2e_s * NS + LONGER_NS

    @property
    def itl_mean_s(self) -> float | None:
        """Mean gap between chunks: (last chunk - first chunk) / (chunks - 1).

        None for an answer that came at once or gathered.
        """
        if self.is_gathered or _came_at_once(self.chunk_ns):
            return None
        return (self.chunk_ns[-1] - self.chunk_ns[0]) / NS / (len(self.chunk_ns) - 1)

    @property
    def tpot_s(self) -> float | None:
        """Time per output token after the first: (last chunk - first chunk) / (tokens in the chunks - 1).

        Tokens in the chunks: the output tokens, less those of thinking that was not streamed and the one that ends an
        answer. Where the count is of the answer without the thinking, so are the chunks; where it is of neither or of
        more than came, or the stream was gathered, in a few chunks of many tokens that the server tells no time of, or
        faster than the server says it made the tokens, there is none.
        """
        chunks, tokens = self._counted()
        if self.is_gathered or _came_at_once(chunks) or tokens < 2 or self.output_tokens is None:
            return None
        if self.is_overcounted or self.is_of_second_pass:
            return None
        is_lumped = len(chunks) < FEW_CHUNKS and tokens > MANY_A_CHUNK * len(chunks)
        if is_lumped and not (self.eval_ns and self.is_timed):
            return None
        stream_ns = chunks[-1] - chunks[0]
        made_ns = (self.eval_ns or 0) / self.output_tokens * (tokens - 1)
        if stream_ns < FASTER * made_ns - CLOSE_NS:
            return None
        return stream_ns / NS / (tokens - 1)

    def _counted(self) -> tuple[tuple[int, ...], int]:
        """Return the chunks that the token count is of, and the tokens in them; no chunks if it is of others."""
        chunks, count = self.chunk_ns, self.output_tokens or 0
        if self.thinking_is_hidden:
            if not self.thinking_tokens:
                return (), 0
            count -= self.thinking_tokens if self.thinking_tokens <= count else 0
            if self.thinking_partial:
                firsts = [first for first in (self.first_answer_ns, self.first_tool_call_ns) if first is not None]
                chunks = chunks[bisect_left(chunks, min(firsts)) :] if firsts else ()
        elif len(chunks) > count and self.first_thinking_ns is not None and self.first_answer_ns is not None:
            chunks = chunks[bisect_left(chunks, self.first_answer_ns) :]
        if len(chunks) > count:
            return (), 0
        return chunks, count - (self.done_reason == "stop" and len(chunks) < count)

    @property
    def thinking_is_hidden(self) -> bool:
        """Whether tokens of thinking are counted that are in no chunk, or in none as they were made."""
        if self.output_tokens is None:
            return False
        if not self.thinking_tokens:
            return self.thinking_partial is True and len(self.chunk_ns) < NEARLY_ALL * self.output_tokens
        streamed = self.first_thinking_ns is not None or self.output_text.startswith(_THINKING_TAGS)
        return self.thinking_partial is True or not streamed

    @property
    def client_tokens_per_s(self) -> float | None:
        """Output tokens per second of this stream as the client saw it: 1 / TPOT."""
        return 1 / tpot_s if (tpot_s := self.tpot_s) else None

    @property
    def server_tokens_per_s(self) -> float | None:
        """Output tokens / the server's own evaluation time; None where these cannot be those of this answer."""
        if not self.eval_ns or self.output_tokens is None or self.is_overcounted or not self.is_timed:
            return None
        return self.output_tokens / (self.eval_ns / NS)

    @property
    def load_s(self) -> float | None:
        return _seconds(self.load_ns)

    @property
    def prompt_eval_s(self) -> float | None:
        return _seconds(self.prompt_eval_ns)

    @property
    def eval_s(self) -> float | None:
        return _seconds(self.eval_ns)

    @property
    def queue_s(self) -> float | None:
        """Waiting for a slot, and the network: e2e - connect - load - prompt evaluation - evaluation.

        None where the server's figures are of a part of the stream, or cannot be those of this request.
        """
        e2e_s, eval_s, prompt_eval_s = self.e2e_s, self.eval_s, self.prompt_eval_s
        if e2e_s is None or eval_s is None or prompt_eval_s is None:
            return None
        if self.is_covered is False or not self.is_timed:
            return None
        return e2e_s - (self.connect_s or 0.0) - (self.load_s or 0.0) - prompt_eval_s - eval_s


def is_broken(call: Mapping[str, Any]) -> bool:
    """Return whether the arguments of a call that was made are no JSON: then it cannot be carried out."""
    arguments = call.get("arguments")
    return isinstance(arguments, Mapping) and arguments.keys() == {NOT_JSON}


def _came_at_once(chunk_ns: tuple[int, ...]) -> bool:
    """Return whether all chunks came at one instant, as from a gateway that buffers."""
    return len(chunk_ns) < 2 or chunk_ns[-1] == chunk_ns[0]


def _between(start_ns: int | None, end_ns: int | None) -> float | None:
    return None if start_ns is None or end_ns is None else (end_ns - start_ns) / NS


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / NS
