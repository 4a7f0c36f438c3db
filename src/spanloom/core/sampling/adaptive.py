"""How far sampling bends under load: a factor that halves while the machine is too busy, and comes back slowly.

Sans-IO. The factor multiplies a probability of consistent sampling, so a lower one keeps a subset of what a higher one
keeps, on every node alike. Down soon, up slowly, and a band between the two thresholds where nothing changes: what
shedding saves must not be what brings the load back. Who feeds it samples decides what the factor is applied to.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Cause(StrEnum):
    """What the load is a share of."""

    CPU = "cpu"
    MEMORY = "memory"


class LoadSample(NamedTuple):
    """Shares in use of what may be used, 0 to 1; None where it could not be measured."""

    cpu: float | None = None
    memory: float | None = None


class Bend(NamedTuple):
    """A factor that has just come into force."""

    factor: float  # 1: nothing is bent
    cause: Cause  # of a lower factor, what was too busy; of a higher one, what it had been lowered for
    load: float  # the sample that decided: the busiest of the causes watched


@dataclass(frozen=True, slots=True)
class BendRule:
    """When the factor moves."""

    causes: frozenset[Cause]  # what is watched
    high: float = 0.8  # above: down (design, section 8)
    low: float = 0.6  # below: up. Halving what costs 0.8 can save 0.4 at most: so nothing swings by itself
    down_after_s: float = 3.0  # so long without a break: a burst is not a load
    up_after_s: float = 30.0
    factor_min: float = 1 / 64  # six halvings of everything; below it there is nothing left to win


class AdaptiveRate:
    """The factor, by a rule."""

    def __init__(self, rule: BendRule) -> None:
        assert 0 < rule.low < rule.high, rule
        self._rule = rule
        self._factor = 1.0
        self._cause = Cause.CPU
        self._high_since_s: float | None = None
        self._low_since_s: float | None = None

    @property
    def factor(self) -> float:
        """The one in force."""
        return self._factor

    def feed(self, now_s: float, sample: LoadSample) -> Bend | None:
        """Take in a sample, at a time that never goes back; the new factor if it changes by it."""
        measured = {Cause.CPU: sample.cpu, Cause.MEMORY: sample.memory}
        loads = {cause: load for cause, load in measured.items() if load is not None and cause in self._rule.causes}
        if not loads:
            return None
        cause = max(loads, key=lambda each: loads[each])
        load = loads[cause]
        self._high_since_s = _since(self._high_since_s, now_s, holds=load > self._rule.high)
        self._low_since_s = _since(self._low_since_s, now_s, holds=load < self._rule.low)
        if self._lasts(self._high_since_s, now_s, self._rule.down_after_s) and self._factor > self._rule.factor_min:
            self._cause = cause
            return self._bent(self._factor / 2, now_s, load)
        if self._lasts(self._low_since_s, now_s, self._rule.up_after_s) and self._factor < 1:
            return self._bent(self._factor * 2, now_s, load)
        return None

    @staticmethod
    def _lasts(since_s: float | None, now_s: float, long_s: float) -> bool:
        return since_s is not None and now_s - since_s >= long_s

    def _bent(self, factor: float, now_s: float, load: float) -> Bend:
        """Each further step takes as long again."""
        self._factor = min(1.0, max(self._rule.factor_min, factor))
        self._high_since_s = None if self._high_since_s is None else now_s
        self._low_since_s = None if self._low_since_s is None else now_s
        return Bend(self._factor, self._cause, load)


def _since(since_s: float | None, now_s: float, *, holds: bool) -> float | None:
    if not holds:
        return None
    return now_s if since_s is None else since_s
