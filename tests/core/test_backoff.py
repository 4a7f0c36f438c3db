"""The backoff: exponential, capped, full jitter."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.backoff import Backoff


def test_the_ceiling_doubles_up_to_the_cap_and_stays() -> None:
    """With the highest draw the delays are the ceilings themselves: doubling, then the cap for ever."""
    backoff = Backoff(0.5, 3.0, lambda: 1.0)
    assert [backoff.next_delay_s() for _ in range(6)] == [0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_the_jitter_is_full() -> None:
    """The delay is the drawn share of the ceiling, from nothing at all to half and more."""
    draws = iter([0.0, 0.5, 0.25])
    backoff = Backoff(1.0, 60.0, lambda: next(draws))
    assert [backoff.next_delay_s() for _ in range(3)] == [0.0, 1.0, 1.0]


def test_a_reset_starts_from_the_first_delay_again() -> None:
    """After a success the next outage is met as if it were the first."""
    backoff = Backoff(1.0, 60.0, lambda: 1.0)
    for _ in range(5):
        backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() == 1.0


def test_an_outage_of_any_length_never_overflows() -> None:
    """Thousands of tries later the delay is still the cap."""
    backoff = Backoff(0.001, 30.0, lambda: 1.0)
    assert [backoff.next_delay_s() for _ in range(5000)][-1] == 30.0


@given(seed=st.integers(), first_s=st.floats(0.001, 1.0), cap_s=st.floats(1.0, 600.0), tries=st.integers(1, 40))
def test_every_delay_lies_between_nothing_and_the_cap(seed: int, first_s: float, cap_s: float, tries: int) -> None:
    """No delay is negative, above the cap, or above the doubled ceiling of its try."""
    backoff = Backoff(first_s, cap_s, random.Random(seed).random)
    for attempt in range(tries):
        assert 0.0 <= backoff.next_delay_s() <= min(cap_s, first_s * 2**attempt)


@pytest.mark.parametrize(("first_s", "cap_s"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_a_backoff_that_would_spin_is_a_bug(first_s: float, cap_s: float) -> None:
    """A first delay of nothing, or above the cap, is refused when the backoff is made."""
    with pytest.raises(AssertionError):
        Backoff(first_s, cap_s, lambda: 0.0)
