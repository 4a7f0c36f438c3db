"""A small HTTP/1.1 server: `http_wire` says what the bytes mean, trio moves them, a handler answers whole requests.

Everything a sender can do is bounded by HttpLimits: how many connections are open (the others wait in the kernel's
accept queue), how large a head or body is, on the wire and decompressed, how long each step takes. A bad request is
answered with 400 and the connection closed, because where the next one would start is not known. One connection
never harms another: a handler's bug is logged and answered with 500. Sources: RFC 9110, RFC 9112.
"""

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import structlog
import trio

from spanloom.adapters.http_wire import Fault, Head, RequestReader
from spanloom.core.codec.compression import decompress
from spanloom.core.http_routes import RETRY_AFTER_S, error_response, json_response
from spanloom.errors import ConfigError, DecodeError
from spanloom.interfaces import Handler
from spanloom.model import HttpRequest, HttpResponse

_RECEIVE_BYTES = 64 << 10  # one read; a loopback or LAN socket rarely has more ready
_QUERY_FIELDS_MAX = 100  # no route takes ten
_log = structlog.get_logger()

Stream = trio.abc.Stream
Gate = Callable[[str, Mapping[str, str]], HttpResponse | None]  # path, headers -> the refusal; None lets it in


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one server. Outcomes: 431, 413, 503 (bytes held, handler), 408 (times), a closed connection (idle)."""

    connections_max: int = 512  # half the usual 1024 file descriptors of a process
    header_bytes_max: int = 32 << 10  # four times what most servers take: tracing headers and cookies add up
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


def let_everybody_in(_: str, __: Mapping[str, str]) -> HttpResponse | None:
    """The gate that is none."""
    return None


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
    gate: Gate = let_everybody_in,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then close the listeners, let requests in flight end within the grace, and return.

    *gate* sees a request before its body is read, and may refuse it. With *tls* only TLS is spoken.
    """
    house = _House(handler, limits or HttpLimits(), counters or HttpCounters(), gate)
    bounded = [_BoundedListener(listener, house.slots, tls) for listener in listeners]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(house.shelter)  # not start(): that may wait for ever for a shielded task once cancelled
        try:
            connections = await house.sheltered()
            await trio.serve_listeners(house.attend, bounded, handler_nursery=connections, task_status=task_status)
        finally:
            house.close()


class _BoundedListener(trio.abc.Listener[Stream]):
    """Accepts a connection only once there is a slot for it. Who ends the connection gives the slot back."""

    def __init__(self, listener: trio.abc.Listener[Stream], slots: trio.Semaphore, tls: ssl.SSLContext | None) -> None:
        self._listener = listener
        self._slots = slots
        self._tls = tls

    async def accept(self) -> Stream:
        await self._slots.acquire()
        accepted = False
        try:
            stream = await self._listener.accept()
            accepted = True
        finally:
            if not accepted:
                self._slots.release()
        if self._tls is None:
            return stream
        # The first read makes the handshake, so it is bounded as a head is. Answers say their length: no closing rite.
        return trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)

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
    gate: Gate
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
        self._reader = RequestReader(head_bytes_max=house.limits.header_bytes_max)
        self._held_bytes = 0
        self._with_body = True  # of the answer; HEAD is answered without
        self._keeps_alive = False  # another request may follow this one
        self._answered = False

    async def run(self) -> None:
        """Until the other side leaves, a request is refused, or the house closes."""
        patience_s = self._limits.header_s  # a connection that says nothing keeps another one out
        try:
            while await self._speaks_within(patience_s) and await self._exchange():
                patience_s = self._limits.idle_s
        except _Refused as refusal:
            self._house.counters.refused += 1
            await self._refuse(refusal.response)
        except _Gone:
            return

    async def apologise(self) -> None:
        """Answer 500 if the answer has not begun."""
        if not self._answered:
            await self._refuse(json_response(500, {"error": "internal error; it is in the log"}))

    async def _speaks_within(self, patience_s: float) -> bool:
        """Wait for the first byte of a request; False if none comes."""
        if self._reader.has_more:
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
        self._answered, self._keeps_alive, self._with_body = False, False, True
        try:
            head = await self._read_head()
            self._with_body = head.method != "HEAD"
            request = _request(head)
            refusal = self._house.gate(request.path, request.headers)
            if refusal is not None:
                raise _Refused(refusal)
            request = request._replace(body=await self._read_body(request.headers))
            self._keeps_alive = head.keeps_alive
            self._house.counters.requests += 1
            response = await self._handle(request)
        finally:
            self._house.held_bytes -= self._held_bytes
            self._held_bytes = 0
        await self._send(response)
        return self._keeps_alive

    async def _handle(self, request: HttpRequest) -> HttpResponse:
        with trio.move_on_after(self._limits.handle_s):
            return await self._house.handler(request)
        return json_response(503, {"error": "this takes too long"}, (("Retry-After", str(RETRY_AFTER_S)),))

    async def _read_head(self) -> Head:
        event = self._reader.next_event()
        if event is None:
            with trio.move_on_after(self._limits.header_s) as scope:
                while event is None:
                    await self._receive_more()
                    event = self._reader.next_event()
            if scope.cancelled_caught:
                raise _refused(408, f"the head of the request took more than {self._limits.header_s:g} s")
        if isinstance(event, Fault):
            raise _refused(event.status, event.reason)
        assert isinstance(event, Head), f"a request begins with {event!r}"
        return event

    async def _read_body(self, headers: dict[str, str]) -> bytes:
        """The body, decompressed; `headers` lose the encoding."""
        if int(headers.get("content-length", "0")) > self._limits.body_bytes_max:
            raise self._too_large()
        pieces: list[bytes] = []
        if not self._take_body(pieces):
            with trio.move_on_after(self._limits.body_s) as scope:
                if not pieces and headers.get("expect", "").lower() == "100-continue":
                    await self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                while not self._take_body(pieces):
                    await self._receive_more()
            if scope.cancelled_caught:
                raise _refused(408, f"the body took more than {self._limits.body_s:g} s")
        body = b"".join(pieces)
        encoding = headers.pop("content-encoding", "")
        if not encoding:
            return body
        try:
            plain = decompress(body, encoding, size_max=self._limits.body_bytes_max)
        except DecodeError as exc:
            raise _Refused(error_response(exc)) from exc
        self._hold(len(plain) - len(body))
        return plain

    def _take_body(self, pieces: list[bytes]) -> bool:
        """Put what is there of the body to *pieces*; True once it is whole."""
        while (event := self._reader.next_event()) is not None:
            if isinstance(event, Fault):
                raise _refused(event.status, event.reason)
            if not isinstance(event, bytes):
                return True
            pieces.append(event)
            self._hold(len(event))
            if self._held_bytes > self._limits.body_bytes_max:
                raise self._too_large()
        return False

    def _too_large(self) -> _Refused:
        return _refused(413, f"the body is larger than {self._limits.body_bytes_max} bytes")

    def _hold(self, size: int) -> None:
        self._house.hold(size)
        self._held_bytes += size

    async def _receive_more(self) -> None:
        if not await self._receive():
            raise _Gone  # in the middle of a request

    async def _receive(self) -> bool:
        """Feed the reader with what arrives next; False if the other side will send no more."""
        try:
            data = await self._stream.receive_some(_RECEIVE_BYTES)
        except trio.BrokenResourceError as exc:
            raise _Gone from exc
        self._reader.feed(bytes(data))
        return bool(data)

    async def _send(self, response: HttpResponse) -> None:
        self._keeps_alive = self._keeps_alive and not self._house.closing
        lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in response.headers]
        lines += [f"Content-Length: {len(response.body)}", f"Date: {formatdate(usegmt=True)}"]
        if not self._keeps_alive:
            lines.append("Connection: close")
        assert not any("\r" in line or "\n" in line for line in lines), f"a line end in a header: {lines}"
        head = "\r\n".join([*lines, "", ""]).encode()
        self._answered = True
        await self._write(head + response.body if self._with_body else head)

    async def _write(self, data: bytes) -> None:
        with trio.move_on_after(self._limits.write_s) as scope:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
                raise _Gone from exc
        if scope.cancelled_caught:
            raise _Gone

    async def _refuse(self, response: HttpResponse) -> None:
        """Answer, and stay until the answer is read: closing on unread bytes would make the kernel throw it away."""
        self._keeps_alive = False
        with trio.move_on_after(self._limits.linger_s):
            try:
                await self._send(response)
                if isinstance(self._stream, trio.abc.HalfCloseableStream):  # TLS cannot
                    await self._stream.send_eof()
                while await self._stream.receive_some(_RECEIVE_BYTES):
                    pass
            except (_Gone, trio.BrokenResourceError, trio.ClosedResourceError):
                return


def _request(head: Head) -> HttpRequest:
    """The request as handlers see it, its body not there yet. Raises _Refused for a target that is no path."""
    target = head.target
    try:
        if not target.isascii():
            raise ValueError("not ASCII")
        if not target.startswith("/"):  # absolute form, to a proxy; or `*`
            url = urlsplit(target)
            target = f"{url.path or '/'}?{url.query}"
        path, _, query = target.partition("?")
        fields = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS_MAX)
        return HttpRequest(head.method, unquote(path, errors="strict"), dict(fields), head.headers, b"")
    except ValueError as exc:
        raise _refused(400, f"malformed request target: {exc}") from exc
