"""Spans of one fragment while they come together: an open trace, or a decided one that is rebuilt in replay."""

from dataclasses import dataclass, field

from spanloom.core._pure import hashes
from spanloom.core._pure.sampler import Features
from spanloom.core._pure.wire import Placed, Resource, ScannedSpan, frame
from spanloom.core.offsets import Line
from spanloom.model import (
    FLAG_CONFLICTING,
    FLAG_ERROR,
    FLAG_LATE,
    FLAG_ORPHANS,
    FLAG_ROOT,
    Decision,
    Identity,
)

OPERATION_SEPARATOR = b"\x1f"


@dataclass(slots=True)
class Gathering:
    """The spans so far. `order` is that of creation; times are stream time in ns."""

    trace_id: bytes
    order: int
    first: int
    cut: int
    inherited: Decision | None  # of a late fragment: the decision it follows
    born_ns: int = 0
    last_ns: int = 0
    due_ns: int = 0  # when it is looked at next
    identities: list[Identity] = field(default_factory=list)
    contents: dict[tuple[bytes, int], list[int]] = field(default_factory=dict)  # span id, kind -> content hashes
    spans: list[ScannedSpan] = field(default_factory=list)  # without their bytes
    lines: list[Line] = field(default_factory=list)  # one a span
    placed: list[Placed] = field(default_factory=list)  # of the record being read
    chunks: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    conflicting: bool = False

    def holds(self, identity: Identity) -> bool:
        """Whether the very same span is in it."""
        return identity.content in self.contents.get((identity.span_id, identity.kind), ())

    def add(self, span: ScannedSpan, identity: Identity, placed: Placed, line: Line) -> bool:
        """Take a span in. True if it conflicts with one already there: same id and kind, other content."""
        namesakes = self.contents.setdefault((identity.span_id, identity.kind), [])
        conflicts = bool(namesakes)
        namesakes.append(identity.content)
        self.identities.append(identity)
        self.spans.append(span._replace(span=b"", resource=b""))
        self.lines.append(line)
        self.placed.append(placed)
        self.size_bytes += len(span.span)
        self.cut = line.offset
        self.conflicting |= conflicts
        return conflicts

    def seal(self, resources: list[Resource]) -> None:
        """Its record is read to the end: frame what came with it."""
        if self.placed:
            self.chunks.append(frame(resources, self.placed))
            self.placed = []

    def is_complete(self) -> bool:
        """It has a root and every parent."""
        return any(not span.parent_span_id for span in self.spans) and not self.has_orphans()

    def has_orphans(self) -> bool:
        """Some span's parent is not in it."""
        ids = {span.span_id for span in self.spans}
        return any(span.parent_span_id and span.parent_span_id not in ids for span in self.spans)

    def features(self, stream_ns: int) -> Features:
        """What policies judge it by; the same whatever the order of its spans."""
        starts = [span.start_unix_ns for span in self.spans if span.start_unix_ns]
        ends = [span.end_unix_ns for span in self.spans if span.end_unix_ns]
        duration = max(0, max(ends) - min(starts)) if starts and ends else 0
        candidates = [span for span in self.spans if not span.parent_span_id] or self.spans
        head = min(candidates, key=lambda span: (span.start_unix_ns, span.span_id, span.kind, span.service, span.name))
        return Features(
            trace_id=self.trace_id,
            duration_ns=duration,
            operation=hashes.content_hash(head.service + OPERATION_SEPARATOR + head.name),
            span_count=len(self.spans),
            size_bytes=sum(map(len, self.chunks)),
            stream_ns=stream_ns,
        )

    def flags(self) -> int:
        """FLAG_* of model.py."""
        return (
            (FLAG_LATE if self.inherited else 0)
            | (FLAG_ROOT if any(not span.parent_span_id for span in self.spans) else 0)
            | (FLAG_ERROR if any(span.error for span in self.spans) else 0)
            | (FLAG_CONFLICTING if self.conflicting else 0)
            | (FLAG_ORPHANS if self.has_orphans() else 0)
        )
