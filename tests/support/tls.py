"""Certificates made by openssl, and the server's side of TLS in memory, where a test sees and cuts each record."""

from __future__ import annotations

import atexit
import contextlib
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from loadgen.wire.tls import TlsLayer

_EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Certificates:
    """An authority and what it signed, by name: ``ca.pem``, ``NAME.pem``, ``NAME.key`` in a folder."""

    folder: Path

    def __call__(self, name: str) -> str:
        return str(self.folder / name)

    def server(self, name: str = "here") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self(f"{name}.pem"), self(f"{name}.key"))
        return context


@cache
def certificates() -> Certificates:
    """``here`` is for 127.0.0.1 and localhost, ``elsewhere`` for another name; ``old`` is over, ``me`` a client's."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make certificates")
    made = Certificates(Path(mkdtemp(prefix="structbench-test-tls-")))
    atexit.register(shutil.rmtree, made.folder)

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=made.folder)

    openssl("req", "-x509", *_EC, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    for name, names, days in (
        ("here", "IP:127.0.0.1,IP:::1,DNS:localhost", 2),
        ("elsewhere", "DNS:elsewhere.example", 2),
        ("old", "IP:127.0.0.1", -1),
        ("me", "DNS:me", 2),
    ):
        (made.folder / f"{name}.ext").write_text(f"subjectAltName={names}")
        openssl("req", *_EC, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", str(days), "-extfile", f"{name}.ext", "-out", f"{name}.pem")  # fmt: skip
    openssl("pkey", "-in", "me.key", "-aes128", "-passout", "pass:word", "-out", "locked.key")
    return made


class ServerSide:
    """A TLS server without a socket, which has agreed on TLS with ``layer``, our side."""

    def __init__(self, client: ssl.SSLContext, server: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = server.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.layer = TlsLayer(client, "127.0.0.1")
        agreed = False
        while not agreed:
            agreed = self.layer.shake_hands()
            self.read(self.layer.to_send())
            if not agreed:
                self.layer.receive(self._outgoing.read())
        self._unsent = self._outgoing.read()

    def read(self, sealed: bytes) -> bytes:
        """What our side sent, opened."""
        self._incoming.write(sealed)
        try:
            return self._object.read(1 << 16)
        except ssl.SSLWantReadError:
            return b""

    def tickets(self) -> bytes:
        """What the server has sent by itself after the handshake; it goes before the next record."""
        unsent, self._unsent = self._unsent, b""
        return unsent

    def seal(self, data: bytes) -> bytes:
        """The data as a record."""
        self._object.write(data)
        return self.tickets() + self._outgoing.read()

    def hears_goodbye(self, sealed: bytes) -> bool:
        """Whether our side sent the alert that nothing more will come."""
        self._incoming.write(sealed)
        try:
            return self._object.read(1) == b""
        except ssl.SSLZeroReturnError:
            return True

    def goodbye(self) -> bytes:
        """The alert that nothing more will come."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._object.unwrap()
        return self.tickets() + self._outgoing.read()
