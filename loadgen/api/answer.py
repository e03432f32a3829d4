"""A streamed answer of any API as it is received: chunks in, fields of a RequestRecord out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from loadgen.api.reading import MOST_NS, MOST_TOKENS, is_shallow
from loadgen.types import NOT_JSON, is_broken
from loadgen.wire.framing import BadWire

REFUSED = "refused"
"""The fact that the model refused to answer, in a field of its own."""
REASONS: Mapping[str, str] = {
    "eos": "stop", "eos_token": "stop", "stop_sequence": "stop", "end_turn": "stop", "complete": "stop",
    "max_tokens": "length", "max_output_tokens": "length", "max_length": "length", "token_limit": "length",
    "length_limit": "length", "max_new_tokens": "length", "model_length": "length", "eos_found": "stop",
    "context_length": "length", "model_context_window_exceeded": "length",
    "function_call": "tool_calls", "tool_call": "tool_calls", "tool_use": "tool_calls", "repetition": "repeat",
}  # fmt: skip
"""What some servers call the reason why an answer ended, in lower case -> what most call it."""
_BROKEN_OFF = ("abort", "aborted", "error", "server_error", "network_error", "failed", "cancelled", "canceled",
               "interrupted", "timeout", "time_limit", "shutdown", "connection closed",
               "insufficient_system_resource")  # fmt: skip
_ONLY_LOADED = ("load", "unload")
"""What Ollama says where it only loaded the model, or dropped it."""
TOGETHER_US = (1000, 300, 100)
APART_US = 3000
"""Chunks came together if at most so far apart, where what came together came further apart than that."""
MUCH_FURTHER, MOSTLY = 10, 1 / 3
"""Chunks that are further apart than the least of these came together only where what came together is so many times
further apart, and takes at most this share of the stream: else it is a fast stream that paused."""


def gathered(offsets_us: Sequence[int], merged: int) -> int:
    """Return how many chunks came together with the one before, from when each came after the request was sent.

    ``merged`` is how many of them this client read late, which says nothing about the server.
    """
    gaps_us = [later - earlier for earlier, later in pairwise(offsets_us)]
    for near_us in TOGETHER_US:
        together = [gap_us for gap_us in gaps_us if gap_us <= near_us]
        if not together:
            return 0
        bursts, span_us = len(offsets_us) - len(together), offsets_us[-1] - offsets_us[0]
        if near_us == TOGETHER_US[-1]:
            is_apart = (span_us / (bursts - 1) if bursts > 1 else offsets_us[0]) > APART_US
        else:
            is_apart = (
                bursts > 1 and span_us / (bursts - 1) > max(APART_US, MUCH_FURTHER * near_us)
                and sum(together) <= MOSTLY * span_us
            )  # fmt: skip
        if is_apart:
            return max(0, len(together) - merged)
    return 0


def told_alike(reason: Any) -> Any:
    """Return why an answer ended as most servers call it, in lower case; what is no text as it is."""
    if not isinstance(reason, str):
        return reason
    word = reason.lower()
    return REASONS.get(word, word)


def broke_off(reason: Any, said: bool) -> bool:
    """Return whether the server itself broke off an answer that ended so; ``said``: whether there was any of it."""
    word = told_alike(reason)
    return word in _BROKEN_OFF or (word in _ONLY_LOADED and not said)


class CallPiece(NamedTuple):
    """A tool call, or a piece of its arguments' text, which continues the call of the same key and id."""

    name: str | None
    arguments: Mapping[str, Any] | str
    key: int | None = None
    """The call's place in the answer; None: of the last call, unless there is a new id or name."""
    id: str | None = None
    goes_on: bool = False
    """It continues a call, and is of none that is kept if there is no such call: the server made that one itself."""


class Piece(NamedTuple):
    """The content of one chunk of an answer."""

    text: str = ""
    thinking: str = ""
    calls: Sequence[CallPiece] = ()
    done: bool = False
    """It is the server's last message, or the one that says why the answer ends."""
    facts: Mapping[str, Any] = {}
    """Fields of the RequestRecord that the server reports: ``done_reason``, counts and durations."""
    whole: bool = False
    """It repeats what came in pieces: of it, only what has not come is new."""


@dataclass(slots=True)
class Answer:
    """What has been received, and when; each of ``tool_calls`` is ``{"name": …, "arguments": {…}}``."""

    ends_once: bool = True
    """Whether a second last message is wrong; gateways over /v1 repeat it beside the usage."""
    chunk_ns: list[int] = field(default_factory=list)
    early_ns: list[int | None] = field(default_factory=list)
    first_thinking_ns: int | None = None
    first_answer_ns: int | None = None
    first_tool_call_ns: int | None = None
    last_ns: int | None = None
    merged: int = 0
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[CallPiece] = field(default_factory=list)
    done: bool = False
    overrun: bool = False
    """More of an answer came after its last message."""
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, piece: Piece, stamp_ns: int, early_ns: int | None = 0, late: bool = False) -> None:
        """Add a chunk received at ``stamp_ns`` or at most ``early_ns`` earlier (None: unknown).

        ``late``: it was read late, together with a later one, so that its own instant is lost.
        """
        text, thinking, calls, done, facts, whole = piece
        if whole:
            text, thinking = _rest_of(text, self.texts), _rest_of(thinking, self.thoughts)
            calls = () if done and self.calls else [new for call in calls if (new := self._new_of(call)) is not None]
        if calls and calls[0].goes_on:
            calls = [call for call in calls if self._place_of(call) is not None]
        says = bool(text or thinking or calls)
        if self.done and (says or (done and self.ends_once)):
            self.overrun = True
        if self.done and done and not (says or facts):  # it only says once more that this is the end
            return
        if says:
            if not (isinstance(text, str) and isinstance(thinking, str)):
                raise BadWire(f"the text of a chunk is not a text: {text or thinking!r:.100}")
            self.merged += late
            self.chunk_ns.append(stamp_ns)
            self.early_ns.append(early_ns)
            if text:
                self.texts.append(text)
                if self.first_answer_ns is None:
                    self.first_answer_ns = stamp_ns
            if thinking:
                self.thoughts.append(thinking)
                if self.first_thinking_ns is None:
                    self.first_thinking_ns = stamp_ns
            if calls:
                for call in calls:
                    self._add_call(call)
                if self.first_tool_call_ns is None:
                    self.first_tool_call_ns = stamp_ns
        self.last_ns = stamp_ns
        self.done = self.done or done
        if facts:  # a zero or a null does not take back what was told before
            self.facts |= {name: told for name, told in facts.items() if told or name not in self.facts}
            if "done_reason" in facts:
                self.facts["done_reason"] = told_alike(self.facts["done_reason"])

    def _place_of(self, call: CallPiece) -> int | None:
        """Return where the call is whose id or key the piece has; None if there is none."""
        known = [i for i, begun in enumerate(self.calls) if call.id and begun.id == call.id]
        same = known or [i for i, begun in enumerate(self.calls) if call.key is None or begun.key == call.key]
        return same[-1] if same else None

    def _new_of(self, call: CallPiece) -> CallPiece | None:
        """Return what a whole call brings that its pieces did not; None if there is nothing."""
        place = self._place_of(call)
        if place is None:
            return call
        begun = self.calls[place]
        name, arguments = None if begun.name else call.name, "" if begun.arguments else call.arguments
        return call._replace(name=name, arguments=arguments) if name or arguments else None

    def _add_call(self, call: CallPiece) -> None:
        place = self._place_of(call)
        if place is None or _begins_another(call, self.calls[place]):
            self.calls.append(call)
        else:
            begun = self.calls[place]
            arguments = _joined(begun.arguments, call.arguments)
            name = f"{begun.name or ''}{call.name}" if call.name and call.name != begun.name else begun.name
            self.calls[place] = begun._replace(name=name, arguments=arguments)

    def drop_impossible(self) -> str | None:
        """Drop counts, durations and reasons that cannot be, which no database could hold; name the first of them.

        A prompt of no tokens, and an answer of none that has a text, were not counted.
        """
        for name, counted in (("prompt_tokens", True), ("output_tokens", bool(self.chunk_ns))):
            if counted and self.facts.get(name) == 0:
                del self.facts[name]
        whole = {k: int(v) for k, v in self.facts.items() if isinstance(v, float) and v.is_integer()}  # as 7.0
        self.facts |= whole
        impossible = [name for name, value in self.facts.items() if value is not None and not _is_possible(name, value)]
        told = [f"{name} is {self.facts.pop(name)}" for name in impossible]
        return told[0] if told else None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def thinking(self) -> str:
        return "".join(self.thoughts)

    @property
    def tool_calls(self) -> tuple[Mapping[str, Any], ...]:
        return tuple({"name": _name(call), "arguments": _arguments(call.arguments)} for call in self.calls)

    def _early(self) -> tuple[int, ...] | None:
        """Return by how much each chunk may have come earlier: empty if none may, None if unknown."""
        known = [early_ns for early_ns in self.early_ns if early_ns is not None]
        if len(known) < len(self.early_ns):
            return None
        return tuple(known) if any(known) else ()

    def fields(self, sent_ns: int | None = None) -> dict[str, Any]:
        """Return the fields of a RequestRecord that come from the answer."""
        offsets_us = [] if sent_ns is None else [(chunk_ns - sent_ns) // 1000 for chunk_ns in self.chunk_ns]
        return {
            "gathered_chunks": gathered(offsets_us, self.merged),
            "chunk_ns": tuple(self.chunk_ns), "chunk_early_ns": self._early(),
            "first_thinking_ns": self.first_thinking_ns, "first_answer_ns": self.first_answer_ns,
            "first_tool_call_ns": self.first_tool_call_ns,
            "merged_chunks": self.merged, "output_text": self.text, "thinking_text": self.thinking,
            "tool_calls": self.tool_calls, **_reason_told(self.facts),
        }  # fmt: skip


def _rest_of(whole: str, pieces: Sequence[str]) -> str:
    """Return what a whole text brings that its pieces did not: its end, if they are its beginning."""
    had = "".join(pieces)
    return whole[len(had) :] if whole.startswith(had) else ""


def _reason_told(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts with a refusal as the reason why the answer ended, where the server only says "stop"."""
    told = {name: value for name, value in facts.items() if name != REFUSED}
    refused = len(told) < len(facts) and told.get("done_reason") == "stop"
    return {**told, "done_reason": "refusal"} if refused else told


def _is_possible(name: str, value: Any) -> bool:
    if name == "done_reason":
        return isinstance(value, str)
    if name in (REFUSED, "thinking_partial", "answered_by", "fingerprint"):
        return True
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return is_whole and 0 <= value < (MOST_TOKENS if "tokens" in name else MOST_NS)


def _begins_another(call: CallPiece, begun: CallPiece) -> bool:
    """Return whether the piece begins a call of its own.

    Some servers repeat a call's id or name in each piece, some give each piece a new id, or all calls the same one.
    """
    if not call.name:
        return False
    if call.id and begun.id and call.id != begun.id:
        return True
    if not begun.name or call.name != begun.name:
        return bool(begun.name) and not _goes_on(call, begun)
    if call.id and call.id == begun.id and call.key == begun.key:
        return False
    return _is_whole(begun) or (call.key != begun.key and call.arguments == "")


def _goes_on(call: CallPiece, begun: CallPiece) -> bool:
    """Return whether the name is a piece of the name of a call at the same place, which has no arguments yet."""
    return call.key is not None and call.key == begun.key and begun.arguments == "" and not _is_whole(call)


def _joined(before: Mapping[str, Any] | str, more: Mapping[str, Any] | str) -> Mapping[str, Any] | str:
    """Return the arguments with another piece of them; what is whole already, they begin anew."""
    if not more or not before:
        return more or before
    if not (isinstance(before, str) and isinstance(more, str)):
        return more
    again = before.endswith("}") and more.startswith("{") and _is_whole(CallPiece(None, before))
    return more if again else before + more


def _name(call: CallPiece) -> str:
    return call.name if isinstance(call.name, str) else ""


def _is_whole(call: CallPiece) -> bool:
    return call.arguments != "" and not is_broken({"arguments": _arguments(call.arguments)})


def _arguments(arguments: Mapping[str, Any] | str) -> Any:
    """Parse the arguments; a text that is not JSON is kept as it is, for it is the model's.

    Neither is one with a name twice in an object, a number that no double holds, or nested deeper than what is stored.
    """
    if not isinstance(arguments, str):  # the official client has read them, by Python's rules
        try:
            text = json.dumps(arguments, default=dict)
        except RecursionError:
            return {NOT_JSON: "(nested too deeply to be kept)"}
        return arguments if arguments == _arguments(text) else {NOT_JSON: text}
    if not arguments:  # some servers' form of a call without arguments
        return {}
    try:
        value = _STRICT.decode(arguments)
    except (ValueError, RecursionError):
        return {NOT_JSON: arguments}
    may_be_deep = arguments.count("[") + arguments.count("{") > _DEEPEST
    return {NOT_JSON: arguments} if may_be_deep and not is_shallow(value, _DEEPEST + 1) else value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a name stands twice in an object")
    return members


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise ValueError(f"{text} is beyond the range of a double")
    return number


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_DEEPEST = 97
"""Levels of arguments; with the list of calls, and the call, that is what a results file gives back."""
_DIGITS = 300
"""Digits of a whole number, which a double can hold."""
_STRICT = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_finite, parse_int=_whole, parse_constant=_no_constant
)
