"""What every ledger promises."""

import trio
import trio.testing

from spanloom.interfaces import Ledger
from spanloom.model import LedgerRecord
from tests.conformance.rigs import PARTITIONS, Rig


async def everything(ledger: Ledger, partition: int, position: int = 0) -> list[LedgerRecord]:
    """All that lies in *partition* from *position* on."""
    end = await ledger.end(partition)
    reader = await ledger.read(partition, position)
    records: list[LedgerRecord] = []
    while end > position and (not records or records[-1].position + 1 < end):
        records += await reader.receive()
    return records


async def test_records_come_back_in_order_with_their_positions(rig: Rig) -> None:
    """Bodies are read back byte for byte, positions count from 0 in each partition."""
    ledger = await rig.ledger()

    await ledger.append(0, [b"fence", b""])
    await ledger.append(1, [bytes(range(256))])
    await ledger.append(0, [b"decide"])

    assert await everything(ledger, 0) == [LedgerRecord(0, b"fence"), LedgerRecord(1, b""), LedgerRecord(2, b"decide")]
    assert await everything(ledger, 1) == [LedgerRecord(0, bytes(range(256)))]
    assert [await ledger.end(partition) for partition in range(PARTITIONS)] == [3, 1, 0, 0]


async def test_an_empty_append_changes_nothing(rig: Rig) -> None:
    """Appending no bodies succeeds and moves no position."""
    ledger = await rig.ledger()

    await ledger.append(0, [])

    assert await ledger.end(0) == 0


async def test_concurrent_appends_keep_each_callers_order_unbroken(rig: Rig) -> None:
    """What one call appends lies side by side, whoever appends at the same time."""
    ledger = await rig.ledger()

    async with trio.open_nursery() as nursery:
        for name in range(20):
            nursery.start_soon(ledger.append, 0, [b"%d:%d" % (name, number) for number in range(3)])

    bodies = [record.body for record in await everything(ledger, 0)]
    assert [record.position for record in await everything(ledger, 0)] == list(range(60))
    for start in range(0, 60, 3):
        caller = bodies[start].split(b":")[0]
        assert bodies[start : start + 3] == [caller + b":0", caller + b":1", caller + b":2"]


async def test_large_records_are_taken(rig: Rig) -> None:
    """Records of five megabytes come back whole, in several batches if need be."""
    ledger = await rig.ledger()
    bodies = [bytes([number]) * 5_000_000 for number in range(3)]

    await ledger.append(0, bodies)

    assert [record.body for record in await everything(ledger, 0)] == bodies


async def test_a_reader_wakes_when_something_is_appended(rig: Rig) -> None:
    """A reader at the end gets the next record at once."""
    ledger = await rig.ledger()
    await ledger.append(0, [b"old"])
    reader = await ledger.read(0, 1)
    received: list[LedgerRecord] = []

    async def wait() -> None:
        received.extend(await reader.receive())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            await ledger.append(0, [b"new"])

    assert received == [LedgerRecord(1, b"new")]


async def test_a_cancelled_receive_loses_nothing(rig: Rig) -> None:
    """Wherever a receive is cancelled, nothing is skipped and nothing repeated."""
    ledger = await rig.ledger()
    reader = await ledger.read(0, 0)
    received: list[int] = []

    async def cancel(scope: trio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    for steps in range(20):
        await ledger.append(0, [b"one", b"two"])
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(cancel, scope, steps)
                received += [record.position for record in await reader.receive()]
    while len(received) < 40:
        received += [record.position for record in await reader.receive()]

    assert received == list(range(40))


async def test_retention_deletes_what_lies_before_and_nothing_else(rig: Rig) -> None:
    """A reader opened at a deleted position starts at the first record after it; positions are not given again."""
    ledger = await rig.ledger()
    for partition in range(2):
        await ledger.append(partition, [b"%d" % number for number in range(5)])

    assert await ledger.trim({0: 3}) == 3
    assert await ledger.trim({0: 3}) == 0

    assert [record.position for record in await everything(ledger, 0)] == [3, 4]
    assert [record.position for record in await everything(ledger, 1)] == [0, 1, 2, 3, 4]


async def test_positions_are_never_given_again_after_retention(rig: Rig) -> None:
    """An emptied partition goes on with its next position, also for a reader that was waiting at its start."""
    ledger = await rig.ledger()
    await ledger.append(0, [b"0", b"1"])
    reader = await ledger.read(0, 0)

    await ledger.trim({0: 99})
    await ledger.append(0, [b"2"])

    assert await ledger.end(0) == 3
    assert list(await reader.receive()) == [LedgerRecord(2, b"2")]


async def test_the_ledger_outlives_the_process(durable_rig: Rig) -> None:
    """Records and positions are there when the ledger is opened again, emptied partitions included."""
    ledger = await durable_rig.ledger()
    await ledger.append(0, [b"kept"])
    await ledger.append(1, [b"deleted"])
    await ledger.trim({1: 1})

    ledger = await durable_rig.ledger()
    await ledger.append(1, [b"next"])

    assert await everything(ledger, 0) == [LedgerRecord(0, b"kept")]
    assert await everything(ledger, 1) == [LedgerRecord(1, b"next")]
