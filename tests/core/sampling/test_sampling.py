"""Policies as they vote; the percentile's sketch; the fold that a CHECKPOINT shortens."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core._pure.sampler import Features, Sampler, Vote
from spanloom.core.sampling.policies import RANDOMNESS_END, bend, fnv_threshold_of, threshold_of
from spanloom.core.sampling.sketch import bucket_of, quantile_bucket, upper_bound_of
from spanloom.core.sampling.written import parse_policies
from spanloom.model import NO_POLICY, THRESHOLD_UNKNOWN, Verdict
from tests.core.sampling.judged import MS, S, Seen, Written, decision, features, judge, keeps, of, sampler, traces_data

KEEP, DROP = Verdict.KEEP, Verdict.DROP
ERROR = Seen(status=2)
OK = Seen()
PERCENTILE = of("latency_percentile", percentile=95, min_count=20, window_s=600)
ERRORS = of("status_code", "errors", status_codes=["ERROR"])
SLOW = of("latency", "slow", threshold_ms=500)
ALL = of("always_sample", "all")
HALF = of("consistent_probability", "half", sampling_percentage=50)
HIGH = (1 << 56) - 1  # a trace id with the highest R there is


def inner(policy: Written, name: str) -> Written:
    return {**policy, "name": name}


def test_every_vote_counts_and_the_first_voter_decides() -> None:
    """All policies that vote are in the vote set; the first of them is the deciding one; the least threshold stays."""
    policies = [SLOW, HALF, ERRORS]
    assert judge(policies, ERROR, number=HIGH) == Vote(KEEP, 0b110, 1, 0)
    assert judge(policies, OK, number=HIGH) == Vote(KEEP, 0b010, 1, 1 << 55)
    assert judge(policies, OK, number=1) == Vote(DROP, 0, NO_POLICY, THRESHOLD_UNKNOWN)


def test_drop_policies_are_asked_first_and_end_the_asking() -> None:
    """Wherever it stands, a `drop` that speaks drops the trace, and nobody else is asked."""
    probes = of("drop", "probes", drop_sub_policy=[inner(ERRORS, "a")])
    assert judge([ALL, probes], ERROR) == Vote(DROP, 0b10, 1, THRESHOLD_UNKNOWN)
    assert judge([ALL, probes], OK) == Vote(KEEP, 0b01, 0, 0)


def test_a_drop_policy_needs_all_of_its_policies() -> None:
    """What one of them does not keep is not dropped; alone, a `drop` that does not speak keeps nothing."""
    both = of("drop", "both", drop_sub_policy=[inner(ERRORS, "a"), of("not", "b", not_sub_policy=inner(SLOW, "c"))])
    assert not keeps(both, ERROR)
    assert judge([both, ALL], ERROR).verdict is DROP
    assert judge([both, ALL], OK).verdict is KEEP
    assert judge([both, ALL], Seen(status=2, end_ms=900)).verdict is KEEP
    assert judge([both], OK) == Vote(DROP, 0, NO_POLICY, THRESHOLD_UNKNOWN)


def test_and_needs_all_and_not_turns_around() -> None:
    """`and` keeps what all of its policies keep, `not` what its policy does not."""
    both = of("and", and_sub_policy=[inner(ERRORS, "a"), inner(SLOW, "b")])
    slow = Seen(status=2, end_ms=900)
    assert keeps(both, slow)
    assert not keeps(both, ERROR)
    fast = of("not", not_sub_policy=inner(SLOW, "a"))
    assert keeps(fast, OK)
    assert not keeps(fast, slow)


def test_and_asks_up_to_the_first_no() -> None:
    """A rate behind a policy that says no is not charged, one before it is."""
    rate = of("rate_limiting", "r", spans_per_second=1, burst_capacity=1)
    for order, left in (([ERRORS, rate], 1), ([rate, ERRORS], 0)):
        made = sampler(of("and", and_sub_policy=order), inner(rate, "probe"))
        vote = made.judge(features(), [])
        assert vote.votes & 0b10, "the other bucket is its own"
        assert (vote.votes >> 2 & 1) == 1 - left


def test_composite_asks_no_further_than_the_first_that_keeps() -> None:
    """The first policy that keeps the trace decides with its own rate; no later one gives a second chance."""
    shares = of(
        "composite",
        max_total_spans_per_second=100,
        composite_sub_policy=[inner(ERRORS, "errors"), inner(ALL, "rest")],
        rate_allocation=[{"policy": "errors", "percent": 2}, {"policy": "rest", "percent": 50}],
    )
    made = sampler(shares)
    errors, other = _chunk(ERROR), _chunk(OK)
    assert made.judge(features(spans=2), errors).verdict is KEEP
    assert made.judge(features(spans=1), errors).verdict is DROP, "two spans a second are spent"
    assert made.judge(features(spans=50), other).verdict is KEEP
    assert made.judge(features(spans=1), other).verdict is DROP


def _chunk(*spans: Seen) -> list[bytes]:
    return [traces_data(*spans)]


@pytest.mark.parametrize(
    ("allocation", "kept"),
    [([], False), ([{"policy": "rest", "percent": 1}], True), ([{"policy": "rest", "percent": 0}], True)],
)
def test_composite_without_an_allocation_keeps_nothing(allocation: list[Written], *, kept: bool) -> None:
    """A policy that is not allotted anything never keeps; one allotted 0 or less has an equal part."""
    shares = of(
        "composite",
        max_total_spans_per_second=100,
        composite_sub_policy=[inner(ALL, "rest")],
        rate_allocation=allocation,
    )
    assert keeps(shares, OK) is kept


def test_composite_asks_in_the_order_of_its_policies() -> None:
    """`policy_order` is read and not followed, as in the Collector."""
    shares = of(
        "composite",
        max_total_spans_per_second=100,
        policy_order=["rest", "errors"],
        composite_sub_policy=[inner(ERRORS, "errors"), inner(ALL, "rest")],
        rate_allocation=[{"policy": "rest", "percent": 100}],
    )
    assert not keeps(shares, ERROR), "the errors come first, and have no allotment"


@pytest.mark.parametrize(("spans", "kept"), [(1, False), (2, True), (3, True), (4, False)])
def test_spans_are_counted(spans: int, *, kept: bool) -> None:
    """At least and at most so many spans."""
    assert keeps(of("span_count", min_spans=2, max_spans=3), *[OK] * spans) is kept
    assert keeps(of("span_count", min_spans=2), *[OK] * spans) is (spans >= 2)


def _fnv(data: bytes) -> int:
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % (1 << 64)
    return value


@given(st.integers(1, 2**128 - 1), st.sampled_from([0.0, 0.1, 10.0, 50.0, 99.9, 100.0, 250.0]), st.text(max_size=5))
def test_probabilistic_is_fnv_of_salt_and_id(number: int, percentage: float, salt: str) -> None:
    """A trace is kept iff FNV-1a-64 of salt and id is at most that part of 2^64 - 1."""
    hashed = _fnv((salt or "default-hash-seed").encode() + number.to_bytes(16, "big"))
    policy = of("probabilistic", hash_salt=salt, sampling_percentage=percentage)
    assert keeps(policy, OK, number=number) is (hashed <= fnv_threshold_of(percentage))


@pytest.mark.parametrize(
    ("percentage", "threshold"),
    [(0, 0), (100, 2**64 - 1), (1000, 2**64 - 1), (50, 2**63 - 1), (0.1, 18446744073709551), (1e-17, 1), (1e-300, 0)],
)
def test_the_fnv_threshold_is_rounded_as_the_collector_rounds(percentage: float, threshold: int) -> None:
    """The ratio times 2^64 - 1, in 64 bits of mantissa, then cut off."""
    assert fnv_threshold_of(percentage) == threshold


@given(st.floats(0, 100))
def test_a_rate_of_one_bends_nothing(percentage: float) -> None:
    """At rate 1 a threshold stays what it was, to the last bit."""
    assert bend(threshold_of(percentage), 1.0) == threshold_of(percentage)


@given(st.integers(1, 2**128 - 1), st.floats(0, 100), st.floats(0, 100))
def test_consistent_probabilities_nest(number: int, one: float, other: float) -> None:
    """What a lower probability keeps, every higher one keeps too: sampling twice is sampling once."""
    low, high = sorted((one, other))
    kept = [(number & ((1 << 56) - 1)) >= threshold_of(p) for p in (low, high)]
    assert kept[0] <= kept[1]


def test_consistent_probability_keeps_its_share() -> None:
    """Of 100,000 random traces one in a hundred is kept, within four standard errors."""
    made = sampler(of("consistent_probability", sampling_percentage=1))
    rng = random.Random(1)
    kept = sum(made.judge(features(number=rng.getrandbits(128)), []).verdict is KEEP for _ in range(100_000))
    assert abs(kept - 1000) < 4 * 31.5


def test_randomness_is_taken_from_the_trace_state() -> None:
    """The first well-formed `rv` of a span stands in for the id's bits."""
    high, low = Seen(trace_state="ot=rv:ffffffffffffff"), Seen(trace_state="ot=rv:00000000000000")
    assert keeps(HALF, OK, high, low, number=1)
    assert not keeps(HALF, OK, low, high, number=HIGH)
    assert keeps(HALF, Seen(trace_state="ot=rv:0"), number=HIGH)


def test_the_rate_bends_a_consistent_probability() -> None:
    """At rate one half a policy keeps half of what it kept, the same traces among them."""
    made = sampler(HALF)
    assert bend(threshold_of(50), 0.5) == threshold_of(25)
    made.set_rate(0.5)
    vote = made.judge(features(number=threshold_of(25)), [])
    assert (vote.verdict, vote.threshold) == (KEEP, threshold_of(25))
    assert made.judge(features(number=threshold_of(25) - 1), []).verdict is DROP
    assert bend(THRESHOLD_UNKNOWN, 1.0) == THRESHOLD_UNKNOWN
    assert bend(0, 0.0) == RANDOMNESS_END


@pytest.mark.parametrize(
    ("policies", "threshold"),
    [
        ([ERRORS], 0),
        ([of("and", and_sub_policy=[inner(ERRORS, "e"), inner(HALF, "h")])], 1 << 55),
        ([of("and", and_sub_policy=[of("probabilistic", "p", sampling_percentage=100)])], THRESHOLD_UNKNOWN),
        ([of("probabilistic", "p", sampling_percentage=100), HALF], 1 << 55),
        ([of("rate_limiting", "r", spans_per_second=9), ERRORS], 0),
        ([of("rate_limiting", "r", spans_per_second=9)], THRESHOLD_UNKNOWN),
        ([of("not", not_sub_policy=of("probabilistic", "p", sampling_percentage=0))], THRESHOLD_UNKNOWN),
        ([of("not", not_sub_policy=inner(SLOW, "s"))], 0),
        ([ERRORS, of("drop", drop_sub_policy=[of("probabilistic", "p", sampling_percentage=0)])], THRESHOLD_UNKNOWN),
        (
            [ERRORS, of("drop", drop_sub_policy=[inner(SLOW, "s"), of("probabilistic", "p", sampling_percentage=0)])],
            0,
        ),
    ],
)
def test_the_threshold_is_known_where_no_other_chance_has_a_part(policies: list[Written], threshold: int) -> None:
    """What a kept error trace stands for: itself, 1/p, or nobody knows (rates, salted hashes, a drop by chance)."""
    vote = judge(policies, ERROR, number=HIGH)
    assert (vote.verdict, vote.threshold) == (KEEP, threshold)


@given(st.integers(0, 2**64 - 1))
def test_a_bucket_is_less_than_a_sixty_fourth_wide(duration: int) -> None:
    """A bucket's upper bound is never below the duration and never 1/64 above it."""
    upper = upper_bound_of(bucket_of(duration))
    assert duration <= upper <= duration * (1 + 1 / 64)
    assert bucket_of(upper) == bucket_of(duration)
    assert bucket_of(upper + 1) == bucket_of(duration) + 1


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=300), st.integers(1, 9999))
def test_quantiles_are_within_the_promised_error(durations: list[int], basis_points: int) -> None:
    """A sketch's quantile lies in the bucket of the true one."""
    counts: dict[int, int] = {}
    for duration in durations:
        counts[bucket_of(duration)] = counts.get(bucket_of(duration), 0) + 1
    rank = max(1, -(-len(durations) * basis_points // 10_000))
    assert quantile_bucket(counts, basis_points) == bucket_of(sorted(durations)[rank - 1])


NOBODY = Vote(DROP, 0, NO_POLICY, THRESHOLD_UNKNOWN)


def fold(made: Sampler, seen: Features) -> None:
    made.fold(decision(seen, NOBODY), is_ours=True)


def is_kept(made: Sampler, seen: Features) -> bool:
    return made.judge(seen, []).verdict is KEEP


def test_a_percentile_has_no_vote_before_it_has_seen_enough() -> None:
    """An operation with fewer traces than `min_count` votes for none, however slow."""
    made = sampler(PERCENTILE)
    for _ in range(19):
        fold(made, features())
    assert not is_kept(made, features(ms=60_000))
    fold(made, features())
    assert is_kept(made, features(ms=60_000))
    assert not is_kept(made, features(ms=60_000, operation=8))


def test_a_percentile_forgets_what_left_its_window() -> None:
    """Two half windows later an operation's traces no longer count."""
    made = sampler(PERCENTILE)
    for _ in range(50):
        fold(made, features())
    assert is_kept(made, features(ms=100, at_s=1499))
    assert not is_kept(made, features(ms=100, at_s=1500))


def test_operations_beyond_the_bound_share_one_sketch() -> None:
    """With `operations_max` operations seen the next ones are judged together, and memory stays bounded."""
    made = sampler(of("latency_percentile", percentile=95, min_count=20, operations_max=2))
    for operation in range(1, 50):
        fold(made, features(operation=operation))
    assert is_kept(made, features(ms=100, operation=49))
    assert not is_kept(made, features(ms=100, operation=1)), "it has a sketch of its own, with one trace in it"
    assert len(made.state()) < 200


@given(st.integers(0, 2**32))
def test_a_checkpoint_only_shortens_the_fold(seed: int) -> None:
    """A sampler restored from a checkpoint votes, and goes on folding, as the one that never stopped."""
    rng = random.Random(seed)
    policies = (
        PERCENTILE,
        of("rate_limiting", spans_per_second=3),
        of("ema_throughput", goal_spans_per_second=2, interval_s=5),
    )
    made, restored = sampler(*policies), sampler(*policies)
    at_ns = 1000 * S
    for step in range(100):
        at_ns += rng.randint(0, 3) * S
        duration_ns = int(rng.lognormvariate(2, 1) * MS)
        seen = features(number=rng.getrandbits(128), operation=rng.randint(1, 3), spans=rng.randint(1, 9))
        seen = seen._replace(duration_ns=duration_ns, stream_ns=at_ns)
        if step == 50:
            restored.restore(made.state())
        vote = made.judge(seen, [])
        if step >= 50:
            assert restored.judge(seen, []) == vote
            restored.fold(decision(seen, vote), is_ours=True)
        made.fold(decision(seen, vote), is_ours=True)
    assert restored.state() == made.state()


@given(st.integers(0, 2**32))
def test_a_successor_s_fold_charges_what_was_charged(seed: int) -> None:
    """Who reads the decisions of an earlier owner has, after them, the state of that owner, byte for byte."""
    rng = random.Random(seed)
    policies = (
        of("and", and_sub_policy=[ERRORS, of("rate_limiting", "r", spans_per_second=4)]),
        of("bytes_limiting", bytes_per_second=300),
        of(
            "composite",
            max_total_spans_per_second=10,
            composite_sub_policy=[ERRORS, of("rate_limiting", "r", spans_per_second=3), ALL],
            rate_allocation=[{"policy": name, "percent": 30} for name in ("errors", "r", "all")],
        ),
        of("drop", drop_sub_policy=[of("rate_limiting", "r", spans_per_second=1), of("trace_flags", "f")]),
        of("ema_throughput", goal_spans_per_second=2, interval_s=5),
    )
    owner, successor = sampler(*policies), sampler(*policies)
    at_s = 1000.0
    for _ in range(100):
        at_s += rng.random()
        seen = features(number=rng.getrandbits(128), operation=rng.randint(1, 3), spans=rng.randint(1, 9), at_s=at_s)
        vote = owner.judge(seen, _chunk(rng.choice((ERROR, OK, Seen(flags=1)))))
        owner.fold(decision(seen, vote), is_ours=True)
        successor.fold(decision(seen, vote), is_ours=False)
        assert successor.state() == owner.state()


def test_a_policy_that_stays_keeps_what_it_gathered() -> None:
    """A new version of the policies forgets nothing of those that are in it unchanged, wherever they stand in it."""
    rate = of("rate_limiting", spans_per_second=1, burst_capacity=5)
    made = sampler(PERCENTILE, rate)
    for _ in range(20):
        fold(made, features())
    assert made.judge(features(spans=5), []).verdict is KEEP
    made.configure(parse_policies([rate, ERRORS, PERCENTILE], version=2))
    assert made.judge(features(ms=60_000), []).votes == 0b100
