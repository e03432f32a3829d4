"""An Ollama server as a ServerApi: its version and models, loading and pulling one.

The questions are asked without the official client, whose import takes 0.3 s before a load. During a load only
``loaded()`` runs, once a second.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import IPv6Address, ip_address
from time import monotonic_ns
from typing import Any
from urllib.parse import urlsplit

from loadgen.api.questions import allowed, by_proxy, client_of, past_proxy, unanswered
from loadgen.api.server import (
    REFUSED,
    AccessRefused,
    LoadedModel,
    ModelDetails,
    NotThisApi,
    Server,
    ServerError,
    given_host,
    pull_commands,
    socket_address,
)
from loadgen.types import NS
from loadgen.wire.access import NO_ACCESS, Access, masked_address, split_userinfo
from loadgen.wire.framing import BadWire, Ndjson
from loadgen.wire.tls import tls_problem

PROVIDER = "ollama"
LOADING_OPTIONS = frozenset({
    "num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "use_mlock", "low_vram", "numa", "f16_kv",
    "vocab_only", "logits_all", "embedding_only", "rope_frequency_base", "rope_frequency_scale", "num_gqa",
})  # fmt: skip
"""Those of Ollama's options that its scheduler compares with the loaded model's, of old versions too."""
HOST_VARIABLES = ("OLLAMA_HOST", "OLLAMA_BASE_URL")
KEY_VARIABLE = "OLLAMA_API_KEY"

_QUESTION_TIMEOUT_S = 10.0
_LOAD_TIMEOUT_S = 600.0
_FIRST_LINE_S = 60.0
"""For a pull, which then takes as long as it takes."""
_WHOLE_NAME = 3
"""Registry, namespace and model with tag."""
_NOT_OLLAMA = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Raised for an answer that is not JSON, or JSON of another shape."""
_PORTS = {"http": 80, "https": 443}
_PORT = 11434
"""Where an address has no scheme either."""
_DURATION = re.compile(r"[+-]?((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+")
"""A duration as Go reads it, in which Ollama is written."""


def full_name(model: str) -> str:
    """Return the one form of all names that mean the same model to Ollama.

    In lower case, with its tag, without the default registry and namespace: ``registry.ollama.ai/library/Gemma3n`` is
    ``gemma3n:latest``; of another registry or namespace it is another model.
    """
    parts = model.rpartition("://")[2].lower().split("/")
    if len(parts) == _WHOLE_NAME and parts[0] == "registry.ollama.ai":
        del parts[0]
    if len(parts) == _WHOLE_NAME - 1 and parts[0] == "library":
        del parts[0]
    return "/".join(parts) + ("" if ":" in parts[-1] else ":latest")


def how_to_get(models: Sequence[str], server: Server) -> str:
    """Return what to do about models that the server lacks, and what it has."""
    get = pull_commands(models)
    meant = server.meant(models)
    return f"{meant}{'Else run' if meant else 'run'} `{get}`, or add --pull; it has {server.names()}"


def smallest(server: Server, most: int) -> list[str]:
    """Return the names of the smallest models that run there and complete texts; older servers are asked for each."""
    import httpx

    found: list[str] = []
    able = {name: told for name, told in server.details.items() if told.completes}
    with client_of(server.address, _QUESTION_TIMEOUT_S, server.access) as http:
        for name in sorted(able, key=lambda name: (able[name].size_bytes or 0, name)):
            if len(found) == most:
                break
            try:
                told = http.post("/api/show", json={"model": server.name_of(name)}).json()
            except (httpx.RequestError, ValueError):
                continue
            if "completion" in told.get("capabilities", ("completion",)):
                found.append(server.name_of(name))
    return found


def keep_alive(text: str) -> str | float:
    """Read a number of seconds (negative: for ever) or a duration such as 10m or 1h30m; ValueError for neither."""
    if _DURATION.fullmatch(text):
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.inf
    if not math.isfinite(seconds):
        raise ValueError(f"{text!r} is not a duration")
    return int(seconds) if seconds.is_integer() else seconds


def address_of(host: str | None) -> str:
    """Return the server's URL, without credentials, for any form that the official client accepts, or unix:///path.

    Raises ServerError for another.
    """
    import httpx

    given = given_host(HOST_VARIABLES, host)
    bare = split_userinfo(given)[0]
    shown = repr(masked_address(given))
    if (at_socket := socket_address(bare)) is not None:
        return at_socket
    try:
        url = httpx.URL(_url_of(bare))
    except (ValueError, httpx.InvalidURL) as error:
        raise ServerError(f"{shown} is not a valid server address ({error}): give --host like 127.0.0.1:11434"
                          ) from None  # fmt: skip
    if url.scheme not in ("http", "https") or not url.host:
        raise ServerError(f"{shown} is not a valid server address: give --host like http://127.0.0.1:11434")
    return str(url).rstrip("/")


def probe(address: str, access: Access = NO_ACCESS) -> Server:
    """Return the server at the address.

    Raises ServerError if there is none, or it is not Ollama, and AccessRefused if it lets nobody in without a key.
    """
    import httpx

    try:
        with client_of(address, _QUESTION_TIMEOUT_S, access) as http:
            answer = allowed(http.get("/api/version"), address, access)
            version = answer.json()["version"] if answer.status_code == 200 else None
            names, models, details = listed(allowed(http.get("/api/tags"), address, access).json())
    except (httpx.RequestError, OSError) as error:
        how = "start it with `ollama serve`, or give --host, or --simulate"
        raise unanswered(error, address, how, access) from None
    except _NOT_OLLAMA:
        version = None
    if not isinstance(version, str):
        raise NotThisApi(f"what answers at {address}{by_proxy(address)} is not Ollama: "
                          + (past_proxy(address) or "check --host and the port"))  # fmt: skip
    return Server(address, access.masked(version), models, listed=names, access=access, kind="ollama", details=details)


def listed(tags: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str], dict[str, ModelDetails]]:
    """Read /api/tags: full name -> the name as listed, the digest, and the details."""
    names, digests, details = {}, {}, {}
    for model in tags["models"] or ():
        name = full_name(model["name"])
        names[name], digests[name] = str(model["name"]), str(model["digest"])
        told = model.get("details") or {}
        details[name] = ModelDetails(
            quantization=told.get("quantization_level") or None, parameters=_parameters(told.get("parameter_size")),
            context_tokens=told.get("context_length"), size_bytes=model.get("size"),
            completes=_completes(model, told),
        )  # fmt: skip
    return names, digests, details


def _completes(model: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Return whether an entry of /api/tags is of a model that runs there and completes texts, as far as it tells."""
    name = str(model["name"]).lower()
    in_cloud = bool(model.get("remote_host") or model.get("remote_model")) or name.endswith("cloud")
    makes_vectors = "bert" in str(told.get("family")).lower() or "embed" in name
    return not in_cloud and not makes_vectors and "completion" in (model.get("capabilities") or ("completion",))


def _parameters(size: str | None) -> int | None:
    """Read a number of parameters such as 630.17M."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMBT]?)", size or "")
    return None if found is None else round(float(found[1]) * 1000 ** " KMBT".index(found[2] or " "))


def answers(address: str, access: Access = NO_ACCESS) -> bool:
    """Return whether the server still answers, if only that it lets nobody in."""
    import httpx

    try:
        with client_of(address, _QUESTION_TIMEOUT_S, access) as http:
            return http.get("/api/version").status_code in (200, *REFUSED)
    except (httpx.RequestError, OSError, ServerError):
        return False


def pull(
    address: str, model: str, on_progress: Callable[[str, int, int], None], access: Access = NO_ACCESS
) -> None:  # fmt: skip
    """Have the server pull the model; ``on_progress(status, completed bytes, total bytes)``."""
    try:
        for part in _messages(address, "/api/pull", {"model": model}, _FIRST_LINE_S, access, whole=False):
            status = access.masked(str(part.get("status") or ""))
            on_progress(status, int(part.get("completed") or 0), int(part.get("total") or 0))
    except _failures() as error:
        raise _failed(error, f"{model} cannot be pulled", address, access) from None


def load_model(
    address: str, model: str, options: Mapping[str, Any], keep_alive: str | float | None, access: Access = NO_ACCESS,
    limit_field: str | None = None,  # noqa: ARG001
) -> tuple[float | None, str | None]:  # fmt: skip
    """Have the model loaded; return the seconds this took, and the error if the server refused.

    The server's own seconds if it reports them (old versions do not for an empty prompt), else those of the call.
    Raises AccessRefused.
    """
    body: dict[str, Any] = {"model": model, "prompt": "", "options": {**options, "num_predict": 1}}
    body |= {} if keep_alive is None else {"keep_alive": keep_alive}
    began_ns = monotonic_ns()
    try:
        durations = _counts("load_duration", _messages(address, "/api/generate", body, _LOAD_TIMEOUT_S, access))
    except _failures() as error:
        failure = _failed(error, model, address, access)
        if isinstance(failure, AccessRefused):
            raise failure from None
        return None, access.masked(_reason(error))
    return (durations[-1] if durations else monotonic_ns() - began_ns) / NS, None


def prompt_tokens(
    address: str, model: str, prompt: str, options: Mapping[str, Any], chat: bool, access: Access = NO_ACCESS,
    limit_field: str | None = None,  # noqa: ARG001
) -> int | None:  # fmt: skip
    """Return the number of tokens of the prompt with its template; None if the server does not report it."""
    said: dict[str, Any] = {"messages": [{"role": "user", "content": prompt}]} if chat else {"prompt": prompt}
    body = {"model": model, **said, "options": {**options, "num_predict": 1}}
    path = "/api/chat" if chat else "/api/generate"
    try:
        counts = _counts("prompt_eval_count", _messages(address, path, body, _LOAD_TIMEOUT_S, access))
    except _failures():
        return None
    return counts[-1] if counts else None


def refused_limit(refusal: str) -> str | None:  # noqa: ARG001
    """Return None: there is one field for the limit of an answer."""
    return None


def embed(
    address: str, model: str, texts: Sequence[str], access: Access = NO_ACCESS
) -> Sequence[Sequence[float]]:  # fmt: skip
    """Return a vector for each text by /api/embed; ServerError with the reason if there are none."""
    try:
        body = {"model": model, "input": list(texts)}
        (told,) = _messages(address, "/api/embed", body, _LOAD_TIMEOUT_S, access)
        vectors = [[float(number) for number in vector] for vector in told["embeddings"]]
    except _failures() as error:
        raise _failed(error, f"{model} makes no embeddings", address, access) from None
    if len(vectors) != len(texts):
        raise ServerError(f"{model} makes no embeddings: {len(vectors)} came for {len(texts)} texts")
    return vectors


class ModelWatcher:
    """Asks ``/api/ps`` over one connection; ``loaded()`` is None if the server does not answer in time."""

    def __init__(self, address: str, access: Access = NO_ACCESS) -> None:
        self._http = client_of(address, 1.0, access)

    def loaded(self, model: str) -> LoadedModel | None:
        try:
            models = self._http.get("/api/ps").json()["models"] or []
            for entry in models:
                if full_name(entry["name"]) == full_name(model):
                    expiry_s = _seconds_until(entry.get("expires_at"))
                    context = entry.get("context_length")
                    return LoadedModel(int(entry["size"]), int(entry.get("size_vram", 0)), expiry_s, context or None)
        except ServerError:
            return None
        except _failures():
            pass
        return None

    def close(self) -> None:
        self._http.close()


def _seconds_until(instant: object) -> float | None:
    """Return the seconds until a date and time, 0 if it is past; None if it is not one."""
    try:
        then = datetime.fromisoformat(str(instant))
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _url_of(host: str) -> str:
    """Return what the official client makes of an address."""
    scheme, _, rest = host.partition("://")
    usual = _PORTS.get(scheme, _PORT)
    if not rest:
        scheme, rest, usual = "http", host, _PORT
    parts = urlsplit(f"{scheme}://{rest}")
    name, port = parts.hostname or "127.0.0.1", parts.port or usual
    with suppress(ValueError):  # a name
        name = f"[{name}]" if isinstance(ip_address(name), IPv6Address) else name
    return f"{scheme}://{name}:{port}/{parts.path.strip('/')}"


class _Refused(Exception):
    """The server sent an error, with this status."""

    def __init__(self, error: Any, status: int) -> None:
        super().__init__(error if isinstance(error, str) else json.dumps(error, ensure_ascii=False))
        self.status = status


def _messages(
    address: str, path: str, body: Mapping[str, Any], limit_s: float, access: Access, *, whole: bool = True
) -> Iterator[dict[str, Any]]:
    """Yield the messages of an answer, which may take ``limit_s``; of a stream that goes on, the first line may.

    Lines end where Ollama ends them: httpx also ends them at U+0085 and its like, which JSON may contain.
    """
    framing = Ndjson()
    with (
        client_of(address, limit_s, access, whole=whole) as http,
        http.stream("POST", path, json=body) as response,
    ):
        if not response.is_success:
            text = response.read().decode(errors="replace")
            try:
                raise _Refused(json.loads(text).get("error", text), response.status_code)
            except ValueError:
                raise _Refused(text, response.status_code) from None
        for data in response.iter_bytes():
            yield from map(_message, framing.feed(data))
    if rest := framing.rest():
        yield _message(rest)


def _message(line: bytes) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(line)
    if (error := told.get("error")) is not None:
        raise _Refused(error, 200)
    return told


def _counts(name: str, messages: Iterator[Mapping[str, Any]]) -> list[int]:
    """Return each number of that name in the messages."""
    return [told[name] for told in messages if isinstance(told.get(name), int)]


def _failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of a failed call that are not bugs of ours."""
    import httpx

    return (_Refused, httpx.RequestError, OSError, BadWire, *_NOT_OLLAMA)


def _failed(error: Exception, what: str, address: str, access: Access) -> ServerError:
    """Return the error for a call that failed, with what to do where that is known."""
    if isinstance(error, _Refused) and error.status in REFUSED:
        return AccessRefused(f"{address} answers {access.refusal(error.status)}")
    return ServerError(f"{what}: {access.masked(tls_problem(error, address) or _reason(error))}")


def _reason(error: Exception) -> str:
    if isinstance(error, _NOT_OLLAMA):
        return "the answer is not what Ollama sends"
    return str(error) or type(error).__name__
