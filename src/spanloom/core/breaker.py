"""A circuit breaker: after failures in a row nobody asks for a while, then one caller tries for all.

    closed --failures_max failures in a row--> open --open_s later, one caller is let through--> closed or open again

A probe whose outcome is never told (its caller was cancelled) only delays the next one by `open_s`. Source: M. Nygard,
"Release It!", "Circuit Breaker".
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A look at a breaker."""

    is_open: bool
    opened: int  # times, since it was made
    failures: int  # in a row, up to now


class Breaker:
    """Lets calls through, or not. Times are seconds of one clock that never goes back."""

    def __init__(self, failures_max: int, open_s: float) -> None:
        """It opens at the *failures_max*-th failure in a row, and lets one call try every *open_s* seconds."""
        assert failures_max >= 1, f"a breaker opens after at least one failure, not {failures_max}"
        assert open_s > 0, f"a breaker stays open for a while, not {open_s}"
        self._failures_max = failures_max
        self._open_s = open_s
        self._failures = 0
        self._opened = 0
        self._probe_at: float | None = None  # None: closed

    def allows(self, now: float) -> bool:
        """Whether to make a call now. While open, True makes the caller the one that tries."""
        if self._probe_at is None:
            return True
        if now < self._probe_at:
            return False
        self._probe_at = now + self._open_s
        return True

    def succeeded(self) -> None:
        """A call did what it should."""
        self._failures = 0
        self._probe_at = None

    def failed(self, now: float) -> None:
        """A call found the other side away or overloaded."""
        self._failures += 1
        if self._failures >= self._failures_max:
            self._opened += self._probe_at is None
            self._probe_at = now + self._open_s

    @property
    def is_open(self) -> bool:
        """Whether calls are refused."""
        return self._probe_at is not None

    def statistics(self) -> BreakerStatistics:
        """A snapshot."""
        return BreakerStatistics(self.is_open, self._opened, self._failures)
