"""Servers of OpenAI's and Anthropic's APIs as ServerApis: who they are, and what they have.

Servers of many kinds speak these; a kind is told by what only it answers (``_KINDS``). None of them is asked to load or
pull a model: the first request does the one, its operator the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from loadgen.api import sse
from loadgen.api.server import (
    REFUSED,
    AccessRefused,
    LoadedModel,
    ModelDetails,
    Server,
    ServerError,
    client_of,
    given_host,
    tls_problem,
)
from loadgen.types import Request
from loadgen.wire.access import NO_ACCESS, Access, masked_address, split_userinfo

if TYPE_CHECKING:
    import httpx

_QUESTION_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 600.0
_HOSTED = ("api.openai.com", "api.anthropic.com")
_UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""Raised for an answer that is not JSON, or JSON of another shape."""


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

    def full_name(self, model: str) -> str:
        return model

    def how_to_get(self, models: Sequence[str], server: Server) -> str:
        """Return what to do about models that the server lacks."""
        return f"it has {', '.join(sorted(server.models)) or 'no model'}: load the model there, or name one of these"

    def keep_alive(self, text: str) -> str | float:
        raise ValueError("only Ollama's own API has --keep-alive: leave it out")

    def address_of(self, host: str | None) -> str:
        """Return the base URL, without credentials: a host without a path gets the API's usual one."""
        given = given_host(self, host) or self.default_address
        bare = split_userinfo(given)[0]
        url = urlsplit(bare if "://" in bare else f"http://{bare}")
        try:
            valid = url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
        except ValueError:
            valid = False
        if not valid or url.query or url.fragment:
            raise ServerError(f"{masked_address(given)!r} is not a valid server address: "
                              f"give --host like http://127.0.0.1:8000{self.usual}")  # fmt: skip
        return urlunsplit((url.scheme, url.netloc, url.path.rstrip("/") or self.usual, "", ""))

    def probe(self, address: str, access: Access = NO_ACCESS) -> Server:
        """Return the server at the base URL; ServerError if there is none, or it does not speak this API."""
        import httpx

        try:
            with client_of(_root(address), _QUESTION_TIMEOUT_S, access) as http:
                return _identified(self, http, address, access)
        except (httpx.RequestError, OSError) as error:
            problem = tls_problem(error, address) or f"no server answers at {address} ({error}): check --host"
            raise ServerError(problem) from None

    def answers(self, address: str, access: Access = NO_ACCESS) -> bool:
        """Return whether the server still answers, whatever it says."""
        import httpx

        try:
            with client_of(address, _QUESTION_TIMEOUT_S, access) as http:
                http.get(f"{self._v1(address)}/models")
        except (httpx.RequestError, OSError):
            return False
        return True

    def pull(
        self, address: str, model: str, on_progress: Callable[[str, int, int], None], access: Access = NO_ACCESS
    ) -> None:
        raise ServerError(f"--pull {model}: only Ollama's own API pulls models: leave it out")

    def load_model(
        self, address: str, model: str, options: Mapping[str, Any], keep_alive: str | float | None,
        access: Access = NO_ACCESS,
    ) -> tuple[float | None, str | None]:  # fmt: skip
        """Send the shortest request, for which a server loads the model; return its seconds, and a refusal."""
        began = monotonic()
        try:
            answer = self._ask(address, model, "Say hello.", access)
        except ServerError as error:
            return None, str(error)
        if "usage" not in answer and not (answer.get("choices") or answer.get("output") or answer.get("content")):
            return None, f"the answer is not what this API sends: {json.dumps(answer)[:200]}"
        return monotonic() - began, None

    def prompt_tokens(
        self, address: str, model: str, prompt: str, options: Mapping[str, Any], chat: bool, access: Access = NO_ACCESS
    ) -> int | None:
        """Return the number of tokens of the prompt with its template; None if the server does not report it."""
        try:
            usage = self._ask(address, model, prompt, access).get("usage") or {}
        except ServerError:
            return None
        counts = (self.prompt_count, "cache_read_input_tokens", "cache_creation_input_tokens")
        return None if usage.get(self.prompt_count) is None else sum(usage.get(name) or 0 for name in counts)

    def _ask(self, address: str, model: str, prompt: str, access: Access) -> Mapping[str, Any]:
        """Ask for one token; ServerError with the server's reason if there is no answer."""
        import httpx

        from loadgen.api.sending import chat_api

        message = {"role": "user", "content": prompt}
        request = Request(index=-1, model=model, messages=(message,), options={"num_predict": 1})
        body = chat_api(self.api_name).body(request, stream=False)
        try:
            with client_of(address, _LOAD_TIMEOUT_S, access) as http:
                answer = http.post(address + self.path, json=body)
                said = answer.json()
        except (httpx.RequestError, OSError) as error:
            raise ServerError(access.masked(str(error) or type(error).__name__)) from None
        except _UNREADABLE:
            raise ServerError(f"HTTP {answer.status_code}, and the answer is not JSON") from None
        if answer.status_code in REFUSED:
            raise AccessRefused(f"{address} answers {access.refusal(answer.status_code)}")
        if answer.status_code != 200 or not isinstance(said, dict):
            raise ServerError(access.masked(f"HTTP {answer.status_code}: {sse.error_text(said)}"))
        return said

    def embed(
        self, address: str, model: str, texts: Sequence[str], access: Access = NO_ACCESS
    ) -> Sequence[Sequence[float]]:
        """Return a vector for each text by /embeddings; ServerError with the reason if there are none."""
        import httpx

        try:
            with client_of(address, _LOAD_TIMEOUT_S, access) as http:
                answer = http.post(f"{self._v1(address)}/embeddings", json={"model": model, "input": list(texts)})
                entries = answer.json()["data"]
                vectors = [entry["embedding"] for entry in sorted(entries, key=lambda entry: entry["index"])]
        except (httpx.RequestError, OSError, *_UNREADABLE) as error:
            raise ServerError(f"{model} makes no embeddings: {access.masked(str(error))}") from None
        if len(vectors) != len(texts):
            raise ServerError(f"{model} makes no embeddings: {len(vectors)} came for {len(texts)} texts")
        return vectors

    def ModelWatcher(self, address: str, access: Access = NO_ACCESS) -> NoWatcher:
        return NoWatcher()

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
RESPONSES = V1Server(
    api_name="responses", path="/responses", usual="/v1", default_address="https://api.openai.com/v1",
    PROVIDER="openai", HOST_VARIABLES=("OPENAI_BASE_URL", "OPENAI_API_BASE"), KEY_VARIABLE="OPENAI_API_KEY",
    prompt_count="input_tokens",
)  # fmt: skip
ANTHROPIC = V1Server(
    api_name="anthropic", path="/v1/messages", usual="", default_address="https://api.anthropic.com",
    PROVIDER="anthropic", HOST_VARIABLES=("ANTHROPIC_BASE_URL",), KEY_VARIABLE="ANTHROPIC_API_KEY",
    prompt_count="input_tokens",
)  # fmt: skip


def _root(address: str) -> str:
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc}"


def _identified(api: V1Server, http: httpx.Client, address: str, access: Access) -> Server:
    """Return the server with its kind, version and models, as far as it tells them."""
    answer = http.get(f"{urlsplit(api._v1(address)).path}/models")
    if answer.status_code in REFUSED:
        raise AccessRefused(f"{address} answers {access.refusal(answer.status_code)}")
    entries = _entries(answer)
    hosted = urlsplit(address).hostname in _HOSTED
    kind = next((kind for kind in () if hosted else _KINDS if kind.speaks(http, answer, entries)), None)
    if entries is None and kind is None and not hosted:
        raise ServerError(f"what answers at {address} has no list of models (HTTP {answer.status_code}): "
                          f"check --host and its path; usual is one that ends with {api.usual or 'no path'}")  # fmt: skip
    found = kind or _Kind()
    version, models, details = found.facts(http, entries or ())
    named = {str(entry["id"]): f"name:{entry['id']}" for entry in entries or ()}
    return Server(
        address, f"{found.name} {version}".strip(), {**named, **models}, api.api_name, access,
        kind=found.name, lists_models=entries is not None, details=details,
    )  # fmt: skip


def _entries(answer: httpx.Response) -> list[Mapping[str, Any]] | None:
    """Return the models of a list; None if the answer is none."""
    try:
        entries = answer.json()["data"]
        return [entry for entry in entries if isinstance(entry["id"], str)] if answer.status_code == 200 else None
    except _UNREADABLE:
        return None


Entries = Sequence[Mapping[str, Any]]
Facts = tuple[str, dict[str, str], dict[str, ModelDetails]]
"""A server's version, its models' identities, and what else it tells of them."""


class _Kind:
    """A server that tells no more than the names of its models."""

    name: ClassVar[str] = ""

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        """Return whether the server is of this kind."""
        raise NotImplementedError

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        return "", {}, {}


class _LlamaCpp(_Kind):
    """llama.cpp: no digest, but size, parameters, type and chat template; it answers for any model's name."""

    name = "llama.cpp"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return listing.headers.get("server") == self.name or _owned_by(entries, "llamacpp")

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        props = _get(http, "/props")
        template = hashlib.sha256(str(props.get("chat_template")).encode()).hexdigest()[:12]
        models, details = {}, {}
        for entry in entries:
            meta = entry.get("meta") or {}
            facts = ModelDetails(
                quantization=meta.get("ftype") or props.get("model_ftype"), parameters=meta.get("n_params"),
                context_tokens=meta.get("n_ctx"), slots=props.get("total_slots"),
            )  # fmt: skip
            identity = f"{meta.get('size')} bytes, {facts.parameters} parameters, {facts.quantization}, template {template}"
            for name in {entry["id"], *(entry.get("aliases") or ())}:
                details[name], models[name] = facts, identity if meta else f"name:{name}"
        return str(props.get("build_info") or ""), models, details


class _Ollama(_Kind):
    """Ollama behind its /v1: digests as in its own API."""

    name = "ollama"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return isinstance(_get(http, "/api/version").get("version"), str)

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        from loadgen.api import ollama_server

        digests, details = ollama_server.listed(_get(http, "/api/tags"))
        names = {entry["id"] for entry in entries} | set(digests)
        found = {name: digests[full] for name in names if (full := ollama_server.full_name(name)) in digests}
        told = {name: details[full] for name in found if (full := ollama_server.full_name(name)) in details}
        return _get(http, "/api/version")["version"], found, told


class _Vllm(_Kind):
    """vLLM: the path or repository of the model, without its revision."""

    name = "vllm"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return _owned_by(entries, "vllm")

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        models = {entry["id"]: f"path:{entry['root']}" for entry in entries if entry.get("root")}
        details = {entry["id"]: ModelDetails(context_tokens=entry.get("max_model_len")) for entry in entries}
        return str(_get(http, "/version").get("version") or ""), models, details


class _Sglang(_Kind):
    """SGLang: the path of the model, and the arguments it was started with."""

    name = "sglang"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return _owned_by(entries, "sglang")

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        info = _get(http, "/server_info") or _get(http, "/get_server_info")
        path = _get(http, "/model_info").get("model_path") or info.get("model_path")
        facts = ModelDetails(
            quantization=info.get("quantization"), context_tokens=info.get("context_length"),
            slots=info.get("max_running_requests"),
        )  # fmt: skip
        names = [entry["id"] for entry in entries]
        return str(info.get("version") or ""), {name: f"path:{path}" for name in names if path}, dict.fromkeys(names, facts)


class _Tgi(_Kind):
    """Hugging Face's TGI: the commit of the model's repository."""

    name = "tgi"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return "model_sha" in _get(http, "/info")

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        info = _get(http, "/info")
        names = [entry["id"] for entry in entries] or [str(info.get("model_id"))]
        models = {name: f"sha:{info['model_sha']}" for name in names if info.get("model_sha")}
        return str(info.get("version") or ""), models, {}


class _LmStudio(_Kind):
    """LM Studio: the quantization and context of each model."""

    name = "lm-studio"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return _owned_by(entries, "organization_owner")

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        details = {}
        for entry in _get(http, "/api/v0/models").get("data") or ():
            details[entry["id"]] = ModelDetails(
                quantization=entry.get("quantization"),
                context_tokens=entry.get("loaded_context_length") or entry.get("max_context_length"),
            )
        return "", {}, details


_KINDS: Sequence[_Kind] = (_LlamaCpp(), _Vllm(), _Sglang(), _LmStudio(), _Ollama(), _Tgi())
"""In the order in which they are tried: first those that the list of models tells."""


def _owned_by(entries: Entries | None, owner: str) -> bool:
    return any(entry.get("owned_by") == owner for entry in entries or ())


def _get(http: httpx.Client, path: str) -> Mapping[str, Any]:
    """Return the object at a path, {} if there is none."""
    import httpx

    try:
        answer = http.get(path)
        said = answer.json()
    except (httpx.RequestError, *_UNREADABLE):
        return {}
    return said if answer.status_code == 200 and isinstance(said, dict) else {}
