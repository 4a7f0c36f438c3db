"""The restart budget: OTP's restart intensity."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.restart import RestartBudget, RestartStatistics


def test_the_budget_allows_its_intensity_and_refuses_the_next() -> None:
    """Exactly `intensity` restarts are granted at one moment, one more is refused."""
    budget = RestartBudget(3, 10.0)
    assert [budget.spend(0.0) for _ in range(4)] == [True, True, True, False]


def test_a_restart_counts_through_the_last_moment_of_the_period() -> None:
    """A restart exactly one period ago still counts, as in OTP; a moment later it does not."""
    budget = RestartBudget(1, 10.0)
    assert budget.spend(5.0)
    assert not budget.spend(15.0)
    assert budget.spend(15.001)


def test_a_refusal_spends_nothing() -> None:
    """Asking in vain does not push the next restart further away."""
    budget = RestartBudget(1, 10.0)
    assert budget.spend(0.0)
    assert not budget.spend(9.0)
    assert budget.spend(10.5)


def test_no_intensity_allows_no_restart() -> None:
    """With intensity 0 the first crash is already too much."""
    assert not RestartBudget(0, 1.0).spend(0.0)


def test_a_refilled_budget_is_whole_but_remembers_its_totals() -> None:
    """A supervisor started anew has its whole budget again, and its statistics go on."""
    budget = RestartBudget(1, 10.0)
    assert budget.spend(0.0, "a")
    budget.refill()
    assert budget.spend(0.0, "a")
    assert budget.statistics() == RestartStatistics({"a": 2}, recent=1, intensity=1, period_s=10.0)


def test_statistics_count_each_child_s_granted_restarts() -> None:
    """Statistics tell the granted restarts of each child, and not the refused ones."""
    budget = RestartBudget(3, 10.0)
    for child in ("a", "b", "a", "b"):
        budget.spend(0.0, child)
    assert budget.statistics().restarts == {"a": 2, "b": 1}


@pytest.mark.parametrize(("intensity", "period_s"), [(-1, 1.0), (1, 0.0), (1, -1.0)])
def test_a_budget_that_means_nothing_is_a_bug(intensity: int, period_s: float) -> None:
    """A negative intensity or a period of nothing is refused when the budget is made."""
    with pytest.raises(AssertionError):
        RestartBudget(intensity, period_s)


@given(
    intensity=st.integers(0, 5),
    period=st.integers(1, 20),
    steps=st.lists(st.integers(0, 10), max_size=60),
)
def test_no_window_ever_holds_more_than_the_intensity(intensity: int, period: int, steps: list[int]) -> None:
    """However crashes are spaced, no period holds more than the intensity, and none is refused without need."""
    budget, now, granted = RestartBudget(intensity, period), 0, list[int]()
    for step in steps:
        now += step
        recent = sum(now - at <= period for at in granted)
        assert budget.spend(now) == (recent < intensity)
        if recent < intensity:
            granted.append(now)
