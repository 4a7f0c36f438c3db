"""The load client brings every request home, or says which it did not."""

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from trio.testing import MockClock, memory_stream_pair

from spanloom.errors import ConfigError
from spanloom.load.client import LoadClient
from spanloom.load.record import Fate, read_record
from spanloom.load.run import run_load
from spanloom.load.workload import Request, Workload

URL = "http://receiver:4318/v1/traces"
Answer = tuple[int, dict[str, str], bytes] | None  # None: close the connection instead
OK: Answer = (200, {}, b"")


class Receiver:
    """A fake OTLP receiver over memory streams: answers from a script, then 200."""

    def __init__(self, script: list[Answer]) -> None:
        self.script = script
        self.received: list[tuple[float, dict[str, str], bytes]] = []
        self.connections = 0
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            yield
            nursery.cancel_scope.cancel()

    async def connect(self, host: str, port: int) -> trio.abc.Stream:
        assert (host, port) == ("receiver", 4318)
        self.connections += 1
        near, far = memory_stream_pair()
        assert self._nursery is not None
        self._nursery.start_soon(self._serve, far)
        return near

    async def _serve(self, stream: trio.abc.Stream) -> None:
        async with stream:
            connection = h11.Connection(h11.SERVER)
            while (request := await self._read(connection, stream)) is not None:
                self.received.append((trio.current_time(), *request))
                answer = self.script.pop(0) if self.script else OK
                if answer is None:
                    return
                status, headers, body = answer
                fields = [*headers.items(), ("Content-Length", str(len(body)))]
                events = h11.Response(status_code=status, headers=fields), h11.Data(data=body), h11.EndOfMessage()
                await stream.send_all(b"".join(connection.send(event) or b"" for event in events))
                connection.start_next_cycle()

    async def _read(self, connection: h11.Connection, stream: trio.abc.Stream) -> tuple[dict[str, str], bytes] | None:
        headers: dict[str, str] = {}
        body = b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await stream.receive_some()))
            elif isinstance(event, h11.Request):
                headers = {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return headers, body
            else:
                return None


def request(number: int, span_count: int = 10) -> Request:
    return Request(number, b"body %d" % number, span_count, b"", 0, -1)


async def send(
    script: list[Answer], batch: list[Request], *, spans_per_s: float | None = None, **options: object
) -> tuple[Receiver, LoadClient, list[tuple[int, Fate]]]:
    receiver = Receiver(script)
    fates: list[tuple[int, Fate]] = []
    async with receiver.running():
        client = LoadClient(URL, connect=receiver.connect, **{"connections": 1, **options})  # type: ignore[arg-type]
        await client.send(batch, lambda sent, fate: fates.append((sent.number, fate)), spans_per_s=spans_per_s)
    return receiver, client, fates


async def test_requests_go_out_in_order_on_one_kept_alive_connection(autojump_clock: MockClock) -> None:
    """All requests share a connection, arrive as they are, and are acknowledged."""
    receiver, client, fates = await send([], [request(n) for n in range(5)])
    assert [body for _, _, body in receiver.received] == [b"body %d" % n for n in range(5)]
    assert receiver.received[0][1]["content-type"] == "application/x-protobuf"
    assert receiver.connections == 1
    assert fates == [(n, Fate.ACKNOWLEDGED) for n in range(5)]
    assert client.statistics().spans_acknowledged == client.statistics().spans_sent == 50


async def test_a_busy_receiver_is_asked_again_after_the_time_it_names(autojump_clock: MockClock) -> None:
    """After 429 and 503 the same bytes are sent again, not before Retry-After has passed."""
    busy: Answer = (429, {"Retry-After": "7"}, b"")
    away: Answer = (503, {"Retry-After": "3"}, b"")
    receiver, client, fates = await send([busy, away], [request(0)])
    times = [at for at, _, _ in receiver.received]
    assert [body for _, _, body in receiver.received] == [b"body 0"] * 3
    assert 7 <= times[1] - times[0] < 7.2
    assert 3 <= times[2] - times[1] < 3.3
    assert fates == [(0, Fate.ACKNOWLEDGED)]
    assert client.statistics().retries == 2
    assert client.statistics().connection_errors == 0


async def test_a_broken_connection_is_opened_anew(autojump_clock: MockClock) -> None:
    """A connection closed without an answer is a retry of the same bytes on a new connection."""
    receiver, client, fates = await send([OK, None, None], [request(0), request(1)])
    assert [body for _, _, body in receiver.received] == [b"body 0", b"body 1", b"body 1", b"body 1"]
    assert receiver.connections == 3
    assert fates == [(0, Fate.ACKNOWLEDGED), (1, Fate.ACKNOWLEDGED)]
    assert client.statistics().connection_errors == 2


async def test_a_request_is_given_up_after_its_deadline(autojump_clock: MockClock) -> None:
    """A receiver that stays away costs the request, not the run; the next one is tried."""
    away: Answer = (503, {}, b"")
    receiver, client, fates = await send([away] * 40, [request(0), request(1)], give_up_s=60.0)
    assert fates[0] == (0, Fate.ABANDONED)
    assert fates[1] == (1, Fate.ACKNOWLEDGED)
    assert client.statistics().requests_abandoned == 1
    first = [at for at, _, body in receiver.received if body == b"body 0"]
    assert first[-1] - first[0] < 60


async def test_a_receiver_that_cannot_be_reached_is_retried(autojump_clock: MockClock) -> None:
    """A refused connection is waited for like any outage."""

    async def refuse(_host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise ConnectionRefusedError("nobody listens")

    fates: list[Fate] = []
    client = LoadClient(URL, connect=refuse, connections=1, give_up_s=30.0)
    await client.send([request(0)], lambda _, fate: fates.append(fate))
    assert fates == [Fate.ABANDONED]
    assert client.statistics().connection_errors > 5


async def test_a_receiver_that_never_answers_is_given_up(autojump_clock: MockClock) -> None:
    """No answer is no acknowledgement, however long the connection stays open."""

    async def silent(_host: str, _port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        near, _far = memory_stream_pair()
        return near

    fates: list[Fate] = []
    client = LoadClient(URL, connect=silent, connections=1, give_up_s=200.0)
    await client.send([request(0)], lambda _, fate: fates.append(fate))
    assert fates == [Fate.ABANDONED]
    assert client.statistics().retries >= 3


async def test_a_refusal_is_not_repeated(autojump_clock: MockClock) -> None:
    """400 is final; the statistics keep the reason."""
    receiver, client, fates = await send([(400, {}, b"trace_id: expected 16 bytes")], [request(0), request(1)])
    assert fates == [(0, Fate.REFUSED), (1, Fate.ACKNOWLEDGED)]
    assert len(receiver.received) == 2
    assert client.statistics().last_refusal == "400 trace_id: expected 16 bytes"
    assert client.statistics().spans_acknowledged == 10


async def test_a_partial_success_is_no_acknowledgement(autojump_clock: MockClock) -> None:
    """A 200 that rejects spans promises nothing of the request; how many it rejected is counted."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 4
    _, client, fates = await send([(200, {}, answer.SerializeToString())], [request(0)])
    assert fates == [(0, Fate.PARTIAL)]
    assert client.statistics().spans_rejected == 4
    assert client.statistics().spans_acknowledged == 0


async def test_a_rate_spaces_the_requests(autojump_clock: MockClock) -> None:
    """At 100 spans a second, requests of 50 spans leave half a second apart."""
    receiver, _, _ = await send([], [request(n, 50) for n in range(5)], spans_per_s=100.0, connections=3)
    times = [at for at, _, _ in receiver.received]
    assert [round(at - times[0], 6) for at in times] == [0.0, 0.5, 1.0, 1.5, 2.0]


async def test_compressed_requests_unpack_to_the_same_bytes(autojump_clock: MockClock) -> None:
    """With compression the receiver sees gzip of the same body."""
    receiver, _, _ = await send([], [request(0)], compress=True)
    _, headers, body = receiver.received[0]
    assert headers["content-encoding"] == "gzip"
    assert gzip.decompress(body) == b"body 0"


async def test_connections_send_side_by_side(autojump_clock: MockClock) -> None:
    """One busy request does not hold the others up."""
    busy: Answer = (503, {"Retry-After": "30"}, b"")
    _, _, fates = await send([busy], [request(n) for n in range(10)], connections=2)
    assert [number for number, _ in fates] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]


@pytest.mark.parametrize("url", ["https://host/v1/traces", "host:4318", "http://", "http://host:99999/"])
def test_an_unusable_url_is_refused(url: str) -> None:
    """A URL that is not plain HTTP is a configuration error."""
    with pytest.raises(ConfigError, match="url"):
        LoadClient(url)


async def test_a_load_is_sent_and_recorded(autojump_clock: MockClock, tmp_path: Path) -> None:
    """Every span of the workload arrives and stands in the record as acknowledged."""
    receiver = Receiver([None, (503, {}, b"")])
    record = tmp_path / "record"
    async with receiver.running():
        client = LoadClient(URL, connect=receiver.connect, connections=3)
        statistics = await run_load(client, Workload(spans=2_000), epoch_unix_ns=10**18, record=record)
    entries = list(read_record(record))
    assert {entry.fate for entry in entries} == {Fate.ACKNOWLEDGED}
    assert sum(len(entry.spans) for entry in entries) == statistics.spans_acknowledged >= 2_000
    assert len({span for entry in entries for span in entry.spans}) == 2_000
