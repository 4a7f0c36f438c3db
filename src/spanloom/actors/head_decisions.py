"""What the head of the road has decided of a trace, remembered for the nodes that meet its later spans.

Best effort: where the cache is away or forgets, each node decides anew, and by the trace id decides the same.
"""

from collections.abc import Callable, Mapping, Sequence

import structlog

from spanloom.core.cache_lookups import CacheLookups
from spanloom.core.sampling.head import decision_from_bytes, decision_to_bytes
from spanloom.errors import CacheUnavailable
from spanloom.interfaces import BatchCache, Cache

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

TTL_S = 3600.0  # design, section 7
TTL_JITTER = 0.1  # of it: entries made together do not end together


class HeadDecisions:
    """`sampled:{trace id}` in a cache; one look-up a request where the cache can answer many keys at once."""

    def __init__(self, cache: Cache, *, random: Callable[[], float], lookups: CacheLookups | None = None) -> None:
        """`random` gives numbers from 0 to 1 for the jitter; *lookups* are counted up, one a trace."""
        self._cache = cache
        self._batch = cache if isinstance(cache, BatchCache) else None
        self._random = random
        self._lookups = lookups or CacheLookups()

    async def known(self, trace_ids: Sequence[bytes]) -> dict[bytes, bool]:
        """What is remembered of these traces; nothing where the cache is away."""
        keys = [_key(trace_id) for trace_id in trace_ids]
        try:
            values = await self._batch.get_many(keys) if self._batch else [await self._cache.get(key) for key in keys]
        except CacheUnavailable:
            self._lookups.failures += len(keys)
            return {}
        read = {trace_id: decision_from_bytes(value) for trace_id, value in zip(trace_ids, values, strict=True)}
        found = {trace_id: decision for trace_id, decision in read.items() if decision is not None}
        self._lookups.hits += len(found)
        self._lookups.misses += len(read) - len(found)
        return found

    async def remember(self, decided: Mapping[bytes, bool]) -> None:
        """Keep these, if the cache is there."""
        values = {_key(trace_id): decision_to_bytes(sampled) for trace_id, sampled in decided.items()}
        ttl_s = TTL_S * (1 + TTL_JITTER * (2 * self._random() - 1))
        try:
            if self._batch:
                await self._batch.put_many(values, ttl_s)
            else:
                for key, value in values.items():
                    await self._cache.put(key, value, ttl_s)
        except CacheUnavailable as exc:
            log.debug("head decisions not remembered", why=str(exc))


def _key(trace_id: bytes) -> str:
    return f"sampled:{trace_id.hex()}"
