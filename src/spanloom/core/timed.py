"""Where spans begin and end, and which of them is the root; of spans decoded or only scanned."""

from collections.abc import Sequence
from typing import Protocol, TypeVar


class Timed(Protocol):
    """A span, decoded or scanned."""

    @property
    def span_id(self) -> bytes: ...
    @property
    def parent_span_id(self) -> bytes: ...
    @property
    def start_unix_ns(self) -> int: ...
    @property
    def end_unix_ns(self) -> int: ...


TimedSpan = TypeVar("TimedSpan", bound=Timed)


def extent(spans: Sequence[Timed]) -> tuple[int, int]:
    """Where *spans* start, and max end - min start, in ns. A time of 0 is no time; 0 where there is none."""
    start_ns = min((span.start_unix_ns for span in spans if span.start_unix_ns), default=0)
    end_ns = max((span.end_unix_ns for span in spans if span.end_unix_ns), default=0)
    return start_ns, max(end_ns - start_ns, 0) if start_ns else 0


def earliest_span(spans: Sequence[TimedSpan]) -> TimedSpan | None:
    """The least by (start, span id)."""
    return min(spans, key=lambda span: (span.start_unix_ns, span.span_id), default=None)


def root_span(spans: Sequence[TimedSpan]) -> TimedSpan | None:
    """The earliest span without a parent."""
    return earliest_span([span for span in spans if not span.parent_span_id])
