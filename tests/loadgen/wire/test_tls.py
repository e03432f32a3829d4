"""TLS against real servers: every version, whose certificates count, what is told where they do not."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from fcntl import ioctl
from itertools import pairwise
from pathlib import Path
from termios import FIONREAD
from time import sleep

import pytest

from loadgen.api import ollama
from loadgen.api.ollama_server import ModelWatcher, answers, embed, load_model, probe, prompt_tokens, pull
from loadgen.api.sending import send
from loadgen.api.server import ServerError
from loadgen.simulator import Simulator
from loadgen.types import RequestRecord
from loadgen.wire.access import Access, access_of
from loadgen.wire.tls import server_context, tls_problem
from tests.support.scripted_server import DONE, SOON, Peer, Scripted, ask, chat, said
from tests.support.scripted_server import answers as answering
from tests.support.simulators import MODELS
from tests.support.tls import certificates

TLS_1_2, TLS_1_3 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(autouse=True)
def _no_certificates_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def trusting(**more: object) -> Access:
    return access_of({}, ca=certificates()("ca.pem"), **more)  # type: ignore[arg-type]


@contextmanager
def serving(name: str = "here", version: ssl.TLSVersion | None = None) -> Iterator[Simulator]:
    context = certificates().server(name)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    with Simulator(MODELS, tls=context) as server:
        yield server


@contextmanager
def scripted(context: ssl.SSLContext, script: Callable[[Peer], None]) -> Iterator[Scripted]:
    """A server whose script speaks inside TLS; its address is in ``url``."""

    def secured(peer: Peer) -> None:
        with context.wrap_socket(peer.sock.dup(), server_side=True) as secure:
            inner = Peer(secure, peer.number, server)
            with closing(inner.file):
                script(inner)

    with Scripted(secured) as server:
        server.url = server.url.replace("http://", "https://")
        yield server


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_each_answer_has_the_kernels_time_over_a_connection_that_was_opened_before(version: ssl.TLSVersion) -> None:
    async def loaded(url: str) -> list[RequestRecord]:
        client = ollama.make_client(url, trusting())
        await ollama.preconnect(client, 1, 20)
        question = chat(model="sim:fast", options={"num_predict": 8})
        records = [await send(ollama, client, question, SOON) for _ in range(3)]
        await client.close()  # type: ignore[no-untyped-call]
        return records

    with serving(version=version) as server:
        records = asyncio.run(loaded(server.url))
        truths = [one for one in server.truth()["requests"] if one["chunks"]]
    for record, truth in zip(records, truths, strict=True):
        assert record.error is None
        assert (record.clock, record.connect_s) == ("kernel", 0.0), "no request has to open a connection"
        assert len(record.chunk_ns) == truth["chunks"]
        assert record.sent_ns is not None
        assert all(a <= b for a, b in pairwise((record.sent_ns, truth["received_ns"], truth["first_ns"])))
        assert truth["first_ns"] <= record.chunk_ns[0], "one machine, one clock"


def test_opening_a_connection_includes_agreeing_on_tls() -> None:
    with serving() as server:
        (record,) = ask(server.url, chat(model="sim:fast"), access=trusting())
    assert (record.error, record.clock) == (None, "kernel")
    assert 0 < (record.connect_s or 0) < (record.ttft_s or 0)


@pytest.mark.parametrize(
    ("server", "trusts", "told"),
    [
        ("here", False, "is signed by nobody trusted here: give its authority's with --ca FILE"),
        ("elsewhere", True, "is for other names: give --host with one of them"),
        ("old", True, "has expired: renew it on the server"),
    ],
)
def test_a_certificate_that_does_not_count_is_told_with_what_to_do(server: str, trusts: bool, told: str) -> None:
    access = trusting() if trusts else access_of({})
    with serving(server) as running:
        (record,) = ask(running.url, chat(), access=access)
        with pytest.raises(ServerError, match=told):
            probe(running.url, access)
        (unchecked,) = ask(running.url, chat(model="sim:fast"), access=access_of({}, insecure=True))
        assert probe(running.url, access_of({}, insecure=True)).version == "0.33.0"
    assert record.error is not None
    assert (record.error.kind, unchecked.error) == ("connect", None)
    assert record.error.message.startswith("the certificate of 127.0.0.1:")
    assert record.error.message.endswith(told)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
def test_certificates_in_the_environment_count(variable: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(Path(certificates()("ca.pem")).read_text())
    with serving() as server:
        if variable == "SSL_CERT_DIR":  # as c_rehash leaves it
            subprocess.run(["openssl", "rehash", tmp_path], check=True)
        monkeypatch.setenv(variable, str(tmp_path if variable == "SSL_CERT_DIR" else path))
        (record,) = ask(server.url, chat(model="sim:fast"))
        assert record.error is None
        monkeypatch.setenv("SSL_CERT_FILE", certificates()("me.pem"))
        (others,) = ask(server.url, chat(model="sim:fast"), access=access_of({}, ca=str(path)))
        assert others.error is None, "--ca counts before the environment"


@pytest.mark.parametrize("version", [TLS_1_2, TLS_1_3])
def test_a_server_that_asks_who_we_are_gets_our_certificate(version: ssl.TLSVersion, tmp_path: Path) -> None:
    made = certificates()
    both = tmp_path / "both.pem"
    both.write_text(Path(made("me.pem")).read_text() + Path(made("me.key")).read_text())
    context = made.server()
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(made("ca.pem"))
    with scripted(context, answering(said("a"), DONE)) as server:
        for cert in ([made("me.pem"), made("me.key")], [str(both)]):
            (record,) = ask(server.url, chat(), access=trusting(cert=cert))
            assert (record.error, record.clock) == (None, "kernel")
        (nobody,) = ask(server.url, chat(), access=trusting())
        with pytest.raises(ServerError, match="--cert"):
            probe(server.url, trusting())
    assert nobody.error is not None
    assert nobody.error.kind == "connect"
    assert "give --cert" in nobody.error.message


def test_a_server_may_ask_who_we_are_after_the_request_and_speaks_http_1_1() -> None:
    made, seen = certificates(), []
    context = made.server()
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.post_handshake_auth = True
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(made("ca.pem"))

    def script(peer: Peer) -> None:
        assert isinstance(peer.sock, ssl.SSLSocket)
        peer.read()
        peer.sock.verify_client_post_handshake()
        peer.answer(said("a"), DONE)
        peer.read()
        seen.append((peer.sock.selected_alpn_protocol(), peer.sock.getpeercert()["subject"]))
        peer.answer(said("b"), DONE)

    with scripted(context, script) as server:
        records = ask(server.url, chat(), chat(), access=trusting(cert=[made("me.pem"), made("me.key")]))
    assert [(record.error, record.output_text, record.clock) for record in records] == [
        (None, "a", "kernel"), (None, "b", "kernel"),
    ]  # fmt: skip
    assert seen == [("http/1.1", ((("commonName", "me"),),))]


def test_a_gateway_that_asks_who_we_are_over_http_is_understood() -> None:
    def gateway(peer: Peer) -> None:
        while peer.read() is not None:
            peer.plain(400, b"<h1>400 Bad Request</h1> No required SSL certificate was sent", "text/html")

    with scripted(certificates().server(), gateway) as server, pytest.raises(ServerError, match="give --cert"):
        probe(server.url, trusting())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ca": "nowhere.pem"},
         "--ca nowhere.pem cannot be read (No such file or directory): give a file or folder of certificates"),
        ({"ca": "ca.key"}, "--ca ca.key has no certificate in PEM form: give a file that has"),
        ({"cert": ["me.pem"]}, "--cert me.pem: give a certificate and its key in PEM form, in one file or in two"),
        ({"cert": ["me.pem", "ca.key"]},
         "--cert me.pem with the key ca.key: the key is another certificate's: give this one's"),
        ({"cert": ["me.pem", "nowhere"]},
         "--cert me.pem with the key nowhere: a file cannot be read (No such file or directory): give one that can"),
        ({"cert": ["me.pem", "locked.key"]},
         "--cert me.pem with the key locked.key: the key is encrypted: give one without a password "
         "(openssl pkey -in A -out B)"),
        ({"ca": "/dev/zero"}, "--ca /dev/zero: /dev/zero is not a regular file: save what it gives in one"),
        ({"cert": ["me.pem", "/dev/zero"]},
         "--cert me.pem with the key /dev/zero: /dev/zero is not a regular file: save what it gives in one"),
    ],
)  # fmt: skip
def test_files_that_are_not_right_are_one_line(
    options: dict[str, object], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(certificates().folder)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the text is compared
        access_of({}, **options)  # type: ignore[arg-type]
    assert str(caught.value) == told


def test_a_plain_server_and_one_that_hangs_up_are_told_apart() -> None:
    def plain(peer: Peer) -> None:
        peer.sock.recv(1000)
        peer.sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    def hangs_up(peer: Peer) -> None:
        peer.sock.recv(1000)

    told = []
    for script in (plain, hangs_up):
        with Scripted(script) as server:
            (record,) = ask(server.url.replace("http://", "https://"), chat(), access=trusting())
        assert record.error is not None
        assert record.error.kind == "connect"
        told.append(record.error.message)
    assert "does not speak TLS on this port: give --host http://" in told[0]
    assert told[1].endswith("it was closed before TLS was agreed on")


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1000"}])
def test_an_answer_cut_short_is_never_taken_for_whole(headers: dict[str, str]) -> None:
    def cut(peer: Peer) -> None:
        peer.read()
        peer.head(headers={"Content-Type": "application/x-ndjson", **headers})
        peer.sock.sendall(b'{"message":{"role":"assistant","content":"a"},"done":false}\n{"message":{"role":')
        peer.sock.shutdown(socket.SHUT_WR)  # without TLS's goodbye

    with scripted(certificates().server(), cut) as server:
        (record,) = ask(server.url, chat(), access=trusting())
    assert record.error is not None
    assert (record.error.kind, record.output_text) == ("protocol", "a")
    assert record.error.message == "the connection was closed before the answer's end"


def test_every_question_is_asked_over_tls() -> None:
    with serving() as server:
        url, access = server.url, trusting()
        assert answers(url, access)
        assert not answers(url)
        assert load_model(url, "sim:fast", {}, None, access)[1] is None
        assert prompt_tokens(url, "sim:fast", "one two", {}, True, access) is not None
        assert len(embed(url, "sim:embed", ["a"], access)) == 1
        pull(url, "later", lambda *_: None, access)
        watcher = ModelWatcher(url, access)
        assert watcher.loaded("sim:fast") is not None
        watcher.close()


def test_a_server_needs_a_certificate_too() -> None:
    with pytest.raises(ValueError, match="--tls-cert"):
        server_context(certificates()("ca.key"), None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "between"),
    [("-tls1_3", "k"), ("-tls1_3", "K"), ("-tls1_2", "r"), ("-tls1_2", "R")],
    ids=["new keys", "new keys on both sides", "agreed on again", "asked again who we are"],
)
def test_what_tls_does_amid_an_answer_is_no_part_of_it(version: str, between: str) -> None:
    """``openssl s_server`` sends what it reads, and takes a letter for an order."""
    made = certificates()
    words = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", made("here.pem"), "-key", made("here.key"),
             "-CAfile", made("ca.pem"), version, "-naccept", "1", "-client_renegotiation"]  # fmt: skip
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n"
    lines = [json.dumps(said(text)) + "\n" for text in "abc"] + [json.dumps(DONE) + "\n"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        said_so_far = b""

        def heard(what: bytes) -> bytes:
            nonlocal said_so_far
            assert server.stdout is not None
            while what not in said_so_far:
                said_so_far += os.read(server.stdout.fileno(), 1 << 16)
            return said_so_far

        def answer() -> None:
            assert server.stdin is not None
            heard(b'"stream"')
            for data in (head.format(sum(map(len, lines))), lines[0], f"{between}\n", lines[1], lines[2], lines[3]):
                server.stdin.write(data.encode())
                server.stdin.flush()
                while any(ioctl(server.stdin, FIONREAD, bytes(4))):  # a letter is an order only if it is read by itself
                    sleep(0.005)

        try:
            port = int(heard(b"ACCEPT 127.0.0.1:").partition(b"ACCEPT 127.0.0.1:")[2])
            thread = threading.Thread(target=answer)
            thread.start()
            access = trusting(cert=[made("me.pem"), made("me.key")])
            (record,) = ask(f"https://127.0.0.1:{port}", chat(), access=access)
            thread.join(20)
        finally:
            server.kill()
    assert (record.error, record.output_text, len(record.chunk_ns), record.clock) == (None, "abc", 3, "kernel")


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (2, "is signed by nobody trusted here: give its authority's with --ca FILE"),
        (9, "is not valid yet: check both clocks"),
        (10, "has expired: renew it on the server"),
        (18, "is signed by nobody trusted here: give its authority's with --ca FILE"),
        (19, "is signed by nobody trusted here: give its authority's with --ca FILE"),
        (20, "is signed by nobody trusted here: give its authority's with --ca FILE"),
        (21, "is signed by nobody trusted here: give its authority's with --ca FILE"),
        (23, "is not valid: so it says"),
        (62, "is for other names: give --host with one of them"),
        (64, "is for other names: give --host with one of them"),
    ],
)
def test_each_reason_against_a_certificate_in_words(code: int, told: str) -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_code, error.verify_message = code, "so it says"
    assert tls_problem(error, "gpu:443") == f"the certificate of gpu:443 {told}"


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("WRONG_VERSION_NUMBER", "gpu does not speak TLS on this port: give --host http://…, or the port of https"),
        ("UNEXPECTED_EOF_WHILE_READING", "gpu closed the connection before TLS was agreed on"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "gpu asks for a client certificate: give --cert"),
        ("TLSV1_ALERT_PROTOCOL_VERSION", "gpu speaks no version of TLS that is safe enough "
         "(TLSV1_ALERT_PROTOCOL_VERSION): it needs TLS 1.2 or newer"),
        ("SSLV3_ALERT_HANDSHAKE_FAILURE", "gpu refused the connection (SSLV3_ALERT_HANDSHAKE_FAILURE): if it asks for "
         "a client certificate, give --cert"),
        ("BAD_RECORD_TYPE", "TLS with gpu failed: BAD_RECORD_TYPE"),
    ],
)  # fmt: skip
def test_each_reason_against_a_connection_in_words(reason: str, told: str) -> None:
    error = ssl.SSLError()
    error.reason = reason
    outer = OSError("somebody's own words")
    outer.__cause__ = error
    assert tls_problem(outer, "gpu") == told
    assert tls_problem(OSError("refused"), "gpu") is None
