"""Rates: token buckets that a partition has its part of, and the shares of an EMA throughput policy."""

import random
from collections import Counter
from math import isqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core._pure.rates import US_PER_S, Shares, TokenBucket
from spanloom.core.sampling.policies import RANDOMNESS_END, EmaThroughputPolicy
from spanloom.core.sampling.program import Bucket

S = 1_000_000_000
T0 = 1000 * S


def bucket(per_second: int, burst: int, *, partition_count: int = 1, by_bytes: bool = False) -> TokenBucket:
    return TokenBucket(Bucket("b", per_second, burst, by_bytes, charge=0), partition_count)


def test_a_full_bucket_gives_its_burst_and_then_its_rate() -> None:
    """The burst at once, then what has come in since, to the microsecond."""
    made = bucket(10, 20)
    assert made.take(20, 0, T0)
    assert not made.take(1, 0, T0)
    assert not made.take(1, 0, T0 + S // 10 - 1000)
    assert made.take(1, 0, T0 + S // 10)
    assert not made.take(20, 0, T0 + S // 10 + 2 * S - 1000)
    assert made.take(20, 0, T0 + S // 10 + 2 * S)


def test_a_trace_larger_than_the_burst_never_passes() -> None:
    """As in the Collector: however full the bucket."""
    made = bucket(10, 20)
    assert not made.take(21, 0, T0)
    assert made.take(20, 0, T0)


def test_who_may_not_pass_leaves_no_mark() -> None:
    """A refusal changes nothing: a fold does not see it."""
    made = bucket(10, 20)
    made.take(15, 0, T0)
    before = made.encode()
    assert not made.take(15, 0, T0 + S // 2)
    assert made.encode() == before


def test_bytes_are_counted_where_bytes_are_meant() -> None:
    """A bucket of bytes looks at the trace's size, one of spans at their number."""
    assert not bucket(10, 20, by_bytes=True).take(1, 21, T0)
    assert bucket(10, 20, by_bytes=True).take(1_000_000, 20, T0)


def test_time_does_not_run_backwards() -> None:
    """A trace that was due earlier than the last one finds what is left, and refills nothing twice."""
    made = bucket(10, 10)
    assert made.take(9, 0, T0 + S)
    assert made.take(1, 0, T0), "what is left"
    assert not made.take(1, 0, T0)
    assert not made.take(1, 0, T0 + S), "the second between was filled in once"
    assert made.take(1, 0, T0 + S + S // 10)
    assert not made.take(1, 0, T0 + S + S // 10)


def test_a_rate_of_nothing_keeps_nothing() -> None:
    """0 a second with the default burst never lets a trace pass."""
    assert not bucket(0, 0).take(1, 0, T0 * 10)


def test_a_partition_s_part_lets_a_large_trace_pass_and_pays_it_off() -> None:
    """A trace larger than a part's burst takes what is not there; the next one passes once that has come in."""
    made = bucket(100, 200, partition_count=10)  # a part: 10 a second, burst 20
    assert made.take(120, 0, T0), "within the fleet's burst"
    assert not made.take(1, 0, T0 + 10 * S)
    assert made.take(1, 0, T0 + 10 * S + S // 10), "one token is there"
    assert not made.take(100, 0, T0 + 10 * S + S // 5)
    assert made.take(100, 0, T0 + 10 * S + 3 * S // 10), "two are: a tenth of what the part can hold"


def test_a_part_holds_one_token_at_least() -> None:
    """The stated floor: where a part's burst were less than one span, it is one."""
    made = bucket(1, 2, partition_count=100)
    assert made.take(1, 0, T0)
    assert not made.take(1, 0, T0 + S - 1000)
    assert made.take(1, 0, T0 + S), "a hundredth of it is there"
    assert not made.take(1, 0, T0 + 101 * S - 1000)
    assert made.take(1, 0, T0 + 101 * S)


@pytest.mark.parametrize("partition_count", [1, 4, 100])
def test_the_fleet_keeps_to_its_budget(partition_count: int) -> None:
    """Over ten minutes, of half as much again or of far too much traffic, partitions keep the rate within 5 %."""
    for overload in (1.5, 8):
        parts = [bucket(500, 1000, partition_count=partition_count) for _ in range(partition_count)]
        rng = random.Random(1)
        kept, at = 0, T0
        while at < T0 + 600 * S:
            at += int(rng.expovariate(overload * 500 / 20.5) * S)
            spans = rng.randint(1, 40)
            kept += spans * parts[rng.randrange(partition_count)].take(spans, 0, at)
        assert 0.95 * 500 * 600 <= kept <= 1.05 * 500 * 600, overload


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3 * S)), max_size=60), st.integers(1, 5))
def test_a_bucket_is_never_over_its_rate(traces: list[tuple[int, int]], partition_count: int) -> None:
    """In any stretch of time no more passes than the rate, what a part can hold and one trace beyond them."""
    made = bucket(7, 50, partition_count=partition_count)
    at, passed = T0, []
    for spans, wait in traces:
        at += wait
        if made.take(spans, 0, at):
            passed.append((at, spans))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            micros = (passed[last][0] - passed[first][0]) // 1000 + 1
            most = (7 * micros + 50 * isqrt(partition_count) * US_PER_S) / (US_PER_S * partition_count) + 50
            assert sum(spans for _, spans in passed[first : last + 1]) <= most


def test_a_bucket_s_state_is_read_back() -> None:
    """Level and time of a bucket survive a CHECKPOINT, debt included."""
    made = bucket(100, 200, partition_count=10)
    made.take(120, 0, T0)
    read = bucket(100, 200, partition_count=10)
    assert read.decode(b"??" + made.encode(), 2) == 18
    assert read.encode() == made.encode()
    assert read.level < 0


# EMA throughput.


def shares(goal: int, *, operations_max: int = 100, weight: int = 128, partition_count: int = 1) -> Shares:
    return Shares(EmaThroughputPolicy("ema", goal, 10 * S, weight, operations_max), partition_count)


def probability(made: Shares, operation: int, at: int) -> float:
    return 1 - made.threshold(operation, at) / RANDOMNESS_END


def test_an_operation_not_seen_before_is_kept() -> None:
    """Nothing is known of it: its first traces show what is normal."""
    made = shares(1)
    made.fold(1, 1000, T0)
    assert probability(made, 2, T0) == 1
    assert probability(made, 1, T0) == 1, "its interval is not over"


def test_a_rare_operation_is_kept_whole_and_a_frequent_one_pays() -> None:
    """What a rare operation leaves of its share goes to the others, and the goal is met."""
    made = shares(10)
    for operation, spans in ((1, 5), (2, 500), (3, 50_000)):
        made.fold(operation, spans, T0)
    kept = {operation: probability(made, operation, T0 + 10 * S) for operation in (1, 2, 3)}
    assert kept[1] == 1
    assert 1 > kept[2] > kept[3] > 0
    assert kept[1] * 5 + kept[2] * 500 + kept[3] * 50_000 == pytest.approx(100, rel=1e-3)


@given(st.dictionaries(st.integers(1, 2**64 - 1), st.integers(1, 10**7), min_size=1, max_size=50), st.integers(1, 1000))
def test_the_shares_never_exceed_the_goal(spans: dict[int, int], goal: int) -> None:
    """Whatever the traffic was, kept at its probabilities it comes to the goal, or to all there was."""
    made = shares(goal)
    for operation, count in spans.items():
        made.fold(operation, count, T0)
    kept = sum(count * probability(made, operation, T0 + 10 * S) for operation, count in spans.items())
    assert kept <= min(10 * goal, sum(spans.values())) * 1.000001
    assert kept >= min(10 * goal, sum(spans.values())) * 0.99


def test_averages_follow_the_traffic_by_their_weight() -> None:
    """With a weight of a half, half of what was is left after each interval; a silent operation is forgotten."""
    made = shares(10)
    made.fold(1, 1000, T0)
    made.threshold(1, T0 + 10 * S)
    assert made.averages == {1: 1000 << 16}
    made.threshold(1, T0 + 20 * S)
    assert made.averages == {1: 500 << 16}
    made.fold(1, 100, T0 + 20 * S)
    made.threshold(1, T0 + 30 * S)
    assert made.averages == {1: 300 << 16}
    made.threshold(1, T0 + 10_000 * S)
    assert made.averages == {}


def test_operations_beyond_the_bound_share_one_probability() -> None:
    """What comes after the first `operations_max` is averaged together, and the state stays bounded."""
    made = shares(1, operations_max=2)
    for operation in range(1, 50):
        made.fold(operation, 1000, T0)
    assert probability(made, 1, T0 + 10 * S) == probability(made, 2, T0 + 10 * S)
    assert probability(made, 30, T0 + 10 * S) == probability(made, 49, T0 + 10 * S) < probability(made, 1, T0 + 10 * S)
    assert len(made.encode()) == 12 + 3 * 32


def test_a_partition_has_its_part_of_the_goal() -> None:
    """Of ten partitions each keeps a tenth of the goal."""
    alone, part = shares(10), shares(10, partition_count=10)
    for made in (alone, part):
        made.fold(1, 1000, T0)
    assert probability(part, 1, T0 + 10 * S) == pytest.approx(probability(alone, 1, T0 + 10 * S) / 10)


@given(st.integers(0, 2**32))
def test_shares_are_read_back(seed: int) -> None:
    """State written and read again, at any moment, makes no difference to what follows."""
    rng = random.Random(seed)
    made, at = shares(3, operations_max=4), T0
    seen = Counter[int]()
    for _ in range(40):
        at += rng.choice((0, S, 9 * S, 30 * S, 700 * S))
        operation = rng.randint(1, 6)
        read = shares(3, operations_max=4)
        state = made.encode()
        assert read.decode(state, 0) == len(state)
        assert read.threshold(operation, at) == made.threshold(operation, at)
        made.fold(operation, rng.randint(1, 100), at)
        seen[operation] += 1
    assert len(made.averages.keys() | made.spans.keys()) <= 5
