"""Spans stamped with the threshold that they were kept under."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.core import kernel
from spanloom.core.codec.otlp import decode_spans
from spanloom.errors import DecodeError
from spanloom.model import THRESHOLD_UNKNOWN
from tests.spans import Sp, traces_data

HALF = 1 << 55
SPANS = [Sp(1, 1, service="shop"), Sp(1, 2, parent=1, service="pay"), Sp(1, 3, parent=1, service="pay")]


def with_states(*states: str) -> bytes:
    """One trace whose spans carry these tracestates, in order."""
    data = TracesData.FromString(traces_data(SPANS[: len(states)]))
    spans = (span for resource in data.resource_spans for scope in resource.scope_spans for span in scope.spans)
    for span, state in zip(spans, states, strict=True):
        span.trace_state = state
    return data.SerializeToString()


def states(traces_data: bytes) -> list[str]:
    return [span.trace_state for span in decode_spans(traces_data)]


def test_every_span_says_the_threshold_it_was_kept_under() -> None:
    """`th` stands in `ot`, beside what others put there."""
    before = with_states("", "vendor=x", "ot=rv:00000000000001;xy:1,vendor=x")
    assert states(kernel.stamp(before, HALF)) == [
        "ot=th:8",
        "ot=th:8,vendor=x",
        "ot=rv:00000000000001;xy:1;th:8,vendor=x",
    ]


def test_who_sampled_more_strictly_before_stands() -> None:
    """Of an upstream threshold and ours the higher one is in force."""
    assert states(kernel.stamp(with_states("ot=th:c", "ot=th:4"), HALF)) == ["ot=th:c", "ot=th:8"]


def test_an_unknown_threshold_leaves_none() -> None:
    """A `th` that no longer holds is taken out: nobody must count by it."""
    before = with_states("ot=th:c", "ot=rv:00000000000001;th:4,vendor=x", "")
    assert states(kernel.stamp(before, THRESHOLD_UNKNOWN)) == ["", "ot=rv:00000000000001,vendor=x", ""]


def test_what_need_not_change_keeps_its_bytes() -> None:
    """A tracestate that says it already, or that is none, is left as it is."""
    whole = with_states("ot=th:8", "no tracestate,,=", "ot=th:c")
    assert kernel.stamp(whole, HALF) == whole
    with pytest.raises(DecodeError):
        kernel.stamp(b"\x0a\xff", HALF)
    assert kernel.stamp(b"", HALF) == b""


def test_other_fields_keep_their_bytes_and_order() -> None:
    """Only the tracestate moves, to the end; a field nobody knows and a repeated one survive."""
    first, state, rest = b"\x0a\x02ab", b"\x1a\x03a=1", b"\xfa\x3f\x01z\x0a\x02cd"
    span = first + state + rest
    message = b"\x0a" + bytes([len(span) + 4]) + b"\x12" + bytes([len(span) + 2]) + b"\x12" + bytes([len(span)]) + span
    stamped_span = first + rest + b"\x1a\x0bot=th:8,a=1"
    assert kernel.stamp(message, HALF).endswith(bytes([0x12, len(stamped_span)]) + stamped_span)


PIECES = ("ot=", "th:", "rv:00000000000001", ";", ",", "8", "c0", " ", "vendor=x", "x:1", "\t", "käse", "=")


@given(st.lists(st.sampled_from(PIECES), max_size=12), st.sampled_from([0, 1, HALF, (1 << 56) - 1, THRESHOLD_UNKNOWN]))
def test_stamping_twice_is_stamping_once(pieces: list[str], threshold: int) -> None:
    """A stamped fragment stamped again is the same bytes: a replay writes what was written."""
    once = kernel.stamp(with_states("".join(pieces)), threshold)
    assert kernel.stamp(once, threshold) == once


@pytest.mark.parametrize("state", ["", "vendor=x, other=y", "x=1,ot=th:4", "ot=th:4", "ot=rv:00000000000001;th:4,v=x"])
def test_a_span_is_the_same_to_readers_however_it_was_stamped(state: str) -> None:
    """Kept in two lives of its trace under two thresholds, a span is still one."""
    sent = with_states(state)
    stored = [kernel.stamp(sent, threshold) for threshold in (0, HALF, (1 << 56) - 1, THRESHOLD_UNKNOWN)]
    assert len({decode_spans(data)[0].content for data in (sent, *stored)}) == 1
    assert decode_spans(sent)[0].content != decode_spans(with_states(f"{state},other=1".lstrip(",")))[0].content
