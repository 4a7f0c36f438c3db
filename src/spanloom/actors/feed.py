"""Feeds one partition of a foreign topic into the intake: any key, any encoding that transcodes, split and keyed anew.

Order, always: spans into the log, what cannot be read into the dead letters, commit. So a crash reads again what came
after the last commit: at least once, and the aggregators remove what came twice.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
import trio

from spanloom.actors.context import Board
from spanloom.actors.intake import Intake, Outcome
from spanloom.actors.patience import patiently
from spanloom.errors import DecodeError, Fenced, RecordsDeleted
from spanloom.interfaces import Outlet, PartitionReader, SpanSource
from spanloom.model import DEAD_LETTERS, Committed, Message, Record

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Result = TypeVar("Result")

LOOK_S = 0.25  # how soon a partition where nothing comes notices that it is to end


@dataclass(slots=True)
class FeedStatistics:
    """Since the start, of all partitions of one feed."""

    records_taken: int = 0
    records_dead_lettered: int = 0  # some or all of whose spans cannot be read
    records_lost: int = 0  # deleted by their topic's retention before we read them


@dataclass(frozen=True, slots=True)
class Feed:
    """A topic, how it is written, and where it goes."""

    topic: str
    encoding: str  # of core.codec.transcode
    source: SpanSource
    intake: Intake
    outlet: Outlet  # of the dead letters
    board: Board  # of this topic's partitions: says when one is to come to an end
    draw: Callable[[], float]  # in [0, 1), for back-off
    statistics: FeedStatistics


async def run_feed(
    partition: int, feed: Feed, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Take records, hand them over, commit, until the partition is drained. An outage is waited for."""
    task_status.started()
    try:
        await _feed(partition, feed)
    except Fenced as lost:  # the group has given it to somebody else, who goes on from our last commit
        log.warning("partition lost", topic=feed.topic, partition=partition, why=str(lost))


async def _feed(partition: int, feed: Feed) -> None:
    at = (await _patient(feed, partition, partial(feed.source.committed, partition), "committed offset")).offset
    while not feed.board.is_draining(partition):
        reader = await _patient(feed, partition, partial(feed.source.read, partition, at), "reader")
        try:
            at = await _read_on(feed, partition, reader, at)
        except RecordsDeleted as gap:
            log.error("records lost to retention", topic=feed.topic, partition=partition, why=str(gap))
            feed.statistics.records_lost += gap.earliest - gap.wanted
            at = gap.earliest
        finally:
            with trio.CancelScope(shield=True):
                await reader.aclose()


async def _read_on(feed: Feed, partition: int, reader: PartitionReader, at: int) -> int:
    """Until the partition is drained; the offset reached. Raises RecordsDeleted."""
    while not feed.board.is_draining(partition):
        records = await _patient(feed, partition, partial(_next, reader), "records")
        if records:
            await _hand_over(feed, partition, records)
            at = records[-1].offset + 1
            await _patient(feed, partition, partial(feed.source.commit, partition, Committed(at, b"")), "commit")
    return at


async def _next(reader: PartitionReader) -> Sequence[Record]:
    with trio.move_on_after(LOOK_S):
        return await reader.receive()
    return ()


async def _hand_over(feed: Feed, partition: int, records: Sequence[Record]) -> None:
    """Everything in *records* into the log or the dead letters, for good."""
    values = [record.value for record in records]
    accept = partial(feed.intake.accept_records, values, encoding=feed.encoding)
    outcomes = await _patient(feed, partition, accept, "intake")
    letters = [
        _letter(feed, partition, record, reason)
        for record, outcome in zip(records, outcomes, strict=True)
        if (reason := _fault(outcome))
    ]
    if letters:
        await _patient(feed, partition, partial(feed.outlet.publish, DEAD_LETTERS, letters), "dead letter")
    feed.statistics.records_taken += len(records) - len(letters)
    feed.statistics.records_dead_lettered += len(letters)


def _fault(outcome: Outcome) -> str:
    """Why the record, or the first of its spans that could not, was not taken; empty where all was."""
    return str(outcome) if isinstance(outcome, DecodeError) else outcome.reason


def _letter(feed: Feed, partition: int, record: Record, reason: str) -> Message:
    """The record as it came, and beside it why and from where; its encoding, for who sends it again."""
    log.error("dead letter", topic=feed.topic, partition=partition, offset=record.offset, reason=reason)
    headers = (
        ("reason", reason.encode()),
        ("source-topic", feed.topic.encode()),
        ("source-partition", str(partition).encode()),
        ("source-offset", str(record.offset).encode()),
        ("source-encoding", feed.encoding.encode()),
    )
    return Message(record.key, record.value, headers + record.headers)


async def _patient(feed: Feed, partition: int, attempt: Callable[[], Awaitable[Result]], what: str) -> Result:
    return await patiently(attempt, draw=feed.draw, partition=partition, what=f"{feed.topic}: {what}")
