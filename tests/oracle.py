"""The oracle: what spanloom must have decided, computed slowly and plainly from the log, the TICKs and the policies.

An independent reading of the rules of assembly (design.md section 5 as settled for this release). It imports nothing
of spanloom, keeps every span of every open trace as an object, and applies the rules record by record in the order they
are written down. One million spans take about half a minute.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple

import xxhash

from tests.oracle_files import (
    LogRecord,
    Malformed,
    Tick,
    WireSpan,
    log_partitions,
    parse_record,
    parse_spans,
    read_ledger,
    read_log,
    sizes_by_trace,
)
from tests.oracle_policies import THRESHOLD_UNKNOWN, Features, Judges, Policies

DROP, KEEP, LATE_ERROR = 0, 1, 2
COMPLETE, IDLE, AGE, SIZE, PRESSURE = 0, 1, 2, 3, 4
FLAG_LATE, FLAG_ROOT, FLAG_ERROR, FLAG_CONFLICTING, FLAG_ORPHANS = 1, 2, 4, 8, 16
NO_POLICY = 255
MOVED_HEADER = "moved"

COUNTERS = ("received", "stored", "duplicate", "not_sampled", "late", "moved", "dead_lettered", "pending")


@dataclass(frozen=True, slots=True)
class Limits:
    """The settings of a trace's life, in the units of the rules."""

    quiet_ns: int = 6 * 10**9
    idle_ns: int = 15 * 10**9
    age_max_ns: int = 60 * 10**9
    remember_ns: int = 300 * 10**9
    skew_max_ns: int = 600 * 10**9
    spans_max: int = 50_000
    bytes_max: int = 16 * 2**20


@dataclass(frozen=True, slots=True)
class ExpectedDecision:
    """One fragment's decision. `places` says where its spans lie: (record offset, place in the record)."""

    trace_id: bytes
    verdict: int
    policy: int
    votes: int
    threshold: int
    trigger: int
    flags: int
    first: int
    cut: int
    stream_ns: int
    origin_ns: int
    operation: int
    duration_ns: int
    span_count: int
    size_bytes: int
    identities: frozenset[tuple[bytes, int, int]]
    places: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class ExpectedPartition:
    """All that must have come of one partition: decisions in the order they are taken, and the counters."""

    decisions: list[ExpectedDecision] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)
    open_traces: int = 0


Expected = dict[int, ExpectedPartition]


def expect(data_folder: Path, policies: Policies, *, partition_count: int, limits: Limits | None = None) -> Expected:
    """What must have come of every partition that has records in *data_folder*'s log."""
    expected = {}
    for partition in log_partitions(data_folder / "log.db"):
        ticks, _ = read_ledger(data_folder / "ledger.db", partition)
        replay = Replay(partition, policies, partition_count=partition_count, limits=limits or Limits())
        expected[partition] = replay.run(read_log(data_folder / "log.db", partition), ticks)
    return expected


def total(expected: Expected) -> Counter[str]:
    """The counters of all partitions together."""
    return sum((each.counters for each in expected.values()), Counter())


# --- the life of a trace --------------------------------------------------------------------------------------------


class Fragment:
    """An open fragment with all its spans."""

    def __init__(self, trace_id: bytes, stream_ns: int, offset: int, place: int) -> None:
        self.trace_id = trace_id
        self.born = self.last = stream_ns
        self.first = self.cut = offset
        self.created = (offset, place)
        self.inherited: ExpectedDecision | None = None  # of a late fragment: the last decision before it
        self.spans: list[WireSpan] = []
        self.places: list[tuple[int, int]] = []
        self.identities: set[tuple[bytes, int, int]] = set()
        self.ids: set[bytes] = set()
        self.missing: set[bytes] = set()  # parents that are not among `ids`
        self.has_root = False
        self.conflicting = False
        self.bytes = 0
        self.size = 0  # as TracesData, records one after the other
        self.open = True

    def add(self, span: WireSpan, offset: int, place: int) -> bool:
        """Take a span in; tells whether it conflicts with one that is there."""
        conflicts = any(
            identity[:2] == (span.span_id, span.kind)
            for identity in (self.identities if span.span_id in self.ids else ())
        )
        self.conflicting |= conflicts
        self.spans.append(span)
        self.places.append((offset, place))
        self.identities.add(span.identity)
        self.ids.add(span.span_id)
        self.missing.discard(span.span_id)
        if not span.parent:
            self.has_root = True
        elif span.parent not in self.ids:
            self.missing.add(span.parent)
        self.bytes += span.length
        return conflicts

    @property
    def complete(self) -> bool:
        return self.has_root and not self.missing

    def deadline(self, limits: Limits) -> int:
        silence = limits.quiet_ns if self.complete else limits.idle_ns
        return min(self.born + limits.age_max_ns, self.last + silence)

    def due_trigger(self, limits: Limits) -> int:
        deadline = self.deadline(limits)
        if self.complete and self.last + limits.quiet_ns == deadline:
            return COMPLETE
        if not self.complete and self.last + limits.idle_ns == deadline:
            return IDLE
        return AGE


class Judgement(NamedTuple):
    verdict: int
    policy: int
    votes: int
    threshold: int


class Replay:
    """One partition from its first record: the rules, in their order."""

    def __init__(self, partition: int, policies: Policies, *, partition_count: int, limits: Limits) -> None:
        self.partition = partition
        self.partition_count = partition_count
        self.limits = limits
        self.judges = Judges(policies, partition_count)
        self.stream_ns = 0
        self.last_ns = 0
        self.has_read = False
        self.open: dict[bytes, Fragment] = {}
        self.decided: defaultdict[bytes, list[ExpectedDecision]] = defaultdict(list)
        self.due: list[tuple[int, tuple[int, int], int, Fragment]] = []  # a heap; what no longer holds is passed over
        self.pushes = count()  # keeps the heap from comparing fragments
        self.result = ExpectedPartition()

    def run(self, records: Iterable[LogRecord], ticks: Sequence[Tick]) -> ExpectedPartition:
        """Everything in order: a TICK takes effect before the record at its offset is read."""
        waiting = sorted(ticks, key=lambda tick: tick.offset)  # stable: equal offsets stay in ledger order
        for record in records:
            while waiting and waiting[0].offset <= record.offset:
                self.tick(waiting.pop(0).stream_ns)
            self.read(record)
        for tick in waiting:
            self.tick(tick.stream_ns)
        self.result.counters["pending"] = sum(len(fragment.spans) for fragment in self.open.values())
        self.result.open_traces = len(self.open)
        counts = self.result.counters
        assert counts["received"] == sum(counts[name] for name in COUNTERS[1:]), f"the oracle's own books: {counts}"
        return self.result

    def tick(self, stream_ns: int) -> None:
        self.stream_ns = max(self.stream_ns, stream_ns)
        self.last_ns = max(self.last_ns, stream_ns)
        self.decide_due()

    def read(self, record: LogRecord) -> None:
        self.move_time(record.timestamp_ms * 1_000_000)
        self.decide_due()
        try:
            resources = parse_record(record.value)
            spans = parse_spans(resources)
            if MOVED_HEADER in record.headers and not all(map(self.is_mine, spans)):
                raise Malformed("moved once and still not here")
        except Malformed:
            self.result.counters.update(received=1, dead_lettered=1)
            return
        touched: dict[tuple[int, int], Fragment] = {}
        taken: dict[int, tuple[int, int]] = {}
        for place, span in enumerate(spans):
            self.result.counters["received"] += 1
            fragment = self.take(span, record, place)
            if fragment is not None:
                touched[fragment.created] = fragment
                taken[place] = fragment.created
        for created, size in sizes_by_trace(resources, taken).items():
            touched[created].size += size
        for _, fragment in sorted(touched.items()):
            if len(fragment.spans) > self.limits.spans_max or fragment.bytes > self.limits.bytes_max:
                self.decide(fragment, SIZE, self.stream_ns)
            else:
                deadline = fragment.deadline(self.limits)
                heapq.heappush(self.due, (deadline, fragment.created, next(self.pushes), fragment))

    def move_time(self, timestamp_ns: int) -> None:
        if not self.has_read or timestamp_ns <= self.last_ns + self.limits.skew_max_ns:
            self.stream_ns = max(self.stream_ns, timestamp_ns)
        self.last_ns = timestamp_ns
        self.has_read = True

    def decide_due(self) -> None:
        while self.due and self.due[0][0] <= self.stream_ns:
            deadline, _, _, fragment = heapq.heappop(self.due)
            if fragment.open and fragment.deadline(self.limits) == deadline:
                self.decide(fragment, fragment.due_trigger(self.limits), deadline)

    def take(self, span: WireSpan, record: LogRecord, place: int) -> Fragment | None:
        """What becomes of one span; the fragment it joined, if it did."""
        counters = self.result.counters
        if not self.is_mine(span):
            counters["moved"] += 1
            return None
        prior = [
            decision
            for decision in self.decided.get(span.trace_id, ())
            if decision.cut < record.offset and self.stream_ns - decision.stream_ns <= self.limits.remember_ns
        ]
        known = any(span.identity in decision.identities for decision in prior)
        fragment = self.open.get(span.trace_id)
        if fragment is not None:
            if known or span.identity in fragment.identities:
                fragment.cut = record.offset
                counters["duplicate"] += 1
                return None
            if fragment.inherited and fragment.inherited.verdict != KEEP and not span.error:
                counters["late"] += 1
                return None
        elif prior and prior[-1].verdict != KEEP and not span.error:
            counters["late"] += 1
            return None
        elif known:
            counters["duplicate"] += 1
            return None
        else:
            fragment = self.begin(span.trace_id, prior, record.offset, place)
        fragment.last = self.stream_ns
        fragment.cut = record.offset
        counters["conflicting"] += fragment.add(span, record.offset, place)
        return fragment

    def is_mine(self, span: WireSpan) -> bool:
        return partition_of(span.trace_id, self.partition_count) == self.partition

    def begin(self, trace_id: bytes, prior: list[ExpectedDecision], offset: int, place: int) -> Fragment:
        fragment = Fragment(trace_id, self.stream_ns, offset, place)
        fragment.inherited = prior[-1] if prior else None
        self.open[trace_id] = fragment
        return fragment

    def decide(self, fragment: Fragment, trigger: int, stream_ns: int) -> None:
        fragment.open = False
        del self.open[fragment.trace_id]
        features = Features(
            fragment.trace_id, duration(fragment.spans), operation(fragment.spans), fragment.spans, fragment.size,
            stream_ns,
        )  # fmt: skip
        judgement = self.judge(features, fragment.inherited)
        kept = judgement.verdict != DROP
        decision = ExpectedDecision(
            fragment.trace_id, *judgement, trigger, flags_of(fragment), fragment.first, fragment.cut, stream_ns,
            fragment.inherited.origin_ns if fragment.inherited else stream_ns, features.operation,
            features.duration_ns, len(fragment.spans), fragment.size, frozenset(fragment.identities if kept else ()),
            tuple(fragment.places if kept else ()),
        )  # fmt: skip
        self.result.counters["stored" if kept else "not_sampled"] += len(fragment.spans)
        self.result.decisions.append(decision)
        self.decided[fragment.trace_id].append(decision)

    def judge(self, features: Features, inherited: ExpectedDecision | None) -> Judgement:
        """A late fragment takes over what was decided; any other is judged, then remembered by the policies."""
        if inherited is not None:
            if inherited.verdict == KEEP:
                return Judgement(KEEP, inherited.policy, inherited.votes, inherited.threshold)
            return Judgement(LATE_ERROR, NO_POLICY, 0, 0)
        voted = self.judges.vote(features)
        self.judges.fold(features)
        if not voted:
            return Judgement(DROP, NO_POLICY, 0, THRESHOLD_UNKNOWN)
        return Judgement(KEEP, min(voted), sum(1 << index for index in voted), min(voted.values()))


# --- what is told of a fragment -------------------------------------------------------------------------------------


def flags_of(fragment: Fragment) -> int:
    return (
        FLAG_LATE * (fragment.inherited is not None)
        | FLAG_ROOT * fragment.has_root
        | FLAG_ERROR * any(span.error for span in fragment.spans)
        | FLAG_CONFLICTING * fragment.conflicting
        | FLAG_ORPHANS * bool(fragment.missing)
    )


def duration(spans: Sequence[WireSpan]) -> int:
    starts = [span.start for span in spans if span.start]
    ends = [span.end for span in spans if span.end]
    if not starts or not ends:
        return 0
    return max(0, max(ends) - min(starts))


def operation(spans: Sequence[WireSpan]) -> int:
    roots = [span for span in spans if not span.parent]
    chosen = min(roots or spans, key=lambda span: (span.start, span.span_id, span.kind, span.service, span.name))
    return xxhash.xxh64_intdigest(chosen.service + b"\x1f" + chosen.name)


@lru_cache(maxsize=1 << 16)
def partition_of(trace_id: bytes, partition_count: int) -> int:
    """Where the Java client's partitioner puts the id's 32 hex digits."""
    return (murmur2(trace_id.hex().encode()) & 0x7FFFFFFF) % partition_count


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, seed 0x9747b28c, as Kafka's Java client has it."""
    mixer, mask = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        word = int.from_bytes(data[at : at + 4], "little") * mixer & mask
        word = (word ^ word >> 24) * mixer & mask
        value = value * mixer & mask ^ word
    if len(data) > whole:
        value = (value ^ int.from_bytes(data[whole:], "little")) * mixer & mask
    value = (value ^ value >> 13) * mixer & mask
    return value ^ value >> 15
