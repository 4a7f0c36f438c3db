"""The append side of `spans` on Kafka."""

from collections.abc import Sequence

from spanloom.adapters.kafka.publisher import Publisher
from spanloom.model import Message


class KafkaLog:
    """Implements interfaces.SpanLog: the partition is given, so that whoever appends agrees with whoever assembles."""

    def __init__(self, publisher: Publisher, topic: str, partition_count: int) -> None:
        """*publisher* raises SourceUnavailable."""
        self._publisher = publisher
        self._topic = topic
        self._partition_count = partition_count

    @property
    def partition_count(self) -> int:
        """Partitions of the topic, when we started; they change only after a drain."""
        return self._partition_count

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        """See interfaces.SpanLog."""
        await self._publisher.publish([(self._topic, partition, message) for partition, message in batch])
