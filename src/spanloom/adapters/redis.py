"""The cache on Redis: see `interfaces.Cache`. Whatever Redis does, a call is over within its deadline.

The client knows no trio, so each call is a thread's; the deadline is kept here, on trio's clock, and a thread that is
late is left to its socket's time-out. After failures in a row the breaker opens: calls fail at once, and one a while
tries again. Only failures one after another say that Redis is away: a moment without a processor fails every call that
is under way, and a breaker that opened for it would take the cache away from a process just when it is busiest. What
Redis says is believed only as far as its protocol goes: who reads a value checks that it is the one that was put.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeVar

import structlog
import trio
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from spanloom.core.breaker import Breaker
from spanloom.errors import CacheUnavailable, ConfigError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Found = TypeVar("Found")

DEADLINE_S = 0.02  # of a call: four times what a cached read may take in all, a fifth of an uncached one
CONNECTIONS_MAX = 8  # and threads; each does thousands of calls a second
FAILURES_MAX = 5  # one after another, until the breaker opens
OPEN_S = 1.0  # what the end of an outage costs in cache misses; a try costs one caller the deadline, a fiftieth of it
VALUE_BYTES_MAX = 1 << 20  # more takes longer than the deadline allows, and a large trace's reader can wait
# Raised by the client for bytes that are not Redis's protocol, unwrapped.
_NONSENSE = (ValueError, TypeError, IndexError, AttributeError, RecursionError, MemoryError, OverflowError)


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Where Redis is."""

    url: str  # redis://[user:password@]host:port/database, rediss:// for TLS
    password: str = ""  # where the URL shall not carry it
    ca_file: Path | None = None  # None: the certificates the system trusts
    deadline_s: float = DEADLINE_S


@dataclass(frozen=True, slots=True)
class RedisStatistics:
    """What a cache has done since it was made."""

    hits: int
    misses: int
    failures: int  # calls that ended in CacheUnavailable, those refused by the breaker included
    breaker_opened: int
    breaker_open: bool


class RedisCache:
    """Bytes by key in one database. Use it from one trio run."""

    def __init__(self, options: RedisOptions) -> None:
        """Connects nowhere yet. Raises ConfigError: the URL or the CA file is wrong."""
        self._deadline_s = options.deadline_s
        self._redis = _client(options)
        self._threads = trio.CapacityLimiter(CONNECTIONS_MAX)
        self._breaker = Breaker(FAILURES_MAX, OPEN_S)
        self._failed_at = -inf  # when the breaker last heard of a failure
        self._hits = self._misses = self._failures = 0

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        value = await self._call(partial(_get, self._redis, key))
        if value is None:
            self._misses += 1
        else:
            self._hits += 1
        return value

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Each key's value, or None, in one round trip. Implements interfaces.BatchCache."""
        values = await self._call(partial(_get_many, self._redis, keys)) if keys else []
        found = sum(value is not None for value in values)
        self._hits += found
        self._misses += len(values) - found
        return values

    async def put_many(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep each value for *ttl_s* seconds, in one round trip. Implements interfaces.BatchCache."""
        small = {key: value for key, value in values.items() if len(value) <= VALUE_BYTES_MAX}
        if small:
            await self._call(partial(_put_many, self._redis, small, max(1, round(ttl_s * 1000))))

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep *value* for *ttl_s* seconds; one above VALUE_BYTES_MAX is not kept, and what was there is forgotten."""
        if len(value) > VALUE_BYTES_MAX:
            await self.delete(key)
        else:
            await self._call(partial(_put, self._redis, key, value, max(1, round(ttl_s * 1000))))

    async def delete(self, key: str) -> None:
        """Forget the key."""
        await self._call(partial(_delete, self._redis, key))

    def statistics(self) -> RedisStatistics:
        """A snapshot."""
        breaker = self._breaker.statistics()
        return RedisStatistics(self._hits, self._misses, self._failures, breaker.opened, breaker.is_open)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
        self._redis.connection_pool.disconnect()

    async def _call(self, work: Callable[[], Found]) -> Found:
        began = trio.current_time()
        if not self._breaker.allows(began):
            await trio.lowlevel.checkpoint()
            self._failures += 1
            raise CacheUnavailable("Redis has been away: waiting for one call to get through")
        found: list[Found] = []  # filled by the thread: an answer that is there counts, however late we look

        def call() -> None:
            found.append(_translated(work))

        try:
            with trio.move_on_after(self._deadline_s):
                await trio.to_thread.run_sync(call, limiter=self._threads, abandon_on_cancel=True)
        except CacheUnavailable as error:
            self._failed(str(error), began)
            raise
        if not found:
            why = f"no answer within {self._deadline_s * 1000:.0f} ms"
            self._failed(why, began)
            raise CacheUnavailable(f"Redis: {why}")
        self._breaker.succeeded()
        return found[0]

    def _failed(self, why: str, began: float) -> None:
        """A call that began at that time has failed; those that were under way together count once."""
        self._failures += 1
        if began < self._failed_at:
            return
        self._failed_at = trio.current_time()
        was_open = self._breaker.is_open
        self._breaker.failed(self._failed_at)
        if self._breaker.is_open and not was_open:
            log.warning("redis is away", why=why)


def _client(options: RedisOptions) -> Redis:
    trust = {} if options.ca_file is None else {"ssl_ca_certs": _certificates(options.ca_file)}
    password = {"password": options.password} if options.password else {}
    try:
        return Redis.from_url(
            options.url,
            socket_timeout=options.deadline_s,
            socket_connect_timeout=options.deadline_s,
            retry=Retry(NoBackoff(), 0),  # the deadline leaves no time for a second try
            max_connections=CONNECTIONS_MAX,
            protocol=2,  # needs no greeting: a new connection costs one round trip less
            **trust,
            **password,
        )
    except ValueError as error:
        raise ConfigError(f"redis.url: expected redis://host:port/database or rediss://...: {error}") from None


def _certificates(file: Path) -> str:
    if not file.is_file():
        raise ConfigError(f"redis.ca_file: expected a file of certificates, found {file}")
    return str(file)


def _translated(work: Callable[[], Found]) -> Found:
    """What *work* gives. Raises CacheUnavailable for whatever the client raises: the one mapping of this adapter.

    The client drops a connection whose answer it could not read to its end, so no later call gets what is left of it.
    """
    try:
        return work()
    except (RedisError, OSError) as error:
        raise CacheUnavailable(f"Redis: {error}") from error
    except _NONSENSE as error:
        raise CacheUnavailable(f"Redis answered what cannot be read: {error}") from error


def _get(redis: Redis, key: str) -> bytes | None:
    value: object = redis.get(key)
    if value is not None and not isinstance(value, bytes):
        raise ValueError(f"expected bytes, found {type(value).__name__}")
    return value


def _get_many(redis: Redis, keys: Sequence[str]) -> list[bytes | None]:
    found: object = redis.mget(keys)
    if not isinstance(found, list) or len(found) != len(keys):
        raise ValueError(f"expected {len(keys)} values")
    for value in found:
        if value is not None and not isinstance(value, bytes):
            raise ValueError(f"expected bytes, found {type(value).__name__}")
    return found


def _put_many(redis: Redis, values: Mapping[str, bytes], ttl_ms: int) -> None:
    with redis.pipeline(transaction=False) as pipeline:
        for key, value in values.items():
            pipeline.set(key, value, px=ttl_ms)
        pipeline.execute()


def _put(redis: Redis, key: str, value: bytes, ttl_ms: int) -> None:
    redis.set(key, value, px=ttl_ms)


def _delete(redis: Redis, key: str) -> None:
    redis.delete(key)
