"""A kept fragment as the document the store keeps: summary fields that can be searched, and the bytes as they are.

Pure: the same fragment makes the same document, whoever builds it and whenever, because a store that already has the
id is taken to have the bytes (design, section 7). Its spans are the fragment's, stamped with the threshold that they
were kept under: here and nowhere else, so that the store and `traces-complete` have the same.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from spanloom.core import kernel
from spanloom.core._pure.stamping import trace_state_of
from spanloom.core.codec.otlp import decode_span
from spanloom.core.kernel import ScannedSpan, scan
from spanloom.core.sampling.threshold import adjusted_count, randomness_of
from spanloom.model import (
    FLAG_CONFLICTING,
    FLAG_ERROR,
    FLAG_LATE,
    FLAG_ORPHANS,
    FLAG_ROOT,
    NO_POLICY,
    THRESHOLD_UNKNOWN,
    AttributeValue,
    Decision,
    Document,
    Fragment,
    Span,
)

NS_PER_S = 1_000_000_000
I64_MAX = (1 << 63) - 1  # SQLite's integers and Elasticsearch's date_nanos and long end here; OTLP's times do not
ATTRIBUTES_MAX = 128  # OpenTelemetry's default limit of attributes a span
ATTRIBUTE_CHARS_MAX = 1024  # Elasticsearch keywords end at 32,766 bytes; nobody searches by a longer exact value
NAMES_MAX = 1000  # services, and operations, of one document: far above real traces, below what an index chokes on
NAME_CHARS_MAX = 256  # of a service or operation in the summary; the span keeps all of it

_FLAGS = {
    "late": FLAG_LATE,
    "root": FLAG_ROOT,
    "error": FLAG_ERROR,
    "conflicting": FLAG_CONFLICTING,
    "orphans": FLAG_ORPHANS,
}


def build_document(fragment: Fragment, *, incarnation: str, partition: int, policy_names: Sequence[str]) -> Document:
    """The document of *fragment*. `policy_names` are those of the decision's policy version, in order.

    Of the spans only the one whose attributes can be searched is decoded; of the others a scan says enough.
    """
    decision = fragment.decision
    spans = scan(fragment.spans)
    root = root_span(spans)
    head = root or earliest_span(spans)
    first = decode_span(head) if head else None
    start_ns, _ = extent(spans)
    trace_id = decision.trace_id.hex()
    return Document(
        id=f"{trace_id}.{incarnation}.{partition}.{decision.first}",
        trace_id=trace_id,
        day=datetime.fromtimestamp(decision.origin_ns // NS_PER_S, UTC).strftime("%Y.%m.%d"),
        root_service=first.service[:NAME_CHARS_MAX] if first else "",
        root_operation=first.name[:NAME_CHARS_MAX] if first else "",
        services=_names(_text_of(service) for service in {span.service for span in spans}),
        operations=_names(
            f"{_text_of(service)[:NAME_CHARS_MAX]}\x1f{_text_of(name)[:NAME_CHARS_MAX]}"
            for service, name in {(span.service, span.name) for span in spans}
        ),
        start_unix_ns=min(start_ns, I64_MAX),
        duration_ns=min(decision.duration_ns, I64_MAX),
        root_duration_ns=min(extent([root])[1], I64_MAX) if root else 0,
        span_count=decision.span_count,
        error_count=sum(span.error for span in spans),
        attributes=_searchable(first) if first else {},
        verdict=verdict_of(decision, policy_names) | {"adjusted_count": _adjusted_count(decision, spans)},
        spans=kernel.stamp(fragment.spans, decision.threshold),
    )


def _adjusted_count(decision: Decision, spans: Sequence[ScannedSpan]) -> float | None:
    """How many traces it stands for, by the lowest probability that it, or one of its spans before, was kept under."""
    if decision.threshold >= THRESHOLD_UNKNOWN:
        return None
    before = (randomness_of(trace_state_of(span.span)).th or 0 for span in spans if b"th:" in span.span)
    return adjusted_count(max(decision.threshold, *before, 0))


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


def verdict_of(decision: Decision, policy_names: Sequence[str]) -> dict[str, AttributeValue]:
    """Everything a decision says but its identities, for people: names for numbers, flags as booleans.

    `adjusted_count` is what the decision alone gives; the spans may have been sampled before.
    """
    exact = decision.threshold < THRESHOLD_UNKNOWN
    verdict: dict[str, AttributeValue] = {
        "verdict": decision.verdict.name.lower(),
        "trigger": decision.trigger.name.lower(),
        "policy": None if decision.policy == NO_POLICY else _policy_name(decision.policy, policy_names),
        "policy_version": decision.policy_version,
        "votes": [
            _policy_name(bit, policy_names)
            for bit in range(len(policy_names) or 64)  # bits above the policies say which inner rates were charged
            if decision.votes >> bit & 1
        ],
        "threshold": f"{decision.threshold:014x}" if exact else None,
        "adjusted_count": adjusted_count(decision.threshold),
        "first": decision.first,
        "cut": decision.cut,
        "stream_ns": decision.stream_ns,
        "origin_ns": decision.origin_ns,
        "operation": f"{decision.operation:016x}",
        "duration_ns": decision.duration_ns,
        "span_count": decision.span_count,
    }
    return verdict | {name: bool(decision.flags & flag) for name, flag in _FLAGS.items()}


def _policy_name(index: int, policy_names: Sequence[str]) -> str:
    """A version this process has never seen may have more policies than it can name."""
    return policy_names[index].lower() if index < len(policy_names) else f"policy {index}"


def _text_of(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _names(names: Iterator[str]) -> tuple[str, ...]:
    """Distinct non-empty names in order, the first NAMES_MAX of them."""
    return tuple(sorted({name for name in names if name})[:NAMES_MAX])


def _searchable(span: Span) -> dict[str, str]:
    """The attributes of *span*, then of its resource, flattened to text; the first ATTRIBUTES_MAX of them."""
    flat: dict[str, str] = {}
    for attributes in (span.attributes, span.resource):
        for key, text in _flatten(attributes, ""):
            if len(flat) < ATTRIBUTES_MAX:
                flat.setdefault(key, text[:ATTRIBUTE_CHARS_MAX])
    return flat


def _flatten(attributes: dict[str, AttributeValue], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in attributes.items():
        name = f"{prefix}{key}"[:NAME_CHARS_MAX]
        if isinstance(value, dict):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, _text(value)


def _text(value: AttributeValue) -> str:
    match value:
        case str():
            return value
        case bytes():
            return value.hex()
        case None:
            return ""
    return json.dumps(value, default=bytes.hex)  # true, 1.5, ["a","b"]
