"""A server of any API beside the load: its identity, its models, and what an API provides to ask for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from loadgen.api import APIS, DEFAULT_API


class ServerError(Exception):
    """The server does not answer as needed; the message is one line for the user."""


@dataclass(frozen=True, slots=True)
class Server:
    """The server at ``address``; ``models`` maps each model's full name to its digest."""

    address: str
    version: str
    models: Mapping[str, str]
    api_name: str = DEFAULT_API
    listed: Mapping[str, str] = field(default_factory=dict)
    """Full name -> the name by which the server lists the model."""

    @property
    def api(self) -> ServerApi:
        return server_api(self.api_name)

    @property
    def host(self) -> str:
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        url = urlsplit(self.address)
        return url.port or (443 if url.scheme == "https" else 80)

    def name_of(self, model: str) -> str:
        """Return the one name of a model, however it was given: the listed one, without a tag that is understood."""
        full_name = self.api.full_name
        listed = self.listed.get(full_name(model), model)
        bare = listed.rpartition(":")[0]
        return bare if bare and full_name(bare) == full_name(listed) else listed

    def digest(self, model: str) -> str | None:
        return self.models.get(self.api.full_name(model))


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in the server's memory; ``vram_bytes`` of ``size_bytes`` are on a GPU."""

    size_bytes: int
    vram_bytes: int
    expiry_s: float | None = None
    """Seconds until the server unloads it if it stays idle; None if the server does not report it."""


class Watcher(Protocol):
    """Looks for a model in a server's memory over one connection."""

    def loaded(self, model: str) -> LoadedModel | None: ...
    def close(self) -> None: ...


class ServerApi(Protocol):
    """What an API's module provides about its servers; ``ollama_server`` says what each function returns."""

    PROVIDER: str
    """Its name in the GenAI semantic conventions."""

    def full_name(self, model: str) -> str: ...
    def how_to_pull(self, model: str) -> str: ...
    def keep_alive(self, text: str) -> str | float: ...
    def address_of(self, host: str | None) -> str: ...
    def probe(self, address: str) -> Server: ...
    def answers(self, address: str) -> bool: ...
    def pull(self, address: str, model: str, on_progress: Callable[[str, int, int], None]) -> None: ...
    def load_model(
        self, address: str, model: str, options: Mapping[str, Any], keep_alive: str | float | None
    ) -> tuple[float | None, str | None]: ...
    def prompt_tokens(
        self, address: str, model: str, prompt: str, options: Mapping[str, Any], chat: bool
    ) -> int | None: ...
    def embed(self, address: str, model: str, texts: Sequence[str]) -> Sequence[Sequence[float]]: ...
    def ModelWatcher(self, address: str) -> Watcher: ...


def server_api(name: str) -> ServerApi:
    """Import the API of that name."""
    return cast("ServerApi", import_module(APIS[name][1]))
