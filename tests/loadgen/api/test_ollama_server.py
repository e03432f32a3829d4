"""What is asked of the server outside the load: its address, who it is, its models."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.api import ollama_server as server_module
from loadgen.api.ollama_server import (
    ModelWatcher,
    address_of,
    answers,
    embed,
    full_name,
    keep_alive,
    load_model,
    probe,
    prompt_tokens,
    pull,
)
from loadgen.api.server import LoadedModel, Server, ServerError
from loadgen.simulator import Simulator
from tests.support.scripted_server import DONE, Peer, Scripted
from tests.support.simulators import FAST, MODELS

NOBODY = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    models = {**MODELS, "loads": replace(FAST, load_s=0.1), "vram": replace(FAST, vram_share=0.25, size=4000)}
    with Simulator(models) as running:
        yield running


TLS = ssl.create_default_context()


@pytest.fixture(autouse=True)
def _certificates_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new client reads them all, which takes longer than the tests."""
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: TLS)


@pytest.fixture(autouse=True)
def _no_address_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_HOST", "OLLAMA_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


# Addresses


@pytest.mark.parametrize(
    ("host", "address"),
    [
        (None, "http://127.0.0.1:11434"),
        ("", "http://127.0.0.1:11434"),
        ("10.0.0.7", "http://10.0.0.7:11434"),
        ("10.0.0.7:8080", "http://10.0.0.7:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("example.org", "http://example.org:11434"),
        ("example.org/", "http://example.org:11434"),
        ("http://example.org", "http://example.org"),
        ("http://example.org:8080/", "http://example.org:8080"),
        ("https://example.org", "https://example.org"),
        ("https://example.org:8443", "https://example.org:8443"),
        ("https://example.org/ollama/", "https://example.org/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("http://[fe80::1]:8080", "http://[fe80::1]:8080"),
    ],
)
def test_every_form_that_the_official_client_takes(host: str | None, address: str) -> None:
    assert address_of(host) == address


@given(
    scheme=st.sampled_from(["", "http://", "https://"]),
    name=st.sampled_from(["", "10.0.0.7", "example.org", "Host", "[::1]", "[FE80::1]", "::1"]),
    port=st.sampled_from(["", ":", ":80", ":443", ":11434", ":8080"]),
    path=st.sampled_from(["", "/", "/a", "/a/b/", "//a"]),
)
def test_an_address_is_what_the_official_client_makes_of_it(scheme: str, name: str, port: str, path: str) -> None:
    import ollama

    def theirs() -> str:
        return str(ollama.Client(f"{scheme}{name}{port}{path}" or "127.0.0.1")._client.base_url).rstrip("/")

    given = f"{scheme}{name}{port}{path}"
    try:
        expected = theirs() if scheme or "://" not in given else None  # no http, whatever it means
    except (ValueError, httpx.InvalidURL):
        expected = None
    if expected is None:
        with pytest.raises(ServerError, match="give --host like"):
            address_of(given)
    else:
        assert address_of(given) == expected


def test_the_environment_is_asked_in_order_and_the_argument_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_BASE_URL", "http://base:1")
    assert address_of(None) == "http://base:1"
    monkeypatch.setenv("OLLAMA_HOST", "host:2")
    assert address_of(None) == "http://host:2"
    assert address_of("given:3") == "http://given:3"
    monkeypatch.setenv("OLLAMA_HOST", "")
    assert address_of(None) == "http://base:1"


@pytest.mark.parametrize("host", ["example.org:port", "ftp://example.org", "[::1", "host:99999"])
def test_what_is_no_address_is_one_line_that_says_what_to_give(host: str) -> None:
    with pytest.raises(ServerError, match="give --host like") as caught:
        address_of(host)
    assert "\n" not in str(caught.value)
    assert repr(host) in str(caught.value)


@pytest.mark.parametrize(
    ("model", "full"),
    [
        ("gemma3n", "gemma3n:latest"),
        ("gemma3n:latest", "gemma3n:latest"),
        ("llama3.2:1b", "llama3.2:1b"),
        ("me/mine", "me/mine:latest"),
        ("host:5000/me/mine", "host:5000/me/mine:latest"),
        ("host:5000/me/mine:q4", "host:5000/me/mine:q4"),
        ("Gemma3N:Latest", "gemma3n:latest"),
        ("library/m", "m:latest"),
        ("registry.ollama.ai/library/m", "m:latest"),
        ("Registry.Ollama.AI/Library/M:1B", "m:1b"),
        ("https://registry.ollama.ai/library/m:1b", "m:1b"),
        ("registry.ollama.ai/me/mine", "me/mine:latest"),
        ("registry.ollama.ai/m", "registry.ollama.ai/m:latest"),
        ("library/me/mine", "library/me/mine:latest"),
        ("hf.co/library/m", "hf.co/library/m:latest"),
        ("hf.co/Me/Mine-GGUF:Q4_K_M", "hf.co/me/mine-gguf:q4_k_m"),
        ("", ":latest"),
    ],
)
def test_names_that_mean_one_model_to_ollama_are_one_name(model: str, full: str) -> None:
    assert full_name(model) == full


@pytest.mark.parametrize(
    ("text", "read"),
    [("10m", "10m"), ("1h30m", "1h30m"), ("-1.5s", "-1.5s"), ("30", 30), ("-1", -1), ("2.5", 2.5), ("1e3", 1000)],
)
def test_how_long_a_model_stays_is_a_duration_as_go_writes_it_or_seconds(text: str, read: str | float) -> None:
    assert keep_alive(text) == read


@pytest.mark.parametrize("text", ["", "ten", "10 m", "m", "inf", "nan", "1d"])
def test_what_ollama_would_not_read_as_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        keep_alive(text)


def test_what_only_reads_words_is_instant() -> None:
    """The simulator and the check of options have no need of the official client."""
    code = "import sys, loadgen.api.ollama_server as m; m.full_name('m'); assert 'ollama' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Who is there


def test_the_simulated_server_is_known_with_its_models(sim: Simulator) -> None:
    server = probe(sim.url)
    assert (server.address, server.version) == (sim.url, "0.33.0")
    assert "gemma3n:latest" in server.models
    assert server.digest("gemma3n") == server.digest("gemma3n:latest")
    assert server.digest("gemma3n")
    assert server.digest("later") is None
    assert answers(sim.url)


def test_nobody_there_says_how_to_start_it() -> None:
    with pytest.raises(ServerError, match=f"no server answers at {NOBODY} .*ollama serve") as caught:
        probe(NOBODY)
    assert "\n" not in str(caught.value)
    assert not answers(NOBODY)


def plain(status: int, data: bytes, content_type: str = "application/json") -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        while peer.read() is not None:
            peer.plain(status, data, content_type)

    return script


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (200, b"<html>It works!</html>"),
        (404, b"404 page not found"),
        (404, b'{"version": "9"}'),
        (500, b""),
        (200, b"{}"),
        (200, b"[]"),
        (200, b"null"),
        (200, b'{"version": 7}'),
        (200, b'{"version": "0.9"}'),  # and no models under /api/tags
        (200, b'{"version": "0.9", "models": [5]}'),
        (200, b'{"version": "0.9", "models": [{"name": "no digest"}]}'),
        (200, b"\xff\xfe"),
    ],
)
def test_what_is_not_ollama_is_told_so(status: int, data: bytes) -> None:
    with Scripted(plain(status, data)) as server, pytest.raises(ServerError, match="is not Ollama") as caught:
        probe(server.url)
    assert server.url in str(caught.value)


@pytest.mark.parametrize("models", ["[]", "null"])
def test_a_server_without_models_is_a_server(models: str) -> None:
    with Scripted(plain(200, f'{{"version": "0.9", "models": {models}}}'.encode())) as server:
        assert probe(server.url) == Server(server.url, "0.9", {}, kind="ollama")


@pytest.mark.parametrize("text", [
    "Client sent an HTTP request to an HTTPS server.\n", "The plain HTTP request was sent to HTTPS port",
    "You're speaking plain HTTP to an SSL-enabled server port.",
])  # fmt: skip
def test_a_server_that_wants_https_is_not_asked_in_plain_http(text: str) -> None:
    with Scripted(plain(400, text.encode(), "text/plain")) as server:
        with pytest.raises(ServerError) as caught:
            probe(server.url)
        assert str(caught.value) == f"{server.url} speaks https: give --host https://127.0.0.1:{server.port}"


QUESTIONS: dict[str, Callable[[str], Any]] = {
    "/api/version": probe,
    "/api/pull": lambda url: pull(url, "m", lambda *_: None),
    "/api/generate": lambda url: load_model(url, "m", {}, None),
    "/api/chat": lambda url: prompt_tokens(url, "m", "hi", {}, True),
    "/api/embed": lambda url: embed(url, "m", ["a"]),
}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("path", QUESTIONS)
def test_a_redirect_is_told_whatever_is_asked_and_not_followed(path: str, status: int) -> None:
    def redirect(peer: Peer) -> None:
        while peer.read() is not None:
            peer.head(status, {"Location": f"https://other.example:8443/ollama{path}", "Content-Length": "0"})

    with Scripted(redirect) as server:
        with pytest.raises(ServerError) as caught:
            QUESTIONS[path](server.url)
        assert [asked.head.split()[1] for asked in server.asked] == [path]
        assert str(caught.value) == f"{server.url} redirects to https://other.example:8443/ollama: give that as --host"
        assert ModelWatcher(server.url).loaded("m") is None
        assert answers(server.url) is False


@pytest.mark.parametrize(
    ("place", "shown"), [("/ollama/api/version", "{}/ollama"), ("//b/login?to=x", "http://b/login?to=x")]
)
def test_where_a_redirect_leads_is_told_as_an_address(place: str, shown: str) -> None:
    def redirect(peer: Peer) -> None:
        peer.read()
        peer.head(302, {"Location": place, "Content-Length": "0"})

    with Scripted(redirect) as server, pytest.raises(ServerError) as caught:
        probe(server.url)
    assert str(caught.value) == f"{server.url} redirects to {shown.format(server.url)}: give that as --host"


@pytest.mark.parametrize("name", ["http_proxy", "all_proxy"])
def test_a_proxy_that_stands_in_the_way_is_named_with_how_to_pass_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    what_to_do = "set no_proxy=127.0.0.1 to ask it directly, or correct http_proxy"
    monkeypatch.setenv(name, "http://me:secret@127.0.0.1:9")
    with pytest.raises(ServerError) as caught:
        probe("http://127.0.0.1:11434")
    told = str(caught.value)
    assert told.startswith("no server answers at http://127.0.0.1:11434 by way of the proxy http://127.0.0.1:9 (")
    assert told.endswith(what_to_do)
    with Scripted(plain(503, b"<html>no such host</html>", "text/html")) as proxy:
        monkeypatch.setenv(name, f"127.0.0.1:{proxy.port}")
        with pytest.raises(ServerError) as caught:
            probe("http://127.0.0.1:11434")
        assert str(caught.value) == (
            f"what answers at http://127.0.0.1:11434 by way of the proxy {proxy.url} is not Ollama: {what_to_do}"
        )
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ServerError, match="start it with `ollama serve`"):
        probe(NOBODY)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "http://[::", "http://"])
def test_a_proxy_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(ServerError, match=r"not an http proxy: set no_proxy=127\.0\.0\.1 "):
        probe("http://127.0.0.1:11434")


def test_a_port_that_does_not_speak_http_is_no_server() -> None:
    def script(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.sock.sendall(b"SSH-2.0-OpenSSH_9\r\n")

    with Scripted(script) as server:
        with pytest.raises(ServerError, match="no server answers"):
            probe(server.url)
        assert not answers(server.url)


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "_QUESTION_TIMEOUT_S", 0.2)
    with Scripted(lambda peer: peer.sock.recv(1) and peer.file.read()) as server:  # type: ignore[func-returns-value]
        with pytest.raises(ServerError, match="timed out"):
            probe(server.url)
        assert not answers(server.url)


# Models


def test_loading_a_model_takes_as_long_as_the_server_needs(sim: Simulator) -> None:
    first, refused = load_model(sim.url, "loads", {}, "1m")
    assert refused is None
    assert first is not None
    assert first >= 0.1
    assert load_model(sim.url, "loads", {}, "1m")[1] is None


def test_why_a_model_cannot_be_loaded_is_told(sim: Simulator) -> None:
    assert load_model(sim.url, "nosuch:1b", {}, None) == (None, "model 'nosuch:1b' not found")
    seconds, error = load_model(NOBODY, "m", {}, None)
    assert seconds is None
    assert error


def test_loading_uses_the_options_that_the_load_will_use() -> None:
    """Another ``num_ctx`` would make the server load the model again at the first request."""

    def script(peer: Peer) -> None:
        peer.read()
        peer.answer({"response": "", "done": True, "load_duration": 2_000_000_000})

    with Scripted(script) as server:
        assert load_model(server.url, "m", {"num_ctx": 99}, "5m") == (2.0, None)
        body = server.asked[0].body
    assert body["options"]["num_ctx"] == 99
    assert (body["keep_alive"], body["prompt"]) == ("5m", "")


@pytest.mark.parametrize("body", ["<html>Sign in</html>", "[]", '{"error": {"message": "no"}}', "not json", "[" * 3000])
def test_what_is_no_answer_of_ollamas_is_a_reason_and_no_crash(body: str) -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.plain(200, body.encode())

    with Scripted(script) as server:
        seconds, reason = load_model(server.url, "m", {}, None)
        assert seconds is None
        assert reason
        assert prompt_tokens(server.url, "m", "x", {}, chat=True) is None
        with pytest.raises(ServerError, match="m cannot be pulled: "):
            pull(server.url, "m", lambda *_: None)
        with pytest.raises(ServerError, match="m makes no embeddings: "):
            embed(server.url, "m", ["x"])
        with pytest.raises(ServerError, match="is not Ollama"):
            probe(server.url)


def test_pull_shows_progress_and_the_model_is_there(sim: Simulator) -> None:
    seen: list[tuple[str, int, int]] = []
    assert probe(sim.url).digest("later") is None
    pull(sim.url, "later", lambda *step: seen.append(step))
    assert seen[0][0] == "pulling manifest"
    assert seen[-1][0] == "success"
    with_bytes = [(done, total) for _, done, total in seen if total]
    assert with_bytes
    assert all(0 <= done <= total for done, total in with_bytes)
    assert probe(sim.url).digest("later") is not None


def test_a_pull_that_fails_says_which_and_why(sim: Simulator) -> None:
    with pytest.raises(ServerError, match=r"nosuch:9b cannot be pulled: .*file does not exist"):
        pull(sim.url, "nosuch:9b", lambda *_: None)
    with pytest.raises(ServerError, match="m cannot be pulled"):
        pull(NOBODY, "m", lambda *_: None)

    def breaks(peer: Peer) -> None:
        peer.read()
        peer.head()
        peer.chunk({"status": "pulling manifest"})

    with Scripted(breaks) as server, pytest.raises(ServerError, match="m cannot be pulled"):
        pull(server.url, "m", lambda *_: None)


@pytest.mark.parametrize("chat", [True, False])
def test_how_many_tokens_a_prompt_has(sim: Simulator, chat: bool) -> None:
    few, many = (prompt_tokens(sim.url, "sim:fast", text, {}, chat) for text in ("one", "one two three four five"))
    assert few is not None
    assert many is not None
    assert 0 < few < many
    assert prompt_tokens(sim.url, "nosuch", "one", {}, chat) is None
    assert prompt_tokens(NOBODY, "m", "one", {}, chat) is None


def test_every_character_that_json_allows_is_part_of_a_line() -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.answer('{"response": "a\u0085b\u2028c", "done": false}\n'.encode(), b"\n",
                    b'{"response": "", "done": true, "prompt_eval_count": 7}\n')  # fmt: skip

    with Scripted(script) as server:
        assert prompt_tokens(server.url, "m", "hi", {}, False) == 7


def test_a_server_that_does_not_count_is_none() -> None:
    def script(peer: Peer) -> None:
        peer.read()
        peer.answer(DONE)

    with Scripted(script) as server:
        assert prompt_tokens(server.url, "m", "one", {}, True) is None


# Watching


@pytest.fixture
def watch(sim: Simulator) -> Iterator[ModelWatcher]:
    watching = ModelWatcher(sim.url)
    yield watching
    watching.close()


def test_a_loaded_model_is_seen_with_its_share_on_the_gpu(sim: Simulator, watch: ModelWatcher) -> None:
    load_model(sim.url, "vram", {}, "1m")
    found, again = watch.loaded("vram"), watch.loaded("vram:latest")
    assert found is not None
    assert again is not None
    assert replace(found, expiry_s=None) == replace(again, expiry_s=None) == LoadedModel(4800, 1200, None, 4096)
    assert 0 < (again.expiry_s or 0) <= (found.expiry_s or 0) <= 60
    assert watch.loaded("sim:think") is None
    load_model(sim.url, "vram", {}, 0)


@pytest.mark.parametrize("data", [b"{}", b'{"models": null}', b"[]", b"x", b'{"models": [5]}', b'{"models": [{}]}',
                                  json.dumps({"models": [{"name": "m", "size": None}]}).encode()])  # fmt: skip
def test_an_odd_answer_is_no_measurement_and_no_end_of_the_run(data: bytes) -> None:
    with Scripted(plain(200, data)) as server:
        watching = ModelWatcher(server.url)
        assert watching.loaded("m") is None
        watching.close()


def test_a_lost_server_is_no_measurement() -> None:
    watching = ModelWatcher(NOBODY)
    assert watching.loaded("m") is None
    watching.close()


def test_watching_keeps_its_connection() -> None:
    entry: dict[str, Any] = {"name": "m:latest", "size": 10}
    with Scripted(plain(200, json.dumps({"models": [entry]}).encode())) as server:
        watching = ModelWatcher(server.url)
        assert [watching.loaded("m") for _ in range(3)] == [LoadedModel(10, 0)] * 3
        assert server.connections == 1
        watching.close()
