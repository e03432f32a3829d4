"""Simulated models: their profiles, the faults on demand, and the state of each: loaded or not, its slots and queue."""

from __future__ import annotations

import hashlib
import math
import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from operator import eq
from types import MappingProxyType
from typing import Any, Literal

from loadgen.api.ollama_server import LOADING_OPTIONS

KnownAnswer = Mapping[str, Any]
"""The right answer to a prompt: ``{"json": value}``, ``{"calls": [{"name", "arguments"}]}`` (``then``: the text after
their results) or ``{"text": "…"}``."""

JSON_KINDS = frozenset({"correct", "wrong_value", "schema_violation", "invalid_json", "truncated", "fenced", "prose",
                        "think_tags", "no_output"})  # fmt: skip
TOOL_KINDS = frozenset({"correct", "no_call", "wrong_function", "missing_argument", "unexpected_argument",
                        "schema_violation", "wrong_value", "wrong_count", "unwanted_call", "truncated", "no_output",
                        })  # fmt: skip
TEXT_KINDS = frozenset({"correct", "wrong_value", "no_output"})

EARLY_FAULTS = frozenset({
    "refuse", "hang-before", "404", "429", "500", "503", "broken-call", "repeat-error", "wrong-content-type",
    "empty-body",
})  # fmt: skip
"""Faults that strike before the first byte of the answer; the others strike in the answer."""
FAULTS: Mapping[str, str] = MappingProxyType({
    "refuse": "the connection is reset as soon as the request was read",
    "hang-before": "never answers",
    "404": "status 404, as for an unknown model",
    "429": "status 429",
    "500": "status 500",
    "503": "status 503, as with a full queue",
    "broken-call": "status 500: the model's tool call cannot be parsed",
    "repeat-error": "status 500: the model repeats one token without end",
    "wrong-content-type": "status 200 with an HTML page",
    "empty-body": "status 200 and no body",
    "reset": "the connection is reset (TCP RST) halfway through the answer",
    "close": "the connection is closed (TCP FIN) halfway, within the chunked body",
    "cut": "the answer ends properly halfway, without a done message",
    "repeat-guard": "halfway one token over and over, then the answer ends properly, without a done message",
    "hang-mid": "falls silent halfway and keeps the connection open",
    "slow-drip": "one token every `drip_s` seconds",
    "garbage": "a line that is not JSON halfway, then the rest",
    "huge-line": "a line of 32 MB halfway, then the rest",
    "invalid-utf8": "a line with bytes that are not UTF-8 halfway, then the rest",
    "error-line": "an error line halfway, and the end",
    "empty-first": "an empty chunk before the prompt was evaluated (under /v1 the role alone), then the answer",
    "split-line": "every line in two HTTP chunks",
    "no-done-reason": "the last message has no done_reason",
    "no-counts": "the last message has no token counts",
    "held-back": "the first half of the tokens comes with the chunk after it, as from a parser that waits",
    "gathered": "chunks are sent ten at a time, as by a gateway",
    "close-after": "the connection is closed after a stream although the head announced that it is kept",
    "schema-ignored": "the schema and the choice of a tool are ignored with status 200",
    "max-tokens-refused": "/v1/chat/completions: status 400 for `max_tokens`, as OpenAI's models that think answer",
    "pings": "under /v1, comments or `ping` events before the first piece and after each",
    "error-event": "under /v1, the other form of an error halfway: `event: error`, `response.failed`, overloaded",
    "no-done": "under /v1, the stream lacks its end, `[DONE]` or `message_stop`",
    "usage-running": "/v1/chat/completions and /v1/completions: every piece has the counts so far",
    "usage-null": "/v1/chat/completions: every piece has `usage: null`, as OpenAI's own have",
    "error-flat": "/v1/chat/completions: an error halfway without `error`, `{\"object\": \"error\"}`, as vLLM's",
    "reason-empty": "/v1/chat/completions: every piece has an empty `finish_reason`",
    "text-parts": "/v1/chat/completions: text comes as a list of parts",
    "calls-split": "under /v1, the arguments of calls come token by token, as from most servers",
    "calls-whole": "under /v1, calls come whole, as from Ollama",
    "calls-unindexed": "/v1/chat/completions: calls have no index",
    "calls-same-id": "/v1/chat/completions: every piece of a call repeats its id",
    "calls-same-index": "/v1/chat/completions: calls come whole, all with index 0",
    "reasoning-content": "/v1/chat/completions: thinking is `reasoning_content`, as from llama.cpp",
    "reasoning-both": "/v1/chat/completions: thinking is in `reasoning` and `reasoning_content`",
})  # fmt: skip

Shares = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One simulated model; shares say how often it gives each kind of answer, the rest is ``correct``."""

    load_s: float = 0.3
    prompt_tokens_per_s: float = 4000.0
    tokens_per_s: float = 100.0
    """Speed of one stream, however many there are."""
    jitter: float = 0.3
    """A token after the first is late by up to this share of the gap between tokens; below 1."""
    parallel: int = 4
    """Requests answered at the same time (OLLAMA_NUM_PARALLEL); the others queue."""
    max_queue: int = 512
    """Requests that may wait (OLLAMA_MAX_QUEUE); one more gets status 503."""
    capabilities: tuple[str, ...] = ("completion", "tools")
    """Any of completion, tools, thinking, embedding."""
    size: int = 1_300_000_000
    vram_share: float = 1.0
    digest: str | None = None
    """None: the SHA-256 of the name."""
    context_length: int = 8192
    embedding_length: int = 64
    family: str = "llama"
    parameter_size: str = "1.2B"
    quantization_level: str = "Q4_K_M"
    present: bool = True
    """Whether the model is installed; if not, 404 until it is pulled."""
    prefix_cache: Literal["none", "told", "untold"] = "none"
    """Whether what a prompt shares with the beginning of an earlier one is evaluated at no cost, and the server says so
    (``prompt_eval_cached_count``)."""
    reloads: bool = False
    """Whether a request with other loading options (``num_ctx``, …) than the loaded model's loads it again."""
    slow_requests: tuple[int, int] | None = None
    """The first request that is slow and the first that no longer is, numbered from 0 in the order they got a slot."""
    slow_factor: float = 1.3
    service_s: float | None = None
    """Seconds that every request holds its slot, whatever its lengths (an M/D/n queue); None: as the speeds make it."""
    text_tokens: tuple[int, int] = (60, 200)
    """Range of the length of a text answer if the request has no ``num_predict``."""
    drip_s: float = 1.0
    json_shares: Shares = field(default_factory=dict)
    """Kinds of answers to requests with ``format``."""
    prompt_shares: Shares = field(default_factory=dict)
    """Kinds of JSON answers to requests without ``format`` (the server must know the right answer)."""
    tool_shares: Shares = field(default_factory=dict)
    text_shares: Shares = field(default_factory=dict)
    """Kinds of text answers that the server knows; any other text is just words."""

    def __post_init__(self) -> None:
        for shares, kinds in ((self.json_shares, JSON_KINDS), (self.prompt_shares, JSON_KINDS),
                              (self.tool_shares, TOOL_KINDS), (self.text_shares, TEXT_KINDS)):  # fmt: skip
            if unknown := sorted(set(shares) - kinds):
                raise ValueError(f"unknown kind of answer {unknown[0]!r}; known: {', '.join(sorted(kinds))}")
            if min(shares.values(), default=0.0) < 0 or sum(shares.values()) > 1 + 1e-9:
                raise ValueError(f"shares must be 0 or more and add up to at most 1: {dict(shares)}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be in [0, 1): {self.jitter}")
        if self.parallel < 1 or self.tokens_per_s <= 0 or self.prompt_tokens_per_s <= 0:
            raise ValueError("parallel, tokens_per_s and prompt_tokens_per_s must be positive")


FAST = Profile(
    load_s=0.0, prompt_tokens_per_s=1e6, tokens_per_s=5000.0, jitter=0.0, parallel=256, max_queue=4096,
    size=1_000_000, parameter_size="1M", quantization_level="F16", context_length=131_072,
)  # fmt: skip

_FAST_THINKING = replace(FAST, capabilities=("completion", "tools", "thinking"))

PROFILES: Mapping[str, Profile] = MappingProxyType({
    "gemma3n": Profile(
        load_s=0.5, prompt_tokens_per_s=3000, tokens_per_s=140, parallel=2, capabilities=("completion",),
        size=7_547_589_116, context_length=32_768, family="gemma3n", parameter_size="6.9B",
        json_shares={"wrong_value": 0.04, "schema_violation": 0.02, "truncated": 0.02},
        prompt_shares={"fenced": 0.7, "prose": 0.1, "wrong_value": 0.04, "schema_violation": 0.04},
        text_shares={"wrong_value": 0.05},
    ),
    "smollm2:360m": Profile(
        load_s=0.2, prompt_tokens_per_s=12_000, tokens_per_s=250, parallel=4, size=725_566_512,
        parameter_size="361.82M", quantization_level="F16",
        json_shares={"wrong_value": 0.2, "schema_violation": 0.12, "invalid_json": 0.08, "truncated": 0.05},
        prompt_shares={"fenced": 0.2, "prose": 0.2, "wrong_value": 0.2, "schema_violation": 0.15, "invalid_json": 0.15},
        tool_shares={"no_call": 0.15, "wrong_function": 0.08, "missing_argument": 0.1, "wrong_value": 0.12,
                     "schema_violation": 0.05, "wrong_count": 0.05, "unwanted_call": 0.05},
        text_shares={"wrong_value": 0.4},
    ),
    "llama3.2:1b": Profile(
        load_s=0.3, prompt_tokens_per_s=6000, tokens_per_s=200, parallel=4, size=1_321_098_329,
        context_length=131_072, quantization_level="Q8_0",
        json_shares={"wrong_value": 0.1, "schema_violation": 0.05, "truncated": 0.03},
        prompt_shares={"fenced": 0.5, "prose": 0.2, "wrong_value": 0.1, "schema_violation": 0.05, "invalid_json": 0.03},
        tool_shares={"no_call": 0.05, "wrong_function": 0.04, "missing_argument": 0.04, "unexpected_argument": 0.04,
                     "wrong_value": 0.08, "unwanted_call": 0.05},
        text_shares={"wrong_value": 0.15},
    ),
    "sim:fast": FAST,
    "sim:think": Profile(tokens_per_s=200, load_s=0.2, capabilities=("completion", "tools", "thinking")),
    "sim:cache": Profile(load_s=0.0, prompt_tokens_per_s=2000, tokens_per_s=500, jitter=0.1, prefix_cache="told"),
    "sim:reload": Profile(load_s=0.3, prompt_tokens_per_s=20_000, tokens_per_s=500, jitter=0.1, reloads=True),
    "sim:heat": Profile(
        load_s=0.0, prompt_tokens_per_s=20_000, tokens_per_s=500, jitter=0.1, slow_requests=(60, 10**9)
    ),
    "sim:queue": Profile(load_s=0.0, service_s=0.1, jitter=0.0),
    "sim:embed": Profile(tokens_per_s=200, load_s=0.2, capabilities=("embedding",)),
})  # fmt: skip


def parse_fault(name: str) -> tuple[str, float] | None:
    """Return the fault and the share of requests it strikes from ``reset`` or ``reset@0.2``; None if unknown."""
    fault, at, share = name.partition("@")
    if fault not in FAULTS:
        return None
    try:
        return fault, float(share) if at else 1.0
    except ValueError:
        return None


def profile_of_fault(fault: str) -> Profile:
    """Return the profile of the model that is named after the fault."""
    return _FAST_THINKING if fault.startswith("reasoning") else FAST


def fault_of_model(name: str) -> tuple[str, float] | None:
    """Return the fault in a model's name such as ``fault:reset@0.2``."""
    return parse_fault(name[6:]) if name.startswith("fault:") else None


KEEP_ALIVE_S = 300.0
_KEPT_PROMPTS = 64
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


class Model:
    """One model of the server; instants are the event loop's seconds."""

    def __init__(self, name: str, profile: Profile) -> None:
        self.name = name
        self.profile = profile
        by_name = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()
        self.digest = by_name if profile.digest is None else profile.digest
        self.context = min(profile.context_length, 4096)
        self.taken = 0
        self.waiting: deque[Callable[[], None]] = deque()
        self.served = 0
        """Requests that got a slot."""
        self.prompts: deque[tuple[str, ...]] = deque(maxlen=_KEPT_PROMPTS)
        """The pieces of the last prompts, which the prefix cache holds."""
        self.loaded_with: Mapping[str, Any] = {}
        self.users = 0
        """Requests admitted and not yet ended."""
        self._ready_at: float | None = None
        self._expires_at = math.inf

    def full(self) -> bool:
        """Return whether the queue has no room for another request."""
        return self.users >= self.profile.parallel + self.profile.max_queue

    def loaded(self, now: float) -> bool:
        """Return whether the model is loaded or being loaded."""
        if self._ready_at is not None and not self.users and now >= self._expires_at:
            self._ready_at = None
        return self._ready_at is not None

    def load(self, now: float, options: Mapping[str, Any] = MappingProxyType({})) -> float:
        """Load the model if it is not loaded (with these options), and return the seconds until it is."""
        wanted = {name: value for name, value in options.items() if name in LOADING_OPTIONS}
        if not self.loaded(now) or (self.profile.reloads and wanted != self.loaded_with):
            self.loaded_with = wanted
            self._ready_at = now + self.profile.load_s
            self._expires_at = self._ready_at + KEEP_ALIVE_S
        assert self._ready_at is not None
        return max(0.0, self._ready_at - now)

    def cached(self, prompt: tuple[str, ...]) -> int:
        """Return how many pieces of the prompt are in the prefix cache, and keep it; the last is always evaluated."""
        if self.profile.prefix_cache == "none":
            return 0
        most = max((_shared(prompt, kept) for kept in self.prompts), default=0)
        self.prompts.append(prompt)
        return min(most, len(prompt) - 1)

    def slowness(self) -> float:
        """Count one more request, and return how many times as long as usual it takes."""
        slow = self.profile.slow_requests
        self.served += 1
        return self.profile.slow_factor if slow is not None and slow[0] < self.served <= slow[1] else 1.0

    def expires_in(self, now: float) -> float:
        """Return the seconds until the model is unloaded, at most a hundred years."""
        return min(self._expires_at - now, 100 * 365.25 * 86400)

    def keep(self, seconds: float, now: float) -> None:
        """Keep the model loaded for this long, or until the requests in flight are done."""
        self._expires_at = now + seconds

    def take(self, start: Callable[[], None]) -> None:
        """Call ``start`` as soon as a slot is free, perhaps at once."""
        if self.taken < self.profile.parallel:
            self.taken += 1
            start()
        else:
            self.waiting.append(start)

    def release(self) -> None:
        """Free a slot: pass it to the next in the queue, if there is one."""
        if self.waiting:
            self.waiting.popleft()()
        else:
            self.taken -= 1


def _shared(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many pieces two prompts begin with alike."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))


def seconds_of(keep_alive: Any) -> float | None:
    """Return Ollama's ``keep_alive`` in seconds (infinity if negative), or None if it is not a duration."""
    if keep_alive is None:
        return KEEP_ALIVE_S
    if isinstance(keep_alive, (int, float)):
        return math.inf if keep_alive < 0 else float(keep_alive)
    text = str(keep_alive)
    if text.lstrip("-") in ("0", ""):
        return 0.0 if text else None
    found = _DURATION.findall(text)
    if "".join(number + unit for number, unit in found) != text.lstrip("-"):
        return None
    return math.inf if text.startswith("-") else sum(float(number) * _UNITS[unit] for number, unit in found)
