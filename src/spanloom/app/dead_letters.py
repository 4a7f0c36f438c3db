"""Dead letters of a cluster: read them, and send them through the door again once what refused them is mended.

What was sent again is remembered as the committed offset of a group of its own, `<group>-dead-letters`. A command that
dies between sending and committing sends a page again; aggregators that still remember the traces remove the repeats.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import trio

from spanloom.actors.intake import Intake
from spanloom.adapters.kafka.clients import open_consumers, open_member
from spanloom.adapters.kafka.handle import Place
from spanloom.adapters.kafka.log import KafkaLog
from spanloom.adapters.kafka.member import Member
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.reader import Consumers
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.topics import Topics
from spanloom.errors import ConfigError, DecodeError, SourceUnavailable
from spanloom.model import DEAD_LETTERS, SPANS, Committed, Message, Record

OUR_HEADERS = ("reason", "source-topic", "source-partition", "source-offset")
WAITING_BYTES_MAX = 1 << 30  # of one letter: no letter is as large


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter, where it lies and what is known of it."""

    partition: int
    record: Record

    def header(self, name: str) -> str:
        """What we wrote beside it when it was refused; empty if nothing."""
        return next((value.decode(errors="replace") for key, value in self.record.headers if key == name), "")


class Topic(NamedTuple):
    """Where the letters lie, and the way back to it."""

    name: str
    partition_count: int
    log: KafkaLog


class DeadLetters:
    """The topic, its bookmark, and the way back."""

    def __init__(self, consumers: Consumers, member: Member, log: KafkaLog, topic: Topic) -> None:
        self._consumers = consumers
        self._member = member
        self._log = log
        self._topic = topic.name
        self._letters = topic.log
        self._partition_count = topic.partition_count
        self._intake = Intake(log, waiting_bytes_max=WAITING_BYTES_MAX)

    async def read(self, *, from_start: bool = False) -> AsyncIterator[Letter]:
        """Those not sent again yet, or all that are kept; partition by partition."""
        for partition in range(self._partition_count):
            async for letter in self._of(partition, from_start=from_start):
                yield letter

    async def replay(self) -> AsyncIterator[Letter]:
        """Send again what was not sent again yet; each letter is given once it is in the log."""
        for partition in range(self._partition_count):
            async for letter in self._of(partition, from_start=False):
                await self._send(letter)
                await self._member.commit(partition, Committed(letter.record.offset + 1, b""))
                yield letter

    async def _of(self, partition: int, *, from_start: bool) -> AsyncIterator[Letter]:
        marks = await self._consumers.watermarks(self._topic, partition)
        done = None if from_start else await self._member.committed(partition)
        at = max(marks.low, done.offset if done else 0)
        reader = self._consumers.read(Place(self._topic, partition, at), steps_over_gaps=True)
        try:
            while at < marks.high:
                for record in await reader.receive():
                    at = record.offset + 1
                    if at <= marks.high:
                        yield Letter(partition, record)
        finally:
            with trio.CancelScope(shield=True):
                await reader.aclose()

    async def _send(self, letter: Letter) -> None:
        """Through the door if it can be read; else as it came, to where it came from: who reads it may have learnt.

        What the Kafka door has refused cannot go back to a topic that is others'; it becomes a letter anew.
        """
        record, encoding = letter.record, letter.header("source-encoding")
        if encoding:
            (outcome,) = await self._intake.accept_records([record.value], encoding=encoding)
            if isinstance(outcome, DecodeError) or outcome.rejected:
                await self._letters.append([(letter.partition, Message(record.key, record.value, record.headers))])
            return
        try:
            await self._intake.accept(record.value, size_bytes=len(record.value))
        except DecodeError:
            source = letter.header("source-partition")
            partition = int(source) if source.isdecimal() and int(source) < self._log.partition_count else 0
            headers = tuple(pair for pair in record.headers if pair[0] not in OUR_HEADERS)
            await self._log.append([(partition, Message(record.key, record.value, headers))])


@contextmanager
def open_dead_letters(settings: KafkaSettings) -> Iterator[DeadLetters]:
    """Blocks a moment. Raises ConfigError, SourceUnavailable."""
    topics = Topics(settings)
    letters, spans = topics.describe(settings.topic(DEAD_LETTERS)), topics.look()
    if letters is None:
        raise ConfigError(f"kafka: expected a topic {settings.topic(DEAD_LETTERS)}, found none")
    ours = replace(settings, group=f"{settings.group}-dead-letters")
    with ExitStack() as closing:
        consumers = open_consumers(ours, letters.partition_count)
        closing.callback(consumers.close)
        member = open_member(ours, settings.topic(DEAD_LETTERS), {})
        closing.callback(member.close)
        publisher = Publisher(settings.connection(), SourceUnavailable, linger_ms=0)
        closing.callback(publisher.close)
        log = KafkaLog(publisher, settings.topic(SPANS), spans.partition_count)
        name, count = settings.topic(DEAD_LETTERS), letters.partition_count
        yield DeadLetters(consumers, member, log, Topic(name, count, KafkaLog(publisher, name, count)))
