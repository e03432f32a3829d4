"""Checking requests: which ones the server refuses, in the words recorded from Ollama 0.33 and 0.5.4.

Invariant: a body that passes has the right type in every field that is read later.
"""

from __future__ import annotations

import json
from typing import Any

from loadgen.simulator.models import Model, seconds_of
from loadgen.simulator.schemas import refusal
from loadgen.simulator.wireformat import JSON, JSON_BARE, NDJSON, encode

_STRUCTS = {"chat": "ChatRequest", "generate": "GenerateRequest", "embed": "EmbedRequest", "show": "ShowRequest",
            "pull": "PullRequest"}  # fmt: skip
_GO_NAMES = {str: "string", bool: "bool", int: "number", float: "number", list: "array", dict: "object"}


class Refused(Exception):
    """The server refuses the request with this error."""

    def __init__(self, status: int, message: str, content_type: str = JSON) -> None:
        super().__init__(message)
        self.status = status
        self.content_type = content_type
        self.body = encode({"error": message}) + (b"\n" if content_type == NDJSON else b"")


def parse(data: bytes, endpoint: str) -> dict[str, Any]:
    """Return the body as a dictionary whose fields have the right types; raise Refused otherwise."""
    struct = _STRUCTS[endpoint]
    if not data:
        raise Refused(400, "missing request body")
    try:
        body = json.loads(data)
    except json.JSONDecodeError as error:
        raise Refused(400, _go_words(error)) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise Refused(400, "invalid character in request body") from error
    if not isinstance(body, dict):
        raise Refused(400, f"json: cannot unmarshal {_go_name(body)} into Go value of type api.{struct}")
    body = {key: value for key, value in body.items() if value is not None}
    body.setdefault("model", body.get("name", ""))
    for name, kind, go in (("model", str, "string"), ("messages", list, "[]api.Message"), ("prompt", str, "string"),
                           ("system", str, "string"), ("tools", list, "api.Tools"), ("stream", bool, "bool"),
                           ("options", dict, "map[string]interface {}")):  # fmt: skip
        if name in body and not isinstance(body[name], kind):
            raise _mismatch(body[name], f"{struct}.{name}", go)
    for message in body.get("messages", ()):
        if not isinstance(message, dict):
            raise _mismatch(message, f"{struct}.messages", "api.Message")
        for name in ("role", "content"):
            if not isinstance(message.get(name) or "", str):
                raise _mismatch(message[name], f"{struct}.messages.{name}", "string")
    if not body["model"]:
        raise Refused(400, "model is required")
    if seconds_of(body.get("keep_alive")) is None:
        raise Refused(400, f'time: invalid duration "{body["keep_alive"]}"')
    return body


def _mismatch(value: Any, where: str, go: str) -> Refused:
    return Refused(400, f"json: cannot unmarshal {_go_name(value)} into Go struct field {where} of type {go}")


def _go_name(value: Any) -> str:
    return _GO_NAMES.get(type(value), "null")


def _go_words(error: json.JSONDecodeError) -> str:
    text = error.doc[error.pos :].lstrip()
    if not text:
        return "unexpected EOF"
    where = "beginning of object key string" if "property name" in error.msg else "beginning of value"
    if "delimiter" in error.msg:
        return f"invalid character '{text[0]}' after object key or value"
    return f"invalid character '{text[0]}' looking for {where}"


def check_options(options: dict[str, Any]) -> None:
    for name in ("num_predict", "num_ctx", "seed"):
        value = options.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise Refused(500, f'option "{name}" must be of type integer')


def check_capabilities(body: dict[str, Any], model: Model, old: bool) -> None:
    """Refuse tools and thinking that the model lacks; the old server ignored ``think``."""
    capabilities = model.profile.capabilities
    if "completion" not in capabilities:
        raise Refused(400, f'"{body["model"]}" does not support chat')
    if body.get("tools") and "tools" not in capabilities:
        raise Refused(400, f"registry.ollama.ai/library/{model.name} does not support tools")
    if body.get("think") and "thinking" not in capabilities:
        if not old:
            raise Refused(400, f'"{body["model"]}" does not support thinking')
        del body["think"]


def check_format(asked: Any, old: bool) -> None:
    """Refuse an invalid format: with status 400 or 500 in the new server, an error line and 200 in the old one."""
    if asked in (None, "", "json"):
        return
    if not isinstance(asked, dict):
        raw = json.dumps(json.dumps(asked, ensure_ascii=False), ensure_ascii=False)
        message = f'invalid format: {raw}; expected "json" or a valid JSON Schema object'
        raise Refused(200 if old else 500, message, NDJSON if old else JSON_BARE)
    if (reason := refusal(asked)) is None:
        return
    if old:
        raise Refused(200, "invalid JSON schema in format", NDJSON)
    message = f"Field 'json_schema': \"json_schema\": JSON schema conversion failed:\n{reason}"
    inner = {"error": {"code": 400, "message": message, "type": "invalid_request_error"}}
    raise Refused(400, json.dumps(inner, ensure_ascii=False, separators=(",", ":")), JSON_BARE)
