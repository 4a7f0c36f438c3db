"""The rig of a real Kafka: topics of its own for each test, on a broker that all tests share."""

import atexit
import itertools
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import trio
from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from spanloom.adapters.kafka.clients import open_consumers, open_member
from spanloom.adapters.kafka.commits import METADATA_BYTES_MAX
from spanloom.adapters.kafka.handle import Place
from spanloom.adapters.kafka.ledger import KafkaLedger
from spanloom.adapters.kafka.log import KafkaLog
from spanloom.adapters.kafka.outlet import KafkaOutlet
from spanloom.adapters.kafka.policies import KafkaPolicyLog
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.reader import Consumers
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.source import KafkaSource
from spanloom.errors import LedgerUnavailable, OutletUnavailable, PoliciesUnavailable, SourceUnavailable, Unavailable
from spanloom.interfaces import PartitionReader, PolicyLog
from spanloom.model import (
    DEAD_LETTERS,
    LEDGER,
    POLICIES,
    SAMPLING_DECISIONS,
    SPANS,
    TRACES_COMPLETE,
    Committed,
    Message,
    Record,
)
from tests.conformance.rigs import BATCH_BYTES, PARTITIONS, Clock, DailyStore, Log, ReadableOutlet, Rig, TrimmableLedger
from tests.servers.kafka import Kafka

OUTGOING = (TRACES_COMPLETE, SAMPLING_DECISIONS, DEAD_LETTERS)
_runs = itertools.count()
_clocks: list[Clock] = []  # the last one is of the test that runs


_publishers: dict[str, Publisher] = {}


def _publisher(brokers: str, unavailable: type[Unavailable]) -> Publisher:
    name = f"{brokers} {unavailable.__name__}"
    if name not in _publishers:
        connection = KafkaSettings(brokers).connection()
        made = _publishers[name] = Publisher(connection, unavailable, linger_ms=1, stamp=lambda: _clocks[-1].now_ms)
        atexit.register(made.close)
    return _publishers[name]


# What confluent-kafka's own stubs leave untyped.
EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


class KafkaRig(Rig):
    """One set of topics, opened anew for each role asked for."""

    durable = True
    own_disk = False
    metadata_bytes_max = METADATA_BYTES_MAX

    def __init__(self, server: Kafka, *, reader: str) -> None:
        """*reader*: see KafkaSettings."""
        self.clock = Clock()
        self.prefix = f"test-{os.getpid()}-{next(_runs)}-"
        names = {name: self.prefix + name for name in (SPANS, LEDGER, POLICIES, *OUTGOING)}
        self.settings = KafkaSettings(server.brokers, group=self.prefix + "group", topics=names, reader=reader)
        self.admin = self._new_admin()
        counts = {SPANS: PARTITIONS, LEDGER: PARTITIONS}
        self.create([(names[name], counts.get(name, 1)) for name in names])
        self._open = ExitStack()

    def create(self, topics: Sequence[tuple[str, int]]) -> None:
        """Topics whose records carry our clock's time and stay until the test deletes them."""
        config = {"retention.ms": "-1", "max.message.bytes": str(20 << 20), "message.timestamp.type": "CreateTime"}
        made = self.admin.create_topics([NewTopic(name, count, 1, config=config) for name, count in topics])
        for future in made.values():
            future.result(30)
        for name, count in topics:
            self._wait_for(name, count)

    def _wait_for(self, topic: str, count: int) -> None:
        """Wait until every partition answers: a new topic is not everywhere at once."""
        ends = time.monotonic() + 120  # a hundred partitions on a busy machine
        while True:
            try:
                self._offsets(topic, range(count), LATEST)
            except KafkaException:
                assert time.monotonic() < ends, topic
                time.sleep(0.05)
                self.admin = self._new_admin()  # one that has asked too early may go on believing there is none
            else:
                return

    def _new_admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.settings.brokers, "log_level": "0"})

    async def log(self, *, log_bytes_max: int = 1 << 40, batch_bytes: int = BATCH_BYTES) -> Log:
        """The topic's log."""
        self.close_clients()
        topic = self.settings.topic(SPANS)
        fetchers, member = self.fetchers(), open_member(self.settings, topic, {})
        self._open.callback(member.close)
        (described,) = self.admin.describe_topics(TopicCollection([topic])).values()
        source = KafkaSource(
            fetchers, member, topic, incarnation=str(described.result(30).topic_id), batch_bytes=batch_bytes
        )
        return KafkaTestLog(self, KafkaLog(self.publisher(SourceUnavailable), topic, PARTITIONS), source)

    async def ledger(self) -> TrimmableLedger:
        """The topic's ledger."""
        self.close_clients()
        return KafkaTestLedger(self, self.fetchers())

    async def policies(self) -> PolicyLog:
        """The topic's versions."""
        self.close_clients()
        return KafkaPolicyLog(self.publisher(PoliciesUnavailable), self.fetchers(), self.settings.topic(POLICIES))

    async def store(self) -> DailyStore:
        """Kafka is no store."""
        raise NotImplementedError

    async def outlet(self) -> ReadableOutlet:
        """The topics that leave."""
        self.close_clients()
        return KafkaTestOutlet(self, self.fetchers())

    def fetchers(self) -> Consumers:
        """Consumers, closed with the rig."""
        fetchers = open_consumers(self.settings, PARTITIONS)
        self._open.callback(fetchers.close)
        return fetchers

    def publisher(self, unavailable: type[Unavailable]) -> Publisher:
        """A producer that stamps with our clock; all rigs share one of a kind: the first record takes it a second."""
        _clocks.append(self.clock)
        return _publisher(self.settings.brokers, unavailable)

    def delete_before(self, topic: str, ends: Mapping[int, int]) -> int:
        """Delete each partition's records before that offset; how many there were."""
        if not ends:
            return 0
        begins = self._offsets(topic, list(ends), EARLIEST)
        highs = self._offsets(topic, list(ends), LATEST)
        wanted = {number: max(begins[number], min(end, highs[number])) for number, end in ends.items()}
        for future in self.admin.delete_records(
            [TopicPartition(topic, number, offset) for number, offset in wanted.items()]
        ).values():
            future.result(30)
        return sum(wanted[number] - begins[number] for number in ends)

    def delete_older(self, topic: str, count: int, older_than_ms: int) -> int:
        """Delete what is older in each of *count* partitions; how many records."""
        firsts = self._offsets(topic, range(count), OffsetSpec.for_timestamp(older_than_ms))
        highs = self._offsets(topic, range(count), LATEST)
        return self.delete_before(topic, {n: highs[n] if firsts[n] < 0 else firsts[n] for n in range(count)})

    def _offsets(self, topic: str, partitions: Sequence[int], spec: OffsetSpec) -> dict[int, int]:
        asked = self.admin.list_offsets({TopicPartition(topic, number): spec for number in partitions})
        return {place.partition: future.result(30).offset for place, future in asked.items()}

    def close_clients(self) -> None:
        """Close what is open; what was written stays."""
        self._open.close()

    def close(self) -> None:
        """Close everything and delete the topics."""
        self.close_clients()
        self.admin.delete_topics([self.settings.topic(name) for name in (SPANS, LEDGER, POLICIES, *OUTGOING)])


class KafkaTestLog(Log):
    """Both sides of `spans`, and what an operator does to the topic."""

    def __init__(self, rig: KafkaRig, log: KafkaLog, source: KafkaSource) -> None:
        self._rig = rig
        self._log = log
        self._source = source

    @property
    def partition_count(self) -> int:
        """See KafkaLog."""
        return self._log.partition_count

    @property
    def incarnation(self) -> str:
        """See KafkaSource."""
        return self._source.incarnation

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        """See KafkaLog."""
        await self._log.append(batch)

    async def committed(self, partition: int) -> Committed:
        """See KafkaSource."""
        return await self._source.committed(partition)

    async def commit(self, partition: int, committed: Committed) -> None:
        """See KafkaSource."""
        await self._source.commit(partition, committed)

    async def read(self, partition: int, offset: int) -> PartitionReader:
        """See KafkaSource."""
        return await self._source.read(partition, offset)

    async def end_offset(self, partition: int) -> int:
        """See KafkaSource."""
        return await self._source.end_offset(partition)

    async def trim(self, *, older_than_ms: int, below: Mapping[int, int]) -> int:
        """What the broker's retention does."""
        topic = self._rig.settings.topic(SPANS)
        return await trio.to_thread.run_sync(self._rig.delete_older, topic, PARTITIONS, older_than_ms)

    async def reserve(self, partition: int, next_offset: int) -> None:
        """Offsets are the broker's."""
        raise NotImplementedError


class KafkaTestLedger(KafkaLedger):
    """The ledger, and what retention does to it."""

    def __init__(self, rig: KafkaRig, fetchers: Consumers) -> None:
        super().__init__(rig.publisher(LedgerUnavailable), fetchers, rig.settings.topic(LEDGER))
        self._rig = rig

    async def trim(self, before_position: Mapping[int, int]) -> int:
        """What the broker's retention does."""
        topic = self._rig.settings.topic(LEDGER)
        return await trio.to_thread.run_sync(self._rig.delete_before, topic, before_position)


class KafkaTestOutlet(KafkaOutlet):
    """The outlet, and a consumer of its topics."""

    def __init__(self, rig: KafkaRig, fetchers: Consumers) -> None:
        super().__init__(rig.publisher(OutletUnavailable), rig.settings.topics)
        self._rig = rig
        self._fetchers = fetchers

    async def read(self, topic: str, position: int, limit: int) -> Sequence[Record]:
        """The records from *position* on, of the topic's one partition."""
        name = self._rig.settings.topic(topic)
        marks = await self._fetchers.watermarks(name, 0)
        position = max(position, marks.low)
        reader = self._fetchers.read(Place(name, 0, position))
        records: list[Record] = []
        while len(records) < limit and position < marks.high:
            records += await reader.receive()
            position = records[-1].offset + 1
        await reader.aclose()
        return records[:limit]

    async def trim(self, topic: str, *, older_than_ms: int) -> int:
        """What the broker's retention does."""
        delete = partial(self._rig.delete_older, self._rig.settings.topic(topic), 1, older_than_ms)
        return await trio.to_thread.run_sync(delete)
