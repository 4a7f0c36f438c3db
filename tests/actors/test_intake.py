"""The intake: bounded, on its books, and discarding at the head only what it may."""

import json
from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio

from spanloom.actors.head_decisions import HeadDecisions
from spanloom.actors.intake import Head, Intake, Receipt
from spanloom.adapters.memory import MemoryCache, MemoryLog
from spanloom.core.kernel import scan
from spanloom.core.sampling.head import HeadSampler
from spanloom.errors import CacheUnavailable, DecodeError, Overloaded, SourceUnavailable
from tests.spans import Sp, traces_data

PARTITIONS = 4


class PlainCache:
    """A cache that answers one key at a time. Implements interfaces.Cache and no more."""

    def __init__(self) -> None:
        self._cache = MemoryCache()

    async def get(self, key: str) -> bytes | None:
        return await self._cache.get(key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self._cache.put(key, value, ttl_s)

    async def delete(self, key: str) -> None:
        await self._cache.delete(key)


def sampling(probability: float, cache: MemoryCache | PlainCache | None = None) -> Head:
    return Head(HeadSampler(probability), HeadDecisions(cache or MemoryCache(), random=lambda: 0.5))


async def send(intake: Intake, *spans: Sp) -> None:
    body = traces_data(spans)
    await intake.accept(body, size_bytes=len(body))


async def spans_in(log: MemoryLog) -> list[bytes]:
    """The span ids in the log."""
    found: list[bytes] = []
    for partition in range(PARTITIONS):
        end = await log.end_offset(partition)
        reader = await log.read(partition, 0)
        at = 0
        while at < end:
            for record in await reader.receive():
                found += [span.span_id for span in scan(record.value)]
                at = record.offset + 1
    return sorted(found)


def assert_balanced(intake: Intake) -> None:
    books = intake.statistics()
    assert books.accepted == books.produced + books.dropped_head + books.dropped_shed + books.refused + books.waiting


async def test_spans_are_in_the_log_when_the_sender_is_answered() -> None:
    """Each trace's spans are keyed by its id and lie in its partition."""
    log = MemoryLog(PARTITIONS)
    intake = Intake(log, waiting_bytes_max=1 << 20)
    await send(intake, Sp(1, 1), Sp(2, 2), Sp(1, 3, parent=1))
    assert len(await spans_in(log)) == 3
    books = intake.statistics()
    assert (books.requests, books.accepted, books.produced, books.waiting) == (1, 3, 3, 0)


async def test_what_is_malformed_is_counted_and_nothing_else() -> None:
    """A request that cannot be read accepts no span."""
    intake = Intake(MemoryLog(PARTITIONS), waiting_bytes_max=1 << 20)
    with pytest.raises(DecodeError):
        await intake.accept(b"junk", size_bytes=4)
    books = intake.statistics()
    assert (books.requests_malformed, books.requests, books.accepted) == (1, 0, 0)


async def test_bytes_above_the_bound_are_refused_while_others_wait() -> None:
    """A request that finds the intake full is refused; the ones that wait go in; one alone may be larger."""
    release = trio.Event()

    async def hold(call: str) -> None:
        if call == "append:before":
            await release.wait()

    log = MemoryLog(PARTITIONS, faults=hold)
    intake = Intake(log, waiting_bytes_max=10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, intake, Sp(1, 1))
        await trio.testing.wait_all_tasks_blocked()
        assert intake.statistics().waiting == 1
        assert_balanced(intake)
        with pytest.raises(Overloaded):
            await send(intake, Sp(2, 2))
        release.set()
    books = intake.statistics()
    assert (books.produced, books.requests_refused, books.waiting_bytes) == (1, 1, 0)
    await send(intake, Sp(2, 2))


async def test_a_cancelled_request_counts_as_refused() -> None:
    """Whoever gives up on a sender has told it to send again: the books say so."""

    async def hang(_: str) -> None:
        await trio.sleep_forever()

    intake = Intake(MemoryLog(PARTITIONS, faults=hang), waiting_bytes_max=1 << 20)
    with trio.move_on_after(1):
        await send(intake, Sp(1, 1), Sp(1, 2))
    books = intake.statistics()
    assert (books.accepted, books.refused, books.waiting, books.waiting_bytes) == (2, 2, 0, 0)


async def test_senders_may_be_answered_before_their_spans_are_in_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While the log is away they are answered up to the bound; once it is back everything answered is appended."""
    is_away = True

    async def away(call: str) -> None:
        if is_away and call == "append:before":
            raise SourceUnavailable("away")

    log = MemoryLog(PARTITIONS, faults=away)
    intake = Intake(log, waiting_bytes_max=len(traces_data([Sp(1, 1)])) * 2)
    async with trio.open_nursery() as nursery:
        await nursery.start(intake.answer_early)
        await send(intake, Sp(1, 1))
        await send(intake, Sp(1, 2))
        with pytest.raises(Overloaded):
            await send(intake, Sp(1, 3))
        await trio.sleep(60)
        assert intake.statistics().waiting == 2
        is_away = False
        await intake.wait_empty()
        nursery.cancel_scope.cancel()
    assert sorted(int.from_bytes(span, "big") for span in await spans_in(log)) == [1, 2]
    assert_balanced(intake)
    is_away = True
    with pytest.raises(SourceUnavailable):
        await send(intake, Sp(1, 4))


async def test_head_sampling_drops_and_counts() -> None:
    """At a probability of nothing only errors reach the log; the others are accepted and dropped, on the books."""
    log = MemoryLog(PARTITIONS)
    intake = Intake(log, waiting_bytes_max=1 << 20, head=sampling(0.0))
    await send(intake, Sp(1, 1), Sp(1, 2, error=True), Sp(2, 3))
    assert await spans_in(log) == [(2).to_bytes(8, "big")]
    books = intake.statistics()
    assert (books.accepted, books.produced, books.dropped_head) == (3, 1, 2)


@pytest.mark.parametrize("make_cache", [MemoryCache, PlainCache])
async def test_an_error_brings_its_trace_s_later_spans_in_on_every_node(
    make_cache: Callable[[], MemoryCache | PlainCache],
) -> None:
    """A node that shares the cache lets a trace pass once another one has met an error of it."""
    cache, log = make_cache(), MemoryLog(PARTITIONS)
    first, second = (Intake(log, waiting_bytes_max=1 << 20, head=sampling(0.0, cache)) for _ in range(2))
    await send(first, Sp(1, 1))
    await send(second, Sp(1, 2))
    assert await spans_in(log) == []
    await send(first, Sp(1, 3, error=True))
    await send(second, Sp(1, 4))
    assert [int.from_bytes(span, "big") for span in await spans_in(log)] == [3, 4]


async def test_one_look_up_and_one_write_a_request() -> None:
    """However many traces a request has, a cache that can is asked once and told once."""
    calls: list[str] = []

    async def note(call: str) -> None:
        calls.append(call)

    head = sampling(0.5, MemoryCache(faults=note))
    intake = Intake(MemoryLog(PARTITIONS), waiting_bytes_max=1 << 20, head=head)
    await send(intake, *(Sp(number, number) for number in range(1, 51)))
    assert [call for call in calls if call.endswith("before")] == ["get_many:before", "put_many:before"]


async def test_a_cache_that_is_away_changes_nothing() -> None:
    """Without the cache each span fares as its id says, and no request fails."""

    async def away(_: str) -> None:
        raise CacheUnavailable("gone")

    logs = [MemoryLog(PARTITIONS), MemoryLog(PARTITIONS)]
    for log, cache in zip(logs, (MemoryCache(), MemoryCache(faults=away)), strict=True):
        intake = Intake(log, waiting_bytes_max=1 << 20, head=sampling(0.5, cache))
        await send(intake, *(Sp(number, number) for number in range(1, 51)))
    assert await spans_in(logs[0]) == await spans_in(logs[1])
    assert 10 < len(await spans_in(logs[0])) < 40


SEED_SPAN = {"trace_id": "a", "service_name": "s", "operation_name": "o", "start_time": 1, "duration": 1}


async def test_spans_that_cannot_be_transcoded_are_on_the_books() -> None:
    """Of a JSON body the bad spans are rejected, a body without a good one is malformed."""
    log = MemoryLog(PARTITIONS)
    intake = Intake(log, waiting_bytes_max=1 << 20)
    good, bad = {**SEED_SPAN, "span_id": "1"}, {**SEED_SPAN, "span_id": "2", "duration": -1}
    receipt = await intake.accept(json.dumps([bad, good, bad]).encode(), size_bytes=1, encoding="seed_json")
    assert (receipt.accepted, receipt.rejected, "$[0].duration" in receipt.reason) == (1, 2, True)
    with pytest.raises(DecodeError):
        await intake.accept(json.dumps([bad]).encode(), size_bytes=1, encoding="seed_json")
    books = intake.statistics()
    assert (books.accepted, books.rejected, books.requests, books.requests_malformed) == (1, 2, 1, 1)
    assert_balanced(intake)


async def test_records_have_a_fate_each_and_are_appended_at_once() -> None:
    """A record that cannot be read costs the others nothing; spans of one trace go in as one record."""
    log = MemoryLog(PARTITIONS)
    intake = Intake(log, waiting_bytes_max=1 << 20)
    values = [traces_data([Sp(1, 1)]), b"junk", traces_data([Sp(1, 2), Sp(2, 3)])]
    first, second, third = await intake.accept_records(values, encoding="otlp_proto")
    assert isinstance(second, DecodeError)
    assert (first, third) == (Receipt(1, 0, ""), Receipt(2, 0, ""))
    assert [int.from_bytes(span, "big") for span in await spans_in(log)] == [1, 2, 3]
    assert sum([await log.end_offset(number) for number in range(PARTITIONS)]) == 2
    books = intake.statistics()
    assert (books.accepted, books.produced, books.requests, books.requests_malformed) == (3, 3, 1, 1)


async def test_records_are_bounded_and_counted_like_requests() -> None:
    """Above the bound they are refused, and so are those whose log is away."""

    async def away(call: str) -> None:
        if call == "append:before":
            raise SourceUnavailable("away")

    intake = Intake(MemoryLog(PARTITIONS, faults=away), waiting_bytes_max=10)
    with pytest.raises(SourceUnavailable):
        await intake.accept_records([traces_data([Sp(1, 1)])], encoding="otlp_proto")
    books = intake.statistics()
    assert (books.accepted, books.refused, books.requests_refused, books.waiting_bytes) == (1, 1, 1, 0)
    assert_balanced(intake)


async def test_what_load_sheds_is_on_the_books_apart() -> None:
    """Nothing is discarded until the intake bends; then a share goes, errors stay, and no cache is asked."""
    log = MemoryLog(PARTITIONS)
    intake = Intake(log, waiting_bytes_max=1 << 20, head=Head(HeadSampler(1.0)))
    spans = [Sp(number, number, error=number % 10 == 0) for number in range(1, 201)]
    await send(intake, *spans)
    assert intake.statistics().dropped_shed == 0
    intake.bend(1 / 8)
    await send(intake, *spans)
    books = intake.statistics()
    assert (books.dropped_head, books.sampling_factor) == (0, 1 / 8)
    assert 120 < books.dropped_shed < 180
    assert books.produced == len(await spans_in(log)) == 400 - books.dropped_shed
    assert_balanced(intake)
    intake.bend(1.0)
    await send(intake, *spans)
    assert intake.statistics().dropped_shed == books.dropped_shed


async def test_a_bent_head_probability_is_told_from_what_it_would_have_dropped_anyway() -> None:
    """What the probability drops is dropped_head, what the load drops beyond it dropped_shed."""
    intake = Intake(MemoryLog(PARTITIONS), waiting_bytes_max=1 << 20, head=sampling(0.5))
    intake.bend(1 / 4)
    await send(intake, *(Sp(number, number) for number in range(1, 401)))
    books = intake.statistics()
    assert 160 < books.dropped_head < 240
    assert 110 < books.dropped_shed < 190
    assert_balanced(intake)


def failing(rng: Random) -> Callable[[str], Awaitable[None]]:
    """Now and then a call fails before or after its effect, or takes its time."""

    async def fault(call: str) -> None:
        match rng.randrange(8) if call.startswith("append") else None:
            case 0:
                raise SourceUnavailable("away")
            case 1:
                raise Overloaded("full")
            case 2:
                await trio.sleep(rng.random() * 10)

    return fault


@pytest.mark.parametrize("seed", range(20))
async def test_the_books_balance_at_every_moment(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    """accepted = produced + dropped + refused + waiting, whatever fails or is given up; the log holds the produced."""
    rng = Random(seed)
    log = MemoryLog(PARTITIONS, faults=failing(rng))
    intake = Intake(log, waiting_bytes_max=3000, head=sampling(rng.choice([0.0, 0.5, 1.0])))
    intake.bend(rng.choice([1.0, 0.5]))
    outcomes = {"sent": 0, "answered": 0}

    async def sender(number: int) -> None:
        for request in range(5):
            spans = [
                Sp(rng.randrange(1, 100), number * 1000 + request * 10 + each + 1, error=rng.random() < 0.1)
                for each in range(rng.randrange(1, 9))
            ]
            await trio.sleep(rng.random())
            with trio.move_on_after(5):
                try:
                    await send(intake, *spans)
                except (SourceUnavailable, Overloaded):
                    pass
                else:
                    outcomes["answered"] += len(spans)
            outcomes["sent"] += len(spans)
            assert_balanced(intake)

    async def look() -> None:
        while True:
            await trio.sleep(0.1)
            assert_balanced(intake)

    async with trio.open_nursery() as looking:
        looking.start_soon(look)
        async with trio.open_nursery() as sending:
            for number in range(8):
                sending.start_soon(sender, number)
        looking.cancel_scope.cancel()
    books = intake.statistics()
    assert books.waiting == books.waiting_bytes == 0
    assert books.produced + books.dropped_head + books.dropped_shed == outcomes["answered"]
    assert len(await spans_in(log)) >= books.produced
