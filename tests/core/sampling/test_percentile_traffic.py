"""Percentiles and shares as whole traffic meets them: how right they are, how they begin, what they take of memory."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random

import pytest

from spanloom.core._pure.assembler import Assembler
from spanloom.core.assembly import Limits
from spanloom.core.ledger import decode_decisions
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Decision, Record, Verdict
from tests.core.kernels import BOTH, assembler_class
from tests.core.memory import resident_bytes
from tests.core.sampling.judged import of
from tests.spans import T0_MS, S, Sp, traces_data

P95 = of("latency_percentile", percentile=95, min_count=100, window_s=3600)
EMA = of("ema_throughput", goal_spans_per_second=100, interval_s=5)
LIMITS = Limits(quiet_ns=S, idle_ns=S, remember_ns=0)
BUCKET = 1 / 64  # a sketch's bucket is at most so wide: its promised error
STALE = 1 / 200  # a cut is taken anew for every sixteenth more: what a sixteenth can move it here
OPERATIONS = 100_000
TRACES_A_RECORD = 500
Trace = tuple[str, str, int]  # service, operation, milliseconds


class Partition:
    """An assembler that is fed traces of one span, one after another."""

    def __init__(self, kernel: str, *policies: dict[str, object]) -> None:
        self.assembler: Assembler = assembler_class(kernel)(LIMITS, partition=0, partition_count=1)
        self.assembler.configure(parse_policies(policies, version=1))
        self._numbers = iter(range(1, 1 << 40))
        self._offset = self._now_s = 0

    def decide(self, traces: Iterable[Trace]) -> Iterator[Decision]:
        """The verdicts, in order."""
        coming = iter(traces)
        while some := list(islice(coming, TRACES_A_RECORD)):
            spans = [Sp(next(self._numbers), 1, service=service, name=name, ms=ms) for service, name, ms in some]
            yield from self._decide(traces_data(spans))

    def see(self, traces: Iterable[Trace]) -> None:
        """Let them pass."""
        deque(self.decide(traces), maxlen=0)

    def _decide(self, body: bytes) -> Iterable[Decision]:
        now_ms = T0_MS + self._now_s * 1000
        harvest = self.assembler.feed([Record(self._offset, now_ms, None, body)])
        self._offset += 1
        self._now_s += 2
        harvest += self.assembler.advance((now_ms + 1500) * 1_000_000)
        decisions = [decision for entries in harvest.decisions for decision in decode_decisions(entries)]
        for fragment in self.assembler.confirm(len(decisions)):
            self.assembler.resolve(fragment.decision, "stored")
        self.assembler.safe_position()
        return decisions

    def kept(self, *traces: Trace) -> list[bool]:
        """Whether each is kept."""
        return [decision.verdict is Verdict.KEEP for decision in self.decide(traces)]


def ordinary(seed: int) -> list[int]:
    """Durations of which 1,900 ms is the 95th percentile, in any order."""
    durations = [*range(1, 2001), *range(1, 2001)]
    Random(seed).shuffle(durations)
    return durations


@pytest.mark.parametrize("kernel", BOTH)
def test_p95_is_within_its_promised_error(kernel: str) -> None:
    """Traces above the 95th percentile by more than a bucket's width are kept, those below it are not."""
    partition = Partition(kernel, P95)
    partition.see([("shop", "op", ms) for ms in ordinary(1)])
    above, below = int(1900 * (1 + BUCKET + STALE)) + 1, int(1900 * (1 - STALE))
    assert partition.kept(*(("shop", "op", ms) for ms in range(above, above + 50))) == [True] * 50
    assert partition.kept(*(("shop", "op", ms) for ms in range(below - 50, below))) == [False] * 50


@pytest.mark.parametrize("kernel", BOTH)
def test_p95_keeps_about_a_twentieth(kernel: str) -> None:
    """Of traffic that stays as it is a twentieth is kept, less what shares the last bucket with the percentile."""
    partition = Partition(kernel, P95)
    partition.see([("shop", "op", ms) for ms in ordinary(2)])
    kept = partition.kept(*(("shop", "op", ms) for ms in ordinary(3)))
    assert 0.05 - BUCKET - STALE < sum(kept) / len(kept) < 0.05 + STALE


@pytest.mark.parametrize("kernel", BOTH)
def test_nobody_is_slow_in_a_cold_start(kernel: str) -> None:
    """Until an operation has been seen often enough, nothing is known that a trace could be slower than."""
    partition = Partition(kernel, P95)
    assert not any(partition.kept(*(("shop", "op", ms) for ms in range(1000, 1100))))
    assert partition.kept(("shop", "op", 5000), ("shop", "op", 1000)) == [True, False]


@pytest.mark.parametrize("kernel", BOTH)
def test_a_service_never_seen_is_judged_by_itself(kernel: str) -> None:
    """One that is slow by nature is not kept for being slower than others, nor do they change by it."""
    partition = Partition(kernel, P95)
    partition.see([("shop", "op", ms) for ms in ordinary(4)])
    assert not any(partition.kept(*[("archive", "op", 60_000)] * 100))
    assert partition.kept(("archive", "op", 60_000), ("archive", "op", 62_000)) == [False, True]
    assert partition.kept(("shop", "op", 2500), ("shop", "op", 1500)) == [True, False]


STATE_BYTES_MAX = 64_000  # of 1,000 operations, the default, with a duration each; 24,000 and 32,000 were seen
MEMORY_BYTES_MAX = 2 << 20  # with them
MEMORY_BYTES_MAX_ALL = 32 << 20  # with room for 100,000 operations; 16 were seen


def strangers(count: int) -> Iterator[Trace]:
    """Traces of so many operations, and of one that comes back."""
    for number in range(count):
        yield f"service-{number % 100}", f"op-{number}", 1 + number % 5000
    yield from [("shop", "op", 10)] * 200


def growth_bytes(partition: Partition) -> int:
    """Resident memory that a hundred thousand operations take; what reading takes anyway is taken before."""
    Partition("native", of("always_sample")).see(strangers(OPERATIONS // 50))
    before = resident_bytes()
    partition.see(strangers(OPERATIONS))
    return resident_bytes() - before


@pytest.mark.parametrize("policy", [P95, EMA], ids=["latency_percentile", "ema_throughput"])
def test_a_hundred_thousand_operations_fit_into_a_stated_memory(policy: dict[str, object]) -> None:
    """However many operations come, a policy holds a thousand and pools the rest: 64 KB of state, 2 MiB in all."""
    partition = Partition("native", policy)
    assert growth_bytes(partition) < MEMORY_BYTES_MAX
    assert 1000 < len(partition.assembler.sampler_state()) < STATE_BYTES_MAX


def test_a_hundred_thousand_operations_may_each_be_remembered() -> None:
    """With room for all of them: 32 MiB, and the one that comes back is judged by itself."""
    partition = Partition("native", P95 | {"latency_percentile": {"min_count": 100, "operations_max": OPERATIONS}})
    assert growth_bytes(partition) < MEMORY_BYTES_MAX_ALL
    assert len(partition.assembler.sampler_state()) > 12 * OPERATIONS
    assert partition.kept(("shop", "op", 11), ("shop", "op", 10)) == [True, False]
