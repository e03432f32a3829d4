"""Who a server of /v1 is, by what the kinds of servers answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from loadgen.api import anthropic
from loadgen.api.server import (
    AccessRefused,
    ModelDetails,
    NoSuchModel,
    NotThisApi,
    Server,
    ServerError,
    reach,
    server_api,
)
from loadgen.wire.access import NO_ACCESS, access_of
from structbench.matrix.client import Prober
from tests.support.paths import ROOT
from tests.support.scripted_server import Peer, Scripted, ask, chat
from tests.support.tls import certificates

OPENAI, ANTHROPIC = server_api("openai"), server_api("anthropic")


def answering(pages: Mapping[str, Any], server: str = "test") -> Callable[[Peer], None]:
    """Return a script that answers each path with its page, and 404 for the others."""

    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            path = asked.head.split()[1]
            data = json.dumps(pages.get(path, {"error": "no such path"})).encode()
            status = 200 if path in pages else 404
            peer.head(status, {"Content-Type": "application/json", "Content-Length": str(len(data)), "Server": server})
            peer.sock.sendall(data)

    return script


def models(owner: str, **fields: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner, **fields}]}


def recorded(server: str) -> dict[str, Any]:
    lines = (ROOT / "tests" / "recordings" / f"{server}-v1.jsonl").read_text().splitlines()
    exchanges = [json.loads(line) for line in lines]
    return {
        each["request"]["path"]: json.loads(each["response"]["chunks"][0]["text"])
        for each in exchanges
        if each["request"]["method"] == "GET" and each["response"]["status"] == 200
    }


def test_llama_cpp_tells_its_build_and_what_the_model_is() -> None:
    with Scripted(answering(recorded("llamacpp"), "llama.cpp")) as peer:
        server = OPENAI.probe(f"{peer.url}/v1")
    name = "qwen2.5-coder:0.5b"
    assert (server.kind, server.api_name, server.version) == ("llama.cpp", "openai", "llama.cpp b0-unknown")
    assert server.details[name] == ModelDetails("Q4_K - Medium", 630167424, 4096, 2)
    identity = server.digest(name)
    assert identity is not None
    assert identity.startswith("485452288 bytes, 630167424 parameters, Q4_K - Medium, template ")
    assert server.digest("another") is None


def test_another_chat_template_is_another_model() -> None:
    pages = recorded("llamacpp")
    other = {**pages, "/props": {**pages["/props"], "chat_template": "other"}}
    identities = set()
    for each in (pages, other):
        with Scripted(answering(each, "llama.cpp")) as peer:
            identities.add(OPENAI.probe(f"{peer.url}/v1").digest("qwen2.5-coder:0.5b"))
    assert len(identities) == 2


@pytest.mark.parametrize(
    ("pages", "kind", "version", "identity", "details"),
    [
        ({"/v1/models": models("vllm", root="org/model", max_model_len=4096), "/version": {"version": "0.32.0"}},
         "vllm", "vllm 0.32.0", "path:org/model", ModelDetails(context_tokens=4096)),
        ({"/v1/models": models("sglang"), "/model_info": {"model_path": "org/model"},
          "/server_info": {"version": "0.5.23", "quantization": "fp8", "context_length": 8192,
                           "max_running_requests": 9}},
         "sglang", "sglang 0.5.23", "path:org/model", ModelDetails("fp8", None, 8192, 9)),
        ({"/v1/models": models("me"), "/info": {"model_id": "org/model", "model_sha": "abc", "version": "3.3"}},
         "tgi", "tgi 3.3", "sha:abc", None),
        ({"/v1/models": models("organization_owner"),
          "/api/v0/models": {"data": [{"id": "m", "quantization": "Q8_0", "max_context_length": 2048}]}},
         "lm-studio", "lm-studio", "name:m", ModelDetails("Q8_0", None, 2048)),
        ({"/v1/models": models("library"), "/api/version": {"version": "0.9"},
          "/api/tags": {"models": [{"name": "m:latest", "digest": "d1", "details": {"parameter_size": "1.5B"}}]}},
         "ollama", "ollama 0.9", "d1", ModelDetails(parameters=1_500_000_000)),
        ({"/v1/models": models("somebody")}, "", "", "name:m", None),
        # Like one of these, and yet in another form: what can be read of it.
        ({"/v1/models": models("llamacpp", meta="none")}, "llama.cpp", "llama.cpp", "name:m", None),
        ({"/v1/models": models("organization_owner"), "/api/v0/models": {"data": ["m"]}},
         "lm-studio", "lm-studio", "name:m", None),
        ({"/v1/models": models("library"), "/api/version": {"version": "0.9"}, "/api/tags": {"models": "none"}},
         "ollama", "ollama 0.9", "name:m", None),
        ({"/v1/models": models("vllm", max_model_len="long")}, "vllm", "vllm", "name:m", ModelDetails()),
    ],
)  # fmt: skip
def test_each_kind_of_server_is_told_by_what_it_answers(
    pages: dict[str, Any], kind: str, version: str, identity: str, details: ModelDetails | None
) -> None:
    with Scripted(answering(pages)) as peer:
        server = OPENAI.probe(f"{peer.url}/v1")
    assert (server.kind, server.version, server.digest("m")) == (kind, version, identity)
    assert server.details.get(server.full_name("m")) == details


def test_a_server_of_messages_is_asked_beside_its_base_url() -> None:
    with Scripted(answering({"/v1/models": models("vllm")})) as peer:
        server = ANTHROPIC.probe(peer.url)
        assert peer.asked[0].head.startswith("GET /v1/models ")
    assert (server.api_name, server.kind) == ("anthropic", "vllm")


@pytest.mark.parametrize(
    "pages",
    [{}, {"/api/version": {"version": "1.0"}}, {"/api/version": {"version": "1.0"}, "/api/tags": {"models": "no"}}],
)
def test_what_lists_no_models_and_is_of_no_known_kind_is_told(pages: dict[str, Any]) -> None:
    with (
        Scripted(answering(pages)) as peer,
        pytest.raises(ServerError, match=r"lists no models \(HTTP 404\): check --host"),
    ):
        OPENAI.probe(f"{peer.url}/v1")


def test_a_key_that_is_missing_is_told_before_the_load() -> None:
    def script(peer: Peer) -> None:
        while peer.read() is not None:
            peer.plain(401, b'{"error": {"message": "no key"}}')

    with Scripted(script) as peer, pytest.raises(AccessRefused, match="HTTP 401: set OPENAI_API_KEY"):
        OPENAI.probe(*reach(OPENAI, peer.url, NO_ACCESS))


def test_the_key_goes_with_every_question() -> None:
    access = access_of({"MINE": "secret"}, api_key_env="MINE")
    with Scripted(answering({"/v1/models": models("vllm")})) as peer:
        OPENAI.probe(f"{peer.url}/v1", access)
        assert {asked.headers["authorization"] for asked in peer.asked} == {"Bearer secret"}


@pytest.mark.parametrize(
    ("api", "host", "address"),
    [
        (OPENAI, "127.0.0.1:8080", "http://127.0.0.1:8080/v1"),
        (OPENAI, "https://gpu.lan/v1/", "https://gpu.lan/v1"),
        (OPENAI, "http://gpu.lan/openai/v2", "http://gpu.lan/openai/v2"),
        (OPENAI, None, "https://api.openai.com/v1"),
        (ANTHROPIC, "gpu.lan", "http://gpu.lan"),
        (ANTHROPIC, None, "https://api.anthropic.com"),
    ],
)
def test_a_host_without_a_path_gets_the_usual_one(
    api: Any, host: str | None, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    assert api.address_of(host) == address


@pytest.mark.parametrize("name", ["OPENAI_BASE_URL", "OPENAI_API_BASE"])
def test_the_address_may_come_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.delenv(each, raising=False)
    monkeypatch.setenv(name, "http://there:1/v1")
    assert OPENAI.address_of(None) == "http://there:1/v1"


@pytest.mark.parametrize("host", ["ftp://a", "http://", "http://a:b", "http://a?x=1"])
def test_what_is_no_address_is_told(host: str) -> None:
    with pytest.raises(ServerError, match="is not a valid server address"):
        OPENAI.address_of(host)


@pytest.mark.parametrize("api", ["openai", "responses"])
def test_azures_classic_address_is_told_what_to_give_instead(api: str) -> None:
    with pytest.raises(ServerError, match=r"--base-url, and --models X$") as told:
        server_api(api).address_of("https://u:secret@me.openai.azure.com/openai/deployments/X?api-version=2024-10-21")
    assert "https://me.openai.azure.com/openai/v1 without" in str(told.value)
    with pytest.raises(ServerError, match="give one without a query") as other:
        server_api(api).address_of("https://h/v1?key=secret")
    assert "secret" not in f"{told.value}{other.value}"


USAGE = {"choices": [{"message": {"content": "a"}, "finish_reason": "length"}], "usage": {"prompt_tokens": 12}}


def test_a_prompts_tokens_are_those_of_the_usage() -> None:
    with Scripted(answering({"/v1/chat/completions": USAGE})) as peer:
        assert OPENAI.prompt_tokens(f"{peer.url}/v1", "m", "hi", {}, chat=True) == 12
        assert peer.asked[0].body == {
            "model": "m", "stream": False, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1,
        }  # fmt: skip
    cached = {"content": [], "usage": {"input_tokens": 2, "cache_read_input_tokens": 30}}
    with Scripted(answering({"/v1/messages": cached})) as peer:
        assert ANTHROPIC.prompt_tokens(peer.url, "m", "hi", {}, chat=True) == 32


@pytest.mark.parametrize("given", [None, "2023-06-01"])
def test_what_anthropics_api_insists_on_goes_with_questions_probes_and_the_load(given: str | None) -> None:
    said = {"type": "message", "content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn"}
    access = access_of({}, header=[] if given is None else [f"Anthropic-Version={given}"])
    with Scripted(answering({"/v1/models": models("anthropic"), "/v1/messages": said})) as peer:
        server = ANTHROPIC.probe(peer.url, access)
        assert server.load_model("m")[1] is None
        ANTHROPIC.prompt_tokens(peer.url, "m", "hi", {}, True, access)
        assert ANTHROPIC.answers(peer.url, access)
        prober = Prober(peer.url, 20, access, "anthropic")
        prober.ask("messages", chat(), False)
        prober.close()
        ask(peer.url, chat(), access=access, api=anthropic)
    version = given or AsyncAnthropic(api_key="-").default_headers["anthropic-version"]
    assert {each.headers.get("anthropic-version") for each in peer.asked} == {version}
    assert [each.head.split()[1] for each in peer.asked].count("/v1/messages") == 4


def test_a_model_that_is_not_listed_may_be_there_where_lists_are_not_of_all() -> None:
    alias = {"error": {"type": "not_found_error", "message": "model: claude-typo"}}
    with Scripted(answering({"/v1/models": models("anthropic")})) as peer:
        hosted = ANTHROPIC.probe(peer.url)
    with Scripted(answering({"/v1/models": models("vllm")})) as peer:
        whole = OPENAI.probe(f"{peer.url}/v1")
    assert [hosted.digest(name) for name in ("m", "alias")] == ["name:m", "name:alias"]
    assert [hosted.lists(name) for name in ("m", "alias")] == [True, False]
    assert whole.digest("alias") is None
    with Scripted(lambda peer: (peer.read(), peer.plain(404, json.dumps(alias).encode()))) as peer:
        there = replace(hosted, address=peer.url, listed={"claude-typos": "claude-typos"}, models={"claude-typos": ""})
        with pytest.raises(NoSuchModel, match=r"does not have claude-typo: .*: did you mean claude-typos[?] It has"):
            there.load_model("claude-typo")


def test_loading_a_model_is_the_shortest_request() -> None:
    with Scripted(answering({"/v1/chat/completions": USAGE})) as peer:
        seconds, refused = OPENAI.load_model(f"{peer.url}/v1", "m", {}, None)
    assert seconds is not None
    assert refused is None


def test_a_path_without_an_api_is_no_model_that_is_missing() -> None:
    with Scripted(answering({})) as peer, pytest.raises(NotThisApi, match=r"nothing answers at .*/v1/chat/completions"):
        OPENAI.load_model(f"{peer.url}/v1", "m", {}, None)
    with Scripted(answering({})) as peer:  # its 404 names the model
        assert OPENAI.load_model(f"{peer.url}/v1", "no such path", {}, None) == (None, "HTTP 404: no such path")


def test_a_server_that_redirects_only_what_is_posted_is_told_before_the_load() -> None:
    def script(peer: Peer) -> None:
        while peer.read() is not None:
            peer.head(308, {"Location": "https://other.example/v1/chat/completions", "Content-Length": "0"})

    with (
        Scripted(script) as peer,
        pytest.raises(ServerError, match=r"redirects to https://other\.example/v1: give that"),
    ):
        OPENAI.load_model(f"{peer.url}/v1", "m", {}, None)


def test_embeddings_are_in_the_order_of_the_texts() -> None:
    data = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]}
    with Scripted(answering({"/v1/embeddings": data})) as peer:
        assert OPENAI.embed(f"{peer.url}/v1", "m", ["a", "b"]) == [[1.0], [2.0]]
        with pytest.raises(ServerError, match="2 came for 1 texts"):
            OPENAI.embed(f"{peer.url}/v1", "m", ["a"])


def test_what_only_ollama_has_is_refused() -> None:
    with pytest.raises(ServerError, match="only Ollama's own API pulls models"):
        OPENAI.pull("http://a/v1", "m", lambda *_: None)
    with pytest.raises(ValueError, match="keep-alive"):
        OPENAI.keep_alive("10m")


def test_ollamas_models_have_ollamas_names_under_v1_too() -> None:
    pages = {
        "/v1/models": {"data": [{"id": "Gemma3n:latest"}, {"id": "me/M:1b"}]},
        "/api/version": {"version": "0.9"},
        "/api/tags": {"models": [{"name": "Gemma3n:latest", "digest": "d1"}, {"name": "me/M:1b", "digest": "d2"}]},
    }
    with Scripted(answering(pages)) as peer:
        server = OPENAI.probe(f"{peer.url}/v1")
    for name in ("gemma3n", "gemma3n:latest", "Gemma3n", "registry.ollama.ai/library/gemma3n"):
        assert (server.digest(name), server.name_of(name)) == ("d1", "Gemma3n")
    assert (server.digest("ME/m:1B"), server.name_of("me/m:1b")) == ("d2", "me/M:1b")
    assert server.digest("m:1b") is None
    told = server.api.how_to_get(["m:1b"], server)
    assert told == "it has Gemma3n:latest, me/M:1b: run `ollama pull m:1b`, or name one of these"
    near = server.api.how_to_get(["gema3n"], server)
    assert near.startswith("did you mean Gemma3n? It has Gemma3n:latest, me/M:1b: run ")


@pytest.mark.parametrize(
    ("api", "field"), [("openai", "max_completion_tokens"), ("responses", None), ("anthropic", None)]
)
def test_a_refused_limit_names_the_field_to_use(api: str, field: str | None) -> None:
    refusal = "HTTP 400: Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."
    assert server_api(api).refused_limit(refusal) == field
    assert server_api(api).refused_limit("HTTP 400: context is too long") is None


EACH = ("openai", "responses", "anthropic")


@pytest.mark.parametrize("api", EACH)
@pytest.mark.parametrize(
    ("status", "told"),
    [
        (404, {"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}),
        (400, {"error": {"message": "invalid model ID"}}), (404, {"error": 'model "m" not found, try pulling it'}),
        (422, {"detail": "unknown model m"}),
        (404, {"type": "error", "error": {"type": "not_found_error", "message": "model: m"}}),
        (404, {"error": {"code": 404, "message": "models/m is not found for API version 1", "status": "NOT_FOUND"}}),
        (404, {"error": {"code": "DeploymentNotFound", "message": "The deployment for this resource is not there."}}),
        (404, {"error": {"type": "resource_not_found_error", "message": "Not found the model m or permission denied"}}),
        (400, {"error": {"message": "m is not a valid model ID", "code": 400}}),
    ],
)  # fmt: skip
def test_a_model_that_only_an_answer_shows_to_be_missing(api: str, status: int, told: Any) -> None:
    with Scripted(lambda peer: (peer.read(), peer.plain(status, json.dumps(told).encode()))) as peer:
        address = server_api(api).address_of(peer.url)
        with pytest.raises(NoSuchModel, match=f"the server at {address} does not have m: it says "):
            server_api(api).load_model(address, "m", {}, None)


def test_a_request_that_a_server_refuses_is_no_missing_model() -> None:
    told = b'{"error": {"message": "this model does not support tools, see https://docs"}}'
    with Scripted(lambda peer: (peer.read(), peer.plain(400, told))) as peer:
        refused = OPENAI.load_model(f"{peer.url}/v1", "m", {}, None)
    assert refused == (None, "HTTP 400: this model does not support tools, see https://docs")


@pytest.mark.parametrize("api", [*EACH, "ollama"])
def test_a_server_that_wants_https_says_so_or_is_asked(api: str) -> None:
    page = b"<title>400 The plain HTTP request was sent to HTTPS port</title>"
    with Scripted(lambda peer: (peer.read(), peer.plain(400, page, "text/html"))) as peer:
        address = server_api(api).address_of(peer.url)
        with pytest.raises(ServerError, match=f"speaks https: give --host https{address.removeprefix('http')}"):
            server_api(api).probe(address)


@pytest.mark.parametrize("api", [*EACH, "ollama"])
def test_a_server_that_hangs_up_on_http_is_asked_whether_it_speaks_tls(api: str) -> None:
    context = certificates().server()

    def script(peer: Peer) -> None:
        first = peer.sock.recv(1, socket.MSG_PEEK)
        if first == b"\x16":  # a handshake
            context.wrap_socket(peer.sock, server_side=True).close()
        else:
            peer.reset()

    with Scripted(script) as peer:
        address = server_api(api).address_of(peer.url)
        with pytest.raises(ServerError, match="speaks https: give --host https://"):
            server_api(api).probe(address)
    with Scripted(Peer.reset) as peer:
        address = server_api(api).address_of(peer.url)
        with pytest.raises(ServerError, match=r"no server answers at .* \((.*reset|Server disconnected)"):
            server_api(api).probe(address)


@pytest.mark.parametrize("given", ["http://h:1", "http://h:1/v1", "http://h:1/v1/"])
def test_the_path_of_anthropics_api_stands_once(given: str) -> None:
    assert server_api("anthropic").address_of(given) == "http://h:1"
    assert server_api("anthropic").address_of("http://h:1/proxy/v1") == "http://h:1/proxy"


def test_only_so_many_names_of_models_are_told() -> None:
    names = {f"m{n:02}": "d" for n in range(20)}
    told = OPENAI.how_to_get(["x"], Server("http://h/v1", "", names, "openai", listed={name: name for name in names}))
    assert told.startswith("it has m00, m01,")
    assert told.endswith("m11 and 8 more: load the model there, or name one of these")


@pytest.mark.parametrize(
    ("listing", "health", "server", "there"),
    [
        (200, None, "test", True), (401, None, "test", True), (404, None, "test", True), (429, None, "test", True),
        (500, None, "test", False), (502, None, "nginx", False), (503, None, "envoy", False), (302, None, "x", False),
        (200, 503, "llama.cpp", False), (200, 200, "llama.cpp", True), (200, 404, "llama.cpp", True),
        (401, 503, "llama.cpp", False), (503, None, "llama.cpp", False),
    ],
)  # fmt: skip
def test_a_server_is_there_once_it_takes_requests(listing: int, health: int | None, server: str, there: bool) -> None:
    """llama.cpp lists its model while it loads it; another server's /health may cost money, and is not asked."""
    statuses = {"/v1/models": listing, "/v1/health": health}

    def script(peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            status = statuses[asked.head.split()[1]]
            assert status is not None
            peer.head(status, {"Content-Length": "2", "Server": server, "Location": "/login"})
            peer.sock.sendall(b"{}")

    for api, base in ((OPENAI, "/v1"), (ANTHROPIC, "")):
        with Scripted(script) as peer:
            assert api.answers(f"{peer.url}{base}") is there
            assert len(peer.asked) == (1 if health is None else 2)
    assert not OPENAI.answers("http://127.0.0.1:1/v1")
