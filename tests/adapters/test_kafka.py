"""What the Kafka adapters promise beyond the interfaces: the group, the partitioner, holding back, outages."""

import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio
from confluent_kafka.admin import NewTopic

from spanloom.adapters.kafka.clients import open_consumers, open_member
from spanloom.adapters.kafka.handle import Handle, Place
from spanloom.adapters.kafka.member import Member
from spanloom.adapters.kafka.publisher import ANY_PARTITION, Publisher
from spanloom.adapters.kafka.topics import Topics, is_new_protocol_as_fast
from spanloom.core import kernel
from spanloom.core.partitioning import partition_of
from spanloom.errors import ConfigError, Fenced, SourceUnavailable
from spanloom.model import LEDGER, SPANS, Assigned, Committed, Message, PartitionChange, Record, Revoked
from tests.conformance.kafka_rig import KafkaRig
from tests.conformance.rigs import PARTITIONS, read_until
from tests.servers import need_servers
from tests.servers.kafka import Kafka, kafka, running

FAST_GROUPS = {
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "500",
    "group.consumer.heartbeat.interval.ms": "500",
}


@pytest.fixture(params=["native", "portable"])
def reader(request: pytest.FixtureRequest) -> str:
    """Which client reads."""
    if request.param == "native" and kernel.fetch is None:
        pytest.skip("without native code the portable consumer reads")
    return str(request.param)


@pytest.fixture
def rig(reader: str) -> Iterator[KafkaRig]:
    """Topics of the test's own."""
    need_servers()
    rig = KafkaRig(running(), reader=reader)
    yield rig
    rig.close()


@cache
def running_fast_groups() -> Kafka:
    """A broker whose new group protocol notices a death within 6 s, which it does not by its defaults."""
    stop = ExitStack()
    folder = stop.enter_context(TemporaryDirectory(prefix="spanloom-kafka-", ignore_cleanup_errors=True))
    _stops.append(stop)
    return stop.enter_context(kafka(Path(folder), settings=FAST_GROUPS))


_stops: list[ExitStack] = []


@pytest.fixture(scope="module", autouse=True)
def end_servers() -> Iterator[None]:
    """The broker of this module ends with it."""
    yield
    for stop in _stops:
        stop.close()


async def test_keys_go_where_java_clients_would_send_them(rig: KafkaRig) -> None:
    """A keyed message lies in the partition that murmur2 names (design, section 3), for 12 partitions and others."""
    topic = f"{rig.prefix}twelve"
    rig.create([(topic, 12)])
    publisher, fetchers = rig.publisher(SourceUnavailable), rig.fetchers()
    keys = [
        b"cfcd208495d565ef66e7dff9f98764da",
        b"c4ca4238a0b923820dcc509a6f75849b",
        b"c81e728d9d4c2f636f067f89cc14862c",
    ]
    keys += [b"%032x" % number for number in range(100)]

    await publisher.publish([(topic, ANY_PARTITION, Message(key, b"")) for key in keys])

    assert [partition_of(key, 12) for key in keys[:3]] == [1, 9, 3]
    for partition in range(12):
        wanted = [key for key in keys if partition_of(key, 12) == partition]
        reader = fetchers.read(Place(topic, partition, 0))
        assert [record.key for record in await read_until(reader, len(wanted))] == wanted
        await reader.aclose()


async def test_a_partition_that_is_not_read_holds_up_no_other(rig: KafkaRig) -> None:
    """Far more than its queue holds waits in one partition; the others are read meanwhile, and it loses nothing."""
    log = await rig.log()
    for _ in range(8):
        await log.append([(0, Message(None, bytes(100_000))) for _ in range(10)])
    tight = replace(rig.settings, client={"queued.max.messages.kbytes": "512"})
    fetchers = open_consumers(tight, PARTITIONS)
    held, other = (fetchers.read(Place(rig.settings.topic(SPANS), n, 0)) for n in range(2))
    records: list[Record] = [*await held.receive()]

    with trio.fail_after(10):
        for number in range(20):
            await log.append([(1, Message(None, b"%d" % number))])
            assert [record.value for record in await other.receive()] == [b"%d" % number]
    while len(records) < 80:
        records += await held.receive()

    assert [record.offset for record in records] == list(range(80))
    for reader in (held, other):
        await reader.aclose()
    fetchers.close()


async def test_a_question_does_not_wait_behind_a_fetch_that_waits_for_records(rig: KafkaRig) -> None:
    """A broker answers one connection in order: where a partition ends is asked on another than it is fetched on."""
    patient = replace(rig.settings, client={"fetch.wait.max.ms": "30000"})  # beyond a question's time-out
    fetchers, topic = open_consumers(patient, PARTITIONS), rig.settings.topic(SPANS)
    log = await rig.log()
    await log.append([(0, Message(None, b"one"))])
    reader = fetchers.read(Place(topic, 0, 0))
    assert len(await reader.receive()) == 1
    with trio.move_on_after(1):
        await reader.receive()

    marks = [await fetchers.watermarks(topic, partition) for partition in range(2)]

    assert [mark.high for mark in marks] == [1, 0]
    await reader.aclose()
    fetchers.close()


async def test_one_process_reads_a_hundred_partitions(rig: KafkaRig) -> None:
    """A hundred readers on one consumer each get their own partition's records, whole and in order."""
    topic = f"{rig.prefix}hundred"
    rig.create([(topic, 100)])
    publisher, fetchers = rig.publisher(SourceUnavailable), rig.fetchers()
    await publisher.publish([(topic, n % 100, Message(None, b"%d" % n)) for n in range(5000)])
    received: dict[int, list[int]] = {}

    async def read(partition: int) -> None:
        reader = fetchers.read(Place(topic, partition, 0))
        received[partition] = [int(record.value) for record in await read_until(reader, 50)]
        await reader.aclose()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for partition in range(100):
                nursery.start_soon(read, partition)

    assert received == {partition: list(range(partition, 5000, 100)) for partition in range(100)}


async def test_a_topic_made_again_has_another_incarnation(rig: KafkaRig) -> None:
    """The same name twice is two logs: offsets of one mean nothing in the other."""
    topics, name = Topics(rig.settings), f"{rig.prefix}again"
    incarnations = set()
    for _ in range(2):
        rig.create([(name, 1)])
        facts = topics.describe(name)
        assert facts is not None
        incarnations.add(facts.incarnation)
        rig.admin.delete_topics([name])[name].result(30)
        with trio.fail_after(10):
            while topics.describe(name) is not None:  # noqa: ASYNC110 - a server's state, nobody tells us
                await trio.sleep(0.05)

    assert len(incarnations) == 2


# The group.


async def follow(member: Member, seen: list[PartitionChange], mine: set[int]) -> None:
    """Do what the group says, at once."""
    while True:
        change = await member.next_change()
        seen.append(change)
        if isinstance(change, Assigned):
            mine |= set(change.partitions)
        else:
            mine -= set(change.partitions)
        await member.acknowledge(change)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_members_share_the_partitions_and_only_owners_commit(protocol: str, reader: str) -> None:
    """A second member takes half and the first goes on; who gave a partition away commits it no more."""
    need_servers()
    rig = KafkaRig(running() if protocol == "classic" else running_fast_groups(), reader=reader)
    settings = Topics(rig.settings).group_protocol()
    assert settings["group.protocol"] == protocol
    first, second = (open_member(rig.settings, rig.settings.topic(SPANS), settings) for _ in range(2))
    seen: list[PartitionChange] = []
    firsts, seconds = set[int](), set[int]()
    async with trio.open_nursery() as nursery:
        await first.join()
        nursery.start_soon(follow, first, seen, firsts)
        await until(lambda: firsts == set(range(PARTITIONS)))
        for partition in range(PARTITIONS):
            await first.commit(partition, Committed(partition, b"first"))

        await second.join()
        nursery.start_soon(follow, second, [], seconds)
        await until(lambda: len(firsts) == len(seconds) == PARTITIONS // 2)
        assert firsts | seconds == set(range(PARTITIONS))
        assert any(isinstance(change, Revoked) and set(change.partitions) == seconds for change in seen)

        for partition in seconds:
            assert await second.committed(partition) == Committed(partition, b"first")
            with pytest.raises(Fenced):
                await first.commit(partition, Committed(100, b"late"))
            await patiently_commit(second, partition, Committed(7, b"second"))
            assert await first.committed(partition) == Committed(7, b"second")
        nursery.cancel_scope.cancel()
    await second.leave()
    await first.join()
    with trio.fail_after(20):
        change = await first.next_change()
        while not set(change.partitions) >= seconds:
            await first.acknowledge(change)
            change = await first.next_change()
    await first.leave()
    for member in (first, second):
        member.close()
    rig.close()


async def test_what_one_client_committed_the_other_reads(rig: KafkaRig) -> None:
    """A group may change from one client to the other: offset and metadata are the same to both."""
    topic = rig.settings.topic(SPANS)
    ours, other = (open_member(replace(rig.settings, reader=reader), topic, {}) for reader in ("auto", "portable"))
    for number, (writer, looker) in enumerate([(ours, other), (other, ours)], 1):
        await writer.commit(0, Committed(number, bytes(range(256))))
        assert await looker.committed(0) == Committed(number, bytes(range(256)))
    for member in (ours, other):
        member.close()


async def patiently_commit(member: Member, partition: int, committed: Committed) -> None:
    """Commit, also while the group is still settling."""
    with trio.fail_after(20):
        while True:
            try:
                return await member.commit(partition, committed)
            except SourceUnavailable:
                await trio.sleep(0.1)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110 - what changes lies in another process
            await trio.sleep(0.05)


@pytest.mark.parametrize(
    ("protocols", "session", "ours", "fast"),
    [
        ("classic,consumer,streams", "45000", 6000, False),  # a broker's defaults
        ("classic,consumer,streams", "6000", 6000, True),
        ("classic", "6000", 6000, False),
        ("", "", 6000, False),  # a broker that does not know of it
    ],
)
def test_the_new_protocol_is_taken_where_it_notices_a_death_as_soon(
    protocols: str, session: str, ours: int, fast: bool
) -> None:
    """KIP-848 with a session of 45 s would take seven times as long to take over: then the classic protocol it is."""
    broker = {
        "group.coordinator.rebalance.protocols": protocols,
        "group.consumer.session.timeout.ms": session,
    }
    assert is_new_protocol_as_fast(broker, ours) is fast


# Outages.


async def test_a_broker_that_does_not_answer_is_an_outage_and_nothing_else(rig: KafkaRig) -> None:
    """Frozen, every call raises Unavailable in its time; thawed, all go on, and nothing acknowledged is missing."""
    topic, node = rig.settings.topic(SPANS), running().nodes[0]
    quick = {**rig.settings.connection(), "delivery.timeout.ms": "2000"}
    publisher, fetchers = Publisher(quick, SourceUnavailable, linger_ms=0), rig.fetchers()
    member = open_member(rig.settings, topic, {})
    reader = fetchers.read(Place(topic, 0, 0))
    await publisher.publish([(topic, 0, Message(None, b"before"))])
    assert [record.value for record in await reader.receive()] == [b"before"]
    await member.commit(0, Committed(1, b""))

    node.send(signal.SIGSTOP)
    try:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(refused, lambda: publisher.publish([(topic, 0, Message(None, b"unknown"))]))
                nursery.start_soon(refused, lambda: fetchers.watermarks(topic, 0))
                nursery.start_soon(refused, lambda: member.commit(0, Committed(2, b"")))
    finally:
        node.send(signal.SIGCONT)

    with trio.fail_after(30):
        while True:
            try:
                await publisher.publish([(topic, 0, Message(None, b"after"))])
                await member.commit(0, Committed(2, b"thawed"))
                break
            except SourceUnavailable:
                await trio.sleep(0.1)
        values = [record.value for record in await reader.receive()]
        while values[-1:] != [b"after"]:
            values += [record.value for record in await reader.receive()]
    assert values.count(b"unknown") <= 1
    assert await member.committed(0) == Committed(2, b"thawed")
    await reader.aclose()
    member.close()
    publisher.close()


async def refused(call: Callable[[], Awaitable[object]]) -> None:
    """The call ends with SourceUnavailable."""
    with pytest.raises(SourceUnavailable):
        await call()


def test_a_ledger_that_forgets_before_the_spans_is_refused(rig: KafkaRig) -> None:
    """Another partition count, or a shorter retention than the spans have: ConfigError, naming topic and setting."""
    made = f"{rig.prefix}short"
    config = {"retention.ms": "1000"}
    rig.admin.create_topics([NewTopic(made, PARTITIONS, 1, config=config)])[made].result(30)
    other = replace(rig.settings, topics={**rig.settings.topics, LEDGER: made})
    with pytest.raises(ConfigError, match=f"{made}: retention.ms: expected at least -1, found 1000"):
        Topics(other).look()
    five = f"{rig.prefix}five"
    rig.create([(five, 5)])
    other = replace(rig.settings, topics={**rig.settings.topics, LEDGER: five})
    with pytest.raises(ConfigError, match="as many partitions"):
        Topics(other).look()
    assert Topics(rig.settings).look().partition_count == PARTITIONS


def test_a_property_that_no_client_knows_is_refused() -> None:
    """A wrong property is a configuration error that names it."""
    with pytest.raises(ConfigError, match=r"no\.such"):
        Handle({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "no.such": "1"})
