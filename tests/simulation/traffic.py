"""What comes in: a few traces at a time that repeat themselves, come late, conflict, and give way to others."""

import random
from dataclasses import replace

from tests.spans import Sp


class Traffic:
    """Requests of spans, by seed."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.live = [1, 2, 3]
        self.next_trace = 4
        self.next_span = 1
        self.sent: list[Sp] = []

    def request(self) -> list[Sp]:
        """The next request's spans."""
        rng = self.rng
        spans = [self._span() for _ in range(rng.choice([1, 1, 2, 3]))]
        self.sent += spans
        if rng.random() < 0.15:
            self.live[rng.randrange(3)] = self.next_trace
            self.next_trace += 1
        return spans

    def _span(self) -> Sp:
        rng = self.rng
        dice = rng.random()
        if self.sent and dice < 0.12:
            return rng.choice(self.sent)  # a repeat, seconds or minutes later
        if self.sent and dice < 0.15:
            old = rng.choice(self.sent)
            return replace(old, ms=old.ms + 77)  # the same span with other content
        trace = rng.choice(self.live)
        if dice < 0.25:
            trace = max(1, self.next_trace - rng.randint(1, 12))  # late, or an early one
        parent = max(0, rng.choice([0, self.next_span - 1, self.next_span - 2]))
        span = Sp(
            trace,
            self.next_span,
            parent,
            ms=rng.choice([1, 10, 100, 1000]),
            error=rng.random() < (0.3 if dice < 0.25 else 0.06),
            service=rng.choice(["shop", "shop", "bank"]),
        )
        self.next_span += 1
        return span
