"""Whether a group is done with everything: before the partition count of `spans` may change, nothing may be open.

A trace's partition follows from the count, so spans of one trace from before and after a change meet in no assembler.
"""

from dataclasses import dataclass

from spanloom.adapters.kafka.handle import Handle, Place
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.topics import Topics
from spanloom.model import SPANS


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
        self._handle = Handle(settings.consumer(self.partition_count))

    def undone(self) -> list[Undone]:
        """The partitions that are not done. Blocks. Raises SourceUnavailable."""
        places = self._handle.committed(Place(self._topic, number) for number in range(self.partition_count))
        found = []
        for place in places:
            marks = self._handle.watermarks(self._topic, place.partition)
            records = marks.high - max(place.offset, marks.low)
            if records > 0:
                found.append(Undone(place.partition, records))
        return found

    def close(self) -> None:
        """Blocks a moment."""
        self._handle.close()
