"""The seed's JSON spans, in and out."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.codec.ids import span_id_from_text
from spanloom.core.codec.json_text import JsonValue
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.codec.seed_json import span_to_seed_json, traces_data_from_seed
from spanloom.errors import DecodeError
from spanloom.model import Span

SEED: dict[str, JsonValue] = {  # as the seed document shows it
    "trace_id": "abc123",
    "span_id": "span001",
    "service_name": "order-service",
    "operation_name": "getOrder",
    "start_time": 1705312245000000,
    "duration": 350000000,
    "tags": {"http.status": 200},
}


def seed(**fields: JsonValue) -> dict[str, JsonValue]:
    return {**SEED, **fields}


def one(value: JsonValue) -> Span:
    (span,) = decode_spans(traces_data_from_seed(json.dumps(value).encode()).traces_data)
    return span


def test_the_seed_documents_own_span_is_read() -> None:
    """The example the product was asked for with arrives as a span."""
    span = one(SEED)
    assert span.trace_id.hex() == "00000000000000000000000000abc123"
    assert span.span_id == span_id_from_text("span001")
    assert span.parent_span_id == b""
    assert (span.service, span.name, span.kind, span.error) == ("order-service", "getOrder", 0, False)
    assert span.start_unix_ns == 1705312245000000000
    assert span.end_unix_ns - span.start_unix_ns == 350_000_000
    assert span.attributes == {"http.status": 200}


@pytest.mark.parametrize(("unit", "duration"), [("ns", 2_500_000), ("us", 2500), ("ms", 2.5), ("s", 0.0025)])
def test_a_duration_has_the_unit_it_names(unit: str, duration: float) -> None:
    """`duration_unit` says what `duration` counts."""
    span = one(seed(duration=duration, duration_unit=unit))
    assert span.end_unix_ns - span.start_unix_ns == 2_500_000


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({}, False),
        ({"error": True}, True),
        ({"error": False, "tags": {"error": True}}, False),
        ({"tags": {"error": True}}, True),
        ({"tags": {"error": "true"}}, True),
        ({"tags": {"error": "no"}}, False),
    ],
)
def test_an_error_is_a_field_or_a_tag(fields: dict[str, JsonValue], error: bool) -> None:
    """`error` decides; without it the tag that OpenTracing programs set does."""
    assert one(seed(**fields)).error is error


@pytest.mark.parametrize(("kind", "expected"), [("server", 2), ("CLIENT", 3), (5, 5), (None, 0)])
def test_a_kind_is_a_name_or_a_number(kind: JsonValue, expected: int) -> None:
    """OTLP's kinds, by either."""
    assert one(seed(kind=kind)).kind == expected


def test_tags_of_every_type_survive() -> None:
    """Text, numbers, booleans, nothing, lists and objects come back; an integer too large becomes text."""
    tags: dict[str, JsonValue] = {
        "s": "é",
        "i": -3,
        "f": 1.5,
        "b": True,
        "n": None,
        "l": [1, "two", [3]],
        "o": {"a": {"b": 1}},
        "big": 1 << 70,
        "lone \ud800": "\ud800",
    }
    expected = {key: value for key, value in tags.items() if not key.startswith("lone")}
    assert one(seed(tags=tags)).attributes == {**expected, "big": str(1 << 70), "lone ?": "?"}


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\n\n"])
def test_spans_come_alone_in_an_array_or_one_a_line(separator: str) -> None:
    """All three shapes of a body hold the same spans."""
    spans: list[JsonValue] = [seed(span_id="1"), seed(span_id="2", service_name="cart"), seed(span_id="3")]
    array = traces_data_from_seed(json.dumps(spans).encode())
    lines = traces_data_from_seed(separator.join(json.dumps(span) for span in spans).encode())
    assert array == lines
    assert (len(decode_spans(array.traces_data)), array.rejected) == (3, 0)
    assert [span.service for span in decode_spans(array.traces_data)] == ["order-service", "order-service", "cart"]


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"trace_id": ""}, "expected text at $.trace_id"),
        ({"trace_id": 7}, "expected text at $.trace_id, found 7"),
        ({"trace_id": "x" * 300}, "trace_id: expected 1 to 256 characters, found 300"),
        ({"span_id": None}, "$.span_id"),
        ({"service_name": ""}, "$.service_name"),
        ({"operation_name": ["x"]}, "expected text at $.operation_name, found an array"),
        ({"start_time": "now"}, "expected a number, not negative at $.start_time"),
        ({"start_time": -1}, "$.start_time, found -1"),
        ({"start_time": True}, "$.start_time"),
        ({"start_time": 1705312245000000000}, "before the year 2554"),  # ns where µs belong
        ({"start_time": math.inf}, "$.start_time"),
        ({"duration": -1}, "$.duration, found -1"),
        ({"duration": math.nan}, "$.duration, found NaN"),
        ({"duration": None}, "$.duration, found null"),
        ({"duration_unit": "h"}, 'expected ns, us, ms, s at $.duration_unit, found "h"'),
        ({"tags": []}, "expected an object at $.tags"),
        ({"error": "yes"}, "expected true or false at $.error"),
        ({"kind": "friendly"}, "$.kind"),
        ({"kind": 9}, "$.kind, found 9"),
        ({"parent_span_id": 5}, "$.parent_span_id, found 5"),
    ],
)
def test_a_bad_span_is_refused_by_path(fields: dict[str, JsonValue], complaint: str) -> None:
    """The error says which field is wrong and what it holds."""
    with pytest.raises(DecodeError) as caught:
        traces_data_from_seed(json.dumps(seed(**fields)).encode())
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    "text", [b"", b"\xff", b"{", b'"span"', b"7", b"[7]", b"[[]]", b"{}", b"no\njson", b"[" * 100_000]
)
def test_a_body_without_a_span_is_refused(text: bytes) -> None:
    """What holds no span at all is an error of the request."""
    with pytest.raises(DecodeError):
        traces_data_from_seed(text)


def test_an_empty_array_is_no_span_and_no_error() -> None:
    """A batch of none is accepted."""
    batch = traces_data_from_seed(b"[]")
    assert (batch.traces_data, batch.rejected) == (b"", 0)


def test_a_bad_span_does_not_take_the_others_with_it() -> None:
    """The good spans of a batch go in; the bad ones are counted and the first fault is named."""
    lines = [json.dumps(seed(span_id="1")), "{cut", json.dumps(seed(span_id="")), json.dumps(seed(span_id="2"))]
    batch = traces_data_from_seed("\n".join(lines).encode())
    assert (len(decode_spans(batch.traces_data)), batch.rejected) == (2, 2)
    assert "on line 2" in batch.reason
    assert len(decode_spans(batch.traces_data)) == 2


def test_tags_nested_too_deep_are_refused() -> None:
    """Nesting is bounded to what can be read again."""
    value: JsonValue = 1
    for _ in range(15):
        value = {"k": value}
    assert one(seed(tags={"deep": value})).undecodable == ""
    with pytest.raises(DecodeError, match="levels"):
        one(seed(tags={"deep": {"k": {"k": value}}}))


def test_a_span_goes_out_in_the_seeds_names() -> None:
    """A span is shown with the fields it came with, durations in ns, bytes and NaN spelt out."""
    span = Span(
        trace_id=b"t" * 16,
        span_id=b"s" * 8,
        parent_span_id=b"p" * 8,
        service="shop",
        name="op",
        kind=3,
        start_unix_ns=1_000_500,
        end_unix_ns=2_000_500,
        error=True,
        attributes={"bytes": b"\xff", "nan": math.nan, "inf": [-math.inf], "o": {"b": b""}, "none": None},
        resource={"service.name": "shop"},
        status_message="no",
        events=({"name": "e", "time_unix_ns": 1, "attributes": {}},),
        undecodable="why",
    )
    seen = span_to_seed_json(span)
    assert seen == {
        "trace_id": "74" * 16,
        "span_id": "73" * 8,
        "parent_span_id": "70" * 8,
        "service_name": "shop",
        "operation_name": "op",
        "start_time": 1000,
        "duration": 1_000_000,
        "tags": {"bytes": "/w==", "nan": "NaN", "inf": ["-Infinity"], "o": {"b": ""}, "none": None},
        "error": True,
        "kind": "client",
        "status": "error",
        "resource": {"service.name": "shop"},
        "status_message": "no",
        "events": [{"name": "e", "time_unix_ns": 1, "attributes": {}}],
        "undecodable": "why",
    }
    json.dumps(seen, allow_nan=False)


@pytest.mark.parametrize(("start", "end"), [(0, 5), (5, 0), (7, 5), ((1 << 64) - 1, 1)])
def test_a_duration_is_never_negative(start: int, end: int) -> None:
    """Absurd times give a duration of 0."""
    span = Span(b"t" * 16, b"s" * 8, b"", "shop", "op", 77, start, end, error=False)
    assert span_to_seed_json(span)["duration"] == 0
    assert span_to_seed_json(span)["kind"] == "77"


@given(
    trace_id=st.text(min_size=1, max_size=40),
    name=st.text(min_size=1),
    start=st.integers(1, 1 << 53),
    duration=st.integers(0, 1 << 53),
    error=st.booleans(),
)
def test_what_goes_out_can_come_in_again(trace_id: str, name: str, start: int, duration: int, error: bool) -> None:
    """A span shown in the seed's names, posted back, is the same span."""
    first = one(seed(trace_id=trace_id, operation_name=name, start_time=start, duration=duration, error=error))
    again = one(span_to_seed_json(first))
    assert again == first
