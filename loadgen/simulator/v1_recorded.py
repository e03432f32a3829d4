"""What Ollama's /v1 and llama.cpp's server answer about models and errors, in the words recorded from them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from loadgen.simulator.connection import encode
from loadgen.simulator.models import Model
from loadgen.simulator.v1_requests import Api, Kind

CREATED = 1_767_225_600
"""When the models were made: 2026-01-01."""
LLAMA_CLOSING = "Server: llama.cpp\r\n"
LLAMA_HEADERS = f"{LLAMA_CLOSING}Keep-Alive: timeout=5, max=100\r\n"
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
_TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"


def models(found: Iterable[Model], kind: Kind) -> bytes:
    """Return the answer of /v1/models."""
    if kind == "ollama":
        entries = [{"id": m.name, "object": "model", "created": CREATED, "owned_by": "library"} for m in found]
        return encode({"object": "list", "data": entries}) + b"\n"
    found = list(found)
    data = [_llama_entry(model) for model in found]
    return encode({"models": [_llama_tag(model) for model in found], "object": "list", "data": data})


def _llama_entry(model: Model) -> dict[str, Any]:
    profile = model.profile
    meta = {
        "vocab_type": 2, "n_vocab": 32_000, "n_ctx": model.context, "n_ctx_train": profile.context_length,
        "n_embd": profile.embedding_length, "n_params": _parameters(profile.parameter_size), "size": profile.size,
        "ftype": profile.quantization_level,
    }  # fmt: skip
    return {
        "id": model.name, "aliases": [model.name], "tags": [], "object": "model",
        "architecture": {"input_modalities": ["text"], "output_modalities": ["text"]}, "created": CREATED,
        "owned_by": "llamacpp", "meta": meta,
    }  # fmt: skip


def _llama_tag(model: Model) -> dict[str, Any]:
    details = {"parent_model": "", "format": "gguf", "family": "", "families": [""], "parameter_size": "",
               "quantization_level": ""}  # fmt: skip
    return {
        "name": model.name, "model": model.name, "modified_at": "", "size": "", "digest": "", "type": "model",
        "description": "", "tags": [""], "capabilities": ["completion"], "parameters": "", "details": details,
    }  # fmt: skip


def _parameters(size: str) -> int:
    """Return a number of parameters such as 1.2B."""
    return round(float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]])


def props(model: Model) -> dict[str, Any]:
    """Return the answer of llama.cpp's /props, without what only its own page needs."""
    return {
        "default_generation_settings": {"params": {"temperature": 0.8}, "n_ctx": model.context},
        "total_slots": model.profile.parallel, "model_alias": model.name, "model_path": f"/models/{model.name}.gguf",
        "model_ftype": model.profile.quantization_level, "modalities": {"vision": False, "audio": False},
        "chat_template": _TEMPLATE, "bos_token": "", "eos_token": "<|end|>", "build_info": "b0-simulated",
        "is_sleeping": False,
    }  # fmt: skip


def embeddings(model: str, vectors: Iterable[list[float]], tokens: int) -> dict[str, Any]:
    """Return the answer of /v1/embeddings."""
    data = [{"object": "embedding", "embedding": vector, "index": i} for i, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def refusal(api: Api | None, kind: Kind, status: int, text: str, old: bool) -> bytes:
    """Return the body of an error; ``api`` None: of a path that has none."""
    name = _TYPES.get(status, "server_error" if kind == "llama.cpp" else "api_error")
    if api == "messages":
        return encode({"type": "error", "error": {"type": name, "message": text}})
    if kind == "llama.cpp" and status == 404:
        return encode({"error": {"message": text, "type": name, "code": status}})
    if kind == "llama.cpp":
        return encode({"error": {"code": status, "message": text, "type": name}})
    return (
        encode({"error": {"message": text, "type": "api_error" if old else name, "param": None, "code": None}}) + b"\n"
    )
