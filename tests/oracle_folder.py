"""Little data folders made by hand: the logs, ledgers and stores that the oracle's own tests read."""

import sqlite3
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import xxhash
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from tests.oracle import ExpectedDecision, ExpectedPartition, Limits, expect
from tests.oracle_policies import Policies

S = 10**9
T0_MS = 1_790_000_000_000  # the first record's timestamp, unless a test says otherwise
T0 = T0_MS * 10**6
A, B, C = bytes([1] * 16), bytes([2] * 16), bytes([3] * 16)
ERRORS_ONLY: Policies = [{"name": "errors", "type": "error"}]
ALL: Policies = [
    {"name": "all", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 100}}
]

Records = list[tuple[float, bytes]]  # seconds after T0, value


def span(trace_id: bytes, number: int, parent: int = 0, *, error: bool = False, kind: int = 2, name: str = "") -> Span:
    made = Span(
        trace_id=trace_id,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name or f"op {number}",
        kind=Span.SpanKind.ValueType(kind),
        start_time_unix_nano=T0 + number,
        end_time_unix_nano=T0 + number + 5_000_000,
    )
    if error:
        made.status.code = made.status.STATUS_CODE_ERROR
    return made


def traces(*spans: Span, service: str = "shop") -> bytes:
    data = TracesData()
    resource_spans = data.resource_spans.add()
    attribute = resource_spans.resource.attributes.add(key="service.name")
    attribute.value.string_value = service
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "hand"
    scope_spans.spans.extend(spans)
    return data.SerializeToString()


def identity(made: Span) -> tuple[bytes, int, int]:
    return made.span_id, made.kind, xxhash.xxh64_intdigest(made.SerializeToString())


def write_log(folder: Path, records: Records, *, headers: Mapping[int, str] | None = None) -> None:
    """One chunk a record, offsets from 0, all in partition 0."""
    with closing(sqlite3.connect(folder / "log.db")) as database, database:
        database.execute(
            "CREATE TABLE chunk(id INTEGER PRIMARY KEY, partition INTEGER, base INTEGER, count INTEGER,"
            " timestamp_ms INTEGER, crc INTEGER, body BLOB)"
        )
        for offset, (seconds, value) in enumerate(records):
            header = (headers or {}).get(offset, "").encode()
            packed = struct.pack("<HI", len(header), 1) + header + b"1" if header else b""
            body = b"\x01" + struct.pack("<IHI", 3, 1 if header else 0, len(value)) + b"key" + packed + value
            row = (offset, T0_MS + round(seconds * 1000), zlib.crc32(body), body)
            database.execute("INSERT INTO chunk VALUES (NULL, 0, ?, 1, ?, ?, ?)", row)


FORMAT_VERSION = 2
FENCE, DECIDE, TICK = 1, 2, 3


def write_ledger(folder: Path, entries: Sequence[tuple[int, int, bytes]] = ()) -> None:
    """Entries are (kind, epoch, body)."""
    with closing(sqlite3.connect(folder / "ledger.db")) as database, database:
        database.execute(
            "CREATE TABLE entry(partition INTEGER, position INTEGER, body BLOB, PRIMARY KEY (partition, position))"
        )
        for position, (kind, epoch, body) in enumerate(entries):
            blank = struct.pack("<BBHIQI", FORMAT_VERSION, kind, 0, 0, epoch, 0) + body
            record = blank[:16] + struct.pack("<I", zlib.crc32(blank)) + blank[20:]
            database.execute("INSERT INTO entry VALUES (0, ?, ?)", (position, record))


def fence(epoch: int) -> tuple[int, int, bytes]:
    return FENCE, epoch, bytes(16) + struct.pack("<Q", 0)


def tick(epoch: int, offset: int, seconds: float) -> tuple[int, int, bytes]:
    return TICK, epoch, struct.pack("<QQ", offset, T0 + round(seconds * S))


def outcome(
    folder: Path,
    records: Records,
    policies: Policies = ERRORS_ONLY,
    *,
    ledger: Sequence[tuple[int, int, bytes]] = (),
    limits: Limits | None = None,
    headers: Mapping[int, str] | None = None,
) -> ExpectedPartition:
    """What the oracle makes of a log whose one partition is 0 of 1."""
    write_log(folder, records, headers=headers)
    write_ledger(folder, ledger)
    return expect(folder, policies, partition_count=1, limits=limits)[0]


def brief(decisions: list[ExpectedDecision]) -> list[tuple[bytes, int, int, float]]:
    """Trace, verdict, trigger and seconds after T0."""
    return [(each.trace_id, each.verdict, each.trigger, (each.stream_ns - T0) / S) for each in decisions]


def counted(result: ExpectedPartition) -> dict[str, int]:
    return {name: count for name, count in result.counters.items() if count}


def end(seconds: float) -> tuple[float, bytes]:
    """A record without spans, which only moves time."""
    return seconds, b""
