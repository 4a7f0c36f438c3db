"""The circuit breaker, on times the test gives."""

from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.breaker import Breaker

EVENTS = st.lists(st.tuples(st.floats(0, 3), st.sampled_from(["succeeds", "fails", "vanishes"])), max_size=60)


def test_it_opens_after_failures_in_a_row_and_not_before() -> None:
    """A success in between starts the count anew."""
    breaker = Breaker(3, 10)
    for _ in range(5):
        breaker.failed(0)
        breaker.failed(0)
        breaker.succeeded()
    assert breaker.allows(0)

    for _ in range(3):
        assert breaker.allows(0)
        breaker.failed(0)

    assert not breaker.allows(0)
    assert breaker.statistics().opened == 1


def test_one_caller_tries_for_all() -> None:
    """After its time an open breaker lets one call through, and the others after that one's success."""
    breaker = Breaker(1, 10)
    breaker.failed(0)
    assert not breaker.allows(9.9)

    assert breaker.allows(10)
    assert not breaker.allows(10)
    breaker.succeeded()

    assert breaker.allows(10)


def test_a_failed_try_keeps_it_open() -> None:
    """The next try is a whole period after the failure, and the breaker counts as opened once."""
    breaker = Breaker(1, 10)
    breaker.failed(0)
    assert breaker.allows(12)
    breaker.failed(15)

    assert not breaker.allows(24.9)
    assert breaker.allows(25)
    assert breaker.statistics().opened == 1


@given(EVENTS)
def test_nobody_is_shut_out_for_ever(events: list[tuple[float, str]]) -> None:
    """Whatever became of the calls, even if a try never told its end, a period later a call is let through."""
    breaker, now = Breaker(2, 5), 0.0
    for wait_s, end in events:
        now += wait_s
        if not breaker.allows(now):
            continue
        if end == "succeeds":
            breaker.succeeded()
        elif end == "fails":
            breaker.failed(now)

    assert breaker.allows(now + 5)
