"""Fetching through librdkafka's C API: a queue for each partition, emptied by native code into batches.

An unread queue fills to its bound and no more is fetched; a pause would throw away what was fetched. No Python object
a record, and no copy: a batch owns librdkafka's messages as long as it lives (ext/fetch.pyx).
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakSet

import trio

from spanloom.adapters.kafka.handle import BELL_S, Bell, Handle, Place, Watermarks
from spanloom.adapters.kafka.reader import BATCH_BYTES, KafkaReader, Problem, Taken
from spanloom.adapters.kafka.selftest import native_taker
from spanloom.errors import SourceUnavailable, Unavailable

if TYPE_CHECKING:
    from spanloom._native.fetch import Batch, Memory

TAKE_MAX = 4096  # messages taken at once from a queue: their fetch buffers are held while their batch lives
THREADS = 16  # that may wait for a broker; none of those that others wait for


class NativeConsumers:
    """Implements reader.Consumers; one consumer reads a partition once, so a second reader of it takes another."""

    def __init__(self, make: Callable[[], Handle]) -> None:
        """Raises ConfigError where native code must not be used."""
        self.taker = native_taker()
        self._make = make
        self._handles: list[tuple[Handle, set[tuple[str, int]]]] = []
        self._asking: Handle | None = None  # fetches nothing: on a connection that does, answers wait behind its fetch
        self._threads = trio.CapacityLimiter(THREADS)
        self._held: WeakSet[Memory] = WeakSet()

    def lease(self, topic: str, partition: int) -> Handle:
        """A consumer that does not fetch the partition yet."""
        for handle, busy in self._handles:
            if (topic, partition) not in busy:
                busy.add((topic, partition))
                return handle
        handle = self._make()
        self._handles.append((handle, {(topic, partition)}))
        return handle

    def give_back(self, leased: Handle, topic: str, partition: int) -> None:
        """The partition is no longer fetched with it."""
        for handle, busy in self._handles:
            if handle is leased:
                busy.discard((topic, partition))

    def read(
        self,
        start: Place,
        *,
        batch_bytes: int = BATCH_BYTES,
        unavailable: type[Unavailable] = SourceUnavailable,
        steps_over_gaps: bool = False,
    ) -> KafkaReader:
        """See reader.Consumers."""

        def stream_from(offset: int) -> NativeStream:
            return NativeStream(self, start._replace(offset=offset), batch_bytes)

        return KafkaReader(
            start, stream_from, self.watermarks, unavailable=unavailable, steps_over_gaps=steps_over_gaps
        )

    async def watermarks(self, topic: str, partition: int) -> Watermarks:
        """See reader.Consumers."""
        if self._asking is None:
            self._asking = self._make()
        ask = partial(self._asking.watermarks, topic, partition)
        return await trio.to_thread.run_sync(ask, limiter=self._threads)

    async def run(self, work: Callable[[], None]) -> None:
        """Do what blocks a moment and must not be left half done."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(work, limiter=self._threads)

    def holds(self, batch: "Batch") -> None:
        """librdkafka cannot be closed while somebody has its messages."""
        self._held.add(batch.memory)

    def close(self) -> None:
        """See reader.Consumers. Batches that somebody still has are empty from here on."""
        for memory in list(self._held):
            memory.release()
        for handle, _ in self._handles:
            handle.close()
        self._handles.clear()
        if self._asking is not None:
            self._asking.close()
            self._asking = None


class NativeStream:
    """Implements reader.Stream over the partition's own queue."""

    def __init__(self, consumers: NativeConsumers, start: Place, batch_bytes: int) -> None:
        self._consumers = consumers
        self._start = start
        self._next = start.offset
        self._batch_bytes = batch_bytes
        self._handle = consumers.lease(start.topic, start.partition)
        self._bell = Bell()
        self._queue: int | None = None
        self._assigned = False
        self._taken: Batch | None = None  # and not given yet
        self._problem: Problem | None = None  # what the queue gave after all that was taken
        self._mean_bytes = 1024.0

    async def open(self) -> None:
        """See reader.Stream."""
        await self._consumers.run(self._open)

    async def close(self) -> None:
        """See reader.Stream."""
        await self._consumers.run(self._close)
        self._bell.close()
        self._taken = None  # what nobody asked for goes back to librdkafka
        self._consumers.give_back(self._handle, self._start.topic, self._start.partition)

    def take(self) -> Taken | Problem | None:
        """See reader.Stream."""
        if self._taken is None and self._problem is None:
            self._fetch()
        taken = self._taken
        if taken is None:
            return self._problem
        count = taken.within(self._batch_bytes)
        batch, self._taken = taken[:count], taken[count:] if count < len(taken) else None
        return Taken(batch, batch.end)

    async def wait(self) -> None:
        """See reader.Stream."""
        with trio.move_on_after(BELL_S):
            await trio.lowlevel.wait_readable(self._bell.fd)
        self._bell.quiet()

    def wake(self) -> None:
        """See reader.Stream."""
        trio.lowlevel.notify_closing(self._bell.fd)

    def _fetch(self) -> None:
        """Take what lies in the queue, about a batch."""
        assert self._queue is not None, "taken from before it is open"
        want = max(1, min(TAKE_MAX, int(self._batch_bytes / self._mean_bytes) + 1))
        batch, problem = self._consumers.taker.take(self._queue, want, self._next)
        self._problem = Problem(*problem) if problem else None
        self._consumers.holds(batch)
        if batch:
            self._taken, self._next = batch, batch.end
            self._mean_bytes += (batch.size_bytes() / len(batch) - self._mean_bytes) / 4

    def _open(self) -> None:
        """Take the partition's own queue, then begin to fetch into it. Blocks a moment."""
        lib, handle = self._handle.lib, self._handle.pointer
        self._handle.hold(self._start.topic)
        self._queue = lib.rd_kafka_queue_get_partition(handle, self._start.topic.encode(), self._start.partition)
        lib.rd_kafka_queue_forward(self._queue, None)
        self._bell.ring_for(self._handle, self._queue)
        self._handle.assign(self._start)
        self._assigned = True

    def _close(self) -> None:
        """Fetch no more. Blocks a moment."""
        if self._queue is not None:
            self._handle.lib.rd_kafka_queue_io_event_enable(self._queue, -1, None, 0)
            if self._assigned:
                self._handle.unassign(self._start)
            self._handle.lib.rd_kafka_queue_destroy(self._queue)
