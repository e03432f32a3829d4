"""Generating one answer: load, wait for a slot, evaluate the prompt, then send token after token on schedule.

Invariant: token ``i`` is due at ``first + (i + jitter) * gap``, counted from the start, so that a late token delays no
other; reported durations are what really passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import Random
from time import monotonic_ns
from typing import Any, Literal

from loadgen.simulator.answers import Plan, prompt_pieces
from loadgen.simulator.connection import JSON, NDJSON, ClientConnection, encode, timestamp
from loadgen.simulator.models import Model, seconds_of
from loadgen.simulator.truth import Entry, Truth

Endpoint = Literal["chat", "generate"]
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
GATHERED = 10
"""Lines that the fault ``gathered`` sends at a time."""
_REPEATS = 31
_HUGE = 32 * 1024 * 1024
_LOST = "an error was encountered while running the model: unexpected EOF"


class Generation:
    """The answer to one request; the client may go away at any moment."""

    def __init__(self, connection: ClientConnection, model: Model, body: Mapping[str, Any], plan: Plan, entry: Entry,
                 truth: Truth, *, endpoint: Endpoint, fault: str | None, rng: Random, old: bool) -> None:  # fmt: skip
        self.connection, self.model, self.plan, self.entry, self.truth = connection, model, plan, entry, truth
        self.name = body["model"]
        self.streamed = body.get("stream") is not False
        self.keep_alive_s = seconds_of(body.get("keep_alive"))
        self.endpoint, self.fault, self.old = endpoint, fault, old
        self.rng = rng
        self.loop = asyncio.get_running_loop()
        self.events = _events(plan, endpoint, rng, old)
        if fault == "held-back":
            self.events = _with_half_held_back(self.events, "content" if endpoint == "chat" else "response")
        self.gathered: list[bytes] = []
        """Lines that wait for others to be sent with."""
        twice = body.get("format") and not old and (plan.pieces or plan.done_reason == "stop")
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
        if self.fault == "empty-first" and self.streamed:
            self._write(self._message(""))
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

    def _line(self, message: Any) -> dict[str, Any]:
        fields = {"message": {"role": "assistant", **message}} if self.endpoint == "chat" else message
        return {"model": self.name, "created_at": timestamp(), **fields}

    def _write(self, message: Any) -> None:
        self._write_line(encode({**self._line(message), "done": False}))
        if any(message.values()) and not self.gathered:
            self.entry.last_ns = self.written_ns
            if self.entry.first_ns is None:
                self.entry.first_ns = self.written_ns

    def _write_line(self, line: bytes, last: bool = False) -> None:
        line += b"\n"
        half = len(line) // 2
        parts = [line[:half], line[half:]] if self.fault == "split-line" else [line]
        if self.fault == "gathered":
            self.gathered += parts
            if len(self.gathered) < GATHERED and not last:
                return
            parts, self.gathered = self.gathered, []
        self.written_ns = monotonic_ns()
        self.connection.send_chunks(NDJSON, parts, last)

    def _finish(self) -> None:
        now = self.loop.time()
        entry = self.entry
        entry.tokens = self._eval_count() - self.counted_from
        begun = self.first + self.counted_from * self.gap + self._second_pass_s()
        entry.eval_ns = max(1000, int((now - begun) * 1e9))
        if self.counted_from:
            entry.prompt_tokens += self.counted_from
            entry.prompt_eval_ns = int(self._second_pass_s() * 1e9)
        last = self._line(self._message("") if self.streamed else self._whole()) | self._ending(now)
        if self.streamed:
            self._write_line(encode(last), last=True)
        else:
            self.written_ns = monotonic_ns()
            if not self._strike_whole(last):
                self.connection.respond_json(last)
            entry.first_ns = entry.last_ns = self.written_ns
        if self.fault == "gathered" and entry.chunks:  # the last of them came with this line
            entry.first_ns, entry.last_ns = entry.first_ns or self.written_ns, self.written_ns
        entry.done_ns = self.written_ns
        broken = not self.streamed and self.fault in _BREAKING
        self._end("faulted" if broken else "completed")

    def _ending(self, now: float) -> dict[str, Any]:
        """Return the last message's fields without zeros, like Go's ``omitempty``."""
        entry = self.entry
        reason = {} if self.fault == "no-done-reason" else {"done_reason": self.plan.done_reason}
        done = {**reason, "done": True} if self.old and self.endpoint == "chat" else {"done": True, **reason}
        figures = {"total_duration": int((now - self.start) * 1e9), "load_duration": entry.load_ns,
                   "prompt_eval_count": entry.prompt_tokens, "prompt_eval_duration": entry.prompt_eval_ns,
                   "eval_count": entry.tokens, "eval_duration": entry.eval_ns}  # fmt: skip
        if self.old:  # whole milliseconds, in the names of nanoseconds
            figures |= {k: v // 1_000_000 * 1_000_000 for k, v in figures.items() if k.endswith("eval_duration")}
        if self.fault == "no-counts":
            figures = {name: value for name, value in figures.items() if not name.endswith("_count")}
        told = {"prompt_eval_cached_count": self.cached} if self.model.profile.prefix_cache == "told" else {}
        context = {"context": list(range(1, entry.prompt_tokens + entry.tokens))} if self.endpoint == "generate" else {}
        return {**done, **context, **{name: value for name, value in figures.items() if value}, **told}

    def _message(self, text: str) -> dict[str, Any]:
        return {"content": text} if self.endpoint == "chat" else {"response": text}

    def _whole(self) -> Any:
        """Return the message of an answer that is not streamed."""
        text, thinking = "".join(self.plan.pieces), "".join(self.plan.thinking)
        thought = {"thinking": thinking} if thinking else {}
        calls = next(({"tool_calls": m["tool_calls"]} for _, m in self.events if "tool_calls" in m), {})
        return {**self._message(text), **thought, **calls}

    def _strike(self) -> bool:
        """Let the fault strike, if there is one; return True if nothing more will be sent."""
        match self.fault:
            case "reset":
                self.connection.reset()
            case "close":
                self.connection.close()
            case "cut":
                self.connection.send_chunks(NDJSON, (), last=True)
            case "repeat-guard":
                for _ in range(_REPEATS):
                    self._write(self._message("\n"))
                self.connection.send_chunks(NDJSON, (), last=True)
            case "error-line":
                self._write_line(encode({"error": _LOST}), last=True)
            case "hang-mid":
                return True
            case _:
                self._odd_line()
                return False
        self._end("faulted")
        return True

    def _odd_line(self) -> None:
        odd = {"garbage": b"this line is not JSON {", "invalid-utf8": self._marked(b"\xff\xfe\xc3("),
               "huge-line": self._marked(b"x" * _HUGE if self.fault == "huge-line" else b"")}  # fmt: skip
        if self.fault in odd:
            self.fault_at = -1
            self._write_line(odd[self.fault])

    def _marked(self, text: bytes) -> bytes:
        """Return an ordinary line whose text is these bytes."""
        return encode({**self._line(self._message("@@")), "done": False}).replace(b"@@", text)

    def _strike_whole(self, last: Mapping[str, Any]) -> bool:
        """Let the fault strike in an answer that is not streamed; return True if nothing is left to send."""
        match self.fault:
            case "reset":
                self.connection.reset()
            case "close" | "cut":
                self.connection.send_short(encode(last))
            case "repeat-guard":
                text = "".join(self.plan.pieces[: self.fault_at]) + "\n" * _REPEATS
                self.connection.respond_json({**self._line(self._message(text)), "done": False})
            case "hang-mid":
                pass
            case "error-line":
                self.connection.respond_json({"error": _LOST}, 500)
            case "garbage":
                self.connection.respond(200, JSON, b"this is not JSON {")
            case "invalid-utf8":
                self.connection.respond(200, JSON, self._marked(b"\xff\xfe\xc3("))
            case "huge-line":
                self.connection.respond(200, JSON, self._marked(b"x" * _HUGE))
            case _:
                return False
        return True

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


_BREAKING = frozenset({"reset", "close", "cut", "repeat-guard", "hang-mid", "error-line"})


def _events(plan: Plan, endpoint: Endpoint, rng: Random, old: bool) -> list[tuple[int, Any]]:
    """Return the chunks to send: the number of the token that completes each, and its message."""
    text = "content" if endpoint == "chat" else "response"
    events: list[tuple[int, Any]] = [(i, {text: "", "thinking": t}) for i, t in enumerate(plan.thinking)]
    last = plan.tokens - 1
    if plan.calls and endpoint == "chat":
        events.append((last, {"content": "", "tool_calls": [_call(c, i, rng, old) for i, c in enumerate(plan.calls)]}))
    elif plan.whole and plan.pieces:
        events.append((last, {text: "".join(plan.pieces)}))
    else:
        start = len(plan.thinking)
        events += [(start + i, {text: piece}) for i, piece in enumerate(plan.pieces)]
    return events


def _with_half_held_back(events: list[tuple[int, Any]], text: str) -> list[tuple[int, Any]]:
    """Return the chunks with the texts of the first half, which then come with the first of the others."""
    half = len(events) // 2
    if not half or any(text not in message or "tool_calls" in message for _, message in events):
        return events
    token, message = events[half]
    said = "".join(message[text] for _, message in events[: half + 1])
    return [(token, {**message, text: said}), *events[half + 1 :]]


def _call(call: Mapping[str, Any], index: int, rng: Random, old: bool) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": call["arguments"]}
    if old:
        return {"function": function}
    return {"id": "call_" + "".join(rng.choices(_LETTERS, k=8)), "function": {"index": index, **function}}
