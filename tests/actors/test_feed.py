"""The feed of a foreign topic: all of it ends up in the log or in the dead letters, and only then is committed."""

import json
from collections.abc import Awaitable, Callable
from random import Random

import pytest
import trio

from spanloom.actors.context import Board
from spanloom.actors.feed import Feed, FeedStatistics, run_feed
from spanloom.actors.intake import Intake
from spanloom.adapters.memory import MemoryLog, MemoryOutlet
from spanloom.core.kernel import scan
from spanloom.core.partitioning import partition_of
from spanloom.errors import Fenced, Overloaded, SourceUnavailable
from spanloom.model import DEAD_LETTERS, Committed, Message, Record
from tests.spans import Sp, traces_data

PARTITIONS = 4
Fault = Callable[[str], Awaitable[None]]


async def fine(_: str) -> None:
    pass


class Rig:
    """A foreign topic of one partition, our log and dead letters, and how far a feed came."""

    def __init__(self, encoding: str = "otlp_proto", *, fault: Fault = fine) -> None:
        self.source = MemoryLog(1, incarnation="foreign", batch_bytes=2000, faults=fault)
        self.log, self.outlet = MemoryLog(PARTITIONS, faults=fault), MemoryOutlet(faults=fault)
        self.intake = Intake(self.log, waiting_bytes_max=1 << 20)
        self.board = Board(1)
        self.statistics = FeedStatistics()
        self.feed = Feed(
            "orders",
            encoding,
            source=self.source,
            intake=self.intake,
            outlet=self.outlet,
            board=self.board,
            draw=lambda: 0.5,
            statistics=self.statistics,
        )

    async def fill(self, *values: bytes, key: bytes | None = None) -> None:
        await self.source.append([(0, Message(key, value, (("theirs", b"1"),))) for value in values])

    async def run(self) -> None:
        """Until all of the topic is committed; then drained. Raises what kills it."""

        async def drain_at_the_end() -> None:
            while self.source._committed.get(0, Committed(0, b"")).offset < self.source._partitions[0].end:  # noqa: ASYNC110
                await trio.sleep(0.01)
            self.board.drain([0])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain_at_the_end)
            await run_feed(0, self.feed)
            nursery.cancel_scope.cancel()

    async def records(self) -> list[tuple[int, Record]]:
        """Those in the log, with their partitions."""
        found: list[tuple[int, Record]] = []
        for partition in range(PARTITIONS):
            end, at = await self.log.end_offset(partition), 0
            reader = await self.log.read(partition, 0)
            while at < end:
                for record in await reader.receive():
                    found.append((partition, record))
                    at = record.offset + 1
        return found

    async def spans(self) -> list[int]:
        return sorted(
            int.from_bytes(span.span_id, "big") for _, one in await self.records() for span in scan(one.value)
        )

    async def letters(self) -> list[Record]:
        return list(await self.outlet.read(DEAD_LETTERS, 0, 1000))


async def test_records_are_split_and_keyed_anew_whatever_their_key() -> None:
    """Spans of several traces under one foreign key, or none, lie each in its trace's partition under that one's id."""
    rig = Rig()
    await rig.fill(traces_data([Sp(1, 1), Sp(2, 2), Sp(1, 3)]), key=b"whatever")
    await rig.fill(traces_data([Sp(3, 4)]), b"", traces_data([Sp(1, 5)]))
    await rig.run()
    assert await rig.spans() == [1, 2, 3, 4, 5]
    for partition, record in await rig.records():
        (trace_id,) = {span.trace_id for span in scan(record.value)}
        assert record.key == trace_id.hex().encode()
        assert partition == partition_of(record.key, PARTITIONS)
    assert rig.statistics == FeedStatistics(records_taken=4)


async def test_spans_of_one_trace_that_are_read_together_become_one_record() -> None:
    """One span a record, as Jaeger has it, does not stay so."""
    rig = Rig()
    await rig.fill(*(traces_data([Sp(1, number)]) for number in range(1, 6)))
    await rig.run()
    assert (len(await rig.records()), await rig.spans()) == (1, [1, 2, 3, 4, 5])


async def test_a_poison_record_goes_to_the_dead_letters_and_the_others_go_on() -> None:
    """As it came, with why, from where and how it was written; its neighbours reach the log untouched."""
    rig = Rig()
    whole = traces_data([Sp(1, 1), Sp(2, 2)])
    truncated = traces_data([Sp(3, 3)])[:-5]
    await rig.fill(whole, truncated, traces_data([Sp(4, 4)]), key=b"k")
    await rig.run()
    assert await rig.spans() == [1, 2, 4]
    (letter,) = await rig.letters()
    assert (letter.key, letter.value) == (b"k", truncated)
    headers = dict(letter.headers)
    assert headers.pop("reason").startswith(b"truncated")
    assert headers == {
        "source-topic": b"orders",
        "source-partition": b"0",
        "source-offset": b"1",
        "source-encoding": b"otlp_proto",
        "theirs": b"1",
    }
    assert (rig.statistics.records_taken, rig.statistics.records_dead_lettered) == (2, 1)


async def test_a_record_with_some_bad_spans_gives_its_good_ones_and_becomes_a_letter() -> None:
    """Nothing of it is lost: what can be read is in the log, the whole of it is in the dead letters."""
    rig = Rig("seed_json")
    span = {"trace_id": "a", "service_name": "s", "operation_name": "o", "start_time": 1, "duration": 1}
    good, bad = {**span, "span_id": "1"}, {**span, "span_id": "2", "duration": -1}
    await rig.fill(json.dumps([good, bad]).encode())
    await rig.run()
    assert await rig.spans() == [1]
    (letter,) = await rig.letters()
    assert b"$[1].duration" in dict(letter.headers)["reason"]
    books = rig.intake.statistics()
    assert (books.accepted, books.produced, books.rejected) == (1, 1, 1)


async def test_senders_may_be_answered_early_but_a_feed_commits_what_is_in_the_log(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing is committed while the log is away, in the early mode too."""
    away = True

    async def fault(call: str) -> None:
        if away and call == "append:before" and rig_is_ready:
            raise SourceUnavailable("away")

    rig_is_ready = False
    rig = Rig()
    rig.log = MemoryLog(PARTITIONS, faults=fault)
    rig.intake._log = rig.log
    await rig.fill(traces_data([Sp(1, 1)]))
    rig_is_ready = True
    async with trio.open_nursery() as nursery:
        await nursery.start(rig.intake.answer_early)
        nursery.start_soon(rig.run)
        await trio.sleep(60)
        assert (await rig.source.committed(0)).offset == 0
        away = False
        await trio.sleep(60)
        assert (await rig.source.committed(0)).offset == 1
        nursery.cancel_scope.cancel()
    assert await rig.spans() == [1]


async def test_what_retention_took_is_counted_and_the_feed_goes_on() -> None:
    """A feed whose place in the topic is gone goes on at the first record there is."""
    rig = Rig()
    await rig.fill(*(traces_data([Sp(number, number)]) for number in range(1, 6)))
    for _ in range(3):
        rig.source._partitions[0].earliest = rig.source._partitions[0].records.pop(0).offset + 1
    await rig.run()
    assert await rig.spans() == [4, 5]
    assert rig.statistics.records_lost == 3


async def test_a_partition_that_was_given_away_ends_its_feed() -> None:
    """A commit that is fenced ends the feed in peace: the next owner goes on from the last one."""

    async def fault(call: str) -> None:
        if call == "commit:before":
            raise Fenced("given away")

    rig = Rig(fault=fault)
    await rig.fill(traces_data([Sp(1, 1)]))
    with trio.fail_after(5):
        await run_feed(0, rig.feed)
    assert await rig.spans() == [1]


class Crash(Exception):
    """Kills the feed where it stands."""


def bad_weather(rng: Random, names: tuple[str, ...]) -> Fault:
    """Calls fail before or after their effect, hang, or kill who called."""

    async def fault(call: str) -> None:
        if not call.startswith(names):
            return
        match rng.randrange(12):
            case 0:
                raise SourceUnavailable("away")
            case 1:
                raise Overloaded("full") if call == "append:before" else SourceUnavailable("away")
            case 2:
                await trio.sleep(rng.random() * 10)
            case 3:
                raise Crash

    return fault


@pytest.mark.parametrize("seed", range(40))
async def test_no_record_is_lost_when_feeds_crash(seed: int, autojump_clock: trio.testing.MockClock) -> None:
    """Whatever fails or dies, readable spans are in the log, other records are dead letters, and all is committed."""
    rng = Random(seed)
    stormy = False
    storm = bad_weather(rng, ("append", "commit", "publish", "receive", "read:"))

    async def fault(call: str) -> None:
        if stormy:
            await storm(call)

    rig = Rig(fault=fault)
    values = [
        traces_data([Sp(rng.randrange(1, 20), number * 10 + each) for each in range(1, rng.randrange(2, 6))])
        for number in range(1, 60)
    ]
    poison = {number for number in range(len(values)) if rng.random() < 0.1}
    await rig.fill(*(value[:-3] if number in poison else value for number, value in enumerate(values)))
    want = {
        int.from_bytes(span.span_id, "big")
        for number, value in enumerate(values)
        if number not in poison
        for span in scan(value)
    }
    stormy = True
    while not rig.board.is_draining(0):
        with trio.move_on_after(rng.random() * 30):
            try:
                await rig.run()
            except* Crash:
                pass
    stormy = False
    assert (await rig.source.committed(0)).offset == len(values)
    assert set(await rig.spans()) == want
    letters = {int(dict(letter.headers)["source-offset"]) for letter in await rig.letters()}
    assert letters == poison


async def test_nothing_is_committed_before_it_is_durable() -> None:
    """A commit follows the append and the dead letter of the records below it."""
    calls: list[str] = []

    async def note(call: str) -> None:
        if call.endswith(":after"):
            calls.append(call.partition(":")[0])

    rig = Rig(fault=note)
    await rig.fill(traces_data([Sp(1, 1)]), b"junk")
    calls.clear()
    await rig.run()
    assert [call for call in calls if call in ("append", "publish", "commit")] == ["append", "publish", "commit"]
