"""The topics that only leave (`traces-complete`, `sampling-decisions`, dead letters) on SQLite: a table a topic."""

import re
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial

import trio

from spanloom.adapters.coalescer import Coalescer
from spanloom.adapters.sqlite.chunks import pack_headers, unpack_headers
from spanloom.adapters.sqlite.faults import at_start, translated
from spanloom.adapters.sqlite.files import insert_rows, transaction
from spanloom.adapters.sqlite.folder import OUTLET_FILE, DataFolder
from spanloom.adapters.sqlite.formats import OUTLET
from spanloom.adapters.sqlite.log import wall_clock_ms
from spanloom.adapters.sqlite.pool import ReadPool
from spanloom.errors import DataCorrupted, OutletUnavailable
from spanloom.model import Message, Record

_TOPIC = re.compile(r"[a-z0-9-]+")  # what a topic of ours is named: safe inside double quotes
_TRIM_ROWS = 1000  # deleted in one transaction: publishing waits for no more than that

# AUTOINCREMENT: positions are never given again, whatever retention deletes.
_TABLE = (
    'CREATE TABLE IF NOT EXISTS "{topic}" (position INTEGER PRIMARY KEY AUTOINCREMENT, timestamp_ms INTEGER NOT NULL,'
    " key BLOB, headers BLOB NOT NULL, value BLOB NOT NULL)"
)
_FROM = (
    'SELECT position, timestamp_ms, key, headers, value FROM "{topic}" WHERE position >= ? ORDER BY position LIMIT ?'
)
_OLD = (
    'DELETE FROM "{topic}" WHERE position IN'
    ' (SELECT position FROM (SELECT position, timestamp_ms FROM "{topic}" ORDER BY position LIMIT ?)'
    " WHERE timestamp_ms < ?)"
)

_Publication = tuple[str, Sequence[Message]]


class SqliteOutlet:
    """The outgoing topics of one data folder. See `interfaces.Outlet`."""

    def __init__(self, folder: DataFolder, *, wall_ms: Callable[[], int] = wall_clock_ms) -> None:
        """Open the outlet. Blocks. Raises ConfigError, DataCorrupted."""
        self.path = folder.path / OUTLET_FILE
        self._wall_ms = wall_ms
        with at_start(self.path):
            self._connection = folder.open_writer(OUTLET_FILE, OUTLET)
            reader = folder.open_reader(OUTLET_FILE, OUTLET)
            self._topics = _topics(self._connection)
        self._writer = trio.CapacityLimiter(1)
        self._pool = ReadPool(self.path, [reader], OutletUnavailable)
        self._writes: Coalescer[_Publication] = Coalescer(self._flush, OutletUnavailable)

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Append to the topic as `Outlet` says; all of the messages or none."""
        assert _TOPIC.fullmatch(topic)
        if not messages:
            await trio.lowlevel.checkpoint()
            return
        await self._writes.submit((topic, messages), size_bytes=sum(len(message.value) for message in messages))

    async def read(self, topic: str, position: int, limit: int) -> Sequence[Record]:
        """At most *limit* records from *position* on; their `offset` is the position, the first one's 1."""
        if topic not in self._topics:
            await trio.lowlevel.checkpoint()
            return []
        return await self._pool.run(partial(self._read, topic=topic, position=position, limit=limit))

    async def trim(self, topic: str, *, older_than_ms: int) -> int:
        """Delete the topic's records older than that (wall clock); returns how many."""
        deleted = 0
        if topic in self._topics:
            step = partial(self._trim_step, topic, older_than_ms)
            while some := await trio.to_thread.run_sync(step, limiter=self._writer):
                deleted += some
        return deleted

    async def _flush(self, publications: list[_Publication]) -> None:
        await trio.to_thread.run_sync(self._write, publications, limiter=self._writer)
        self._topics.update(topic for topic, _ in publications)

    def _write(self, publications: list[_Publication]) -> None:
        now_ms = self._wall_ms()
        rows: dict[str, list[tuple[int, bytes | None, bytes, bytes]]] = {}
        for topic, messages in publications:
            of_topic = rows.setdefault(topic, [])
            of_topic += [(now_ms, key, pack_headers(headers), value) for key, value, headers in messages]
        with translated(self.path, OutletUnavailable), transaction(self._connection):
            for topic, of_topic in rows.items():
                self._connection.execute(_TABLE.format(topic=topic))
                insert_rows(self._connection, f'INSERT INTO "{topic}" (timestamp_ms, key, headers, value)', of_topic)

    def _read(self, connection: sqlite3.Connection, *, topic: str, position: int, limit: int) -> list[Record]:
        rows = connection.execute(_FROM.format(topic=topic), (position, limit)).fetchall()
        try:
            return [Record(at, when, key, value, unpack_headers(packed)) for at, when, key, packed, value in rows]
        except ValueError as error:
            raise DataCorrupted(str(self.path), f"{topic} from position {position} on: {error}") from error

    def _trim_step(self, topic: str, older_than_ms: int) -> int:
        with translated(self.path, OutletUnavailable), transaction(self._connection):
            return self._connection.execute(_OLD.format(topic=topic), (_TRIM_ROWS, older_than_ms)).rowcount


def _topics(connection: sqlite3.Connection) -> set[str]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name for (name,) in tables if _TOPIC.fullmatch(name)}  # not SQLite's own: those have an underscore
