"""The predicates of a program, asked of the spans of a fragment. Readable, and the oracle of ext/predicates.h.

Attributes are read here and nowhere else before a trace is stored. One whose framing is malformed counts as absent, and
a key that stands twice counts as it stands first. A value of a oneof that stands twice counts as it stands last. Texts
are compared as bytes; a pattern sees U+FFFD where they are not UTF-8.
"""

import fnmatch
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import re2

from spanloom.core._pure.wire import (
    FIXED32,
    FIXED64,
    LENGTH,
    STATUS_ERROR,
    VARINT,
    Field,
    ScannedSpan,
    read_fields,
    read_traces_data,
    spans_of,
)
from spanloom.core.sampling.program import Predicate, PredicateKind, Program
from spanloom.core.sampling.threshold import members_of, randomness_of
from spanloom.errors import DecodeError

RESOURCE, RESOURCE_ATTRIBUTES, SPAN_ATTRIBUTES = 1, 1, 9
TRACE_STATE, STATUS, FLAGS = 3, 15, 16
NS_PER_MS = 1_000_000
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1
_STRAY_BYTE = re.compile("[\udc80-\udcff]")

Attributes = dict[bytes, object]  # by key; a value that is none of bytes (of a string), int, bool is None


class Answers(NamedTuple):
    """What a fragment's spans say."""

    matched: int  # bit i: predicate i held for a span
    rv: int | None  # the first well-formed `rv` of a tracestate


@dataclass(slots=True)
class _Lasting:
    """How long the trace lasts so far, by the Collector's rule: 0 gives way to whatever comes next.

    It compares times without a sign and subtracts them with one, as 64 bits; a difference beyond those is the limit.
    """

    start_ns: int = 0
    end_ns: int = 0

    def take(self, span: ScannedSpan) -> int:
        """Take a span in; the whole milliseconds from the least start to the greatest end, towards zero."""
        if self.start_ns == 0 or span.start_unix_ns < self.start_ns:
            self.start_ns = span.start_unix_ns
        if self.end_ns == 0 or span.end_unix_ns > self.end_ns:
            self.end_ns = span.end_unix_ns
        lasting_ns = max(INT64_MIN, min(_signed(self.end_ns) - _signed(self.start_ns), INT64_MAX))
        return lasting_ns // NS_PER_MS if lasting_ns >= 0 else -(-lasting_ns // NS_PER_MS)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


class Predicates:
    """The predicates of one program."""

    def __init__(self, program: Program) -> None:
        self._predicates = program.predicates
        self._asks_randomness = program.asks_randomness
        self._matchers = tuple(map(text_matcher, program.predicates))

    def ask(self, chunks: list[bytes]) -> Answers:
        """Of all spans in *chunks*, TracesData each, in order."""
        matched, rv = 0, None
        for asked in walk(chunks):
            for bit in range(len(self._predicates)):
                if self.holds(bit, asked):
                    matched |= 1 << bit
            if self._asks_randomness and rv is None:
                rv = randomness_of(asked.fields.trace_state).rv
        return Answers(matched, rv)

    def holds(self, bit: int, of: "Asked") -> bool:
        """Whether predicate *bit* holds for a span."""
        asked, matches = self._predicates[bit], self._matchers[bit]
        span, fields, whole_ms = of
        key = asked.key.encode()
        match asked.kind:
            case PredicateKind.TEXT | PredicateKind.PATTERN:
                own = _as_text(fields.attributes.get(key))
                return bool(key in fields.resource and matches(_as_text(fields.resource[key]))) or (
                    own != b"" and matches(own)
                )
            case PredicateKind.INTEGER:
                return any(asked.low <= value <= asked.high for value in map(_as_integer, fields.values(key)))
            case PredicateKind.BOOLEAN:
                return any((value is True) == bool(asked.low) for value in fields.values(key))
            case PredicateKind.STATUS:
                return 0 <= fields.status < 32 and bool(asked.low >> fields.status & 1)
            case PredicateKind.STATE:
                return (members_of(fields.trace_state) or {}).get(asked.key) in asked.texts
            case PredicateKind.SAMPLED_FLAG:
                return bool(fields.flags & 1)
            case PredicateKind.LATENCY:
                return whole_ms > asked.low and (asked.high == 0 or whole_ms <= asked.high)
            case PredicateKind.SERVICE:
                return matches(span.service)
            case PredicateKind.ERROR:
                error = fields.attributes.get(b"error")
                return fields.status == STATUS_ERROR or error is True or error == b"true"


@dataclass(slots=True)
class SpanFields:
    """What predicates look at in a span."""

    attributes: Attributes
    resource: Attributes
    trace_state: str = ""
    status: int = 0
    flags: int = 0

    @classmethod
    def of(cls, span: ScannedSpan, resource: Attributes) -> "SpanFields":
        """The span's message has been read once: its own framing is whole."""
        fields = cls(_attributes(span.span, SPAN_ATTRIBUTES), resource)
        for field in read_fields(span.span, 0, len(span.span)):
            if field.number == TRACE_STATE and field.wire_type == LENGTH:
                fields.trace_state = span.span[field.value : field.stop].decode("utf-8", "replace")
            elif field.number == FLAGS and field.wire_type == FIXED32:
                fields.flags = int.from_bytes(span.span[field.value : field.stop], "little")
            elif field.number == STATUS:
                for inner in read_fields(span.span, field.value, field.stop):
                    if inner.number == 3:
                        fields.status = inner.value
        return fields

    def values(self, key: bytes) -> Iterator[object]:
        """The attribute's values, the resource's and the span's, where they have it."""
        for attributes in (self.resource, self.attributes):
            if key in attributes:
                yield attributes[key]


class Asked(NamedTuple):
    """A span as predicates are asked of it."""

    span: ScannedSpan
    fields: SpanFields
    whole_ms: int  # what the trace lasts with it


def walk(chunks: list[bytes]) -> Iterator[Asked]:
    """Every span in *chunks*, TracesData each, in order."""
    lasting = _Lasting()
    for resource in (resource for chunk in chunks for resource in read_traces_data(chunk)):
        attributes = _resource_attributes(resource.frame)
        for span in spans_of([resource]):
            whole_ms = lasting.take(span)
            yield Asked(span, SpanFields.of(span, attributes), whole_ms)


def text_matcher(predicate: Predicate) -> Callable[[bytes], bool]:
    """Whether a text matches what the predicate lists."""
    if predicate.kind is PredicateKind.PATTERN:
        patterns = [compile_pattern(pattern) for pattern in predicate.texts]
        return lambda text: _any_finds(patterns, _as_go_reads(text))
    if predicate.kind is PredicateKind.SERVICE:
        glob = re.compile("|".join(map(fnmatch.translate, predicate.texts)))
        return lambda text: glob.match(text.decode("utf-8", "replace")) is not None
    texts = frozenset(text.encode() for text in predicate.texts)
    return lambda text: text in texts


def _any_finds(patterns: Sequence["re2._Regexp"], text: str) -> bool:
    return any(pattern.search(text) for pattern in patterns)


def _as_go_reads(text: bytes) -> str:
    """Each byte that belongs to no character is a U+FFFD, where Python would take one for a broken character."""
    return _STRAY_BYTE.sub("\ufffd", text.decode("utf-8", "surrogateescape"))


def compile_pattern(pattern: str) -> "re2._Regexp":
    """Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    return re2.compile(pattern, options)


def _as_text(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _as_integer(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _resource_attributes(frame: bytes) -> Attributes:
    """Of the Resource in a ResourceSpans; where it stands in parts, each is read by itself."""
    found: Attributes = {}
    for field in read_fields(frame, 0, len(frame)):
        if field.number == RESOURCE:
            try:
                found = _attributes(frame[field.value : field.stop], RESOURCE_ATTRIBUTES) | found
            except DecodeError:
                continue
    return found


def _attributes(message: bytes, number: int) -> Attributes:
    """The attributes in field *number* of a Resource or a Span. Raises DecodeError where that is malformed itself."""
    found: Attributes = {}
    for field in read_fields(message, 0, len(message)):
        if field.number != number or field.wire_type != LENGTH:
            continue
        try:
            key, value = _key_value(message, field)
        except DecodeError:
            continue
        found.setdefault(key, value)
    return found


def _key_value(message: bytes, attribute: Field) -> tuple[bytes, object]:
    """A KeyValue. Raises DecodeError."""
    key, value = b"", None
    for field in read_fields(message, attribute.value, attribute.stop):
        if field.wire_type != LENGTH:
            continue
        if field.number == 1:
            key = message[field.value : field.stop]
        elif field.number == 2:
            value = _any_value(message, field)
    return key, value


_ONEOF = {1: LENGTH, 2: VARINT, 3: VARINT, 4: FIXED64, 5: LENGTH, 6: LENGTH, 7: LENGTH}


def _any_value(message: bytes, value: Field) -> object:
    """The bytes of a string, a bool or an int; None for every other kind and for none. Raises DecodeError."""
    found: object = None
    for field in read_fields(message, value.value, value.stop):
        if _ONEOF.get(field.number) != field.wire_type:
            continue
        if field.number == 1:
            found = message[field.value : field.stop]
        elif field.number == 2:
            found = field.value != 0
        elif field.number == 3:
            found = _signed(field.value)
        else:
            found = None
    return found
