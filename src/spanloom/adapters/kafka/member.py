"""Our place in the consumer group: which partitions are ours, and the offsets committed in its name.

It fetches nothing: readers have consumers of their own (reader.py), the group's are paused from the start. Rebalances
are cooperative, so what stays ours is never interrupted. Whether a partition is ours the group alone says: an error on
a commit is an outage until it does (in a rebalance a commit may carry the generation before).
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from spanloom.adapters.coalescer import Coalescer
from spanloom.adapters.kafka.handle import Bell, Handle, Place, places_of
from spanloom.adapters.kafka.librdkafka import (
    ERR_ASSIGN_PARTITIONS,
    EVENT_ERROR,
    EVENT_OFFSET_COMMIT,
    EVENT_REBALANCE,
    OFFSET_END,
    explain,
)
from spanloom.adapters.kafka.reader import BELL_S, THREADS
from spanloom.errors import DecodeError, Fenced, SourceUnavailable
from spanloom.model import Assigned, Committed, Lost, PartitionChange, Revoked

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

METADATA_BYTES_MAX = 4096 * 3 // 4  # the broker's default limit, `offset.metadata.max.bytes`, in Base64
COMMIT_S = 5.0  # then the commit's fate is not known
LEAVE_S = 5.0  # then the group finds out by itself


@dataclass(frozen=True, slots=True)
class _Commit:
    partition: int
    committed: Committed


class KafkaMember:
    """Implements interfaces.Membership, and the committed offsets of `spans` (see interfaces.SpanSource)."""

    def __init__(self, settings: Mapping[str, str], topic: str) -> None:
        """*settings* are a consumer's, with what the group's protocol needs (see topics.group_protocol)."""
        self._settings = settings
        self._topic = topic
        self._handle: Handle | None = None
        self._bell = Bell()
        self._queue: int | None = None
        self._joined = False
        self._mine: set[int] = set()
        self._last: dict[int, int] = {}  # the highest offset known to be committed
        self._pending: PartitionChange | None = None
        self._threads = trio.CapacityLimiter(THREADS)
        self._commits: Coalescer[_Commit] = Coalescer(self._flush, SourceUnavailable)

    # Membership.

    async def join(self) -> None:
        """See interfaces.Membership."""
        handle = self._open()
        with handle.listed([Place(self._topic, -1)]) as topics:
            code = handle.lib.rd_kafka_subscribe(handle.pointer, topics)
        if code:
            raise SourceUnavailable(f"joining the group: {explain(code)}")
        self._joined = True
        await trio.lowlevel.checkpoint()

    async def next_change(self) -> PartitionChange:
        """See interfaces.Membership."""
        await trio.lowlevel.checkpoint()
        while self._pending is None:
            if not self._poll(self._open()):
                with trio.move_on_after(BELL_S):
                    await trio.lowlevel.wait_readable(self._bell.fd)
                self._bell.quiet()
        return self._pending

    async def acknowledge(self, change: PartitionChange) -> None:
        """See interfaces.Membership."""
        assert change == self._pending, f"{change} is acknowledged, {self._pending} was given"
        handle, places = self._open(), [Place(self._topic, number, OFFSET_END) for number in change.partitions]
        if isinstance(change, Assigned):
            for number in change.partitions:
                self._last.pop(number, None)
            self._mine |= set(change.partitions)
            await trio.to_thread.run_sync(_assign_paused, handle, places)
        else:
            self._mine -= set(change.partitions)
            await trio.to_thread.run_sync(_unassign, handle, places)
        self._pending = None

    async def leave(self) -> None:
        """See interfaces.Membership."""
        self._mine.clear()
        if self._joined and self._handle is not None:
            with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_S):
                await trio.to_thread.run_sync(_begin_close, self._handle, self._queue)
                while not self._handle.lib.rd_kafka_consumer_closed(self._handle.pointer):
                    if not self._poll(self._handle):
                        await trio.sleep(0.01)
                    if self._pending is not None:
                        with suppress(SourceUnavailable):  # it is closing: it may want no answer any more
                            await self.acknowledge(self._pending)
                        self._pending = None
        self._joined, self._pending = False, None
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close_handle)

    def _open(self) -> Handle:
        if self._handle is None:
            self._handle = Handle(self._settings, events=EVENT_REBALANCE | EVENT_ERROR | EVENT_OFFSET_COMMIT)
            self._queue = self._handle.lib.rd_kafka_queue_get_consumer(self._handle.pointer)
            self._bell.ring_for(self._handle, self._queue)
        return self._handle

    def _close_handle(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.lib.rd_kafka_queue_io_event_enable(self._queue, -1, None, 0)
            handle.lib.rd_kafka_queue_destroy(self._queue)
            handle.close()

    def close(self) -> None:
        """Free everything, without leaving. Blocks a moment."""
        self._close_handle()
        self._bell.close()

    def _poll(self, handle: Handle) -> bool:
        """Take in the next event; whether there was one."""
        event = handle.lib.rd_kafka_queue_poll(self._queue, 0)
        if not event:
            return False
        try:
            kind = handle.lib.rd_kafka_event_type(event)
            if kind == EVENT_REBALANCE:
                self._pending = self._change(handle, event)
            elif kind == EVENT_ERROR:
                log.warning("kafka", what=handle.lib.rd_kafka_event_error_string(event).decode())
        finally:
            handle.lib.rd_kafka_event_destroy(event)
        return True

    def _change(self, handle: Handle, event: int) -> PartitionChange:
        listed = places_of(handle.lib.rd_kafka_event_topic_partition_list(event))
        numbers = tuple(sorted(place.partition for place in listed))
        if handle.lib.rd_kafka_event_error(event) == ERR_ASSIGN_PARTITIONS:
            return Assigned(numbers)
        if handle.lib.rd_kafka_assignment_lost(handle.pointer):
            self._mine -= set(numbers)
            return Lost(numbers)
        return Revoked(numbers)

    # Committed offsets.

    async def committed(self, partition: int) -> Committed | None:
        """The last commit, or None. Raises SourceUnavailable."""
        ask = partial(self._open().committed, [Place(self._topic, partition)])
        (found,) = await trio.to_thread.run_sync(ask, limiter=self._threads)
        if found.offset < 0:
            return None
        self._last[partition] = max(self._last.get(partition, 0), found.offset)
        try:
            return Committed(found.offset, base64.b64decode(found.metadata, validate=True))
        except binascii.Error as exc:
            raise DecodeError(
                "metadata",
                "commit metadata in Base64",
                repr(found.metadata),
                topic=self._topic,
                partition=partition,
                offset=found.offset,
            ) from exc

    async def commit(self, partition: int, committed: Committed) -> None:
        """Commit, together with who else does. Raises SourceUnavailable, Fenced."""
        assert len(committed.metadata) <= METADATA_BYTES_MAX, len(committed.metadata)
        self._check_mine(partition)
        if partition not in self._last:
            await self.committed(partition)
        await self._commits.submit(_Commit(partition, committed), size_bytes=len(committed.metadata))
        self._check_mine(partition)

    def _check_mine(self, partition: int) -> None:
        if self._joined and partition not in self._mine:
            raise Fenced(f"partition {partition} is no longer ours: the group gave it away")

    async def _flush(self, commits: Sequence[_Commit]) -> None:
        """Commit each partition's furthest offset; not of those that went away meanwhile."""
        furthest = self._furthest(commits)
        if not furthest:
            return
        handle, reply = self._open(), Bell()
        places = [
            Place(self._topic, partition, one.offset, base64.b64encode(one.metadata))
            for partition, one in furthest.items()
        ]
        queue = handle.lib.rd_kafka_queue_new(handle.pointer)
        try:
            reply.ring_for(handle, queue)
            with handle.listed(places) as listed:
                code = handle.lib.rd_kafka_commit_queue(handle.pointer, listed, queue, None, None)
            if code:
                raise SourceUnavailable(f"commit: {explain(code)}")
            with trio.move_on_after(COMMIT_S):
                await trio.lowlevel.wait_readable(reply.fd)
            _check_answer(handle, queue)
        finally:
            handle.lib.rd_kafka_queue_destroy(queue)
            reply.close()
        self._last |= {partition: one.offset for partition, one in furthest.items()}

    def _furthest(self, commits: Sequence[_Commit]) -> dict[int, Committed]:
        furthest: dict[int, Committed] = {}
        for partition, committed in ((commit.partition, commit.committed) for commit in commits):
            known = furthest[partition].offset if partition in furthest else self._last.get(partition, 0)
            is_ours = partition in self._mine or not self._joined
            if is_ours and committed.offset >= known:
                furthest[partition] = committed
        return furthest


def _assign_paused(handle: Handle, places: Sequence[Place]) -> None:
    """Tell the group's machinery that they are taken, and fetch nothing. From the end: nothing can slip in."""
    with handle.listed(places) as listed:
        handle.checked(handle.lib.rd_kafka_incremental_assign(handle.pointer, listed))
        handle.lib.rd_kafka_pause_partitions(handle.pointer, listed)


def _unassign(handle: Handle, places: Sequence[Place]) -> None:
    with handle.listed(places) as listed:
        handle.checked(handle.lib.rd_kafka_incremental_unassign(handle.pointer, listed))


def _begin_close(handle: Handle, queue: int | None) -> None:
    handle.checked(handle.lib.rd_kafka_consumer_close_queue(handle.pointer, queue))


def _check_answer(handle: Handle, queue: int) -> None:
    event = handle.lib.rd_kafka_queue_poll(queue, 0)
    if not event:
        raise SourceUnavailable(f"commit: no answer in {COMMIT_S:g} s")
    try:
        code = handle.lib.rd_kafka_event_error(event)
        if code:
            raise SourceUnavailable(f"commit: {explain(code)}")
        places_of(handle.lib.rd_kafka_event_topic_partition_list(event))
    finally:
        handle.lib.rd_kafka_event_destroy(event)
