"""Whether a group is done with everything: before the partition count of `spans` may change, nothing may be open.

A trace's partition follows from the count, so spans of one trace from before and after a change meet in no assembler.
"""

from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicPartition

from spanloom.adapters.kafka.portable import new_consumer
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.topics import Topics
from spanloom.errors import SourceUnavailable
from spanloom.model import SPANS

ANSWER_S = 5.0  # of a broker; who asked asks again


@dataclass(frozen=True, slots=True)
class Undone:
    """Records of a partition that are not committed: not read, or with a span whose trace is open."""

    partition: int
    records: int


class Drain:
    """Looks at what the group has committed and where the log ends."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Blocks a moment. Raises ConfigError, SourceUnavailable."""
        self._topic = settings.topic(SPANS)
        self.partition_count = Topics(settings).look().partition_count
        self._consumer = new_consumer(settings.consumer(self.partition_count))

    def undone(self) -> list[Undone]:
        """The partitions that are not done. Blocks. Raises SourceUnavailable."""
        asked = [TopicPartition(self._topic, number) for number in range(self.partition_count)]
        try:
            places = self._consumer.committed(asked, timeout=ANSWER_S)
            marks = [self._consumer.get_watermark_offsets(place, timeout=ANSWER_S) for place in places]
        except KafkaException as exc:
            raise SourceUnavailable(exc.args[0].str()) from exc
        found = []
        for place, mark in zip(places, marks, strict=True):
            if mark is None:
                raise SourceUnavailable(f"{self._topic}/{place.partition}: no answer in {ANSWER_S:g} s")
            low, high = mark
            records = high - max(place.offset, low)
            if records > 0:
                found.append(Undone(place.partition, records))
        return found

    def close(self) -> None:
        """Blocks a moment."""
        self._consumer.close()
