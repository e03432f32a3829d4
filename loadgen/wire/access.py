"""What a server asks for before it answers: keys and headers, and the certificates that count; never in a message.

Invariant: whatever is wrong with what was given is a ValueError whose text is one line for the user, without a value.
"""

from __future__ import annotations

import json
import os
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urljoin

from loadgen.wire.tls import certificates_in, context_of

MASK = "***"
_SHORTEST_SECRET = 4
"""A shorter text would be masked in words that have nothing to do with it."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = frozenset({
    "accept", "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "keep-alive",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "user-agent",
})  # fmt: skip
"""Headers that belong to the connection, to the body or to the official client."""
_KEYS = frozenset({"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key", "x-goog-api-key"})
"""Headers of which the value is a secret, whoever the server is."""
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")
"""Anything else may be the value itself, by mistake, and is not repeated."""
_IN_ADDRESS = "the user and password in the address"
_USERINFO = re.compile(r"^((?:[a-z][a-z0-9+.-]*://)?)([^/?#]*)@", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Access:
    """What is sent with every request to a server, and which certificates count; the secrets are in no ``repr``."""

    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    given_by: str | None = None
    """Where what identifies us comes from, in the user's words; None: nothing does."""
    key_variable: str | None = None
    """The variable in which a key would have been found."""
    ca: str | None = None
    """A file or folder of certificates to trust; None: the environment's, else those of the system and of certifi."""
    cert: tuple[str, ...] = ()
    """Our own certificate, and its key unless both are in one file."""
    insecure: bool = False
    """Take any certificate."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Texts that no message may contain."""
    variables: tuple[tuple[str, str, str], ...] = ()
    """Each header whose value is an environment variable's: its name, what stands before the value, the variable."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the headers, in lower case."""
        return tuple(sorted(name.lower() for name, _ in self.headers))

    @property
    def encoded_headers(self) -> dict[str, bytes]:
        """The headers as httpx and its kind take them: of text they would take ASCII only."""
        return {name: value.encode("latin-1") for name, value in self.headers}

    @property
    def tls(self) -> ssl.SSLContext:
        """The context for TLS, one in each process; ValueError if a file is not right."""
        return context_of(self.ca, self.cert, self.insecure, certificates_in(os.environ))

    def completed(self, userinfo: str | None, key_variable: str | None, environ: Mapping[str, str]) -> Access:
        """Add the credentials of the address, else the key in the API's own variable if there is none yet."""
        access = replace(self, key_variable=key_variable)
        if userinfo is not None:
            user, _, password = (unquote(part) for part in userinfo.partition(":"))
            token = b64encode(f"{user}:{password}".encode()).decode()
            access = access.and_header("Authorization", f"Basic {token}", _IN_ADDRESS)
            return replace(access, secrets=(*access.secrets, password, userinfo, unquote(userinfo)))
        if access.given_by is None and key_variable is not None and (key := environ.get(key_variable, "").strip()):
            return access.and_variable("Authorization", checked(key, key_variable), f"the key in {key_variable}",
                                       key_variable, before="Bearer ")  # fmt: skip
        return access

    def by_name(self) -> Access:
        """Return the access without the values of variables, which ``from_environment`` adds on another machine.

        Other headers go with it, and are masked there too; ValueError if one of them is for a key. Files are those at
        the same place there.
        """
        if self.given_by == _IN_ADDRESS:
            raise ValueError(f"{_IN_ADDRESS} would be sent to other machines: give --header-env Authorization=VARIABLE")
        named = {header for header, _, _ in self.variables}
        headers = tuple(pair for pair in self.headers if pair[0] not in named)
        for name, _ in headers:
            if name.lower() in _KEYS:
                raise ValueError(f"--header {name} would be sent to other machines: give --header-env {name}=VARIABLE")
        secrets = tuple(text for _, value in headers for text in _secrets_in(value))
        ca = None if self.ca is None else str(Path(self.ca).absolute())
        cert = tuple(str(Path(path).absolute()) for path in self.cert)
        return replace(self, headers=headers, secrets=secrets, ca=ca, cert=cert)

    def from_environment(self, environ: Mapping[str, str]) -> Access:
        """Add the values to what ``by_name`` returned; ValueError if a variable is not set."""
        access = replace(self, variables=())
        for header, before, variable in self.variables:
            if not environ.get(variable, "").strip():
                raise ValueError(f"the variable {variable} is not set")
            value, given_by = checked(environ[variable], variable), self.given_by or f"the key in {variable}"
            access = access.and_variable(header, value, given_by, variable, before=before)
        return access

    def and_variable(self, name: str, value: str, given_by: str, variable: str, *, before: str = "") -> Access:
        """Add a header with the value of a variable."""
        access = self.and_header(name, f"{before}{value}", given_by)
        return replace(access, variables=(*self.variables, (name, before, variable)))

    def and_header(self, name: str, value: str, given_by: str) -> Access:
        """Add a header; what names the sender in the words of ``given_by`` is Authorization."""
        identifies = name.lower() == "authorization"
        if name.lower() in self.names:
            twice = f": by {self.given_by} and by {given_by}" if identifies else ""
            raise ValueError(f"the header {name} is given twice{twice}; leave one out")
        return replace(
            self, headers=(*self.headers, (name, value)), given_by=given_by if identifies else self.given_by,
            secrets=(*self.secrets, *_secrets_in(value)),
        )  # fmt: skip

    def refusal(self, status: int) -> str:
        """Return what a status of 401 or 403 means here, and what to set."""
        if self.given_by is not None:
            verb = "does not accept" if status == 401 else "does not allow this with"
            return f"HTTP {status}: the server {verb} {self.given_by}"
        variable = f"set {self.key_variable} or give" if self.key_variable else "give"
        lacking = f"{', '.join(self.names)} is not enough: " if self.names else ""
        return f"HTTP {status}: {lacking}{variable} --api-key-env"

    def masked(self, text: str) -> str:
        """Return a server's text without the secrets, which it may repeat, also as URLs, JSON and HTML write them."""
        hidden = [secret for secret in self.secrets if len(secret) >= _SHORTEST_SECRET]
        if not hidden:
            return text
        from html import escape

        in_url, in_json = partial(quote, safe=""), partial(_in_json, ensure_ascii=False)
        ways = (str, quote, in_url, quote_plus, escape, _in_json, in_json)
        for form in sorted({way(secret) for secret in hidden for way in ways}, key=len, reverse=True):
            text = text.replace(form, MASK)
        return text


def access_of(
    environ: Mapping[str, str], *, api_key_env: str | None = None, header_env: Sequence[str] = (),
    header: Sequence[str] = (), ca: str | None = None, cert: Sequence[str] = (), insecure: bool = False,
) -> Access:  # fmt: skip
    """Return the access that these options give, with the values of the variables that they name."""
    if len(cert) > 2:
        raise ValueError("--cert takes a certificate and its key, in one file or in two")
    if insecure and ca is not None:
        raise ValueError("--insecure takes any certificate, --ca names those to trust: leave one out")
    access = Access(ca=ca, cert=tuple(cert), insecure=insecure)
    if api_key_env is not None:
        key = _value_of(api_key_env, "--api-key-env", environ)
        access = access.and_variable("Authorization", key, f"the key in {api_key_env}", api_key_env, before="Bearer ")
    for pair in header_env:
        name, variable = _pair(pair, "--header-env", "NAME=VARIABLE")
        value = _value_of(variable, f"--header-env {name}", environ)
        access = access.and_variable(name, value, f"--header-env {name}", variable)
    for pair in header:
        name, value = _pair(pair, "--header", "NAME=VALUE")
        access = access.and_header(name, checked(value, f"--header {name}"), f"--header {name}")
    if access.ca is not None or access.cert:
        access.tls  # noqa: B018  # reads the files, and says what is wrong with them
    return access


NO_ACCESS = Access()
"""Nothing to show, and the usual certificates."""


def redirect_target(asked: str, location: str) -> str:
    """Return where a redirect leads; what is no address stays as the server gave it."""
    try:
        return urljoin(asked, location)
    except ValueError:
        return location


def _in_json(text: str, **how: bool) -> str:
    return json.dumps(text, **how)[1:-1]  # type: ignore[arg-type]


def unix_path(address: str) -> str | None:
    """Return the path of the socket if the address is ``unix:///path``, else None."""
    return address.removeprefix("unix://") if address.startswith("unix:///") else None


def http_url(address: str) -> str:
    """Return the URL for requests to the address, which may be that of a unix socket."""
    return "http://localhost" if unix_path(address) else address


def split_userinfo(host: str) -> tuple[str, str | None]:
    """Return an address without ``user:password@``, and that."""
    found = _USERINFO.match(host)
    return (host, None) if found is None else (found[1] + host[found.end() :], found[2])


def masked_address(host: str) -> str:
    """Return the address with its credentials masked."""
    return _USERINFO.sub(rf"\g<1>{MASK}@", host)


def masked_header(pair: str) -> str:
    """Return ``NAME=VALUE`` with the value masked."""
    return f"{pair.partition('=')[0]}={MASK}"


def checked(value: str, given_by: str) -> str:
    """Return the value without the white space around it; ValueError unless a header can carry it."""
    if any((ord(letter) < 32 and letter != "\t") or ord(letter) == 127 for letter in value):
        raise ValueError(f"{given_by}: the value has a line break or another control character: remove it")
    if not value.strip():
        raise ValueError(f"{given_by}: the value is empty: give one, or leave the option out")
    try:
        value.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError(f"{given_by}: the value has letters outside Latin-1, which no header can carry") from None
    return value.strip()


def _secrets_in(value: str) -> tuple[str, ...]:
    """Return what may be secret of a header's value: all of it, and what follows its scheme."""
    return value, value.rpartition(" ")[2]


def _pair(text: str, option: str, form: str) -> tuple[str, str]:
    """Split at the first "="; no message repeats what may be a value."""
    name, equals, value = text.partition("=")
    if not equals or not _NAME.fullmatch(name):
        raise ValueError(f"{option} does not begin with a header's name and '=': write {form}")
    if name.lower() in _OURS:
        raise ValueError(f"{option} {name}: structbench sets this header itself: leave it out")
    return name, value


def _value_of(variable: str, option: str, environ: Mapping[str, str]) -> str:
    if variable in environ:
        return checked(environ[variable], f"{option} {variable}")
    if _VARIABLE.fullmatch(variable):
        raise ValueError(f"{option}: the variable {variable} is not set: export it, or name another")
    raise ValueError(f"{option} does not name a variable that is set: give the name of one, not its value")
