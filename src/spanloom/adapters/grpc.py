"""A small gRPC server for unary methods whose messages stay bytes: grpcio's threads take calls, trio answers them.

Each call is worked by one thread of a bounded pool, which reads the message and waits for the trio task that answers
it; a further bounded number of calls waits for a thread, unread, held back by HTTP/2's flow control; beyond those a
caller is told at once to come back (RetryInfo), and so is one that waits longer than it may. Messages are decompressed
here and not by gRPC, which checks a message's size only before. Sources: gRPC over HTTP2; the C core's
`grpc_types.h` for the options.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import NoReturn, TypeAlias

import grpc
import structlog
import trio

from spanloom.adapters.tls import TlsFiles
from spanloom.core.bearer import is_admitted
from spanloom.core.codec.compression import decompress
from spanloom.core.rpc import (
    RpcAnswer,
    RpcCode,
    RpcMethod,
    RpcStatus,
    come_back,
    retry_info,
    rpc_status,
    status_details,
)
from spanloom.errors import ConfigError, DecodeError

_log = structlog.get_logger()

_GZIP = b"\x1f\x8b"  # as protobuf: field 3 of wire type 7, which there is not
_ZLIB = b"\x78"  # as protobuf: field 15 as a varint, which no request of ours has
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_NO_TOKEN = RpcStatus(RpcCode.UNAUTHENTICATED, "expected a bearer token we know")
_TOO_MANY = come_back("too many calls at once", RpcCode.RESOURCE_EXHAUSTED)
_SWEEP_S = 1.0  # how often slow senders are looked for: they overstay by that at most


Behaviour = Callable[[Iterator[bytes], grpc.ServicerContext], bytes]
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"  # generic only to type checkers


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """Bounds of one server. Outcomes: RESOURCE_EXHAUSTED (sizes, numbers), a cancelled call (times)."""

    message_bytes_max: int = 16 << 20  # on the wire and decompressed
    calls_max: int = 64  # answered at once, a thread each
    waiting_max: int = 256  # calls that wait for a thread; at 5 ms a call the last one waits 20 ms
    connections_max: int = 512  # the next one is closed
    streams_max: int = 100  # calls at once on a connection; RFC 9113 advises no fewer
    metadata_bytes_max: int = 16 << 10
    handshake_s: float = 10.0
    receive_s: float = 30.0  # from a call's start to its whole message
    idle_s: float = 300.0  # a connection without a call is told to go, and comes again when it needs to
    handle_s: float = 60.0  # a method that takes longer is cancelled, its caller told to come back
    grace_s: float = 10.0  # for calls in flight when the server is told to stop


@dataclass(slots=True)
class GrpcCounters:
    """What a server has seen so far."""

    answered: int = 0  # whole ones, handed to the method
    refused: int = 0  # answered before the method saw them: no token, too many, malformed
    slow: int = 0  # cancelled: their message did not come
    crashed: int = 0  # bugs; each is logged


@dataclass(frozen=True, slots=True)
class GrpcDoor:
    """Where a server listens and whom it lets in; port 0 takes a free one."""

    host: str
    port: int
    tls: TlsFiles | None = None
    tokens: Sequence[str] = ()


async def serve_grpc(
    door: GrpcDoor,
    methods: Mapping[str, RpcMethod],
    *,
    limits: GrpcLimits | None = None,
    counters: GrpcCounters | None = None,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve *methods*, by path, until cancelled; then let calls in flight end within the grace, and return.

    Reports the port as started. Raises ConfigError where it cannot listen or a certificate is no good.
    """
    bounds = limits or GrpcLimits()
    house = _House(methods, bounds, counters or GrpcCounters(), tuple(door.tokens), trio.lowlevel.current_trio_token())
    pool = ThreadPoolExecutor(bounds.calls_max, thread_name_prefix="grpc")
    refusing = ThreadPoolExecutor(1, thread_name_prefix="grpc-refusing")
    server = grpc.server(pool, handlers=[_Calls(house, refusing)], options=_options(bounds))
    port = _listen(server, door)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.shelter)  # not start(): that may wait for ever for a shielded task once cancelled
        try:
            await house.opened.wait()
            server.start()
            task_status.started(port)
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(server.stop(bounds.grace_s).wait)  # no new call from here on
            house.close()
            pool.shutdown(wait=False)
            refusing.shutdown(wait=False)


def _options(limits: GrpcLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.per_message_decompression", 0),
        ("grpc.max_receive_message_length", limits.message_bytes_max),
        ("grpc.max_metadata_size", limits.metadata_bytes_max),
        ("grpc.absolute_max_metadata_size", limits.metadata_bytes_max),
        ("grpc.max_concurrent_streams", limits.streams_max),
        ("grpc.max_allowed_incoming_connections", limits.connections_max),
        ("grpc.server_handshake_timeout_ms", round(limits.handshake_s * 1000)),
        ("grpc.max_connection_idle_ms", round(limits.idle_s * 1000)),
        ("grpc.http2.bdp_probe", 0),  # else a connection's window, what it may send unread, grows beyond any bound
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a port shared
    ]


def _listen(server: grpc.Server, door: GrpcDoor) -> int:
    host = f"[{door.host}]" if ":" in door.host else door.host
    try:
        if door.tls is None:
            return server.add_insecure_port(f"{host}:{door.port}")
        return server.add_secure_port(f"{host}:{door.port}", door.tls.grpc_credentials())
    except RuntimeError as exc:
        raise ConfigError(f"cannot listen on {door.host}:{door.port}: {exc}") from exc


@dataclass(eq=False, slots=True)
class _Call:
    """A call on its way from a thread to a task and back."""

    method: RpcMethod
    body: bytes
    patience_s: float
    answer: SimpleQueue[RpcAnswer] = field(default_factory=SimpleQueue)  # gets one


@dataclass(slots=True)
class _House:
    """What the threads and tasks of one server share. Counts are only shown: a lost one does no harm."""

    methods: Mapping[str, RpcMethod]
    limits: GrpcLimits
    counters: GrpcCounters
    tokens: tuple[str, ...]
    _token: trio.lowlevel.TrioToken
    opened: trio.Event = field(default_factory=trio.Event)
    slow: dict[int, tuple[float, grpc.ServicerContext]] = field(default_factory=dict)  # whose message is not here yet
    _closed: bool = False
    _nursery: trio.Nursery | None = None

    async def shelter(self) -> None:
        """Keep the calls where a cancelled server does not reach them before the grace is over."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._nursery:
                self.opened.set()
                await self._send_away_slow_senders()

    def close(self) -> None:
        """The grace is over: who still waits is told to come back."""
        self._closed = True
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def ask(self, method: RpcMethod, body: bytes, patience_s: float) -> RpcAnswer:
        """In a thread: have a task answer, and wait for it."""
        call = _Call(method, body, min(patience_s, self.limits.handle_s))
        self._token.run_sync_soon(self._begin, call)
        return call.answer.get()

    def _begin(self, call: _Call) -> None:
        if self._closed or self._nursery is None:
            call.answer.put(RpcAnswer(status=come_back("stopping")))
        else:
            self._nursery.start_soon(self._attend, call)

    async def _attend(self, call: _Call) -> None:
        answer = RpcAnswer(status=come_back("this takes too long"))
        try:
            with trio.move_on_after(call.patience_s):
                answer = await call.method(call.body)
        except Exception as exc:  # this call's supervisor: a bug costs the call, not the server
            self.counters.crashed += 1
            _log.error("grpc call crashed", exc_info=exc)
            answer = RpcAnswer(status=RpcStatus(RpcCode.INTERNAL, "internal error; it is in the log"))
        finally:
            call.answer.put(answer)  # cancelled too: a thread waits for it

    async def _send_away_slow_senders(self) -> None:
        while True:
            await trio.sleep(_SWEEP_S)
            limit_s = time.monotonic() - self.limits.receive_s
            for began_s, context in list(self.slow.values()):
                if began_s < limit_s:
                    self.counters.slow += 1
                    context.cancel()


class _Calls(grpc.GenericRpcHandler):
    """Chooses, on grpc's one serving thread and before a message is read, who works a call.

    To grpcio every method takes a stream of messages: only so is the thread ours before the message is there, and may
    a call be refused unread. On the wire there is no difference.
    """

    def __init__(self, house: _House, refusing: ThreadPoolExecutor) -> None:
        self._house = house
        self._waiting = 0  # for a thread; changed by several threads, so guarded
        self._guard = threading.Lock()
        self._paths: dict[str, Handler] = {
            path: grpc.stream_unary_rpc_method_handler(self._worker(path)) for path in house.methods
        }
        self._turned_away: dict[RpcStatus, Handler] = {
            status: grpc.stream_unary_rpc_method_handler(_refusal(status, house, refusing))
            for status in (_NO_TOKEN, _TOO_MANY)
        }

    def service(self, details: grpc.HandlerCallDetails) -> "Handler | None":
        """None is answered with UNIMPLEMENTED."""
        handler = self._paths.get(details.method)
        if handler is None:
            return None
        if self._house.tokens and not is_admitted(_authorization(details), self._house.tokens):
            return self._turned_away[_NO_TOKEN]
        with self._guard:
            if self._waiting >= self._house.limits.waiting_max:
                return self._turned_away[_TOO_MANY]
            self._waiting += 1
        return handler

    def _worker(self, path: str) -> Behaviour:
        house, method = self._house, self._house.methods[path]

        def work(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            with self._guard:
                self._waiting -= 1
            body = _receive(messages, context, house)
            try:
                body = _decompressed(body, house.limits.message_bytes_max)
            except DecodeError as error:
                house.counters.refused += 1
                _abort(context, rpc_status(error))
            house.counters.answered += 1
            answer = house.ask(method, body, context.time_remaining())
            if answer.status.code is not RpcCode.OK:
                _abort(context, answer.status)
            return answer.body

        return work


def _refusal(status: RpcStatus, house: _House, pool: ThreadPoolExecutor) -> Behaviour:
    """Answers *status* on *pool*: the other threads are busy, or not for everybody."""

    def refuse(_: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        house.counters.refused += 1
        _abort(context, status)

    refuse.experimental_thread_pool = pool  # type: ignore[attr-defined] # where grpcio drops it they wait with the rest
    return refuse


def _authorization(details: grpc.HandlerCallDetails) -> str:
    """The last one; empty if none."""
    found = ""
    for name, value in details.invocation_metadata:
        if name == "authorization":
            found = value if isinstance(value, str) else value.decode("latin-1")
    return found


def _receive(messages: Iterator[bytes], context: grpc.ServicerContext, house: _House) -> bytes:
    """The call's message, in its time. What ends the call meanwhile is raised by grpcio and passes through."""
    house.slow[id(context)] = time.monotonic(), context
    try:
        body = next(messages, None)
    finally:
        del house.slow[id(context)]
    if body is None:
        house.counters.refused += 1
        _abort(context, RpcStatus(RpcCode.INVALID_ARGUMENT, "expected a message, found none"))
    return body


def _decompressed(body: bytes, size_max: int) -> bytes:
    """The message without its compression, which shows by its first bytes: whose name grpcio keeps to itself."""
    if body.startswith(_GZIP):
        return decompress(body, "gzip", size_max=size_max)
    if body.startswith(_ZLIB):
        return decompress(body, "deflate", size_max=size_max)
    return body


def _abort(context: grpc.ServicerContext, status: RpcStatus) -> NoReturn:
    """End the call with *status*, and RetryInfo where all kinds of senders look for it."""
    trailers = [("grpc-status-details-bin", status_details(status))]
    if status.retry_after_s:
        trailers.append(("google.rpc.retryinfo-bin", retry_info(status)))
    context.set_trailing_metadata(tuple(trailers))
    context.abort(_CODES[status.code], status.message)
