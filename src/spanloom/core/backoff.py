"""How long to wait before the next try: exponential, capped, with full jitter.

The delay is drawn evenly from 0 to a ceiling that doubles with every try up to a cap, so that many who failed together
do not come back together. Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("Full Jitter").
"""

from collections.abc import Callable


class Backoff:
    """The delays of one retry loop; `reset` after a success."""

    def __init__(self, first_s: float, cap_s: float, draw: Callable[[], float]) -> None:
        """*draw* gives numbers of [0, 1): `random.random`, or a seeded one in tests."""
        assert 0 < first_s <= cap_s, f"a backoff needs 0 < first_s <= cap_s, not {first_s} and {cap_s}"
        self._first_s = first_s
        self._cap_s = cap_s
        self._draw = draw
        self._ceiling_s = first_s

    def next_delay_s(self) -> float:
        """The delay before the next try, in seconds; each call counts as a failed try."""
        delay_s = self._draw() * self._ceiling_s
        self._ceiling_s = min(self._cap_s, self._ceiling_s * 2)
        return delay_s

    def reset(self) -> None:
        """The try succeeded: the next delay is drawn as the first one was."""
        self._ceiling_s = self._first_s
