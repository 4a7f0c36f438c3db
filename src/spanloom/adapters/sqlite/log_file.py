"""The blocking half of the partition log: one writer's work on log.db, and the reads. Runs in worker threads.

A flush is one INSERT wherever it can be (see `files.insert_rows`), so the next offsets are not stored with it: they are
where the last chunk ends, or the floor in `head` where retention or `reserve` put it higher.
"""

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from spanloom.adapters.sqlite.chunks import pack_body, unpack_body
from spanloom.adapters.sqlite.faults import translated
from spanloom.adapters.sqlite.files import insert_rows, pragma, transaction
from spanloom.errors import DataCorrupted, Overloaded, RecordsDeleted, SourceUnavailable
from spanloom.model import Record

CHUNK_BYTES_MAX = 1 << 20  # what a reader takes at once by default: a chunk is seldom decoded twice
_ROW_BYTES = 64  # about what a chunk takes beside its body
_TRIM_CHUNKS = 64  # deleted in one transaction: appends wait for no more than that
_SLACK = 64  # a log at its cap is brought this part below it, so that not every append has to delete

_END = "SELECT base + count FROM chunk WHERE partition = ? ORDER BY base DESC LIMIT 1"
_OLDEST = "SELECT id, partition, base, count, timestamp_ms FROM chunk WHERE partition = ? ORDER BY base LIMIT ?"
_BELOW = (
    "SELECT chunk.id, partition, base, count, timestamp_ms, length(body) FROM chunk"
    " JOIN json_each(?) AS safe ON safe.key = chunk.partition WHERE base + count <= safe.value"
    " ORDER BY chunk.id LIMIT ?"
)
_RAISE_HEAD = (
    "INSERT INTO head VALUES (?, ?, ?) ON CONFLICT (partition) DO UPDATE"
    " SET next = max(next, excluded.next), earliest = max(earliest, excluded.earliest)"
)
_FROM = (  # the head's row always comes, so one statement is one snapshot of both
    "SELECT head.next, head.earliest, base, count, timestamp_ms, crc, body FROM head"
    " LEFT JOIN chunk ON chunk.partition = head.partition AND chunk.base >="
    " coalesce((SELECT max(base) FROM chunk WHERE partition = ?1 AND base <= ?2), 0)"
    " WHERE head.partition = ?1 ORDER BY chunk.base"
)

Packed = Sequence[tuple[int, bytes]]  # partition and packed record, as one append call brings them


@dataclass(frozen=True, slots=True)
class Chunk:
    """What retention looks at."""

    id: int
    partition: int
    base: int
    count: int
    timestamp_ms: int


class Found(NamedTuple):
    """What a read found and where the next one goes on."""

    records: list[Record]
    next_offset: int


class LogFile:
    """The only writer of log.db. One call at a time."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, *, bytes_max: int, wall_ms: Callable[[], int]
    ) -> None:
        self._connection = connection
        self._path = path
        self._bytes_max = bytes_max
        self._wall_ms = wall_ms
        self._ends: list[int] = []  # empty: not known, read again
        self._used_bytes = self._measure()

    def append(self, packed: Sequence[Packed], safe: Mapping[int, int]) -> list[int]:
        """Append what several callers bring, all or nothing; chunks wholly below *safe* make room for it at the cap.

        Returns the next offset of every partition. Raises SourceUnavailable, Overloaded, DataCorrupted.
        """
        with translated(self._path, SourceUnavailable):
            ends = self.ends()
            rows = list(self._rows(packed, ends))
            size_bytes = sum(len(row[-1]) + _ROW_BYTES for row in rows)
            self._make_room(size_bytes, safe)
            self._ends = []  # until it is known that it went well
            insert = "INSERT INTO chunk (partition, base, count, timestamp_ms, crc, body)"
            with transaction(self._connection):
                insert_rows(self._connection, insert, rows)
            self._used_bytes += size_bytes
            self._ends = ends
            return list(ends)

    def read_ends(self) -> list[int]:
        """As `ends`. Raises SourceUnavailable, DataCorrupted."""
        with translated(self._path, SourceUnavailable):
            return self.ends()

    def ends(self) -> list[int]:
        """The next offset of every partition; the caller's own list. Raises sqlite3.Error."""
        if not self._ends:
            heads = self._connection.execute("SELECT partition, next FROM head ORDER BY partition").fetchall()
            lasts = [self._connection.execute(_END, (partition,)).fetchone() for partition, _ in heads]
            self._ends = [max(floor, last[0] if last else 0) for (_, floor), last in zip(heads, lasts, strict=True)]
        return list(self._ends)

    def reserve(self, partition: int, next_offset: int) -> list[int]:
        """Hand out no offset of *partition* below *next_offset* from now on."""
        with translated(self._path, SourceUnavailable):
            ends = self.ends()
            if next_offset > ends[partition]:
                self._connection.execute(_RAISE_HEAD, (partition, next_offset, 0))
                ends[partition] = next_offset
                self._ends = ends
            return list(ends)

    def trim_step(self, older_than_ms: int) -> int:
        """Delete some of the chunks older than that, oldest first. Returns their records; 0: done."""
        with translated(self._path, SourceUnavailable):
            old: list[Chunk] = []
            for partition in range(len(self.ends())):
                rows = self._connection.execute(_OLDEST, (partition, _TRIM_CHUNKS - len(old))).fetchall()
                # A prefix: a wall clock that went back is no reason to tear a hole.
                old += takewhile(lambda chunk: chunk.timestamp_ms < older_than_ms, (Chunk(*row) for row in rows))
            return self._delete(old)

    def cap_step(self, safe: Mapping[int, int]) -> int:
        """Delete some chunks wholly below *safe* if the log is above its cap. Returns their records; 0: done."""
        with translated(self._path, SourceUnavailable):
            self._used_bytes = self._measure()
            if self._used_bytes <= self._bytes_max:
                return 0
            return self._reclaim(0, safe)

    def _rows(self, packed: Sequence[Packed], ends: list[int]) -> Iterator[tuple[int, int, int, int, int, bytes]]:
        """Chunks of what was brought; *ends* moves along."""
        of_partition: dict[int, list[bytes]] = {}
        for one in packed:
            for partition, record in one:
                of_partition.setdefault(partition, []).append(record)
        now_ms = self._wall_ms()
        for partition, records in of_partition.items():
            for some in _split(records):
                body, crc = pack_body(some)
                yield partition, ends[partition], len(some), now_ms, crc, body
                ends[partition] += len(some)

    def _make_room(self, size_bytes: int, safe: Mapping[int, int]) -> None:
        if self._used_bytes + size_bytes <= self._bytes_max:
            return
        self._used_bytes = self._measure()  # what was added up since only tells when to look
        while self._used_bytes + size_bytes > self._bytes_max:
            if not self._reclaim(size_bytes, safe):
                raise Overloaded(
                    f"{self._path}: log_bytes_max = {self._bytes_max} bytes is reached ({self._used_bytes} in use)"
                    " and no chunk lies wholly below its partition's committed offset"
                )

    def _reclaim(self, room_bytes: int, safe: Mapping[int, int]) -> int:
        excess = self._used_bytes + room_bytes + self._bytes_max // _SLACK - self._bytes_max
        chosen: list[Chunk] = []
        for *row, size_bytes in self._connection.execute(_BELOW, (json.dumps(safe), _TRIM_CHUNKS)).fetchall():
            if excess <= 0:
                break
            chosen.append(Chunk(*row))
            excess -= size_bytes + _ROW_BYTES
        return self._delete(chosen)

    def _delete(self, chunks: Sequence[Chunk]) -> int:
        """Delete the oldest chunks of their partitions; their offsets stay used for ever."""
        if not chunks:
            return 0
        ends = self.ends()
        earliest = {chunk.partition: chunk.base + chunk.count for chunk in chunks}
        with transaction(self._connection):
            ids = json.dumps([chunk.id for chunk in chunks])
            self._connection.execute("DELETE FROM chunk WHERE id IN (SELECT value FROM json_each(?))", (ids,))
            heads = [(partition, ends[partition], offset) for partition, offset in earliest.items()]
            self._connection.executemany(_RAISE_HEAD, heads)
        self._used_bytes = self._measure()
        return sum(chunk.count for chunk in chunks)

    def _measure(self) -> int:
        """Bytes of the file's pages in use; deleting makes pages free, not the file smaller."""
        pages = pragma(self._connection, "page_count") - pragma(self._connection, "freelist_count")
        return pages * pragma(self._connection, "page_size")


def read_records(connection: sqlite3.Connection, path: Path, *, partition: int, offset: int, bytes_max: int) -> Found:
    """Records from *offset* on, whole chunks where they fit; none where the offset is the end or a gap follows it.

    Leaves no statement open: it would keep the write-ahead log from ever being reset.

    Raises RecordsDeleted, DataCorrupted, sqlite3.Error.
    """
    records: list[Record] = []
    room_bytes, floor = bytes_max, 0
    with closing(connection.execute(_FROM, (partition, offset))) as rows:
        for at_least, earliest, *row in rows:
            floor = at_least
            if offset < earliest:
                raise RecordsDeleted(partition, offset, earliest)
            if row[0] is None:
                break
            try:
                if records and len(row[-1]) > room_bytes:
                    break
                some = _take(row, offset, room_bytes)
            except (ValueError, TypeError) as error:  # TypeError: a damaged row head gives values of other types
                if records:
                    break  # what is whole is given first
                where = f"chunk of partition {partition} at offset {row[0]}"
                raise DataCorrupted(str(path), f"{where}: {error}") from error
            records += some
            room_bytes -= len(row[-1])  # below 0 if the chunk was not taken to its end: then no further one is
    # With nothing there, what is appended later does not lie below the floor: the gap can be stepped over.
    return Found(records, records[-1].offset + 1 if records else max(offset, floor))


def _take(row: Sequence[object], offset: int, room_bytes: int) -> list[Record]:
    """The records of one chunk from *offset* on, none if it ends before. Raises ValueError, TypeError: damaged."""
    base, count, timestamp_ms, crc, body = row
    if not (isinstance(base, int) and isinstance(count, int) and isinstance(timestamp_ms, int)):
        raise TypeError(f"expected integers, found {base!r}, {count!r}, {timestamp_ms!r}")
    if not isinstance(body, bytes):
        raise TypeError(f"expected a blob, found {type(body).__name__}")
    if base + count <= offset:
        return []
    if zlib.crc32(body) != crc:
        raise ValueError(f"expected crc {crc}, found {zlib.crc32(body)}")
    return unpack_body(body, base=base, count=count, timestamp_ms=timestamp_ms, first=offset, bytes_max=room_bytes)


def _split(records: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Runs of at most CHUNK_BYTES_MAX, one record at least."""
    some: list[bytes] = []
    size_bytes = 0
    for record in records:
        if some and size_bytes + len(record) > CHUNK_BYTES_MAX:
            yield some
            some, size_bytes = [], 0
        some.append(record)
        size_bytes += len(record)
    if some:
        yield some
