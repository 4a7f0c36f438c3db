"""Head sampling: which of a request's spans go into the log at all. Sans-IO.

Keep a trace iff R >= T: R is `rv` of its spans' tracestate where it has one, else the low 56 bits of its id;
T = (1 - p) x 2^56. So every node agrees without talking, and a lower p keeps a subset. Spans of status ERROR always
pass. What was decided before, here or on another node, goes before what would be decided now, so that a trace whose
p has changed is not torn; but a "no" gives way to an error. What passes carries the threshold it passed. Sources: the
OpenTelemetry specification, "TraceState: Probability Sampling"; OTEP 235.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

from spanloom.core import kernel
from spanloom.core._pure.stamping import trace_state_of
from spanloom.core._pure.wire import Placed, frame, read_traces_data
from spanloom.core.sampling.policies import bend, threshold_of
from spanloom.core.sampling.threshold import randomness_of
from spanloom.model import THRESHOLD_UNKNOWN

RANDOM_BYTES = 7  # R has 56 bits
ALWAYS = 0  # the threshold that everything passes
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
    shed_count: int = 0  # spans left out that would have passed, were it not for the load


class HeadSampler:
    """Keeps the traces of one probability, or under load of a share of it."""

    def __init__(self, probability: float) -> None:
        """*probability* in [0, 1]."""
        self._factor = 1.0
        self._threshold = self._bent = threshold_of(100 * probability)

    def bend(self, factor: float) -> None:
        """From now on keep only that share, in (0, 1], of the traces that would be kept."""
        self._factor = factor
        self._bent = bend(self._threshold, factor)

    @property
    def factor(self) -> float:
        """What `bend` was last told."""
        return self._factor

    @property
    def keeps_all(self) -> bool:
        """Whether everything passes: then there is nothing to sift."""
        return self._bent == 0

    def sift(self, parts: Sequence[tuple[bytes, bytes]], known: Mapping[bytes, bool]) -> Sifted:
        """Take what passes of *parts*, one a trace; *known* are earlier decisions."""
        kept: list[tuple[bytes, bytes]] = []
        decided: dict[bytes, bool] = {}
        span_count = shed_count = 0
        for trace_id, spans in parts:
            sampled, value = known.get(trace_id), randomness(trace_id, spans)
            shed = sampled is None and self._threshold <= value < self._bent
            if sampled is None:
                sampled = decided[trace_id] = value >= self._bent
            if sampled:
                # What only an earlier decision lets in came by a threshold that we do not know.
                threshold = self._bent if value >= self._bent else THRESHOLD_UNKNOWN
                kept.append((trace_id, kernel.stamp(spans, threshold)))
                span_count += _count(spans)
                continue
            errors, error_count = errors_of(spans)
            if error_count:
                kept.append((trace_id, kernel.stamp(errors, ALWAYS)))
                span_count += error_count
                decided[trace_id] = True  # spans that come from now on show what led to the error
            if shed:
                shed_count += _count(spans) - error_count
        return Sifted(kept, span_count, decided, shed_count)


def _count(spans: bytes) -> int:
    """By the splitter, which makes no object a span."""
    return kernel.split_by_trace(spans).span_count


def randomness(trace_id: bytes, spans: bytes) -> int:
    """R of a trace, some of whose spans these are."""
    if b"rv:" in spans:
        for span in kernel.scan(spans):
            rv = randomness_of(trace_state_of(span.span)).rv
            if rv is not None:
                return rv
    return int.from_bytes(trace_id[-RANDOM_BYTES:], "big")


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
    """Whether the bytes of a status code 2 stand anywhere: the tag 18 with 02, or 82 and more; or that tag padded.

    Saves most scans; where it says no, there is none.
    """
    if b"\x18\x02" in spans or b"\x18\x82" in spans:
        return True
    return b"\x98" in spans and (b"\x98\x00" in spans or b"\x98\x80" in spans)  # one byte is looked for much faster


def decision_to_bytes(sampled: bool) -> bytes:  # noqa: FBT001 - it is the value
    """How a cache holds a decision."""
    return _YES if sampled else _NO


def decision_from_bytes(value: bytes | None) -> bool | None:
    """The decision that a cache gave; None for what is none of ours."""
    return {_YES: True, _NO: False}.get(value) if value is not None else None
