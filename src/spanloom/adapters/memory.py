"""Every interface in memory: for tests and simulations, and where nothing must outlive the process.

Deterministic: no threads, no wall clock, one checkpoint a call. `faults` is told `"append:before"` and
`"append:after"` around the effect of `append`, and so for every call: what it raises reaches the caller, so an
error after the effect is the ambiguous answer a real backend gives.
"""

import bisect
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from spanloom.adapters.document_limits import rejection_of
from spanloom.adapters.tails import TailReader, Tails
from spanloom.core.sampling.versions import encode_version, those_that_count
from spanloom.errors import Overloaded, RecordsDeleted, StoreRejected
from spanloom.model import Committed, Document, LedgerRecord, Message, PolicyVersion, Record

Faults = Callable[[str], Awaitable[None]]

BATCH_BYTES = 1 << 20  # what a reader takes at once
CACHE_ENTRIES_MAX = 10_000
SEARCH_MAX = 1000


async def no_faults(_: str) -> None:
    """Nothing goes wrong."""


def trio_clock_ms() -> int:
    """Trio's clock: in tests a MockClock, so that time is theirs."""
    return int(trio.current_time() * 1000)


@asynccontextmanager
async def _call(faults: Faults, name: str) -> AsyncIterator[None]:
    await faults(f"{name}:before")
    await trio.lowlevel.checkpoint()
    yield
    await faults(f"{name}:after")


@dataclass(slots=True)
class _Partition:
    records: list[Record] = field(default_factory=list)
    end: int = 0
    earliest: int = 0


class MemoryLog:
    """`spans` (SpanLog and SpanSource)."""

    def __init__(
        self,
        partition_count: int,
        *,
        incarnation: str = "memory",
        log_bytes_max: int | None = None,
        batch_bytes: int = BATCH_BYTES,
        wall_ms: Callable[[], int] = trio_clock_ms,
        faults: Faults = no_faults,
    ) -> None:
        self._partitions = [_Partition() for _ in range(partition_count)]
        self._tails = Tails([0] * partition_count)
        self._committed: dict[int, Committed] = {}
        self._incarnation = incarnation
        self._bytes_max = log_bytes_max
        self._batch_bytes = batch_bytes
        self._wall_ms = wall_ms
        self._faults = faults

    @property
    def partition_count(self) -> int:
        """Partitions of the log."""
        return len(self._partitions)

    @property
    def incarnation(self) -> str:
        """The name given."""
        return self._incarnation

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        """Append all or, at the cap, none."""
        async with _call(self._faults, "append"):
            self._make_room(sum(len(message.value) for _, message in batch))
            for number, message in batch:
                partition = self._partitions[number]
                partition.records.append(Record(partition.end, self._wall_ms(), *message))
                partition.end += 1
            self._publish()

    async def committed(self, partition: int) -> Committed:
        """The last commit of *partition*."""
        async with _call(self._faults, "committed"):
            return self._committed.get(partition, Committed(0, b""))

    async def commit(self, partition: int, committed: Committed) -> None:
        """Store a commit; one with a lower offset than the last changes nothing."""
        async with _call(self._faults, "commit"):
            if committed.offset >= self._committed.get(partition, Committed(0, b"")).offset:
                self._committed[partition] = committed

    async def read(self, partition: int, offset: int) -> TailReader[Record]:
        """Open a reader."""
        async with _call(self._faults, "read"):
            return TailReader(self._tails, partition, offset, partial(self._fetch, partition))

    async def end_offset(self, partition: int) -> int:
        """The offset the next record will get."""
        async with _call(self._faults, "end_offset"):
            return self._tails[partition]

    async def reserve(self, partition: int, next_offset: int) -> None:
        """Never hand out an offset of *partition* below *next_offset*."""
        async with _call(self._faults, "reserve"):
            self._partitions[partition].end = max(self._partitions[partition].end, next_offset)
            self._publish()

    async def trim(self, *, older_than_ms: int, below: Mapping[int, int]) -> int:
        """Delete records older than that, then, above the cap, those below *below*; returns how many."""
        async with _call(self._faults, "trim"):
            deleted = 0
            for partition in self._partitions:
                while partition.records and partition.records[0].timestamp_ms < older_than_ms:
                    deleted += _delete_first(partition)
            return deleted + self._reclaim(0, below)

    def _make_room(self, size_bytes: int) -> None:
        self._reclaim(size_bytes, {number: committed.offset for number, committed in self._committed.items()})
        if self._bytes_max is not None and self._used_bytes() + size_bytes > self._bytes_max:
            raise Overloaded(f"log_bytes_max = {self._bytes_max} bytes is reached ({self._used_bytes()} in use)")

    def _reclaim(self, room_bytes: int, below: Mapping[int, int]) -> int:
        deleted = 0
        while self._bytes_max is not None and self._used_bytes() + room_bytes > self._bytes_max:
            spent = [
                partition
                for number, partition in enumerate(self._partitions)
                if partition.records and partition.records[0].offset < below.get(number, 0)
            ]
            if not spent:
                break
            deleted += _delete_first(min(spent, key=lambda partition: partition.records[0].timestamp_ms))
        return deleted

    def _used_bytes(self) -> int:
        return sum(len(record.value) for partition in self._partitions for record in partition.records)

    def _publish(self) -> None:
        self._tails.publish([partition.end for partition in self._partitions])

    async def _fetch(self, number: int, offset: int) -> tuple[Sequence[Record], int]:
        async with _call(self._faults, "receive"):
            partition = self._partitions[number]
            if offset < partition.earliest:
                raise RecordsDeleted(number, offset, partition.earliest)
            start = bisect.bisect_left(partition.records, offset, key=lambda record: record.offset)
            found = _batch(partition.records, start, self._batch_bytes)
            end = found[-1].offset + 1 if found else partition.end
        return found, end


def _delete_first(partition: _Partition) -> int:
    partition.earliest = partition.records.pop(0).offset + 1
    return 1


def _batch(records: Sequence[Record], start: int, bytes_max: int) -> list[Record]:
    found: list[Record] = []
    for record in records[start:]:
        bytes_max -= len(record.value)
        if found and bytes_max < 0:
            break
        found.append(record)
    return found


class MemoryLedger:
    """The decision log."""

    def __init__(self, partition_count: int, *, faults: Faults = no_faults) -> None:
        self._entries: list[list[LedgerRecord]] = [[] for _ in range(partition_count)]
        self._tails = Tails([0] * partition_count)
        self._faults = faults

    async def append(self, partition: int, bodies: Sequence[bytes]) -> None:
        """Append all of the bodies."""
        async with _call(self._faults, "append"):
            end = self._tails[partition]
            self._entries[partition] += [LedgerRecord(end + place, body) for place, body in enumerate(bodies)]
            ends = [self._tails[number] for number in range(len(self._tails))]
            ends[partition] += len(bodies)
            self._tails.publish(ends)

    async def read(self, partition: int, position: int) -> TailReader[LedgerRecord]:
        """Open a reader at *position*, or at the first record after it."""
        async with _call(self._faults, "read"):
            return TailReader(self._tails, partition, position, partial(self._fetch, partition))

    async def end(self, partition: int) -> int:
        """The position after the last record."""
        async with _call(self._faults, "end"):
            return self._tails[partition]

    async def trim(self, before_position: Mapping[int, int]) -> int:
        """Delete each partition's records before that position; returns how many."""
        async with _call(self._faults, "trim"):
            deleted = 0
            for partition, position in before_position.items():
                entries = self._entries[partition]
                gone = bisect.bisect_left(entries, position, key=lambda entry: entry.position)
                del entries[:gone]
                deleted += gone
            return deleted

    async def _fetch(self, partition: int, position: int) -> tuple[Sequence[LedgerRecord], int]:
        async with _call(self._faults, "receive"):
            entries, end = self._entries[partition], self._tails[partition]
            found = entries[bisect.bisect_left(entries, position, key=lambda entry: entry.position) :]
        return found, end


class MemoryPolicyLog:
    """The versions of the policies."""

    def __init__(self, *, faults: Faults = no_faults) -> None:
        self._records: list[bytes] = []
        self._grown = trio.lowlevel.ParkingLot()
        self._faults = faults

    async def append(self, written: PolicyVersion) -> None:
        """Write a version."""
        async with _call(self._faults, "append"):
            self._records.append(encode_version(written))
            self._grown.unpark_all()

    async def read(self) -> Sequence[PolicyVersion]:
        """Every version that counts, in order."""
        async with _call(self._faults, "read"):
            return those_that_count(self._records)

    async def next_after(self, version: int) -> Sequence[PolicyVersion]:
        """Wait for versions above *version*."""
        async with _call(self._faults, "next_after"):
            while not (newer := [one for one in those_that_count(self._records) if one.version > version]):
                await self._grown.park()
            return newer


class MemoryOutlet:
    """The topics that only leave."""

    def __init__(self, *, wall_ms: Callable[[], int] = trio_clock_ms, faults: Faults = no_faults) -> None:
        self._topics: dict[str, list[Record]] = {}
        self._published: dict[str, int] = {}  # positions given so far; they count from 1
        self._wall_ms = wall_ms
        self._faults = faults

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Append all of the messages."""
        async with _call(self._faults, "publish"):
            records = self._topics.setdefault(topic, [])
            for message in messages:
                self._published[topic] = self._published.get(topic, 0) + 1
                records.append(Record(self._published[topic], self._wall_ms(), *message))

    async def read(self, topic: str, position: int, limit: int) -> Sequence[Record]:
        """At most *limit* records from *position* on; their `offset` is the position."""
        async with _call(self._faults, "read"):
            records = self._topics.get(topic, [])
            return [record for record in records if record.offset >= position][:limit]

    async def trim(self, topic: str, *, older_than_ms: int) -> int:
        """Delete the topic's records older than that; returns how many."""
        async with _call(self._faults, "trim"):
            records = self._topics.get(topic, [])
            kept = [record for record in records if record.timestamp_ms >= older_than_ms]
            deleted = len(records) - len(kept)
            records[:] = kept
            return deleted


class MemoryStore:
    """The trace store."""

    def __init__(self, *, faults: Faults = no_faults) -> None:
        self._documents: dict[str, Document] = {}
        self._faults = faults

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        """Keep every document whose id is new; returns those no store of ours can take."""
        async with _call(self._faults, "write"):
            rejected: list[StoreRejected] = []
            for document in documents:
                rejection = rejection_of(document)
                if rejection is None:
                    self._documents.setdefault(document.id, document)
                else:
                    rejected.append(rejection)
            return rejected

    async def read(self, trace_id: str) -> Sequence[Document]:
        """All fragments of the trace, in order of (day, id)."""
        async with _call(self._faults, "read"):
            found = [document for document in self._documents.values() if document.trace_id == trace_id]
            return sorted(found, key=lambda document: (document.day, document.id))

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        """The newest fragments by (day, start, id), newest first."""
        assert 0 < limit <= SEARCH_MAX
        async with _call(self._faults, "search"):
            found = [one for one in self._documents.values() if not service or service in one.services]
            found.sort(key=lambda one: (one.day, one.start_unix_ns, one.id), reverse=True)
            return found[:limit]

    async def services(self) -> Sequence[str]:
        """Every service of the days kept, in order."""
        async with _call(self._faults, "services"):
            return sorted({service for document in self._documents.values() for service in document.services})

    async def drop_days_before(self, day: str) -> Sequence[str]:
        """Delete the documents of every day before *day*; returns those days."""
        async with _call(self._faults, "drop_days_before"):
            dropped = sorted({document.day for document in self._documents.values() if document.day < day})
            self._documents = {name: one for name, one in self._documents.items() if one.day >= day}
            return dropped


class MemoryCache:
    """Bytes by key for a while; the least recently used leave when it is full."""

    def __init__(
        self,
        *,
        entries_max: int = CACHE_ENTRIES_MAX,
        clock: Callable[[], float] = trio.current_time,
        faults: Faults = no_faults,
    ) -> None:
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()  # value and when it ends
        self._entries_max = entries_max
        self._clock = clock
        self._faults = faults

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        async with _call(self._faults, "get"):
            return self._get(key)

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Each key's value, or None. Implements interfaces.BatchCache."""
        async with _call(self._faults, "get_many"):
            return [self._get(key) for key in keys]

    def _get(self, key: str) -> bytes | None:
        value, ends_s = self._entries.get(key, (None, 0.0))
        if value is None or ends_s <= self._clock():
            self._entries.pop(key, None)
            return None
        self._entries.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep *value* for *ttl_s* seconds."""
        async with _call(self._faults, "put"):
            self._put(key, value, ttl_s)

    async def put_many(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep each value for *ttl_s* seconds. Implements interfaces.BatchCache."""
        async with _call(self._faults, "put_many"):
            for key, value in values.items():
                self._put(key, value, ttl_s)

    def _put(self, key: str, value: bytes, ttl_s: float) -> None:
        self._entries[key] = (value, self._clock() + ttl_s)
        self._entries.move_to_end(key)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    async def delete(self, key: str) -> None:
        """Forget the key."""
        async with _call(self._faults, "delete"):
            self._entries.pop(key, None)
