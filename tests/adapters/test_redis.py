"""What Redis may do to us: be gone, slow, wiped or lying. It costs a call's deadline at most, and never an answer."""

import contextlib
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from spanloom.adapters.redis import DEADLINE_S, FAILURES_MAX, OPEN_S, VALUE_BYTES_MAX, RedisCache, RedisOptions
from spanloom.errors import CacheUnavailable, ConfigError
from tests.servers import redis
from tests.servers.certificates import certificate
from tests.servers.redis import RedisServer
from tests.servers.tcp_proxy import Mood, TcpProxy

SLACK_S = 0.25  # what a machine with two busy cores may add to a time-out
PATIENT_S = 10.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A real server, wiped; running again after the test whatever it did."""
    server = redis.running()
    server.say("FLUSHALL")
    yield server
    server.kill()
    server.start()


@pytest.fixture
async def proxy(server: RedisServer, nursery: trio.Nursery) -> TcpProxy:
    """A proxy before it."""
    proxy: TcpProxy = await nursery.start(TcpProxy(server.port).run)
    return proxy


@pytest.fixture
def cache(proxy: TcpProxy) -> Iterator[RedisCache]:
    """The cache, through the proxy, with a deadline for tests that are not about time."""
    cache = RedisCache(RedisOptions(f"redis://127.0.0.1:{proxy.port}/0", deadline_s=PATIENT_S))
    yield cache
    cache.close()


@pytest.fixture
def hasty(proxy: TcpProxy) -> Iterator[RedisCache]:
    """The cache, through the proxy, with production's deadline."""
    cache = RedisCache(RedisOptions(f"redis://127.0.0.1:{proxy.port}/0"))
    yield cache
    cache.close()


@pytest.fixture
def impatient(proxy: TcpProxy) -> Iterator[RedisCache]:
    """The cache, through the proxy, for tests in which a call may have to wait for its deadline."""
    cache = RedisCache(RedisOptions(f"redis://127.0.0.1:{proxy.port}/0", deadline_s=0.05))
    yield cache
    cache.close()


async def recovered(cache: RedisCache, key: str) -> bytes | None:
    """The first answer after a fault: a call may still be late on a busy machine."""
    for _ in range(FAILURES_MAX - 1):
        try:
            return await cache.get(key)
        except CacheUnavailable:
            await trio.sleep(0.05)
    return await cache.get(key)


async def test_a_server_that_is_gone_is_noticed_and_found_again(server: RedisServer, cache: RedisCache) -> None:
    """Killed, it is away at once; started again, it is used again, empty."""
    await cache.put("key", b"value", 60)
    server.kill()
    with pytest.raises(CacheUnavailable):
        await cache.get("key")
    with pytest.raises(CacheUnavailable):
        await cache.put("key", b"value", 60)
    with pytest.raises(CacheUnavailable):
        await cache.delete("key")

    server.start()

    assert await cache.get("key") is None
    await cache.put("key", b"value", 60)
    assert await cache.get("key") == b"value"


@pytest.mark.parametrize("mood", [Mood.STALLED, Mood.TRICKLING, Mood.DEAF])
async def test_a_slow_server_costs_each_call_its_deadline_and_then_nothing(
    proxy: TcpProxy, hasty: RedisCache, mood: Mood
) -> None:
    """No call takes much longer than the deadline, and after a few of them the breaker spares the others even that."""
    proxy.mood = mood

    times_s = []
    for _ in range(FAILURES_MAX + 50):
        start = time.monotonic()
        with pytest.raises(CacheUnavailable):
            await hasty.get("key")
        times_s.append(time.monotonic() - start)

    assert max(times_s) < DEADLINE_S + SLACK_S
    assert sum(times_s[FAILURES_MAX:]) < SLACK_S


async def test_a_frozen_server_does_not_hold_up_many_callers(server: RedisServer, hasty: RedisCache) -> None:
    """A hundred callers at once each wait for the deadline, not for one another."""
    server.signal(signal.SIGSTOP)
    failures = 0

    async def call() -> None:
        nonlocal failures
        try:
            await hasty.get("key")
        except CacheUnavailable:
            failures += 1

    start = time.monotonic()
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(call)

    assert failures == 100
    assert time.monotonic() - start < DEADLINE_S + SLACK_S


async def test_a_wiped_server_forgets_and_goes_on(server: RedisServer, cache: RedisCache) -> None:
    """What is gone is a miss."""
    await cache.put("key", b"value", 60)

    assert server.say("FLUSHALL") == b"+OK\r\n"

    assert await cache.get("key") is None


LIES = [
    b"garbage\r\n",
    b":5\r\n",
    b"*1\r\n$1\r\na\r\n",
    b"$abc\r\nabc\r\n",
    b"$-7\r\n\r\n",
    b"*-7\r\n",
    b"*1\r\n" * 10_000 + b":1\r\n",
    b"$3\r\nabcdef\r\n",
    b"-ERR no\r\n",
    b"-WRONGTYPE no\r\n",
    b"-\xff\xfe\r\n",
    b"\r\n\r\n",
    b"\x00" * 100 + b"\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: repr(lie[:20]))
async def test_a_lying_server_is_away_and_its_lies_do_not_linger(
    proxy: TcpProxy, cache: RedisCache, impatient: RedisCache, lie: bytes
) -> None:
    """What is not Redis's protocol ends in CacheUnavailable, and no later answer holds a piece of it."""
    await cache.put("key", b"value", 60)
    assert await recovered(impatient, "key") == b"value"
    proxy.mood, proxy.lie = Mood.LYING, lambda: lie

    try:
        told = await impatient.get("key")
    except CacheUnavailable:
        told = None

    assert told in (None, b"abc")  # the one lie that is well-formed, up to where it goes on
    proxy.mood = Mood.FAITHFUL
    assert await recovered(impatient, "key") == b"value"


@pytest.mark.parametrize("seed", range(40))
async def test_random_bytes_never_surprise(
    proxy: TcpProxy, cache: RedisCache, impatient: RedisCache, seed: int
) -> None:
    """Whatever comes, a call ends in bytes, None or CacheUnavailable, and the next one is not confused."""
    draw = random.Random(seed)
    await cache.put("key", b"value", 60)
    alphabet = b"*$:+-_,#!=%~>0123456789\r\n\r\n\r\nax\xff\x00"
    lie = bytes(draw.choice(alphabet) for _ in range(draw.randint(1, 60))) + b"\r\n" * draw.randint(1, 40)
    proxy.mood, proxy.lie = Mood.LYING, lambda: lie

    for call in (impatient.get("key"), impatient.put("key", b"x", 60), impatient.delete("key")):
        with contextlib.suppress(CacheUnavailable):
            assert isinstance(await call, bytes | None)

    proxy.mood = Mood.FAITHFUL
    assert await recovered(impatient, "key") == b"value"


async def test_the_breaker_lets_one_call_try_after_a_while(
    server: RedisServer, cache: RedisCache, mock_clock: trio.testing.MockClock
) -> None:
    """After failures in a row nobody asks; later one call does, and its success opens the way again."""
    server.kill()
    with capture_logs() as logs:
        for _ in range(FAILURES_MAX):
            with pytest.raises(CacheUnavailable):
                await cache.get("key")
    assert [line["event"] for line in logs] == ["redis is away"]
    server.start()
    with pytest.raises(CacheUnavailable):
        await cache.get("key")
    assert cache.statistics().breaker_open

    mock_clock.jump(OPEN_S)

    assert await cache.get("key") is None
    statistics = cache.statistics()
    assert (statistics.breaker_open, statistics.breaker_opened) == (False, 1)
    assert (statistics.hits, statistics.misses, statistics.failures) == (0, 1, FAILURES_MAX + 1)


async def test_calls_that_fail_together_count_once(proxy: TcpProxy, hasty: RedisCache) -> None:
    """A moment in which nothing answers fails every call under way, and does not take the cache away."""
    proxy.mood = Mood.STALLED
    failures = 0

    async def call() -> None:
        nonlocal failures
        try:
            await hasty.get("key")
        except CacheUnavailable:
            failures += 1

    async with trio.open_nursery() as nursery:
        for _ in range(2 * FAILURES_MAX):
            nursery.start_soon(call)

    assert failures == hasty.statistics().failures == 2 * FAILURES_MAX
    assert not hasty.statistics().breaker_open


async def test_an_answer_that_is_there_counts_though_we_look_late(server: RedisServer) -> None:
    """A process that was busy with something else for longer than the deadline still takes what Redis has said."""
    cache = RedisCache(RedisOptions(server.url, deadline_s=0.5))
    await cache.put("key", b"value", 60)
    found: list[bytes | None] = []

    async def call() -> None:
        found.append(await cache.get("key"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        await trio.testing.wait_all_tasks_blocked()
        time.sleep(1.0)  # noqa: ASYNC251 - this is what is tried: nobody turns the loop
    cache.close()

    assert found == [b"value"]
    assert cache.statistics().failures == 0


async def test_a_value_too_large_for_the_deadline_is_not_kept(cache: RedisCache) -> None:
    """And what the key held before is forgotten, for it is no longer true."""
    await cache.put("key", b"value", 60)

    await cache.put("key", bytes(VALUE_BYTES_MAX + 1), 60)
    assert await cache.get("key") is None

    await cache.put("key", bytes(VALUE_BYTES_MAX), 60)
    assert await cache.get("key") == bytes(VALUE_BYTES_MAX)


async def test_a_cancelled_call_harms_no_other(proxy: TcpProxy, cache: RedisCache) -> None:
    """Whoever gives up leaves the connections to the others, none of whom gets an answer that was not for him."""
    await cache.put("a", b"of a", 60)
    await cache.put("b", b"of b", 60)
    for turn in range(30):
        with trio.move_on_after(0.0001 * turn):
            await cache.get("a")
        assert await cache.get("b") == b"of b"


async def test_tls_and_a_password_are_used(server: RedisServer, nursery: trio.Nursery, tmp_path: Path) -> None:
    """With rediss:// the server's certificate is checked against the CA file; a password is sent."""
    shown = certificate(tmp_path)
    proxy: TcpProxy = await nursery.start(TcpProxy(server.port, tls=shown.context).run)
    server.say("CONFIG SET requirepass secret")  # a server started again has none
    url = f"rediss://127.0.0.1:{proxy.port}/0"

    cache = RedisCache(RedisOptions(url, password="secret", ca_file=shown.authority, deadline_s=PATIENT_S))
    await cache.put("key", b"value", 60)
    assert await cache.get("key") == b"value"
    cache.close()

    for options in (
        RedisOptions(url, password="secret", deadline_s=PATIENT_S),
        RedisOptions(url, password="wrong", ca_file=shown.authority, deadline_s=PATIENT_S),
        RedisOptions(url, ca_file=shown.authority, deadline_s=PATIENT_S),
    ):
        refused = RedisCache(options)
        with pytest.raises(CacheUnavailable):
            await refused.get("key")
        refused.close()


@pytest.mark.parametrize(
    "options",
    [
        RedisOptions("127.0.0.1:6379"),
        RedisOptions("http://127.0.0.1:6379"),
        RedisOptions("redis://127.0.0.1:port"),
        RedisOptions("rediss://127.0.0.1:6379", ca_file=Path("/nowhere/ca.pem")),
    ],
)
def test_wrong_settings_are_refused_at_once(options: RedisOptions) -> None:
    """A URL that is none and a CA file that is not there are the operator's to mend."""
    with pytest.raises(ConfigError, match=r"redis\.(url|ca_file): expected"):
        RedisCache(options)
