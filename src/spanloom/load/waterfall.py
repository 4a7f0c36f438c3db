"""A trace drawn in the terminal: the tree of its spans, and when each of them ran.

Takes the JSON of GET /v1/traces/{id} as it comes. Nothing in a trace can hang it or take the terminal over: parents in
a circle are told, control characters are replaced, very large and very deep traces are cut with a note.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from spanloom.errors import DecodeError

LINES_MAX = 500  # spans drawn; more scroll by unread
WIDTH_MIN = 60
_DURATION_CELLS = 10
_INDENT_CELLS_MAX = 24  # deeper levels are numbered instead of indented
_VERDICT_SHOWN = ("verdict", "policy", "trigger", "votes", "adjusted_count")

_RED, _DIM, _BOLD, _PLAIN = "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


class _ShownSpan(msgspec.Struct, frozen=True):
    span_id: str
    start_time: int  # µs
    duration: int  # ns
    service_name: str = ""
    operation_name: str = ""
    parent_span_id: str | None = None
    error: bool = False


class _ShownTrace(msgspec.Struct, frozen=True):
    trace_id: str
    spans: list[_ShownSpan] = []  # msgspec copies the default
    status: str = "?"
    reasons: list[str] = []
    verdict: object = None
    duration: int = 0  # ns
    start_time: int = 0  # µs
    span_count: int = 0
    error_count: int = 0


class _Line(NamedTuple):
    """One line of the tree: a span, or a note in its place."""

    indent: str
    span: _ShownSpan | None
    note: str = ""


def render_waterfall(trace_json: Mapping[str, object], width: int, *, color: bool) -> str:
    """The trace as lines of at most *width* characters (at least WIDTH_MIN), errors marked with `!`.

    Raises DecodeError where *trace_json* is not such a document.
    """
    try:
        trace = msgspec.convert(trace_json, _ShownTrace)
    except msgspec.ValidationError as error:
        raise DecodeError("json", "a trace as GET /v1/traces/{id} gives it", str(error)) from error
    width = max(width, WIDTH_MIN)
    lines = [_clip(line, width) for line in _heading(trace)]
    if color:
        lines[0] = _BOLD + lines[0] + _PLAIN
    shown = 0
    canvas = _Canvas(trace.spans, width, color=color)
    for line in _tree(trace.spans):
        if shown == LINES_MAX:
            lines.append(_clip(f"... {len(trace.spans) - shown} more spans are not drawn", width))
            break
        lines.append(canvas.draw(line))
        shown += line.span is not None
    return "\n".join(lines) + "\n"


def duration_text(duration_ns: int) -> str:
    """Three digits and a unit, the way people say durations."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if duration_ns >= size:
            value = duration_ns / size
            decimals = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{decimals}f} {unit}"
    return f"{duration_ns} ns"


def _heading(trace: _ShownTrace) -> list[str]:
    errors = f", {trace.error_count} in error (!)" if trace.error_count else ""
    reasons = f": {', '.join(trace.reasons)}" if trace.reasons else ""
    lines = [
        f"trace {trace.trace_id}  {trace.status}{reasons}",
        f"{_moment(trace.start_time)}  {duration_text(trace.duration)}  {trace.span_count} spans{errors}",
    ]
    if isinstance(trace.verdict, Mapping):
        lines.append(_why(trace.verdict))
    return [*map(_printable, lines), ""]


def _why(verdict: Mapping[object, object]) -> str:
    """What people ask of a verdict first; the rest is in the JSON."""
    facts = [f"{name} {_fact(verdict[name])}" for name in _VERDICT_SHOWN if verdict.get(name) is not None]
    return ", ".join(facts or [_fact(verdict)])


def _fact(value: object) -> str:
    """A value in words: `key value` pairs of whatever is in it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(part)}" for key, part in value.items())
    if isinstance(value, list):
        return " and ".join(_fact(part) for part in value) or "none"
    return str(value)


def _moment(unix_us: int) -> str:
    try:
        return datetime.fromtimestamp(unix_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%f UTC")
    except (OverflowError, ValueError, OSError):
        return f"{unix_us} µs after 1970"  # absurd timestamps are shown, not hidden


def _tree(spans: list[_ShownSpan]) -> Iterator[_Line]:
    """Every span once, parents before children, each level by start; then orphans; then circles."""
    spans = sorted(spans, key=lambda span: (span.start_time, span.span_id))
    first_of_id: dict[str, int] = {}
    for index, span in enumerate(spans):
        first_of_id.setdefault(span.span_id, index)
    children: defaultdict[int, list[int]] = defaultdict(list)
    orphans: defaultdict[str, list[int]] = defaultdict(list)
    roots: list[int] = []
    for index, span in enumerate(spans):
        if not span.parent_span_id:
            roots.append(index)
        elif span.parent_span_id in first_of_id:
            children[first_of_id[span.parent_span_id]].append(index)
        else:
            orphans[span.parent_span_id].append(index)
    drawn: set[int] = set()
    yield from _branches(spans, roots, children=children, drawn=drawn, level=0)
    for parent, lost in orphans.items():
        yield _Line("", None, f"(missing parent {_printable(parent)})")
        yield from _branches(spans, lost, children=children, drawn=drawn, level=1)
    for index in range(len(spans)):
        if index not in drawn:  # every span not reached from above hangs below a circle
            yield _Line("", None, "(parents in a circle)")
            yield from _branches(spans, [index], children=children, drawn=drawn, level=1)


def _branches(
    spans: list[_ShownSpan], tops: list[int], *, children: Mapping[int, list[int]], drawn: set[int], level: int
) -> Iterator[_Line]:
    """Depth first without recursion, for chains may be thousands deep; `drawn` makes a circle end."""
    stack = [(top, level, "", position == len(tops) - 1) for position, top in reversed(list(enumerate(tops)))]
    while stack:
        index, depth, above, last = stack.pop()
        if index in drawn:
            continue
        drawn.add(index)
        indent, below = "", ""
        if depth:
            indent = above + ("└ " if last else "├ ")
            below = above + ("  " if last else "│ ")
        if len(indent) > _INDENT_CELLS_MAX:
            indent = below = f"{'·' * (_INDENT_CELLS_MAX - 8)}{depth:>7} "
        yield _Line(indent, spans[index])
        under = children.get(index, [])
        stack += [
            (child, depth + 1, below, position == len(under) - 1)
            for position, child in reversed(list(enumerate(under)))
        ]


class _Canvas:
    """Turns lines into text: a label, a duration and a bar on the trace's own time scale."""

    def __init__(self, spans: list[_ShownSpan], width: int, *, color: bool) -> None:
        self._color = color
        self._label_cells = max(30, (width - _DURATION_CELLS) // 2)
        self._bar_cells = width - self._label_cells - _DURATION_CELLS - 3
        self._width = width
        self._start_ns = min((span.start_time * 1000 for span in spans), default=0)
        end_ns = max((span.start_time * 1000 + span.duration for span in spans), default=0)
        self._length_ns = max(1, end_ns - self._start_ns)

    def draw(self, line: _Line) -> str:
        if line.span is None:
            return self._paint(_DIM, _clip(line.note, self._width))
        span = line.span
        mark = "! " if span.error else ""
        name = _printable(f"{span.service_name}: {span.operation_name}")
        label = _clip(f"{line.indent}{mark}{name}", self._label_cells).ljust(self._label_cells)
        duration = _clip(duration_text(max(0, span.duration)), _DURATION_CELLS).rjust(_DURATION_CELLS)
        text = f"{label}{duration} |{self._bar(span)}|"
        return self._paint(_RED, text) if span.error else text

    def _bar(self, span: _ShownSpan) -> str:
        cells = self._bar_cells
        offset_ns = span.start_time * 1000 - self._start_ns
        before = min(cells - 1, offset_ns * cells // self._length_ns)
        filled = max(0, span.duration) * cells // self._length_ns
        filled = min(filled, cells - before)
        bar = "█" * filled if filled else "▏"  # every span leaves a mark
        return (" " * before + bar).ljust(cells)

    def _paint(self, style: str, text: str) -> str:
        return style + text + _PLAIN if self._color else text


def _printable(text: str) -> str:
    """Names come from anybody: nothing in them may move the cursor."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _clip(text: str, cells: int) -> str:
    return text if len(text) <= cells else text[: cells - 1] + "…"
