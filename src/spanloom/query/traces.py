"""Reads traces for people: cache, then store, then what the partitions of this process know.

The cache is disposable: while it is away, or says what is not the trace asked for, everything is answered from the
store. Only a trace that is whole (`kept`) is cached, because any other is about to change; the writer of a later
fragment deletes its key.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from spanloom.core.cache_lookups import CacheLookups
from spanloom.core.codec.json_text import JsonValue
from spanloom.core.query import KEPT, assemble, trace_json
from spanloom.errors import CacheUnavailable
from spanloom.interfaces import Cache, Standings, TraceStore
from spanloom.model import Document

CACHE_TTL_S = 300.0  # the seed's 5 minutes
INLINE_BYTES_MAX = 16 << 10  # of span bytes, about 15 ms, are put together on the loop; more goes to a thread
TTL_JITTER = 0.1  # of the time to live, either way: what was cached together does not expire together


class _Cached(msgspec.Struct):
    """What a cached answer must say to be believed."""

    trace_id: str
    status: str
    spans: list[msgspec.Raw]


_cached = msgspec.json.Decoder(_Cached)


@dataclass(slots=True)
class _Flight:
    """A read under way that others for the same trace wait for."""

    landed: trio.Event = field(default_factory=trio.Event)
    answered: bool = False  # False once landed: it failed or was cancelled, and somebody else must fly
    answer: bytes | None = None


class TraceReader:
    """Traces as JSON. At most one read of a trace is under way at a time."""

    def __init__(
        self,
        store: TraceStore,
        cache: Cache,
        standings: Standings,
        *,
        random: Callable[[], float],
        lookups: CacheLookups | None = None,
    ) -> None:
        """`random` gives numbers from 0 to 1 for the jitter; *lookups* are counted up."""
        self._store = store
        self._cache = cache
        self._standings = standings
        self._random = random
        self._lookups = lookups or CacheLookups()
        self._flights: dict[bytes, _Flight] = {}

    async def read(self, trace_id: bytes) -> bytes | None:
        """The trace's JSON; of one that is `pending` or `dropped` just that; None if nothing is known of it."""
        while flight := self._flights.get(trace_id):
            await flight.landed.wait()
            if flight.answered:
                return flight.answer
        flight = self._flights[trace_id] = _Flight()
        try:
            flight.answer = await self._read(trace_id)
            flight.answered = True
        finally:
            del self._flights[trace_id]
            flight.landed.set()
        return flight.answer

    async def _read(self, trace_id: bytes) -> bytes | None:
        key = f"trace:{trace_id.hex()}"
        cached = await self._recall(key, trace_id)
        if cached is not None:
            return cached
        documents = await self._store.read(trace_id.hex())
        if not documents:
            status = self._standings.standing(trace_id)
            return _encoded({"trace_id": trace_id.hex(), "status": status}) if status else None
        if sum(len(document.spans) for document in documents) <= INLINE_BYTES_MAX:
            status, answer = _shown(documents)
        else:
            status, answer = await trio.to_thread.run_sync(_shown, documents)
        if status == KEPT:
            await self._remember(key, answer)
        return answer

    async def _recall(self, key: str, trace_id: bytes) -> bytes | None:
        try:
            cached = await self._cache.get(key)
        except CacheUnavailable:
            self._lookups.failures += 1
            return None
        if cached is None or not _answers(cached, trace_id):
            self._lookups.misses += 1
            return None
        self._lookups.hits += 1
        return cached

    async def _remember(self, key: str, answer: bytes) -> None:
        ttl_s = CACHE_TTL_S * (1 + TTL_JITTER * (2 * self._random() - 1))
        try:
            await self._cache.put(key, answer, ttl_s)
        except CacheUnavailable:
            return


def _shown(documents: Sequence[Document]) -> tuple[str, bytes]:
    """The trace's status and its JSON."""
    trace = assemble(documents)
    return trace.status, _encoded(trace_json(trace))


def _answers(cached: bytes, trace_id: bytes) -> bool:
    """Whether the bytes are what `_remember` puts for that trace; others may write to the same cache."""
    try:
        said = _cached.decode(cached)
    except (msgspec.DecodeError, RecursionError):
        return False
    return said.trace_id == trace_id.hex() and said.status == KEPT and cached.isascii()


def _encoded(value: dict[str, JsonValue]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
