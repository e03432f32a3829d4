"""End to end: servers that count, gather, repeat and fail as real ones do, and what a run says of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from structbench.options import LoadOptions
from structbench.run.runner import Summary
from tests.support.loads import ask, load
from tests.support.scripted_server import Peer, Scripted

pytestmark = pytest.mark.slow

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather", "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}  # fmt: skip
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
SUITES: Mapping[str, Mapping[str, Any]] = {
    "free": {"messages": [{"role": "user", "content": "Tell me something about the sea."}]},
    "schema": {"messages": [{"role": "user", "content": "Name a person."}], "schema": PERSON},
    "calls": {
        "messages": [{"role": "user", "content": "What is the weather in Oslo?"}], "tools": [WEATHER],
        "expected_calls": [{"name": "weather", "arguments": {"city": ["Oslo"]}}],
    },
}  # fmt: skip
BROKEN = 'error parsing tool call: raw=\'{{"city": "{}"\', err=unexpected end of JSON input'

Answer = Callable[[Peer, int], None]
"""Answers the request of that number."""


def line(**fields: Any) -> bytes:
    return json.dumps(fields).encode() + b"\n"


def text(content: str) -> bytes:
    return line(message={"role": "assistant", "content": content}, done=False)


def thought(content: str) -> bytes:
    return line(message={"role": "assistant", "content": "", "thinking": content}, done=False)


def done(reason: str = "stop", **facts: Any) -> bytes:
    return line(message={"role": "assistant", "content": ""}, done=True, done_reason=reason, **facts)


def every(pause_s: float, chunks: list[bytes], peer: Peer) -> None:
    for chunk in chunks:
        peer.chunk(chunk)
        sleep(pause_s)


def two_passes(peer: Peer, _number: int) -> None:
    """A thinking model with a format: asked twice, and counted once."""
    peer.head()
    every(0.01, [thought("t")] * 40, peer)
    sleep(0.03)
    every(0.01, [text("x")] * 8, peer)
    facts = {"load_duration": 5_000_000, "prompt_eval_count": 160, "prompt_eval_duration": 20_000_000}
    peer.chunk(done(**facts, eval_count=9, eval_duration=80_000_000))
    peer.chunk()


def held_back(peer: Peer, _number: int) -> None:
    """A parser that lets the first tokens out late."""
    peer.head()
    sleep(0.6)
    every(0.01, [text("some ")] * 20, peer)
    peer.chunk(done(eval_count=80, eval_duration=800_000_000))
    peer.chunk()


def gathered(peer: Peer, number: int) -> None:
    """A gateway that gathers ten chunks, or nearly all of them."""
    peer.head()
    if number % 2:
        for _ in range(4):
            sleep(0.1)
            peer.chunk(text("x") * 10)
        peer.chunk(done(eval_count=40, eval_duration=400_000_000))
    else:
        sleep(0.4)
        peer.chunk(text("x") * 40)
        sleep(0.05)
        peer.chunk(text("x") * 5 + done(eval_count=45, eval_duration=450_000_000))
    peer.chunk()


def counts_now_and_then(peer: Peer, number: int) -> None:
    counted = {"eval_count": 13, "eval_duration": 120_000_000} if number % 2 else {}
    peer.answer(*[text("x")] * 12, done(**counted))


def breaks_calls(peer: Peer, number: int) -> None:
    if number % 10 < 3:
        return peer.plain(500, json.dumps({"error": BROKEN.format("Oslo")}).encode())
    call = {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    return peer.answer(line(message={"role": "assistant", "content": "", "tool_calls": [call]}, done=False), done())


def quotes_the_model(peer: Peer, number: int) -> None:
    quoted = "best tools" if number % 2 else "best hammers"
    peer.plain(500, json.dumps({"error": BROKEN.format(quoted)}).encode())


def repeats_itself(peer: Peer, number: int) -> None:
    """The server's repeat guard: a clean end without a done line, or an error by that name."""
    match number % 4:
        case 0:
            peer.answer(text('{"name":'), *[text("\n")] * 31)
        case 2:
            peer.plain(500, b'{"error": "token repeat limit reached"}')
        case _:
            peer.answer(text('{"name": "Ada"}'), done())


def does_not_load(peer: Peer, _number: int) -> None:
    peer.plain(500, b'{"error": "unsupported model format gguf v9"}')


def thinks_too_long(peer: Peer, _number: int) -> None:
    peer.answer(*[thought("t")] * 200, done("length", eval_count=200))


def measured(answer: Answer, suite: str, folder: Path, **options: Any) -> tuple[Summary, dict[str, Any]]:
    """Load a server that answers so; return the summary and its only row."""
    numbers = iter(range(10_000))

    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            path = asked.head.split()[1]
            if path == "/api/version":
                peer.plain(200, b'{"version": "0.9.9"}')
            elif path == "/api/tags":
                peer.plain(200, b'{"models": [{"name": "odd:latest", "digest": "d"}]}')
            elif path == "/api/chat":
                answer(peer, next(numbers))
            else:
                peer.plain(200, b'{"models": [], "response": "", "done": true}')

    path = folder / f"{suite}.jsonl"
    path.write_text(json.dumps({"id": "a", **SUITES[suite]}) + "\n")
    with Scripted(script) as server:
        summary = load(LoadOptions(
            models=["odd"], suites=[str(path)], host=[server.url], db=folder / "results.duckdb", metrics_port=0,
            warmup=0, workers=1, **{"requests": 10, **options},
        ))  # fmt: skip
    (row,) = summary.rows
    return summary, row


def columns(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    return ask(folder / "results.duckdb", sql)


def notes(folder: Path) -> set[str]:
    """Kinds of the notes, without those on the machine that the tests run on."""
    machine = {"processor_pressure", "machine_lost_segments", "lost_segments", "listen_drops"}
    return {kind for (kind,) in columns(folder, "SELECT kind FROM notes")} - machine


def test_counts_of_one_pass_are_not_divided_by_the_chunks_of_two(tmp_path: Path) -> None:
    _, row = measured(two_passes, "free", tmp_path)
    assert "partly_counted" in notes(tmp_path)
    assert (row["tokens_per_s"], row["output_tokens"]) == (None, None)
    assert columns(tmp_path, "SELECT count(queue_s), count(tpot_s), count(*) FILTER (WHERE tpot_s > 0.03)"
                             " FROM requests") == [(0, 10, 0)]  # fmt: skip


def test_no_stream_is_faster_than_its_server(tmp_path: Path) -> None:
    measured(held_back, "free", tmp_path, requests=6)
    assert "faster_than_made" in notes(tmp_path)
    assert columns(tmp_path, "SELECT count(tpot_s), count(client_tokens_per_s) FROM requests") == [(0, 0)]


def test_chunks_that_a_gateway_gathered_have_no_spacing_and_are_not_this_clients_doing(tmp_path: Path) -> None:
    _, row = measured(gathered, "free", tmp_path)
    assert "gathered_chunks" in notes(tmp_path)
    # A client that was busy elsewhere cannot tell either: those are merged.
    read_in_time = "SELECT count(tpot_s), count(itl_mean_s) FROM requests WHERE merged_chunks = 0"
    assert columns(tmp_path, read_in_time) == [(0, 0)]
    assert "read chunks late" not in (row["verdict_reason"] or "")


def test_a_sum_over_unknown_counts_is_unknown(tmp_path: Path) -> None:
    _, row = measured(counts_now_and_then, "free", tmp_path)
    assert "uncounted" in notes(tmp_path)
    assert (row["tokens_per_s"], row["output_tokens"]) == (None, None)


def test_a_call_that_the_server_could_not_parse_is_the_models_mistake(tmp_path: Path) -> None:
    summary, row = measured(breaks_calls, "calls", tmp_path, slo=["correct>=90%"])
    assert (row["scored"], row["correct"], row["errors"], summary.exit_code) == (10, 7, 0, 99)
    wrong = "SELECT DISTINCT outcome, error_kind, error_status FROM requests WHERE outcome <> 'correct'"
    assert columns(tmp_path, wrong) == [("broken_call", "broken_call", 500)]


def test_what_is_quoted_from_the_model_decides_nothing(tmp_path: Path) -> None:
    summary, row = measured(quotes_the_model, "calls", tmp_path)
    assert columns(tmp_path, "SELECT DISTINCT outcome FROM requests") == [("broken_call",)]
    assert (row["scored"], row["correct"], row["verdict"], summary.exit_code) == (10, 0, "valid", 0)


def test_an_endless_answer_is_truncated_however_the_server_ends_it(tmp_path: Path) -> None:
    _, row = measured(repeats_itself, "schema", tmp_path, requests=12)
    assert (row["scored"], row["correct"], row["errors"]) == (12, 6, 0)
    assert columns(tmp_path, "SELECT DISTINCT outcome FROM requests WHERE outcome <> 'correct'") == [("truncated",)]


def test_a_model_that_does_not_load_is_the_servers_failure(tmp_path: Path) -> None:
    summary, row = measured(does_not_load, "schema", tmp_path)
    assert (row["scored"], row["errors"], summary.exit_code) == (0, 10, 1)
    assert columns(tmp_path, "SELECT DISTINCT error_kind, outcome FROM requests") == [("http", "http")]


def test_an_answer_that_was_cut_off_while_thinking_is_truncated(tmp_path: Path) -> None:
    measured(thinks_too_long, "schema", tmp_path)
    assert columns(tmp_path, "SELECT DISTINCT outcome FROM requests") == [("truncated",)]
