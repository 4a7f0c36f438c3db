"""Two assemblers led through the same life, pure and native, and compared after every step."""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol, TypeVar

from spanloom.core._pure.assembler import Assembler
from spanloom.core.assembly import AssemblerStatistics, Harvest, Limits, Position
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.written import parse_policies
from spanloom.model import MOVED_HEADER, Decision, Fragment, Record
from tests.core.otlp_bytes import Universe, Writer, trace_id_of
from tests.core.policies_written import Written, changed, written_policies

T0_MS = 1_700_000_000_000
S = 1_000_000_000
Result = TypeVar("Result")


class Kernel(Protocol):
    """What both assemblers can do."""

    def restore(self, start: Position) -> None: ...
    def configure(self, policies: PolicySet) -> None: ...
    def set_rate(self, rate: float) -> None: ...
    def recall(self, entries: bytes) -> None: ...
    def sampler_state(self) -> bytes: ...
    def restore_sampler(self, state: bytes) -> None: ...
    def feed(self, records: list[Record]) -> Harvest: ...
    def skip(self, record: Record) -> Harvest: ...
    def jump(self, offset: int) -> Harvest: ...
    def advance(self, stream_ns: int) -> Harvest: ...
    def shed(self, undecided_bytes: int) -> Harvest: ...
    def confirm(self, count: int) -> tuple[Fragment, ...]: ...
    def resolve(self, decision: Decision, outcome: str) -> None: ...
    def skipped(self, offset: int) -> None: ...
    def moved(self, offset: int) -> None: ...
    def next_deadline(self) -> int | None: ...
    def safe_position(self) -> Position: ...
    def standing(self, trace_id: bytes) -> str | None: ...
    def statistics(self) -> AssemblerStatistics: ...


Maker = Callable[[Limits, int, int], Kernel]


def make(assembler: type[Assembler], limits: Limits, partition: int, partition_count: int) -> Kernel:
    """A Maker of either kernel, its class bound."""
    return assembler(limits, partition=partition, partition_count=partition_count)


POLICIES: tuple[Written, ...] = (
    {"name": "errors", "type": "error"},
    {"name": "slow", "type": "latency", "latency": {"threshold_ms": 1}},
    {"name": "shops", "type": "service_pattern", "service_pattern": {"services": ["shop*", "k[äa]se"]}},
    {"name": "odd", "type": "service_pattern", "service_pattern": {"services": ["p?y", ""]}},
    {"name": "p50", "type": "latency_percentile", "latency_percentile": {
        "percentile": 50, "min_count": 2, "window_s": 20, "operations_max": 3}},
    {"name": "p99", "type": "latency_percentile", "latency_percentile": {
        "percentile": 99.5, "min_count": 1, "window_s": 600, "operations_max": 100}},
    {"name": "some", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 12.5}},
    {"name": "many", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 60}},
)  # fmt: skip


def some_policies(random: Random) -> list[Written]:
    """Any policies, or a few of these, in any order; often without the generous ones, so that traces are dropped."""
    if random.randrange(4):
        return written_policies(random)
    return random.sample(POLICIES, random.choice((1, 1, 2, 3, 5, len(POLICIES))))


def some_limits(random: Random) -> Limits:
    """Limits that are reached: the defaults, or small ones; `quiet` is at most `idle`, as config has it."""
    if random.randrange(3) == 0:
        return Limits(decide_bytes=random.choice((150, 100_000)))
    quiet_ns = random.choice((2 * S, 2 * S, 2 * S, 0, 1_500_000_001))
    return Limits(
        quiet_ns=quiet_ns,
        idle_ns=max(quiet_ns, random.choice((5, 5, 5, 1, 0)) * S),
        age_max_ns=random.choice((20, 20, 3)) * S,
        remember_ns=random.choice((30, 30, 6, 0)) * S,
        skew_max_ns=random.choice((60, 600)) * S,
        spans_max=random.choice((3, 10, 50_000)),
        bytes_max=random.choice((150, 400, 16 << 20)),
        decide_bytes=random.choice((1, 150, 400, 512 << 10)),
    )


class Pair:
    """The two of them. Every call goes to both, and both must answer alike."""

    def __init__(self, pure: Kernel, native: Kernel, universe: Universe) -> None:
        self._both = (pure, native)
        self._universe = universe
        self.failed = False

    def __call__(self, act: Callable[[Kernel], Result]) -> Result | None:
        """What both gave; None where both failed in the same way."""
        answers: list[object] = []
        for kernel in self._both:
            try:
                answers.append(act(kernel))
            except (AssertionError, KeyError, IndexError, ValueError) as exc:
                self.failed = True
                answers.append(type(exc))
        assert answers[0] == answers[1]
        return None if self.failed else answers[0]  # type: ignore[return-value]

    def compare(self, random: Random) -> None:
        """Look at all that can be seen."""
        self(lambda kernel: kernel.statistics())
        self(lambda kernel: kernel.next_deadline())
        self(lambda kernel: kernel.sampler_state())
        self(lambda kernel: kernel.safe_position())
        for _ in range(min(self._universe.traces, 5)):
            trace_id = trace_id_of(random.randrange(1, self._universe.traces + 1))
            self(lambda kernel, trace_id=trace_id: kernel.standing(trace_id))  # type: ignore[misc]


class Life:
    """A partition's records, ledger and owners, by the dice."""

    def __init__(self, random: Random, makers: tuple[Maker, Maker], universe: Universe) -> None:
        self._random = random
        self._makers = makers
        self._writer = Writer(random, universe)
        self._universe = universe
        self._limits = some_limits(random)
        self._partition_count = random.choice((1, 1, 1, 2))
        self._now_ms = T0_MS
        self._records: list[Record] = []
        self._next = 0
        self._ticks: dict[int, list[int]] = {}  # stream times, by the offset at which they take effect
        self._gaps: dict[int, int] = {}  # offset to go on at, by the offset where retention has deleted
        self._skips: set[int] = set()
        self._ledger: list[bytes] = []
        self._version = 1
        self._written = some_policies(random)
        self._policies = parse_policies(self._written, version=1)
        self._starts = [Position(0, 0, -1, AssemblerStatistics(0, 0, 0, 0, 0, 0).tally)]
        self._state: bytes | None = None
        self.restarts = 0
        self._begin(self._starts[0])

    def _begin(self, start: Position) -> None:
        pure, native = (make(self._limits, 0, self._partition_count) for make in self._makers)
        pair = self.pair = Pair(pure, native, self._universe)
        self._awaiting = 0
        self._fragments: deque[Fragment] = deque()
        self._rejected: list[int] = []
        self._moving: list[int] = []
        pair(lambda kernel: kernel.restore(start))
        pair(lambda kernel: kernel.configure(self._policies))

    def run(self, steps: int) -> None:
        """Live *steps* steps."""
        acts = (
            [self._feed] * 12 + [self._confirm] * 4 + [self._resolve] * 4 + [self._settle] * 2
            + [self._tick, self._shed, self._skip, self._jump, self._configure, self._carry_sampler, self._restart]
            + [self._set_rate]
        )  # fmt: skip
        for _ in range(steps):
            self._random.choice(acts)()
            if self.pair.failed:
                return
            self.pair.compare(self._random)
            start = self.pair(lambda kernel: kernel.safe_position())
            assert start is not None
            self._starts.append(start)

    def _take(self, harvest: Harvest | None) -> None:
        if harvest is None:
            return
        self._ledger += harvest.decisions
        self._awaiting += sum(int.from_bytes(body[:4], "little") for body in harvest.decisions)
        self._fragments += harvest.fragments
        self._rejected += [reject.record.offset for reject in harvest.rejects]
        self._moving += [move.offset for move in harvest.moves]

    def _timestamp_ms(self) -> int:
        random = self._random
        self._now_ms += random.choice((0, 1, 10, 700, 700, 3000, 9000))
        wild = random.randrange(60) == 0
        return self._now_ms + (random.choice((-5000, 10**6, 10**9, 10**14, -(10**15))) if wild else 0)

    def _new_record(self) -> Record:
        random = self._random
        value = self._writer.traces_data()
        if not self._universe.plain and random.randrange(6) == 0:
            value = self._writer.damaged(value)
        headers = ((MOVED_HEADER, b"1"),) if random.randrange(20) == 0 else ()
        record = Record(self._next, self._timestamp_ms(), None, value, headers)
        self._next += random.choice((1, 1, 1, 1, 2))  # a compacted or transactional log has holes
        self._records.append(record)
        return record

    def _feed(self) -> None:
        records = [self._new_record() for _ in range(self._random.choice((0, 1, 1, 2, 4, 8)))]
        self._take(self.pair(lambda kernel: kernel.feed(records)))

    def _tick(self) -> None:
        stream_ns = self._now_ms * 1_000_000 + self._random.choice((-S, 1, 1_234_567, 5 * S, 25 * S))
        self._ticks.setdefault(self._next, []).append(stream_ns)
        self._take(self.pair(lambda kernel: kernel.advance(stream_ns)))

    def _shed(self) -> None:
        left = self._random.choice((0, 200, 2000))
        self._take(self.pair(lambda kernel: kernel.shed(left)))

    def _skip(self) -> None:
        record = self._new_record()
        self._skips.add(record.offset)
        self._take(self.pair(lambda kernel: kernel.skip(record)))

    def _jump(self) -> None:
        statistics = self.pair(lambda kernel: kernel.statistics())
        assert statistics is not None
        self._next = max(self._next, statistics.offset) + self._random.choice((1, 5, 1 << 32))
        target = self._next
        self._gaps[statistics.offset] = target
        self._take(self.pair(lambda kernel: kernel.jump(target)))

    def _confirm(self) -> None:
        count = self._random.randrange(self._awaiting + 1)
        self._awaiting -= count
        self._fragments += self.pair(lambda kernel: kernel.confirm(count)) or ()

    def _resolve(self) -> None:
        for _ in range(self._random.randrange(len(self._fragments) + 1)):
            self._fragments.rotate(self._random.randrange(3))
            decision = self._fragments.popleft().decision
            outcome = self._random.choice(("stored", "stored", "dead_lettered"))
            self.pair(lambda kernel, d=decision, o=outcome: kernel.resolve(d, o))  # type: ignore[misc]

    def _settle(self) -> None:
        if self._rejected and self._random.randrange(2):
            rejected = self._rejected.pop(self._random.randrange(len(self._rejected)))
            self._skips.add(rejected)
            self.pair(lambda kernel: kernel.skipped(rejected))
        if self._moving and self._random.randrange(2):
            moving = self._moving.pop(self._random.randrange(len(self._moving)))
            self.pair(lambda kernel: kernel.moved(moving))

    def _configure(self) -> None:
        self._version += 1
        random = self._random
        again = random.randrange(2) == 0
        self._written = changed(random, self._written, self._version) if again else some_policies(random)
        self._policies = parse_policies(self._written, version=self._version)
        self._state = None
        self.pair(lambda kernel: kernel.configure(self._policies))

    def _set_rate(self) -> None:
        rate = self._random.choice((0.0, 0.1, 0.5, 1.0, self._random.random()))
        self.pair(lambda kernel: kernel.set_rate(rate))

    def _carry_sampler(self) -> None:
        self._state = self.pair(lambda kernel: kernel.sampler_state())

    def _restart(self) -> None:
        """A later owner: begins at some safe position, recalls some of the ledger, reads on."""
        random = self._random
        if random.randrange(3):
            return
        self.restarts += 1
        start = random.choice(self._starts[-20:])
        if random.randrange(4) == 0:  # time may run ahead of what it was
            start = start._replace(stream_ns=start.stream_ns + random.choice((1, 5, 40, 400)) * S)
        self._begin(start)
        if random.randrange(4) == 0:
            self._ledger = self._ledger[: random.randrange(len(self._ledger) + 1)]
        for body in self._ledger:
            self.pair(lambda kernel, body=body: kernel.recall(body))  # type: ignore[misc]
        state = self._state
        if state is not None:
            self.pair(lambda kernel: kernel.restore_sampler(state))
        self._starts = [start]
        self._replay(self._lose_records(start.offset))

    def _lose_records(self, first: int) -> int:
        """Retention may have deleted what is to be read first: where reading goes on."""
        later = [record.offset for record in self._records if record.offset > first]
        if not later or self._random.randrange(5):
            return first
        earliest = self._random.choice(later[:10])
        self._take(self.pair(lambda kernel: kernel.jump(earliest)))
        return earliest

    def _replay(self, first: int) -> None:
        """Read the records from *first* on again, with what happened between them."""
        batch: list[Record] = []
        for record in [*self._records, None]:
            if record is not None and record.offset < first:
                continue
            offset = record.offset if record is not None else self._next
            at = self._random.randrange(3) == 0 or record is None or record.offset in self._skips
            if batch and (at or self._has_event(batch[-1].offset + 1, offset)):
                self._take(self.pair(lambda kernel, batch=batch: kernel.feed(batch)))  # type: ignore[misc]
                batch = []
            if not batch:
                self._replay_events(offset)
            if record is None:
                return
            if record.offset in self._skips:
                self._take(self.pair(lambda kernel, record=record: kernel.skip(record)))  # type: ignore[misc]
            else:
                batch.append(record)
            if self.pair.failed:
                return

    def _has_event(self, low: int, high: int) -> bool:
        return any(low <= at <= high for at in (*self._ticks, *self._gaps))

    def _replay_events(self, offset: int) -> None:
        """What happened between the last record that was read and *offset*."""
        statistics = self.pair(lambda kernel: kernel.statistics())
        if statistics is None:
            return
        for at in range(statistics.offset, min(offset, statistics.offset + 1000) + 1):
            for stream_ns in self._ticks.get(at, ()):
                self._take(self.pair(lambda kernel, s=stream_ns: kernel.advance(s)))  # type: ignore[misc]
            target = self._gaps.get(at)
            if target is not None and at >= statistics.offset and target <= offset:
                self._take(self.pair(lambda kernel, target=target: kernel.jump(target)))  # type: ignore[misc]
