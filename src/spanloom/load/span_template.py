"""Spans by the hundred thousand: a span is serialised once per operation, then only its ids and times are filled in.

The serialiser is protobuf's own, so the bytes are those a real exporter sends; this module only finds the slots in
them. The invariant: a rendered span parses back to the span the template was made of, but for its slots.
"""

import struct

from opentelemetry.proto.trace.v1.trace_pb2 import Span

_TRACE_ID = b"<trace-id-slot->"
_SPAN_ID = b"<span-id"
_PARENT = b"<parent>"
_START = b"<start->"
_END = b"<-end-->"
_RAISED = b"<raised>"
INSTANCE = "<--instance--->>"  # 16 characters somewhere in an attribute: what differs from span to span
_INSTANCE = INSTANCE.encode()

_SCOPE_SPANS_SPAN = b"\x12"  # field 2, length-delimited


class SpanTemplate:
    """One serialised span with slots for ids, times and one piece of text."""

    __slots__ = ("_pack", "_pieces", "error", "frame", "kind")

    def __init__(self, span: Span) -> None:
        """Fill the slots of *span* (all but its attributes) with marks, serialise it and cut it at them."""
        self.kind = int(span.kind)
        self.error = span.status.code == 2
        marked = Span()
        marked.CopyFrom(span)
        marked.trace_id, marked.span_id = _TRACE_ID, _SPAN_ID
        if span.parent_span_id:
            marked.parent_span_id = _PARENT
        marked.start_time_unix_nano = int.from_bytes(_START, "little")
        marked.end_time_unix_nano = int.from_bytes(_END, "little")
        for event in marked.events:
            event.time_unix_nano = int.from_bytes(_RAISED, "little")
        serialised = marked.SerializeToString()
        self.frame = _SCOPE_SPANS_SPAN + varint(len(serialised))  # goes before the span in its ScopeSpans
        pieces = _cut(serialised, [_TRACE_ID, _SPAN_ID, _PARENT, _START, _END, _INSTANCE, _RAISED])
        self._pieces = pieces
        a, b, c, d, e, f, g, h = (len(piece) for piece in pieces)
        parent_bytes = 8 if span.parent_span_id else 0
        raised_bytes = 8 if span.events else 0
        self._pack = struct.Struct(f"<{a}s16s{b}s8s{c}s{parent_bytes}s{d}sQ{e}sQ{f}s16s{g}s{raised_bytes}s{h}s").pack

    def render(
        self,
        trace_id: bytes,
        span_id: bytes,
        parent_span_id: bytes,
        *,
        start_unix_ns: int,
        end_unix_ns: int,
        instance: bytes,
    ) -> bytes:
        """The span's protobuf bytes. *instance* is 16 ASCII characters; an event happens as the span ends."""
        a, b, c, d, e, f, g, h = self._pieces
        raised = end_unix_ns.to_bytes(8, "little") if self.error else b""
        return self._pack(
            a, trace_id, b, span_id, c, parent_span_id, d, start_unix_ns, e, end_unix_ns, f, instance, g, raised, h
        )


def varint(value: int) -> bytes:
    """Protobuf's base-128 encoding of a non-negative integer, in as few bytes as it takes."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def length_delimited(field: int, body: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(field << 3 | 2) + varint(len(body)) + body


def _cut(serialised: bytes, marks: list[bytes]) -> list[bytes]:
    """The pieces between *marks*, which come in this order; a mark that is not there leaves an empty piece."""
    pieces = []
    rest = serialised
    for mark in marks:
        piece, found, after = rest.partition(mark)
        pieces.append(piece if found else b"")
        rest = after if found else rest
        assert mark not in rest, f"slot {mark!r} twice"
    return [*pieces, rest]
