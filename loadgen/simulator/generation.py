"""Generating one answer: load, wait for a slot, evaluate the prompt, then send token after token on schedule.

Invariant: token ``i`` is due at ``first + (i + jitter) * gap``, counted from the start, so that a late token delays no
other; reported durations are what really passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from time import monotonic_ns
from typing import Any, Literal

from loadgen.simulator.answers import Plan, prompt_pieces, split
from loadgen.simulator.connection import ClientConnection
from loadgen.simulator.forms import Ending, Form, Message, arguments_text
from loadgen.simulator.models import Model, seconds_of
from loadgen.simulator.truth import Entry, Truth

_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
GATHERED = 10
"""Lines that the fault ``gathered`` sends at a time."""
_REPEATS = 31
_HUGE = 32 * 1024 * 1024
_LOST = "an error was encountered while running the model: unexpected EOF"


class Generation:
    """The answer to one request; the client may go away at any moment."""

    def __init__(self, connection: ClientConnection, model: Model, body: Mapping[str, Any], plan: Plan, entry: Entry,
                 truth: Truth, *, form: Form, fault: str | None, rng: Random, one_pass: bool) -> None:  # fmt: skip
        self.connection, self.model, self.plan, self.entry, self.truth = connection, model, plan, entry, truth
        self.streamed = body.get("stream") is not False
        self.keep_alive_s = seconds_of(body.get("keep_alive"))
        self.form, self.fault, self.rng = form, fault, rng
        self.loop = asyncio.get_running_loop()
        self.events = _events(plan, rng, self.streamed and form.calls_in_pieces)
        if fault == "held-back":
            self.events = _with_half_held_back(self.events)
        self.gathered: list[bytes] = []
        """Lines that wait for others to be sent with."""
        twice = body.get("format") and not one_pass and (plan.pieces or plan.done_reason == "stop")
        self.counted_from = len(plan.thinking) if twice else 0
        """The first token that the counts are of: a schema is a second pass, which begins after the thinking."""
        self.next_event = 0
        self.fault_at = min(len(self.events), max(1, len(self.events) // 2))
        self.slot: Literal["none", "waiting", "taken"] = "none"
        self.timer: asyncio.TimerHandle | None = None
        self.options = body.get("options") or {}
        self.prompt = prompt_pieces(body) if model.profile.prefix_cache != "none" else ()
        self.cached = 0
        self.start = self.loop.time()
        self.gap = model.profile.drip_s if fault == "slow-drip" else 1 / model.profile.tokens_per_s
        self.first = self.granted = self.due = self.start

    def run(self) -> None:
        self.connection.on_lost = self._lost
        self.model.users += 1
        self._at(self.start + self.model.load(self.start, self.options), self._loaded)

    def _at(self, due: float, then: Callable[[], None]) -> None:
        self.timer = self.loop.call_at(due, then)

    def _loaded(self) -> None:
        self.entry.load_ns = int((self.loop.time() - self.start) * 1e9)
        self.slot = "waiting"
        self.model.take(self._granted)

    def _granted(self) -> None:
        self.slot = "taken"
        self.granted = self.loop.time()
        self.entry.queue_ns = int((self.granted - self.start) * 1e9) - self.entry.load_ns
        self.first = self.granted + self._prompt_s()
        self.form.begin(self.plan.prompt_tokens, self._told_cached())
        if self.fault == "empty-first" and self.streamed:
            self._send([self.form.early()])
        if self.fault == "pings" and self.streamed and self.form.ping:
            self._send([self.form.ping])
        self._at(self.first, self._evaluated)

    def _prompt_s(self) -> float:
        """Return the seconds that the prompt takes, and set the gap between tokens, as the model's state makes them."""
        profile, slowness = self.model.profile, self.model.slowness()
        if profile.service_s is not None:
            self.gap = 0.9 * profile.service_s * slowness / max(1, self._eval_count() - 1)
            return 0.1 * profile.service_s * slowness
        self.gap *= slowness
        cached = self.model.cached(self.prompt)
        self.cached = self.plan.prompt_tokens * cached // max(1, len(self.prompt))
        return (self.plan.prompt_tokens - self.cached) / profile.prompt_tokens_per_s * slowness

    def _evaluated(self) -> None:
        """Start the schedule of tokens, now that the prompt is evaluated."""
        self.first = self.loop.time()
        self.entry.prompt_eval_ns = int((self.first - self.granted) * 1e9)
        self.entry.prompt_tokens = self.plan.prompt_tokens
        if not self.streamed:
            self.next_event = len(self.events)
        self.due = self._due_next()
        self._step()

    def _step(self) -> None:
        """Write what is due, then wait for the next token."""
        while True:
            if self.due > self.loop.time():
                return self._at(self.due, self._step)
            if self.streamed and self.next_event == self.fault_at and self._strike():
                return None
            if self.next_event == len(self.events):
                return self._finish()
            token, message = self.events[self.next_event]
            self._write(message)
            self.entry.chunks += 1
            self.entry.tokens = token + 1
            self.next_event += 1
            self.due = self._due_next()

    def _due_next(self) -> float:
        if self.next_event < len(self.events):
            token = self.events[self.next_event][0]
            late = self.model.profile.jitter * self.rng.random() if token else 0.0
            second_pass_s = self._second_pass_s() if token >= self.counted_from else 0.0
            return self.first + (token + late) * self.gap + second_pass_s
        return self.first + (self._eval_count() - 1) * self.gap + self._second_pass_s()

    def _second_pass_s(self) -> float:
        """Return the time to evaluate the prompt again, with the thinking, where the answer is a second pass."""
        if not self.counted_from:
            return 0.0
        return (self.plan.prompt_tokens + self.counted_from) / self.model.profile.prompt_tokens_per_s

    def _eval_count(self) -> int:
        """Return the number of tokens, including the one that ends the answer."""
        return max(1, self.plan.tokens + (self.plan.done_reason == "stop"))

    def _told_cached(self) -> int | None:
        return self.cached if self.model.profile.prefix_cache == "told" else None

    def _write(self, message: Message) -> None:
        piece = self.form.piece(message)
        self._send([piece + self.form.ping if self.fault == "pings" else piece])
        if any(message.values()) and not self.gathered:
            self.entry.last_ns = self.written_ns
            if self.entry.first_ns is None:
                self.entry.first_ns = self.written_ns

    def _send(self, parts: Sequence[bytes], last: bool = False) -> None:
        """Send these HTTP chunks of a stream, or what the fault makes of them."""
        if self.fault == "split-line":
            parts = [half for part in parts for half in (part[: len(part) // 2], part[len(part) // 2 :])]
        if self.fault == "gathered":
            self.gathered += parts
            if len(self.gathered) < GATHERED and not last:
                return
            parts, self.gathered = self.gathered, []
        self.written_ns = monotonic_ns()
        self.connection.send_chunks(self.form.content_type, parts, last)

    def _finish(self) -> None:
        now = self.loop.time()
        entry = self.entry
        entry.tokens = self._eval_count() - self.counted_from
        begun = self.first + self.counted_from * self.gap + self._second_pass_s()
        entry.eval_ns = max(1000, int((now - begun) * 1e9))
        if self.counted_from:
            entry.prompt_tokens += self.counted_from
            entry.prompt_eval_ns = int(self._second_pass_s() * 1e9)
        end = self._ending(now)
        if self.streamed:
            self._send(self.form.ending(end), last=True)
        else:
            whole = self.form.whole(self._whole(), end)
            self.written_ns = monotonic_ns()
            if not self._strike_whole(whole):
                self._respond(whole)
            entry.first_ns = entry.last_ns = self.written_ns
        if self.fault == "gathered" and entry.chunks:  # the last of them came with this line
            entry.first_ns, entry.last_ns = entry.first_ns or self.written_ns, self.written_ns
        entry.done_ns = self.written_ns
        broken = not self.streamed and self.fault in _BREAKING
        self._end("faulted" if broken else "completed")

    def _ending(self, now: float) -> Ending:
        entry = self.entry
        return Ending(
            reason=self.plan.done_reason, prompt_tokens=entry.prompt_tokens, tokens=entry.tokens,
            cached=self._told_cached(), total_ns=int((now - self.start) * 1e9), load_ns=entry.load_ns,
            prompt_eval_ns=entry.prompt_eval_ns, eval_ns=entry.eval_ns,
        )  # fmt: skip

    def _whole(self) -> Message:
        """Return the message of an answer that is not streamed."""
        text, thinking = "".join(self.plan.pieces), "".join(self.plan.thinking)
        thought = {"thinking": thinking} if thinking else {}
        calls = next(({"tool_calls": m["tool_calls"]} for _, m in self.events if "tool_calls" in m), {})
        return {"content": text, **thought, **calls}

    def _strike(self) -> bool:
        """Let the fault strike, if there is one; return True if nothing more will be sent."""
        match self.fault:
            case "reset":
                self.connection.reset()
            case "close":
                self.connection.close()
            case "cut":
                self._send((), last=True)
            case "repeat-guard":
                for _ in range(_REPEATS):
                    self._write({"content": "\n"})
                self._send((), last=True)
            case "error-line" | "error-event" | "error-flat":
                self._send([self.form.error(_LOST, self.fault == "error-event")], last=True)
            case "hang-mid":
                return True
            case _:
                self._odd_line()
                return False
        self._end("faulted")
        return True

    def _odd_line(self) -> None:
        match self.fault:
            case "garbage":
                odd = self.form.line(_GARBAGE)
            case "invalid-utf8":
                odd = _marked(self.form.piece(_MARK), _NOT_UTF8)
            case "huge-line":
                odd = _marked(self.form.piece(_MARK), b"x" * _HUGE)
            case _:
                return
        self.fault_at = -1
        self._send([odd])

    def _strike_whole(self, whole: bytes) -> bool:
        """Let the fault strike in an answer that is not streamed; return True if nothing is left to send."""
        match self.fault:
            case "reset":
                self.connection.reset()
            case "close" | "cut":
                self.connection.send_short(whole)
            case "repeat-guard":
                text = "".join(self.plan.pieces[: self.fault_at]) + "\n" * _REPEATS
                self._respond(self.form.whole({"content": text}, None))
            case "hang-mid":
                pass
            case "error-line" | "error-event" | "error-flat":
                self._respond(self.form.refusal(500, _LOST), 500)
            case "garbage":
                self._respond(_GARBAGE)
            case "invalid-utf8":
                self._respond(_marked(self.form.whole(_MARK, None), _NOT_UTF8))
            case "huge-line":
                self._respond(_marked(self.form.whole(_MARK, None), b"x" * _HUGE))
            case _:
                return False
        return True

    def _respond(self, body: bytes, status: int = 200) -> None:
        self.connection.respond(status, self.form.whole_type, body)

    def _lost(self) -> None:
        """End the answer when the client goes away."""
        self._end("faulted" if self.fault == "hang-mid" and self.next_event == self.fault_at else "aborted")

    def _end(self, outcome: Literal["completed", "faulted", "aborted"]) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.entry.outcome is not None:
            return
        self.truth.close(self.entry, outcome)
        self.connection.on_lost = None
        self.model.users -= 1
        self.model.keep(300.0 if self.keep_alive_s is None else self.keep_alive_s, self.loop.time())
        if self.slot == "waiting":
            self.model.waiting.remove(self._granted)
        elif self.slot == "taken":
            self.model.release()


_BREAKING = frozenset({"reset", "close", "cut", "repeat-guard", "hang-mid", "error-line", "error-event", "error-flat"})
_GARBAGE = b"this is not JSON {"
_NOT_UTF8 = b"\xff\xfe\xc3("
_MARK: Message = {"content": "@@"}


def _marked(data: bytes, text: bytes) -> bytes:
    """Return what was made of ``_MARK`` with these bytes as its text."""
    return data.replace(b"@@", text, 1)


def _events(plan: Plan, rng: Random, calls_in_pieces: bool) -> list[tuple[int, Message]]:
    """Return the chunks to send: the number of the token that completes each, and its message."""
    events: list[tuple[int, Message]] = [(i, {"content": "", "thinking": t}) for i, t in enumerate(plan.thinking)]
    start, last = len(plan.thinking), plan.tokens - 1
    if plan.calls:
        calls = [_call(call, i, rng) for i, call in enumerate(plan.calls)]
        if calls_in_pieces:
            pieces = list(_in_pieces(calls))
            early = last + 1 - len(pieces)
            events += [(max(start, early + i), {"content": "", "tool_calls": [p]}) for i, p in enumerate(pieces)]
        else:
            events.append((last, {"content": "", "tool_calls": calls}))
    elif plan.whole and plan.pieces and not calls_in_pieces:
        events.append((last, {"content": "".join(plan.pieces)}))
    else:
        events += [(start + i, {"content": piece}) for i, piece in enumerate(plan.pieces)]
    return events


def _with_half_held_back(events: list[tuple[int, Message]]) -> list[tuple[int, Message]]:
    """Return the chunks with the texts of the first half, which then come with the first of the others."""
    half = len(events) // 2
    if not half or any("tool_calls" in message for _, message in events):
        return events
    token, message = events[half]
    said = "".join(message["content"] for _, message in events[: half + 1])
    return [(token, {**message, "content": said}), *events[half + 1 :]]


def _call(call: Mapping[str, Any], index: int, rng: Random) -> dict[str, Any]:
    return {"index": index, "id": "call_" + "".join(rng.choices(_LETTERS, k=8)), **call}


def _in_pieces(calls: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield each call without arguments, then their text piece by piece."""
    for call in calls:
        yield {**call, "arguments": ""}
        for piece in split(arguments_text(call["arguments"])):
            yield {"index": call["index"], "id": call["id"], "arguments": piece}
