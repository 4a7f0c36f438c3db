"""What every cache promises."""

from collections.abc import Iterator

import pytest

from spanloom.interfaces import BatchCache
from tests.conformance.cache_rigs import CacheRig, MemoryCacheRig, RedisCacheRig
from tests.servers import redis


@pytest.fixture(params=["memory", "redis"])
def rig(request: pytest.FixtureRequest) -> Iterator[CacheRig]:
    """The implementation under test."""
    rig: CacheRig = MemoryCacheRig() if request.param == "memory" else RedisCacheRig(redis.running())
    yield rig
    rig.close()


async def test_a_value_is_given_back_until_it_is_forgotten(rig: CacheRig) -> None:
    """Put, put again, delete: the last word counts; deleting what is not there is no error."""
    cache = await rig.cache(10)

    assert await cache.get("trace:1") is None
    await cache.put("trace:1", b"first", 60)
    await cache.put("trace:1", b"", 60)
    assert await cache.get("trace:1") == b""
    await cache.delete("trace:1")
    await cache.delete("trace:1")
    assert await cache.get("trace:1") is None


async def test_a_value_ends_with_its_time_to_live(rig: CacheRig) -> None:
    """A value is there before its time is over and gone after it; putting it again starts its time anew."""
    cache = await rig.cache(10)
    await cache.put("short", b"value", rig.seconds(10))
    await cache.put("long", b"value", rig.seconds(10))

    await rig.sleep(6)
    assert await cache.get("short") == b"value"
    await cache.put("long", b"value", rig.seconds(10))
    await rig.sleep(6)

    assert await cache.get("short") is None
    assert await cache.get("long") == b"value"


async def test_a_value_may_be_any_bytes_under_any_key(rig: CacheRig) -> None:
    """Neither is read as text, or as part of a protocol."""
    cache = await rig.cache(10)
    values = {"a b\r\n$3": b"$5\r\nvalue\r\n", "größe:\x00": bytes(range(256)) * 1000, "*1": b"\r\n"}

    for key, value in values.items():
        await cache.put(key, value, 60)

    assert {key: await cache.get(key) for key in values} == values


async def test_a_full_cache_forgets_what_was_used_least_recently(rig: CacheRig) -> None:
    """The bound of entries holds, and reading an entry keeps it."""
    if not rig.bounded:
        pytest.skip("its server's bound (maxmemory) is the server's affair")
    cache = await rig.cache(3)
    for key in ("a", "b", "c"):
        await cache.put(key, b"value", 60)

    await cache.get("a")
    await cache.put("d", b"value", 60)

    assert [await cache.get(key) is not None for key in ("a", "b", "c", "d")] == [True, False, True, True]


async def test_many_keys_are_answered_and_kept_at_once(rig: CacheRig) -> None:
    """Values come back in the keys' order, None where there is none, and end with their time to live; none is fine."""
    cache = await rig.cache(10)
    assert isinstance(cache, BatchCache)

    await cache.put_many({"sampled:a": b"1", "sampled:b": b""}, rig.seconds(10))
    await cache.put_many({}, 60)

    assert list(await cache.get_many(["sampled:b", "sampled:x", "sampled:a"])) == [b"", None, b"1"]
    assert list(await cache.get_many([])) == []
    assert await cache.get("sampled:a") == b"1"
    await rig.sleep(12)
    assert list(await cache.get_many(["sampled:a", "sampled:b"])) == [None, None]
