"""What lies in a data folder, read without spanloom: log.db, ledger.db, store/*.db and OTLP protobuf, byte by byte.

Written from the formats' description alone; it shares no line with the program it judges.
"""

import sqlite3
import struct
import zlib
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import xxhash

ERROR_STATUS = 2

Owner = TypeVar("Owner", bound=Hashable)


class Malformed(Exception):
    """These bytes are not OTLP as the rules of assembly demand it."""


class LogRecord(NamedTuple):
    offset: int
    timestamp_ms: int
    headers: dict[str, bytes]
    value: bytes


class Tick(NamedTuple):
    offset: int
    stream_ns: int


class LoggedDecision(NamedTuple):
    verdict: int
    trigger: int
    policy: int
    flags: int
    policy_version: int
    votes: int
    threshold: int
    trace_id: bytes
    first: int
    cut: int
    stream_ns: int
    origin_ns: int
    operation: int
    duration_ns: int
    size_bytes: int
    span_count: int
    identities: tuple[tuple[bytes, int, int], ...]


@dataclass(frozen=True, slots=True)
class WireSpan:
    """One span of a record, in the place it has there."""

    trace_id: bytes
    span_id: bytes
    parent: bytes  # empty for a root
    kind: int
    content: int
    start: int
    end: int
    error: bool
    service: bytes
    name: bytes
    data: bytes
    resource: tuple[bytes, ...]  # the Resource message, in as many parts as it came

    @property
    def length(self) -> int:
        return len(self.data)

    @property
    def identity(self) -> tuple[bytes, int, int]:
        return (self.span_id, self.kind, self.content)


class WireScope(NamedTuple):
    """One ScopeSpans: its fields other than spans as they are, and each span's bytes."""

    other_fields: bytes
    spans: list[bytes]


class WireResource(NamedTuple):
    """One ResourceSpans: its fields other than scopes as they are."""

    other_fields: bytes
    service: bytes
    resource: tuple[bytes, ...]
    scopes: list[WireScope]


# --- SQLite files ---------------------------------------------------------------------------------------------------


def log_partitions(log_db: Path) -> list[int]:
    with closing(_open(log_db)) as database:
        return [row[0] for row in database.execute("SELECT DISTINCT partition FROM chunk ORDER BY partition")]


def read_log(log_db: Path, partition: int) -> Iterator[LogRecord]:
    """The partition's records in offset order. Asserts that offsets never go back and every chunk is whole."""
    next_offset = 0
    with closing(_open(log_db)) as database:
        rows = database.execute(
            "SELECT base, count, timestamp_ms, crc, body FROM chunk WHERE partition = ? ORDER BY base", (partition,)
        )
        for base, count, timestamp_ms, crc, body in rows:
            assert base >= next_offset, f"partition {partition}: chunk {base} overlaps the one before"
            assert zlib.crc32(body) == crc & 0xFFFFFFFF, f"partition {partition}: chunk {base} is damaged"
            records = list(_chunk_records(body))
            assert len(records) == count, f"partition {partition}: chunk {base} holds {len(records)}, not {count}"
            for place, (headers, value) in enumerate(records):
                yield LogRecord(base + place, timestamp_ms, headers, value)
            next_offset = base + count


def _chunk_records(body: bytes) -> Iterator[tuple[dict[str, bytes], bytes]]:
    assert body[0] == 1, f"log chunk version {body[0]}"
    at = 1
    while at < len(body):
        key_length, header_count, value_length = struct.unpack_from("<IHI", body, at)
        at += 10 + (0 if key_length == 0xFFFFFFFF else key_length)
        headers = {}
        for _ in range(header_count):
            name_length, length = struct.unpack_from("<HI", body, at)
            at += 6
            name = body[at : at + name_length].decode()
            headers[name] = body[at + name_length : at + name_length + length]
            at += name_length + length
        assert at + value_length <= len(body), "a log record leaves its chunk"
        yield headers, body[at : at + value_length]
        at += value_length


def read_ledger(ledger_db: Path, partition: int) -> tuple[list[Tick], list[LoggedDecision]]:
    """The partition's valid TICKs and DECIDE entries, in ledger order."""
    ticks: list[Tick] = []
    decisions: list[LoggedDecision] = []
    epoch_fenced = -1
    with closing(_open(ledger_db)) as database:
        rows = database.execute("SELECT body FROM entry WHERE partition = ? ORDER BY position", (partition,))
        for (body,) in rows:
            version, kind, zero, its_partition, epoch, crc = struct.unpack_from("<BBHIQI", body)
            assert (version, zero, its_partition) == (2, 0, partition), f"ledger record of {its_partition}: {version}"
            assert zlib.crc32(body[:16] + bytes(4) + body[20:]) == crc, "a ledger record is damaged"
            if kind == 1:
                epoch_fenced = max(epoch_fenced, epoch)
            elif epoch != epoch_fenced:
                continue  # written by an owner that had been fenced off
            elif kind == 2:
                decisions += decide_entries(body[20:])
            elif kind == 3:
                ticks.append(Tick(*struct.unpack("<QQ", body[20:])))
    return ticks, decisions


def decide_entries(body: bytes) -> Iterator[LoggedDecision]:
    (count,) = struct.unpack_from("<I", body)
    at = 4
    for _ in range(count):
        fields = struct.unpack_from("<BBBBIQQ16sQQQQQQQII", body, at)
        at += 104
        identity_count = fields[-1]
        identities = tuple(struct.iter_unpack("<8sBQ", body[at : at + 17 * identity_count]))
        at += 17 * identity_count
        yield LoggedDecision._make((*fields[:-1], identities))
    assert at == len(body), "bytes after the last DECIDE entry"


def _open(path: Path) -> sqlite3.Connection:
    assert path.exists(), f"{path} is missing"
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)


# --- OTLP protobuf --------------------------------------------------------------------------------------------------


def parse_record(value: bytes) -> list[WireResource]:
    """TracesData as the rules read it. Raises Malformed."""
    resources = []
    for number, wire_type, content, _ in _fields(value):
        if number == 1:
            _demand(wire_type == 2, "TracesData.resource_spans")
            resources.append(_parse_resource_spans(content))
    return resources


def parse_spans(resources: list[WireResource]) -> list[WireSpan]:
    """Every span of a record in order. Raises Malformed."""
    return [parse_span(span, resource) for resource in resources for scope in resource.scopes for span in scope.spans]


def parse_span(data: bytes, resource: WireResource) -> WireSpan:
    """One span. Raises Malformed."""
    found: dict[int, int | bytes] = {1: b"", 2: b"", 4: b"", 5: b"", 6: 0, 7: 0, 8: 0}
    wire_types = {1: 2, 2: 2, 4: 2, 5: 2, 6: 0, 7: 1, 8: 1, 15: 2}
    error = False
    for number, wire_type, content, integer in _fields(data):
        if number not in wire_types:
            continue
        _demand(wire_type == wire_types[number], f"Span field {number}")
        if number == 15:
            error = _status_code(content, before=error)
        else:
            found[number] = integer if number in (6, 7, 8) else content
    trace_id, span_id, parent, name = (_bytes_of(found[number]) for number in (1, 2, 4, 5))
    kind, start, end = (_integer_of(found[number]) for number in (6, 7, 8))
    _demand(len(trace_id) == 16 and any(trace_id), "trace id")
    _demand(len(span_id) == 8 and any(span_id), "span id")
    _demand(len(parent) in (0, 8), "parent span id")
    return WireSpan(
        trace_id, span_id, parent if any(parent) else b"", kind & 0xFF, xxhash.xxh64_intdigest(data),
        start, end, error, resource.service, name, data, resource.resource,
    )  # fmt: skip


def frame(number: int, content: bytes) -> bytes:
    """A length-delimited field with tag and length as short as they get."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def sizes_by_trace(resources: list[WireResource], owners: Mapping[int, Owner]) -> dict[Owner, int]:
    """Bytes of each owner's part of a record: its spans, by their place, in a resource and scope of their own."""
    sizes: dict[Owner, int] = defaultdict(int)
    place = 0
    for resource in resources:
        in_resource: dict[Owner, int] = defaultdict(int)
        for scope in resource.scopes:
            in_scope: dict[Owner, int] = defaultdict(int)
            for span in scope.spans:
                if place in owners:
                    in_scope[owners[place]] += _framed(len(span))
                place += 1
            for owner, size in in_scope.items():
                in_resource[owner] += _framed(len(scope.other_fields) + size)
        for owner, size in in_resource.items():
            sizes[owner] += _framed(len(resource.other_fields) + size)
    return sizes


def _framed(length: int) -> int:
    return 1 + len(_varint(length)) + length


def attributes_of(message: tuple[bytes, ...], number: int) -> dict[bytes, object]:
    """The attributes in field *number* of a Resource or Span: bytes of a text, bool, int, or None for all else.

    What stands twice counts as it stands first; what cannot be read, a part or an attribute, is not there.
    """
    found: dict[bytes, object] = {}
    for part in message:
        try:
            written = [content for field, wire_type, content, _ in _fields(part) if (field, wire_type) == (number, 2)]
        except Malformed:
            continue
        for content in written:
            try:
                key, value = _key_value(content)
            except Malformed:
                continue
            found.setdefault(key, value)
    return found


def _key_value(data: bytes) -> tuple[bytes, object]:
    key, value = b"", None
    for number, wire_type, content, _ in _fields(data):
        if (number, wire_type) == (1, 2):
            key = content
        elif (number, wire_type) == (2, 2):
            value = None
            for kind, kind_type, text, integer in _fields(content):
                value = _any_value(kind, kind_type, text, integer, before=value)
    return key, value


def _any_value(kind: int, wire_type: int, text: bytes, integer: int, *, before: object) -> object:
    match kind, wire_type:
        case 1, 2:
            return text
        case 2, 0:
            return integer != 0
        case 3, 0:
            return integer - 2**64 if integer >= 2**63 else integer
        case (4, 1) | (5 | 6 | 7, 2):
            return None
    return before


def status_of(span: bytes) -> int:
    """The status code; the last one that stands there."""
    code = 0
    for number, _, content, _ in _fields(span):
        if number == 15:
            for part, _, _, integer in _fields(content):
                code = integer if part == 3 else code
    return code


def _parse_resource_spans(data: bytes) -> WireResource:
    other, service = b"", b""
    parts: list[bytes] = []
    scopes: list[WireScope] = []
    for number, wire_type, content, raw in _fields_raw(data):
        if number == 2:
            _demand(wire_type == 2, "ResourceSpans.scope_spans")
            scopes.append(_parse_scope_spans(content))
            continue
        other += raw
        if number == 1:
            _demand(wire_type == 2, "ResourceSpans.resource")
            service = service or _service_name(content)
            parts.append(content)
    return WireResource(other, service, tuple(parts), scopes)


def _parse_scope_spans(data: bytes) -> WireScope:
    other = b""
    spans: list[bytes] = []
    for number, wire_type, content, raw in _fields_raw(data):
        if number == 2:
            _demand(wire_type == 2, "ScopeSpans.spans")
            spans.append(content)
        else:
            other += raw
    return WireScope(other, spans)


def _service_name(resource: bytes) -> bytes:
    """The first string under `service.name` that is not empty; an attribute is read no further than that takes."""
    for number, wire_type, content, _ in _fields(resource):
        if number != 1:
            continue
        _demand(wire_type == 2, "Resource.attributes")
        key, value = b"", b""
        for part, part_type, part_content, _ in _fields(content):
            if part in (1, 2):
                _demand(part_type == 2, "KeyValue")
            if part == 1:
                key = part_content
            elif part == 2:
                value = part_content
        if key == b"service.name":
            for part, part_type, part_content, _ in _fields(value):
                if part == 1 and part_type == 2 and part_content:
                    return part_content
    return b""


def _status_code(status: bytes, *, before: bool) -> bool:
    error = before
    for number, wire_type, _, integer in _fields(status):
        if number == 3:
            _demand(wire_type == 0, "Status.code")
            error = integer == ERROR_STATUS
    return error


def _fields(data: bytes) -> Iterator[tuple[int, int, bytes, int]]:
    """Each field as (number, wire type, bytes of a length-delimited one, integer of any other)."""
    at, end = 0, len(data)
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = _read_varint(data, at)
        number, wire_type = tag >> 3, tag & 7
        _demand(0 < number < 1 << 29, "a field number")
        if wire_type == 2:
            length, at = _read_varint(data, at)
            _demand(length <= end - at, "as many bytes as the length says")
            yield number, wire_type, data[at : at + length], 0
            at += length
        elif wire_type == 0:
            integer, at = _read_varint(data, at)
            yield number, wire_type, b"", integer
        elif wire_type in (1, 5):
            width = 8 if wire_type == 1 else 4
            _demand(width <= end - at, f"{width} bytes")
            yield number, wire_type, b"", int.from_bytes(data[at : at + width], "little")
            at += width
        else:
            raise Malformed(f"wire type {wire_type}")


def _fields_raw(data: bytes) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Each field as (number, wire type, bytes of a length-delimited one, the whole field as it lies there)."""
    at = 0
    while at < len(data):
        tag, after = _read_varint(data, at)
        wire_type = tag & 7
        if wire_type == 2:
            length, after = _read_varint(data, after)
            after += length
        elif wire_type == 0:
            _, after = _read_varint(data, after)
        else:
            after += {1: 8, 5: 4}.get(wire_type, 0)
        ((number, wire_type, content, _),) = _fields(data[at:after])  # checks all of it
        yield number, wire_type, content, data[at:after]
        at = after


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        _demand(shift < 70, "a varint of at most ten bytes")
        _demand(at < len(data), "the rest of a varint")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7


def _varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def _demand(holds: bool, expected: str) -> None:
    if not holds:
        raise Malformed(expected)


def _bytes_of(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def _integer_of(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value
