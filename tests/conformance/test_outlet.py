"""What every outlet promises."""

import trio

from spanloom.model import DEAD_LETTERS, SAMPLING_DECISIONS, TRACES_COMPLETE, Message
from tests.conformance.rigs import Rig


async def test_published_messages_come_back_in_order(rig: Rig) -> None:
    """Each topic keeps key, value, headers and time of its own messages, in order."""
    outlet = await rig.outlet()
    letters = [Message(b"key", b"bytes", (("reason", b"varint"), ("offset", b"7"))), Message(None, b"")]

    await outlet.publish(DEAD_LETTERS, letters)
    await outlet.publish(TRACES_COMPLETE, [Message(b"id", bytes(5_000_000))])

    records = await outlet.read(DEAD_LETTERS, 0, 10)
    assert [Message(record.key, record.value, record.headers) for record in records] == letters
    assert {record.timestamp_ms for record in records} == {rig.clock.now_ms}
    assert [len(record.value) for record in await outlet.read(TRACES_COMPLETE, 0, 10)] == [5_000_000]


async def test_nothing_comes_from_a_topic_never_published_to(rig: Rig) -> None:
    """An unknown topic is an empty one; so is one that nothing was published to."""
    outlet = await rig.outlet()

    await outlet.publish(SAMPLING_DECISIONS, [])

    assert list(await outlet.read(SAMPLING_DECISIONS, 0, 10)) == []
    assert await outlet.trim(SAMPLING_DECISIONS, older_than_ms=rig.clock.now_ms + 1) == 0


async def test_a_topic_is_read_page_by_page(rig: Rig) -> None:
    """Reading on from the last position + 1 gives every message once."""
    outlet = await rig.outlet()
    async with trio.open_nursery() as nursery:
        for number in range(25):
            nursery.start_soon(outlet.publish, TRACES_COMPLETE, [Message(None, b"%d" % number)])

    values: list[bytes] = []
    position = 0
    while page := await outlet.read(TRACES_COMPLETE, position, 10):
        values += [record.value for record in page]
        position = page[-1].offset + 1

    assert sorted(map(int, values)) == list(range(25))


async def test_retention_deletes_by_age_and_frees_no_position(rig: Rig) -> None:
    """Older messages go, of this topic alone; a later message gets a higher position."""
    outlet = await rig.outlet()
    await outlet.publish(TRACES_COMPLETE, [Message(None, b"old")])
    await outlet.publish(DEAD_LETTERS, [Message(None, b"letter")])
    last = (await outlet.read(TRACES_COMPLETE, 0, 10))[-1].offset
    rig.clock.now_ms += 1000

    assert await outlet.trim(TRACES_COMPLETE, older_than_ms=rig.clock.now_ms) == 1
    await outlet.publish(TRACES_COMPLETE, [Message(None, b"new")])

    assert [(record.offset > last, record.value) for record in await outlet.read(TRACES_COMPLETE, 0, 10)] == [
        (True, b"new")
    ]
    assert len(await outlet.read(DEAD_LETTERS, 0, 10)) == 1


async def test_published_messages_outlive_the_process(durable_rig: Rig) -> None:
    """What was acknowledged is there when the outlet is opened again."""
    await (await durable_rig.outlet()).publish(DEAD_LETTERS, [Message(None, b"letter")])

    records = await (await durable_rig.outlet()).read(DEAD_LETTERS, 0, 10)

    assert [record.value for record in records] == [b"letter"]
