"""The matrix on servers of the other APIs: each API in its own words, several servers, and what one of them ignores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest

from loadgen.api.sending import chat_api
from loadgen.api.server import Server
from structbench.cli import main
from structbench.matrix.client import PLACES, Endpoint, Prober, endpoints_of
from structbench.matrix.probes import Probe, request_of
from structbench.matrix.sides import paired, pick, server_of
from structbench.store import Store
from tests.support.databases import held
from tests.support.scripted_server import Peer, Scripted

pytestmark = pytest.mark.slow

PERSON = '{"name": "Ada", "age": 36, "city": "London"}'
CALL = {"name": "get_weather", "arguments": '{"city": "Paris"}'}
NO_PATH = {"error": {"code": 404, "message": "File Not Found"}}


def whole(path: str, text: str, calls: bool) -> Any:
    """An answer that was not streamed, in the words of its API."""
    match path:
        case "/v1/chat/completions":
            told = [{"id": "c", "function": CALL}] if calls else None
            return {"choices": [{"message": {"content": text, "tool_calls": told}, "finish_reason": "stop"}]}
        case "/v1/responses":
            said = {"type": "message", "content": [{"type": "output_text", "text": text}]}
            call = {"type": "function_call", "id": "c", **CALL}
            return {"object": "response", "status": "completed", "error": None, "output": [call] if calls else [said]}
        case _:
            use = {"type": "tool_use", "id": "c", "name": CALL["name"], "input": json.loads(CALL["arguments"])}
            return {"type": "message", "content": [use if calls else {"type": "text", "text": text}],
                    "stop_reason": "end_turn"}  # fmt: skip


def streamed(path: str, text: str, calls: bool) -> bytes:
    match path:
        case "/v1/chat/completions":
            told = [{"index": 0, "id": "c", "function": CALL}] if calls else None
            parts = [{"choices": [{"delta": {"content": text, "tool_calls": told}, "finish_reason": "stop"}]}]
        case "/v1/responses":
            item = {"type": "function_call", "id": "c", "name": CALL["name"], "arguments": ""}
            parts = [{"type": "response.output_text.delta", "delta": text}]
            if calls:
                parts = [{"type": "response.output_item.added", "output_index": 0, "item": item},
                         {"type": "response.function_call_arguments.delta", "output_index": 0, "item_id": "c",
                          "delta": CALL["arguments"]}]  # fmt: skip
            parts.append({"type": "response.completed", "response": {"status": "completed"}})
        case _:
            use = {"type": "tool_use", "id": "c", "name": CALL["name"], "input": {}}
            parts = [{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}]
            if calls:
                delta = {"type": "input_json_delta", "partial_json": CALL["arguments"]}
                parts = [{"type": "content_block_start", "index": 0, "content_block": use},
                         {"type": "content_block_delta", "index": 0, "delta": delta}]  # fmt: skip
            parts.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}})
    return b": ping\n\n" + b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts)


class LlamaCpp(Scripted):
    """It speaks three APIs, keeps to a schema only on these paths, and to a tool choice as told; it never thinks."""

    def __init__(self, schemas: tuple[str, ...], tool_choice: bool) -> None:
        super().__init__(self.serve)
        self.schemas, self.tool_choice = schemas, tool_choice

    def serve(self, peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            path = asked.head.split()[1]
            if path == "/v1/models":
                entry = {"id": "m", "owned_by": "llamacpp", "meta": {"size": 9, "n_params": 4, "ftype": "Q4"}}
                peer.plain(200, json.dumps({"data": [entry]}).encode())
            elif path == "/props":
                peer.plain(200, json.dumps({"build_info": "b7", "chat_template": "t"}).encode())
            elif path not in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
                peer.plain(404, json.dumps(NO_PATH).encode())
            else:
                self.answer(peer, path, asked.body)

    def answer(self, peer: Peer, path: str, body: Any) -> None:
        schema = any(body.get(name) for name in ("response_format", "text", "output_config"))
        choice = json.dumps(body.get("tool_choice")) if self.tool_choice else ""
        calls = bool(body.get("tools")) and "none" not in choice
        if "Say hello" in json.dumps(body) and not choice:
            calls = False
        text = PERSON if schema and path in self.schemas else "Ada is a person."
        if body["stream"]:
            peer.plain(200, streamed(path, text, calls), "text/event-stream")
        else:
            peer.plain(200, json.dumps(whole(path, text, calls)).encode())


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """The database, and the addresses of a server that keeps to what it is asked for and of one that does not."""
    db = tmp_path_factory.mktemp("servers") / "x.duckdb"
    with ExitStack() as stack:
        strict = stack.enter_context(LlamaCpp(("/v1/chat/completions", "/v1/responses"), tool_choice=True))
        loose = stack.enter_context(LlamaCpp(("/v1/chat/completions",), tool_choice=False))
        hosts = (strict.url, loose.url)
        words = ("matrix", "--models", "m", "--host", *hosts, "--api", "openai", "responses", "--db", str(db))
        assert main([*words]) == 0
        yield db, *hosts


def results(db: Path, address: str) -> dict[str, str]:
    with duckdb.connect(str(db), read_only=True) as con:
        rows = con.execute(
            "SELECT probe, result FROM features WHERE server_address = ?", [f"{address}/v1"]
        ).fetchall()  # fmt: skip
    return dict(rows)


def test_a_schema_and_a_tool_choice_that_a_server_ignores_are_found(probed: tuple[Path, str, str]) -> None:
    db, strict, loose = probed
    kept, ignored = results(db, strict), results(db, loose)
    assert len(kept) == len(ignored) == 116
    for how in ("stream", "whole"):
        for endpoint, result in (("v1", "works"), ("responses", "ignored")):
            assert kept[f"{endpoint} {how} think=unset format"] == "works"
            assert ignored[f"{endpoint} {how} think=unset format"] == result
        for endpoint in ("v1", "responses"):
            name = f"{endpoint} {how} think=unset call"
            assert {kept[f"{name} required"], kept[f"{name} forbidden"]} == {"works"}
            assert {ignored[f"{name} required"], ignored[f"{name} forbidden"]} == {"ignored"}
            assert kept[f"{endpoint} {how} think=unset tools"] == "works"
            assert kept[f"{endpoint} {how} think=on text"] == "ignored", "no thinking came"
    with duckdb.connect(str(db), read_only=True) as con:
        told = con.execute("SELECT DISTINCT server_kind, server_version, api FROM features ORDER BY api").fetchall()
    assert told == [("llama.cpp", "b7", "openai"), ("llama.cpp", "b7", "responses")]


def test_two_servers_of_one_version_are_compared_by_their_addresses(
    probed: tuple[Path, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    db, strict, loose = probed
    assert main(["matrix", "--compare", strict.partition("://")[2], loose, "--db", str(db), "--json"]) == 0
    found = [(change["before"], change["after"]) for change in json.loads(capsys.readouterr().out)]
    changed = {before["probe"]: (before["result"], after["result"]) for before, after in found}
    assert changed["responses stream think=unset format"] == ("works", "ignored")
    assert "v1 stream think=unset format" not in changed


@pytest.mark.parametrize("endpoint", ["v1", "responses", "messages"])
@pytest.mark.parametrize("stream", [True, False])
def test_each_api_is_read_streamed_and_whole(endpoint: Endpoint, stream: bool) -> None:
    with LlamaCpp(("/v1/messages",), tool_choice=True) as server:
        prober = Prober(server.url, 20, api_name="anthropic")
        told = prober.ask(endpoint, request_of(Probe(endpoint, "tools", "unset", stream), "m", 9), stream)
        assert (told.calls, told.finished) == (({"name": "get_weather", "arguments": {"city": "Paris"}},), True)
        text = prober.ask(endpoint, request_of(Probe(endpoint, "text", "unset", stream), "m", 9), stream)
        assert (text.text, text.finished, text.error, text.failure) == ("Ada is a person.", True, None, None)
        prober.close()


def test_a_path_that_a_server_answers_as_any_other_it_lacks_is_not_offered() -> None:
    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            path = asked.head.split()[1]
            told = f"no {path} here" if path != "/v1/responses" else "model 'm' not found"
            peer.plain(404, json.dumps({"error": {"message": told}}).encode())

    with Scripted(script) as server:
        prober = Prober(f"{server.url}/v1", 20, api_name="openai")
        offered = {
            endpoint: prober.ask(endpoint, request_of(Probe(endpoint, "text", "unset", True), "m", 9), True).offered
            for endpoint in PLACES
        }
        prober.close()
    assert offered == {"chat": False, "generate": False, "v1": False, "responses": True, "messages": False}


def test_a_server_that_closes_a_connection_it_said_it_keeps_breaks_no_probe() -> None:
    def script(peer: Peer) -> None:
        assert peer.read() is not None
        peer.plain(200, json.dumps(whole("/v1/chat/completions", "hi", False)).encode())

    with Scripted(script) as server:
        prober = Prober(server.url, 20)
        request = request_of(Probe("v1", "text", "unset", False), "m", 9)
        assert [prober.ask("v1", request, False).text for _ in range(3)] == ["hi"] * 3
        prober.close()


def test_the_endpoints_are_below_the_address_that_was_given() -> None:
    with Scripted(lambda peer: peer.plain(500, b"{}") if peer.read() else None) as server:
        for api_name, base in (("openai", "/v1"), ("openai", "/v1beta/openai"), ("ollama", ""), ("anthropic", "/gw")):
            prober = Prober(server.url + base, 20, api_name=api_name)
            for endpoint in ("v1", "messages"):
                prober.ask(endpoint, request_of(Probe(endpoint, "text", "unset", True), "m", 9), True)
            prober.close()
        asked = [each.head.split()[1] for each in server.asked]
    assert asked == [
        "/v1/chat/completions", "/v1/messages", "/v1beta/openai/chat/completions", "/v1beta/openai/v1/messages",
        "/v1/chat/completions", "/v1/messages", "/gw/v1/chat/completions", "/gw/v1/messages",
    ]  # fmt: skip


def test_ollamas_own_paths_are_tried_on_ollama_only() -> None:
    def found(api_name: str, kind: str, *apis: str) -> list[str]:
        return list(endpoints_of(Server("http://h", "1", {}, api_name, kind=kind), apis))

    assert found("ollama", "ollama") == found("openai", "ollama") == list(PLACES)
    assert found("openai", "llama.cpp") == found("openai", "") == ["v1", "responses", "messages"]
    assert found("ollama", "ollama", "anthropic", "openai") == ["v1", "messages"]
    assert all(chat_api(place.api_name) for place in PLACES.values())


def row(kind: str | None, version: str, address: str, model: str = "m", probe: str = "p") -> dict[str, Any]:
    return {"server_kind": kind, "server_version": version, "server_address": address, "model": model, "probe": probe}


def test_a_server_is_its_kind_its_version_both_or_its_address() -> None:
    one = row("llama.cpp", "b7", "http://h:1/v1")
    two = row("vllm", "0.32.0", "http://h:2/v1")
    three = row(None, "", "https://h/x")
    rows = [one, two, three]
    for name in ("llama.cpp", "b7", "llama.cpp b7", "http://h:1/v1", "http://h:1", "h:1"):
        assert list(pick(rows, name).values()) == [one], name
    for name in ("0.32", "vllm 0.32", "vllm"):
        assert list(pick(rows, name).values()) == [two], name
    assert list(pick(rows, "h/x").values()) == [three]
    assert [server_of(each) for each in rows] == ["llama.cpp b7", "vllm 0.32.0", "h/x"]
    assert list(pick(rows, "m@vllm").values()) == [two]


def test_servers_with_one_model_each_are_compared_whatever_its_name() -> None:
    def side(*models: str) -> dict[tuple[str, str], Any]:
        return {(model, "p"): row("k", "1", "a", model) for model in models}

    before, after = paired(side("qwen:latest"), side("qwen.gguf"))
    assert before.keys() == after.keys() == {("", "p")}
    assert paired(side("a", "b"), side("c"))[0].keys() == {("a", "p"), ("b", "p")}
    assert paired(side("a"), side("a", "b"))[0].keys() == {("a", "p")}


def test_findings_that_a_reader_keeps_out_of_the_file_are_told_and_there_afterwards(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    db = tmp_path / "m.duckdb"
    Store(db).close()
    with held(db, "read"):
        assert main(["matrix", "--simulate", "--models", "sim:fast", "--json", "--db", str(db)]) == 0
    out, err = capsys.readouterr()
    found = len(json.loads(out))
    assert f"{db} is kept open by another process (PID " in err
    assert f": {found} rows wait in {db}.spool, and the next structbench command takes them in\n" in err
    with Store(db) as store:
        assert store.query("SELECT count(*) AS n FROM features") == [{"n": found}]
