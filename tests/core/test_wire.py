"""The scanner and the splitter, held against the protobuf library."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.core._pure.wire import scan, split_by_trace, varint
from spanloom.errors import DecodeError
from tests.spans import Sp, span_id, trace_id, traces_data

SPANS = st.builds(
    Sp,
    trace=st.integers(1, 5),
    span=st.integers(1, 9),
    parent=st.integers(0, 9),
    start=st.integers(0, 1000),
    error=st.booleans(),
    kind=st.integers(0, 5),
    name=st.text(max_size=8),
    service=st.sampled_from(["shop", "pay", "ü"]),
)


def test_a_span_is_found_with_all_that_decides_its_trace() -> None:
    """Ids, name, kind, times, error and service come out as they were put in."""
    (span,) = scan(traces_data([Sp(1, 2, parent=3, ms=5, error=True, kind=3, name="get", service="pay")]))
    assert (span.trace_id, span.span_id, span.parent_span_id) == (trace_id(1), span_id(2), span_id(3))
    assert (span.name, span.service, span.kind, span.error) == (b"get", b"pay", 3, True)
    assert span.end_unix_ns - span.start_unix_ns == 5_000_000


@given(st.lists(SPANS, max_size=12))
def test_every_span_is_found_once_and_in_order(spans: list[Sp]) -> None:
    """The scanner finds what the protobuf library finds."""
    parsed = TracesData.FromString(traces_data(spans))
    bodies = [
        span.SerializeToString(deterministic=True)
        for resource in parsed.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert [found.span for found in scan(traces_data(spans))] == bodies


@given(st.lists(SPANS, max_size=12))
def test_splitting_keeps_every_span_with_its_resource_and_scope(spans: list[Sp]) -> None:
    """The parts of a request hold one trace each and, together, every span under the resource it came with."""

    def said(data: bytes) -> list[tuple[bytes, str, str, bytes]]:
        return [
            (span.trace_id, str(resource.resource), str(scope.scope), span.SerializeToString(deterministic=True))
            for resource in TracesData.FromString(data).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    whole = traces_data(spans)
    split = split_by_trace(whole)
    assert sorted(entry for _, part in split.parts for entry in said(part)) == sorted(said(whole))
    assert all({entry[0] for entry in said(part)} == {trace} for trace, part in split.parts)
    assert (split.span_count, split.rejected) == (len(spans), 0)


def test_a_span_with_a_bad_id_is_left_out_of_a_split_and_counted() -> None:
    """One span with a bad id does not cost the request's others; the reason names the fault and the place."""
    data = TracesData.FromString(traces_data([Sp(1, 1), Sp(1, 2), Sp(2, 3)]))
    data.resource_spans[0].scope_spans[0].spans[1].trace_id = b"short"
    split = split_by_trace(data.SerializeToString())
    assert (split.span_count, split.rejected) == (2, 1)
    assert split.reason.startswith("trace_id of the span at byte")


def _mutated(rng: random.Random, data: bytes) -> bytes:
    body = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(body)) if body else 0
        match rng.randrange(4):
            case 0 if body:
                body[at] ^= 1 << rng.randrange(8)
            case 1:
                del body[at:]
            case 2:
                body[at:at] = rng.randbytes(rng.randint(1, 4))
            case _:
                del body[at : at + rng.randint(1, 4)]
    return bytes(body)


@pytest.mark.parametrize("seed", range(50))
def test_damaged_bytes_are_read_or_refused_but_never_crash(seed: int) -> None:
    """Bytes damaged at random end in spans or in a DecodeError whose position lies in the record; nothing else."""
    rng = random.Random(seed)
    whole = traces_data([Sp(1, 1), Sp(2, 2, parent=1, service="pay"), Sp(1, 3, error=True)])
    for _ in range(100):
        data = _mutated(rng, whole)
        try:
            spans = scan(data)
        except DecodeError as exc:
            assert 0 <= exc.position <= len(data), exc  # noqa: PT017 - most of them do not raise
        else:
            assert all(span.span in data for span in spans)


BAD = {
    "truncated length": (b"\x0a\x05ab", "truncated"),
    "oversized length": (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "truncated"),
    "endless varint": (b"\x0a" + b"\xff" * 11, "varint"),
    "group": (b"\x0b\x0c", "wire_type"),
    "wire type 7": (b"\x0f", "wire_type"),
    "field number 0": (b"\x02\x00", "field_number"),
    "resource_spans as a number": (b"\x08\x01", "wire_type"),
    "scope_spans as a number": (b"\x0a\x02\x10\x01", "wire_type"),
    "span without ids": (b"\x0a\x04\x12\x02\x12\x00", "trace_id"),
    "tag cut short": (b"\x8a", "truncated"),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_records_are_refused_with_their_reason(name: str) -> None:
    """Each kind of malformed record has a reason of its own."""
    data, reason = BAD[name]
    with pytest.raises(DecodeError) as caught:
        scan(data)
    assert caught.value.reason == reason


def test_nothing_is_a_record_without_spans() -> None:
    """The empty record, and fields nobody knows, hold no spans and are no error."""
    assert scan(b"") == []
    assert scan(b"\xfa\x01\x03abc" + b"\x0a\x00") == []


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=200)
def test_varints_are_minimal(value: int) -> None:
    """A varint takes as few bytes as can hold its bits."""
    assert len(varint(value)) == max(1, -(-value.bit_length() // 7))
