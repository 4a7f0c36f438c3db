"""The ledger on Kafka: partition p of its topic for partition p of `spans`; a position is an offset."""

from collections.abc import Sequence

import trio

from spanloom.adapters.kafka.handle import Place
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.reader import Consumers
from spanloom.errors import LedgerUnavailable, SourceUnavailable
from spanloom.interfaces import LedgerReader, PartitionReader
from spanloom.model import LedgerRecord, Message


class KafkaLedger:
    """Implements interfaces.Ledger. Its end is the high watermark: what lies below it is on all replicas in sync."""

    def __init__(self, publisher: Publisher, consumers: Consumers, topic: str) -> None:
        """*publisher* raises LedgerUnavailable."""
        self._publisher = publisher
        self._consumers = consumers
        self._topic = topic

    async def append(self, partition: int, bodies: Sequence[bytes]) -> None:
        """See interfaces.Ledger."""
        await self._publisher.publish([(self._topic, partition, Message(None, body)) for body in bodies])

    async def read(self, partition: int, position: int) -> LedgerReader:
        """See interfaces.Ledger."""
        await trio.lowlevel.checkpoint()
        place = Place(self._topic, partition, position)
        return KafkaLedgerReader(self._consumers.read(place, unavailable=LedgerUnavailable, steps_over_gaps=True))

    async def end(self, partition: int) -> int:
        """See interfaces.Ledger."""
        try:
            return (await self._consumers.watermarks(self._topic, partition)).high
        except SourceUnavailable as exc:
            raise LedgerUnavailable(str(exc)) from exc


class KafkaLedgerReader:
    """Implements interfaces.LedgerReader over a partition's records."""

    def __init__(self, reader: PartitionReader) -> None:
        """*reader* raises LedgerUnavailable."""
        self._reader = reader

    async def receive(self) -> Sequence[LedgerRecord]:
        """See interfaces.LedgerReader."""
        return [LedgerRecord(record.offset, record.value) for record in await self._reader.receive()]

    async def aclose(self) -> None:
        """See interfaces.LedgerReader."""
        await self._reader.aclose()
