"""TLS, mutual TLS and bearer tokens on both servers, with certificates made for the test."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
import pytest
import trio
import trustme

from spanloom.adapters.grpc import GrpcDoor, GrpcLimits, serve_grpc
from spanloom.adapters.http import open_listeners, serve_http
from spanloom.adapters.tls import TlsFiles
from spanloom.core.bearer import BearerGate, is_admitted
from spanloom.core.http_routes import text_response
from spanloom.core.rpc import RpcAnswer
from spanloom.errors import ConfigError
from spanloom.model import HttpRequest, HttpResponse

PATH = "/tests.Echo/Call"
TOKENS = ("s3cret",)


@dataclass(frozen=True)
class Papers:
    """A CA, and PEM files of a server and a client that it vouches for."""

    folder: Path
    ca: trustme.CA

    @classmethod
    def issue(cls, folder: Path) -> "Papers":
        papers = cls(folder, trustme.CA())
        papers.ca.cert_pem.write_to_path(str(papers.ca_file))
        for name in ("127.0.0.1", "client"):
            issued = papers.ca.issue_cert(name)
            issued.private_key_pem.write_to_path(str(folder / f"{name}.key"))
            issued.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
        return papers

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def server(self, *, mutual: bool) -> TlsFiles:
        return TlsFiles(self.folder / "127.0.0.1.pem", self.folder / "127.0.0.1.key", self.ca_file if mutual else None)

    def client_context(self, *, shows_certificate: bool) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if shows_certificate:
            context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        return context

    def client_credentials(self, *, shows_certificate: bool) -> grpc.ChannelCredentials:
        key = (self.folder / "client.key").read_bytes() if shows_certificate else None
        certificate = (self.folder / "client.pem").read_bytes() if shows_certificate else None
        return grpc.ssl_channel_credentials(self.ca_file.read_bytes(), key, certificate)


@pytest.fixture
def papers(tmp_path: Path) -> Papers:
    return Papers.issue(tmp_path)


async def answer(request: HttpRequest) -> HttpResponse:
    return text_response(200, f"{len(request.body)} bytes")


@asynccontextmanager
async def http_served(files: TlsFiles | None, tokens: tuple[str, ...] = ()) -> AsyncIterator[int]:
    listeners = await open_listeners("127.0.0.1", 0)
    context = files.context() if files else None
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_http, listeners, answer, gate=BearerGate(tokens), tls=context))
            yield listeners[0].socket.getsockname()[1]
            nursery.cancel_scope.cancel()


async def exchange(port: int, context: ssl.SSLContext | None, *headers: str, body: bytes = b"x" * 100) -> bytes:
    """The whole answer to one POST; nothing where the connection breaks."""
    stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", port)
    if context is not None:
        stream = trio.SSLStream(stream, context, server_hostname="127.0.0.1", https_compatible=True)
    lines = ["POST / HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    heard = b""
    with suppress(trio.BrokenResourceError):
        async with stream:
            await stream.send_all("\r\n".join(lines).encode() + body)
            async for chunk in stream:
                heard += chunk
    return heard


@pytest.mark.parametrize("mutual", [False, True])
async def test_http_speaks_tls(papers: Papers, mutual: bool) -> None:
    """A client that trusts the CA, and shows a certificate where one is asked for, is answered over TLS."""
    async with http_served(papers.server(mutual=mutual)) as port:
        heard = await exchange(port, papers.client_context(shows_certificate=mutual))
    assert heard.startswith(b"HTTP/1.1 200")
    assert heard.endswith(b"100 bytes")


async def test_http_turns_away_who_shows_no_certificate(papers: Papers) -> None:
    """With mutual TLS a client without a certificate, or without TLS, gets no answer, and the others do."""
    async with http_served(papers.server(mutual=True)) as port:
        assert b"HTTP/1.1" not in await exchange(port, papers.client_context(shows_certificate=False))
        assert b"HTTP/1.1" not in await exchange(port, None)
        assert b"HTTP/1.1 200" in await exchange(port, papers.client_context(shows_certificate=True))


async def test_http_refuses_who_has_no_token_before_the_body() -> None:
    """A wrong token is answered with 401 while the body is still to come; a right one is let in."""
    async with http_served(None, TOKENS) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")  # and no body
            heard = bytes(await stream.receive_some())
            assert heard.startswith(b"HTTP/1.1 401")
            assert b"WWW-Authenticate: Bearer\r\n" in heard
        assert b"HTTP/1.1 401" in await exchange(port, None, "Authorization: Bearer other")
        assert b"HTTP/1.1 200" in await exchange(port, None, "Authorization: Bearer s3cret")


@asynccontextmanager
async def grpc_served(files: TlsFiles) -> AsyncIterator[int]:
    async def method(body: bytes) -> RpcAnswer:
        return RpcAnswer(body)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            door = GrpcDoor("127.0.0.1", 0, tls=files)
            yield await nursery.start(partial(serve_grpc, door, {PATH: method}, limits=GrpcLimits(grace_s=1)))
            nursery.cancel_scope.cancel()


async def call(port: int, credentials: grpc.ChannelCredentials | None) -> bytes:
    def ask() -> bytes:
        target = f"127.0.0.1:{port}"
        with grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
            return method(b"hello", timeout=3)

    return await trio.to_thread.run_sync(ask)


@pytest.mark.parametrize("mutual", [False, True])
async def test_grpc_speaks_tls(papers: Papers, mutual: bool) -> None:
    """A client that trusts the CA, and shows a certificate where one is asked for, is answered over TLS."""
    async with grpc_served(papers.server(mutual=mutual)) as port:
        assert await call(port, papers.client_credentials(shows_certificate=mutual)) == b"hello"
        with pytest.raises(grpc.RpcError):
            await call(port, papers.client_credentials(shows_certificate=False) if mutual else None)


@pytest.mark.parametrize("missing", ["127.0.0.1.pem", "127.0.0.1.key", "ca.pem"])
def test_a_file_that_is_no_certificate_is_named(papers: Papers, missing: str) -> None:
    """A start with a wrong file ends with its name, on both servers."""
    (papers.folder / missing).write_text("nothing")
    with pytest.raises(ConfigError, match=missing):
        papers.server(mutual=True).context()
    with pytest.raises(ConfigError, match=missing):
        papers.server(mutual=True).grpc_credentials()


def test_probes_need_no_token() -> None:
    """Who asks whether we live is answered without a token; everything else wants one where there are any."""
    gate = BearerGate(TOKENS)
    assert gate("/ready", {}) is None
    refusal = gate("/v1/traces", {})
    assert refusal is not None
    assert refusal.status == 401
    assert is_admitted("", ())
    assert not is_admitted("Bearer ünknown", TOKENS)
