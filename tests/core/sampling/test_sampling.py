"""Policies as they are written and as they vote; the percentile's sketch; the fold that a CHECKPOINT shortens."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core._pure.sampler import Features, Sampler
from spanloom.core.sampling.policies import parse_policies, threshold_of
from spanloom.core.sampling.sketch import bucket_of, quantile_bucket, upper_bound_of
from spanloom.errors import ConfigError
from spanloom.model import NO_POLICY, THRESHOLD_UNKNOWN

MS = 1_000_000
S = 1_000_000_000
PERCENTILE: dict[str, object] = {
    "name": "p95",
    "type": "latency_percentile",
    "latency_percentile": {"percentile": 95, "min_count": 20, "window_s": 600},
}


def sampler(*policies: dict[str, object]) -> Sampler:
    made = Sampler()
    made.configure(parse_policies(policies, version=1))
    return made


def trace(
    *, number: int = 1, error: bool = False, ms: int = 10, operation: int = 7, services: tuple[str, ...] = ("shop",)
) -> Features:
    return Features(number.to_bytes(16, "big"), error, ms * MS, operation, frozenset(services), 1000 * S)


def test_every_vote_counts_and_the_first_voter_decides() -> None:
    """All policies that vote are in the vote set; the first of them is the deciding one; the least threshold stays."""
    made = sampler(
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}},
        {"name": "base", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 50}},
        {"name": "errors", "type": "error"},
    )
    vote = made.judge(trace(number=(1 << 56) - 1, error=True))
    assert (vote.keep, vote.votes, vote.policy, vote.threshold) == (True, 0b110, 1, 0)
    vote = made.judge(trace(number=(1 << 56) - 1))
    assert (vote.votes, vote.policy, vote.threshold) == (0b010, 1, 1 << 55)
    vote = made.judge(trace(number=1))
    assert (vote.keep, vote.votes, vote.policy, vote.threshold) == (False, 0, NO_POLICY, THRESHOLD_UNKNOWN)


def test_latency_keeps_what_lasted_long_enough() -> None:
    """A trace of just the threshold is kept, one a moment shorter is not."""
    made = sampler({"name": "slow", "type": "latency", "latency": {"threshold_ms": 500}})
    assert made.judge(trace(ms=500)).keep
    assert not made.judge(trace(ms=499)).keep


@pytest.mark.parametrize(("service", "kept"), [("pay", True), ("pay-eu", True), ("PAY", False), ("repay", False)])
def test_service_patterns_are_globs_over_every_service(service: str, kept: bool) -> None:
    """A trace is kept when any of its services matches a glob, letter case and both ends included."""
    made = sampler({"name": "money", "type": "service_pattern", "service_pattern": {"services": ["bank", "pay*"]}})
    assert made.judge(trace(services=("shop", service))).keep is kept


@given(st.integers(1, 2**128 - 1), st.floats(0, 100), st.floats(0, 100))
def test_consistent_probabilities_nest(number: int, one: float, other: float) -> None:
    """What a lower probability keeps, every higher one keeps too: sampling twice is sampling once."""
    low, high = sorted((one, other))
    kept = [(number & ((1 << 56) - 1)) >= threshold_of(p) for p in (low, high)]
    assert kept[0] <= kept[1]


def test_consistent_probability_keeps_its_share() -> None:
    """Of 100,000 random traces one in a hundred is kept, within four standard errors."""
    made = sampler(
        {"name": "base", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 1}}
    )
    rng = random.Random(1)
    kept = sum(made.judge(trace(number=rng.getrandbits(128))).keep for _ in range(100_000))
    assert abs(kept - 1000) < 4 * 31.5


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


def test_a_percentile_has_no_vote_before_it_has_seen_enough() -> None:
    """An operation with fewer traces than `min_count` votes for none, however slow."""
    made = sampler(PERCENTILE)
    for _ in range(19):
        made.fold(7, 10 * MS, 1000 * S)
    assert not made.judge(trace(ms=60_000)).keep
    made.fold(7, 10 * MS, 1000 * S)
    assert made.judge(trace(ms=60_000)).keep
    assert not made.judge(trace(ms=60_000, operation=8)).keep


def test_a_percentile_forgets_what_left_its_window() -> None:
    """Two half windows later an operation's traces no longer count."""
    made = sampler(PERCENTILE)
    for _ in range(50):
        made.fold(7, 10 * MS, 1000 * S)
    assert made.judge(trace(ms=100)._replace(stream_ns=1499 * S)).keep
    assert not made.judge(trace(ms=100)._replace(stream_ns=1500 * S)).keep


def test_operations_beyond_the_bound_share_one_sketch() -> None:
    """With `operations_max` operations seen the next ones are judged together, and memory stays bounded."""
    made = sampler({**PERCENTILE, "latency_percentile": {"percentile": 95, "min_count": 20, "operations_max": 2}})
    for operation in range(1, 50):
        made.fold(operation, 10 * MS, 1000 * S)
    assert made.judge(trace(ms=100, operation=49)).keep
    assert not made.judge(trace(ms=100, operation=1)).keep, "it has a sketch of its own, with one trace in it"
    assert len(made.state()) < 200


@given(st.integers(0, 2**32))
def test_a_checkpoint_only_shortens_the_fold(seed: int) -> None:
    """A sampler restored from a checkpoint votes, and goes on folding, as the one that never stopped."""
    rng = random.Random(seed)
    made, restored = sampler(PERCENTILE), sampler(PERCENTILE)
    at = 0
    for step in range(200):
        at += rng.randint(0, 10) * S
        operation, duration = rng.randint(1, 3), int(rng.lognormvariate(2, 1) * MS)
        seen = trace(operation=operation)._replace(duration_ns=duration, stream_ns=at)
        if step == 100:
            restored.restore(made.state())
        if step >= 100:
            assert restored.judge(seen) == made.judge(seen)
            restored.fold(operation, duration, at)
        made.fold(operation, duration, at)
    assert restored.state() == made.state()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ([], "at least one policy"),
        ([{"type": "error"}], "policies[0].name: expected a text"),
        ([{"name": "a", "type": "errors"}], "policies[0].type: expected one of error, latency"),
        ([{"name": "a", "type": "error", "eror": {}}], "found 'eror'"),
        ([{"name": "a", "type": "latency"}], "policies[0].latency.threshold_ms: expected a number from 0"),
        ([{"name": "a", "type": "latency", "latency": {"threshold_ms": "5"}}], "found '5'"),
        ([{"name": "a", "type": "service_pattern", "service_pattern": {"services": []}}], "a list of texts"),
        (
            [{"name": "a", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 101}}],
            "from 0 to 100, found 101",
        ),
        ([{"name": "a", "type": "error"}, {"name": "a", "type": "error"}], "expected a name once"),
        (["error"], "expected a mapping, found 'error'"),
    ],
)
def test_a_wrong_policy_is_refused_with_what_was_expected(written: list[dict[str, object]], said: str) -> None:
    """The error names the policy, the key, what was expected and what stood there."""
    with pytest.raises(ConfigError) as caught:
        parse_policies(written, version=1)
    assert said in str(caught.value)
