"""Seeded traffic as records with times of their own, split and keyed as an intake does it, ready for Kafka.

With the times given, an hour of stream time goes into the log as fast as it is made, and every run of it is the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

import trio
from confluent_kafka import Producer

from spanloom.actors.intake import Intake
from spanloom.load.workload import Workload, requests
from spanloom.model import Message
from tests.oracle import partition_of
from tests.spans import Sp, traces_data

FLUSH_S = 120.0


class Sent(NamedTuple):
    """One record."""

    partition: int
    message: Message
    at_ms: int
    spans: int


class _Catch:
    """A log that hands on what it is given."""

    def __init__(self, partition_count: int) -> None:
        self.partition_count = partition_count
        self.caught: list[tuple[int, Message]] = []

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        """See interfaces.SpanLog."""
        await trio.lowlevel.checkpoint()
        self.caught += batch


async def timed(workload: Workload, *, epoch_unix_ns: int, partitions: int) -> list[Sent]:
    """Every record of *workload*; the first of a request's counts for all its spans."""
    catch = _Catch(partitions)
    intake = Intake(catch, waiting_bytes_max=1 << 26)
    sent: list[Sent] = []
    for request in requests(workload, epoch_unix_ns=epoch_unix_ns):
        await intake.accept(request.body, size_bytes=len(request.body))
        spans = request.span_count
        for partition, message in catch.caught:
            sent.append(Sent(partition, message, request.due_unix_ns // 1_000_000, spans))
            spans = 0
        catch.caught.clear()
    return sent


def last_records(partitions: int, at_ms: int) -> list[Sent]:
    """A record of a trace of its own for every partition: whatever was before it is due."""
    last: dict[int, Sent] = {}
    numbers = count(1_000_000)
    while len(last) < partitions:
        span = Sp(next(numbers), 1)
        partition = partition_of(span.trace_id, partitions)
        message = Message(span.trace_id.hex().encode(), traces_data([span]))
        last.setdefault(partition, Sent(partition, message, at_ms, 1))
    return list(last.values())


class Sender:
    """Into a topic, acks=all, in order."""

    def __init__(self, brokers: str, topic: str) -> None:
        settings = {"bootstrap.servers": brokers, "enable.idempotence": True, "log_level": 0, "linger.ms": 10}
        self._producer = Producer({**settings, "queue.buffering.max.messages": 0, "compression.type": "lz4"})
        self._topic = topic
        self._failed: list[object] = []

    def send(self, records: Iterable[Sent], *, keeping_times: bool = True) -> int:
        """Hand them over; how many spans they hold. Without *keeping_times* they get the present."""
        spans = 0
        for record in records:
            self._producer.produce(
                self._topic,
                record.message.value,
                record.message.key,
                partition=record.partition,
                timestamp=record.at_ms if keeping_times else 0,
                on_delivery=self._report,
            )
            spans += record.spans
        self._producer.poll(0)
        return spans

    def finish(self) -> None:
        """Wait until all is acknowledged."""
        assert self._producer.flush(FLUSH_S) == 0
        assert self._failed == []

    def _report(self, error: object, _: object) -> None:
        if error:
            self._failed.append(error)


def in_slices(sent: Sequence[Sent], spans: int) -> Iterator[list[Sent]]:
    """Groups of about so many spans."""
    group: list[Sent] = []
    held = 0
    for record in sent:
        group.append(record)
        held += record.spans
        if held >= spans:
            yield group
            group, held = [], 0
    if group:
        yield group
