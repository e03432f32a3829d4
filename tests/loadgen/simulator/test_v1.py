"""The simulated server under /v1: in the form that real servers were recorded in, with its own answers and faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadgen.api.sending import chat_api
from loadgen.simulator import Simulator
from loadgen.simulator.v1_requests import Kind
from loadgen.types import Request, RequestRecord
from structbench.cli import main
from tests.loadgen.simulator.test_server import recorded, shape
from tests.recordings.record import record
from tests.support.loads import ask as ask_db
from tests.support.scripted_server import ask
from tests.support.simulators import ANSWERS, FAST, MODELS, PERSON, WEATHER, connect, user

pytestmark = pytest.mark.slow

if not all(map(find_spec, ("httpx2", "openai", "anthropic"))):
    pytest.skip("the extras openai and anthropic are not installed", allow_module_level=True)

PATHS = {"openai": "/v1", "responses": "/v1", "anthropic": ""}
TWO_CALLS = [{"name": "get_weather", "arguments": {"city": city}} for city in ("Oslo", "Rome")]
KNOWN = {**ANSWERS, "both?": {"calls": TWO_CALLS}, "list?": {"json": {"name": "Ada", "age": 36}}}


@pytest.fixture(scope="module")
def ollama() -> Iterator[Simulator]:
    with Simulator(MODELS, KNOWN) as running:
        yield running


@pytest.fixture(scope="module")
def llama() -> Iterator[Simulator]:
    with Simulator(MODELS, KNOWN, kind="llama.cpp") as running:
        yield running


def asked(sim: Simulator, api: str, text: str, model: str = "sim:fast", **more: Any) -> RequestRecord:
    request = Request(index=0, model=model, messages=tuple(user(text)), **more)
    (answered,) = ask(sim.url + PATHS[api], request, api=chat_api(api))
    return answered


def kind_of_error(answered: RequestRecord) -> tuple[str, int | None] | None:
    return answered.error and (answered.error.kind, answered.error.status)


SERVERS: dict[str, tuple[str, Kind]] = {"llamacpp-v1.jsonl": ("0.33.0", "llama.cpp"),
                                        "ollama-0.5.4-v1.jsonl": ("0.5.4", "ollama")}  # fmt: skip
HEADERS = ("Content-Type", "Server", "Keep-Alive", "Connection")
LONG = "What is the weather in Oslo? Use the tool."
SAID = {
    "Say hello to Ada in five words.": {"text": "Hello Ada! How can I assist you today?"},
    "One, two,": {"text": " three, four, five"},
    LONG: {"text": '{"name": "get_weather", "arguments": {"city": "Oslo"}}'},
}
"""What the recorded models said."""


def events(exchange: dict[str, Any]) -> list[list[Any]]:
    """The shapes of the events in each HTTP chunk, each of several alike once; a whole answer is one."""
    texts = [chunk["text"] for chunk in exchange["response"]["chunks"]]
    if not texts[0].startswith(("data:", "event:")):
        texts = ["data: " + "".join(texts)]
    chunks = [[_event_shape(event) for event in text.split("\n\n") if event] for text in texts]
    return [chunk for chunk, _ in groupby(chunks)]


def _event_shape(event: str) -> Any:
    name, _, data = event.rpartition("data: ")
    return name, "end" if data == "[DONE]" else shape(json.loads(data)) if data.startswith("{") else data


@pytest.mark.parametrize("name", SERVERS)
def test_recorded_requests_get_answers_of_the_recorded_form(name: str) -> None:
    version, kind = SERVERS[name]
    known = SAID if kind == "llama.cpp" else {**SAID, LONG: {"calls": [TWO_CALLS[0]]}}
    with Simulator({"qwen2.5-coder:0.5b": FAST}, known, version=version, kind=kind) as sim:
        host, _, port = sim.url.removeprefix("http://").rpartition(":")
        for theirs in recorded(name):
            sent, called = theirs["request"], theirs["name"]
            ours = record(host, int(port), sent["method"], sent["path"], sent["body"])
            assert ours["response"]["status"] == theirs["response"]["status"], called
            heads = [{h: r["response"]["headers"].get(h) for h in HEADERS} for r in (ours, theirs)]
            assert heads[0] == heads[1], called
            if sent["path"] == "/props" and kind == "llama.cpp":  # the half that nobody reads is left out
                assert set(json.loads(ours["response"]["chunks"][0]["text"])) <= set(
                    json.loads(theirs["response"]["chunks"][0]["text"])
                )
            else:
                assert events(ours) == events(theirs), called


@pytest.mark.parametrize("kind", ["ollama", "llama.cpp"])
@pytest.mark.parametrize("api", PATHS)
def test_every_api_gives_the_known_answers(request: pytest.FixtureRequest, api: str, kind: str) -> None:
    sim = request.getfixturevalue("llama" if kind == "llama.cpp" else "ollama")
    shared: dict[str, Any] = {"index": 0, "model": "sim:fast"}
    requests = (
        Request(**shared, messages=tuple(user("7?")), options={"num_predict": 20}),
        Request(**shared, messages=tuple(user("Ada?")), format=PERSON),
        Request(**shared, messages=tuple(user("both?")), tools=(WEATHER,)),
        Request(index=0, model="think", messages=tuple(user("7?")), think="high", options={"num_predict": 4000}),
        Request(**shared, messages=tuple(user("hi")), options={"num_predict": 3}),
    )
    # llama.cpp closes its connections, which a client that has not learned it takes for kept: one client for each.
    alone = [(one,) for one in requests] if kind == "llama.cpp" else [requests]
    answers = [ask(sim.url + PATHS[api], *some, api=chat_api(api)) for some in alone]
    text, json_text, calls, thought, cut = (one for some in answers for one in some)
    assert (text.error, text.output_text, text.done_reason) == (None, "7", "stop")
    assert text.prompt_tokens == 12
    assert text.output_tokens == 2
    assert json.loads(json_text.output_text) == {"name": "Ada", "age": 36}
    assert (calls.error, list(calls.tool_calls), calls.output_text) == (None, TWO_CALLS, "")
    assert thought.output_text == "7"
    assert thought.thinking_text is not None
    assert len(thought.thinking_text.split()) >= 24
    assert (cut.done_reason, cut.output_tokens) == ("length", 3)


def test_an_answer_is_drawn_as_in_ollamas_own_api(ollama: Simulator) -> None:
    """The same shares of the same kinds: what is drawn depends on the request alone, not on its API's form."""
    answers = [asked(ollama, "openai", f"q{i}", model="smollm2:360m", format=PERSON) for i in range(3)]
    native = [
        httpx.post(ollama.url + "/api/chat", timeout=20, json={
            "model": "smollm2:360m", "messages": user(f"q{i}"), "stream": True, "format": PERSON}).text
        for i in range(3)
    ]  # fmt: skip
    said = ["".join(json.loads(line)["message"]["content"] for line in text.splitlines()) for text in native]
    assert [answer.output_text for answer in answers] == said


@pytest.mark.parametrize("api", PATHS)
def test_a_named_tool_is_called_with_the_known_json(ollama: Simulator, api: str) -> None:
    answered = asked(ollama, api, "list?", format=PERSON, dialect="tools", tools=(_answer_tool(),))
    assert [call["arguments"] for call in answered.tool_calls] == [{"name": "Ada", "age": 36}]


def _answer_tool() -> dict[str, Any]:
    from loadgen.types import ANSWER

    return {"type": "function", "function": {"name": ANSWER, "parameters": PERSON}}


OUTCOMES: dict[str, tuple[str, int | None] | None] = {
    "cut": ("protocol", 200), "close": ("protocol", None), "error-line": ("stream", 200),
    "error-event": ("stream", 200), "garbage": ("protocol", None), "wrong-content-type": ("protocol", 200),
    "empty-body": ("protocol", 200), "500": ("http", 500), "404": ("http", 404), "pings": None, "no-done": None,
    "empty-first": None, "split-line": None, "usage-running": None, "gathered": None, "held-back": None,
    "no-counts": None, "usage-null": None, "error-flat": ("stream", 200), "reason-empty": None, "text-parts": None,
    "close-after": None,
}  # fmt: skip
"""The error of an answer with the fault."""


@pytest.mark.parametrize("api", PATHS)
def test_each_fault_is_what_it_says(ollama: Simulator, api: str) -> None:
    requests = [
        Request(index=i, model=f"fault:{fault}", messages=tuple(user("hi")), options={"num_predict": 12})
        for i, fault in enumerate(OUTCOMES)
    ]
    answers = ask(ollama.url + PATHS[api], *requests, api=chat_api(api))
    assert dict(zip(OUTCOMES, map(kind_of_error, answers), strict=True)) == OUTCOMES
    for fault, answered in zip(OUTCOMES, answers, strict=True):
        if answered.error is None:
            assert answered.output_text is not None
            assert len(answered.output_text.split()) == 12
            assert answered.output_tokens == (None if fault == "no-counts" else 12)


CALLS = ("calls-split", "calls-whole", "calls-unindexed", "calls-same-id", "calls-same-index")


@pytest.mark.parametrize("api", PATHS)
def test_calls_are_the_same_however_they_come(ollama: Simulator, api: str) -> None:
    requests = [
        Request(index=i, model=f"fault:{fault}", messages=tuple(user("both?")), tools=(WEATHER,))
        for i, fault in enumerate(CALLS)
    ]
    for fault, answered in zip(CALLS, ask(ollama.url + PATHS[api], *requests, api=chat_api(api)), strict=True):
        assert (answered.error, list(answered.tool_calls)) == (None, TWO_CALLS)
        assert (len(answered.chunk_ns) > 5) == (fault in ("calls-split", "calls-same-id"))


@pytest.mark.parametrize("fault", ["reasoning-content", "reasoning-both"])
def test_thinking_is_taken_once_by_either_name(ollama: Simulator, fault: str) -> None:
    named = asked(ollama, "openai", "7?", model="think", think=True)
    answered = asked(ollama, "openai", "7?", model=f"fault:{fault}", think=True)
    assert named.thinking_text
    assert answered.thinking_text
    assert len(answered.thinking_text.split()) <= 24


def events_of(sim: Simulator, body: dict[str, Any], path: str = "/v1/chat/completions") -> list[dict[str, Any]]:
    text = httpx.post(sim.url + path, json={"stream": True, **body}, timeout=20).text
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def test_counts_come_at_the_end_in_every_chunk_or_never(ollama: Simulator) -> None:
    sent = {"messages": user("hi"), "max_tokens": 4, "stream_options": {"include_usage": True}}
    at_end, running, never = (
        [event.get("usage") for event in events_of(ollama, {**sent, "model": model})]
        for model in ("sim:fast", "fault:usage-running", "fault:no-counts")
    )
    assert at_end[:-1] == [None] * 5
    assert at_end[-1]["completion_tokens"] == 4
    assert [usage["completion_tokens"] for usage in running[:4]] == [1, 2, 3, 4]
    assert not any(never)


def test_a_cache_is_told_of_in_each_apis_way(ollama: Simulator) -> None:
    for api in PATHS:
        first, again = (asked(ollama, api, f"{api}: a long prompt " * 20, model="sim:cache", options={"num_predict": 2})
                        for _ in range(2))  # fmt: skip
        assert (first.prompt_tokens, again.prompt_tokens) == (again.prompt_tokens, first.prompt_tokens)
        assert again.cached_prompt_tokens is not None
        assert again.cached_prompt_tokens > 50


def test_an_ignored_schema_or_choice_is_answered_in_words(ollama: Simulator) -> None:
    answered = asked(ollama, "openai", "Ada?", model="fault:schema-ignored", format=PERSON)
    assert kind_of_error(answered) is None
    with pytest.raises(ValueError, match="Expecting"):
        json.loads(answered.output_text)


def test_llama_cpp_ignores_schemas_but_in_chat(llama: Simulator) -> None:
    assert json.loads(asked(llama, "openai", "a person", format=PERSON).output_text)
    for api in ("responses", "anthropic"):
        said = asked(llama, api, "a person", format=PERSON, options={"num_predict": 20}).output_text
        assert not said.startswith("{")


def test_a_stream_that_closes_its_connection_announced_to_keep_it(llama: Simulator, ollama: Simulator) -> None:
    for sim, model in ((llama, "sim:fast"), (ollama, "fault:close-after")):
        sent = {"model": model, "messages": user("7?"), "stream": True}
        content = json.dumps(sent).encode()
        with connect(sim) as sock, sock.makefile("rb") as answer:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "
            sock.sendall(f"{head}{len(content)}\r\n\r\n".encode() + content)
            said = answer.read()  # to the end of the connection
        assert b"Connection: close" not in said
        assert said.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def test_too_many_requests_say_when_to_come_again(ollama: Simulator) -> None:
    for path in ("/v1/chat/completions", "/v1/messages", "/api/chat"):
        sent = {"model": "fault:429", "messages": user("hi"), "max_tokens": 2}
        answer = httpx.post(ollama.url + path, json=sent)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    ("path", "sent", "status", "said"),
    [("/v1/chat/completions", {"model": "gone", "messages": user("x")}, 404, "not found"),
     ("/v1/chat/completions", {"messages": user("x")}, 400, "model is required"),
     ("/v1/chat/completions", {"model": "sim:fast", "messages": []}, 400, "too short"),
     ("/v1/chat/completions", {"model": "sim:fast", "messages": [1]}, 400, "invalid request"),
     ("/v1/chat/completions", [], 400, "invalid request"),
     ("/v1/messages", {"model": "sim:fast", "messages": user("x")}, 400, "max_tokens is required"),
     ("/v1/responses", {"model": "gone", "input": "x"}, 404, "not found")],
)  # fmt: skip
def test_a_bad_request_gets_its_apis_error(ollama: Simulator, path: str, sent: Any, status: int, said: str) -> None:
    answer = httpx.post(ollama.url + path, json=sent)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]
    assert ("type" in answer.json()) == (path == "/v1/messages")


def test_conversations_are_understood_in_every_form() -> None:
    """The result of a tool is answered with the text that follows it."""
    known = {"Paris?": {**ANSWERS["Paris?"], "then": "It is warm."}}
    call = {"function": ANSWERS["Paris?"]["calls"][0]}
    turns = (*user("Paris?"), {"role": "assistant", "content": "", "tool_calls": [call]},
             {"role": "tool", "tool_name": "get_weather", "content": "21"})  # fmt: skip
    request = Request(index=0, model="m", messages=turns, tools=(WEATHER,))
    with Simulator({"m": FAST}, known) as sim:
        for api, path in PATHS.items():
            (answered,) = ask(sim.url + path, request, api=chat_api(api))
            assert answered.output_text == "It is warm."


def test_embeddings_and_a_key(ollama: Simulator) -> None:
    asked_for = {"model": "sim:embed", "input": ["a", "b"]}
    said = httpx.post(ollama.url + "/v1/embeddings", json=asked_for).json()
    assert [entry["index"] for entry in said["data"]] == [0, 1]
    assert len(said["data"][0]["embedding"]) == 64
    with Simulator({"m": replace(FAST)}, key="secret") as sim:
        assert httpx.get(sim.url + "/v1/models").json()["error"]["type"] == "authentication_error"
        for header in ({"x-api-key": "secret"}, {"Authorization": "Bearer secret"}):
            assert httpx.get(sim.url + "/v1/models", headers=header).status_code == 200


BAD: dict[str, tuple[str, str, str]] = {
    "a wrong key": ("keyed", "openai", "does not accept the key"),
    "a wrong key, anthropic": ("keyed", "anthropic", "does not accept the key"),
    "a wrong path": ("llama", "openai", "nothing answers at"),
    "an API that the server lacks": ("old", "responses", "nothing answers at"),
    "another such": ("old", "anthropic", "nothing answers at"),
    "another server's API": ("llama", "ollama", "is not Ollama"),
    "a model that it lacks": ("llama", "openai", "does not have gone"),
    "http for https": ("llama", "openai", "does not speak TLS"),
}


@pytest.mark.slow
@pytest.mark.parametrize("command", ["load", "matrix"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_sends_nothing(
    case: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    which, api, said = BAD[case]
    monkeypatch.setenv("WRONG", "not the key")
    servers: dict[str, dict[str, Any]] = {"keyed": {"key": "k"}, "llama": {"kind": "llama.cpp"},
                                          "old": {"version": "0.5.4"}}  # fmt: skip
    with Simulator({"m:1b": FAST}, **servers[which]) as sim:
        url = sim.url.replace("http:", "https:") if case == "http for https" else sim.url
        host = url + "/no/such/v1" if case == "a wrong path" else url
        model = "gone" if "model" in case else "m:1b"
        key = ["--api-key-env", "WRONG"] if which == "keyed" else []
        more = ["--suites", "json", "--requests", "2", "--metrics-port", "0"] if command == "load" else []
        db = str(tmp_path / "db.duckdb")
        code = main([command, "--host", host, "--api", api, "--models", model, "--db", db, *more, *key])
        assert sim.truth(summary=True)["totals"]["completed"] == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("structbench:")]
    assert code == 2
    assert len(told) == 1
    assert said in told[0]


def test_a_load_learns_the_field_for_the_limit_before_it_begins_and_goes_on_with_it(
    ollama: Simulator, tmp_path: Path
) -> None:
    db = tmp_path / "s.duckdb"
    words = ["load", "--host", f"{ollama.url}/v1", "--models", "fault:max-tokens-refused", "--suites", "text",
             "--skip-cached", "--metrics-port", "0", "--workers", "1", "--db", str(db), "--quiet"]  # fmt: skip
    assert main([*words, "--requests", "3"]) == 0
    assert main([*words, "--requests", "5"]) == 0, "the same run goes on"
    found = ask_db(db, "SELECT count(*), count(error_kind), max(config->>'limit_field'), count(DISTINCT run_id) "
                       "FROM requests JOIN runs USING (run_id)")  # fmt: skip
    assert found == [(5, 0, "max_completion_tokens", 1)]
