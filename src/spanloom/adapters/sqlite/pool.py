"""Connections for reading: a few, each used by one worker thread at a time, so readers never wait for the writer."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from spanloom.adapters.sqlite.faults import translated
from spanloom.errors import Unavailable

Found = TypeVar("Found")

READERS = 2  # connections a file: more would only contend for the cores and the GIL


class ReadPool:
    """Runs blocking reads of one file in worker threads."""

    def __init__(self, file: Path, connections: Sequence[sqlite3.Connection], role: type[Unavailable]) -> None:
        self._file = file
        self._idle = list(connections)
        self._role = role
        self._limiter = trio.CapacityLimiter(len(connections))

    async def run(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        """Call `work(connection)` in a thread. Not abandoned when cancelled: reads are short."""
        return await trio.to_thread.run_sync(self._run, work, limiter=self._limiter)

    def _run(self, work: Callable[[sqlite3.Connection], Found]) -> Found:
        connection = self._idle.pop()  # the limiter lets in no more threads than there are connections
        try:
            with translated(self._file, self._role):
                return work(connection)
        finally:
            self._idle.append(connection)
