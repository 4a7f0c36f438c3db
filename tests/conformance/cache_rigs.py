"""What the cache suite runs against, and what a second is there: real on a server, the rig's own in memory."""

import time
from abc import abstractmethod
from contextlib import ExitStack
from typing import Protocol

import trio

from spanloom.adapters.memory import MemoryCache
from spanloom.adapters.redis import RedisCache, RedisOptions
from spanloom.interfaces import Cache
from tests.servers.redis import RedisServer

PATIENT_S = 10.0  # a machine busy with other suites may take far longer than the 20 ms of production


class CacheRig(Protocol):
    """Opens a cache, empty."""

    bounded: bool  # forgets beyond a number of entries

    @abstractmethod
    async def cache(self, entries_max: int) -> Cache:
        """The cache; a bounded one keeps that many entries."""

    @abstractmethod
    def seconds(self, time_s: float) -> float:
        """A time of the suite, in seconds for `put`."""

    @abstractmethod
    async def sleep(self, time_s: float) -> None:
        """Let that much of the suite's time pass."""

    @abstractmethod
    def close(self) -> None:
        """Release everything."""


class MemoryCacheRig(CacheRig):
    """The in-process cache, on a clock that the rig moves."""

    bounded = True

    def __init__(self) -> None:
        self._now_s = 0.0

    async def cache(self, entries_max: int) -> Cache:
        """A new cache."""
        return MemoryCache(entries_max=entries_max, clock=lambda: self._now_s)

    def seconds(self, time_s: float) -> float:
        """As they are."""
        return time_s

    async def sleep(self, time_s: float) -> None:
        """Move the clock."""
        self._now_s += time_s

    def close(self) -> None:
        """Nothing to release."""


class RedisCacheRig(CacheRig):
    """A real server, wiped."""

    bounded = False
    SECOND_S = 0.15

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._open = ExitStack()

    async def cache(self, entries_max: int) -> Cache:
        """A new client of the server."""
        self._server.say("FLUSHALL")
        cache = RedisCache(RedisOptions(self._server.url, deadline_s=PATIENT_S))
        self._open.callback(cache.close)
        return cache

    def seconds(self, time_s: float) -> float:
        """Shorter, for the server's clock is real."""
        return time_s * self.SECOND_S

    async def sleep(self, time_s: float) -> None:
        """Really wait: the server does not know another clock."""
        await trio.to_thread.run_sync(time.sleep, time_s * self.SECOND_S)

    def close(self) -> None:
        """Close the clients."""
        self._open.close()
