"""The trace store on SQLite: one file a day under `store/`, so that retention is the deletion of a file."""

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import trio

from spanloom.adapters.coalescer import Coalescer
from spanloom.adapters.document_limits import rejection_of
from spanloom.adapters.sqlite.faults import at_start, translated
from spanloom.adapters.sqlite.folder import STORE_FOLDER, DataFolder
from spanloom.adapters.sqlite.formats import STORE_DAY
from spanloom.adapters.sqlite.store_files import (
    NEWEST,
    NEWEST_OF_SERVICE,
    OF_TRACE,
    SERVICES,
    DayFiles,
    read_documents,
    write_documents,
)
from spanloom.errors import DataCorrupted, StoreRejected, StoreUnavailable
from spanloom.model import Document

Found = TypeVar("Found")

SEARCH_MAX = 1000
WRITERS_OPEN_MAX = 4  # days written to at once: today and a replay's; three file descriptors each
READERS_OPEN_MAX = 8  # a read of a trace looks into every day: the newest stay open


class SqliteStore:
    """The documents of one data folder. See `interfaces.TraceStore`."""

    def __init__(self, folder: DataFolder) -> None:
        """Open the store. Blocks. Raises ConfigError."""
        self._folder = folder
        self.path = folder.path / STORE_FOLDER
        with at_start(self.path):
            self.path.mkdir(exist_ok=True)
        self._written = DayFiles(self.path, self._open_to_write, folder.release, WRITERS_OPEN_MAX)
        self._read = DayFiles(self.path, self._open_to_read, folder.release, READERS_OPEN_MAX)
        self._writer = trio.CapacityLimiter(1)
        self._reader = trio.CapacityLimiter(1)
        self._writes: Coalescer[Sequence[Document]] = Coalescer(self._flush, StoreUnavailable)

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        """Write as `TraceStore` says; one transaction a day, newest day last."""
        rejected: list[StoreRejected] = []
        storable: list[Document] = []
        for document in documents:
            rejection = rejection_of(document)
            if rejection is None:
                storable.append(document)
            else:
                rejected.append(rejection)
        if storable:
            await self._writes.submit(storable, size_bytes=sum(len(document.spans) for document in storable))
        else:
            await trio.lowlevel.checkpoint()
        return rejected

    async def read(self, trace_id: str) -> Sequence[Document]:
        """All fragments of the trace, in order of (day, id)."""
        return await self._in_reader(partial(self._read_trace, trace_id))

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        """The newest fragments by (day, start, id), newest first."""
        assert 0 < limit <= SEARCH_MAX
        return await self._in_reader(partial(self._search, service, limit))

    async def services(self) -> Sequence[str]:
        """Every service of the days kept, in order."""
        return await self._in_reader(self._services)

    async def drop_days_before(self, day: str) -> Sequence[str]:
        """Delete the documents of every day before *day* (YYYY.MM.DD); returns those days."""
        async with self._reader, self._writer:  # nobody has a file open: a late close would unlink a new file's journal
            return await trio.to_thread.run_sync(self._drop, day)

    async def _flush(self, groups: list[Sequence[Document]]) -> None:
        await trio.to_thread.run_sync(self._write, groups, limiter=self._writer)

    async def _in_reader(self, work: Callable[[], Found]) -> Found:
        return await trio.to_thread.run_sync(work, limiter=self._reader)

    def _write(self, groups: list[Sequence[Document]]) -> None:
        of_day: dict[str, list[Document]] = defaultdict(list)
        for documents in groups:
            for document in documents:
                of_day[document.day].append(document)
        for day, documents in sorted(of_day.items()):
            with translated(self._written.path(day), StoreUnavailable):
                write_documents(self._written.connection(day), documents)

    def _read_trace(self, trace_id: str) -> list[Document]:
        found: list[Document] = []
        for day in reversed(self._read.days()):  # newest first: those files are the ones left open
            found[:0] = self._documents(day, OF_TRACE, (trace_id,))
        return found

    def _search(self, service: str, limit: int) -> list[Document]:
        query, parameters = (NEWEST_OF_SERVICE, (service,)) if service else (NEWEST, ())
        found: list[Document] = []
        for day in reversed(self._read.days()):
            if len(found) >= limit:
                break
            found += self._documents(day, query, (*parameters, limit - len(found)))
        return found

    def _services(self) -> list[str]:
        found: set[str] = set()
        for day in reversed(self._read.days()):
            with translated(self._read.path(day), StoreUnavailable):
                found.update(name for (name,) in self._read.connection(day).execute(SERVICES))
        return sorted(found)

    def _documents(self, day: str, query: str, parameters: Sequence[object]) -> list[Document]:
        path = self._read.path(day)
        try:
            with translated(path, StoreUnavailable):
                return read_documents(self._read.connection(day), day, query, parameters)
        except (ValueError, TypeError) as error:
            raise DataCorrupted(str(path), f"a document that does not decode: {error}") from error

    def _drop(self, before: str) -> list[str]:
        dropped = [day for day in self._written.days() if day < before]
        for day in dropped:
            self._read.close(day)
            self._written.close(day)
            try:
                self._written.remove(day)
            except OSError as error:
                raise StoreUnavailable(f"{self._written.path(day)}: {error.strerror}") from error
        return dropped

    def _open_to_write(self, day: str) -> sqlite3.Connection:
        return self._folder.open_writer(f"{STORE_FOLDER}/{self._written.path(day).name}", STORE_DAY)

    def _open_to_read(self, day: str) -> sqlite3.Connection:
        return self._folder.open_reader(f"{STORE_FOLDER}/{self._read.path(day).name}", STORE_DAY)
