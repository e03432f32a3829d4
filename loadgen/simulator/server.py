"""The server's state and its paths; everything runs on one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Literal
from urllib.parse import parse_qs

from loadgen.api.ollama_server import full_name
from loadgen.simulator import answers, recorded, v1_recorded, v1_requests
from loadgen.simulator.connection import JSON, JSON_BARE, NDJSON, TEXT, ClientConnection, HttpRequest, encode, timestamp
from loadgen.simulator.forms import Form, OllamaForm
from loadgen.simulator.generation import Generation
from loadgen.simulator.models import (
    EARLY_FAULTS,
    FAULTS,
    KnownAnswer,
    Model,
    Profile,
    fault_of_model,
    parse_fault,
    profile_of_fault,
    seconds_of,
)
from loadgen.simulator.recorded import Refused, check_capabilities, check_format, check_options, parse
from loadgen.simulator.truth import Entry, Truth
from loadgen.simulator.v1_forms import form_of, refused_in_stream
from loadgen.simulator.v1_requests import PATHS, Api, Kind

Endpoint = Literal["chat", "generate", "embed"]
_INFERENCE: dict[str, Endpoint] = {
    "/api/chat": "chat", "/api/generate": "generate", "/api/embed": "embed", "/v1/embeddings": "embed",
    **dict.fromkeys(PATHS, "chat"),
}  # fmt: skip
_BUSY = "server busy, please try again.  maximum pending requests exceeded"
_WRONG_LIMIT = ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
                "instead.")  # fmt: skip
_STATUS_FAULTS: Mapping[str, tuple[int, str]] = {
    "404": (404, "model '{}' not found"),
    "429": (429, "too many requests"),
    "500": (500, "internal server error"),
    "503": (503, _BUSY),
    "broken-call": (500, 'error parsing tool call: raw=\'{{"city": "Oslo"\', err=unexpected end of JSON input'),
    "repeat-error": (500, "prediction aborted, token repeat limit reached"),
}
_PULL_STEP_S = 0.02
_RETRY_AFTER_S = 7
_NEW_PATHS = ("/v1/responses", "/v1/messages")
"""Which Ollama did not have before 0.6."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request for an answer: as it was sent, and as Ollama's own API would have it."""

    endpoint: Endpoint
    api: Api | None
    sent: Mapping[str, Any]
    body: dict[str, Any]


class SimulatedServer:
    """The simulated server without its socket: ``protocol`` creates the object for a new connection."""

    def __init__(
        self, profiles: Mapping[str, Profile], known: Mapping[str, KnownAnswer], seed: int, version: str,
        key: str | None = None, kind: Kind = "ollama",
    ) -> None:  # fmt: skip
        self.answers, self.seed, self.version, self.kind = known, seed, version, kind
        self.old = kind == "ollama" and _is_old(version)
        self.key = key
        """What a client has to send as ``Authorization: Bearer`` or ``x-api-key``; None: anybody may ask."""
        named = {full_name(name): profile for name, profile in profiles.items()}
        named = {**named, **{f"fault:{f}": profile_of_fault(f) for f in FAULTS if f"fault:{f}" not in named}}
        self.absent = {name: profile for name, profile in named.items() if not profile.present}
        self.models = {n: Model(n, p) for n, p in named.items() if p.present}
        self.truth = Truth()
        self.connections: set[ClientConnection] = set()
        self.routes: dict[tuple[str, str], Callable[[ClientConnection, HttpRequest], None]] = {
            ("GET", "/truth"): self._truth,
            ("POST", "/truth/reset"): self._reset_truth,
            ("GET", "/v1/models"): self._v1_models,
            **(self._ollama_routes() if kind == "ollama" else self._llama_routes()),
        }

    def _ollama_routes(self) -> dict[tuple[str, str], Callable[[ClientConnection, HttpRequest], None]]:
        return {
            ("GET", "/"): lambda c, _: c.respond(200, "text/plain; charset=utf-8", b"Ollama is running"),
            ("GET", "/api/version"): lambda c, _: c.respond_json({"version": self.version}),
            ("GET", "/api/tags"): lambda c, _: c.respond_json(
                {"models": [recorded.tag(model, self.old) for model in self.models.values()]}
            ),
            ("GET", "/api/ps"): self._ps,
            ("POST", "/api/show"): lambda c, r: c.respond_json(
                recorded.show(self._model(parse(r.body, "show")["model"]), self.old)
            ),
            ("POST", "/api/pull"): self._pull,
        }

    def _llama_routes(self) -> dict[tuple[str, str], Callable[[ClientConnection, HttpRequest], None]]:
        return {
            ("GET", "/health"): lambda c, _: c.respond_json({"status": "ok"}),
            ("GET", "/props"): lambda c, _: c.respond_json(v1_recorded.props(self._model(""))),
        }

    def protocol(self) -> ClientConnection:
        headers = v1_recorded.LLAMA_HEADERS if self.kind == "llama.cpp" else ""
        return ClientConnection(self.handle, self.connections, headers)

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self.connections):
            connection.transport.abort()

    def handle(self, connection: ClientConnection, request: HttpRequest) -> None:
        endpoint = self._endpoint(request.path) if request.method == "POST" else None
        route = self.routes.get(("GET" if request.method == "HEAD" else request.method, request.path))
        try:
            if not self._admits(request):
                raise Refused(401, "unauthorized")
            if endpoint is not None:
                self._infer(connection, request, endpoint)
            elif route is None and self.kind == "llama.cpp":
                raise Refused(404, "File Not Found")
            elif route is None:
                connection.respond(404, TEXT, b"404 page not found")
            elif not _strike(connection, _header_fault(request, Random(0))):
                route(connection, request)
        except Refused as refused:
            self._refuse(connection, request, refused)

    def _admits(self, request: HttpRequest) -> bool:
        sent = (request.headers.get("authorization"), request.headers.get("x-api-key"))
        return self.key is None or f"Bearer {self.key}" == sent[0] or self.key == sent[1]

    def _endpoint(self, path: str) -> Endpoint | None:
        absent = path in _NEW_PATHS if self.old else self.kind == "llama.cpp" and not path.startswith("/v1/")
        return None if absent else _INFERENCE.get(path)

    def _refuse(self, connection: ClientConnection, request: HttpRequest, refused: Refused) -> None:
        """Answer with an error in the form of the API that was asked."""
        more = f"Retry-After: {_RETRY_AFTER_S}\r\n" if refused.status == 429 else ""
        if self.kind == "ollama" and not request.path.startswith("/v1/"):
            chunked = refused.content_type in (JSON_BARE, NDJSON)
            return connection.respond(refused.status, refused.content_type, refused.body, more, chunked)
        if refused.status == 200:  # the old server's way to refuse a schema
            return connection.send_chunks("text/event-stream", [refused_in_stream()], last=True)
        body = v1_recorded.refusal(PATHS.get(request.path), self.kind, refused.status, str(refused), self.old)
        if self.kind == "llama.cpp":
            connection.headers, request.keep_alive = v1_recorded.LLAMA_CLOSING, False
        return connection.respond(refused.status, JSON if self.kind == "llama.cpp" else JSON_BARE, body, more)

    def _v1_models(self, connection: ClientConnection, request: HttpRequest) -> None:  # noqa: ARG002
        body = v1_recorded.models(self.models.values(), self.kind)
        connection.respond(200, JSON if self.kind == "llama.cpp" else JSON_BARE, body)

    def _ps(self, connection: ClientConnection, request: HttpRequest) -> None:  # noqa: ARG002
        now = asyncio.get_running_loop().time()
        found = [recorded.loaded(model, now, self.old) for model in self.models.values() if model.loaded(now)]
        connection.respond_json({"models": found})

    def _truth(self, connection: ClientConnection, request: HttpRequest) -> None:
        summary = parse_qs(request.query).get("summary", ["0"])[-1] not in ("0", "")
        connection.respond_json(self.truth.report(summary))

    def _reset_truth(self, connection: ClientConnection, request: HttpRequest) -> None:  # noqa: ARG002
        self.truth.reset()
        connection.respond_json({"status": "success"})

    def _model(self, name: str, message: str = "model '{}' not found") -> Model:
        """Return the model of that name; one named after a fault, such as ``fault:reset@0.2``, is created on demand.

        llama.cpp answers by the model that it has, whatever the name.
        """
        full = full_name(name)
        if full not in self.models and full not in self.absent and (fault := fault_of_model(full)) is not None:
            self.models[full] = Model(full, profile_of_fault(fault[0]))
        if full not in self.models and self.kind == "llama.cpp":
            return next(iter(self.models.values()))
        if full not in self.models:
            raise Refused(404, message.format(name))
        return self.models[full]

    def _pull(self, connection: ClientConnection, request: HttpRequest) -> None:
        body = parse(request.body, "pull")
        name = full_name(body["model"])
        streamed = body.get("stream", True)
        if name.startswith("nosuch"):
            error = {"error": "pull model manifest: file does not exist"}
            if not streamed:
                return connection.respond_json(error, 500)
            return connection.send_chunks(NDJSON, [encode(error) + b"\n"], last=True)
        model = self.models.get(name) or Model(name, self.absent.get(name, Profile()))
        lines = [encode(step) + b"\n" for step in recorded.pull_steps(model)]
        loop = asyncio.get_running_loop()

        def step(index: int) -> None:
            last = index == len(lines) - 1
            if last:
                self.models[name] = model
            if streamed:
                connection.send_chunks(NDJSON, [lines[index]], last)
            elif last:
                connection.respond_json({"status": "success"})
            if not last and not connection.transport.is_closing():
                loop.call_later(_PULL_STEP_S, step, index + 1)

        step(0)
        return None

    def _infer(self, connection: ClientConnection, request: HttpRequest, endpoint: Endpoint) -> None:
        entry = self.truth.open(request.path, "")
        api = PATHS.get(request.path)
        try:
            if api is None:
                sent = body = parse(request.body, endpoint)
            else:
                sent, body = v1_requests.parse(api, self.kind, request.body)
            if self.kind == "llama.cpp":
                body["model"] = self._model(body["model"]).name
            entry.model = body["model"]
            rng = answers.seeded(self.seed, body)
            if self._strike_early(connection, request, body, entry, rng):
                return
            if endpoint == "embed":
                self._embed(connection, self._model(body["model"]), body, entry, v1=request.path != "/api/embed")
            else:
                self._answer(connection, _Asked(endpoint, api, sent, body), entry, rng)
        except Refused as refused:
            entry.status = refused.status
            self.truth.close(entry, "rejected")  # unless a fault has closed it
            raise

    def _strike_early(
        self, connection: ClientConnection, request: HttpRequest, body: Mapping[str, Any], entry: Entry, rng: Random
    ) -> bool:
        named = fault_of_model(full_name(body["model"]))
        # A request that only loads the model is spared, so that a client can prepare its load.
        by_model = named[0] if named is not None and rng.random() < named[1] and not _only_loads(body) else None
        entry.fault = _header_fault(request, rng) or by_model
        if entry.fault not in EARLY_FAULTS:
            return False
        if entry.fault == "hang-before":
            connection.on_lost = lambda: self.truth.close(entry, "faulted")
        else:
            entry.status = _STATUS_FAULTS.get(entry.fault, (200, ""))[0]
            self.truth.close(entry, "faulted")
        return _strike(connection, entry.fault, body["model"])

    def _answer(self, connection: ClientConnection, asked: _Asked, entry: Entry, rng: Random) -> None:
        body, endpoint = asked.body, asked.endpoint
        unknown = 'model "{}" not found, try pulling it first' if self.old and endpoint == "chat" else None
        model = self._model(body["model"]) if unknown is None else self._model(body["model"], unknown)
        if endpoint == "generate":
            body.pop("tools", None)
            body.pop("messages", None)
        if asked.api is None:
            body.pop("tool_choice", None)
        check_capabilities(body, model, ignores_think=self.old or self.kind == "llama.cpp")
        check_options(body.get("options", {}))
        if model.full():
            raise Refused(503, _BUSY)
        if entry.fault == "max-tokens-refused" and asked.api == "chat" and "max_tokens" in asked.sent:
            raise Refused(400, _WRONG_LIMIT)
        if _only_loads(body):
            return self._load(connection, model, body, entry, endpoint)
        known = self.answers.get(answers.last_user_content(body))
        if entry.fault == "schema-ignored" and body.keys() & {"format", "tool_choice"}:
            body = {name: value for name, value in body.items() if name not in ("format", "tool_choice")}
            known = None  # it is asked for in words, too
        check_format(body.get("format"), self.old, self.kind == "llama.cpp")
        model.context = min(model.profile.context_length, int(body.get("options", {}).get("num_ctx") or 4096))
        plan = answers.plan(body, model.profile, known, rng)
        entry.kind = plan.kind
        connection.closes_after_stream = entry.fault == "close-after" or self.kind == "llama.cpp"
        Generation(connection, model, body, plan, entry, self.truth, form=self._form(asked, entry.fault, rng),
                   fault=entry.fault, rng=rng, one_pass=self.old or self.kind == "llama.cpp").run()  # fmt: skip
        return None

    def _form(self, asked: _Asked, fault: str | None, rng: Random) -> Form:
        if asked.api is not None:
            return form_of(asked.api, asked.sent, asked.body["model"], self.kind, fault, self.old, rng)
        assert asked.endpoint != "embed"
        return OllamaForm(asked.endpoint, asked.body["model"], fault, self.old)

    def _load(
        self, connection: ClientConnection, model: Model, body: Mapping[str, Any], entry: Entry, endpoint: Endpoint
    ) -> None:
        """Load the model, or with ``keep_alive`` 0 unload it: what an empty prompt asks for."""
        loop = asyncio.get_running_loop()
        seconds = seconds_of(body.get("keep_alive"))
        entry.kind = "unload" if seconds == 0 else "load"

        def answer() -> None:
            model.keep(0.0 if seconds is None else seconds, loop.time())
            empty = {"message": {"role": "assistant", "content": ""}} if endpoint == "chat" else {"response": ""}
            head = {"model": body["model"], "created_at": timestamp()}
            self._complete(connection, entry, {**head, **empty, "done": True, "done_reason": entry.kind})

        wait = 0.0 if entry.kind == "unload" else model.load(loop.time(), body.get("options") or {})
        entry.load_ns = int(wait * 1e9)
        self._later(connection, entry, wait, answer)

    def _embed(
        self, connection: ClientConnection, model: Model, body: Mapping[str, Any], entry: Entry, v1: bool
    ) -> None:
        if "embedding" not in model.profile.capabilities and not self.old:
            raise Refused(501, "This server does not support embeddings. Start it with `--embeddings`")
        asked = body.get("input", [])
        texts = [asked] if isinstance(asked, str) else asked
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Refused(400, "invalid input type")
        loop = asyncio.get_running_loop()
        start = loop.time()
        load_s = model.load(start)
        tokens = sum(map(answers.count_tokens, texts))
        entry.kind, entry.prompt_tokens, entry.load_ns = "embedding", tokens, max(1000, int(load_s * 1e9))

        def answer() -> None:
            vectors = [recorded.embedding(text, model) for text in texts]
            if v1:
                return self._complete(connection, entry, v1_recorded.embeddings(body["model"], vectors, tokens))
            reply = {"model": body["model"], "embeddings": vectors,
                    "total_duration": int((loop.time() - start) * 1e9), "load_duration": entry.load_ns,
                    "prompt_eval_count": tokens}  # fmt: skip
            return self._complete(connection, entry, {k: v for k, v in reply.items() if v != 0})

        self._later(connection, entry, load_s + tokens / model.profile.prompt_tokens_per_s, answer)

    def _later(self, connection: ClientConnection, entry: Entry, wait: float, answer: Callable[[], None]) -> None:
        """Answer after ``wait`` seconds, unless the client goes away first."""
        timer = asyncio.get_running_loop().call_later(wait, answer)

        def lost() -> None:
            timer.cancel()
            self.truth.close(entry, "aborted")

        connection.on_lost = lost

    def _complete(self, connection: ClientConnection, entry: Entry, reply: Mapping[str, Any]) -> None:
        connection.on_lost = None
        entry.mark_done()
        connection.respond_json(reply)
        self.truth.close(entry, "completed")


def _only_loads(body: Mapping[str, Any]) -> bool:
    return not body.get("messages") and not body.get("prompt") and "input" not in body


def _header_fault(request: HttpRequest, rng: Random) -> str | None:
    """Return the fault that the header X-Simulate-Fault asks for; ``rng`` decides about a share."""
    asked = request.headers.get("x-simulate-fault")
    if asked is None:
        return None
    if (found := parse_fault(asked)) is None:
        raise Refused(400, f"unknown fault {asked!r}; known: {', '.join(FAULTS)}")
    return found[0] if rng.random() < found[1] else None


def _strike(connection: ClientConnection, fault: str | None, model: str = "") -> bool:
    """Do what the fault does before an answer begins; return False if it strikes later."""
    match fault:
        case "refuse":
            connection.reset()
        case "hang-before":
            return True
        case str() if fault in _STATUS_FAULTS:
            status, error = _STATUS_FAULTS[fault]
            raise Refused(status, error.format(model))
        case "empty-body":
            connection.respond(200, "text/event-stream", b"")
        case "wrong-content-type":
            connection.respond(200, "text/html", b"<html><body><h1>Sign in</h1></body></html>")
        case _:
            return False
    return True


def _is_old(version: str) -> bool:
    """Return whether the version is before 0.6, which answered differently; one that is not a number is new."""
    numbers = version.split(".")
    return len(numbers) > 1 and numbers[0] == "0" and numbers[1].isdigit() and int(numbers[1]) < 6
