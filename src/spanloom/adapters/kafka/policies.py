"""The versions of the policies on Kafka: one compacted partition, a key of its own for each record, so all are kept."""

from collections.abc import Sequence

import trio

from spanloom.adapters.kafka.handle import Place
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.reader import Consumers
from spanloom.core.sampling.versions import encode_version, those_that_count
from spanloom.errors import PoliciesUnavailable, SourceUnavailable
from spanloom.interfaces import PartitionReader
from spanloom.model import Message, PolicyVersion, Record

PARTITION = 0


class KafkaPolicyLog:
    """Implements interfaces.PolicyLog."""

    def __init__(self, publisher: Publisher, consumers: Consumers, topic: str) -> None:
        """*publisher* raises PoliciesUnavailable."""
        self._publisher = publisher
        self._consumers = consumers
        self._topic = topic
        self._read_to = 0  # the offset after all that was read
        self._highest = 0  # version among that

    async def append(self, written: PolicyVersion) -> None:
        """See interfaces.PolicyLog."""
        message = Message(f"{written.version}.{written.mark}".encode(), encode_version(written))
        await self._publisher.publish([(self._topic, PARTITION, message)])

    async def read(self) -> Sequence[PolicyVersion]:
        """See interfaces.PolicyLog."""
        try:
            marks = await self._consumers.watermarks(self._topic, PARTITION)
        except SourceUnavailable as exc:
            raise PoliciesUnavailable(str(exc)) from exc
        records: list[Record] = []
        at = marks.low
        reader = self._reader(at)
        try:
            while at < marks.high:
                records += await reader.receive()
                at = records[-1].offset + 1
        finally:
            await _close(reader)
        found = those_that_count(record.value for record in records)
        self._read_to, self._highest = at, found[-1].version if found else 0
        return found

    async def next_after(self, version: int) -> Sequence[PolicyVersion]:
        """See interfaces.PolicyLog."""
        if self._highest > version or not self._read_to:
            newer = [one for one in await self.read() if one.version > version]
            if newer:
                return newer
        reader = self._reader(self._read_to)
        try:
            while True:
                records = await reader.receive()
                self._read_to = records[-1].offset + 1
                newer = those_that_count((record.value for record in records), above=self._highest)
                self._highest = newer[-1].version if newer else self._highest
                newer = [one for one in newer if one.version > version]
                if newer:
                    return newer
        finally:
            await _close(reader)

    def _reader(self, offset: int) -> PartitionReader:
        place = Place(self._topic, PARTITION, offset)
        return self._consumers.read(place, unavailable=PoliciesUnavailable, steps_over_gaps=True)


async def _close(reader: PartitionReader) -> None:
    with trio.CancelScope(shield=True):
        await reader.aclose()
