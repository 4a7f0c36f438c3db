"""The topics that only leave, on Kafka: keyed, the partition by murmur2 as every Java client would choose it."""

from collections.abc import Mapping, Sequence

from spanloom.adapters.kafka.publisher import ANY_PARTITION, Publisher
from spanloom.model import Message


class KafkaOutlet:
    """Implements interfaces.Outlet."""

    def __init__(self, publisher: Publisher, names: Mapping[str, str]) -> None:
        """*publisher* raises OutletUnavailable; *names* are what the topics are called here, where that differs."""
        self._publisher = publisher
        self._names = names

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """See interfaces.Outlet."""
        name = self._names.get(topic, topic)
        await self._publisher.publish([(name, ANY_PARTITION, message) for message in messages])
