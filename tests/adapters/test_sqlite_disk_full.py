"""A full disk: every role says Unavailable, loses nothing it acknowledged, and works again when there is room."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from spanloom.adapters.sqlite import SqliteLedger, SqliteLog, SqliteOutlet, SqliteStore
from spanloom.errors import LedgerUnavailable, OutletUnavailable, SourceUnavailable, StoreUnavailable
from spanloom.model import Committed, Message
from tests.adapters.test_data_folder import open_folder
from tests.conformance.test_store import document

ROOMY = 1 << 30


@asynccontextmanager
async def full(connection: sqlite3.Connection) -> AsyncIterator[None]:
    """The file may not grow meanwhile."""
    connection.execute("PRAGMA max_page_count = 1")  # SQLite raises it to the present size
    yield
    connection.execute(f"PRAGMA max_page_count = {ROOMY}")


async def test_the_log_survives_a_full_disk(tmp_path: Path) -> None:
    """Appends fail as SourceUnavailable and leave nothing; the next one with room goes on without a gap."""
    folder = open_folder(tmp_path)
    log = SqliteLog(folder, SqliteLedger(folder))
    await log.append([(0, Message(None, b"before"))])
    large = [(partition, Message(None, bytes(200_000))) for partition in (0, 1)]

    async with full(log._file._connection):
        for _ in range(2):
            with pytest.raises(SourceUnavailable, match=r"log\.db: database or disk is full"):
                await log.append(large)
        assert await log.end_offset(0) == 1
    await log.append([(0, Message(None, b"after"))])

    records = await (await log.read(0, 0)).receive()
    assert [(record.offset, record.value) for record in records] == [(0, b"before"), (1, b"after")]
    folder.close()


async def test_the_ledger_and_the_commits_survive_a_full_disk(tmp_path: Path) -> None:
    """Each role has its own error; nothing of a failed write is there."""
    folder = open_folder(tmp_path)
    ledger = SqliteLedger(folder)
    log = SqliteLog(folder, ledger)
    await log.commit(0, Committed(1, b"before"))

    async with full(ledger._file._connection):
        with pytest.raises(LedgerUnavailable, match=r"ledger\.db: database or disk is full"):
            await ledger.append(0, [bytes(200_000)])
        with pytest.raises(SourceUnavailable, match=r"ledger\.db: database or disk is full"):
            await log.commit(0, Committed(2, bytes(200_000)))
        assert await log.committed(0) == Committed(1, b"before")
    await ledger.append(0, [b"after"])
    await log.commit(0, Committed(2, b"after"))

    assert await ledger.end(0) == 1
    assert await log.committed(0) == Committed(2, b"after")
    folder.close()


async def test_the_store_survives_a_full_disk(tmp_path: Path) -> None:
    """Writes fail as StoreUnavailable; the same documents are stored once there is room."""
    folder = open_folder(tmp_path)
    store = SqliteStore(folder)
    await store.write([document("a")])
    many = [document(f"{number:04}") for number in range(2000)]

    async with full(store._written.connection("2026.01.02")):
        with pytest.raises(StoreUnavailable, match="database or disk is full"):
            await store.write(many)
    assert list(await store.write(many)) == []

    assert len(await store.read(document().trace_id)) == 2001
    folder.close()


async def test_the_outlet_survives_a_full_disk(tmp_path: Path) -> None:
    """Publishing fails as OutletUnavailable and works again."""
    folder = open_folder(tmp_path)
    outlet = SqliteOutlet(folder)

    async with full(outlet._connection):
        with pytest.raises(OutletUnavailable, match="database or disk is full"):
            await outlet.publish("traces-complete", [Message(None, bytes(200_000))])
    await outlet.publish("traces-complete", [Message(None, b"after")])

    assert [record.value for record in await outlet.read("traces-complete", 0, 10)] == [b"after"]
    folder.close()


async def test_a_locked_file_is_unavailable(tmp_path: Path) -> None:
    """A foreign writer that holds the file makes the role unavailable, not dead."""
    folder = open_folder(tmp_path)
    log = SqliteLog(folder, SqliteLedger(folder))
    log._file._connection.execute("PRAGMA busy_timeout = 10")
    foreign = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")

    with pytest.raises(SourceUnavailable, match=r"log\.db: database is locked"):
        await log.append([(0, Message(None, b"x"))])

    foreign.close()
    await log.append([(0, Message(None, b"x"))])
    assert await log.end_offset(0) == 1
    folder.close()
