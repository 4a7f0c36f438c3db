"""The rate's hysteresis: down under lasting load, up when it is gone, still in between."""

from random import Random

import pytest

from spanloom.core.sampling.adaptive import AdaptiveRate, Bend, BendRule, Cause, LoadSample

CPU = frozenset({Cause.CPU})
BOTH = frozenset(Cause)


def fed(rate: AdaptiveRate, seconds: range, sample: LoadSample) -> list[tuple[int, Bend]]:
    """What changes while *sample* is measured each second."""
    bends = [(second, rate.feed(float(second), sample)) for second in seconds]
    return [(second, bend) for second, bend in bends if bend is not None]


def test_load_above_the_threshold_halves_the_rate_and_again() -> None:
    """After three seconds, then after three more, until there is nothing left to win."""
    rate = AdaptiveRate(BendRule(CPU))
    changes = fed(rate, range(60), LoadSample(0.9))
    assert changes[:2] == [(3, Bend(0.5, Cause.CPU, 0.9)), (6, Bend(0.25, Cause.CPU, 0.9))]
    assert (rate.factor, len(changes)) == (1 / 64, 6)


@pytest.mark.parametrize("load", [0.8, 0.7, 0.6])
def test_between_the_thresholds_nothing_changes(load: float) -> None:
    """A load that is neither high nor low leaves the rate as it is, bent or not."""
    rate = AdaptiveRate(BendRule(CPU))
    assert fed(rate, range(100), LoadSample(load)) == []
    fed(rate, range(100, 104), LoadSample(0.9))
    assert fed(rate, range(104, 1000), LoadSample(load)) == []
    assert rate.factor == 0.5


def test_the_rate_comes_back_slowly_when_the_load_is_gone() -> None:
    """Thirty seconds below the lower threshold for each doubling, up to what it was."""
    rate = AdaptiveRate(BendRule(CPU))
    fed(rate, range(7), LoadSample(1.0))
    changes = fed(rate, range(7, 200), LoadSample(0.1))
    assert [(second, bend.factor) for second, bend in changes] == [(37, 0.5), (67, 1.0)]


def test_a_burst_is_not_a_load() -> None:
    """A sample that breaks the series begins it anew, in both directions."""
    rate = AdaptiveRate(BendRule(CPU))
    for second in range(100):
        assert rate.feed(float(second), LoadSample(0.5 if second % 3 == 2 else 1.0)) is None
    fed(rate, range(100, 104), LoadSample(1.0))
    for second in range(104, 400):
        assert rate.feed(float(second), LoadSample(0.7 if second % 20 == 0 else 0.1)) is None


def test_only_what_is_watched_counts_and_the_busier_is_the_cause() -> None:
    """Memory bends nothing where CPU alone is watched; with both, the higher one is named."""
    assert fed(AdaptiveRate(BendRule(CPU)), range(10), LoadSample(0.1, 0.99)) == []
    assert fed(AdaptiveRate(BendRule(BOTH)), range(4), LoadSample(0.85, 0.99)) == [(3, Bend(0.5, Cause.MEMORY, 0.99))]
    assert fed(AdaptiveRate(BendRule(BOTH)), range(10), LoadSample(None, None)) == []
    assert fed(AdaptiveRate(BendRule(BOTH)), range(4), LoadSample(None, 0.9)) == [(3, Bend(0.5, Cause.MEMORY, 0.9))]


def test_both_must_be_low_for_the_rate_to_come_back() -> None:
    """CPU that is free again does not help a memory that is full."""
    rate = AdaptiveRate(BendRule(BOTH))
    fed(rate, range(4), LoadSample(0.9, 0.7))
    assert fed(rate, range(4, 200), LoadSample(0.1, 0.7)) == []


@pytest.mark.parametrize("seed", range(50))
def test_the_factor_stays_a_power_of_two_within_its_bounds_at_any_interval(seed: int) -> None:
    """Whatever is measured, however often, steps are halvings and doublings, never two within the time they take."""
    rng, rule = Random(seed), BendRule(BOTH)
    rate, now_s, last_s, before = AdaptiveRate(rule), 0.0, -100.0, 1.0
    for _ in range(2000):
        now_s += rng.random() * 3
        sample = LoadSample(rng.choice([None, rng.random()]), rng.choice([None, rng.random() ** 0.2]))
        bend = rate.feed(now_s, sample)
        if bend:
            assert rule.factor_min <= bend.factor <= 1
            assert bend.factor in (before / 2, before * 2)
            assert now_s - last_s >= rule.down_after_s
            last_s, before = now_s, bend.factor
        assert rate.factor == before
