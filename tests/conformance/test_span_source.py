"""What every read side of `spans` promises."""

from collections.abc import Sequence

import pytest
import trio
import trio.testing

from spanloom.errors import RecordsDeleted
from spanloom.model import Committed, Message, Record
from tests.conformance.rigs import Log, Rig, read_until


async def fill(log: Log, count: int, *, partition: int = 0, batch: int = 10) -> None:
    """Append records 0, 1, 2, ... to *partition*, several at a time."""
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        await log.append([(partition, Message(None, b"%d" % number)) for number in numbers])


async def test_the_incarnation_names_one_log_for_ever(durable_rig: Rig) -> None:
    """A log that is opened again has the incarnation it was made with."""
    first = (await durable_rig.log()).incarnation

    assert first
    assert (await durable_rig.log()).incarnation == first


async def test_nothing_is_committed_at_first(rig: Rig) -> None:
    """A partition without a commit starts at offset 0."""
    log = await rig.log()

    assert await log.committed(0) == Committed(0, b"")


async def test_a_commit_is_read_back_with_its_metadata(rig: Rig) -> None:
    """Offset and metadata come back together, each partition its own."""
    log = await rig.log()

    metadata = (bytes(range(256)) * 100)[: rig.metadata_bytes_max]
    await log.commit(0, Committed(7, metadata))
    await log.commit(1, Committed((1 << 63) - 1, b""))

    assert await log.committed(0) == Committed(7, metadata)
    assert await log.committed(1) == Committed((1 << 63) - 1, b"")
    assert await log.committed(2) == Committed(0, b"")


async def test_a_commit_never_goes_back(rig: Rig) -> None:
    """A lower offset changes nothing; the same one brings new metadata."""
    log = await rig.log()

    for committed in (Committed(5, b"a"), Committed(4, b"b"), Committed(5, b"c")):
        await log.commit(0, committed)

    assert await log.committed(0) == Committed(5, b"c")


async def test_concurrent_commits_end_at_the_highest(rig: Rig) -> None:
    """However commits of one partition overlap, the highest offset stands with its own metadata."""
    log = await rig.log()

    async with trio.open_nursery() as nursery:
        for offset in range(30):
            nursery.start_soon(log.commit, 0, Committed(offset, b"%d" % offset))

    assert await log.committed(0) == Committed(29, b"29")


async def test_a_commit_outlives_the_process(durable_rig: Rig) -> None:
    """The last commit is there when the log is opened again."""
    await (await durable_rig.log()).commit(3, Committed(9, b"metadata"))

    assert await (await durable_rig.log()).committed(3) == Committed(9, b"metadata")


async def test_a_reader_may_start_anywhere(rig: Rig) -> None:
    """From any offset a reader gives exactly the records from there on, in order."""
    log = await rig.log()
    await fill(log, 35)

    for offset in range(35):
        records = await read_until(await log.read(0, offset), 35)
        assert [record.offset for record in records] == list(range(offset, 35))
        assert [int(record.value) for record in records] == list(range(offset, 35))


@pytest.mark.parametrize("batch_bytes", [1, 10, 3000])
async def test_a_batch_has_at_most_the_bytes_asked_for(rig: Rig, batch_bytes: int) -> None:
    """A batch stays below its size, save for a single record that is larger by itself."""
    log = await rig.log(batch_bytes=batch_bytes)
    for sizes in ([0, 1, 2999, 1], [0, 9000, 3], [3, 3], [3000, 10]):
        await log.append([(0, Message(None, bytes(size))) for size in sizes])

    reader = await log.read(0, 0)
    batches: list[Sequence[Record]] = []
    while not batches or batches[-1][-1].offset < 10:
        batches.append(await reader.receive())

    assert [record.offset for batch in batches for record in batch] == list(range(11))
    for batch in batches:
        assert len(batch) == 1 or sum(len(record.value) for record in batch) <= batch_bytes


async def test_a_reader_at_the_end_wakes_when_something_is_appended(rig: Rig) -> None:
    """A waiting reader gets the next record of its own partition, at once."""
    log = await rig.log()
    await fill(log, 3)
    reader = await log.read(0, 3)
    received: list[bytes] = []

    async def wait() -> None:
        received.extend(record.value for record in await reader.receive())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await log.append([(1, Message(None, b"elsewhere"))])
            await log.append([(0, Message(None, b"here"))])

    assert received == [b"here"]


async def test_a_reader_opened_beyond_the_end_waits_for_its_offset(rig: Rig) -> None:
    """Records below the offset asked for are not given."""
    log = await rig.log()
    reader = await log.read(0, 2)

    await fill(log, 4, batch=1)

    assert [record.offset for record in await read_until(reader, 4)] == [2, 3]


@pytest.mark.parametrize("steps", range(8))
async def test_a_cancelled_receive_loses_nothing(rig: Rig, steps: int) -> None:
    """Wherever a receive is cancelled, the next one goes on where the last successful one ended."""
    log = await rig.log(batch_bytes=20)
    await fill(log, 500)
    reader = await log.read(0, 0)
    received: list[int] = []

    async def cancel(scope: trio.CancelScope) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    for _ in range(20):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope)
                received += [record.offset for record in await reader.receive()]
    received += [record.offset for record in await read_until(reader, 500)]

    assert received == list(range(500))


async def test_readers_do_not_disturb_each_other(rig: Rig) -> None:
    """Two readers of a partition each get every record, also while it is appended to."""
    log = await rig.log(batch_bytes=10)
    received: list[list[int]] = [[], []]

    async def read(number: int) -> None:
        received[number] = [record.offset for record in await read_until(await log.read(0, 0), 60)]

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read, 0)
            nursery.start_soon(read, 1)
            nursery.start_soon(fill, log, 60)

    assert received == [list(range(60))] * 2


@pytest.mark.usefixtures("own_disk")
async def test_a_reader_steps_over_a_reserved_gap(rig: Rig) -> None:
    """A gap where nothing was ever appended is no loss."""
    log = await rig.log()
    await fill(log, 3)
    reader = await log.read(0, 3)

    received: list[int] = []

    async def wait() -> None:
        received.extend(record.offset for record in await reader.receive())

    await log.reserve(0, 1000)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked(0.05)  # never, if it looked again and again
            await log.append([(0, Message(None, b"after"))])

    assert received == [1000]
    assert [record.offset for record in await read_until(await log.read(0, 0), 1001)] == [0, 1, 2, 1000]


async def test_a_reader_whose_next_record_was_deleted_says_so(rig: Rig) -> None:
    """RecordsDeleted names what was wanted and where to go on; a new reader there goes on."""
    log = await rig.log()
    await fill(log, 20)
    reader = await log.read(0, 4)
    rig.clock.now_ms += 1
    await log.append([(0, Message(None, b"kept"))])
    await log.trim(older_than_ms=rig.clock.now_ms, below={})

    with pytest.raises(RecordsDeleted) as deleted:
        await reader.receive()

    assert (deleted.value.partition, deleted.value.wanted, deleted.value.earliest) == (0, 4, 20)
    assert [record.value for record in await (await log.read(0, 20)).receive()] == [b"kept"]


async def test_a_log_whose_every_record_was_deleted_says_so(rig: Rig) -> None:
    """The start of an emptied log is gone, its end is not."""
    log = await rig.log()
    await fill(log, 20)
    rig.clock.now_ms += 1
    await log.trim(older_than_ms=rig.clock.now_ms, below={})

    with pytest.raises(RecordsDeleted):
        await (await log.read(0, 0)).receive()

    reader = await log.read(0, 20)
    await log.append([(0, Message(None, b"next"))])
    assert [record.offset for record in await reader.receive()] == [20]


async def test_a_deleted_start_is_still_known_after_a_restart(durable_rig: Rig) -> None:
    """The earliest offset survives with the log."""
    log = await durable_rig.log()
    await fill(log, 20)
    durable_rig.clock.now_ms += 1
    await log.trim(older_than_ms=durable_rig.clock.now_ms, below={})

    log = await durable_rig.log()

    with pytest.raises(RecordsDeleted):
        await (await log.read(0, 19)).receive()


async def test_a_reader_that_is_given_up_stops(rig: Rig) -> None:
    """Closing wakes who waits; closing again is allowed; nothing is received after it."""
    log = await rig.log()
    reader = await log.read(0, 0)

    async def wait() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.receive()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await reader.aclose()
    await reader.aclose()

    await fill(log, 1)
    with pytest.raises(trio.ClosedResourceError):
        await reader.receive()
