"""A server of any API beside the load: its identity, its models, and what an API provides to ask for them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from loadgen.api import APIS, DEFAULT_API
from loadgen.wire.access import NO_ACCESS, Access, split_userinfo, unix_path

REFUSED = (401, 403)
"""The statuses with which a server lets nobody in."""


class ServerError(Exception):
    """The server does not answer as needed; the message is one line for the user."""


class AccessRefused(ServerError):
    """The server answers 401 or 403: the message says what to set."""


class NoSuchModel(ServerError):
    """The server does not have the model, as it says when it is asked for an answer."""


class Redirects(ServerError):
    """The server answers with another address, which nothing follows: the message says what to give."""


class NotThisApi(ServerError):
    """Something answers, but not as a server of this API."""


@dataclass(frozen=True, slots=True)
class ModelDetails:
    """What a server tells of a model; None where it does not."""

    quantization: str | None = None
    parameters: int | None = None
    context_tokens: int | None = None
    slots: int | None = None
    """Requests that it answers at a time."""
    size_bytes: int | None = None
    completes: bool = True
    """Whether it runs on this server and answers prompts: no model in a cloud, and none for embeddings."""

    def __post_init__(self) -> None:
        """What is told in another form than this is not told."""
        for name, kind in (
            ("quantization", str),
            ("parameters", int),
            ("context_tokens", int),
            ("slots", int),
            ("size_bytes", int),
        ):
            if not isinstance(getattr(self, name), kind):
                object.__setattr__(self, name, None)


@dataclass(frozen=True, slots=True)
class Server:
    """The server at ``address``; ``models`` maps each model's full name to the strongest identity it tells."""

    address: str
    version: str
    models: Mapping[str, str]
    api_name: str = DEFAULT_API
    listed: Mapping[str, str] = field(default_factory=dict)
    """Full name -> the name by which the server lists the model."""
    access: Access = NO_ACCESS
    kind: str = ""
    """The server's software, where that can be told: ollama, llama.cpp, vllm, …"""
    lists_all: bool = True
    """False: a model that it does not list may be there too, as an alias or by a gateway's pattern."""
    limit_field: str | None = None
    """In what it takes the limit of an answer, where that is known not to be the API's usual field."""
    details: Mapping[str, ModelDetails] = field(default_factory=dict)
    """Full name of a model -> what is known of it."""

    @property
    def api(self) -> ServerApi:
        return server_api(self.api_name)

    @property
    def host(self) -> str:
        return unix_path(self.address) or urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        """The port; 0 for a unix socket, which has none."""
        url = urlsplit(self.address)
        return 0 if url.scheme == "unix" else url.port or (443 if url.scheme == "https" else 80)

    def full_name(self, model: str) -> str:
        """Return the one form of all names that mean the same model to the server, by Ollama's rule on its /v1 too."""
        rule = DEFAULT_API if self.kind == DEFAULT_API else self.api_name
        return server_api(rule).full_name(model)

    def name_of(self, model: str) -> str:
        """Return the one name of a model, however it was given: the listed one, without a tag that is understood."""
        full_name = self.full_name
        listed = self.listed.get(full_name(model), model)
        bare = listed.rpartition(":")[0]
        return bare if bare and full_name(bare) == full_name(listed) else listed

    def names(self, most: int = 10) -> str:
        """Return the models by name, as many as are worth reading: ``a:1b, b:7b and 3 more``."""
        known = sorted(dict.fromkeys(self.name_of(name) for name in self.models))
        more = f" and {len(known) - most} more" if len(known) > most else ""
        return (", ".join(known[:most]) or "no model") + more

    def meant(self, models: Sequence[str]) -> str:
        """Return ``did you mean a:1b? `` where a name of the server is like one that it lacks, else nothing."""
        from difflib import get_close_matches

        known = [self.name_of(name) for name in self.models]
        near = dict.fromkeys(name for model in models for name in get_close_matches(model, known, n=1, cutoff=0.75))
        return f"did you mean {' and '.join(near)}? " if near else ""

    def digest(self, model: str) -> str | None:
        """Return the model's identity; None if the server does not have it."""
        found = self.models.get(self.full_name(model))
        return f"name:{model}" if found is None and not self.lists_all else found

    def lists(self, model: str) -> bool:
        return self.full_name(model) in self.models

    def load_model(
        self, model: str, options: Mapping[str, Any] = MappingProxyType({}), keep_alive: str | float | None = None,
        limit_field: str | None = None,
    ) -> tuple[float | None, str | None]:  # fmt: skip
        """Do as ``ServerApi.load_model``; what NoSuchModel says ends in what to do."""
        try:
            return self.api.load_model(self.address, model, options, keep_alive, self.access, limit_field)
        except NoSuchModel as error:
            if not self.models:
                raise
            raise NoSuchModel(f"{error}: {self.api.how_to_get([model], self)}") from None


def pull_commands(models: Sequence[str]) -> str:
    """Return what a shell has to run for Ollama to have these models."""
    return "; ".join(f"ollama pull {shlex.quote(model)}" for model in models)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in the server's memory; ``vram_bytes`` of ``size_bytes`` are on a GPU."""

    size_bytes: int
    vram_bytes: int
    expiry_s: float | None = None
    """Seconds until the server unloads it if it stays idle; None if the server does not report it."""
    context_tokens: int | None = None
    """The context it was loaded with; None if the server does not report it."""


class Watcher(Protocol):
    """Looks for a model in a server's memory over one connection."""

    def loaded(self, model: str) -> LoadedModel | None: ...
    def close(self) -> None: ...


class ServerApi(Protocol):
    """What an API's module provides about its servers; ``ollama_server`` says what each function returns."""

    PROVIDER: str
    """Its name in the GenAI semantic conventions."""
    LOADING_OPTIONS: frozenset[str]
    """The options that belong to a loaded model: a request with another value makes the server load it again."""
    HOST_VARIABLES: Sequence[str]
    """Variables that hold the server's address; the first that is set counts."""
    KEY_VARIABLE: str
    """The variable that holds the key, sent as ``Authorization: Bearer``."""

    def full_name(self, model: str) -> str: ...
    def how_to_get(self, models: Sequence[str], server: Server) -> str:
        """Return what to do about models that the server lacks."""

    def smallest(self, server: Server, most: int) -> list[str]:
        """Return the names of the smallest models that can be measured unasked; none where that cannot be told."""

    def keep_alive(self, text: str) -> str | float: ...
    def address_of(self, host: str | None) -> str: ...
    def probe(self, address: str, access: Access = ...) -> Server: ...
    def answers(self, address: str, access: Access = ...) -> bool: ...
    def pull(
        self, address: str, model: str, on_progress: Callable[[str, int, int], None], access: Access = ...
    ) -> None: ...
    def load_model(
        self, address: str, model: str, options: Mapping[str, Any], keep_alive: str | float | None,
        access: Access = ..., limit_field: str | None = ...,
    ) -> tuple[float | None, str | None]: ...  # fmt: skip
    def prompt_tokens(
        self, address: str, model: str, prompt: str, options: Mapping[str, Any], chat: bool,
        access: Access = ..., limit_field: str | None = ...,
    ) -> int | None: ...  # fmt: skip
    def refused_limit(self, refusal: str) -> str | None:
        """Return the field in which the limit of an answer is to be given, if the server refused the usual one."""

    def embed(
        self, address: str, model: str, texts: Sequence[str], access: Access = ...
    ) -> Sequence[Sequence[float]]: ...
    def ModelWatcher(self, address: str, access: Access = ...) -> Watcher: ...


def given_host(variables: Sequence[str], host: str | None) -> str:
    """Return the address that the user gave, here or in the first variable that is set; "" for none."""
    return host or next((found for name in variables if (found := os.environ.get(name))), "")


def reach(api: ServerApi, host: str | None, access: Access) -> tuple[str, Access]:
    """Return the server's address without credentials, and the access with them or with the API's own key.

    Raises ServerError.
    """
    address = api.address_of(host)
    userinfo = split_userinfo(given_host(api.HOST_VARIABLES, host))[1]
    try:
        return address, access.completed(userinfo, api.KEY_VARIABLE, os.environ)
    except ValueError as error:
        raise ServerError(str(error)) from None


def socket_address(host: str) -> str | None:
    """Return ``unix:///path`` for an address of a unix socket (also ``http+unix://%2Fpath``), None for another.

    Raises ServerError if the path is not absolute.
    """
    scheme, found, rest = host.partition(":")
    if not found or scheme.lower() not in ("unix", "http+unix"):
        return None
    path = unquote(rest.removeprefix("//")) if scheme.lower() == "http+unix" else rest.removeprefix("//")
    if not path.startswith("/") or path.endswith("/"):
        raise ServerError(f"{host!r} is not the address of a unix socket: give --host like unix:///run/ollama.sock")
    return f"unix://{path}"


def server_api(name: str) -> ServerApi:
    """Import the API of that name."""
    module, _, value = APIS[name][1].partition(":")
    found = import_module(module)
    return cast("ServerApi", getattr(found, value) if value else found)
