"""OTLP protobuf bytes to Span objects, for queries; the hot path never comes here.

The kernel's scan finds each span's bytes, ids and times; protobuf's own decoder reads the rest. A span or resource it
cannot read (a string that is no UTF-8, nesting beyond its limit) becomes a Span that says so: what reached the store
is shown, whatever it is.
"""

import xxhash
from google.protobuf.message import DecodeError as ProtobufError
from opentelemetry.proto.trace.v1 import trace_pb2

from spanloom.core._pure.stamping import without_stamp
from spanloom.core.codec.attributes import attributes_of, resource_attributes
from spanloom.core.kernel import ScannedSpan, scan
from spanloom.model import AttributeValue, Span


def decode_spans(traces_data: bytes) -> list[Span]:
    """Every span of a TracesData, in order. Raises DecodeError only where the scan does: the record is no OTLP."""
    resources: dict[bytes, dict[str, AttributeValue]] = {}
    spans = []
    for scanned in scan(traces_data):
        if scanned.resource not in resources:
            resources[scanned.resource] = resource_attributes(scanned.resource)
        spans.append(_decode_span(scanned, resources[scanned.resource]))
    return spans


def _decode_span(scanned: ScannedSpan, resource: dict[str, AttributeValue]) -> Span:
    body, undecodable = trace_pb2.Span(), ""
    try:
        body.ParseFromString(scanned.span)
    except ProtobufError as exc:
        body, undecodable = trace_pb2.Span(), str(exc)
    return Span(
        trace_id=scanned.trace_id,
        span_id=scanned.span_id,
        parent_span_id=scanned.parent_span_id,
        service=scanned.service.decode("utf-8", "replace"),
        name=scanned.name.decode("utf-8", "replace"),
        kind=scanned.kind,
        start_unix_ns=scanned.start_unix_ns,
        end_unix_ns=scanned.end_unix_ns,
        error=scanned.error,
        attributes=attributes_of(body.attributes),
        resource=resource,
        status_message=body.status.message,
        events=tuple(_event(event) for event in body.events),
        content=_content(scanned.span, body.trace_state),
        undecodable=undecodable,
        trace_state=body.trace_state,
    )


def _content(span: bytes, trace_state: str) -> int:
    """A span that was kept twice, in two lives of its trace, is one span to a reader, stamped differently or not."""
    return xxhash.xxh64_intdigest(without_stamp(span, trace_state) if trace_state else span)


def _event(event: trace_pb2.Span.Event) -> dict[str, AttributeValue]:
    return {"name": event.name, "time_unix_ns": event.time_unix_nano, "attributes": attributes_of(event.attributes)}
