"""What software a server of OpenAI's or Anthropic's API is, told by what only it answers, and what it says."""

# ruff: noqa: ARG002 - each class answers the same questions
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from loadgen.api.server import ModelDetails

if TYPE_CHECKING:
    import httpx

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)
"""Raised for an answer that is not JSON, or JSON of another shape."""
Entries = Sequence[Mapping[str, Any]]
Facts = tuple[str, dict[str, str], dict[str, ModelDetails]]
"""A server's version, its models' identities, and what else it tells of them."""


def entries_of(answer: httpx.Response) -> Entries | None:
    """Return the models of a list; None if the answer is none."""
    try:
        entries = answer.json()["data"]
        return [entry for entry in entries if isinstance(entry["id"], str)] if answer.status_code == 200 else None
    except UNREADABLE:
        return None


class Kind:
    """A server that tells no more than the names of its models, as every one does."""

    name: ClassVar[str] = ""
    lists_all: ClassVar[bool] = True
    """Whether it has no other models than those that it lists."""

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        """Return whether the server is of this kind."""
        return True

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        return "", {}, {}

    def full_name(self, model: str) -> str:
        """Return the one form of all names that mean the same model, by which ``facts`` tells of it."""
        return model


class _LlamaCpp(Kind):
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
            size = f"{meta.get('size')} bytes, {facts.parameters} parameters"
            identity = f"{size}, {facts.quantization}, template {template}"
            for name in {entry["id"], *(entry.get("aliases") or ())}:
                details[name], models[name] = facts, identity if meta else f"name:{name}"
        return str(props.get("build_info") or ""), models, details


class _Ollama(Kind):
    """Ollama behind its /v1: digests as in its own API."""

    name = "ollama"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        if not isinstance(_get(http, "/api/version").get("version"), str):
            return False
        return entries is not None or isinstance(_get(http, "/api/tags").get("models"), list)

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        from loadgen.api import ollama_server

        try:
            _, digests, details = ollama_server.listed(_get(http, "/api/tags"))
        except UNREADABLE:
            digests, details = {}, {}
        return _get(http, "/api/version")["version"], digests, details

    def full_name(self, model: str) -> str:
        from loadgen.api import ollama_server

        return ollama_server.full_name(model)


class _Vllm(Kind):
    """vLLM: the path or repository of the model, without its revision."""

    name = "vllm"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return _owned_by(entries, "vllm")

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        models = {entry["id"]: f"path:{entry['root']}" for entry in entries if entry.get("root")}
        details = {entry["id"]: ModelDetails(context_tokens=entry.get("max_model_len")) for entry in entries}
        return str(_get(http, "/version").get("version") or ""), models, details


class _Sglang(Kind):
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
        models = {name: f"path:{path}" for name in names if path}
        return str(info.get("version") or ""), models, dict.fromkeys(names, facts)


class _Tgi(Kind):
    """Hugging Face's TGI: the commit of the model's repository."""

    name = "tgi"

    def speaks(self, http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> bool:
        return "model_sha" in _get(http, "/info")

    def facts(self, http: httpx.Client, entries: Entries) -> Facts:
        info = _get(http, "/info")
        names = [entry["id"] for entry in entries] or [str(info.get("model_id"))]
        models = {name: f"sha:{info['model_sha']}" for name in names if info.get("model_sha")}
        return str(info.get("version") or ""), models, {}


class _LmStudio(Kind):
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


class _Other(Kind):
    """A hosted API, a gateway or a server of no known kind: aliases, pages and patterns leave models out of a list."""

    lists_all = False


ANY, _LLAMA_CPP = _Other(), _LlamaCpp()
_KINDS: Sequence[Kind] = (_LLAMA_CPP, _Vllm(), _Sglang(), _LmStudio(), _Ollama(), _Tgi(), ANY)
"""In the order in which they are tried: first those that the list of models tells."""


def kind_of(http: httpx.Client, listing: httpx.Response, entries: Entries | None) -> Kind:
    """Return the kind of the server that gave this list of models (None: no list)."""
    return next(kind for kind in _KINDS if kind.speaks(http, listing, entries))


def is_ready(http: httpx.Client, listing: httpx.Response, v1: str) -> bool:
    """Return whether the server that gave this list, below the path ``v1``, answers requests.

    Some builds of llama.cpp list their model while they still load it, and say of everything else that they cannot.
    """
    return not _LLAMA_CPP.speaks(http, listing, entries_of(listing)) or http.get(f"{v1}/health").status_code != 503


def _owned_by(entries: Entries | None, owner: str) -> bool:
    return any(entry.get("owned_by") == owner for entry in entries or ())


def _get(http: httpx.Client, path: str) -> Mapping[str, Any]:
    """Return the object at a path, {} if there is none."""
    import httpx

    try:
        answer = http.get(path)
        said = answer.json()
    except (httpx.RequestError, *UNREADABLE):
        return {}
    return said if answer.status_code == 200 and isinstance(said, dict) else {}
