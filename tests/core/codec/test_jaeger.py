"""Jaeger's spans, in bytes written by hand after its model."""

import base64
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.codec.jaeger import traces_data_from_jaeger_json, traces_data_from_jaeger_proto
from spanloom.core.codec.otlp import decode_spans
from spanloom.errors import DecodeError
from spanloom.model import Span, SpanKind

TRACE, OTHER, SPAN, PARENT = bytes(range(16)), b"\x07" * 16, b"\x01" * 8, b"\x02" * 8
START_S, START_NS = 1_700_000_000, 1_700_000_000_250_000_000


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes((value & 0x7F | 0x80,)), value >> 7
    return out + bytes((value,))


def nested(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def tag(key: str, value: str | bool | int | float | bytes) -> bytes:
    head = nested(1, key.encode())
    match value:
        case str():
            return head + nested(3, value.encode())
        case bool():
            return head + number(2, 1) + number(4, int(value))
        case int():
            return head + number(2, 2) + number(5, value)
        case float():
            return head + number(2, 3) + varint(6 << 3 | 1) + struct.pack("<d", value)
        case bytes():
            return head + number(2, 4) + nested(7, value)


def reference(trace: bytes, span: bytes, kind: int = 0) -> bytes:
    return nested(4, nested(1, trace) + nested(2, span) + number(3, kind))


def tagged(*tags: bytes) -> bytes:
    return b"".join(nested(8, each) for each in tags)


BARE = (
    nested(1, TRACE)
    + nested(2, SPAN)
    + nested(3, b"GET /")
    + nested(6, number(1, START_S) + number(2, 250_000_000))
    + nested(7, number(1, 1) + number(2, 5))
    + nested(10, nested(1, b"shop") + nested(2, tag("version", "1.2")))
)


def one(body: bytes) -> Span:
    (span,) = decode_spans(traces_data_from_jaeger_proto(body))
    return span


def test_a_span_arrives_whole() -> None:
    """Ids, names, times to the ns, and the process as resource."""
    span = one(BARE)
    assert (span.trace_id, span.span_id, span.parent_span_id) == (TRACE, SPAN, b"")
    assert (span.service, span.name, span.kind, span.error) == ("shop", "GET /", SpanKind.UNSPECIFIED, False)
    assert (span.start_unix_ns, span.end_unix_ns) == (START_NS, START_NS + 1_000_000_005)
    assert span.resource == {"service.name": "shop", "version": "1.2"}


def test_a_trace_id_of_64_bits_is_padded() -> None:
    """Older clients send eight bytes."""
    assert one(nested(1, b"\x09" * 8) + BARE[18:]).trace_id == b"\0" * 8 + b"\x09" * 8


def test_tags_keep_their_types_and_some_are_fields() -> None:
    """Kind, error and status become what OTLP has for them; the rest are attributes."""
    span = one(
        BARE
        + tagged(
            tag("span.kind", "client"),
            tag("error", True),
            tag("otel.status_description", "declined"),
            tag("text", "a"),
            tag("yes", True),
            tag("count", 7),
            tag("ratio", 0.5),
            tag("raw", b"\x00\xff"),
        )
    )
    assert (span.kind, span.error, span.status_message) == (SpanKind.CLIENT, True, "declined")
    assert span.attributes == {"text": "a", "yes": True, "count": 7, "ratio": 0.5, "raw": b"\x00\xff"}


@pytest.mark.parametrize(("value", "error"), [("true", True), ("false", False), (False, False)])
def test_an_error_tag_may_be_text(value: str | bool, error: bool) -> None:
    """Clients send `error` as a bool or as its name."""
    assert one(BARE + tagged(tag("error", value))).error is error


@pytest.mark.parametrize(
    ("references", "parent"),
    [
        (reference(TRACE, PARENT), PARENT),
        (reference(TRACE, b"\x05" * 8, 1) + reference(TRACE, PARENT), PARENT),
        (reference(TRACE, PARENT, 1), PARENT),
        (reference(OTHER, PARENT), b""),
    ],
)
def test_the_first_child_of_in_the_trace_is_the_parent(references: bytes, parent: bytes) -> None:
    """Then any reference into the trace; one into another trace is only a link."""
    assert one(BARE + references).parent_span_id == parent


def test_logs_are_events() -> None:
    """A log's field `event` is the event's name, the others are its attributes."""
    at = nested(1, number(1, START_S))
    fields = nested(2, tag("event", "retry")) + nested(2, tag("attempt", 2))
    span = one(BARE + nested(9, at + fields))
    assert span.events == ({"name": "retry", "time_unix_ns": START_S * 1_000_000_000, "attributes": {"attempt": 2}},)


def test_json_says_the_same() -> None:
    """The JSON of the same span: base64 ids, times as text, unknown fields ignored."""
    text = {
        "traceId": base64.b64encode(TRACE).decode(),
        "spanId": base64.b64encode(SPAN).decode(),
        "operationName": "GET /",
        "startTime": "2023-11-14T22:13:20.250Z",
        "duration": "1.000000005s",
        "process": {"serviceName": "shop", "tags": [{"key": "version", "vStr": "1.2"}]},
        "tags": [{"key": "count", "vType": "INT64", "vInt64": "7"}],
        "somethingNew": [1],
    }
    span = traces_data_from_jaeger_json(json.dumps(text).encode())
    assert span == traces_data_from_jaeger_proto(BARE + tagged(tag("count", 7)))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"traceId": 7}', b"\xff", b"[" * 100_000])
def test_what_is_no_span_in_json_is_refused(text: bytes) -> None:
    """With one error, whatever the parser met."""
    with pytest.raises(DecodeError):
        traces_data_from_jaeger_json(text)


@pytest.mark.parametrize("body", [b"\x0a\x05abc", BARE[:-1], b"junk", nested(6, number(1, (1 << 64) - 1))])
def test_what_is_no_span_is_refused(body: bytes) -> None:
    """Cut short, not protobuf, or before 1970."""
    with pytest.raises(DecodeError):
        traces_data_from_jaeger_proto(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("AAAA"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "vStr", "seconds"]), inner),
    max_leaves=5,
)
FIELDS = ["traceId", "spanId", "operationName", "startTime", "duration", "tags", "logs", "references", "process"]


@given(st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_no_json_crashes_the_reader(fields: dict[str, object]) -> None:
    """Whatever stands in a field, the span is read or refused."""
    try:
        traces_data_from_jaeger_json(json.dumps(fields).encode())
    except DecodeError:
        return


@given(st.binary() | st.binary().map(lambda tail: BARE + tail), st.booleans())
def test_no_bytes_crash_the_reader(body: bytes, as_json: bool) -> None:
    """Whatever is sent is read or refused."""
    try:
        (traces_data_from_jaeger_json if as_json else traces_data_from_jaeger_proto)(body)
    except DecodeError:
        return
