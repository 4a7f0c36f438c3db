"""Head sampling: which of a request's spans go into the log at all. Sans-IO.

Keep a trace iff R >= T: R is `rv` of its spans' tracestate where it has one, else the low 56 bits of its id;
T = (1 - p) x 2^56. So every node agrees without talking, and a lower p keeps a subset. Spans of status ERROR always
pass. What was decided before, here or on another node, goes before what would be decided now, so that a trace whose
p has changed is not torn; but a "no" gives way to an error. Sources: the OpenTelemetry specification, "TraceState:
Probability Sampling"; OTEP 235.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from google.protobuf.message import DecodeError as ProtobufError
from opentelemetry.proto.trace.v1 import trace_pb2

from spanloom.core import kernel
from spanloom.core._pure.wire import Placed, frame, read_traces_data

RANDOM_BYTES = 7  # R has 56 bits
RANDOMNESS_END = 1 << (8 * RANDOM_BYTES)

# `rv` in the value of tracestate's member `ot`: fields are parted by `;`, members by `,`.
_RV = re.compile(r"(?:^|,)[ \t]*ot=(?:[^,]*;)?rv:([0-9a-f]{14})(?=[;, \t]|$)")
_YES, _NO = b"1", b"0"


class SamplingMode(StrEnum):
    """Who discards: the collector, or the aggregator. In `hybrid` the head decision is a policy of the aggregator's."""

    HEAD = "head"
    TAIL = "tail"
    HYBRID = "hybrid"


class Sifted(NamedTuple):
    """What is left of a request."""

    parts: list[tuple[bytes, bytes]]  # trace id, TracesData
    span_count: int  # in the parts
    decided: dict[bytes, bool]  # what was not known before, by trace id


class HeadSampler:
    """Keeps the traces of one probability."""

    def __init__(self, probability: float) -> None:
        """*probability* in [0, 1]."""
        self._threshold = round((1 - probability) * RANDOMNESS_END)

    def sift(self, parts: Sequence[tuple[bytes, bytes]], known: Mapping[bytes, bool]) -> Sifted:
        """Take what passes of *parts*, one a trace; *known* are earlier decisions."""
        kept: list[tuple[bytes, bytes]] = []
        decided: dict[bytes, bool] = {}
        span_count = 0
        for trace_id, spans in parts:
            sampled = known.get(trace_id)
            if sampled is None:
                sampled = decided[trace_id] = randomness(trace_id, spans) >= self._threshold
            if sampled:
                kept.append((trace_id, spans))
                span_count += len(kernel.scan(spans))
                continue
            errors, error_count = errors_of(spans)
            if error_count:
                kept.append((trace_id, errors))
                span_count += error_count
                decided[trace_id] = True  # spans that come from now on show what led to the error
        return Sifted(kept, span_count, decided)


def randomness(trace_id: bytes, spans: bytes) -> int:
    """R of a trace, some of whose spans these are."""
    if b"rv:" in spans:
        for span in kernel.scan(spans):
            match = _RV.search(_trace_state(span.span))
            if match:
                return int(match[1], 16)
    return int.from_bytes(trace_id[-RANDOM_BYTES:], "big")


def _trace_state(span: bytes) -> str:
    """Empty if the span's body cannot be read: that is for whoever shows it to say."""
    try:
        return trace_pb2.Span.FromString(span).trace_state
    except ProtobufError:
        return ""


def errors_of(spans: bytes) -> tuple[bytes, int]:
    """TracesData of just the spans of status ERROR, and how many."""
    if not _may_hold_error(spans) or not any(span.error for span in kernel.scan(spans)):
        return b"", 0
    resources = read_traces_data(spans)
    errors = [
        Placed(r, s, span.span)
        for r, resource in enumerate(resources)
        for s, scope in enumerate(resource.scopes)
        for span in scope.spans
        if span.error
    ]
    return frame(resources, errors), len(errors)


def _may_hold_error(spans: bytes) -> bool:
    """Whether the bytes of a status code 2 stand anywhere: its tag is 18 or begins with 98, its value 02 or with 82.

    Saves most scans; where it says no, there is none.
    """
    return b"\x18\x02" in spans or b"\x18\x82" in spans or b"\x98" in spans


def decision_to_bytes(sampled: bool) -> bytes:  # noqa: FBT001 - it is the value
    """How a cache holds a decision."""
    return _YES if sampled else _NO


def decision_from_bytes(value: bytes | None) -> bool | None:
    """The decision that a cache gave; None for what is none of ours."""
    return {_YES: True, _NO: False}.get(value) if value is not None else None
