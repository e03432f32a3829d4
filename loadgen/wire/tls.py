"""TLS over a socket of our own, so that the kernel's receive stamps stay: bytes in, bytes out, no input or output.

A record is decrypted when its last byte has been read, hence the stamp of that read is the stamp of what the record
completes. Handshakes, session tickets and key updates bring no bytes of an answer.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_RECORD = 1 << 14
"""Bytes in the longest record."""
_TRIAL_S = 3.0
_EXPIRED = 10
_NOT_YET_VALID = 9
_UNTRUSTED = (2, 18, 19, 20, 21)
"""Issuer not found, self-signed, self-signed in the chain, issuer not found here, first certificate not verified."""
_OTHER_NAME = (62, 64)
"""Of X509_V_ERR_*: the host's name, its IP address."""


class TlsLayer:
    """The TLS side of one connection, which reads and writes through memory."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ended = False
        """The other side has said that nothing more will come: without that, an end may be somebody's cut."""

    def receive(self, data: bytes) -> None:
        """Take in what the other side sent."""
        self._incoming.write(data)

    def shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is done. SSLError if it failed."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def encrypt(self, data: bytes) -> bytes:
        """Return the records to send for the data, with all that has to go out before them."""
        self._object.write(data)
        return self._outgoing.read()

    @property
    def has_to_send(self) -> bool:
        """Whether ``to_send`` returns something."""
        return self._outgoing.pending > 0

    def to_send(self) -> bytes:
        """Return what the protocol itself has to send: handshakes, alerts, replies to key updates."""
        return self._outgoing.read()

    def decrypt(self, data: memoryview) -> bytes:
        """Return what the records bring that these bytes complete; SSLError for what is no valid record."""
        self._incoming.write(data)
        plain = b""
        try:
            while self._incoming.pending and not self.ended:
                record = self._object.read(_RECORD)
                plain = plain + record if plain else record  # nearly always one
                self.ended = not record
        except ssl.SSLWantReadError:
            pass
        return plain

    def goodbye(self) -> bytes:
        """Return what tells the other side that nothing more will come."""
        with contextlib.suppress(ssl.SSLError):  # it wants to read the other side's goodbye, or there is nobody
            self._object.unwrap()
        return self._outgoing.read()


def certificates_in(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that name files or folders of certificates, with their values."""
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
    return tuple((name, path) for name in names if (path := environ.get(name)))


@cache
def context_of(
    ca: str | None, cert: tuple[str, ...], insecure: bool, by_environment: tuple[tuple[str, str], ...]
) -> ssl.SSLContext:  # fmt: skip
    """Return the context for a client; it takes 30 ms to read the certificates.

    Trusted are those in ``ca``, else those in all of the environment's, else those of the system and of certifi.
    Raises ValueError, with one line for the user, if a file is not as it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    # As Go has it, and Python from 3.13 on: a certificate in the trusted file is trusted, whoever signed it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        _trust(context, by_environment if ca is None else (("--ca", ca),))
    if cert:
        _identify(context, "--cert", *cert)
        context.post_handshake_auth = True  # some servers ask for it only after a request
    return context


def server_context(cert: str, key: str | None) -> ssl.SSLContext:
    """Make the context for a server with this certificate; ValueError with one line for the user."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    _identify(context, "--tls-cert", cert, key)
    return context


def _trust(context: ssl.SSLContext, given: Sequence[tuple[str, str]]) -> None:
    """Trust the certificates at these paths, each with who gave it, or the usual ones if there are none."""
    for given_by, path in given:
        _trust_path(context, path, given_by)
    if not given:
        import certifi

        context.load_default_certs()
        context.load_verify_locations(certifi.where())


def _trust_path(context: ssl.SSLContext, path: str, given_by: str) -> None:
    _refuse_odd(path, f"{given_by} {path}")
    try:
        is_folder = Path(path).is_dir()
        context.load_verify_locations(capath=path) if is_folder else context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"{given_by} {path} has no certificate in PEM form: give a file that has") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"{given_by} {path} cannot be read ({reason}): give a file or folder of certificates"
        ) from None


def _refuse_odd(path: str | None, given: str) -> None:
    """Raise ValueError for a pipe or a device, of which OpenSSL would wait for the end."""
    if path is not None and Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
        raise ValueError(f"{given}: {path} is not a regular file: save what it gives in one")


def _identify(context: ssl.SSLContext, option: str, cert: str, key: str | None = None) -> None:
    """Load our own certificate and its key."""
    given = f"{option} {cert}" if key is None else f"{option} {cert} with the key {key}"

    def no_password() -> str:
        raise ValueError(f"{given}: the key is encrypted: give one without a password (openssl pkey -in A -out B)")

    for each in (cert, key):
        _refuse_odd(each, given)
    try:
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        if "MISMATCH" in str(error).upper():
            raise ValueError(f"{given}: the key is another certificate's: give this one's") from None
        raise ValueError(f"{given}: give a certificate and its key in PEM form, in one file or in two") from None
    except OSError as error:
        raise ValueError(f"{given}: a file cannot be read ({error.strerror}): give one that can") from None


@cache
def no_trust() -> ssl.SSLContext:
    """Return a context for clients that use no TLS but want one: nothing is trusted, and nothing is read for it."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def answers_tls(host: str, port: int) -> bool:
    """Return whether TLS is spoken at the port, whoever it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), _TRIAL_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False


def tls_problem(error: BaseException | None, host: str) -> str | None:
    """Return what is wrong with TLS to the host and what to do, if that is what the error comes from."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    if isinstance(error, ssl.SSLCertVerificationError):
        return _certificate_problem(error.verify_code, error.verify_message, host)
    reason = error.reason or str(error)
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return f"{host} does not speak TLS on this port: give --host http://…, or the port of https"
    if "EOF" in reason:
        return f"{host} closed the connection before TLS was agreed on"
    if "CERTIFICATE_REQUIRED" in reason:
        return f"{host} asks for a client certificate: give --cert"
    if "PROTOCOL" in reason and "APPLICATION" not in reason:
        return f"{host} speaks no version of TLS that is safe enough ({reason}): it needs TLS 1.2 or newer"
    if "ALERT" in reason:
        return f"{host} refused the connection ({reason}): if it asks for a client certificate, give --cert"
    return f"TLS with {host} failed: {reason}"


def _certificate_problem(code: int, message: str, host: str) -> str:
    if code == _EXPIRED:
        return f"the certificate of {host} has expired: renew it on the server"
    if code == _NOT_YET_VALID:
        return f"the certificate of {host} is not valid yet: check both clocks"
    if code in _OTHER_NAME:
        return f"the certificate of {host} is for other names: give --host with one of them"
    if code in _UNTRUSTED:
        return f"the certificate of {host} is signed by nobody trusted here: give its authority's with --ca FILE"
    return f"the certificate of {host} is not valid: {message}"
