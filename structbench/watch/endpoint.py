"""Scraping a load's metrics endpoint: fetch, parse, sort by cell.

Invariant: whatever answers at the address, the result is a ``Scrape``, ``Unreachable`` or ``BadInput``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, IncompleteRead
from itertools import accumulate
from math import inf, isfinite, isnan
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

from loadgen.api.server import REFUSED
from loadgen.telemetry.histogram import Buckets
from loadgen.wire.access import NO_ACCESS, Access, masked_address, redirect_target
from loadgen.wire.deadline import NoEnd, within
from loadgen.wire.tls import no_trust, tls_problem
from structbench.errors import BadInput

MAX_BYTES = 32 << 20
_OURS = ("structbench_", "gen_ai_client_")
_EXAMPLE = "http://127.0.0.1:9464/metrics"
_EXPECTED = "give the --url of a load's metrics, which `structbench load` serves on port 9464"


class Unreachable(Exception):
    """Nothing answers at the address, or not in time."""


class CellKey(NamedTuple):
    """The labels that identify a cell's series; ``label`` is empty if the load has none."""

    model: str
    suite: str
    load: str
    label: str = ""

    @property
    def name(self) -> str:
        return " ".join(part for part in self if part)


class MetricSample(NamedTuple):
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """Samples by metric name: those of a cell, or those that belong to none."""

    samples: dict[str, list[MetricSample]] = field(default_factory=dict)

    def of(self, name: str, **labels: str) -> Iterator[MetricSample]:
        """Yield the samples with these labels; an absent label counts as empty, as in PromQL."""
        for sample in self.samples.get(name, ()):
            if all(sample.labels.get(label, "") == value for label, value in labels.items()):
                yield sample

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of the samples with these labels, or None if there are none."""
        values = [sample.value for sample in self.of(name, **labels)]
        return sum(values) if values else None

    def count(self, name: str, **labels: str) -> int:
        """Return a counter's value: 0 before the first count, since it is absent until then."""
        value = self.value(name, **labels)
        return 0 if value is None else int(value)

    def by(self, name: str, label: str) -> dict[str, int]:
        """Return the counts for each value of a label, without those that lack it."""
        counts: dict[str, int] = {}
        for sample in self.of(name):
            if value := sample.labels.get(label):
                counts[value] = counts.get(value, 0) + int(sample.value)
        return counts

    def histogram(self, name: str, **labels: str) -> Buckets | None:
        """Return the histogram, summed over all other labels, or None if it is absent."""
        counts: dict[float, float] = {}
        for sample in self.of(f"{name}_bucket", **labels):
            bound = float(sample.labels["le"])
            counts[bound] = counts.get(bound, 0.0) + sample.value
        if inf not in counts:
            return None
        bounds = tuple(sorted(counts))
        return Buckets(bounds, tuple(accumulate((counts[bound] for bound in bounds), max)))


@dataclass(frozen=True, slots=True)
class Scrape:
    """What the endpoint returned, and when (seconds of a monotonic clock)."""

    at_s: float
    cells: dict[CellKey, Metrics] = field(default_factory=dict)
    rest: Metrics = field(default_factory=Metrics)


class _NoRedirects(HTTPRedirectHandler):
    """Leaves a redirect as the error that it is, wherever it leads."""

    def http_error_302(self, *_: Any, **__: Any) -> None:
        return None

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def endpoint(text: str) -> str:
    """Return the full URL of an address, for which ``host:port`` is enough; raise BadInput if it is not valid."""
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # is checked only when it is read
        valid = parts.scheme in ("http", "https") and parts.hostname
    except ValueError:
        valid = False
    if not valid:
        raise BadInput(f"--url {masked_address(text)} is not a valid address: give one such as {_EXAMPLE}")
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/metrics"


def fetch(url: str, timeout_s: float = 5.0, access: Access = NO_ACCESS) -> str:
    """Return the endpoint's text; raise Unreachable if nothing answers, BadInput if something else does."""
    try:
        kind, body = _answer(url, timeout_s, access)
    except (Unreachable, BadInput) as error:
        raise type(error)(access.masked(str(error))) from None
    if kind not in ("text/plain", "application/openmetrics-text"):
        raise BadInput(f"{url} returned {access.masked(kind)}: {_EXPECTED}")
    if len(body) > MAX_BYTES:
        raise BadInput(f"{url} returned more than {MAX_BYTES >> 20} MB: {_EXPECTED}")
    try:
        return str(body, "utf-8")
    except UnicodeDecodeError:
        raise BadInput(f"{url} did not return UTF-8 text: {_EXPECTED}") from None


def _answer(url: str, timeout_s: float, access: Access) -> tuple[str, bytes]:
    """Return the content type and the body, of which a byte too many is read."""
    # Never through a proxy: the endpoint is on this machine, or at the near end of a tunnel.
    opener = build_opener(
        ProxyHandler({}), _NoRedirects, HTTPSHandler(context=access.tls if url.startswith("https:") else no_trust())
    )
    request = Request(url, headers={**dict(access.headers), "Accept": "text/plain; version=0.0.4"})

    def ask() -> tuple[str, bytes]:
        with opener.open(request, timeout=timeout_s) as answer:
            return answer.headers.get_content_type(), answer.read(MAX_BYTES + 1)

    try:
        return within(2 * timeout_s, ask)
    except NoEnd:
        raise BadInput(f"{url} sends an answer without an end ({2 * timeout_s:g} s): {_EXPECTED}") from None
    except HTTPError as error:
        error.close()
        if error.code in REFUSED:
            raise BadInput(f"{url} answers {access.refusal(error.code)}") from None
        if (place := error.headers.get("location")) is not None:
            raise BadInput(f"{url} redirects to {redirect_target(url, place)}: give that as --url") from None
        raise BadInput(f"{url} returned status {error.code}: {_EXPECTED}") from None
    except (OSError, IncompleteRead) as error:
        if (problem := tls_problem(error, url)) is not None:
            raise BadInput(problem) from None
        reason = error.reason if isinstance(error, URLError) else error
        raise Unreachable((isinstance(reason, OSError) and reason.strerror) or str(reason)) from None
    except HTTPException as error:
        raise BadInput(f"{url} sends no answer as HTTP has them ({error}): {_EXPECTED}") from None


def parse(text: str, url: str, at_s: float, names: tuple[str, ...] = _OURS) -> Scrape:
    """Parse the metrics whose names begin with one of ``names``; raise BadInput if they are not a load's.

    Parsing is the main cost of watching a load on the same machine, hence only what is needed.
    """
    from prometheus_client.parser import text_string_to_metric_families

    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    # Before the first cell there is nothing, or only what OpenTelemetry says about the process.
    if any(not line.startswith("target_info") for line in lines) and not any(line.startswith(_OURS) for line in lines):
        raise BadInput(f"{url} returned metrics, but not those of a load: {_EXPECTED}")
    scrape = Scrape(at_s)
    wanted = "\n".join(line for line in lines if line.startswith(names)) + "\n"
    try:
        for family in text_string_to_metric_families(wanted):
            for sample in family.samples:
                if not isfinite(sample.value):
                    continue
                if sample.name.endswith("_bucket") and isnan(float(sample.labels.get("le", "nan"))):
                    raise ValueError
                key = _cell(sample.labels)
                series = scrape.cells.setdefault(key, Metrics()) if any(key) else scrape.rest
                series.samples.setdefault(sample.name, []).append(MetricSample(sample.labels, sample.value))
    except ValueError:
        raise BadInput(f"{url} did not return metrics: {_EXPECTED}") from None
    return scrape


def _cell(labels: Mapping[str, str]) -> CellKey:
    names = ("gen_ai_request_model", "structbench_suite", "structbench_load", "structbench_label")
    return CellKey(*(labels.get(name, "") for name in names))
