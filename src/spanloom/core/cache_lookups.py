"""What a cache was asked for and what came of it, by whoever asks: only the asker knows whether an answer was one."""

from dataclasses import dataclass


@dataclass(slots=True)
class CacheLookups:
    """Counted since the process began; every look-up is one of the three."""

    hits: int = 0  # the answer was there and was believed
    misses: int = 0  # nothing was there, or something else than what was asked for
    failures: int = 0  # the cache was away
