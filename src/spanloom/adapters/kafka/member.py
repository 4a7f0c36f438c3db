"""Our place in the consumer group: which partitions are ours, and the offsets committed in its name.

It fetches nothing: readers have consumers of their own (reader.py), the group's are paused from the start. Rebalances
are cooperative, so what stays ours is never interrupted. Whether a partition is ours the group alone says: an error on
a commit is an outage until it does (in a rebalance a commit may carry the generation before).
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import structlog
import trio

from spanloom.adapters.kafka.commits import COMMIT_S, Commits
from spanloom.adapters.kafka.handle import BELL_S, Bell, Handle, Place, places_of
from spanloom.adapters.kafka.librdkafka import (
    ERR_ASSIGN_PARTITIONS,
    EVENT_ERROR,
    EVENT_OFFSET_COMMIT,
    EVENT_REBALANCE,
    OFFSET_END,
    explain,
)
from spanloom.errors import SourceUnavailable
from spanloom.interfaces import Membership
from spanloom.model import Assigned, Committed, Lost, PartitionChange, Revoked

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LEAVE_S = 5.0  # then the group finds out by itself
THREADS = 16  # that may wait for a broker


class Member(Membership, Protocol):
    """A place in the group, and the group's committed offsets of `spans` (see interfaces.SpanSource)."""

    async def committed(self, partition: int) -> Committed | None:
        """The last commit, or None where there is none. Raises SourceUnavailable."""

    async def commit(self, partition: int, committed: Committed) -> None:
        """Commit, together with who else does. Raises SourceUnavailable, Fenced."""

    def close(self) -> None:
        """Free everything. Blocks a moment."""


class KafkaMember:
    """Implements Member."""

    def __init__(self, settings: Mapping[str, str], topic: str) -> None:
        """*settings* are a consumer's, with what the group's protocol needs (see topics.group_protocol)."""
        self._settings = settings
        self._topic = topic
        self._handle: Handle | None = None
        self._bell = Bell()
        self._queue: int | None = None
        self._pending: PartitionChange | None = None
        self._threads = trio.CapacityLimiter(THREADS)
        self._commits = Commits(topic, ask=self._ask, send=self._send)

    # Membership.

    async def join(self) -> None:
        """See interfaces.Membership."""
        handle = self._open()
        with handle.listed([Place(self._topic, -1)]) as topics:
            code = handle.lib.rd_kafka_subscribe(handle.pointer, topics)
        if code:
            raise SourceUnavailable(f"joining the group: {explain(code)}")
        self._commits.is_joined = True
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
            self._commits.took(change.partitions)
            await trio.to_thread.run_sync(_assign_paused, handle, places)
        else:
            self._commits.gave(change.partitions)
            await trio.to_thread.run_sync(_unassign, handle, places)
        self._pending = None

    async def leave(self) -> None:
        """See interfaces.Membership."""
        self._commits.gave(tuple(self._commits.mine))
        if self._commits.is_joined and self._handle is not None:
            with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_S):
                await trio.to_thread.run_sync(_begin_close, self._handle, self._queue)
                while not self._handle.lib.rd_kafka_consumer_closed(self._handle.pointer):
                    if not self._poll(self._handle):
                        await trio.sleep(0.01)
                    if self._pending is not None:
                        with suppress(SourceUnavailable):  # it is closing: it may want no answer any more
                            await self.acknowledge(self._pending)
                        self._pending = None
        self._commits.is_joined, self._pending = False, None
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
            self._commits.gave(numbers)
            return Lost(numbers)
        return Revoked(numbers)

    # Committed offsets.

    async def committed(self, partition: int) -> Committed | None:
        """See Member."""
        return await self._commits.committed(partition)

    async def commit(self, partition: int, committed: Committed) -> None:
        """See Member."""
        await self._commits.commit(partition, committed)

    async def _ask(self, partition: int) -> Place:
        ask = partial(self._open().committed, [Place(self._topic, partition)])
        (found,) = await trio.to_thread.run_sync(ask, limiter=self._threads)
        return found

    async def _send(self, places: Sequence[Place]) -> None:
        handle, reply = self._open(), Bell()
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
