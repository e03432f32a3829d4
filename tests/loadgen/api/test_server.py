"""Who answers, whatever its API: address, models and the API's own functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from loadgen.api import APIS, DEFAULT_API
from loadgen.api.sending import ChatApi, chat_api
from loadgen.api.server import Server, ServerApi, server_api


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("http://a:5", "a", 5), ("http://a", "a", 80), ("https://a", "a", 443), ("http://[::1]:7", "::1", 7)],
)
def test_host_and_port_of_an_address(address: str, host: str, port: int) -> None:
    server = Server(address, "1", {})
    assert (server.host, server.port) == (host, port)


def test_a_model_is_found_by_each_of_its_names() -> None:
    server = Server("http://a", "1", {"m:latest": "d"})
    assert (server.digest("m"), server.digest("m:latest"), server.digest("m:1")) == ("d", "d", None)


@pytest.mark.parametrize(
    ("given", "name"),
    [("m", "m"), ("M:LATEST", "m"), ("library/m", "m"), ("Mine:Q4", "Mine:q4"), ("me/mine:Q4", "me/mine:Q4"),
     ("unknown", "unknown"), ("unknown:latest", "unknown")],
)  # fmt: skip
def test_a_model_has_one_name_however_it_is_given(given: str, name: str) -> None:
    server = Server("http://a", "1", {}, listed={"m:latest": "m:latest", "mine:q4": "Mine:q4"})
    assert server.name_of(given) == name


@pytest.mark.parametrize("name", APIS)
@pytest.mark.parametrize(("protocol", "imported"), [(ChatApi, chat_api), (ServerApi, server_api)])
def test_an_api_has_all_that_is_asked_of_it(name: str, protocol: type, imported: Callable[[str], Any]) -> None:
    module = imported(name)
    for member in protocol.__annotations__:
        assert hasattr(module, member), f"{name} lacks {member}"
    for member, function in inspect.getmembers(protocol, inspect.isfunction):
        if not member.startswith("_"):
            wanted = list(inspect.signature(function).parameters)[1:]
            assert list(inspect.signature(getattr(module, member)).parameters) == wanted


def test_the_default_is_one_of_the_apis() -> None:
    assert (chat_api(DEFAULT_API), server_api(DEFAULT_API)) == tuple(map(import_module, APIS[DEFAULT_API]))
