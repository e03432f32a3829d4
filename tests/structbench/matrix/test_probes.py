"""The feature matrix sees what recorded servers of two versions really did, and says what it cannot see."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pytest

from loadgen.api.sending import chat_api
from structbench.cli import main
from structbench.matrix.client import PLACES, Reply
from structbench.matrix.probes import Finding, Probe, Question, Think, judge, probes, request_of
from structbench.matrix.sides import pick
from tests.support.paths import ROOT
from tests.support.scripted_server import Peer, Scripted

RECORDINGS = ROOT / "tests" / "recordings"
DOC = ROOT / "docs" / "matrix.md"
OLD, NEW = "0.5.4-ipexllm-20250407", "0.33.0-rc2"
APIS = ("--api", "ollama", "openai")  # what was recorded
MODELS = ("smollm2:135m", "qwen2.5-coder:0.5b", "gemma3:270m")


def asked(path: str, body: Any) -> str:
    """What a request asks for, apart from its length; the wording counts where there are tools."""
    if not isinstance(body, dict) or not isinstance(body.get("messages", []), list):
        return ""
    names = ("model", "format", "response_format", "tools", "think", "stream", "reasoning_effort", "tool_choice",
             "structured_outputs", "json_schema")  # fmt: skip
    asked_for = {name: body.get(name) for name in names}
    if isinstance(form := asked_for["response_format"], dict) and "json_schema" in form:
        asked_for["response_format"] = [form["json_schema"]["schema"], form["json_schema"].get("strict")]
    said = body.get("messages") if "tools" in body and body["model"] != "gemma3:270m" else None
    return json.dumps([path, asked_for, said], sort_keys=True)


class Replay(Scripted):
    """A server of a recorded version: what was recorded comes back as it came, anything else is an unknown path."""

    def __init__(self, recording: str) -> None:
        super().__init__(self.serve)
        lines = (RECORDINGS / f"{recording}.jsonl").read_text().splitlines()
        self.known: dict[str, dict[str, Any]] = {}
        for exchange in map(json.loads, lines):
            request = exchange["request"]
            key = asked(request["path"], request["body"]) if request["method"] == "POST" else request["path"]
            self.known.setdefault(key, exchange["response"])

    def serve(self, peer: Peer) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (request := peer.read()) is not None:
            path = request.head.split()[1]
            key = asked(path, request.body) if request.data else path
            if request.data and request.body.get("prompt") == "":  # only loads the model
                peer.answer({"model": "m", "response": "", "done": True})
            elif (response := self.known.get(key)) is None:
                peer.plain(404, b"404 page not found", "text/plain")
            else:
                head = {name: v for name, v in response["headers"].items() if name != "Transfer-Encoding"}
                data = "".join(chunk["text"] for chunk in response["chunks"]).encode()
                peer.head(response["status"], {**head, "Content-Length": str(len(data))})
                peer.sock.sendall(data)


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    db = tmp_path_factory.mktemp("matrix") / "x.duckdb"
    for recording in ("ollama-0.5.4", "ollama-0.33.0-rc2"):
        with Replay(recording) as server:
            assert main(["matrix", "--models", *MODELS, "--host", server.url, "--db", str(db), *APIS]) == 0
    return db


def findings(db: Path, version: str) -> dict[tuple[str, str], tuple[str, int, str]]:
    with duckdb.connect(str(db), read_only=True) as con:
        rows = con.execute(
            "SELECT model, probe, result, status, evidence FROM features"
            " WHERE server_version = ? AND result <> 'not offered'", [version],
        ).fetchall()  # fmt: skip
    return {(model, probe): (result, status, evidence) for model, probe, result, status, evidence in rows}


SEEN_BY_BOTH = {
    ("smollm2:135m", "chat stream think=unset text"): ("works", 200),
    ("smollm2:135m", "chat whole think=unset text"): ("works", 200),
    ("smollm2:135m", "generate stream think=unset text"): ("works", 200),
    ("smollm2:135m", "v1 stream think=unset text"): ("works", 200),
    ("smollm2:135m", "chat stream think=unset format"): ("works", 200),
    ("smollm2:135m", "v1 stream think=unset format"): ("works", 200),
    ("qwen2.5-coder:0.5b", "chat stream think=unset tools"): ("works", 200),
    ("qwen2.5-coder:0.5b", "v1 stream think=unset tools"): ("works", 200),
    ("qwen2.5-coder:0.5b", "chat stream think=unset format+tools"): ("ignored", 200),
    ("gemma3:270m", "chat stream think=unset tools"): ("refused", 400),
    ("gemma3:270m", "chat stream think=unset no call"): ("refused", 400),
}
DIFFERENT = {
    ("smollm2:135m", "chat stream think=on text"): (("ignored", 200), ("refused", 400)),
    ("smollm2:135m", "chat stream think=unset broken schema"): (("refused", 200), ("refused", 400)),
    ("smollm2:135m", "chat stream think=unset wrong format"): (("refused", 200), ("refused", 500)),
    ("qwen2.5-coder:0.5b", "chat stream think=unset no call"): (("broken", 200), ("broken", 200)),
}


@pytest.mark.slow
def test_the_matrix_sees_what_the_recorded_servers_did(probed: Path) -> None:
    old, new = findings(probed, OLD), findings(probed, NEW)
    assert {key: old[key][:2] for key in SEEN_BY_BOTH} == {key: new[key][:2] for key in SEEN_BY_BOTH} == SEEN_BY_BOTH
    assert {key: (old[key][:2], new[key][:2]) for key in DIFFERENT} == DIFFERENT
    unwanted = ("qwen2.5-coder:0.5b", "chat stream think=unset no call")
    assert (old[unwanted][2], new[unwanted][2]) == (
        "a tool call that nobody asked for", "a tool call is left in the text",
    )  # fmt: skip
    assert old.keys() == new.keys() == SEEN_BY_BOTH.keys() | DIFFERENT.keys()


def test_a_comparison_shows_what_changed_between_two_versions(
    probed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["matrix", "--compare", "0.5.4", NEW, "--db", str(probed), "--json"]) == 0
    out, err = capsys.readouterr()
    found = [(change["before"], change["after"]) for change in json.loads(out)]
    told = [(before["probe"], before["result"], after["result"]) for before, after in found]
    assert told == [
        ("chat stream think=on text", "ignored", "refused"),
        ("chat stream think=unset broken schema", "refused", "refused"),
        ("chat stream think=unset wrong format", "refused", "refused"),
        ("chat stream think=unset no call", "broken", "broken"),
    ]  # fmt: skip
    flat = " ".join(err.split())
    assert "ignored: no thinking came" in flat
    assert 'refused: HTTP 400: "smollm2:135m" does not support thinking' in flat
    assert "HTTP 200 with an error line: invalid JSON schema in format" in flat
    assert re.search(r"smollm2:135m is not the same on both sides: b28b\w+ and 1d16\w+", flat)
    assert "4 of 390 probes that both sides tried differ." in flat


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--compare", "0.5.4"], "--compare takes two"),
        (["--compare", "0.5.4", "0.6"], "no findings of a server or model '0.6': there are ollama 0.5.4-ipexllm"),
        (["--compare", "0.5.4", "gemma3:270m"], "have no probe in common"),
        (["--compare", "a", "b", "--models", "m"], "--compare takes two"),
        (["--compare", "a", "b", "--db", "no.duckdb"], "no.duckdb does not exist"),
        (["--models", "m", "--tokens", "0"], "--tokens 0: give more than 0"),
        (["--models", "m", "--api", "openapi"], "--api 'openapi': did you mean openai?"),
        ([], "name the models to try"),
    ],
)
def test_a_mistyped_matrix_ends_in_one_line(
    probed: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments if "--db" in arguments else [*arguments, "--db", str(probed)]
    assert main(["matrix", *given]) == 2
    assert message in capsys.readouterr().err


def row(version: str, model: str, result: str) -> Mapping[str, Any]:
    return {"server_version": version, "model": model, "probe": "p", "result": result}


def test_a_side_is_a_version_a_model_or_a_model_of_a_version() -> None:
    rows = [row("1.0", "a:latest", "works"), row("1.0", "b:1", "broken"), row("2.0", "a:latest", "ignored")]
    assert {key: found["result"] for key, found in pick(rows, "1.0").items()} == {
        ("a:latest", "p"): "works", ("b:1", "p"): "broken",
    }  # fmt: skip
    assert {key: found["result"] for key, found in pick(rows, "a").items()} == {("", "p"): "ignored"}, "the newest"
    assert {key: found["result"] for key, found in pick(rows, "a@1.0").items()} == {("", "p"): "works"}


def a(question: Question, think: Think = "unset") -> Probe:
    return Probe("chat", question, think, True)


def said(text: str = "", **more: Any) -> Reply:
    return Reply(**{"status": 200, "text": text, "finished": True, "done_reason": "stop", **more})


RIGHT = {"name": "get_weather", "arguments": {"city": "Paris"}}
JSON = '{"name": "Ada", "age": 36, "city": "London"}'
LEFT = ("broken", "a tool call is left in the text")


@pytest.mark.parametrize(
    ("probe", "reply", "finding"),
    [
        (a("text"), said("Red"), ("works", "")),
        (a("text"), said(" "), ("broken", "the answer is empty")),
        (a("text", "on"), said("Red", thinking="hm"), ("works", "")),
        (a("text", "on"), said("<think>hm</think>Red"), ("broken", "thinking is left in the text")),
        (a("text", "off"), said("Red", thinking="hm"), ("ignored", "it thought nevertheless")),
        (a("text", "on"), said("", thinking="hm", done_reason="length"), ("unclear", "the token limit")),
        (a("format"), said(JSON), ("works", "")),
        (a("format"), said(f"Sure: {JSON}"), ("ignored", "the answer is no JSON")),
        (a("format"), said('{"name": "Ada"}'), ("broken", "the JSON breaks the schema")),
        (a("format"), said(JSON[:-1]), ("broken", "the JSON is broken")),
        (a("format"), said(JSON[:-1], done_reason="length"), ("unclear", "the token limit was reached within")),
        (a("format"), said("Ada is a per", done_reason="length"), ("ignored", "the answer is no JSON")),
        (a("format", "on"), said("Ada", thinking="hm"), ("ignored", "the answer is no JSON")),
        (a("format", "on"), said('{"a": 1}'), ("broken", "no thinking came; the JSON breaks the schema")),
        (a("tools"), said(calls=[RIGHT]), ("works", "")),
        (a("tools"), said("It rains."), ("ignored", "no tool call")),
        (a("tools"), said("It rains and", done_reason="length"), ("ignored", "no tool call")),
        (a("tools"), said(json.dumps(RIGHT)), ("broken", "a tool call is left in the text")),
        (a("tools"), said(calls=[{**RIGHT, "arguments": {}}]), ("broken", "the tool call is wrong")),
        (a("tools"), said('{"name": get_weather, "arguments": {"city": "Paris"}}'), LEFT),
        (a("tools"), said('[{"name": "weather_lookup", "arguments": {"city": "Paris"}}]'), LEFT),
        (a("tools"), said("{'arguments': {'city': 'Paris'}, 'name': 'weather_lookup'}"), LEFT),
        (a("tools"), said("<|tool_call|>[weather_lookup]"), LEFT),
        (a("tools"), said('get_weather(city="Paris")'), LEFT),
        (a("tools"), said("get_weather would tell its name and the arguments: none"), ("ignored", "no tool call")),
        (a("no call"), said('get_weather(city="Paris")'), LEFT),
        (a("format+tools"), said('get_weather(city="Paris")'), LEFT),
        (a("format+tools"), said('{"name": get_weather, "arguments": {}}'), LEFT),
        (a("no call"), said("Hello!"), ("works", "")),
        (a("no call"), said(calls=[RIGHT]), ("broken", "a tool call that nobody asked for")),
        (a("no call"), said(json.dumps(RIGHT)), ("broken", "a tool call is left in the text")),
        (a("no call"), said('{"name": "hello", "arguments": {}}'), ("broken", "a tool call is left in the text")),
        (a("no call"), said('{"name": "hello"}'), ("works", "")),
        (a("call required"), said(calls=[{"name": "get_weather", "arguments": {}}]), ("works", "")),
        (a("call required"), said("Hello!"), ("ignored", "no call, as without tool_choice")),
        (a("call required"), said(json.dumps(RIGHT)), ("broken", "a tool call is left in the text")),
        (a("call named"), said(calls=[{"name": "get_time", "arguments": {"city": "Paris"}}]), ("works", "")),
        (a("call named"), said(calls=[RIGHT]), ("ignored", "a call to another tool")),
        (a("call forbidden"), said("It rains."), ("works", "")),
        (a("call forbidden"), said(calls=[RIGHT]), ("ignored", "a call although tool_choice forbids it")),
        (a("format json_schema"), said("Ada is 36."), ("ignored", "the answer is no JSON")),
        (a("format strict"), said(JSON), ("works", "")),
        (a("format tools"), said(calls=[{"name": "answer", "arguments": json.loads(JSON)}]), ("works", "")),
        (a("format tools"), said(calls=[{"name": "answer", "arguments": {}}]), ("broken", "the JSON breaks")),
        (a("format tools"), said("Ada is 36."), ("ignored", "the answer is no JSON")),
        (a("format+tools"), said(calls=[RIGHT]), ("works", "")),
        (a("format+tools"), said(JSON), ("ignored", "no tool call, the format was kept")),
        (a("format+tools"), said("It rains."), ("ignored", "the answer is no JSON")),
        (a("broken schema"), said("hi"), ("ignored", "answered as if nothing were wrong")),
        (a("tools"), Reply(status=400, error="no tools"), ("refused", "HTTP 400: no tools")),
        (a("tools"), Reply(status=503, error="busy"), ("unclear", "HTTP 503: busy")),
        (a("text"), Reply(status=500, error="oh"), ("broken", "HTTP 500: oh")),
        (a("format"), Reply(status=500, error="invalid JSON schema"), ("refused", "HTTP 500: invalid JSON schema")),
        (a("format"), Reply(status=500, error="llama runner process has terminated"), ("broken", "HTTP 500: llama")),
        (a("format"), Reply(status=500, error="no information"), ("broken", "HTTP 500: no information")),
        (a("format"), Reply(status=502, error=""), ("broken", "HTTP 502")),
        (a("tools"), Reply(status=501, error="not implemented"), ("refused", "HTTP 501: not implemented")),
        (a("tools"), Reply(status=200, error="runner died"), ("broken", "HTTP 200 with an error line: runner died")),
        (a("text"), said("Re", finished=False), ("broken", "the answer ended without its last message")),
        (a("text"), Reply(status=404, error="404 page not found", is_json=False), ("not offered", "HTTP 404")),
        (a("text"), Reply(status=404, error="File Not Found", offered=False), ("not offered", "HTTP 404")),
        (a("text"), Reply(status=405, error="Method Not Allowed", offered=False), ("not offered", "HTTP 405")),
        (a("tools"), Reply(status=404, error="model not found"), ("refused", "HTTP 404: model not found")),
        (a("text"), Reply(failure="no end within 1 s", timed_out=True), ("unclear", "no end within 1 s")),
        (a("text"), Reply(failure="the connection broke: x"), ("broken", "the connection broke")),
    ],
)
def test_a_finding_is_what_was_seen(probe: Probe, reply: Reply, finding: tuple[str, str]) -> None:
    found = judge(probe, reply)
    assert isinstance(found, Finding)
    assert found.result == finding[0]
    assert found.evidence.startswith(finding[1])
    assert (found.evidence == "") == (found.result == "works")


FORMATS = ("format", "format+tools", "broken schema", "wrong format")


def test_every_combination_is_tried_once_and_asked_in_the_endpoints_words() -> None:
    every = list(probes())
    assert len({probe.name for probe in every}) == len(every) == 238
    for probe in every:
        api = PLACES[probe.endpoint].api_name
        body = chat_api(api).body(request_of(probe, "m", 2099), probe.stream)
        assert body["stream"] is probe.stream
        asks_for_a_format = probe.question in FORMATS or (
            probe.question.startswith("format ") and probe.question != "format tools"
        )
        match api:
            case "openai":
                assert body["max_tokens"] == 2099
                assert body.get("reasoning_effort") == {"unset": None, "on": "medium", "off": "none"}[probe.think]
                named = {"response_format", "structured_outputs", "json_schema"}
                assert bool(named & body.keys()) == asks_for_a_format
            case "responses":
                assert body["max_output_tokens"] == 2099
                assert ("text" in body) == asks_for_a_format
            case "anthropic":
                assert body["max_tokens"] == 2099
                assert ("output_config" in body) == asks_for_a_format
            case _:
                assert body["options"]["num_predict"] == 2099
                assert body.get("think") == {"unset": None, "on": True, "off": False}[probe.think]
                assert ("format" in body) == asks_for_a_format
                assert "tool_choice" not in body


@pytest.mark.parametrize(
    ("api", "required", "named"),
    [
        ("openai", "required", {"type": "function", "function": {"name": "get_time"}}),
        ("responses", "required", {"type": "function", "name": "get_time"}),
        ("anthropic", {"type": "any"}, {"type": "tool", "name": "get_time"}),
    ],
)
def test_a_tool_choice_is_in_the_words_of_its_api(api: str, required: Any, named: Any) -> None:
    (endpoint,) = [name for name, place in PLACES.items() if place.api_name == api]

    def choice(question: Question) -> Any:
        return chat_api(api).body(request_of(Probe(endpoint, question, "unset", True), "m", 9))["tool_choice"]

    assert (choice("call required"), choice("call named")) == (required, named)
    assert choice("call forbidden") in ("none", {"type": "none"})


def test_the_page_names_every_result_and_endpoint() -> None:
    page = DOC.read_text()
    paths = [place.path for place in PLACES.values()]
    for word in ("works", "refused", "ignored", "broken", "unclear", "not offered", *paths):
        assert f"`{word}`" in page
