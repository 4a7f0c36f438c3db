"""Every encoding, through the one door of those that come as bytes alone."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.codec.otlp import decode_spans
from spanloom.core.codec.transcode import ENCODINGS, transcode
from spanloom.errors import DecodeError
from tests.core.codec.test_jaeger import BARE
from tests.spans import Sp, span_id, trace_id, traces_data

OTLP = traces_data([Sp(1, 1, name="GET /")])
OTLP_JSON = {"traceId": trace_id(1).hex(), "spanId": span_id(1).hex(), "name": "GET /"}
SEED = {
    "trace_id": "abc",
    "span_id": "1",
    "service_name": "shop",
    "operation_name": "GET /",
    "start_time": 1,
    "duration": 1,
}
VALUES = {
    "otlp_proto": OTLP,
    "otlp_json": json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [OTLP_JSON]}]}]}).encode(),
    "jaeger_proto": BARE,
    "jaeger_json": b'{"traceId": "AAAAAAAAAAAAAAAAAAAAEQ==", "spanId": "AAAAAAAAAAM=", "operationName": "GET /"}',
    "zipkin_json": json.dumps([{"traceId": "1", "id": "1", "name": "GET /"}]).encode(),
    "seed_json": json.dumps(SEED).encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_becomes_otlp(encoding: str) -> None:
    """One span of each comes out as one span."""
    transcoded = transcode(encoding, VALUES[encoding])
    (span,) = decode_spans(transcoded.traces_data)
    assert (span.name, transcoded.rejected, transcoded.reason) == ("GET /", 0, "")


def test_otlp_is_not_touched() -> None:
    """The hot encoding passes as it is."""
    assert transcode("otlp_proto", OTLP).traces_data is OTLP


def test_an_unknown_encoding_is_named() -> None:
    """With those there are."""
    with pytest.raises(DecodeError, match=r"expected one of otlp_proto, .*, found zipkin_thrift"):
        transcode("zipkin_thrift", b"")


@given(st.sampled_from(ENCODINGS), st.data())
def test_no_damage_crashes_a_transcoder(encoding: str, data: st.DataObject) -> None:
    """A value with a stretch replaced is transcoded or refused."""
    value = VALUES[encoding]
    start = data.draw(st.integers(0, len(value)))
    stop = data.draw(st.integers(start, len(value)))
    try:
        transcode(encoding, value[:start] + data.draw(st.binary(max_size=8)) + value[stop:])
    except DecodeError:
        return
