"""A trace put together from its fragments: what a reader is shown.

Readers may meet a span twice (a fragment read from two places): spans are joined by identity. The status follows
design.md, section 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from spanloom.core.codec.json_text import JsonValue
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.codec.seed_json import json_object, span_to_seed_json
from spanloom.core.timed import extent, root_span
from spanloom.model import AttributeValue, Document, Identity, Span

KEPT, PARTIAL, PENDING, DROPPED = "kept", "partial", "pending", "dropped"


@dataclass(frozen=True, slots=True)
class Trace:
    """All that is stored of one trace, in one piece."""

    trace_id: str
    status: str  # KEPT or PARTIAL
    reasons: tuple[str, ...]  # why it is partial: triggers, `late`, `late_error`
    fragments: tuple[dict[str, AttributeValue], ...]  # verdicts, in order of decision
    spans: tuple[Span, ...]  # in order of (start, span id)
    services: tuple[str, ...]
    missing_parents: tuple[str, ...]  # span ids that spans name as their parent and that are not here
    conflicting: bool  # two spans of one id and kind with different content
    start_unix_ns: int
    duration_ns: int
    root_duration_ns: int | None  # None: no root span is here
    error_count: int


def assemble(documents: Sequence[Document]) -> Trace:
    """The trace *documents* hold: at least one, all of one trace, in any order, repeats allowed."""
    assert documents, "a trace has at least one fragment"
    assert len({document.trace_id for document in documents}) == 1, "one trace at a time"
    distinct = {document.id: document for document in documents}
    ordered = sorted(distinct.values(), key=_decided)
    by_identity = {
        Identity(span.span_id, span.kind, span.content): span
        for document in ordered
        for span in decode_spans(document.spans)
    }
    spans = tuple(sorted(by_identity.values(), key=_placed))
    root = root_span(spans)
    start_ns, duration_ns = extent(spans)
    reasons = _reasons([document.verdict for document in ordered])
    return Trace(
        trace_id=ordered[0].trace_id,
        status=PARTIAL if reasons else KEPT,
        reasons=reasons,
        fragments=tuple(document.verdict for document in ordered),
        spans=spans,
        services=tuple(sorted({span.service for span in spans if span.service})),
        missing_parents=_missing_parents(spans),
        conflicting=len({(span.span_id, span.kind) for span in spans}) < len(spans),
        start_unix_ns=start_ns,
        duration_ns=duration_ns,
        root_duration_ns=extent([root])[1] if root else None,
        error_count=sum(span.error for span in spans),
    )


def _decided(document: Document) -> tuple[int, int, str]:
    return _number(document.verdict, "stream_ns"), _number(document.verdict, "first"), document.id


def _number(verdict: dict[str, AttributeValue], name: str) -> int:
    value = verdict[name]
    assert isinstance(value, int), f"verdict.{name} is a number"
    return value


def _placed(span: Span) -> tuple[int, bytes, int, int]:
    return span.start_unix_ns, span.span_id, span.kind, span.content


def _missing_parents(spans: Sequence[Span]) -> tuple[str, ...]:
    present = {span.span_id for span in spans}
    parents = {span.parent_span_id for span in spans if span.parent_span_id}
    return tuple(sorted(parent.hex() for parent in parents - present))


def _reasons(verdicts: Sequence[dict[str, AttributeValue]]) -> tuple[str, ...]:
    """Why a trace with these fragments is not whole, each reason once. A second fragment is late to its reader."""
    reasons: dict[str, None] = {}  # a set that keeps its order
    for index, verdict in enumerate(verdicts):
        if verdict["verdict"] == "late_error":
            reasons["late_error"] = None
        elif verdict["late"] or index:
            reasons["late"] = None
        if verdict["trigger"] != "complete":
            reasons[str(verdict["trigger"])] = None
    return tuple(reasons)


def trace_json(trace: Trace) -> dict[str, JsonValue]:
    """*trace* in the seed's field names: start_time in µs, durations in ns."""
    return {
        "trace_id": trace.trace_id,
        "status": trace.status,
        "reasons": list(trace.reasons),
        "verdict": json_object(trace.fragments[0]),
        "fragments": [json_object(verdict) for verdict in trace.fragments],
        "conflicting": trace.conflicting,
        "missing_parents": list(trace.missing_parents),
        "span_count": len(trace.spans),
        "error_count": trace.error_count,
        "start_time": trace.start_unix_ns // 1_000,
        "duration": trace.duration_ns,
        "root_duration": trace.root_duration_ns,
        "services": list(trace.services),
        "spans": [span_to_seed_json(span) for span in trace.spans],
    }


def summaries_json(documents: Sequence[Document]) -> list[JsonValue]:
    """The traces *documents* (newest first) belong to, a line each. What other fragments hold is not in it."""
    traces: dict[str, list[Document]] = {}
    for document in documents:
        traces.setdefault(document.trace_id, []).append(document)
    return [_summary(sorted(fragments, key=_decided)) for fragments in traces.values()]


def _summary(fragments: Sequence[Document]) -> dict[str, JsonValue]:
    first = fragments[0]
    services: list[JsonValue] = [*sorted({service for document in fragments for service in document.services})]
    reasons = _reasons([document.verdict for document in fragments])
    return {
        "trace_id": first.trace_id,
        "status": PARTIAL if reasons else KEPT,
        "reasons": list(reasons),
        "verdict": json_object(first.verdict),
        "root_service": first.root_service,
        "root_operation": first.root_operation,
        "services": services,
        "start_time": min(document.start_unix_ns for document in fragments) // 1_000,
        "duration": max(document.duration_ns for document in fragments),
        "span_count": sum(document.span_count for document in fragments),
        "error_count": sum(document.error_count for document in fragments),
    }
