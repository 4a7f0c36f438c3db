"""The ledger on Kafka: partition p of its topic for partition p of `spans`; a position is an offset."""

from collections.abc import Sequence

import trio

from spanloom.adapters.kafka.handle import Place
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.reader import Fetchers, KafkaReader, to_ledger_record
from spanloom.errors import LedgerUnavailable, SourceUnavailable
from spanloom.model import LedgerRecord, Message


class KafkaLedger:
    """Implements interfaces.Ledger. Its end is the high watermark: what lies below it is on all replicas in sync."""

    def __init__(self, publisher: Publisher, fetchers: Fetchers, topic: str) -> None:
        """*publisher* raises LedgerUnavailable."""
        self._publisher = publisher
        self._fetchers = fetchers
        self._topic = topic

    async def append(self, partition: int, bodies: Sequence[bytes]) -> None:
        """See interfaces.Ledger."""
        await self._publisher.publish([(self._topic, partition, Message(None, body)) for body in bodies])

    async def read(self, partition: int, position: int) -> KafkaReader[LedgerRecord]:
        """See interfaces.Ledger."""
        await trio.lowlevel.checkpoint()
        return KafkaReader(
            self._fetchers,
            Place(self._topic, partition, position),
            to_ledger_record,
            unavailable=LedgerUnavailable,
            steps_over_gaps=True,
        )

    async def end(self, partition: int) -> int:
        """See interfaces.Ledger."""
        try:
            return (await self._fetchers.watermarks(self._topic, partition)).high
        except SourceUnavailable as exc:
            raise LedgerUnavailable(str(exc)) from exc
