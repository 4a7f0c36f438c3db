"""The traffic of `compare.py`: made once, kept in memory, put into topics before anybody is measured.

Two shapes have exactly known traces of ten spans from twenty services, near 1 % of them with an error or slow: records
of two or three spans of one process, and records of one. The mix is `spanloom.load`'s: sizes, batches of five seconds,
late, repeated, lost and conflicting spans. Records carry the time they would have been written at, so that a topic
filled in seconds is read as the stream it stands for.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from spanloom.core import kernel
from spanloom.core.partitioning import partition_of
from spanloom.load.span_template import INSTANCE, SpanTemplate, length_delimited
from spanloom.load.workload import SENT_SPAN, Workload, requests

PARTITIONS = 8
SERVICES = 20
TRACE_SPANS = 10
STREAM_SPANS_A_SECOND = 50_000  # near what the collector takes, so both sides hold about as much undecided
SPREAD_NS = 1_000_000_000  # a trace leaves its processes within this: a slow collector must not decide it before
ERROR_SHARE, SLOW_SHARE = 0.003, 0.002  # of traces; with 1 % of chance near 1.5 % are kept
SLOW_MS = 500
MIX_SLOW_MS = 5_000  # the mix has slow traces by itself
NS = 1_000_000_000
SHAPES = {"2.5 spans a record": (2, 3, 2, 3), "1 span a record": (1,) * TRACE_SPANS}
_SCOPE = length_delimited(1, b"\x0a\x05bench")
_FILL_S = 300


class Sent(NamedTuple):
    """One record."""

    at_ns: int  # after the first
    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one topic is filled with."""

    name: str
    records: list[Sent]  # in order of time
    traces: int
    spans: int  # those sent twice count twice
    slow_ms: int
    exact: bool  # whether both sides must keep the very same number of traces

    @property
    def spans_a_record(self) -> float:
        """How many spans a record has, on average."""
        return self.spans / len(self.records)

    @property
    def record_bytes(self) -> float:
        """A record's size, on average."""
        return sum(len(record.value) for record in self.records) / len(self.records)

    @property
    def length_ns(self) -> int:
        """From the first record to the last."""
        return self.records[-1].at_ns


def shaped(name: str, traces: int, *, spans_a_second: int = STREAM_SPANS_A_SECOND) -> Traffic:
    """Traces of ten spans, cut into records as that shape has it."""
    sizes = SHAPES[name]
    random = Random(1)
    epoch_ns = 1_790_000_000 * NS
    records: list[Sent] = []
    for number in range(traces):
        born_ns = number * TRACE_SPANS * NS // spans_a_second
        trace_id = random.randbytes(16)
        key = trace_id.hex().encode()
        partition = partition_of(key, PARTITIONS, hashes=kernel.hashes)
        values = _records(random, trace_id, epoch_ns + born_ns, sizes)
        records += [Sent(born_ns + random.randrange(SPREAD_NS), partition, key, value) for value in values]
    records.sort()
    return Traffic(name, records, traces, traces * TRACE_SPANS, SLOW_MS, exact=True)


def mixed(spans: int) -> Traffic:
    """`spanloom.load`'s traffic as our intake would put it into the topic: one record a trace and request."""
    workload = Workload(spans=spans, services=SERVICES, spans_per_s=STREAM_SPANS_A_SECOND)
    epoch_ns = 1_790_000_000 * NS
    records: list[Sent] = []
    traces: set[bytes] = set()
    count = 0
    for request in requests(workload, epoch_unix_ns=epoch_ns):
        at_ns = request.due_unix_ns - epoch_ns
        count += request.span_count
        traces.update(sent[0] for sent in SENT_SPAN.iter_unpack(request.sent))
        for trace_id, value in kernel.split_by_trace(request.body).parts:
            key = trace_id.hex().encode()
            records.append(Sent(at_ns, partition_of(key, PARTITIONS, hashes=kernel.hashes), key, value))
    records.sort(key=lambda record: record.at_ns)
    return Traffic("mix", records, len(traces), count, MIX_SLOW_MS, exact=False)


def fill(brokers: str, topic: str, traffic: Traffic) -> None:
    """Put the traffic into the topic, in batches as spanloom's own intake writes them; its last record is of now."""
    producer = Producer(producer_settings(brokers))
    failed: list[KafkaError] = []

    def note(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failed.append(error)

    base_ms = time.time_ns() // 1_000_000 - traffic.length_ns // 1_000_000
    for at_ns, partition, key, value in traffic.records:
        while True:
            try:
                at_ms = base_ms + at_ns // 1_000_000
                producer.produce(topic, value, key, partition=partition, timestamp=at_ms, on_delivery=note)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(_FILL_S) == 0, "the topic could not be filled in time"
    assert not failed, failed[0]


def producer_settings(brokers: str) -> dict[str, str | int | bool]:
    """lz4 and batches of 64 KiB or 10 ms."""
    return {
        "bootstrap.servers": brokers,
        "compression.type": "lz4",
        "batch.size": 65536,
        "linger.ms": 10,
        "acks": "all",
        "enable.idempotence": True,
        "queue.buffering.max.messages": 200_000,
        "log_level": 2,
    }


# The shaped spans.


def _records(random: Random, trace_id: bytes, born_unix_ns: int, sizes: tuple[int, ...]) -> Iterator[bytes]:
    """One trace's records; each is of one service."""
    draw = random.random()
    failed = random.randrange(TRACE_SPANS) if draw < ERROR_SHARE else -1
    slow = ERROR_SHARE <= draw < ERROR_SHARE + SLOW_SHARE
    length_ns = random.randrange(600, 900) * 1_000_000 if slow else random.randrange(10, 400) * 1_000_000
    ids = [random.randbytes(8) for _ in range(TRACE_SPANS)]
    number = 0
    for size in sizes:
        framed = b""
        service = random.randrange(SERVICES)
        for _ in range(size):
            template = _template(service, root=number == 0, error=number == failed)
            lasts_ns = length_ns if number == 0 else random.randrange(length_ns // 2)
            starts_ns = born_unix_ns + (0 if number == 0 else random.randrange(length_ns - lasts_ns))
            parent = b"" if number == 0 else ids[random.randrange(number)]
            framed += template.frame + template.render(
                trace_id, ids[number], parent, start_unix_ns=starts_ns, end_unix_ns=starts_ns + lasts_ns,
                instance=b"%016x" % random.getrandbits(64),
            )  # fmt: skip
            number += 1
        yield length_delimited(1, _resource(service) + length_delimited(2, _SCOPE + framed))


@cache
def _resource(service: int) -> bytes:
    resource = Resource()
    pairs = {
        "service.name": f"service-{service}",
        "service.version": "1.12.3",
        "host.name": f"node-{service}-a91f3c",
        "telemetry.sdk.language": "python",
    }
    for key, value in pairs.items():
        resource.attributes.add(key=key).value.string_value = value
    return length_delimited(1, resource.SerializeToString())


@cache
def _template(service: int, *, root: bool, error: bool) -> SpanTemplate:
    span = Span(name=f"GET /api/v1/things-{service}/{{id}}", kind=Span.SPAN_KIND_SERVER)
    span.parent_span_id = b"" if root else b"a parent"
    pairs = {
        "http.request.method": "GET",
        "http.route": f"/api/v1/things-{service}/{{id}}",
        "url.path": f"/api/v1/things-{service}/{INSTANCE}",
        "server.address": "shop.example.com",
        "user_agent.original": "Mozilla/5.0 (X11; Linux)",
    }
    for key, value in pairs.items():
        span.attributes.add(key=key).value.string_value = value
    span.attributes.add(key="http.response.status_code").value.int_value = 500 if error else 200
    if error:
        span.status.code = Status.STATUS_CODE_ERROR
    return SpanTemplate(span)
