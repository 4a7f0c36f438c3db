"""Restart intensity, as Erlang/OTP's supervisor has it: too many restarts in too short a time, and it gives up.

Source: `supervisor:add_restart/1` of OTP's stdlib.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RestartStatistics:
    """How a budget has been spent since it was made."""

    restarts: Mapping[str, int]  # by child, those granted
    recent: int  # granted within the last period, at most `intensity`
    intensity: int
    period_s: float


class RestartBudget:
    """The restarts one supervisor's children share: at most `intensity` in any `period_s` seconds."""

    def __init__(self, intensity: int, period_s: float) -> None:
        assert intensity >= 0, f"restart intensity must not be negative: {intensity}"
        assert period_s > 0, f"restart period must be positive: {period_s}"
        self.intensity = intensity
        self.period_s = period_s
        self._granted: deque[float] = deque()  # times of the restarts within the last period, oldest first
        self._totals: Counter[str] = Counter()

    def spend(self, now: float, child: str = "") -> bool:
        """Ask for one restart of *child* at *now* (seconds, never going back). False: refused, nothing was spent."""
        while self._granted and now - self._granted[0] > self.period_s:
            self._granted.popleft()
        if len(self._granted) >= self.intensity:
            return False
        self._granted.append(now)
        self._totals[child] += 1
        return True

    def refill(self) -> None:
        """Forget the recent restarts: a supervisor that is started anew starts with its whole budget. Totals stay."""
        self._granted.clear()

    def statistics(self) -> RestartStatistics:
        """A snapshot; `recent` is as of the last `spend`."""
        return RestartStatistics(dict(self._totals), len(self._granted), self.intensity, self.period_s)
