"""Servers of OpenAI's and Anthropic's APIs as ServerApis: who they are, and what they have.

Servers of many kinds speak these; a kind is told by what only it answers (``kinds``). None of them is asked to load or
pull a model: the first request does the one, its operator the other.
"""

# ruff: noqa: ARG002 - each class answers the same questions
from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from loadgen.api import DEFAULT_API, blame, kinds, openai, sse
from loadgen.api.questions import allowed, client_of, unanswered
from loadgen.api.server import (
    AccessRefused,
    LoadedModel,
    NoSuchModel,
    NotThisApi,
    Redirects,
    Server,
    ServerError,
    given_host,
    pull_commands,
)
from loadgen.types import Request
from loadgen.wire.access import NO_ACCESS, Access, masked_address, split_userinfo

if TYPE_CHECKING:
    import httpx

_QUESTION_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 600.0
_NOTHING_THERE = (404, 405)
_LACKING = (400, 404, 422)
_NO_SUCH_MODEL = re.compile(
    r"\bmodels?\b.{0,60}\bnot (found|exist|available|supported|a valid)|\b(unknown|invalid|no such) model\b"
    r"|\bnot (found the|a valid) model\b|\bunable to access (the )?model\b",
    re.IGNORECASE,
)
_MODEL_MISSING = ("model_not_found", "invalid_model", "deploymentnotfound")
"""Codes and types of errors that say it."""
_NOT_FOUND = ("not_found_error", "resource_not_found_error", "not_found")
"""Those that say it where the text names the model."""
_TOLD = 300
_MOST_NAMES = 12
_OPENAIS_OWN = "api.openai.com"
_HOSTED = (_OPENAIS_OWN, "api.anthropic.com")
"""They are not asked what only other servers answer."""


@dataclass(frozen=True)
class V1Server:
    """One API's questions; ``path`` is where its requests go below the base URL, ``usual`` the base URL's own path."""

    api_name: str
    path: str
    usual: str
    default_address: str
    PROVIDER: str
    HOST_VARIABLES: Sequence[str]
    KEY_VARIABLE: str
    prompt_count: str
    """The field of ``usage`` that counts the prompt's tokens."""

    @property
    def LOADING_OPTIONS(self) -> frozenset[str]:
        """No option of a request makes such a server load its model again."""
        return frozenset()

    def full_name(self, model: str) -> str:
        return model

    def how_to_get(self, models: Sequence[str], server: Server) -> str:
        """Return what to do about models that the server lacks."""
        names = sorted(server.listed.values())
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        meant = server.meant(models)
        has = f"{meant}{'It' if meant else 'it'} has {', '.join(names[:_MOST_NAMES]) or 'no model'}{more}"
        if server.kind == DEFAULT_API:
            return f"{has}: run `{pull_commands(models)}`, or name one of these"
        return f"{has}: load the model there, or name one of these"

    def smallest(self, server: Server, most: int) -> list[str]:
        """Return the only model: of several, some may cost money, and none tells its size."""
        names = list(server.models)
        return names[:most] if len(names) == 1 and "*" not in names[0] else []

    def keep_alive(self, text: str) -> str | float:
        raise ValueError("only Ollama's own API has --keep-alive: leave it out")

    def address_of(self, host: str | None) -> str:
        """Return the base URL, without credentials: a host without a path gets the API's usual one."""
        given = given_host(self.HOST_VARIABLES, host) or self.default_address
        bare = split_userinfo(given)[0]
        try:
            url = urlsplit(bare if "://" in bare else f"http://{bare}")
            valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
        except ValueError:
            valid = False
        if valid and (url.query or "/openai/deployments/" in url.path):
            bare = urlunsplit((url.scheme, url.netloc, url.path, "", ""))
            raise ServerError(f"{bare + '?…'!r} is not a valid server address: {_whole_address(url)}")
        if not valid or url.fragment:
            raise ServerError(f"{masked_address(given)!r} is not a valid server address: "
                              f"give --host like http://127.0.0.1:8000{self.usual}")  # fmt: skip
        path = url.path.rstrip("/")
        if self.path.startswith("/v1/"):
            path = path.removesuffix("/v1")
        return urlunsplit((url.scheme, url.netloc, path or self.usual, "", ""))

    def probe(self, address: str, access: Access = NO_ACCESS) -> Server:
        """Return the server at the base URL; ServerError if there is none, or it does not speak this API."""
        import httpx

        try:
            with self._client(_root(address), _QUESTION_TIMEOUT_S, access) as http:
                return _identified(self, http, address, access)
        except (httpx.RequestError, OSError) as error:
            raise unanswered(error, address, "start it, or give --host", access) from None

    def answers(self, address: str, access: Access = NO_ACCESS) -> bool:
        """Return whether the server takes requests, if only to refuse them; a gateway may answer in its place."""
        import httpx

        v1 = urlsplit(self._v1(address)).path
        try:
            with self._client(_root(address), _QUESTION_TIMEOUT_S, access) as http:
                listing = http.get(f"{v1}/models")
                return listing.status_code < 500 and kinds.is_ready(http, listing, v1)
        except (httpx.RequestError, OSError, ServerError):
            return False

    def pull(
        self, address: str, model: str, on_progress: Callable[[str, int, int], None], access: Access = NO_ACCESS
    ) -> None:
        raise ServerError(f"--pull {model}: only Ollama's own API pulls models: leave it out")

    def load_model(
        self, address: str, model: str, options: Mapping[str, Any], keep_alive: str | float | None,
        access: Access = NO_ACCESS, limit_field: str | None = None,
    ) -> tuple[float | None, str | None]:  # fmt: skip
        """Send the shortest request, for which a server loads the model; return its seconds, and a refusal.

        Raises NotThisApi if the server has nothing at the API's path, NoSuchModel, AccessRefused and Redirects.
        """
        began = monotonic()
        try:
            answer = self._ask(address, model, "Say hello.", access, limit_field)
        except (NotThisApi, NoSuchModel, AccessRefused, Redirects):
            raise
        except ServerError as error:
            return None, str(error)
        if "usage" not in answer and not (answer.get("choices") or answer.get("output") or answer.get("content")):
            return None, f"the answer is not what this API sends: {access.masked(json.dumps(answer))[:200]}"
        return monotonic() - began, None

    def refused_limit(self, refusal: str) -> str | None:
        """Return the field in which the limit of an answer is to be given, if the server refused the usual one."""
        other = openai.LIMIT_FIELDS[1]
        return other if self.api_name == OPENAI.api_name and other in refusal else None

    def prompt_tokens(
        self, address: str, model: str, prompt: str, options: Mapping[str, Any], chat: bool,
        access: Access = NO_ACCESS, limit_field: str | None = None,
    ) -> int | None:  # fmt: skip
        """Return the number of tokens of the prompt with its template; None if the server does not report it."""
        try:
            usage = self._ask(address, model, prompt, access, limit_field).get("usage") or {}
        except ServerError:
            return None
        counts = (self.prompt_count, "cache_read_input_tokens", "cache_creation_input_tokens")
        return None if usage.get(self.prompt_count) is None else sum(usage.get(name) or 0 for name in counts)

    def _ask(self, address: str, model: str, prompt: str, access: Access, limit_field: str | None) -> Mapping[str, Any]:
        """Ask for one token; ServerError with the server's reason if there is no answer."""
        import httpx

        from loadgen.api.sending import chat_api

        message = {"role": "user", "content": prompt}
        few = {"num_predict": 1}
        request = Request(index=-1, model=model, messages=(message,), options=few, limit_field=limit_field)
        body = chat_api(self.api_name).body(request, stream=False)
        try:
            with self._client(address, _LOAD_TIMEOUT_S, access) as http:
                answer = allowed(http.post(address + self.path, json=body), address, access)
                if answer.status_code in _NOTHING_THERE and not _names(answer.text, model):
                    raise NotThisApi(f"nothing answers at {address}{self.path} (HTTP {answer.status_code}): check "
                                     "--host and its path, or choose another --api")  # fmt: skip
                said = answer.json()
        except (httpx.RequestError, OSError) as error:
            raise ServerError(access.masked(str(error) or type(error).__name__)) from None
        except kinds.UNREADABLE:
            raise ServerError(f"HTTP {answer.status_code}, and the answer is not JSON") from None
        if answer.status_code == 200 and isinstance(said, dict):
            return said
        told = access.masked(sse.error_text(said))
        if answer.status_code in _LACKING and _says_no_such_model(said, told, model):
            raise NoSuchModel(f"the server at {address} does not have {model}: it says {told[:_TOLD]!r}")
        raise ServerError(f"HTTP {answer.status_code}: {told}")

    def embed(
        self, address: str, model: str, texts: Sequence[str], access: Access = NO_ACCESS
    ) -> Sequence[Sequence[float]]:
        """Return a vector for each text by /embeddings; ServerError with the reason if there are none."""
        import httpx

        try:
            with self._client(address, _LOAD_TIMEOUT_S, access) as http:
                answer = http.post(f"{self._v1(address)}/embeddings", json={"model": model, "input": list(texts)})
                entries = answer.json()["data"]
                vectors = [entry["embedding"] for entry in sorted(entries, key=lambda entry: entry["index"])]
        except (httpx.RequestError, OSError, *kinds.UNREADABLE) as error:
            raise ServerError(f"{model} makes no embeddings: {access.masked(str(error))}") from None
        if len(vectors) != len(texts):
            raise ServerError(f"{model} makes no embeddings: {len(vectors)} came for {len(texts)} texts")
        return vectors

    def ModelWatcher(self, address: str, access: Access = NO_ACCESS) -> NoWatcher:
        return NoWatcher()

    def _client(self, address: str, timeout_s: float, access: Access) -> httpx.Client:
        """Return a client for questions with the headers that the API insists on, unless they were given."""
        from loadgen.api.sending import chat_api

        http = client_of(address, timeout_s, access)
        for name, value in chat_api(self.api_name).HEADERS.items():
            http.headers.setdefault(name, value)
        return http

    def _v1(self, address: str) -> str:
        """Return where the lists of an OpenAI server are: Anthropic's base URL is without the version."""
        return address if self.usual else f"{address}/v1"


class NoWatcher:
    """These servers do not tell which models are in memory."""

    def loaded(self, model: str) -> LoadedModel | None:
        return None

    def close(self) -> None:
        pass


OPENAI = V1Server(
    api_name="openai", path="/chat/completions", usual="/v1", default_address="https://api.openai.com/v1",
    PROVIDER="openai", HOST_VARIABLES=("OPENAI_BASE_URL", "OPENAI_API_BASE"), KEY_VARIABLE="OPENAI_API_KEY",
    prompt_count="prompt_tokens",
)  # fmt: skip
RESPONSES = replace(OPENAI, api_name="responses", path="/responses", prompt_count="input_tokens")
ANTHROPIC = V1Server(
    api_name="anthropic", path="/v1/messages", usual="", default_address="https://api.anthropic.com",
    PROVIDER="anthropic", HOST_VARIABLES=("ANTHROPIC_BASE_URL",), KEY_VARIABLE="ANTHROPIC_API_KEY",
    prompt_count="input_tokens",
)  # fmt: skip


def _whole_address(url: SplitResult) -> str:
    """Return what to give in the place of an address with a query, as of Azure's deployments."""
    if ".azure." in (url.hostname or "") or "/openai/deployments/" in url.path:
        deployment = url.path.partition("/deployments/")[2].partition("/")[0]
        return (
            f"Azure's deployments are at {url.scheme}://{url.netloc}/openai/v1 without an api-version: give that as "
            f"--base-url, and --models {deployment or 'DEPLOYMENT'}"
        )
    return "give one without a query; a key goes into --api-key-env or --header-env"


def _root(address: str) -> str:
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc}"


def _says_no_such_model(said: Any, told: str, model: str) -> bool:
    """Return whether an error is that the model is not there: by its code, else by the server's own words."""
    error = said.get("error", said) if isinstance(said, dict) else None
    kinds_told = [error.get(name) for name in ("type", "code", "status")] if isinstance(error, dict) else []
    names = {name.lower() for name in kinds_told if isinstance(name, str)}
    if names.intersection(_MODEL_MISSING) or (names.intersection(_NOT_FOUND) and model in told):
        return True
    return _NO_SUCH_MODEL.search(blame.own_words(told, model)) is not None


def _names(text: str, model: str) -> bool:
    """Return whether what a server answers at a path is about the model, and not about the path."""
    return model in text or any(code in text.lower() for code in _MODEL_MISSING)


def _takes_requests(api: V1Server, http: httpx.Client, address: str, access: Access) -> bool:
    """Return whether requests are understood where no models are listed, as on Vertex: an empty one is refused."""
    answer = allowed(http.post(urlsplit(address).path + api.path, json={}), address, access)
    return answer.status_code in (400, 422)


def _identified(api: V1Server, http: httpx.Client, address: str, access: Access) -> Server:
    """Return the server with its kind, version and models, as far as it tells them."""
    answer = allowed(http.get(f"{urlsplit(api._v1(address)).path}/models"), address, access)
    entries = kinds.entries_of(answer)
    hosted = urlsplit(address).hostname in _HOSTED
    kind = kinds.ANY if hosted else kinds.kind_of(http, answer, entries)
    if entries is None and kind is kinds.ANY and not hosted and not _takes_requests(api, http, address, access):
        raise ServerError(f"what answers at {address} lists no models (HTTP {answer.status_code}): check --host and "
                          "its path, or give --base-url")  # fmt: skip
    try:
        version, models, details = kind.facts(http, entries or ())
    except kinds.UNREADABLE:  # another form than that of this kind: it tells names alone
        version, models, details = kinds.ANY.facts(http, entries or ())
    names = [entry["id"] for entry in entries or ()]
    named = {kind.full_name(name): f"name:{name}" for name in names}
    on_openai = api.api_name == OPENAI.api_name and urlsplit(address).hostname == _OPENAIS_OWN
    return Server(
        address, f"{kind.name} {access.masked(version)}".strip(), {**named, **models}, api.api_name, access=access,
        listed={kind.full_name(name): name for name in names}, kind=kind.name,
        lists_all=kind.lists_all and entries is not None,
        limit_field=openai.LIMIT_FIELDS[1] if on_openai else None, details=details,
    )  # fmt: skip
