"""What keeping a span adds to it: `th` in the member `ot` of its tracestate. Imports nothing of spanloom."""

from collections.abc import Callable, Iterator

from tests.oracle_files import _fields, _fields_raw, frame

TRACE_STATE = 3
UNKNOWN = 1 << 56  # a threshold that is not known


def unstamped(traces_data: bytes) -> bytes:
    """Each span without any `th`, and with its tracestate at the end: what stamping leaves alone."""
    return _each_span(traces_data, _without_threshold)


def stamp_differences(sent: bytes, stored: bytes, threshold: int) -> Iterator[str]:
    """In what the stored spans' tracestates differ from what is due, as far as the sent spans had none."""
    due = "" if threshold >= UNKNOWN else "ot=th:" + (f"{threshold:014x}".rstrip("0") or "0")
    for number, (before, after) in enumerate(zip(_trace_states(sent), _trace_states(stored), strict=True)):
        if not before and after != due:
            yield f"span {number} has tracestate {after!r}, expected {due!r}"


def _trace_states(traces_data: bytes) -> list[str]:
    found: list[str] = []

    def note(span: bytes) -> bytes:
        found.append(_trace_state(span))
        return span

    _each_span(traces_data, note)
    return found


def _each_span(message: bytes, change: Callable[[bytes], bytes], path: tuple[int, ...] = (1, 2, 2)) -> bytes:
    if not path:
        return change(message)
    out = b""
    for number, wire_type, content, raw in _fields_raw(message):
        inside = number == path[0] and wire_type == 2
        out += frame(number, _each_span(content, change, path[1:])) if inside else raw
    return out


def _trace_state(span: bytes) -> str:
    texts = [content for number, wire_type, content, _ in _fields(span) if (number, wire_type) == (TRACE_STATE, 2)]
    return texts[-1].decode("utf-8", "replace") if texts else ""


def _without_threshold(span: bytes) -> bytes:
    rest = b"".join(raw for number, wire_type, _, raw in _fields_raw(span) if (number, wire_type) != (TRACE_STATE, 2))
    ours: list[str] = []
    others: list[str] = []
    for member in _trace_state(span).split(","):
        key, _, value = member.strip(" \t").partition("=")
        if key == "ot":
            ours += [field for field in value.split(";") if not field.startswith("th:")]
        elif member:
            others.append(member.strip(" \t"))
    text = ",".join([f"ot={';'.join(ours)}"] * bool(ours) + others)
    return rest + (frame(TRACE_STATE, text.encode()) if text else b"")
