"""A small HTTP/1.1 server: h11 says what the bytes mean, trio moves them, a handler answers whole requests.

Everything a sender can do is bounded by HttpLimits: how many connections are open (the others wait in the kernel's
accept queue), how large a head or body is, on the wire and decompressed, how long each step takes. A bad request is
answered with 400 and the connection closed, because where the next one would start is not known. One connection
never harms another: a handler's bug is logged and answered with 500. Sources: RFC 9110, RFC 9112.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import structlog
import trio

from spanloom.core.codec.compression import decompress
from spanloom.core.http_routes import RETRY_AFTER_S, error_response, json_response
from spanloom.errors import ConfigError, DecodeError
from spanloom.interfaces import Handler
from spanloom.model import HttpRequest, HttpResponse

_RECEIVE_BYTES = 64 << 10  # one read; a loopback or LAN socket rarely has more ready
_QUERY_FIELDS_MAX = 100  # no route takes ten
_log = structlog.get_logger()

Stream = trio.abc.HalfCloseableStream


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one server. Outcomes: 431, 413, 503 (bytes held, handler), 408 (times), a closed connection (idle)."""

    connections_max: int = 512  # half the usual 1024 file descriptors of a process
    header_bytes_max: int = 32 << 10  # twice h11's default: tracing headers and cookies add up
    body_bytes_max: int = 20 << 20  # the OpenTelemetry Collector's default; on the wire and decompressed
    held_bytes_max: int = 256 << 20  # bodies of all connections together, so that connections x body is no bound
    header_s: float = 10.0  # from a connection's or a head's first byte to the head's end
    body_s: float = 30.0  # from the head's end to the body's: 20 MiB at 6 Mbit/s
    idle_s: float = 75.0  # between requests; above the 60 s after which proxies and pools let go themselves
    handle_s: float = 60.0  # a handler that takes longer is cancelled; exporters give up after 10 s
    write_s: float = 30.0  # to take our answer
    linger_s: float = 2.0  # to read a refusal before the socket is torn down under it
    grace_s: float = 10.0  # for requests in flight when the server is told to stop


@dataclass(slots=True)
class HttpCounters:
    """What a server has seen so far."""

    connections_open: int = 0
    connections: int = 0
    requests: int = 0  # whole ones, handed to the handler
    refused: int = 0  # answered before the handler saw them: malformed, too large, too slow
    crashes: int = 0  # bugs; each is logged


async def open_listeners(host: str, port: int) -> list[trio.SocketListener]:
    """Listen on *host*; port 0 takes a free one. Raises ConfigError naming host and port where that cannot be."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except OSError as exc:
        raise ConfigError(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc


async def serve_http(
    listeners: Sequence[trio.abc.Listener[Stream]],
    handler: Handler,
    *,
    limits: HttpLimits | None = None,
    counters: HttpCounters | None = None,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then close the listeners, let requests in flight end within the grace, and return."""
    house = _House(handler, limits or HttpLimits(), counters or HttpCounters())
    bounded = [_BoundedListener(listener, house.slots) for listener in listeners]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.shelter)  # not start(): that may wait for ever for a shielded task once cancelled
        try:
            connections = await house.sheltered()
            await trio.serve_listeners(house.attend, bounded, handler_nursery=connections, task_status=task_status)
        finally:
            house.close()


class _BoundedListener(trio.abc.Listener[Stream]):
    """Accepts a connection only once there is a slot for it. Who ends the connection gives the slot back."""

    def __init__(self, listener: trio.abc.Listener[Stream], slots: trio.Semaphore) -> None:
        self._listener = listener
        self._slots = slots

    async def accept(self) -> Stream:
        await self._slots.acquire()
        accepted = False
        try:
            stream = await self._listener.accept()
            accepted = True
        finally:
            if not accepted:
                self._slots.release()
        return stream

    async def aclose(self) -> None:
        await self._listener.aclose()


class _Refused(Exception):
    """This request is answered with this, and then the connection ends."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status)
        self.response = response


def _refused(status: int, message: str) -> _Refused:
    headers = (("Retry-After", str(RETRY_AFTER_S)),) if status == 503 else ()
    return _Refused(json_response(status, {"error": message}, headers))


class _Gone(Exception):
    """The other side has left, or does not take what we send: nobody is there to answer."""


@dataclass(slots=True)
class _House:
    """What the connections of one server share."""

    handler: Handler
    limits: HttpLimits
    counters: HttpCounters
    closing: bool = False
    held_bytes: int = 0
    waiting: set[trio.CancelScope] = field(default_factory=set)  # of connections between two requests
    slots: trio.Semaphore = field(init=False)
    _scope: trio.CancelScope = field(default_factory=lambda: trio.CancelScope(shield=True))
    _opened: trio.Event = field(default_factory=trio.Event)
    _closed: trio.Event = field(default_factory=trio.Event)
    _connections: trio.Nursery | None = None

    def __post_init__(self) -> None:
        self.slots = trio.Semaphore(self.limits.connections_max, max_value=self.limits.connections_max)

    async def shelter(self) -> None:
        """Keep the connections where a cancelled server does not reach them before the grace is over."""
        with self._scope:
            async with trio.open_nursery() as self._connections:
                self._opened.set()
                await self._closed.wait()

    async def sheltered(self) -> trio.Nursery:
        """The shelter, once it stands."""
        await self._opened.wait()
        assert self._connections is not None
        return self._connections

    def close(self) -> None:
        """Let idle connections go now, the others after the request they are at, all when the grace is over."""
        self.closing = True
        self._closed.set()
        self._scope.deadline = trio.current_time() + self.limits.grace_s
        for scope in self.waiting:
            scope.cancel()

    def hold(self, size: int) -> None:
        """Account for *size* more bytes in memory. Refuses them where all connections together hold too many."""
        if self.held_bytes + size > self.limits.held_bytes_max:
            raise _refused(503, "too many bytes are being received at once")
        self.held_bytes += size

    async def attend(self, stream: Stream) -> None:
        """Serve one connection to its end, whatever happens on it. trio closes the stream afterwards."""
        connection = _Connection(stream, self)
        self.counters.connections += 1
        self.counters.connections_open += 1
        try:
            await connection.run()
        except Exception as exc:  # this connection's supervisor: a bug costs the request, not the server
            self.counters.crashes += 1
            _log.error("http connection crashed", exc_info=exc)
            await connection.apologise()
        finally:
            self.counters.connections_open -= 1
            self.slots.release()


class _Connection:
    """One connection: requests one after another."""

    def __init__(self, stream: Stream, house: _House) -> None:
        self._stream = stream
        self._house = house
        self._limits = house.limits
        self._wire = h11.Connection(h11.SERVER, max_incomplete_event_size=house.limits.header_bytes_max)
        self._held_bytes = 0
        self._method = b""  # of the request being answered; HEAD is answered without a body

    async def run(self) -> None:
        """Until the other side leaves, a request is refused, or the house closes."""
        patience_s = self._limits.header_s  # a connection that says nothing keeps another one out
        try:
            while await self._speaks_within(patience_s) and await self._exchange():
                self._wire.start_next_cycle()
                self._method = b""
                patience_s = self._limits.idle_s
        except _Refused as refusal:
            self._house.counters.refused += 1
            await self._refuse(refusal.response)
        except _Gone:
            return

    async def apologise(self) -> None:
        """Answer 500 if the answer has not begun."""
        if self._wire.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            await self._refuse(json_response(500, {"error": "internal error; it is in the log"}))

    async def _speaks_within(self, patience_s: float) -> bool:
        """Wait for the first byte of a request; False if none comes."""
        if self._wire.trailing_data[0]:
            return True  # pipelined: it came with the last one
        if self._house.closing:
            return False
        with trio.move_on_after(patience_s) as scope:
            self._house.waiting.add(scope)
            try:
                return await self._receive()
            finally:
                self._house.waiting.discard(scope)
        return False

    async def _exchange(self) -> bool:
        """Read a request, answer it. True if another one may follow."""
        try:
            head = await self._read_head()
            headers = _joined(head.headers)
            request = _request(head, headers, await self._read_body(headers))
            self._house.counters.requests += 1
            response = await self._handle(request)
        finally:
            self._house.held_bytes -= self._held_bytes
            self._held_bytes = 0
        await self._send(response)
        return self._wire.our_state is h11.DONE and self._wire.their_state is h11.DONE

    async def _handle(self, request: HttpRequest) -> HttpResponse:
        with trio.move_on_after(self._limits.handle_s):
            return await self._house.handler(request)
        return json_response(503, {"error": "this takes too long"}, (("Retry-After", str(RETRY_AFTER_S)),))

    async def _read_head(self) -> h11.Request:
        with trio.move_on_after(self._limits.header_s):
            event = await self._next_event()
            if not isinstance(event, h11.Request):
                raise _Gone
            self._method = event.method
            if event.http_version not in (b"1.0", b"1.1"):
                raise _refused(505, "only HTTP/1.1 is spoken here")
            return event
        raise _refused(408, f"the head of the request took more than {self._limits.header_s:g} s")

    async def _read_body(self, headers: dict[str, str]) -> bytes:
        """The body, decompressed; `headers` lose the encoding."""
        if int(headers.get("content-length", "0")) > self._limits.body_bytes_max:
            raise _refused(413, f"the body is larger than {self._limits.body_bytes_max} bytes")
        chunks: list[bytes] = []
        with trio.move_on_after(self._limits.body_s) as scope:
            while isinstance(event := await self._next_event(), h11.Data):
                chunks.append(bytes(event.data))
                self._hold(len(chunks[-1]))
                if self._held_bytes > self._limits.body_bytes_max:
                    raise _refused(413, f"the body is larger than {self._limits.body_bytes_max} bytes")
        if scope.cancelled_caught:
            raise _refused(408, f"the body took more than {self._limits.body_s:g} s")
        body = b"".join(chunks)
        try:
            plain = decompress(body, headers.pop("content-encoding", ""), size_max=self._limits.body_bytes_max)
        except DecodeError as exc:
            raise _Refused(error_response(exc)) from exc
        self._hold(len(plain) - len(body))
        return plain

    def _hold(self, size: int) -> None:
        self._house.hold(size)
        self._held_bytes += size

    async def _next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next event that is whole. Raises _Refused for bytes that are no HTTP."""
        while True:
            try:
                event = self._wire.next_event()
            except h11.RemoteProtocolError as exc:
                raise _refused(exc.error_status_hint, f"malformed request: {exc}") from exc
            if event is not h11.NEED_DATA:
                return event
            if self._wire.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            if not await self._receive():
                self._wire.receive_data(b"")

    async def _receive(self) -> bool:
        """Feed h11 with what arrives next; False if the other side will send no more."""
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError as exc:
            raise _Gone from exc
        if data:
            self._wire.receive_data(bytes(data))
        return bool(data)

    async def _send(self, response: HttpResponse) -> None:
        headers = [(name.encode(), value.encode()) for name, value in response.headers]
        headers.append((b"content-length", str(len(response.body)).encode()))
        headers.append((b"date", formatdate(usegmt=True).encode()))
        if self._house.closing:
            headers.append((b"connection", b"close"))
        reason = HTTPStatus(response.status).phrase.encode()
        answer: list[h11.Event] = [h11.Response(status_code=response.status, headers=headers, reason=reason)]
        if self._method != b"HEAD":
            answer.append(h11.Data(data=response.body))
        await self._write(*answer, h11.EndOfMessage())

    async def _write(self, *events: h11.Event) -> None:
        data = b"".join(self._wire.send(event) or b"" for event in events)
        with trio.move_on_after(self._limits.write_s) as scope:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise _Gone from exc
        if scope.cancelled_caught:
            raise _Gone

    async def _refuse(self, response: HttpResponse) -> None:
        """Answer, and stay until the answer is read: closing on unread bytes would make the kernel throw it away."""
        closing = response._replace(headers=(*response.headers, ("Connection", "close")))
        with trio.move_on_after(self._limits.linger_s):
            try:
                await self._send(closing)
                await self._stream.send_eof()
                while await self._stream.receive_some(_RECEIVE_BYTES):
                    pass
            except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError):
                return


def _request(head: h11.Request, headers: dict[str, str], body: bytes) -> HttpRequest:
    """The request as handlers see it. Raises _Refused for a target that is no path."""
    try:
        target = head.target.decode("ascii")
        if not target.startswith("/"):  # absolute form, to a proxy; or `*`
            url = urlsplit(target)
            target = f"{url.path or '/'}?{url.query}"
        path, _, query = target.partition("?")
        fields = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS_MAX)
        return HttpRequest(
            method=head.method.decode("ascii"),
            path=unquote(path, errors="strict"),
            query=dict(fields),
            headers=headers,
            body=body,
        )
    except ValueError as exc:
        raise _refused(400, f"malformed request target: {exc}") from exc


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name; of a name that repeats the values are joined (RFC 9110, section 5.3)."""
    joined: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        joined[name] = f"{joined[name]}, {value}" if name in joined else value
    return joined
