"""Sends generated requests over OTLP/HTTP protobuf until each is acknowledged, and counts what became of them.

A request is repeated byte for byte after 429, 502, 503, 504, a broken connection or no answer: the receiver removes
repeats. Source: the OTLP specification, "OTLP/HTTP" (retryable response codes, partial success).
"""

import zlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple
from urllib.parse import urlsplit

import h11
import trio
from google.protobuf.message import DecodeError as ProtobufDecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from spanloom.core.backoff import Backoff
from spanloom.errors import ConfigError, Unavailable
from spanloom.load.record import Fate
from spanloom.load.workload import Request

RETRYABLE = frozenset({429, 502, 503, 504})
FIRST_DELAY_S, DELAY_CAP_S = 0.1, 5.0
RETRY_AFTER_CAP_S = 60.0  # a receiver that asks for more is asked again sooner
ANSWER_WITHIN_S = 60.0
_CONNECT_WITHIN_S = 5.0
_ANSWER_BYTES_MAX = 1 << 20
_READ_BYTES = 1 << 16

Report = Callable[[Request, Fate], None]
Connect = Callable[[str, int], Awaitable[trio.abc.Stream]]


@dataclass(frozen=True, slots=True)
class LoadStatistics:
    """What a client has done so far. Spans count once a request, however often it was tried."""

    requests_sent: int = 0  # taken up; equals the sum of the four fates once all is done
    spans_sent: int = 0
    bytes_sent: int = 0  # before compression, once a request
    requests_acknowledged: int = 0
    spans_acknowledged: int = 0
    requests_partial: int = 0
    spans_rejected: int = 0  # as partial answers count them
    requests_refused: int = 0
    requests_abandoned: int = 0
    retries: int = 0
    connection_errors: int = 0  # of the retries: no answer, or a broken connection
    last_refusal: str = ""


class _Answer(NamedTuple):
    status: int
    retry_after_s: float
    body: bytes


class LoadClient:
    """A client of one receiver over a few kept-alive connections."""

    def __init__(
        self,
        url: str,
        *,
        connections: int = 4,
        compress: bool = False,
        give_up_s: float = 600.0,
        seed: int = 0,
        connect: Connect = trio.open_tcp_stream,
    ) -> None:
        """*url* is the whole `http://host:port/v1/traces`; *give_up_s* is how long one request is tried.

        *connect* opens a stream to a host and port, or raises OSError. Raises ConfigError.
        """
        if connections < 1:
            raise ConfigError(f"connections: expected at least 1, found {connections}")
        self._target = _target(url)
        self._connections = connections
        self._connect = connect
        self._compress = compress
        self._give_up_s = give_up_s
        self._random = Random(seed)
        self._statistics = LoadStatistics()

    def statistics(self) -> LoadStatistics:
        """A snapshot; may be asked while sending."""
        return self._statistics

    async def send(self, requests: Iterable[Request], report: Report, *, spans_per_s: float | None = None) -> None:
        """Send every request, at *spans_per_s* or as fast as it goes; *report* hears of each once its fate is known.

        Requests are taken up in order and may be acknowledged out of order, at most `connections` apart.
        """
        source = Paced(iter(requests), spans_per_s)
        async with trio.open_nursery() as nursery:
            for _ in range(self._connections):
                nursery.start_soon(self._keep_sending, source, report)

    async def _keep_sending(self, source: "Paced", report: Report) -> None:
        async with _Connection(self._target, self._connect, compress=self._compress) as connection:
            while (request := await source.take()) is not None:
                self._count(requests_sent=1, spans_sent=request.span_count, bytes_sent=len(request.body))
                report(request, await self._send_one(connection, request))

    async def _send_one(self, connection: "_Connection", request: Request) -> Fate:
        give_up_at = trio.current_time() + self._give_up_s
        backoff = Backoff(FIRST_DELAY_S, DELAY_CAP_S, self._random.random)
        while True:
            answer = None
            with suppress(Unavailable), trio.move_on_at(min(give_up_at, trio.current_time() + ANSWER_WITHIN_S)):
                answer = await connection.post(request.body)
            if answer is not None and answer.status not in RETRYABLE:
                return self._settle(request, answer)
            delay_s = backoff.next_delay_s() + (answer.retry_after_s if answer is not None else 0.0)
            if trio.current_time() + delay_s >= give_up_at:
                self._count(requests_abandoned=1)
                return Fate.ABANDONED
            self._count(retries=1, connection_errors=int(answer is None))
            await trio.sleep(delay_s)

    def _settle(self, request: Request, answer: _Answer) -> Fate:
        """The fate a final answer means, counted."""
        if answer.status != 200:
            reason = f"{answer.status} {answer.body[:200].decode(errors='replace')}"
            self._count(requests_refused=1)
            self._statistics = replace(self._statistics, last_refusal=reason)
            return Fate.REFUSED
        rejected = _rejected_spans(answer.body)
        if rejected:
            self._count(requests_partial=1, spans_rejected=rejected)
            return Fate.PARTIAL
        self._count(requests_acknowledged=1, spans_acknowledged=request.span_count)
        return Fate.ACKNOWLEDGED

    def _count(self, **more: int) -> None:
        now = self._statistics
        self._statistics = replace(now, **{name: getattr(now, name) + count for name, count in more.items()})


class Paced:
    """Gives out requests in order to whoever asks, no faster than the pace."""

    def __init__(self, source: Iterator[Request], spans_per_s: float | None) -> None:
        self._source = source
        self._spans_per_s = spans_per_s
        self._turn = trio.Lock()  # fair: the longest waiting connection takes the next request
        self._spans = 0
        self._started_s: float | None = None

    async def take(self) -> Request | None:
        """The next request when it is due, or None at the end. Always a checkpoint."""
        async with self._turn:
            if self._started_s is None:
                self._started_s = trio.current_time()
            if self._spans_per_s is not None:
                await trio.sleep_until(self._started_s + self._spans / self._spans_per_s)
            request = next(self._source, None)
            if request is not None:
                self._spans += request.span_count
            return request


class _Target(NamedTuple):
    host: str
    port: int
    path: str


def _target(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise ConfigError(f"url: expected http://HOST:PORT/v1/traces, found {url!r}")
    try:
        port = parts.port or 80
    except ValueError:
        raise ConfigError(f"url: expected a port between 1 and 65535, found {url!r}") from None
    return _Target(parts.hostname, port, parts.path or "/v1/traces")


class _Connection:
    """One kept-alive HTTP/1.1 connection, opened when first needed and anew after any trouble."""

    def __init__(self, target: _Target, connect: Connect, *, compress: bool) -> None:
        self._target = target
        self._connect = connect
        self._compress = compress
        self._stream: trio.abc.Stream | None = None
        self._http = h11.Connection(h11.CLIENT)

    async def __aenter__(self) -> "_Connection":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def post(self, body: bytes) -> _Answer:
        """Send *body* and wait for the answer. Raises Unavailable: it may have arrived or not, as if cancelled."""
        whole = False
        try:
            answer = await self._exchange(body)
            whole = True
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError) as error:
            raise Unavailable(f"no answer from {self._target.host}:{self._target.port}: {error}") from error
        finally:
            if not whole or self._http.our_state is h11.MUST_CLOSE:
                await self._close()
        return answer

    async def _exchange(self, body: bytes) -> _Answer:
        if self._stream is None:
            self._stream = await self._open()
            self._http = h11.Connection(h11.CLIENT)
        elif self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        stream = self._stream
        await stream.send_all(self._frame(body))
        return await self._answer(stream)

    async def _open(self) -> trio.abc.Stream:
        with trio.move_on_after(_CONNECT_WITHIN_S):
            return await self._connect(self._target.host, self._target.port)
        raise OSError(f"no connection within {_CONNECT_WITHIN_S} s")

    def _frame(self, body: bytes) -> bytes:
        """The request as bytes."""
        headers = [("Host", f"{self._target.host}:{self._target.port}"), ("Content-Type", "application/x-protobuf")]
        if self._compress:
            deflate = zlib.compressobj(level=1, wbits=31)  # 31: gzip framing
            body = deflate.compress(body) + deflate.flush()
            headers.append(("Content-Encoding", "gzip"))
        headers.append(("Content-Length", str(len(body))))
        events = (
            h11.Request(method="POST", target=self._target.path, headers=headers),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        return b"".join(self._http.send(event) or b"" for event in events)

    async def _answer(self, stream: trio.abc.Stream) -> _Answer:
        status, retry_after_s, body = 0, 0.0, b""
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(bytes(await stream.receive_some(_READ_BYTES)))
            elif isinstance(event, h11.Response):
                status, retry_after_s = event.status_code, _retry_after_s(event)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > _ANSWER_BYTES_MAX:
                    raise OSError(f"an answer of more than {_ANSWER_BYTES_MAX} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return _Answer(status, retry_after_s, body)
            elif isinstance(event, h11.ConnectionClosed):
                raise OSError("the connection was closed before the answer")

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await trio.aclose_forcefully(stream)


def _retry_after_s(response: h11.Response) -> float:
    """The seconds of Retry-After; its date form is not used between machines and counts as absent."""
    for name, value in response.headers:
        if name == b"retry-after" and value.isdigit():
            return min(float(value), RETRY_AFTER_CAP_S)
    return 0.0


def _rejected_spans(body: bytes) -> int:
    """How many spans a 200 says were not taken; an answer that is not OTLP protobuf says none."""
    try:
        return ExportTraceServiceResponse.FromString(body).partial_success.rejected_spans
    except ProtobufDecodeError:
        return 0
