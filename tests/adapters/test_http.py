"""The HTTP server: what it serves, what it refuses, and that neither harms the next connection."""

import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing
import zstandard

from spanloom.adapters.http import HttpCounters, HttpLimits, Stream, open_listeners, serve_http
from spanloom.core.http_routes import Route, Router, json_response, text_response
from spanloom.errors import ConfigError
from spanloom.model import HttpRequest, HttpResponse

S = 1.0


class MemoryListener(trio.abc.Listener[Stream]):
    """Connections without sockets, so that a test's clock may jump."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[Stream](0)

    async def connect(self) -> Stream:
        ours, theirs = trio.testing.memory_stream_pair()
        await self._send.send(theirs)
        return ours

    async def accept(self) -> Stream:
        return await self._receive.receive()

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()


@dataclass
class Server:
    """A server under test and what it was asked."""

    listener: MemoryListener
    counters: HttpCounters
    scope: trio.CancelScope
    requests: list[HttpRequest] = field(default_factory=list)

    async def talk(self, data: bytes) -> bytes:
        """Send *data* on a connection of its own, read until the server closes."""
        async with await self.listener.connect() as stream:
            await stream.send_all(data)
            return await read_all(stream)


async def read_all(stream: Stream) -> bytes:
    """Everything until the other side closes."""
    data = bytearray()
    while piece := await stream.receive_some(65536):
        data += piece
    return bytes(data)


async def read_until(stream: Stream, end: bytes) -> bytes:
    """Everything up to and with *end*, and what came with it."""
    data = bytearray()
    while end not in data:
        piece = await stream.receive_some(65536)
        assert piece, f"closed before {end!r}: {bytes(data)!r}"
        data += piece
    return bytes(data)


async def echo(request: HttpRequest) -> HttpResponse:
    return text_response(200, f"{request.method} {request.path} {request.body.decode('latin-1')}|")


@asynccontextmanager
async def serving(
    handler: Callable[[HttpRequest], Awaitable[HttpResponse]] = echo, limits: HttpLimits | None = None
) -> AsyncIterator[Server]:
    """A server on a memory listener; stopped without grace at the end."""
    listener = MemoryListener()
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        server = Server(listener, HttpCounters(), scope)

        async def record(request: HttpRequest) -> HttpResponse:
            server.requests.append(request)
            return await handler(request)

        async def run(*, task_status: trio.TaskStatus[object]) -> None:
            with scope:
                await serve_http([listener], record, limits=limits, counters=server.counters, task_status=task_status)

        await nursery.start(run)
        yield server
        nursery.cancel_scope.cancel()
        scope.cancel()


def post(body: bytes, *headers: str, path: str = "/x") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


async def test_a_request_is_answered_with_type_length_and_date(autojump_clock: trio.testing.MockClock) -> None:
    """Every answer says what it is, how long it is, and when it was made."""
    async with serving() as server:
        answer = await server.talk(b"GET /a%20b?q=1&q=2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"GET /a b |"
    names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
    assert {b"content-type", b"content-length", b"date", b"connection"} <= names
    assert server.requests[0].query == {"q": "2"}


async def test_a_head_request_gets_the_length_but_no_body(autojump_clock: trio.testing.MockClock) -> None:
    """HEAD is answered as GET is, without the body, and the connection stays usable."""
    async with serving() as server, await server.listener.connect() as stream:
        await stream.send_all(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n")
        head = await read_until(stream, b"\r\n\r\n")
        assert head.endswith(b"\r\n\r\n")
        assert b"content-length: 9" in head.lower()
        await stream.send_all(b"GET /y HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert (await read_all(stream)).endswith(b"\r\n\r\nGET /y |")


async def test_pipelined_requests_are_answered_in_order(autojump_clock: trio.testing.MockClock) -> None:
    """Requests sent in one go, the last one in pieces, are each answered once, in order, on one connection."""
    async with serving() as server, await server.listener.connect() as stream:
        await stream.send_all(
            b"POST /1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabcGET /2 HTTP/1.1\r\nHost: h\r\n\r\nGET /3 HT"
        )
        await read_until(stream, b"GET /2 |")
        await stream.send_all(b"TP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert (await read_all(stream)).endswith(b"GET /3 |")
    assert [(r.path, r.body) for r in server.requests] == [("/1", b"abc"), ("/2", b""), ("/3", b"")]
    assert server.counters.connections == 1


async def test_a_chunked_body_arrives_whole(autojump_clock: trio.testing.MockClock) -> None:
    """A body without a length, in chunks, is the sum of them."""
    async with serving() as server:
        await server.talk(
            b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nTrailer: t\r\n\r\n"
        )
    assert server.requests[0].body == b"abcdefg"


async def test_a_client_that_asks_whether_to_go_on_is_told_so(autojump_clock: trio.testing.MockClock) -> None:
    """`Expect: 100-continue` is answered before the body is sent."""
    async with serving() as server, await server.listener.connect() as stream:
        await stream.send_all(
            b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"ok")
        assert (await read_all(stream)).endswith(b"POST /x ok|")


async def test_a_wish_to_speak_http_2_is_not_heard(autojump_clock: trio.testing.MockClock) -> None:
    """A client that offers to upgrade with its first request, a body included, is answered in HTTP/1.1 and stays."""
    wish = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"
    async with serving() as server, await server.listener.connect() as stream:
        request = f"POST /1 HTTP/1.1\r\nHost: h\r\n{wish}\r\nContent-Length: 3\r\n\r\nabc".encode()
        await stream.send_all(request)
        assert (await read_until(stream, b"POST /1 abc|")).startswith(b"HTTP/1.1 200")
        await stream.send_all(b"GET /2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert (await read_all(stream)).endswith(b"GET /2 |")
    assert "upgrade" not in server.requests[0].headers


async def test_a_client_that_asks_before_sending_too_much_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    """A body whose length is over the limit is refused before it is sent."""
    async with serving(limits=HttpLimits(body_bytes_max=1000)) as server, await server.listener.connect() as stream:
        await stream.send_all(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
        assert status_of(await read_until(stream, b"}")) == 413


@pytest.mark.parametrize(
    ("encoding", "encode"), [("gzip", gzip.compress), ("GZIP", gzip.compress), ("zstd", zstandard.compress)]
)
async def test_compressed_bodies_are_opened(
    autojump_clock: trio.testing.MockClock, encoding: str, encode: Callable[[bytes], bytes]
) -> None:
    """The handler sees the body as it was before gzip or zstd."""
    async with serving() as server:
        await server.talk(post(encode(b"hello " * 1000), f"Content-Encoding: {encoding}"))
    assert server.requests[0].body == b"hello " * 1000
    assert "content-encoding" not in server.requests[0].headers


BOMB = b"\0" * 1_000_001


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),  # TLS to a plain port
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /x\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\n\r\n", 400),  # no Host
        (b"GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (post(b"ok", "Content-Length: 2"), 400),  # RFC 9112, section 6.3, lets us
        (post(b"ok", "Host: i"), 400),
        (b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
        (b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: magic\r\n\r\n", 501),
        (b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /x?" + b"a=1&" * 200 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET http://[broken HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", 431),
        (post(b"x" * 1_000_001), 413),
        (post(gzip.compress(BOMB), "Content-Encoding: gzip"), 413),
        (post(zstandard.compress(BOMB), "Content-Encoding: zstd"), 413),
        (post(gzip.compress(b"cut")[:-3], "Content-Encoding: gzip"), 400),
        (post(zstandard.compress(b"cut")[:-3], "Content-Encoding: zstd"), 400),
        (post(b"no gzip", "Content-Encoding: gzip"), 400),
        (post(b"x", "Content-Encoding: br"), 415),
        (post(gzip.compress(gzip.compress(b"x")), "Content-Encoding: gzip, gzip"), 415),
        (
            b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000\r\n" + b"x" * 65536 + b"\r\n",
            408,
        ),
    ],
)
async def test_a_bad_request_is_refused_and_the_connection_closed(
    autojump_clock: trio.testing.MockClock, data: bytes, status: int
) -> None:
    """Whatever is wrong with a request, its sender is told so, the handler never sees it, the next one is served."""
    async with serving(limits=HttpLimits(body_bytes_max=1_000_000)) as server:
        answer = await server.talk(data)
        assert status_of(answer) == status
        assert b"connection: close" in answer.lower()
        assert b'{"error":' in answer
        assert server.requests == []
        assert status_of(await server.talk(post(b"fine"))) == 200
    assert (server.counters.refused, server.counters.crashes) == (1, 0)


async def test_slow_loris_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """A head that drips in is refused once its time is over, however steadily it drips."""
    async with serving(limits=HttpLimits(header_s=10 * S)) as server, await server.listener.connect() as stream:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def drip() -> None:
                for byte in b"GET /x HTTP/1.1\r\nX: " + b"y" * 100:
                    await stream.send_all(bytes([byte]))
                    await trio.sleep(1)

            answer = await read_until(stream, b"}")
            nursery.cancel_scope.cancel()
        assert status_of(answer) == 408
        assert trio.current_time() == pytest.approx(10)


async def test_a_body_that_stalls_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """A body that is not there in time is refused with 408."""
    async with serving() as server, await server.listener.connect() as stream:
        await stream.send_all(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc")
        assert status_of(await read_all(stream)) == 408


async def test_a_silent_connection_is_closed_without_a_word(autojump_clock: trio.testing.MockClock) -> None:
    """A connection nobody uses is given up, sooner if it never said anything."""
    limits = HttpLimits(header_s=10 * S, idle_s=75 * S)
    async with serving(limits=limits) as server:
        async with await server.listener.connect() as stream:
            assert await read_all(stream) == b""
        assert trio.current_time() == pytest.approx(10)
        async with await server.listener.connect() as stream:
            await stream.send_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
            assert (await read_all(stream)).endswith(b"GET /x |")
        assert trio.current_time() == pytest.approx(85)


async def test_a_sender_that_leaves_in_the_middle_is_forgotten(autojump_clock: trio.testing.MockClock) -> None:
    """Half a request and a closed connection cost nothing and reach no handler."""
    async with serving() as server:
        for half in (b"GET /x HT", b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc"):
            async with await server.listener.connect() as stream:
                await stream.send_all(half)
        await trio.testing.wait_all_tasks_blocked()
        assert status_of(await server.talk(post(b"fine"))) == 200
        assert len(server.requests) == 1
        assert server.counters.crashes == 0


async def test_a_reader_that_does_not_read_is_given_up() -> None:
    """An answer nobody takes does not keep its connection for ever."""
    async with trio.open_nursery() as nursery:

        async def large(request: HttpRequest) -> HttpResponse:
            return text_response(200, "x" * 20_000_000)

        listeners = await open_listeners("127.0.0.1", 0)
        counters = HttpCounters()
        limits = HttpLimits(write_s=0.05)
        nursery.start_soon(lambda: serve_http(listeners, large, limits=limits, counters=counters))
        stream = await trio.testing.open_stream_to_socket_listener(listeners[0])
        await stream.send_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        with trio.fail_after(5):
            while counters.requests == 0 or counters.connections_open:  # noqa: ASYNC110 - counters are no event
                await trio.sleep(0.01)
        await stream.aclose()
        nursery.cancel_scope.cancel()


async def test_connections_beyond_the_limit_wait_their_turn(autojump_clock: trio.testing.MockClock) -> None:
    """With every slot taken a new connection is not accepted; it is as soon as one ends."""
    async with serving(limits=HttpLimits(connections_max=2, header_s=1000 * S)) as server:
        first, second = await server.listener.connect(), await server.listener.connect()
        with trio.move_on_after(100) as scope:
            await server.listener.connect()
        assert scope.cancelled_caught
        await first.aclose()
        with trio.fail_after(1):
            assert status_of(await server.talk(post(b"now"))) == 200
        await second.aclose()


async def test_bytes_held_by_all_connections_are_bounded(autojump_clock: trio.testing.MockClock) -> None:
    """Bodies that would not fit beside those already being received are told to come back."""
    async with serving(limits=HttpLimits(held_bytes_max=1000)) as server, await server.listener.connect() as stream:
        await stream.send_all(post(b"x" * 600)[:-1])
        await trio.testing.wait_all_tasks_blocked()
        answer = await server.talk(post(b"x" * 600))
        assert status_of(answer) == 503
        assert b"Retry-After: 1" in answer
        await stream.send_all(b"x")
        assert status_of(await read_all(stream)) == 200
        assert status_of(await server.talk(post(b"x" * 600))) == 200


async def test_a_bug_in_a_handler_costs_one_request(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A handler that raises what nobody foresaw is answered for with 500; the server goes on."""

    async def buggy(request: HttpRequest) -> HttpResponse:
        if request.path == "/bug":
            raise ZeroDivisionError("of all things")
        return await echo(request)

    async with serving(buggy) as server:
        answer = await server.talk(post(b"x", path="/bug"))
        assert status_of(answer) == 500
        assert b"ZeroDivisionError" not in answer
        assert status_of(await server.talk(post(b"x", path="/fine"))) == 200
        assert server.counters.crashes == 1
        assert server.counters.connections_open == 0


async def test_a_handler_that_hangs_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """An answer that takes longer than the limit is 503: the sender may try again."""

    async def hang(request: HttpRequest) -> HttpResponse:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(hang) as server:
        answer = await server.talk(post(b"x"))
        assert status_of(answer) == 503
        assert b"Retry-After: 1" in answer


async def test_a_stop_lets_requests_in_flight_finish(autojump_clock: trio.testing.MockClock) -> None:
    """Told to stop, the server accepts no more, closes idle connections at once and answers what it has begun."""

    async def slow(request: HttpRequest) -> HttpResponse:
        await trio.sleep(5)
        return await echo(request)

    async with serving(slow, HttpLimits(grace_s=10 * S)) as server:
        idle, busy = await server.listener.connect(), await server.listener.connect()
        await busy.send_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        server.scope.cancel()
        assert await read_all(idle) == b""
        assert trio.current_time() == 0
        with pytest.raises(trio.BrokenResourceError):
            await server.listener.connect()
        answer = await read_all(busy)
        assert answer.endswith(b"GET /x |")
        assert b"connection: close" in answer.lower()
        assert trio.current_time() == pytest.approx(5)


async def test_a_stop_does_not_wait_beyond_its_grace(autojump_clock: trio.testing.MockClock) -> None:
    """A request that does not finish within the grace is cut off."""

    async def hang(request: HttpRequest) -> HttpResponse:
        await trio.sleep_forever()
        raise AssertionError

    async with serving(hang, HttpLimits(grace_s=10 * S)) as server:
        busy = await server.listener.connect()
        await busy.send_all(b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        server.scope.cancel()
        assert await read_all(busy) == b""
        assert trio.current_time() == pytest.approx(10)


async def test_a_server_cancelled_before_it_serves_just_ends(autojump_clock: trio.testing.MockClock) -> None:
    """A stop that comes before the start is over is a stop."""
    for checkpoints in range(6):
        with trio.fail_after(1), trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve_http, [MemoryListener()], echo)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                scope.cancel()


async def test_a_port_in_use_is_a_config_error() -> None:
    """A port somebody else has is named, with its host, in an error for the operator."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*in use"):
            await open_listeners("127.0.0.1", port)


async def test_a_host_that_is_not_ours_is_a_config_error() -> None:
    """An address this machine does not have is named in an error for the operator."""
    with pytest.raises(ConfigError, match=r"cannot listen on 203\.0\.113\.7:80"):
        await open_listeners("203.0.113.7", 80)


async def test_a_router_answers_404_and_405_through_the_server(autojump_clock: trio.testing.MockClock) -> None:
    """Unknown paths and wrong methods get a JSON answer; a HEAD of one keeps the connection."""

    async def hello(request: HttpRequest, places: object) -> HttpResponse:
        return json_response(200, {"hello": "world"})

    router = Router([Route("GET", "/hello", hello)])
    async with serving(router.handle) as server, await server.listener.connect() as stream:
        await stream.send_all(b"HEAD /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 404 ")
        await stream.send_all(b"DELETE /hello HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = await read_all(stream)
    assert status_of(answer) == 405
    assert b"allow: get, head" in answer.lower()
    assert router.statistics() == {("unrouted", 404): 1, ("/hello", 405): 1}
