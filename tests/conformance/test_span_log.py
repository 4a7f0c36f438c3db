"""What every append side of `spans` promises."""

from collections.abc import Sequence

import pytest
import trio

from spanloom.errors import Overloaded
from spanloom.model import Committed, Message, Record
from tests.conformance.rigs import PARTITIONS, Log, Rig, read_until


async def everything(log: Log, partition: int, offset: int = 0) -> list[Record]:
    """All that lies in *partition* from *offset* on."""
    end = await log.end_offset(partition)
    return await read_until(await log.read(partition, offset), end) if end > offset else []


async def append_for_ever(log: Log, batch: Sequence[tuple[int, Message]]) -> None:
    """Append until something stops it."""
    while True:
        await log.append(batch)


def text(number: int) -> Message:
    """A small message."""
    return Message(None, str(number).encode())


async def test_the_partition_count_is_what_the_log_was_made_with(rig: Rig) -> None:
    """A log says how many partitions it has."""
    log = await rig.log()

    assert log.partition_count == PARTITIONS


@pytest.mark.parametrize(
    "message",
    [
        Message(b"0af7651916cd43dd8448eb211c80319c", b"value"),
        Message(None, b"value"),
        Message(b"", b""),
        Message(b"key", b"", (("moved", b"1"), ("moved", b"2"), ("", b""), ("größe", bytes(range(256))))),
        Message(None, b"\x00" * 70_000, (("big", b"\xff" * 70_000),)),
    ],
    ids=["key", "no key", "empty", "headers", "beyond 16 bits"],
)
async def test_a_record_comes_back_as_it_was_appended(rig: Rig, message: Message) -> None:
    """Key, value, headers and their order survive, an absent key apart from an empty one."""
    log = await rig.log()

    await log.append([(1, message)])

    assert await everything(log, 1) == [Record(0, rig.clock.now_ms, *message)]


async def test_each_partition_keeps_its_own_order_and_offsets(rig: Rig) -> None:
    """A batch over several partitions is appended in order within each, offsets without gaps."""
    log = await rig.log()

    for start in range(0, 40, 20):
        await log.append([(number % 3, text(number)) for number in range(start, start + 20)])

    for partition in range(3):
        records = await everything(log, partition)
        assert [record.value for record in records] == [text(number).value for number in range(partition, 40, 3)]
        assert [record.offset for record in records] == list(range(len(records)))
    assert await log.end_offset(3) == 0


async def test_an_empty_batch_appends_nothing(rig: Rig) -> None:
    """Appending nothing succeeds and moves no offset."""
    log = await rig.log()

    await log.append([])

    assert [await log.end_offset(partition) for partition in range(PARTITIONS)] == [0] * PARTITIONS


async def test_records_carry_the_time_of_their_append(rig: Rig) -> None:
    """The timestamp is the log's wall clock, whatever it does."""
    log = await rig.log()

    times = [rig.clock.now_ms, rig.clock.now_ms + 5000, rig.clock.now_ms - 5000]
    for time_ms in times:
        rig.clock.now_ms = time_ms
        await log.append([(0, text(1))])

    assert [record.timestamp_ms for record in await everything(log, 0)] == times


async def test_concurrent_appends_all_arrive_each_in_its_own_order(rig: Rig) -> None:
    """Many appenders at once lose nothing, repeat nothing and keep the order of each one's records."""
    log = await rig.log()

    async def appender(name: int) -> None:
        for batch in range(5):
            await log.append([(0, Message(b"%d" % name, b"%d" % (batch * 3 + number))) for number in range(3)])

    async with trio.open_nursery() as nursery:
        for name in range(20):
            nursery.start_soon(appender, name)

    records = await everything(log, 0)
    assert [record.offset for record in records] == list(range(300))
    for name in range(20):
        assert [int(record.value) for record in records if record.key == b"%d" % name] == list(range(15))


async def test_a_value_of_five_megabytes_is_taken(rig: Rig) -> None:
    """A large record among small ones comes back whole."""
    log = await rig.log()
    large = bytes(range(256)) * 20_480

    await log.append([(0, text(0)), (0, Message(None, large)), (0, text(2))])

    assert [record.value for record in await everything(log, 0)] == [b"0", large, b"2"]


async def test_a_cancelled_append_is_applied_whole_or_not_at_all(rig: Rig) -> None:
    """Whenever an append is cancelled, its records are all there or none is, and others' are untouched."""
    log = await rig.log()

    for steps in range(6):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.append, [(1, text(steps))])
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel_after, steps, scope)
                await log.append([(0, text(steps)), (0, text(steps))])

    values = [record.value for record in await everything(log, 0)]
    assert values[::2] == values[1::2]
    assert [record.value for record in await everything(log, 1)] == [text(steps).value for steps in range(6)]


async def cancel_after(steps: int, scope: trio.CancelScope) -> None:
    """Cancel *scope* some checkpoints from now."""
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()


async def test_appended_records_outlive_the_process(durable_rig: Rig) -> None:
    """What was acknowledged is there when the log is opened again, and offsets go on from it."""
    await (await durable_rig.log()).append([(0, text(0)), (2, text(1))])

    log = await durable_rig.log()
    await log.append([(0, text(2))])

    assert [record.value for record in await everything(log, 0)] == [b"0", b"2"]
    assert [record.value for record in await everything(log, 2)] == [b"1"]


async def test_offsets_are_never_given_again_after_retention(rig: Rig) -> None:
    """Deleting every record does not free its offset."""
    log = await rig.log()
    await log.append([(0, text(number)) for number in range(7)])

    rig.clock.now_ms += 1
    assert await log.trim(older_than_ms=rig.clock.now_ms, below={}) == 7
    await log.append([(0, text(7))])

    assert await log.end_offset(0) == 8
    assert [record.offset for record in await everything(log, 0, 7)] == [7]


async def test_offsets_are_never_given_again_after_retention_and_a_restart(durable_rig: Rig) -> None:
    """An emptied log that is opened again goes on with its next offset."""
    log = await durable_rig.log()
    await log.append([(0, text(number)) for number in range(7)])
    durable_rig.clock.now_ms += 1
    await log.trim(older_than_ms=durable_rig.clock.now_ms, below={})

    log = await durable_rig.log()

    assert await log.end_offset(0) == 7


@pytest.mark.usefixtures("own_disk")
async def test_a_reserved_offset_is_not_given_away(rig: Rig) -> None:
    """After `reserve` the next record lies at the reserved offset; a lower reservation changes nothing."""
    log = await rig.log()
    await log.append([(0, text(0))])

    await log.reserve(0, 100)
    await log.reserve(0, 50)
    await log.append([(0, text(1))])

    assert [record.offset for record in await everything(log, 0)] == [0, 100]


@pytest.mark.usefixtures("own_disk")
async def test_a_restarted_log_starts_above_its_commits(durable_rig: Rig) -> None:
    """A log that lost its tail (a power cut) never gives away an offset that was committed."""
    await (await durable_rig.log()).commit(0, Committed(40, b""))

    log = await durable_rig.log()
    await log.append([(0, text(0))])

    assert [record.offset for record in await everything(log, 0, 40)] == [40]


async def test_retention_deletes_by_age_only_what_is_older(rig: Rig) -> None:
    """Records at or after the given time stay."""
    log = await rig.log()
    for number in range(4):
        await log.append([(number % 2, text(number))])
        rig.clock.now_ms += 1000

    deleted = await log.trim(older_than_ms=rig.clock.now_ms - 2000, below={})

    assert deleted == 2
    assert [record.value for record in await everything(log, 0, 1)] == [b"2"]
    assert [record.value for record in await everything(log, 1, 1)] == [b"3"]


@pytest.mark.usefixtures("own_disk")
async def test_a_full_log_refuses_appends_and_names_its_cap(rig: Rig) -> None:
    """At the cap with nothing committed an append raises Overloaded, appends nothing, and reading goes on."""
    log = await rig.log(log_bytes_max=2_000_000)
    batch = [(partition, Message(None, bytes(50_000))) for partition in range(PARTITIONS)]

    with pytest.raises(Overloaded, match="log_bytes_max = 2000000"):
        await append_for_ever(log, batch)

    ends = [await log.end_offset(partition) for partition in range(PARTITIONS)]
    assert len(set(ends)) == 1
    assert len(await everything(log, 0)) == ends[0] > 0


@pytest.mark.usefixtures("own_disk")
async def test_a_full_log_takes_appends_again_once_offsets_are_committed(rig: Rig) -> None:
    """At the cap the oldest records below the committed offsets make room; those above stay."""
    log = await rig.log(log_bytes_max=2_000_000)
    batch = [(partition, Message(None, bytes(50_000))) for partition in range(2)]
    with pytest.raises(Overloaded):
        await append_for_ever(log, batch)
    end = await log.end_offset(0)

    await log.commit(0, Committed(5, b""))
    await log.append(batch)

    assert await log.end_offset(0) == end + 1
    assert len(await everything(log, 1)) == end + 1
    assert [record.offset for record in await everything(log, 0, 5)] == list(range(5, end + 1))


@pytest.mark.usefixtures("own_disk")
async def test_the_last_record_below_a_commit_makes_room_too(rig: Rig) -> None:
    """A committed offset frees everything below it, the record right before it included."""
    log = await rig.log(log_bytes_max=2_000_000)
    await log.append([(0, Message(None, bytes(1_500_000)))])

    await log.commit(0, Committed(1, b""))
    await log.append([(0, Message(None, bytes(1_500_000)))])

    assert [record.offset for record in await everything(log, 0, 1)] == [1]


@pytest.mark.usefixtures("own_disk")
async def test_trim_brings_a_log_at_its_cap_below_it(durable_rig: Rig) -> None:
    """A log over its cap (it was lowered, say) loses its oldest records below the offsets given, not more."""
    log = await durable_rig.log()
    for _ in range(40):
        await log.append([(0, Message(None, bytes(50_000))), (1, Message(None, bytes(50_000)))])

    log = await durable_rig.log(log_bytes_max=3_000_000)
    deleted = await log.trim(older_than_ms=0, below={0: 30})

    assert 20 <= deleted <= 30
    assert len(await everything(log, 1)) == 40
    assert (await everything(log, 0, deleted))[0].offset == deleted
