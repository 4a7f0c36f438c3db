"""Readers of single partitions: each has librdkafka's own queue of its partition, and takes from it when asked.

Not reading is how a partition is held back: its queue fills to its bound and no more is fetched, the others go on. A
pause would throw away what was fetched. Fetching starts with the first `receive`.
"""

import ctypes
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import trio

from spanloom.adapters.kafka.handle import Bell, Handle, Place, Watermarks
from spanloom.adapters.kafka.librdkafka import ERR_AUTO_OFFSET_RESET, Message, MessagePointer
from spanloom.errors import RecordsDeleted, SourceUnavailable, Unavailable
from spanloom.model import LedgerRecord, Record

Item = TypeVar("Item", Record, LedgerRecord)

BATCH_BYTES = 1 << 20  # what a reader gives at once
TAKE_MAX = 1000  # messages taken at once from a queue: their fetch buffers are held until they are copied
THREADS = 16  # that may wait for a broker; none of those that others wait for
BELL_S = 0.25  # the bell is edge-triggered: look anyway now and then
AHEAD_S = 0.25  # how soon a reader beyond the end looks whether the end has come


class Fetchers:
    """Consumers to fetch with; one reads a partition once, so a second reader of it takes another consumer."""

    def __init__(self, make: Callable[[], Handle]) -> None:
        self._make = make
        self._handles: list[tuple[Handle, set[tuple[str, int]]]] = []
        self._threads = trio.CapacityLimiter(THREADS)

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

    async def watermarks(self, topic: str, partition: int) -> Watermarks:
        """Where the partition begins and ends now. Raises SourceUnavailable."""
        if not self._handles:
            self._handles.append((self._make(), set()))
        ask = partial(self._handles[0][0].watermarks, topic, partition)
        return await trio.to_thread.run_sync(ask, limiter=self._threads)

    async def run(self, work: Callable[[], None]) -> None:
        """Do what blocks a moment and must not be left half done."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(work, limiter=self._threads)

    def close(self) -> None:
        """Close them all. Blocks a moment."""
        for handle, _ in self._handles:
            handle.close()
        self._handles.clear()


class KafkaReader(Generic[Item]):
    """A PartitionReader of records, or a LedgerReader of ledger records: *convert* says which."""

    def __init__(
        self,
        fetchers: Fetchers,
        start: Place,
        convert: "Callable[[Handle, ctypes._Pointer[Message]], Item]",
        *,
        batch_bytes: int = BATCH_BYTES,
        unavailable: type[Unavailable] = SourceUnavailable,
        steps_over_gaps: bool = False,  # go on at the first record there is, where the one wanted was deleted
    ) -> None:
        self._fetchers = fetchers
        self._topic, self._partition = start.topic, start.partition
        self._next = start.offset
        self._convert: Callable[[Handle, ctypes._Pointer[Message]], Item] = convert
        self._batch_bytes = batch_bytes
        self._unavailable = unavailable
        self._steps_over_gaps = steps_over_gaps
        self._bell = Bell()
        self._stream: _Stream | None = None
        self._problem: _Problem | None = None  # what the queue gave after all that was taken
        self._taken: deque[tuple[Item, int, int]] = deque()  # copied: the item, the offset after it, its bytes
        self._slots = (MessagePointer * TAKE_MAX)()
        self._mean_bytes = 1024.0
        self._closed = False

    async def receive(self) -> Sequence[Item]:
        """Wait for at least one. See interfaces.PartitionReader and interfaces.LedgerReader."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError(f"the reader of {self._topic}/{self._partition} is closed")
            if self._stream is None:
                await self._start()
                continue
            self._take(self._stream)
            if batch := self._batch():
                return batch
            if self._problem is not None:
                await self._mend(self._problem)
                continue
            with trio.move_on_after(BELL_S):
                await trio.lowlevel.wait_readable(self._bell.fd)
            if not self._closed:
                self._bell.quiet()

    async def aclose(self) -> None:
        """Give up the reader."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._bell.fd)
            await self._stop()
            self._bell.close()
        await trio.lowlevel.checkpoint()

    async def _start(self) -> None:
        handle = self._fetchers.lease(self._topic, self._partition)
        stream = _Stream(handle, Place(self._topic, self._partition, self._next), self._bell)
        try:
            await self._fetchers.run(stream.open)
        except SourceUnavailable as exc:
            await self._end(stream)
            raise self._unavailable(str(exc)) from exc
        self._stream = stream  # whole: nothing may ever be asked of one that is not

    async def _stop(self) -> None:
        stream, self._stream, self._problem = self._stream, None, None
        if stream is not None:
            await self._end(stream)

    async def _end(self, stream: "_Stream") -> None:
        await self._fetchers.run(stream.close)
        self._fetchers.give_back(stream.handle, self._topic, self._partition)

    def _take(self, stream: "_Stream") -> None:
        """Copy what lies in the queue, up to about a batch. Nothing is taken beyond an error: a gap would be a loss."""
        waiting = sum(size for _, _, size in self._taken)
        while waiting < self._batch_bytes and self._problem is None:
            want = max(1, min(TAKE_MAX, int((self._batch_bytes - waiting) / self._mean_bytes) + 1))
            count = stream.take(self._slots, want)
            for message in self._slots[:count]:
                waiting += self._copy(stream, message)
                stream.handle.lib.rd_kafka_message_destroy(message)
            if count < want:
                break

    def _copy(self, stream: "_Stream", message: "ctypes._Pointer[Message]") -> int:
        """Take in one message; gives its bytes."""
        fields = message.contents
        if self._problem is not None:
            return 0
        if fields.err:
            self._problem = _Problem(fields.err, stream.handle.lib.rd_kafka_message_errstr(message).decode())
            return 0
        after = fields.offset + 1
        if after <= (self._taken[-1][1] if self._taken else self._next):
            return 0
        size = int(fields.payload_bytes)
        self._mean_bytes += (size - self._mean_bytes) / 16
        self._taken.append((self._convert(stream.handle, message), after, size))
        return size

    def _batch(self) -> list[Item]:
        """What was copied, at most a batch of it, one item at least."""
        batch: list[Item] = []
        room = self._batch_bytes
        while self._taken and (not batch or self._taken[0][2] <= room):
            item, self._next, size = self._taken.popleft()
            room -= size
            batch.append(item)
        return batch

    async def _mend(self, problem: "_Problem") -> None:
        """The queue gave an error instead of a record. Raises RecordsDeleted, Unavailable, or makes it go on."""
        await self._stop()
        if problem.code != ERR_AUTO_OFFSET_RESET:
            raise self._unavailable(f"{self._topic}/{self._partition}: {problem.text}")
        marks = await self._watermarks()
        if self._next < marks.low:
            if not self._steps_over_gaps:
                raise RecordsDeleted(self._partition, self._next, marks.low)
            self._next = marks.low
        elif self._next > marks.high:
            await trio.sleep(AHEAD_S)

    async def _watermarks(self) -> Watermarks:
        try:
            return await self._fetchers.watermarks(self._topic, self._partition)
        except SourceUnavailable as exc:
            raise self._unavailable(str(exc)) from exc


class _Problem(NamedTuple):
    """What a queue gave in place of a record."""

    code: int
    text: str


class _Stream:
    """One partition as one consumer fetches it from one offset on."""

    def __init__(self, handle: Handle, start: Place, bell: Bell) -> None:
        self.handle = handle
        self._start = start
        self._bell = bell
        self._queue: int | None = None
        self._assigned = False

    def open(self) -> None:
        """Take the partition's own queue, then begin to fetch into it. Blocks a moment."""
        lib, handle = self.handle.lib, self.handle.pointer
        self._queue = lib.rd_kafka_queue_get_partition(handle, self._start.topic.encode(), self._start.partition)
        lib.rd_kafka_queue_forward(self._queue, None)
        self._bell.ring_for(self.handle, self._queue)
        self.handle.assign(self._start)
        self._assigned = True

    def close(self) -> None:
        """Fetch no more. Blocks a moment."""
        if self._queue is not None:
            self.handle.lib.rd_kafka_queue_io_event_enable(self._queue, -1, None, 0)
            if self._assigned:
                self.handle.unassign(self._start)
            self.handle.lib.rd_kafka_queue_destroy(self._queue)

    def take(self, slots: "ctypes.Array[ctypes._Pointer[Message]]", most: int) -> int:
        """Put at most that many messages into the slots, the caller's to destroy; how many there were."""
        return max(0, int(self.handle.lib.rd_kafka_consume_batch_queue(self._queue, 0, slots, most)))


def to_record(handle: Handle, message: "ctypes._Pointer[Message]") -> Record:
    """A copy of a message of `spans`."""
    fields = message.contents
    key = ctypes.string_at(fields.key, fields.key_bytes) if fields.key is not None else None
    value = ctypes.string_at(fields.payload, fields.payload_bytes) if fields.payload_bytes else b""
    timestamp_ms = handle.lib.rd_kafka_message_timestamp(message, None)
    return Record(fields.offset, timestamp_ms, key, value, _headers(handle, message))


def to_ledger_record(_: Handle, message: "ctypes._Pointer[Message]") -> LedgerRecord:
    """A copy of a message of the ledger."""
    fields = message.contents
    body = ctypes.string_at(fields.payload, fields.payload_bytes) if fields.payload_bytes else b""
    return LedgerRecord(fields.offset, body)


def _headers(handle: Handle, message: "ctypes._Pointer[Message]") -> tuple[tuple[str, bytes], ...]:
    lib = handle.lib
    headers = ctypes.c_void_p()
    if lib.rd_kafka_message_headers(message, ctypes.byref(headers)):
        return ()
    found: list[tuple[str, bytes]] = []
    name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
    outputs = (ctypes.byref(name), ctypes.byref(value), ctypes.byref(size))
    while not lib.rd_kafka_header_get_all(headers, len(found), *outputs):
        content = ctypes.string_at(value, size.value) if size.value else b""
        found.append(((name.value or b"").decode("utf-8", "replace"), content))
    return tuple(found)
