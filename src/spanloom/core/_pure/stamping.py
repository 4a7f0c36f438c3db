"""Stamps kept spans with the threshold they were sampled under: `th` in the member `ot` of their tracestate.

The specification of the native twin. What need not change stays as it is, byte for byte, so that stamping twice is
stamping once; a span that changes keeps its other fields raw and in order, and its tracestate goes to the end.
"""

from spanloom.core._pure.wire import LENGTH, Field, _check, read_fields, varint
from spanloom.core.sampling.threshold import members_of, with_threshold

TRACE_STATE = 3
TRACE_STATE_TAG = bytes([TRACE_STATE << 3 | LENGTH])
_TO_SPANS = (1, 2, 2)  # TracesData.resource_spans, ResourceSpans.scope_spans, ScopeSpans.spans


def stamp(traces_data: bytes, threshold: int) -> bytes:
    """*traces_data* with each span's tracestate as `with_threshold` says; of THRESHOLD_UNKNOWN, without any `th`.

    Raises DecodeError where its framing is malformed.
    """
    return _stamp_below(traces_data, _TO_SPANS, threshold)


def trace_state_of(span: bytes) -> str:
    """The tracestate of a Span message; what is no UTF-8 in it is replaced, and is then no tracestate."""
    return _trace_state(span, read_fields(span, 0, len(span))).decode("utf-8", "replace")


def _stamp_below(message: bytes, path: tuple[int, ...], threshold: int) -> bytes:
    if not path:
        return _stamp_span(message, threshold)
    parts = []
    for field in read_fields(message, 0, len(message)):
        part = message[field.start : field.stop]
        if field.number == path[0]:
            _check(field, LENGTH)
            before = message[field.value : field.stop]
            after = _stamp_below(before, path[1:], threshold)
            if after != before:
                part = bytes([path[0] << 3 | LENGTH]) + varint(len(after)) + after
        parts.append(part)
    return b"".join(parts)


def _stamp_span(span: bytes, threshold: int) -> bytes:
    fields = read_fields(span, 0, len(span))
    before = _trace_state(span, fields)
    try:
        after = with_threshold(before.decode(), threshold).encode()
    except UnicodeDecodeError:  # no tracestate at all, then
        return span
    return span if after == before else _replaced(span, fields, after)


def _is_trace_state(field: Field) -> bool:
    return field.number == TRACE_STATE and field.wire_type == LENGTH


def _trace_state(span: bytes, fields: list[Field]) -> bytes:
    """The last counts, as everywhere in protobuf."""
    found = b""
    for field in fields:
        if _is_trace_state(field):
            found = span[field.value : field.stop]
    return found


def _replaced(span: bytes, fields: list[Field], trace_state: bytes) -> bytes:
    rest = b"".join(span[field.start : field.stop] for field in fields if not _is_trace_state(field))
    return rest + trace_state_field(trace_state)


def trace_state_field(trace_state: bytes) -> bytes:
    """The field of a Span; nothing where there is nothing to say."""
    return TRACE_STATE_TAG + varint(len(trace_state)) + trace_state if trace_state else b""


def without_stamp(span: bytes, trace_state: str) -> bytes:
    """A Span message as it is whatever `th` was put into its tracestate, which is *trace_state*, and not empty.

    What is compared where a span may have been stamped in more than one way; nobody reads it as a Span.
    """
    whole, rest = trace_state_field(trace_state.encode()), _plain(trace_state).encode()
    if span.endswith(whole):  # as `stamp` leaves it: the rule
        return span[: -len(whole)] + trace_state_field(rest)
    return _replaced(span, read_fields(span, 0, len(span)), rest)


def _plain(trace_state: str) -> str:
    """What it says beside `th`, in one way of writing it."""
    members = members_of(trace_state)
    if members is None:
        return trace_state
    ot = [field for field in members.pop("ot", "").split(";") if field and not field.startswith("th:")]
    rest = [f"{key}={value}" for key, value in members.items()]
    return ",".join([f"ot={';'.join(ot)}", *rest] if ot else rest)
