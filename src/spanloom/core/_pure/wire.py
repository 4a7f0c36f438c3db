"""OTLP protobuf as the kernel reads it: find the spans of a TracesData, touch nothing else.

The specification of the native scanner. A record is read level by level (TracesData, ResourceSpans, ScopeSpans,
Span); the framing of a level is checked as a whole before anything below it is looked at, so that both kernels name
the same first fault. What is not needed is carried as raw bytes. Source: the protobuf wire format and
opentelemetry/proto/trace/v1/trace.proto.
"""

from collections.abc import Iterator
from typing import NamedTuple

from spanloom.errors import DecodeError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
FIELD_NUMBER_MAX = (1 << 29) - 1  # protobuf's own limit
STATUS_ERROR = 2
SERVICE_NAME = b"service.name"


class Field(NamedTuple):
    """One field of a message: its bytes are data[start:stop], its payload data[value:stop] or, of a varint, `value`."""

    number: int
    wire_type: int
    start: int
    value: int
    stop: int


class ScannedSpan(NamedTuple):
    """A span, found but not decoded."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes  # empty for a root: absent or all zero
    name: bytes
    kind: int  # low 8 bits
    start_unix_ns: int
    end_unix_ns: int
    error: bool
    span: bytes  # the Span message
    resource: bytes  # the Resource message (merged where it stands more than once)
    service: bytes  # its `service.name`, empty if none
    fault: str  # `trace_id`, `span_id`, `parent_span_id`: why this span cannot be used; empty if it can
    position: int  # where the Span message starts in the record


class Scope(NamedTuple):
    """A ScopeSpans: its fields but the spans, raw, and its spans."""

    frame: bytes
    spans: list[ScannedSpan]


class Resource(NamedTuple):
    """A ResourceSpans: its fields but the scopes, raw, and its scopes."""

    frame: bytes
    scopes: list[Scope]


def _malformed(reason: str, expected: str, found: str, position: int) -> DecodeError:
    return DecodeError(reason=reason, expected=expected, found=found, position=position)


def read_varint(data: bytes, at: int, end: int, start: int) -> tuple[int, int]:
    """The varint at *at* and where it ends. A fault is placed at *start*, the field's first byte."""
    value = shift = 0
    while shift < 70:
        if at >= end:
            raise _malformed("truncated", "a varint", "the end of the message", start)
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
    raise _malformed("varint", "at most 10 bytes", "more", start)


def read_fields(data: bytes, at: int, end: int) -> list[Field]:
    """All fields of the message data[at:end], in order. Raises DecodeError at the first that is malformed."""
    fields = []
    while at < end:
        start = at
        tag = data[at]
        at += 1
        if tag >= 0x80:
            tag, at = read_varint(data, start, end, start)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number <= FIELD_NUMBER_MAX:
            raise _malformed("field_number", f"1 to {FIELD_NUMBER_MAX}", str(number), start)
        if wire_type == LENGTH:
            size, at = read_varint(data, at, end, start)
            value = at
            at += size
        elif wire_type == VARINT:
            value, at = read_varint(data, at, end, start)
        elif wire_type == FIXED64:
            value = at
            at += 8
        elif wire_type == FIXED32:
            value = at
            at += 4
        else:
            raise _malformed("wire_type", "0, 1, 2 or 5", str(wire_type), start)
        if at > end:
            raise _malformed("truncated", f"{at - start} bytes", f"{end - start}", start)
        fields.append(Field(number, wire_type, start, value, at))
    return fields


def _check(field: Field, wire_type: int) -> None:
    if field.wire_type != wire_type:
        raise _malformed("wire_type", f"{wire_type} for field {field.number}", str(field.wire_type), field.start)


def read_traces_data(data: bytes) -> list[Resource]:
    """Every ResourceSpans of *data*, in order. Raises DecodeError for malformed framing; a bad id is only noted."""
    resources = []
    for field in read_fields(data, 0, len(data)):
        if field.number == 1:
            _check(field, LENGTH)
            resources.append(_read_resource_spans(data, field.value, field.stop))
    return resources


def _read_resource_spans(data: bytes, at: int, end: int) -> Resource:
    fields = read_fields(data, at, end)
    frame, resource, service = b"", b"", b""
    for field in fields:
        if field.number != 2:
            frame += data[field.start : field.stop]
        if field.number == 1:
            _check(field, LENGTH)
            resource += data[field.value : field.stop]
            service = service or _service_name(data, field.value, field.stop)
    scopes = []
    for field in fields:
        if field.number == 2:
            _check(field, LENGTH)
            scopes.append(_read_scope_spans(data, field, resource, service))
    return Resource(frame, scopes)


def _service_name(data: bytes, at: int, end: int) -> bytes:
    """The first non-empty string value of an attribute `service.name` in the Resource message data[at:end]."""
    for attribute in read_fields(data, at, end):
        if attribute.number != 1:
            continue
        _check(attribute, LENGTH)
        key = value = b""
        for field in read_fields(data, attribute.value, attribute.stop):
            if field.number == 1:
                _check(field, LENGTH)
                key = data[field.value : field.stop]
            elif field.number == 2:
                _check(field, LENGTH)
                value = data[field.value : field.stop]
        if key == SERVICE_NAME:
            for field in read_fields(value, 0, len(value)):
                if field.number == 1 and field.wire_type == LENGTH and field.stop > field.value:
                    return value[field.value : field.stop]
    return b""


def _read_scope_spans(data: bytes, scope: Field, resource: bytes, service: bytes) -> Scope:
    fields = read_fields(data, scope.value, scope.stop)
    frame = b"".join(data[field.start : field.stop] for field in fields if field.number != 2)
    spans = []
    for field in fields:
        if field.number == 2:
            _check(field, LENGTH)
            spans.append(_read_span(data, field, resource, service))
    return Scope(frame, spans)


_SPAN_WIRE_TYPES = {1: LENGTH, 2: LENGTH, 4: LENGTH, 5: LENGTH, 6: VARINT, 7: FIXED64, 8: FIXED64, 15: LENGTH}


def _read_span(data: bytes, span: Field, resource: bytes, service: bytes) -> ScannedSpan:
    trace_id = span_id = parent = name = b""
    kind = start = end = code = 0
    for field in read_fields(data, span.value, span.stop):
        number = field.number
        expected = _SPAN_WIRE_TYPES.get(number)
        if expected is None:
            continue
        _check(field, expected)
        if number == 1:
            trace_id = data[field.value : field.stop]
        elif number == 2:
            span_id = data[field.value : field.stop]
        elif number == 4:
            parent = data[field.value : field.stop]
        elif number == 5:
            name = data[field.value : field.stop]
        elif number == 6:
            kind = field.value & 0xFF
        elif number == 7:
            start = int.from_bytes(data[field.value : field.stop], "little")
        elif number == 8:
            end = int.from_bytes(data[field.value : field.stop], "little")
        else:
            code = _status_code(data, field, code)
    fault = ""
    if len(trace_id) != 16 or not any(trace_id):
        fault = "trace_id"
    elif len(span_id) != 8 or not any(span_id):
        fault = "span_id"
    elif len(parent) not in (0, 8):
        fault = "parent_span_id"
    if not any(parent):
        parent = b""
    error = code == STATUS_ERROR
    body = data[span.value : span.stop]
    return ScannedSpan(
        trace_id, span_id, parent, name, kind, start, end, error, body, resource, service, fault, span.value
    )


def _status_code(data: bytes, status: Field, code: int) -> int:
    """The Status' code; *code* where it says none (a repeated message field merges)."""
    for field in read_fields(data, status.value, status.stop):
        if field.number == 3:
            _check(field, VARINT)
            code = field.value
    return code


_FAULTS = {
    "trace_id": "16 bytes, not all zero",
    "span_id": "8 bytes, not all zero",
    "parent_span_id": "no byte or 8",
}


def raise_fault(span: ScannedSpan) -> None:
    """Raise the DecodeError that *span*'s fault stands for."""
    found = {"trace_id": span.trace_id, "span_id": span.span_id, "parent_span_id": span.parent_span_id}[span.fault]
    raise _malformed(span.fault, _FAULTS[span.fault], found.hex() or "nothing", span.position)


def spans_of(resources: list[Resource]) -> Iterator[ScannedSpan]:
    """Every span, in order."""
    for resource in resources:
        for scope in resource.scopes:
            yield from scope.spans


def scan(data: bytes) -> list[ScannedSpan]:
    """Every span of a TracesData, in order; raises DecodeError unless all of it can be used (a record is atomic)."""
    spans = list(spans_of(read_traces_data(data)))
    for span in spans:
        if span.fault:
            raise_fault(span)
    return spans


def varint(value: int) -> bytes:
    """*value* as a minimal varint."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _nested(tag: bytes, body: bytes) -> bytes:
    return tag + varint(len(body)) + body


class Placed(NamedTuple):
    """A span and where in its record it stands."""

    resource: int  # index of the ResourceSpans in the record
    scope: int  # index of the ScopeSpans in it
    span: bytes


def frame(resources: list[Resource], placed: list[Placed]) -> bytes:
    """TracesData bytes that hold just *placed*, spans of one record in its order, with their resources and scopes."""
    out = []
    at = 0
    while at < len(placed):
        resource = placed[at].resource
        body = resources[resource].frame
        while at < len(placed) and placed[at].resource == resource:
            scope = placed[at].scope
            spans = resources[resource].scopes[scope].frame
            while at < len(placed) and placed[at].resource == resource and placed[at].scope == scope:
                spans += _nested(b"\x12", placed[at].span)
                at += 1
            body += _nested(b"\x12", spans)
        out.append(_nested(b"\x0a", body))
    return b"".join(out)


class Split(NamedTuple):
    """A request taken apart: one TracesData a trace, and what had to be left out."""

    parts: list[tuple[bytes, bytes]]  # trace id, TracesData; in order of first appearance
    span_count: int  # spans in the parts
    rejected: int  # spans with a bad id
    reason: str  # the first rejected span's fault and where; empty if none


def split_by_trace(data: bytes) -> Split:
    """Take a TracesData apart by trace, for producers. Raises DecodeError where its framing is malformed."""
    resources = read_traces_data(data)
    traces: dict[bytes, list[Placed]] = {}
    taken = rejected = 0
    reason = ""
    for r, resource in enumerate(resources):
        for s, scope in enumerate(resource.scopes):
            for span in scope.spans:
                if span.fault:
                    rejected += 1
                    reason = (
                        reason or f"{span.fault} of the span at byte {span.position}: expected {_FAULTS[span.fault]}"
                    )
                else:
                    taken += 1
                    traces.setdefault(span.trace_id, []).append(Placed(r, s, span.span))
    parts = [(trace_id, frame(resources, placed)) for trace_id, placed in traces.items()]
    return Split(parts, taken, rejected, reason)
