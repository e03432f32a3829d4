"""Questions to a server beside its load, over httpx: they go the way that the requests of a load go."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from loadgen.api.server import REFUSED, AccessRefused, Redirects, ServerError
from loadgen.wire.access import Access, redirect_target
from loadgen.wire.tls import answers_tls, tls_problem

if TYPE_CHECKING:
    import httpx

_BAD_REQUEST = 400
_WANTS_TLS = re.compile(r"https(?!:)|ssl-enabled", re.IGNORECASE)
"""In the answer of a server that was spoken to in plain http, where only https is understood."""
_WANTS_CERTIFICATE = "No required SSL certificate"
"""In nginx's answer to a client without one."""


def client_of(address: str, timeout_s: float, access: Access, *, whole: bool = True) -> httpx.Client:
    """Return a client for questions to the server at the address.

    ``timeout_s`` is the limit of a whole answer, or (``whole`` False) of its first line.
    """
    import httpx

    from loadgen.wire.access import http_url

    way = way_to(address, access, timeout_s, whole=whole)
    return httpx.Client(base_url=http_url(address), timeout=timeout_s if whole else None, **way)


def way_to(address: str, access: Access, limit_s: float, *, whole: bool = True) -> dict[str, Any]:
    """Return the arguments of httpx with which questions go the way of the load: no redirect is followed.

    ``limit_s`` and ``whole`` as for ``client_arguments``.
    """
    from loadgen.wire.httpx_adapter import client_arguments

    def refuse_redirect(response: httpx.Response) -> None:
        if response.has_redirect_location:
            asked = str(response.url)
            target = redirect_target(asked, response.headers["location"])
            there = target.removesuffix(asked.removeprefix(address.rstrip("/")))
            raise Redirects(f"{address} redirects to {access.masked(there)}: give that as --host")

    way = client_arguments(address, access, limit_s, proxy_to(address), whole=whole)
    return {**way, "trust_env": False, "follow_redirects": False, "event_hooks": {"response": [refuse_redirect]}}


def allowed(answer: httpx.Response, address: str, access: Access) -> httpx.Response:
    """Return an answer that is not a refusal; else raise AccessRefused, or ServerError for a matter of TLS."""
    if answer.status_code in REFUSED:
        raise AccessRefused(f"{address} answers {access.refusal(answer.status_code)}")
    if answer.status_code == _BAD_REQUEST and address.startswith("http:") and _WANTS_TLS.search(answer.text):
        raise ServerError(_for_https(address))
    if answer.status_code == _BAD_REQUEST and _WANTS_CERTIFICATE in answer.text:
        raise ServerError(f"{address} asks for a client certificate: give --cert")
    return answer


def _for_https(address: str) -> str:
    return f"{address} speaks https: give --host https{address.removeprefix('http')}"


def unanswered(error: Exception, address: str, how: str, access: Access) -> ServerError:
    """Return the error for a server that did not answer, with what to do: ``how``, unless something else is wrong."""
    if (problem := tls_problem(error, address)) is not None:
        return ServerError(problem)
    url = urlsplit(address)
    if url.scheme == "http" and url.hostname and answers_tls(url.hostname, url.port or 80):
        return ServerError(_for_https(address))
    reason = access.masked(str(error)) or type(error).__name__
    return ServerError(f"no server answers at {address}{by_proxy(address)} ({reason}): {past_proxy(address) or how}")


def by_proxy(address: str) -> str:
    """Return which proxy of the environment leads to the server, if any."""
    proxy = proxy_to(address)
    return "" if proxy is None else f" by way of the proxy {proxy.copy_with(username=None, password=None)}"


def past_proxy(address: str) -> str | None:
    """Return how to reach the server without the proxy of the environment; None without one."""
    import httpx

    url = httpx.URL(address)
    if proxy_to(address) is None:
        return None
    return f"set no_proxy={url.host} to ask it directly, or correct {url.scheme}_proxy"


def proxy_to(address: str) -> httpx.URL | None:
    """Return the proxy that requests to the address take; ServerError for one that cannot be used."""
    import httpx

    from loadgen.wire.transport import proxy_for

    url = httpx.URL(address)
    if url.scheme == "unix" or (named := proxy_for(url.scheme, url.host)) is None:
        return None
    try:
        proxy = httpx.URL(named)
    except httpx.InvalidURL:
        proxy = httpx.URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise ServerError(f"the environment names a proxy for {address} that is not an http proxy: "
                          f"set no_proxy={url.host} to ask the server directly, or correct {url.scheme}_proxy or "
                          "all_proxy")  # fmt: skip
    return proxy
