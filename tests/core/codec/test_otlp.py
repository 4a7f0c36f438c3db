"""OTLP bytes as spans: everything that can be read is, and nothing raises but broken framing."""

import xxhash
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from spanloom.core.codec.otlp import decode_spans
from tests.spans import Sp, traces_data

TRACE, SPAN, PARENT = b"t" * 16, b"s" * 8, b"p" * 8


def tlv(number: int, body: bytes) -> bytes:
    """A length-delimited protobuf field of fewer than 128 bytes times 128."""
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + length + body


def framed(span: bytes, resource: bytes = b"") -> bytes:
    """TracesData of one span from raw bytes."""
    return tlv(1, tlv(1, resource) + tlv(2, tlv(2, span)))


def ids() -> bytes:
    return tlv(1, TRACE) + tlv(2, SPAN)


def test_a_span_is_decoded_field_by_field() -> None:
    """Ids, times, kind, status, attributes of all types, events and resource come out as they went in."""
    nested = AnyValue()
    nested.kvlist_value.values.add(key="k").value.array_value.values.add().int_value = -5
    span = Span(
        trace_id=TRACE,
        span_id=SPAN,
        parent_span_id=PARENT,
        name="charge",
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=10,
        end_time_unix_nano=30,
        status=Status(code=Status.STATUS_CODE_ERROR, message="declined"),
        attributes=[
            KeyValue(key="s", value=AnyValue(string_value="text")),
            KeyValue(key="b", value=AnyValue(bool_value=False)),
            KeyValue(key="i", value=AnyValue(int_value=-(1 << 63))),
            KeyValue(key="d", value=AnyValue(double_value=1.5)),
            KeyValue(key="y", value=AnyValue(bytes_value=b"\xff")),
            KeyValue(key="n", value=nested),
            KeyValue(key="none", value=AnyValue()),
            KeyValue(key="s", value=AnyValue(string_value="again")),
        ],
        events=[
            Span.Event(name="retry", time_unix_nano=20, attributes=[KeyValue(key="x", value=AnyValue(int_value=1))])
        ],
    )
    resource = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value="shop"))])
    data = TracesData(resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[span])])])

    (decoded,) = decode_spans(data.SerializeToString())

    assert (decoded.trace_id, decoded.span_id, decoded.parent_span_id) == (TRACE, SPAN, PARENT)
    assert (decoded.service, decoded.name, decoded.kind) == ("shop", "charge", 3)
    assert (decoded.start_unix_ns, decoded.end_unix_ns) == (10, 30)
    assert (decoded.error, decoded.status_message) == (True, "declined")
    assert decoded.attributes == {
        "s": "again",
        "b": False,
        "i": -(1 << 63),
        "d": 1.5,
        "y": b"\xff",
        "n": {"k": [-5]},
        "none": None,
    }
    assert decoded.resource == {"service.name": "shop"}
    assert decoded.events == ({"name": "retry", "time_unix_ns": 20, "attributes": {"x": 1}},)
    assert decoded.content == xxhash.xxh64_intdigest(span.SerializeToString())
    assert decoded.undecodable == ""


def test_spans_come_in_the_order_of_the_record() -> None:
    """Several resources and traces in one record keep their order."""
    spans = [Sp(1, 1), Sp(2, 5, service="cart"), Sp(1, 2, parent=1, error=True)]
    decoded = decode_spans(traces_data(spans))
    assert [(s.span_id[-1], s.service, s.error) for s in decoded] == [
        (1, "shop", False),
        (5, "cart", False),
        (2, "shop", True),
    ]


def test_content_is_the_hash_of_the_bytes_as_they_stand() -> None:
    """Fields this version does not know, and any field order, are part of a span's content."""
    span = tlv(2, SPAN) + tlv(4, b"") + tlv(1, TRACE) + b"\xa2\x06\x01x"  # field 100, unknown
    (decoded,) = decode_spans(framed(span))
    assert decoded.content == xxhash.xxh64_intdigest(span)
    assert decoded.undecodable == ""


def test_a_span_that_is_no_utf8_is_shown_with_what_can_be_read() -> None:
    """A broken string costs the attributes, not the span: its ids, times and error are right."""
    span = ids() + b"\x39" + (7).to_bytes(8, "little") + tlv(5, b"caf\xe9") + tlv(15, b"\x18\x02")
    (decoded,) = decode_spans(framed(span))
    assert (decoded.trace_id, decoded.span_id, decoded.start_unix_ns, decoded.error) == (TRACE, SPAN, 7, True)
    assert decoded.name == "caf\N{REPLACEMENT CHARACTER}"
    assert decoded.undecodable
    assert decoded.attributes == {}


def test_deep_nesting_makes_a_span_undecodable_not_a_crash() -> None:
    """An attribute nested a thousand deep is reported; the span beside it is whole."""
    value = tlv(1, b"x")
    for _ in range(1000):
        value = tlv(5, tlv(1, value))
    good = Sp(1, 1)
    bad = ids() + tlv(9, tlv(1, b"deep") + tlv(2, value))
    decoded = decode_spans(traces_data([good]) + framed(bad))
    assert [bool(span.undecodable) for span in decoded] == [False, True]
    assert decoded[1].span_id == SPAN


def test_a_resource_that_cannot_be_read_leaves_its_spans_alone() -> None:
    """A broken resource is said to be so; the service name and the span are still there."""
    service = tlv(1, tlv(1, b"service.name") + tlv(2, tlv(1, b"shop")))
    broken = tlv(1, tlv(1, b"x") + tlv(2, tlv(1, b"\xff")))
    (decoded,) = decode_spans(framed(ids() + tlv(5, b"op"), service + broken))
    assert (decoded.service, decoded.name, decoded.undecodable) == ("shop", "op", "")
    assert list(decoded.resource) == ["undecodable"]
