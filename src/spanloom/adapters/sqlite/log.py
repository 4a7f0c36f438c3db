"""`spans` on SQLite: the partition log (SpanLog and SpanSource) in log.db, its commits in ledger.db.

Appends of all callers are joined into one transaction (coalescer.py); blocking work runs in worker threads, one for the
writer, a few for readers. A reader at the end sleeps on its partition's parking lot until an append of this process
comes: there is no other process.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import trio

from spanloom.adapters.coalescer import Coalescer
from spanloom.adapters.sqlite.chunks import pack_message
from spanloom.adapters.sqlite.faults import at_start
from spanloom.adapters.sqlite.folder import LOG_FILE, DataFolder
from spanloom.adapters.sqlite.formats import LOG
from spanloom.adapters.sqlite.ledger import SqliteLedger
from spanloom.adapters.sqlite.log_file import LogFile, Packed, read_records
from spanloom.adapters.sqlite.pool import READERS, ReadPool
from spanloom.adapters.tails import TailReader, Tails
from spanloom.errors import SourceUnavailable
from spanloom.model import Committed, Message, Record

Result = TypeVar("Result")

LOG_BYTES_MAX = 8 << 30  # bytes; about two hours of 1 KB records at 1000 a second
BATCH_BYTES = 1 << 20  # what a reader takes at once


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class SqliteLog:
    """The log of one data folder. See `interfaces.SpanLog` and `interfaces.SpanSource`."""

    def __init__(
        self,
        folder: DataFolder,
        ledger: SqliteLedger,
        *,
        log_bytes_max: int = LOG_BYTES_MAX,
        batch_bytes: int = BATCH_BYTES,
        wall_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        """Open the log. Blocks. Raises ConfigError, DataCorrupted."""
        self.path = folder.path / LOG_FILE
        self._folder = folder
        self._ledger = ledger
        self._batch_bytes = batch_bytes
        with at_start(self.path):
            self._file = LogFile(folder.open_writer(LOG_FILE, LOG), self.path, bytes_max=log_bytes_max, wall_ms=wall_ms)
            for partition, offset in ledger.committed_offsets().items():
                self._file.reserve(partition, offset)
            self._tails = Tails(self._file.ends())
            readers = [folder.open_reader(LOG_FILE, LOG) for _ in range(READERS)]
        self._writer = trio.CapacityLimiter(1)
        self._pool = ReadPool(self.path, readers, SourceUnavailable)
        self._appends: Coalescer[Packed] = Coalescer(self._flush, SourceUnavailable)

    @property
    def partition_count(self) -> int:
        """Partitions of the folder."""
        return self._folder.partition_count

    @property
    def incarnation(self) -> str:
        """Random, made once with the folder."""
        return self._folder.incarnation

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        """Append as `SpanLog` says; at the disk cap, chunks wholly below their committed offset are deleted for it."""
        packed = [(partition, pack_message(message)) for partition, message in batch]
        assert all(0 <= partition < self.partition_count for partition, _ in packed)
        if not packed:
            await trio.lowlevel.checkpoint()
            return
        await self._appends.submit(packed, size_bytes=sum(len(record) for _, record in packed))

    async def committed(self, partition: int) -> Committed:
        """The last commit of *partition*."""
        return await self._ledger.committed(partition)

    async def commit(self, partition: int, committed: Committed) -> None:
        """Store a commit; one with a lower offset than the last changes nothing."""
        await self._ledger.commit(partition, committed)

    async def read(self, partition: int, offset: int) -> TailReader[Record]:
        """Open a reader, anywhere in a chunk."""
        await trio.lowlevel.checkpoint()
        assert 0 <= partition < self.partition_count
        return TailReader(self._tails, partition, offset, partial(self._fetch, partition))

    async def end_offset(self, partition: int) -> int:
        """The offset the next record will get."""
        self._tails.publish(await self._in_writer(self._file.read_ends))  # also after an append whose fate is not known
        return self._tails[partition]

    async def reserve(self, partition: int, next_offset: int) -> None:
        """Never hand out an offset of *partition* below *next_offset*: one that the ledger knows and the log lost."""
        self._tails.publish(await self._in_writer(partial(self._file.reserve, partition, next_offset)))

    async def trim(self, *, older_than_ms: int, below: Mapping[int, int]) -> int:
        """Apply retention; returns how many records were deleted.

        Chunks older than *older_than_ms* (wall clock) go whatever was committed; then, while the log is above its cap,
        the oldest chunks that lie wholly below *below*.
        """
        deleted = 0
        for step in (partial(self._file.trim_step, older_than_ms), partial(self._file.cap_step, dict(below))):
            while some := await self._in_writer(step):
                deleted += some
        return deleted

    async def _fetch(self, partition: int, offset: int) -> tuple[list[Record], int]:
        work = partial(read_records, path=self.path, partition=partition, offset=offset, bytes_max=self._batch_bytes)
        return await self._pool.run(work)

    async def _flush(self, packed: list[Packed]) -> None:
        safe = self._ledger.committed_offsets()
        self._tails.publish(await self._in_writer(partial(self._file.append, packed, safe)))

    async def _in_writer(self, work: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(work, limiter=self._writer)
