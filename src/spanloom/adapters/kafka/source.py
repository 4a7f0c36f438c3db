"""The read side of `spans` on Kafka."""

import trio

from spanloom.adapters.kafka.handle import Place
from spanloom.adapters.kafka.member import Member
from spanloom.adapters.kafka.reader import BATCH_BYTES, Consumers
from spanloom.interfaces import PartitionReader
from spanloom.model import Committed


class KafkaSource:
    """Implements interfaces.SpanSource over a group's committed offsets and readers of its own."""

    def __init__(
        self,
        consumers: Consumers,
        member: Member,
        topic: str,
        *,
        incarnation: str,  # the topic's id: another topic of the same name has another one
        batch_bytes: int = BATCH_BYTES,
    ) -> None:
        self._consumers = consumers
        self._member = member
        self._topic = topic
        self._incarnation = incarnation
        self._batch_bytes = batch_bytes

    @property
    def incarnation(self) -> str:
        """The topic's id."""
        return self._incarnation

    async def committed(self, partition: int) -> Committed:
        """The group's last commit; the earliest record where there is none: a topic may be older than we are."""
        found = await self._member.committed(partition)
        if found is not None:
            return found
        return Committed((await self._consumers.watermarks(self._topic, partition)).low, b"")

    async def commit(self, partition: int, committed: Committed) -> None:
        """See interfaces.SpanSource."""
        await self._member.commit(partition, committed)

    async def read(self, partition: int, offset: int) -> PartitionReader:
        """See interfaces.SpanSource."""
        await trio.lowlevel.checkpoint()
        return self._consumers.read(Place(self._topic, partition, offset), batch_bytes=self._batch_bytes)

    async def end_offset(self, partition: int) -> int:
        """See interfaces.SpanSource."""
        return (await self._consumers.watermarks(self._topic, partition)).high

    async def reserve(self, partition: int, next_offset: int) -> None:  # noqa: ARG002 - the brokers keep what they acknowledged
        """See interfaces.SpanSource."""
        await trio.lowlevel.checkpoint()
