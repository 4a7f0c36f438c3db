"""Zipkin's v2 JSON spans."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.codec.json_text import JsonValue
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.codec.zipkin_json import traces_data_from_zipkin
from spanloom.errors import DecodeError
from spanloom.model import Span, SpanKind

EXAMPLE: dict[str, JsonValue] = {  # every field of Zipkin's own description, values of ours
    "id": "352bff9a74ca9ad2",
    "traceId": "5af7183fb1d4cf5f",
    "parentId": "6b221d5bc9e6496c",
    "name": "get /api",
    "timestamp": 1556604172355737,
    "duration": 1431,
    "kind": "SERVER",
    "localEndpoint": {"serviceName": "backend", "ipv4": "192.0.2.1", "port": 3306},
    "remoteEndpoint": {"serviceName": "frontend", "ipv6": "2001:db8::1", "port": 58648},
    "annotations": [{"timestamp": 1556604172355800, "value": "cache miss"}],
    "tags": {"http.method": "GET", "http.path": "/api"},
}


def zipkin(**fields: JsonValue) -> dict[str, JsonValue]:
    return {**EXAMPLE, **fields}


def one(value: JsonValue) -> Span:
    (span,) = decode_spans(traces_data_from_zipkin(json.dumps([value]).encode()).traces_data)
    return span


def test_every_field_arrives() -> None:
    """Ids padded, times in ns, endpoints as resource and attributes, annotations as events."""
    span = one(EXAMPLE)
    assert span.trace_id.hex() == "00000000000000005af7183fb1d4cf5f"
    assert (span.span_id.hex(), span.parent_span_id.hex()) == ("352bff9a74ca9ad2", "6b221d5bc9e6496c")
    assert (span.service, span.name, span.kind, span.error) == ("backend", "get /api", SpanKind.SERVER, False)
    assert span.start_unix_ns == 1556604172355737000
    assert span.end_unix_ns - span.start_unix_ns == 1_431_000
    assert span.attributes == {
        "http.method": "GET",
        "http.path": "/api",
        "network.local.address": "192.0.2.1",
        "network.local.port": 3306,
        "network.peer.address": "2001:db8::1",
        "network.peer.port": 58648,
        "peer.service": "frontend",
    }
    assert span.events == ({"name": "cache miss", "time_unix_ns": 1556604172355800000, "attributes": {}},)


def test_a_trace_id_of_128_bits_is_kept_whole() -> None:
    """32 hex digits are 16 bytes."""
    assert one(zipkin(traceId="463ac35c9f6413ad48485a3953bb6124")).trace_id.hex() == "463ac35c9f6413ad48485a3953bb6124"


@pytest.mark.parametrize("kind", ["CLIENT", "SERVER", "PRODUCER", "CONSUMER"])
def test_kinds_are_opentelemetry_s(kind: str) -> None:
    """The four kinds have the same names; a span without one has none."""
    assert one(zipkin(kind=kind)).kind == SpanKind[kind]
    assert one({"traceId": "1", "id": "1"}).kind == SpanKind.UNSPECIFIED


def test_a_shared_span_is_a_span_of_its_own() -> None:
    """Client and server half under one id differ by kind, and the server's says that it is shared."""
    body = [zipkin(kind="CLIENT"), zipkin(kind="SERVER", shared=True, localEndpoint={"serviceName": "db"})]
    client, server = decode_spans(traces_data_from_zipkin(json.dumps(body).encode()).traces_data)
    assert client.span_id == server.span_id
    assert (client.kind, server.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert (client.service, server.service) == ("backend", "db")
    assert server.attributes["zipkin.shared"] is True
    assert "zipkin.shared" not in client.attributes


@pytest.mark.parametrize(
    ("tags", "error", "message"),
    [
        ({}, False, ""),
        ({"error": "true"}, True, ""),
        ({"error": ""}, True, ""),
        ({"error": "timeout"}, True, "timeout"),
        ({"error": "false"}, False, ""),
        ({"otel.status_code": "ERROR", "otel.status_description": "declined"}, True, "declined"),
        ({"otel.status_code": "OK"}, False, ""),
    ],
)
def test_an_error_tag_is_status_error(tags: dict[str, JsonValue], error: bool, message: str) -> None:
    """Its value is the status message, unless it is only a word for yes."""
    span = one(zipkin(tags=tags))
    assert (span.error, span.status_message, span.attributes.get("error")) == (error, message, None)


def test_a_span_without_a_timestamp_starts_with_its_first_annotation() -> None:
    """Zipkin allows a half-reported span to have none."""
    assert one({"traceId": "1", "id": "2", "annotations": [{"timestamp": 7, "value": "x"}]}).start_unix_ns == 7000
    assert one({"traceId": "1", "id": "2"}).start_unix_ns == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"traceId": None},
        {"traceId": ""},
        {"id": 7},
        {"kind": "client"},
        {"timestamp": -1},
        {"timestamp": 1 << 64},
        {"timestamp": float("nan")},
        {"duration": True},
        {"tags": []},
        {"tags": {"a": 1}},
        {"annotations": [{"timestamp": 1}]},
        {"annotations": {}},
        {"localEndpoint": "backend"},
        {"localEndpoint": {"port": 70000}},
        {"name": 3},
    ],
)
def test_a_field_that_is_no_zipkin_is_named(fields: dict[str, JsonValue]) -> None:
    """The error says where, and the other spans are taken."""
    bad = zipkin(**fields)
    with pytest.raises(DecodeError):
        one(bad)
    batch = traces_data_from_zipkin(json.dumps([EXAMPLE, bad, EXAMPLE]).encode())
    assert (len(decode_spans(batch.traces_data)), batch.rejected) == (2, 1)
    assert batch.reason


@pytest.mark.parametrize("text", [b"", b"{}", b"7", b"[7]", b"[", b"\xff", b"[" * 100_000])
def test_what_is_no_array_of_spans_is_refused(text: bytes) -> None:
    """Nothing of it is taken."""
    with pytest.raises(DecodeError):
        traces_data_from_zipkin(text)


def test_an_empty_array_is_no_span_and_no_error() -> None:
    """Reporters send one to see whether we are there."""
    assert traces_data_from_zipkin(b"[]") == (b"", 0, "")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(fields=st.dictionaries(st.sampled_from([*EXAMPLE, "shared"]), VALUES, max_size=4))
def test_no_span_crashes_the_reader(fields: dict[str, JsonValue]) -> None:
    """Whatever stands in a field, the span is read or refused."""
    try:
        one(zipkin(**fields))
    except DecodeError:
        return
