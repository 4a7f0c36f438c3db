"""Reading a trace: cache, store, standings, and one flight per trace."""

import json
from collections.abc import Callable

import pytest
import trio

from spanloom.errors import StoreUnavailable
from spanloom.model import Trigger
from spanloom.query.traces import INLINE_BYTES_MAX, TraceReader
from tests.query.fakes import FakeCache, FakeStandings, FakeStore, fragment
from tests.spans import Sp, trace_id

TRACE = trace_id(1)
KEY = f"trace:{TRACE.hex()}"
WHOLE = fragment(Sp(1, 1), Sp(1, 2, parent=1))


def reader_of(
    store: FakeStore, cache: FakeCache, known: dict[bytes, str] | None = None, random: Callable[[], float] = lambda: 0.5
) -> TraceReader:
    return TraceReader(store, cache, FakeStandings(known or {}), random=random)


async def test_a_stored_trace_is_read_once_and_then_cached() -> None:
    """The second reader of a whole trace costs the store nothing and sees the same."""
    store, cache = FakeStore([WHOLE]), FakeCache()
    reader = reader_of(store, cache)
    first = await reader.read(TRACE)
    assert first is not None
    assert json.loads(first)["status"] == "kept"
    assert await reader.read(TRACE) == first
    assert store.reads == 1


async def test_a_large_trace_is_shown_whole() -> None:
    """A trace that is put together beside the loop comes out like any other."""
    spans = [Sp(1, number + 1, parent=number) for number in range(1500)]
    large = fragment(*spans)
    assert len(large.spans) > INLINE_BYTES_MAX
    answer = await reader_of(FakeStore([large]), FakeCache()).read(TRACE)
    assert answer is not None
    assert len(json.loads(answer)["spans"]) == 1500


@pytest.mark.parametrize(("random", "ttl_s"), [(0.0, 270), (0.5, 300), (1.0, 330)])
async def test_times_to_live_are_spread(random: float, ttl_s: float) -> None:
    """Five minutes, a tenth more or less."""
    cache = FakeCache()
    await reader_of(FakeStore([WHOLE]), cache, random=lambda: random).read(TRACE)
    assert cache.entries[KEY][1] == pytest.approx(ttl_s)


async def test_a_partial_trace_is_not_cached() -> None:
    """What may still grow is read anew each time."""
    store, cache = FakeStore([fragment(Sp(1, 1), trigger=Trigger.IDLE)]), FakeCache()
    reader = reader_of(store, cache)
    for _ in range(2):
        answer = await reader.read(TRACE)
        assert answer is not None
        assert json.loads(answer)["status"] == "partial"
    assert store.reads == 2
    assert cache.entries == {}


@pytest.mark.parametrize("standing", ["pending", "dropped"])
async def test_a_trace_that_is_not_stored_may_be_known(standing: str) -> None:
    """The partitions of this process say what became of a trace that is not in the store; that is not cached."""
    cache = FakeCache()
    answer = await reader_of(FakeStore(), cache, {TRACE: standing}).read(TRACE)
    assert answer is not None
    assert json.loads(answer) == {"trace_id": TRACE.hex(), "status": standing}
    assert cache.entries == {}


async def test_what_is_stored_outweighs_what_is_known() -> None:
    """A stored trace with late spans pending is shown."""
    answer = await reader_of(FakeStore([WHOLE]), FakeCache(), {TRACE: "pending"}).read(TRACE)
    assert answer is not None
    assert json.loads(answer)["span_count"] == 2


async def test_nothing_known_is_none_and_not_cached() -> None:
    """A trace that arrives later is found then."""
    store, cache = FakeStore(), FakeCache()
    reader = reader_of(store, cache)
    assert await reader.read(TRACE) is None
    store.documents.append(WHOLE)
    assert await reader.read(TRACE) is not None


@pytest.mark.parametrize(
    "lie",
    [
        b"",
        b"garbage",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"trace_id": ' + b"[" * 100_000,
        b'{"trace_id": null, "status": "kept", "spans": []}',
        b'{"trace_id": "%b", "status": "kept", "spans": []}' % (b"0" * 32),
        b'{"trace_id": "%b", "status": "dropped"}' % TRACE.hex().encode(),
        b'{"trace_id": "%b", "status": "dropped", "spans": []}' % TRACE.hex().encode(),
        b'{"trace_id": "%b", "status": "kept", "spans": [\xff]}' % TRACE.hex().encode(),
        b'{"trace_id": "%b", "status": "kept", "spans": [], "x": "\xff"}' % TRACE.hex().encode(),
        b'{"trace_id": "%b", "status": "kept", "spans": [' % TRACE.hex().encode(),
    ],
    ids=lambda lie: lie[:50].decode(errors="replace") or "empty",
)
async def test_what_is_not_the_trace_asked_for_is_a_miss(lie: bytes) -> None:
    """A cache that lies costs a read of the store, never the answer; the lie is overwritten."""
    store, cache = FakeStore([WHOLE]), FakeCache()
    await cache.put(KEY, lie, 60)

    answer = await reader_of(store, cache).read(TRACE)

    assert answer is not None
    assert json.loads(answer)["status"] == "kept"
    assert store.reads == 1
    assert cache.entries[KEY][0] == answer


async def test_without_the_cache_everything_still_answers() -> None:
    """A cache that is away costs time, nothing else."""
    store, cache = FakeStore([WHOLE]), FakeCache(away=True)
    reader = reader_of(store, cache)
    assert await reader.read(TRACE) == await reader.read(TRACE) != None  # noqa: E711 - a chained comparison
    assert store.reads == 2


async def test_a_store_that_is_away_is_said_so_and_nothing_sticks() -> None:
    """The error reaches the caller; the next read tries again."""
    store = FakeStore([WHOLE], away=True)
    reader = reader_of(store, FakeCache())
    with pytest.raises(StoreUnavailable):
        await reader.read(TRACE)
    store.away = False
    assert await reader.read(TRACE) is not None


async def test_readers_of_one_trace_share_one_read(autojump_clock: trio.testing.MockClock) -> None:
    """A hundred readers at once cost the store one read, and all get the answer."""
    store = FakeStore([fragment(Sp(1, 1), trigger=Trigger.IDLE)], delay_s=1)  # partial: the cache plays no part
    reader = reader_of(store, FakeCache())
    answers: list[bytes | None] = []

    async def read() -> None:
        answers.append(await reader.read(TRACE))

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(read)
    assert store.reads == 1
    assert len(answers) == 100
    assert len(set(answers)) == 1
    assert answers[0] is not None


async def test_when_the_reader_in_flight_is_cancelled_another_takes_over(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A reader that leaves does not leave the others without an answer."""
    store = FakeStore([WHOLE], delay_s=10)
    reader = reader_of(store, FakeCache())
    answers: list[bytes | None] = []

    async def read(patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            answers.append(await reader.read(TRACE))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read, 5)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(read, 60)
        nursery.start_soon(read, 60)
    assert store.reads == 2
    assert len(answers) == 2
    assert None not in answers
