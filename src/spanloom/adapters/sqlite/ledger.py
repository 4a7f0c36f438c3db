"""`spanloom-ledger` on SQLite, and the commits of `spans` beside it: both in ledger.db, in shared transactions."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from spanloom.adapters.coalescer import Coalescer
from spanloom.adapters.sqlite.faults import at_start, translated
from spanloom.adapters.sqlite.files import insert_rows, transaction
from spanloom.adapters.sqlite.folder import LEDGER_FILE, DataFolder
from spanloom.adapters.sqlite.formats import LEDGER
from spanloom.adapters.sqlite.pool import READERS, ReadPool
from spanloom.adapters.tails import TailReader, Tails
from spanloom.errors import LedgerUnavailable, SourceUnavailable
from spanloom.model import Committed, LedgerRecord

Result = TypeVar("Result")

BATCH_BYTES = 1 << 20  # what a reader takes at once
_TRIM_ROWS = 1000  # deleted in one transaction: appends wait for no more than that

_INSERT = "INSERT INTO entry (partition, position, body)"
_COMMIT = 'INSERT INTO committed (partition, "offset", metadata)'
_FORWARD = (
    ' ON CONFLICT (partition) DO UPDATE SET "offset" = excluded."offset", metadata = excluded.metadata'
    ' WHERE excluded."offset" >= committed."offset"'
)
_RAISE_HEAD = "INSERT INTO head VALUES (?, ?) ON CONFLICT (partition) DO UPDATE SET next = max(next, excluded.next)"
_TRIM = (
    "DELETE FROM entry WHERE rowid IN"
    " (SELECT rowid FROM entry WHERE partition = ? AND position < ? ORDER BY position LIMIT ?)"
)


@dataclass(frozen=True, slots=True)
class _Append:
    partition: int
    bodies: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class _Commit:
    partition: int
    committed: Committed


class SqliteLedger:
    """The ledger of one data folder. See `interfaces.Ledger`; `committed` and `commit` are for the log."""

    def __init__(self, folder: DataFolder, *, batch_bytes: int = BATCH_BYTES) -> None:
        """Open the ledger. Blocks. Raises ConfigError, DataCorrupted."""
        self.path = folder.path / LEDGER_FILE
        self._batch_bytes = batch_bytes
        with at_start(self.path):
            connection = folder.open_writer(LEDGER_FILE, LEDGER)
            self._file = _LedgerFile(connection, self.path, folder.partition_count)
            self._tails = Tails(self._file.ends())
            self._committed_offsets = dict(connection.execute('SELECT partition, "offset" FROM committed'))
            readers = [folder.open_reader(LEDGER_FILE, LEDGER) for _ in range(READERS)]
        self._writer = trio.CapacityLimiter(1)
        self._pool = ReadPool(self.path, readers, LedgerUnavailable)
        self._writes: Coalescer[_Append | _Commit] = Coalescer(self._flush, LedgerUnavailable)

    async def append(self, partition: int, bodies: Sequence[bytes]) -> None:
        """Append as `Ledger` says; all of the bodies or none."""
        assert 0 <= partition < len(self._tails)
        if not bodies:
            await trio.lowlevel.checkpoint()
            return
        await self._writes.submit(_Append(partition, bodies), size_bytes=sum(map(len, bodies)))

    async def read(self, partition: int, position: int) -> TailReader[LedgerRecord]:
        """Open a reader at *position*, or at the first record after it."""
        assert 0 <= partition < len(self._tails)
        await trio.lowlevel.checkpoint()
        return TailReader(self._tails, partition, position, partial(self._fetch, partition))

    async def end(self, partition: int) -> int:
        """The position after the last record."""
        self._tails.publish(await self._in_writer(self._file.read_ends))  # also after an append whose fate is not known
        return self._tails[partition]

    async def trim(self, before_position: Mapping[int, int]) -> int:
        """Delete each partition's records before that position; returns how many. Positions are never given again."""
        deleted = 0
        for partition, position in before_position.items():
            while some := await self._in_writer(partial(self._file.trim_step, partition, position)):
                deleted += some
        return deleted

    async def committed(self, partition: int) -> Committed:
        """The last commit of the partition of `spans`, or Committed(0, b""). Raises SourceUnavailable."""
        with _of_the_source():
            return await self._pool.run(partial(_read_committed, partition=partition))

    async def commit(self, partition: int, committed: Committed) -> None:
        """Store a commit; a lower offset than the last changes nothing. Raises SourceUnavailable."""
        assert 0 <= partition < len(self._tails)
        assert 0 <= committed.offset < 1 << 63
        with _of_the_source():
            await self._writes.submit(_Commit(partition, committed), size_bytes=len(committed.metadata))

    def committed_offsets(self) -> dict[int, int]:
        """The committed offset of every partition that has one, as this process knows them: never too high."""
        return dict(self._committed_offsets)

    async def _fetch(self, partition: int, position: int) -> tuple[list[LedgerRecord], int]:
        end = self._tails[partition]  # before the read, which sees at least what lies below it
        work = partial(_read_entries, partition=partition, position=position, bytes_max=self._batch_bytes)
        found = await self._pool.run(work)
        return found, found[-1].position + 1 if found else end

    async def _flush(self, writes: list[_Append | _Commit]) -> None:
        appends = [write for write in writes if isinstance(write, _Append)]
        commits = [write for write in writes if isinstance(write, _Commit)]
        self._tails.publish(await self._in_writer(partial(self._file.write, appends, commits)))
        for commit in commits:
            known = self._committed_offsets.get(commit.partition, 0)
            self._committed_offsets[commit.partition] = max(known, commit.committed.offset)

    async def _in_writer(self, work: Callable[[], Result]) -> Result:
        return await trio.to_thread.run_sync(work, limiter=self._writer)


@contextmanager
def _of_the_source() -> Iterator[None]:
    """Commits are the source's: so are their errors."""
    try:
        yield
    except LedgerUnavailable as error:
        raise SourceUnavailable(*error.args) from error


class _LedgerFile:
    """The only writer of ledger.db. One call at a time, in worker threads."""

    def __init__(self, connection: sqlite3.Connection, path: Path, partition_count: int) -> None:
        self._connection = connection
        self._path = path
        self._partition_count = partition_count
        self._ends: list[int] = []  # empty: not known, read again

    def write(self, appends: Sequence[_Append], commits: Sequence[_Commit]) -> list[int]:
        """Append and commit in one transaction; returns the end of every partition."""
        with translated(self._path, LedgerUnavailable):
            ends = self.ends()
            self._ends = []  # until it is known that it went well
            with transaction(self._connection):
                insert_rows(self._connection, _INSERT, _entries(appends, ends))
                insert_rows(self._connection, _COMMIT, _furthest(commits), then=_FORWARD)
            self._ends = ends
            return list(ends)

    def read_ends(self) -> list[int]:
        """As `ends`. Raises LedgerUnavailable, DataCorrupted."""
        with translated(self._path, LedgerUnavailable):
            return self.ends()

    def ends(self) -> list[int]:
        """The position after the last record of every partition; the caller's own list. Raises sqlite3.Error."""
        if not self._ends:
            floors = dict(self._connection.execute("SELECT partition, next FROM head"))
            last = "SELECT coalesce(max(position) + 1, 0) FROM entry WHERE partition = ?"
            self._ends = [
                max(floors.get(partition, 0), self._connection.execute(last, (partition,)).fetchone()[0])
                for partition in range(self._partition_count)
            ]
        return list(self._ends)

    def trim_step(self, partition: int, before_position: int) -> int:
        """Delete some of the records; returns how many, 0: done."""
        with translated(self._path, LedgerUnavailable):
            end = self.ends()[partition]
            with transaction(self._connection):
                deleted = self._connection.execute(_TRIM, (partition, before_position, _TRIM_ROWS)).rowcount
                if deleted:
                    self._connection.execute(_RAISE_HEAD, (partition, end))
            return deleted


def _entries(appends: Sequence[_Append], ends: list[int]) -> list[tuple[int, int, bytes]]:
    """Rows with their positions; *ends* moves along."""
    rows: list[tuple[int, int, bytes]] = []
    for append in appends:
        first = ends[append.partition]
        rows += [(append.partition, first + place, body) for place, body in enumerate(append.bodies)]
        ends[append.partition] = first + len(append.bodies)
    return rows


def _furthest(commits: Sequence[_Commit]) -> list[tuple[int, int, bytes]]:
    """One row a partition: an UPSERT of many rows may meet a partition twice, but only the furthest commit counts."""
    furthest: dict[int, Committed] = {}
    for commit in commits:
        known = furthest.get(commit.partition)
        if known is None or commit.committed.offset >= known.offset:
            furthest[commit.partition] = commit.committed
    return [(partition, committed.offset, committed.metadata) for partition, committed in furthest.items()]


def _read_entries(
    connection: sqlite3.Connection, *, partition: int, position: int, bytes_max: int
) -> list[LedgerRecord]:
    query = "SELECT position, body FROM entry WHERE partition = ? AND position >= ? ORDER BY position"
    found: list[LedgerRecord] = []
    with closing(connection.execute(query, (partition, position))) as rows:  # an open one would hold the log's reset up
        for at, body in rows:
            bytes_max -= len(body)
            if found and bytes_max < 0:
                break
            found.append(LedgerRecord(at, body))
    return found


def _read_committed(connection: sqlite3.Connection, *, partition: int) -> Committed:
    query = 'SELECT "offset", metadata FROM committed WHERE partition = ?'
    row = connection.execute(query, (partition,)).fetchone()
    return Committed(0, b"") if row is None else Committed(*row)
