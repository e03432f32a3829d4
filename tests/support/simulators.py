"""What the tests of the simulated server share: models, requests, known answers."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from typing import Any

import httpx
import pytest

from loadgen.simulator import PROFILES, Simulator

FAST = PROFILES["sim:fast"]
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}, "born": {"format": "date"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
            "required": ["city"],
        },
    },
}
BOOK: dict[str, Any] = {
    "type": "function",
    "strict": True,
    "function": {
        "name": "book",
        "description": "Book a table — für zwei",
        "parameters": {
            "type": "object",
            "properties": {
                "when": {"type": "string", "format": "date-time"},
                "seats": {"type": "integer", "minimum": 1, "maximum": 12, "default": 2},
                "place": {"type": "object", "properties": {"city": {"type": "string", "minLength": 1}},
                          "required": ["city"]},
                "dishes": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1},
                "either": {"anyOf": [{"type": "null"}, {"type": "number"}]},
            },
            "required": ["when"],
            "additionalProperties": False,
        },
    },
}  # fmt: skip
"""Its schema has what the official client's own model of a tool does not know."""
CALL = {"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}
ANSWERS = {
    "Ada?": {"json": {"name": "Ada", "age": 36}},
    "Paris?": {"calls": [CALL]},
    "hello?": {"calls": []},
    "7?": {"text": "7"},
}
MODELS = {
    **PROFILES,
    "one": replace(FAST, load_s=0.1, parallel=1, max_queue=2, tokens_per_s=200.0, prompt_tokens_per_s=1000.0),
    "think": replace(FAST, capabilities=("completion", "tools", "thinking")),
    "plain": replace(FAST, capabilities=("completion",)),
    "drip": replace(FAST, drip_s=0.05),
    "later": replace(FAST, present=False),
}


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def body(model: str = "sim:fast", text: str = "hi", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": user(text), **more}


def post(sim: Simulator, sent: dict[str, Any], **headers: str) -> httpx.Response:
    return httpx.post(sim.url + "/api/chat", json=sent, headers=headers, timeout=20)


def connect(sim: Simulator) -> socket.socket:
    host, _, port = sim.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def wait_for(sim: Simulator, total: str, count: int) -> None:
    tick = threading.Event()
    for _ in range(4000):
        if sim.truth(summary=True)["totals"][total] >= count:
            return
        tick.wait(0.005)
    pytest.fail(f"{total} never reached {count}: {sim.truth(summary=True)}")
