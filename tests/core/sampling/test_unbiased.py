"""What kept traces tell of all traces: each stands for as many as its document says, and the sums come out right.

An estimate is unbiased if over many drawings it is off by no more than chance allows. So ten populations are drawn by
their seeds, judged, and their errors added up; the sum must lie within three of its standard errors, which follow from
the counts themselves: a trace that stands for w others and weighs x adds w (w - 1) x² to the variance.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random

import pytest

from spanloom.core._pure.assembler import Assembler
from spanloom.core.assembly import Limits
from spanloom.core.document import build_document
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Record
from tests.core.kernels import BOTH, assembler_class
from tests.core.sampling.judged import START_MS, S, Seen, Written, of, traces_data

SEEDS = range(10)
TRACES = 1500  # of a seed
SPREAD_S = 60  # over which they begin
STANDARD_ERRORS_MAX = 3


@dataclass(frozen=True, slots=True)
class Truth:
    """What a trace was, whether anybody kept it or not."""

    trace_id: bytes
    service: str
    at_s: float
    seconds: float
    spans: int
    error: bool
    gold: bool
    health: bool
    upstream: bool  # half of these were kept before they came here, consistently, and say so
    rv: int | None

    @property
    def randomness(self) -> int:
        return int.from_bytes(self.trace_id[-7:], "big") if self.rv is None else self.rv

    @property
    def arrives(self) -> bool:
        return not self.upstream or self.randomness >= 1 << 55

    def body(self) -> bytes:
        """Its spans as they arrive: one resource, the first span lasts as long as the trace."""
        fields = (["th:8"] if self.upstream else []) + ([] if self.rv is None else [f"rv:{self.rv:014x}"])
        state = f"ot={';'.join(fields)}" if fields else ""
        start_ms = self.at_s * 1000
        attributes = {"tier": "gold"} if self.gold else {}
        first = Seen(
            attributes | ({"route": "/healthz"} if self.health else {}),
            {"service.name": self.service},
            status=2 if self.error else 0,
            trace_state=state,
            start_ms=start_ms,
            end_ms=start_ms + self.seconds * 1000,
        )
        rest = [Seen({}, first.resource, trace_state=state, start_ms=start_ms, end_ms=start_ms)] * (self.spans - 1)
        return traces_data(first, *rest, number=int.from_bytes(self.trace_id, "big"))


@cache
def population(seed: int) -> list[Truth]:
    """All traces of a seed, in order of time. Slow ones fail more often; a few services have most traces."""
    random = Random(seed)
    drawn = []
    for _ in range(TRACES):
        seconds = min(random.lognormvariate(-2, 1), 20)
        drawn.append(
            Truth(
                trace_id=random.randbytes(16),
                service=f"service-{min(int(random.expovariate(0.5)), 9)}",
                at_s=random.random() * SPREAD_S,
                seconds=seconds,
                spans=random.choice((1, 1, 2, 3)),
                error=random.random() < (0.2 if seconds > 0.5 else 0.03),
                gold=random.random() < 0.3,
                health=random.random() < 0.2,
                upstream=random.random() < 0.3,
                rv=random.randrange(1 << 56) if random.random() < 0.2 else None,
            )
        )
    return sorted(drawn, key=lambda trace: trace.at_s)


MEASURES: Mapping[str, Callable[[Truth], float]] = {
    "traces": lambda trace: 1,
    "spans": lambda trace: trace.spans,
    "errors": lambda trace: trace.error,
    "seconds": lambda trace: trace.seconds,
    "traces in the second quarter of a minute": lambda trace: 15 <= trace.at_s < 30,
    "traces of the busiest service": lambda trace: trace.service == "service-0",
    "traces of the rarer services": lambda trace: trace.service > "service-3",
}

ERRORS, SLOW = of("error", "errors"), of("latency", "slow", threshold_ms=1000)
HEALTH = of("string_attribute", "health", key="route", values=["/healthz"])
GOLD = of("string_attribute", "gold", key="tier", values=["gold"])


def consistent(percentage: float, name: str = "consistent") -> Written:
    return of("consistent_probability", name, sampling_percentage=percentage)


EMA = of("ema_throughput", "ema", goal_spans_per_second=15, interval_s=5)
MIXES: Mapping[str, list[Written]] = {
    "a baseline beside errors and slow ones": [ERRORS, SLOW, consistent(5)],
    "two in a row": [of("and", "both", and_sub_policy=[consistent(40, "a"), GOLD]), consistent(8)],
    "what throughput allows": [EMA, ERRORS],
    "a percentile": [of("latency_percentile", "p", percentile=90, min_count=20, window_s=60), consistent(10)],
    "a rate beside": [of("rate_limiting", "r", spans_per_second=5), consistent(12)],
    "chance with a salt beside": [of("probabilistic", "fnv", sampling_percentage=30), consistent(10), SLOW],
    "a drop that is sure": [of("drop", "d", drop_sub_policy=[HEALTH]), ERRORS, consistent(20)],
    "a drop by chance": [
        of("drop", "d", drop_sub_policy=[HEALTH, of("probabilistic", "c", sampling_percentage=50)]),
        ERRORS,
        consistent(20),
    ],
}
WITHOUT_HEALTH = ("a drop that is sure", "a drop by chance")


Counts = dict[bytes, float | None]  # what the documents of the kept traces say


@cache
def records(seed: int) -> list[Record]:
    """The population as it arrives, one record a trace."""
    arriving = [trace for trace in population(seed) if trace.arrives]
    return [Record(n, START_MS + int(trace.at_s * 1000), None, trace.body()) for n, trace in enumerate(arriving)]


def kept(assembler: Assembler, arriving: list[Record]) -> Counts:
    """Let them be judged."""
    counts: Counts = {}
    for at in range(0, len(arriving), 50):
        counts |= _counts(assembler, _decided(assembler.feed(arriving[at : at + 50]).decisions))
    return counts | _counts(assembler, _decided(assembler.advance((START_MS + 3600_000) * 1_000_000).decisions))


def _decided(bodies: tuple[bytes, ...]) -> int:
    return sum(int.from_bytes(body[:4], "little") for body in bodies)


def _counts(assembler: Assembler, decided: int) -> Counts:
    found: Counts = {}
    for fragment in assembler.confirm(decided):
        document = build_document(fragment, incarnation="i", partition=0, policy_names=())
        count = document.verdict["adjusted_count"]
        assert count is None or isinstance(count, float)
        found[fragment.decision.trace_id] = count
    return found


Judged = list[tuple[list[Truth], Counts]]  # a population and what was kept of it, by seed


def judged(kernel: str, mix: str, *, rate: float = 1.0) -> Judged:
    """The ten populations under the policies of that name."""
    drawings = []
    for seed in SEEDS:
        assembler = assembler_class(kernel)(Limits(quiet_ns=S, idle_ns=S), partition=0, partition_count=1)
        assembler.configure(parse_policies(MIXES[mix], version=1))
        assembler.set_rate(rate)
        drawings.append((population(seed), kept(assembler, records(seed))))
    return drawings


def standard_errors_off(drawings: Judged, measure: Callable[[Truth], float]) -> float:
    """By how many standard errors the estimates are off, together."""
    off = variance = 0.0
    for truth, counts in drawings:
        for trace in truth:
            count, weight = counts.get(trace.trace_id) or 0.0, measure(trace)
            off += (count - 1) * weight
            variance += count * (count - 1) * weight * weight
    return off / math.sqrt(variance) if variance else math.copysign(math.inf, off) if off else 0.0


def biases(drawings: Judged) -> Iterator[str]:
    """The measures that chance does not explain."""
    for name, measure in MEASURES.items():
        off = standard_errors_off(drawings, measure)
        if abs(off) > STANDARD_ERRORS_MAX:
            yield f"{name}: {off:+.1f} standard errors"


def without(drawings: Judged, *, health: bool) -> Judged:
    """Leave those traces out of the populations."""
    return [([trace for trace in truth if trace.health is not health], counts) for truth, counts in drawings]


@pytest.mark.parametrize("kernel", BOTH)
@pytest.mark.parametrize("mix", MIXES)
def test_estimates_are_unbiased(kernel: str, mix: str) -> None:
    """Numbers, rates and durations that kept traces tell of all traces are right but for chance."""
    drawings = judged(kernel, mix)
    if mix in WITHOUT_HEALTH:
        drawings = without(drawings, health=True)
    assert list(biases(drawings)) == []
    assert any(count and count > 2 for _, counts in drawings for count in counts.values())


@pytest.mark.parametrize("kernel", BOTH)
def test_estimates_are_unbiased_under_load(kernel: str) -> None:
    """Where load bends the probabilities, kept traces stand for more."""
    assert list(biases(judged(kernel, "a baseline beside errors and slow ones", rate=0.5))) == []


def test_what_chance_might_have_dropped_is_of_unknown_count() -> None:
    """A drop by chance tells nobody its probability: no number is made up for what it let pass."""
    for truth, counts in judged("pure", "a drop by chance"):
        passed = [counts[trace.trace_id] for trace in truth if trace.health and trace.trace_id in counts]
        assert passed
        assert set(passed) == {None}


def _fewer_slow(trace: Truth, count: float | None) -> float | None:
    """Loses a part of the slow traces and says nothing of it."""
    return None if trace.seconds > 0.3 and trace.trace_id[0] < 64 else count


def _too_small(trace: Truth, count: float | None) -> float | None:
    """Keeps fewer than its threshold says."""
    return None if trace.trace_id[0] < 32 else count


def _guessing(trace: Truth, count: float | None) -> float | None:
    """Takes an unknown count for one."""
    return count or 1.0


def _deaf(trace: Truth, count: float | None) -> float | None:
    """Does not hear what upstream says of its own sampling."""
    return count / 2 if count and trace.upstream else count


@pytest.mark.parametrize("sampler", [_fewer_slow, _too_small, _guessing, _deaf])
def test_a_biased_sampler_is_found_out(sampler: Callable[[Truth, float | None], float | None]) -> None:
    """A sampler that prefers some traces, or lies about its probability, does not pass."""
    drawings = judged("pure", "chance with a salt beside" if sampler is _guessing else "what throughput allows")
    biased: Judged = []
    for truth, counts in drawings:
        by_id = {trace.trace_id: trace for trace in truth}
        biased.append((truth, {trace_id: sampler(by_id[trace_id], count) for trace_id, count in counts.items()}))
    assert list(biases(biased))
