"""A server that lets nobody in without a key: it goes with every question, and without one it is told what to set."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from loadgen.api import ollama
from loadgen.api.ollama_server import (
    ModelWatcher,
    address_of,
    answers,
    embed,
    load_model,
    probe,
    prompt_tokens,
    pull,
)
from loadgen.api.sending import send
from loadgen.api.server import AccessRefused, Server, ServerError, reach, server_api, socket_address
from loadgen.simulator import Simulator
from loadgen.types import RequestRecord
from loadgen.wire.access import NO_ACCESS, Access, access_of
from structbench.matrix.client import Prober
from tests.support.gateway import Gateway, gateway
from tests.support.scripted_server import SOON, ask, chat
from tests.support.simulators import MODELS

KEY = "sk-5ecret"
API = server_api("ollama")


@pytest.fixture(autouse=True)
def _no_key_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OLLAMA_API_KEY", "OLLAMA_HOST", "OLLAMA_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def locked() -> Iterator[Simulator]:
    with Simulator({**MODELS, "fault:503": MODELS["sim:fast"]}, key=KEY) as server:
        yield server


@pytest.fixture
def access(monkeypatch: pytest.MonkeyPatch) -> Access:
    monkeypatch.setenv("OLLAMA_API_KEY", KEY)
    return reach(API, "gpu", NO_ACCESS)[1]


def test_the_key_goes_with_every_question(locked: Simulator, access: Access) -> None:
    url = locked.url
    server = probe(url, access)
    assert (server.version, server.access) == ("0.33.0", access)
    assert load_model(url, "sim:fast", {}, None, access)[1] is None
    assert prompt_tokens(url, "sim:fast", "one two", {}, True, access) is not None
    assert prompt_tokens(url, "sim:fast", "one two", {}, False, access) is not None
    assert len(embed(url, "sim:embed", ["a"], access)) == 1
    assert pull(url, "later", lambda *_: None, access) is None
    watcher = ModelWatcher(url, access)
    assert watcher.loaded("sim:fast") is not None
    watcher.close()
    (record,) = ask(url, chat(model="sim:fast"), access=access)
    assert record.error is None
    prober = Prober(url, 20, access)
    assert prober.ask("chat", chat(model="sim:fast", options={"num_predict": 3}), stream=True).status == 200
    prober.close()


@pytest.mark.parametrize("given", [None, "wrong-key"])
def test_without_the_right_key_each_question_is_refused_in_words(
    locked: Simulator, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    if given is not None:
        monkeypatch.setenv("OLLAMA_API_KEY", given)
    url, (_, access) = locked.url, reach(API, locked.url, NO_ACCESS)
    told = (
        "HTTP 401: set OLLAMA_API_KEY or give --api-key-env"
        if given is None
        else "HTTP 401: the server does not accept the key in OLLAMA_API_KEY"
    )
    for question in (
        lambda: probe(url, access),
        lambda: pull(url, "later", lambda *_: None, access),
        lambda: load_model(url, "sim:fast", {}, None, access),
        lambda: embed(url, "sim:embed", ["a"], access),
    ):
        with pytest.raises(AccessRefused) as caught:
            question()
        assert str(caught.value) == f"{url} answers {told}"
    assert answers(url, access), "it is there"
    assert prompt_tokens(url, "sim:fast", "one", {}, True, access) is None
    (record,) = ask(url, chat(model="sim:fast"), access=access)
    assert record.error is not None
    assert (record.error.kind, record.error.status, record.error.message) == ("http", 401, f"{told} (unauthorized)")


def test_a_key_given_to_a_load_counts_before_that_of_the_environment(
    locked: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "for another server")

    async def asked() -> RequestRecord:
        client = ollama.make_client(locked.url, access_of({"K": KEY}, api_key_env="K"))
        record = await send(ollama, client, chat(model="sim:fast"), SOON)
        await client.close()  # type: ignore[no-untyped-call]
        return record

    assert asyncio.run(asked()).error is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_gateway_that_refuses_only_some_paths_or_later_is_told(status: int, access: Access) -> None:
    def refuses(path: str, headers: Mapping[str, str], _body: bytes) -> int | None:
        assert headers["authorization"] == f"Bearer {KEY}"
        return status if path in ("/api/tags", "/api/chat") else None

    def asked(front: Gateway) -> None:
        with pytest.raises(AccessRefused, match=f"answers HTTP {status}: the server does"):
            probe(front.url, access)
        (record,) = ask(front.url, chat(model="sim:fast"), access=access)
        assert record.error is not None
        assert record.error.message.startswith(f"HTTP {status}: the server does")
        assert record.error.message.endswith("(not with *** and None)")

    with Simulator(MODELS) as sim, gateway(sim.url, refuses) as front:
        asked(front)


def test_credentials_in_the_address_are_shown_and_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "https://ada:w%40rd@gpu.lan/ollama/")
    address, access = reach(API, None, NO_ACCESS)
    assert (address, access.headers) == ("https://gpu.lan/ollama", (("Authorization", "Basic YWRhOndAcmQ="),))
    address, access = reach(API, "ada:w@gpu:8080", NO_ACCESS)
    assert (address, access.headers) == ("http://gpu:8080", (("Authorization", "Basic YWRhOnc="),))
    assert os.environ["OLLAMA_HOST"] not in repr(access)


@pytest.mark.parametrize("host", ["ftp://ada:s3cret@gpu", "https://ada:s3cret@gpu:port"])
def test_what_is_no_address_is_told_without_its_password(host: str) -> None:
    with pytest.raises(ServerError, match="is not a valid server address") as caught:
        reach(API, host, NO_ACCESS)
    assert "s3cret" not in str(caught.value)


def test_two_ways_in_are_one_too_many() -> None:
    with pytest.raises(ServerError, match="the header Authorization is given twice: by the key in K and by the user"):
        reach(API, "https://ada:w@gpu", access_of({"K": KEY}, api_key_env="K"))


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("unix:/run/x.sock", "unix:///run/x.sock"),
        ("http+unix://%2Frun%2Fx.sock", "unix:///run/x.sock"),
        ("UNIX:///run/x.sock", "unix:///run/x.sock"),
        ("unixbox:11434", None),
        ("http://unix", None),
        ("", None),
    ],
)
def test_the_address_of_a_socket(host: str, address: str | None) -> None:
    assert socket_address(host) == address
    if address is not None:
        assert address_of(host) == address
        server = Server(address, "1", {})
        assert (server.host, server.port) == ("/run/x.sock", 0)


@pytest.mark.parametrize("host", ["unix://run/x.sock", "unix://", "unix:///run/", "http+unix://run"])
def test_a_socket_needs_a_whole_path(host: str) -> None:
    with pytest.raises(ServerError, match="is not the address of a unix socket: give --host like unix:///run/"):
        address_of(host)


def test_every_question_is_asked_through_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with Simulator(MODELS, host=f"unix://{path}", key=KEY) as sim:
        url, access = reach(API, sim.url, access_of({"K": KEY}, api_key_env="K"))
        assert url == f"unix://{path}"
        assert probe(url, access).version == "0.33.0"
        assert load_model(url, "sim:fast", {}, None, access)[1] is None
        assert len(embed(url, "sim:embed", ["a"], access)) == 1
        watcher = ModelWatcher(url, access)
        assert watcher.loaded("sim:fast") is not None
        watcher.close()
        records = ask(url, *(chat(model="sim:fast", index=i) for i in range(2)), access=access)
    assert [(record.error, record.clock) for record in records] == [(None, "read")] * 2
    assert [record.connect_s == 0 for record in records] == [False, True], "the connection is kept"
    (gone,) = ask(f"unix://{tmp_path}/nowhere", chat())
    assert gone.error is not None
    assert gone.error.message == f"no connection to {tmp_path}/nowhere: No such file or directory"
