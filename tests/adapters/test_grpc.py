"""The gRPC server with a real grpcio client, and with raw sockets that misbehave."""

import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar, cast

import grpc
import pytest
import trio
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from spanloom.adapters.grpc import GrpcCounters, GrpcDoor, GrpcLimits, serve_grpc
from spanloom.core.rpc import RpcAnswer, RpcCode, RpcStatus, come_back
from spanloom.errors import ConfigError

PATH = "/tests.Echo/Call"
QUICK = GrpcLimits(message_bytes_max=1 << 20, receive_s=0.2, handle_s=5, grace_s=2)
Result = TypeVar("Result")


async def echo(body: bytes) -> RpcAnswer:
    return RpcAnswer(b"<" + body + b">")


@dataclass
class Caller:
    """A grpcio client; what it does blocks, so a thread does it."""

    port: int
    counters: GrpcCounters
    stop: Callable[[], None]
    channel: grpc.Channel = field(init=False)

    def __post_init__(self) -> None:
        unshared = [("grpc.use_local_subchannel_pool", 1)]  # else channels of one process share their connections
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", unshared)

    async def call(
        self, body: bytes = b"hello", *, path: str = PATH, token: str = "", compression: str = "NoCompression"
    ) -> bytes:
        """The answer; raises grpc.RpcError."""
        metadata = (("authorization", token),) if token else ()
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
        ask = partial(method, body, timeout=10, metadata=metadata, compression=grpc.Compression[compression])
        answer: bytes = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        return answer

    async def failure(self, body: bytes = b"hello", **how: str) -> grpc.Call:
        """The error that the call ends with."""
        with pytest.raises(grpc.RpcError) as caught:
            await self.call(body, **how)
        return cast("grpc.Call", caught.value)  # what a channel raises is both


@asynccontextmanager
async def served(
    method: Callable[[bytes], Awaitable[RpcAnswer]] = echo, *, limits: GrpcLimits = QUICK, tokens: tuple[str, ...] = ()
) -> AsyncIterator[Caller]:
    counters = GrpcCounters()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            door = GrpcDoor("127.0.0.1", 0, tokens=tokens)
            port = await nursery.start(partial(serve_grpc, door, {PATH: method}, limits=limits, counters=counters))
            caller = Caller(port, counters, nursery.cancel_scope.cancel)
            yield caller
            caller.channel.close()
            nursery.cancel_scope.cancel()


def trailers(failure: grpc.Call) -> dict[str, bytes]:
    return {name: value if isinstance(value, bytes) else b"" for name, value in failure.trailing_metadata() or ()}


@pytest.mark.parametrize("compression", ["NoCompression", "Gzip", "Deflate"])
async def test_a_message_reaches_the_method_decompressed(compression: str) -> None:
    """What the client sent is what the method gets, however it was packed, and its answer is what the client gets."""
    body = b"\x0a" + b"x" * 100_000
    async with served() as caller:
        assert await caller.call(body, compression=compression) == b"<" + body + b">"
        assert await caller.call(b"", compression=compression) == b"<>"


@pytest.mark.parametrize(
    "status",
    [RpcStatus(RpcCode.INVALID_ARGUMENT, "bad"), come_back("full", RpcCode.RESOURCE_EXHAUSTED), come_back("away")],
)
async def test_a_failure_says_whether_to_come_back(status: RpcStatus) -> None:
    """Code, message and details arrive; RetryInfo, in both places senders look, where the sender is to come back."""

    async def fail(_: bytes) -> RpcAnswer:
        return RpcAnswer(status=status)

    async with served(fail) as caller:
        failure = await caller.failure()
    assert (failure.code().value[0], failure.details()) == (status.code, status.message)
    details = Status.FromString(trailers(failure)["grpc-status-details-bin"])
    assert (details.code, details.message) == (status.code, status.message)
    packed = [RetryInfo.FromString(detail.value).retry_delay.seconds for detail in details.details]
    trailer = trailers(failure).get("google.rpc.retryinfo-bin")
    assert packed == ([status.retry_after_s] if status.retry_after_s else [])
    assert (trailer is not None) == (status.retry_after_s > 0)


async def test_an_unknown_method_is_unimplemented() -> None:
    """A method that nobody serves is named as such."""
    async with served() as caller:
        assert (await caller.failure(path="/tests.Echo/Other")).code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_bug_costs_one_call() -> None:
    """A method that crashes is answered with INTERNAL; the next call goes through."""
    bodies: list[bytes] = []

    async def crash_once(body: bytes) -> RpcAnswer:
        bodies.append(body)
        if len(bodies) == 1:
            raise ZeroDivisionError
        return RpcAnswer()

    async with served(crash_once) as caller:
        assert (await caller.failure()).code() is grpc.StatusCode.INTERNAL
        assert await caller.call() == b""
        assert caller.counters.crashed == 1


async def test_a_method_that_takes_too_long_is_cancelled_and_asked_again() -> None:
    """The caller is told to come back instead of waiting for ever."""

    async def sleep(_: bytes) -> RpcAnswer:
        await trio.sleep_forever()
        raise AssertionError

    async with served(sleep, limits=replace(QUICK, handle_s=0.1)) as caller:
        failure = await caller.failure()
    assert failure.code() is grpc.StatusCode.UNAVAILABLE
    assert "google.rpc.retryinfo-bin" in trailers(failure)


async def test_who_has_no_token_is_refused_unread() -> None:
    """Only a call with a token we know reaches the method."""
    async with served(tokens=("old", "new")) as caller:
        for token in ("", "Bearer other", "Basic old", "Bearer"):
            assert (await caller.failure(b"x" * 500_000, token=token)).code() is grpc.StatusCode.UNAUTHENTICATED
        assert caller.counters.answered == 0
        assert await caller.call(token="Bearer new") == b"<hello>"
        assert await caller.call(token="bearer old") == b"<hello>"


async def test_a_message_too_large_is_refused() -> None:
    """On the wire and decompressed alike, and no sender is asked to send it again."""
    async with served() as caller:
        failure = await caller.failure(b"x" * (2 << 20))
        assert failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert trailers(failure) == {}
        bomb = await caller.failure(b"\x00" * (200 << 20), compression="Gzip")
        assert (bomb.code(), "too_large" in (bomb.details() or "")) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        assert "google.rpc.retryinfo-bin" not in trailers(bomb)
        cut = await caller.failure(gzip.compress(b"hello")[:-5])
        assert (cut.code(), cut.details()[:11]) == (grpc.StatusCode.INVALID_ARGUMENT, "compression")
        assert await caller.call() == b"<hello>"


async def test_too_many_calls_are_told_to_come_back_at_once() -> None:
    """With every thread taken and the queue full, a call is answered RESOURCE_EXHAUSTED with RetryInfo; others wait."""
    release, begun = trio.Event(), trio.Event()

    async def wait(body: bytes) -> RpcAnswer:
        begun.set()
        await release.wait()
        return RpcAnswer(body)

    answers, refusals = list[bytes](), list[grpc.Call]()

    async def call(caller: Caller) -> None:
        try:
            answers.append(await caller.call())
        except grpc.RpcError as error:
            refusals.append(cast("grpc.Call", error))
            if len(refusals) == 2:
                release.set()

    async with (
        served(wait, limits=replace(QUICK, calls_max=1, waiting_max=1)) as caller,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(call, caller)
        await begun.wait()
        for _ in range(3):
            nursery.start_soon(call, caller)
    assert answers == [b"hello", b"hello"]
    for refusal in refusals:
        assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "google.rpc.retryinfo-bin" in trailers(refusal)


async def test_a_stopped_server_answers_what_is_in_flight() -> None:
    """A call that is being answered when the server is told to stop still gets its answer."""
    begun = trio.Event()

    async def slow(body: bytes) -> RpcAnswer:
        begun.set()
        await trio.sleep(0.3)
        return RpcAnswer(body)

    answers: list[bytes] = []
    async with served(slow) as caller:

        async def call() -> None:
            with trio.CancelScope(shield=True):
                answers.append(await caller.call())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await begun.wait()
            caller.stop()
    assert answers == [b"hello"]


async def test_a_call_that_outlives_the_grace_is_given_up() -> None:
    """A server that is told to stop ends after the grace, whoever still waits."""
    begun = trio.Event()

    async def hang(_: bytes) -> RpcAnswer:
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    failures: list[grpc.Call] = []
    async with served(hang, limits=replace(QUICK, grace_s=0.2)) as caller:

        async def call() -> None:
            with trio.CancelScope(shield=True):
                failures.append(await caller.failure())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await begun.wait()
            caller.stop()
    assert failures[0].code() in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


async def test_a_port_in_use_is_refused() -> None:
    """The error names host and port."""
    async with served() as caller:
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{caller.port}"):
            await serve_grpc(GrpcDoor("127.0.0.1", caller.port), {PATH: echo})


# Raw sockets: HTTP/2 by hand (RFC 9113).

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def header(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes((len(name),)) + name + bytes((len(value),)) + value


HEADERS = b"".join(
    header(name, value)
    for name, value in (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", PATH.encode()),
        (b":authority", b"x"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
    )
)
OPENED = PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, HEADERS)  # SETTINGS, HEADERS with END_HEADERS


async def said(port: int, data: bytes) -> bytes:
    """What the server answers to raw bytes until it closes the connection or falls silent."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        try:
            await stream.send_all(data)
            heard = b""
            with trio.move_on_after(0.5):
                async for chunk in stream:
                    heard += chunk
        except trio.BrokenResourceError:
            pass
    return heard


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00" + b"\x00" * 100,
        PREFACE + b"\xff" * 200,
        PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, b"\xff" * 50),
        OPENED + frame(0, 1, 1, b"\x00\x00\x00\x00\xff" + b"short"),
        OPENED + frame(0, 1, 7, b"\x00\x00\x00\x00\x01x"),
        OPENED[:-7],
    ],
)
async def test_junk_on_the_port_harms_nobody(junk: bytes) -> None:
    """What is no gRPC, or is cut short, reaches no method, and the next call is answered."""
    async with served() as caller:
        await said(caller.port, junk)
        assert caller.counters.answered == 0
        assert await caller.call() == b"<hello>"


async def test_a_sender_whose_message_does_not_come_is_cut_off() -> None:
    """A call that opens and then only trickles gives its thread back after its time; others go on meanwhile."""
    async with served(limits=replace(QUICK, calls_max=1)) as caller:
        stream = await trio.open_tcp_stream("127.0.0.1", caller.port)
        async with stream:
            await stream.send_all(OPENED + frame(0, 0, 1, b"\x00\x00\x00\x00\x09half"))
            with trio.fail_after(10):
                assert await caller.call() == b"<hello>"
                while not caller.counters.slow:  # noqa: ASYNC110 - a counter tells nobody; the call may have been first
                    await trio.sleep(0.01)
        assert caller.counters.slow == 1


async def test_connections_are_bounded() -> None:
    """The connection above the bound is closed; the ones below it work."""
    async with served(limits=replace(QUICK, connections_max=2)) as caller:
        assert await caller.call() == b"<hello>"
        with socket.create_connection(("127.0.0.1", caller.port)) as second:
            second.sendall(PREFACE + frame(4, 0, 0, b""))
            assert await said(caller.port, PREFACE + frame(4, 0, 0, b"")) == b""
            assert await caller.call() == b"<hello>"
