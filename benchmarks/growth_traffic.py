"""What `bench_growth.py` feeds: usual traces under any ids, one trace of a million spans, traces of one span.

All of it is made of the traces of bench_kernel.py, under other ids: two or three spans a record, four records a trace
within two seconds, near 400 bytes a span.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle, islice
from operator import add
from random import Random
from typing import NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from benchmarks.bench_kernel import BATCH, T0_MS, Trace, make_trace
from benchmarks.bench_kernel_leak import renamed
from spanloom.core import kernel
from spanloom.core.partitioning import partition_of
from spanloom.model import Record

TEMPLATES = 2000
RECORDS_WITHIN_MS = 2000
CROWDED = 64  # partitions of which the crowd of ids has one
Ids = Callable[[int, Random], bytes]


class Made(NamedTuple):
    """A record before it has an offset."""

    at_ms: float
    trace_id: bytes
    value: bytes


class Load(NamedTuple):
    """Records in the order of the log, and how many spans are in them."""

    made: list[Made]
    spans: int


class Fed(NamedTuple):
    """What one call of `feed` gets."""

    partition: int
    records: list[Record]


def _of_one_partition(number: int, random: Random) -> bytes:
    del number
    while True:
        trace_id = random.randbytes(16)
        if partition_of(trace_id.hex().encode(), CROWDED, hashes=kernel.hashes) == 0:
            return trace_id


# None is zero in its first half: that is the root's span id.
IDS: dict[str, Ids] = {
    "random": lambda _, random: random.randbytes(16),
    "counted up": lambda number, _: ((1 << 64) + number).to_bytes(16, "big"),
    "counted up by 2**32": lambda number, _: ((1 << 127) + (number << 32)).to_bytes(16, "big"),
    "the same low 64 bits": lambda _, random: random.randbytes(8) + bytes(8),
    "the same high 64 bits": lambda _, random: b"\1" * 8 + random.randbytes(8),
    "both halves alike": lambda _, random: random.randbytes(8) * 2,
    f"one partition of {CROWDED} by murmur2": _of_one_partition,
}


@cache
def usual() -> list[Trace]:
    """Traces of 2.5 spans a record."""
    random = Random(1)
    return [make_trace(random, T0_MS) for _ in range(TEMPLATES)]


def _singles(trace: Trace) -> list[bytes]:
    """The same spans, a record each."""
    singles = []
    for value in trace.records:
        whole = TracesData.FromString(value)
        for span in whole.resource_spans[0].scope_spans[0].spans:
            one = TracesData.FromString(value)
            del one.resource_spans[0].scope_spans[0].spans[:]
            one.resource_spans[0].scope_spans[0].spans.append(span)
            singles.append(one.SerializeToString())
    return singles


@cache
def single() -> list[Trace]:
    """Traces of one span a record."""
    return [Trace(trace.trace_id, _singles(trace), trace.span_count) for trace in usual()]


@cache
def lone() -> list[Trace]:
    """Traces of one span, a root."""
    return [Trace(trace.trace_id, trace.records[:1], 1) for trace in single()]


def stream(templates: Sequence[Trace], traces: int, per_second: float, ids: Ids = IDS["random"]) -> Load:
    """So many *traces*, begun evenly."""
    random = Random(1)
    made: list[Made] = []
    spans = 0
    for number, trace in enumerate(islice(cycle(templates), traces)):
        trace_id = ids(number, random)
        spans += trace.span_count
        began_ms = number * 1000 / per_second
        made += [
            Made(began_ms + random.random() * RECORDS_WITHIN_MS, trace_id, value) for value in renamed(trace, trace_id)
        ]
    made.sort(key=lambda one: one.at_ms)
    return Load(made, spans)


def spans_in(made: Sequence[Made]) -> int:
    """A span holds the id of its trace once."""
    return sum(one.value.count(one.trace_id) for one in made)


def one_partition(made: Sequence[Made], first_offset: int = 0, from_ms: float = T0_MS) -> list[Fed]:
    """Everything for one assembler, some records a call."""
    records = [Record(first_offset + n, int(from_ms + one.at_ms), None, one.value) for n, one in enumerate(made)]
    return [Fed(0, records[at : at + BATCH]) for at in range(0, len(records), BATCH)]


def by_partition(made: Sequence[Made], partitions: int, fetched: int | None) -> list[Fed]:
    """Everything for so many assemblers, fed when one has BATCH records, or all after so many in all are *fetched*."""
    offsets = [0] * partitions
    waiting: list[list[Record]] = [[] for _ in range(partitions)]
    feeds = []
    for number, one in enumerate(made, 1):
        at = partition_of(one.trace_id.hex().encode(), partitions, hashes=kernel.hashes)
        waiting[at].append(Record(offsets[at], int(T0_MS + one.at_ms), None, one.value))
        offsets[at] += 1
        if fetched is None:
            full = [at] if len(waiting[at]) == BATCH else []
        else:
            full = [each for each in range(partitions) if waiting[each]] if number % fetched == 0 else []
        for each in full:
            feeds.append(Fed(each, waiting[each]))
            waiting[each] = []
    return feeds + [Fed(each, records) for each, records in enumerate(waiting) if records]


# One trace of many spans.


class Part(NamedTuple):
    """A record of it."""

    value: bytes
    spans: int
    span_bytes: int


SpanIds = Callable[[int, Random], tuple[bytes, int]]  # the id and the kind of each
SPAN_IDS: dict[str, SpanIds] = {
    "random": lambda _, random: (random.randbytes(8), 2),
    "counted up": lambda number, _: (number.to_bytes(8, "big"), 2),
    "the same low 32 bits": lambda _, random: (random.randbytes(4) + b"\1" * 4, 2),
    "each with 256 kinds": lambda number, _: ((number // 256 + 1).to_bytes(8, "big"), number % 256),
    "one id, never the same content": lambda _, __: (b"\1" * 8, 2),
}
ONE_TRACE = bytes(range(16, 0, -1))
_KIND = 200  # takes two bytes
_KIND_WRITTEN = b"\x30\xc8\x01"


class _Piece(NamedTuple):
    value: bytes
    trace_id: bytes
    spans: tuple[tuple[bytes, bytes], ...]  # id and start time, as they stand in it
    span_bytes: int


def _pieces() -> list[_Piece]:
    """Records without a root, whose span ids and kinds can be changed."""
    pieces = []
    for trace in usual()[:500]:
        for value in trace.records[1:]:
            whole = TracesData.FromString(value)
            spans = whole.resource_spans[0].scope_spans[0].spans
            for span in spans:
                span.kind = Span.SpanKind.ValueType(_KIND)
            found = tuple((span.span_id, span.start_time_unix_nano.to_bytes(8, "little")) for span in spans)
            pieces.append(_Piece(whole.SerializeToString(), trace.trace_id, found, _span_bytes(whole)))
    return pieces


def _span_bytes(whole: TracesData) -> int:
    return sum(span.ByteSize() for span in whole.resource_spans[0].scope_spans[0].spans)


def _root(trace_id: bytes, *, error: bool) -> Part:
    trace = usual()[0]
    whole = TracesData.FromString(single()[0].records[0].replace(trace.trace_id, trace_id))
    span = whole.resource_spans[0].scope_spans[0].spans[0]
    span.span_id = trace_id[:8]
    if error:
        span.status.code = Status.STATUS_CODE_ERROR
    return Part(whole.SerializeToString(), 1, _span_bytes(whole))


def one_trace(spans: int, *, error: bool, ids: SpanIds = SPAN_IDS["random"]) -> Iterator[Part]:
    """One trace with a root; with an error in that it is kept."""
    random, trace_id, number = Random(1), ONE_TRACE, 1
    yield _root(trace_id, error=error)
    for piece in cycle(_pieces()):
        value = piece.value.replace(piece.trace_id, trace_id).replace(piece.trace_id[:8], trace_id[:8])
        head, *rest = value.split(_KIND_WRITTEN)
        kinds = []
        for old, start in piece.spans:
            new, kind = ids(number, random)
            starts_ns = T0_MS * 1_000_000 + number  # no two spans are alike
            rest = [part.replace(start, starts_ns.to_bytes(8, "little")) for part in rest]
            head, *rest = (part.replace(old, new) for part in (head, *rest))
            kinds.append(bytes((0x30, kind & 0x7F | 0x80, kind >> 7)))
            number += 1
        yield Part(head + b"".join(map(add, kinds, rest)), len(piece.spans), piece.span_bytes)
        if number >= spans:
            return
