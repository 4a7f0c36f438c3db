"""OTLP/JSON: the specification's mapping, its tolerances, and clear refusals."""

import base64
import contextlib
import json
import math

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from spanloom.core.codec.json_text import JsonValue
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.codec.otlp_json import traces_data_from_json
from spanloom.errors import DecodeError

TRACE, SPAN = "5B8EFFF798038103D269B633813FC60C", "eee19b7ec3c1b174"


def request(**fields: JsonValue) -> bytes:
    """A request of one span with these fields beside its ids."""
    span: dict[str, JsonValue] = {"traceId": TRACE, "spanId": SPAN, **fields}
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()


def span_of(text: bytes) -> Span:
    return TracesData.FromString(traces_data_from_json(text)).resource_spans[0].scope_spans[0].spans[0]


def test_a_request_as_the_specification_shows_it() -> None:
    """The specification's own shape of a request is read field by field."""
    text = json.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "my.service"}}]},
                    "scopeSpans": [
                        {
                            "scope": {"name": "my.library", "version": "1.0.0"},
                            "spans": [
                                {
                                    "traceId": TRACE,
                                    "spanId": SPAN,
                                    "parentSpanId": "EEE19B7EC3C1B173",
                                    "name": "I'm a server span",
                                    "startTimeUnixNano": "1544712660000000000",
                                    "endTimeUnixNano": 1544712661000000000,
                                    "kind": 2,
                                    "status": {"code": "STATUS_CODE_ERROR", "message": "no"},
                                    "attributes": [{"key": "n", "value": {"intValue": "-3"}}],
                                }
                            ],
                        }
                    ],
                }
            ]
        }
    )
    (span,) = decode_spans(traces_data_from_json(text.encode()))
    assert (span.trace_id.hex(), span.span_id.hex()) == (TRACE.lower(), SPAN)
    assert span.parent_span_id.hex() == "eee19b7ec3c1b173"
    assert (span.service, span.name, span.kind) == ("my.service", "I'm a server span", 2)
    assert (span.start_unix_ns, span.end_unix_ns) == (1544712660000000000, 1544712661000000000)
    assert (span.error, span.status_message, span.attributes) == (True, "no", {"n": -3})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"doubleValue": "NaN"}, AnyValue(double_value=math.nan)),
        ({"doubleValue": "-Infinity"}, AnyValue(double_value=-math.inf)),
        ({"doubleValue": 3}, AnyValue(double_value=3.0)),
        ({"intValue": 9223372036854775807}, AnyValue(int_value=(1 << 63) - 1)),
        ({"intValue": 4.0}, AnyValue(int_value=4)),
        ({"boolValue": True}, AnyValue(bool_value=True)),
        ({"bytesValue": "/+8="}, AnyValue(bytes_value=b"\xff\xef")),
        ({"bytesValue": "_-8"}, AnyValue(bytes_value=b"\xff\xef")),
        ({"arrayValue": {}}, AnyValue(array_value={})),  # type: ignore[arg-type]
        ({"arrayValue": {"values": [{"stringValue": "a"}, {}, None]}}, None),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": False}}]}}, None),
        ({"stringValue": "lone \ud800"}, AnyValue(string_value="lone ?")),
        ({"stringValue": None}, AnyValue()),
        ({"string_value": "by its proto name"}, AnyValue(string_value="by its proto name")),
        ({}, AnyValue()),
    ],
)
def test_attribute_values_of_every_type(value: JsonValue, expected: AnyValue | None) -> None:
    """Each kind of value is read, 64-bit integers and doubles in every spelling the mapping allows."""
    span = span_of(request(attributes=[{"key": "x", "value": value}]))
    if expected is None:
        assert span.attributes[0].value.WhichOneof("value") in ("array_value", "kvlist_value")
    else:
        assert span.attributes[0].value.SerializeToString() == expected.SerializeToString()


def test_unknown_fields_are_ignored() -> None:
    """Fields of a later version do no harm, whatever they hold."""
    assert span_of(request(name="op", flavour={"deep": [1, 2]}, dropped=None)).name == "op"


def test_an_id_of_the_wrong_length_is_left_to_the_split() -> None:
    """One span's bad id is that span's matter, not the request's."""
    assert span_of(request(spanId="abcd")).span_id == b"\xab\xcd"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "json at byte 0: expected JSON"),
        (b"\xff\xfe\xfa", "expected JSON"),
        (b"{", "json at byte 1: expected JSON"),
        (b"[]", "expected an object at $, found an array"),
        (b"7", "expected an object at $, found 7"),
        (b'{"resourceSpans": {}}', "expected an array at $.resourceSpans, found an object"),
        (b'{"resourceSpans": [7]}', "expected an object at $.resourceSpans[0], found 7"),
        (b"[" * 100_000, "expected fewer levels"),
        (b'{"resourceSpans": ' + b"1" * 5000 + b"}", "expected JSON"),
        (request(traceId="xyz"), 'hex digits at $.resourceSpans[0].scopeSpans[0].spans[0].traceId, found "xyz"'),
        (request(traceId="abc"), "spans[0].traceId"),
        (request(spanId=7), "spans[0].spanId, found 7"),
        (request(name=7), "expected a string at $.resourceSpans[0].scopeSpans[0].spans[0].name, found 7"),
        (request(kind="SPAN_KIND_FRIENDLY"), "spans[0].kind"),
        (request(kind=True), "spans[0].kind, found true"),
        (request(startTimeUnixNano="soon"), 'startTimeUnixNano, found "soon"'),
        (request(startTimeUnixNano="-1"), "expected an integer from 0 to 18446744073709551615"),
        (request(startTimeUnixNano=1 << 64), "startTimeUnixNano"),
        (request(endTimeUnixNano=1.5), "endTimeUnixNano, found 1.5"),
        (request(droppedEventsCount=1 << 32), "expected an integer from 0 to 4294967295"),
        (request(attributes={"a": 1}), "expected an array at"),
        (request(attributes=[{"key": "x", "value": 1}]), "spans[0].attributes[0].value, found 1"),
        (request(attributes=[{"key": "x", "value": {"intValue": "1_0"}}]), "attributes[0].value.intValue"),
        (request(attributes=[{"key": "x", "value": {"boolValue": "true"}}]), "true or false at"),
        (request(attributes=[{"key": "x", "value": {"bytesValue": "!"}}]), "expected base64"),
        (request(attributes=[{"key": "x", "value": {"doubleValue": "fast"}}]), "expected a number"),
        (request(status=[]), "expected an object at"),
    ],
)
def test_what_is_no_otlp_is_refused_by_path(text: bytes, complaint: str) -> None:
    """The error says where in the JSON what was expected, and what stood there."""
    with pytest.raises(DecodeError) as caught:
        traces_data_from_json(text)
    assert complaint in str(caught.value)
    assert len(str(caught.value)) < 400


def nested(depth: int) -> bytes:
    value: JsonValue = {"stringValue": "x"}
    for _ in range(depth):
        value = {"kvlistValue": {"values": [{"key": "k", "value": value}]}}
    return request(attributes=[{"key": "deep", "value": value}])


def test_nesting_is_bounded_to_what_can_be_read_again() -> None:
    """What is accepted can be decoded; deeper than that is refused, not crashed over."""
    for depth in (1, 5, 19):
        assert decode_spans(traces_data_from_json(nested(depth)))[0].undecodable == ""
    for depth in (20, 100):
        with pytest.raises(DecodeError, match="levels"):
            traces_data_from_json(nested(depth))


def any_values() -> st.SearchStrategy[AnyValue]:
    scalars = st.one_of(
        st.builds(AnyValue, string_value=st.text()),
        st.builds(AnyValue, bool_value=st.booleans()),
        st.builds(AnyValue, int_value=st.integers(-(1 << 63), (1 << 63) - 1)),
        st.builds(AnyValue, double_value=st.floats(allow_nan=False) | st.just(math.nan)),
        st.builds(AnyValue, bytes_value=st.binary()),
    )

    def array(values: list[AnyValue]) -> AnyValue:
        value = AnyValue()
        value.array_value.SetInParent()
        value.array_value.values.extend(values)
        return value

    def kvlist(values: list[KeyValue]) -> AnyValue:
        value = AnyValue()
        value.kvlist_value.SetInParent()
        value.kvlist_value.values.extend(values)
        return value

    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3).map(array),
            st.lists(st.builds(KeyValue, key=st.text(), value=inner), max_size=3).map(kvlist),
        ),
        max_leaves=6,
    )


ATTRIBUTES = st.lists(st.builds(KeyValue, key=st.text(), value=any_values()), max_size=3)
U64 = st.integers(0, (1 << 64) - 1)
U32 = st.integers(0, (1 << 32) - 1)
SPANS = st.builds(
    Span,
    trace_id=st.binary(min_size=16, max_size=16),
    span_id=st.binary(min_size=8, max_size=8),
    parent_span_id=st.sampled_from([b"", b"p" * 8]),
    trace_state=st.text(),
    flags=U32,
    name=st.text(),
    kind=st.integers(0, 5),
    start_time_unix_nano=U64,
    end_time_unix_nano=U64,
    attributes=ATTRIBUTES,
    dropped_links_count=U32,
    events=st.lists(st.builds(Span.Event, time_unix_nano=U64, name=st.text(), attributes=ATTRIBUTES), max_size=2),
    links=st.lists(
        st.builds(Span.Link, trace_id=st.binary(min_size=16, max_size=16), attributes=ATTRIBUTES), max_size=2
    ),
    status=st.builds(Status, message=st.text(), code=st.integers(0, 2)),
)
TRACES = st.builds(
    TracesData,
    resource_spans=st.lists(
        st.builds(
            ResourceSpans,
            resource=st.builds(Resource, attributes=ATTRIBUTES),
            scope_spans=st.lists(
                st.builds(
                    ScopeSpans, scope=st.builds(InstrumentationScope, name=st.text()), spans=st.lists(SPANS, max_size=2)
                ),
                max_size=2,
            ),
            schema_url=st.text(),
        ),
        max_size=2,
    ),
)


def with_hex_ids(value: JsonValue) -> JsonValue:
    """protobuf's own JSON has ids in base64; OTLP's has hex."""
    if isinstance(value, list):
        return [with_hex_ids(item) for item in value]
    if isinstance(value, dict):
        return {
            name: base64.b64decode(item).hex()
            if name in ("traceId", "spanId", "parentSpanId") and isinstance(item, str)
            else with_hex_ids(item)
            for name, item in value.items()
        }
    return value


@given(TRACES)
def test_json_and_protobuf_say_the_same(traces: TracesData) -> None:
    """Whatever can be sent as protobuf can be sent as JSON and arrives as the same bytes (a NaN as the usual one)."""
    text = json.dumps(with_hex_ids(json_format.MessageToDict(traces)))
    again = TracesData.FromString(traces_data_from_json(text.encode()))
    assert again.SerializeToString(deterministic=True) == traces.SerializeToString(deterministic=True)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["resourceSpans", "scopeSpans", "spans", "traceId", "attributes", "value", "kind", "status", "x"]
                ),
                inner,
            )
        ),
    )
)
def test_no_json_crashes_the_reader(value: object) -> None:
    """Any JSON is read or refused."""
    with contextlib.suppress(DecodeError):
        traces_data_from_json(json.dumps(value).encode())
