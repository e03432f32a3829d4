"""Choosing the collector to push to, from ``--otlp`` and the standard OTEL_* variables. Pure.

Invariant: anything wrong with either is a ValueError whose text is one line for the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import unquote, urlsplit

from loadgen.wire.access import Access, masked_address, split_userinfo

PUSHES = "http/protobuf"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_HEADERS = tuple(f"OTEL_EXPORTER_OTLP_{signal}HEADERS" for signal in ("", "TRACES_", "METRICS_"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The URL that each signal is pushed to; None: it is not pushed."""

    name: str
    """The collector as the user wrote it, its credentials masked."""
    traces: str | None = field(repr=False)
    metrics: str | None = field(repr=False)
    content: bool = False
    """Whether spans include prompts and answers."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that no message may contain."""


def is_disabled(environ: Mapping[str, str]) -> bool:
    """Return whether OTEL_SDK_DISABLED=true: then no metrics, no spans, no port."""
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def is_installed() -> bool:
    """Return whether the OTLP exporter is installed; it comes with the extra ``otlp``."""
    try:
        return find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        return False


def target_of(option: str | None, content: bool, environ: Mapping[str, str]) -> Target | None:
    """Return the collector that the option names, else the environment's, else None."""
    if is_disabled(environ):
        return None
    traces, metrics = (_endpoint(signal, option, environ) for signal in ("traces", "metrics"))
    if traces is None and metrics is None:
        return None
    name = option or environ.get(_ENDPOINT) or traces or metrics
    secrets = _secrets((traces, metrics), environ)
    return Target(name=masked_address(str(name)), traces=traces, metrics=metrics, content=content, secrets=secrets)


def _secrets(urls: Sequence[str | None], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what lets us in at the collector: the credentials in its URLs, and the values of its headers."""
    named = [userinfo for url in urls if url is not None and (userinfo := split_userinfo(url)[1]) is not None]
    pairs = [pair for variable in _HEADERS for pair in environ.get(variable, "").split(",")]
    values = [unquote(pair.partition("=")[2]).strip() for pair in pairs]
    return (
        *(secret for userinfo in named for secret in Access().completed(userinfo, None, environ).secrets),
        *(secret for value in values if value for secret in (value, value.rpartition(" ")[2])),
    )


def _endpoint(signal: str, option: str | None, environ: Mapping[str, str]) -> str | None:
    """Return a signal's URL: the option and OTEL_EXPORTER_OTLP_ENDPOINT lack its path, its own variable has it."""
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}"
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return None
    if option is not None:
        url = f"{_checked(option, f'--otlp {masked_address(option)!r}')}/v1/{signal}"
    elif whole := environ.get(f"{own}_ENDPOINT"):
        url = _checked(whole, f"{own}_ENDPOINT={masked_address(whole)}")
    elif base := environ.get(_ENDPOINT):
        url = f"{_checked(base, f'{_ENDPOINT}={masked_address(base)}')}/v1/{signal}"
    else:
        return None
    for variable in (f"{own}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(variable, "").strip():
            if protocol != PUSHES:
                raise ValueError(
                    f"{variable}={protocol}: structbench pushes only {PUSHES}: set that, and give the collector's "
                    "HTTP port, usually 4318"
                )
            break
    return url


def _checked(url: str, given_as: str) -> str:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(c.isspace() for c in url):
        raise ValueError(f"{given_as} is not a valid collector address: give one such as http://127.0.0.1:4318")
    return url.rstrip("/")
