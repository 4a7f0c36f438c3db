"""Damaged ends of the files: a clear error that says where, or a clean recovery of all before them; never silence."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio

from spanloom.adapters.sqlite import DataFolder, SqliteLedger, SqliteLog
from spanloom.core.failpoints import Failpoint
from spanloom.core.ledger import Decide, Fence, Tick, decode, encode
from spanloom.errors import DataCorrupted, DecodeError
from spanloom.model import LEDGER, Message, Record
from tests.killing.harness import CALM, PARTITIONS, Killing

RECORDS = [Message(b"key", bytes([number]) * 40) for number in range(5)]
BODIES = [encode(0, 1, Fence(bytes(16), 0)), encode(0, 1, Tick(3, 5)), encode(0, 1, Decide(b"\0\0\0\0"))]
FRAME_BYTES = 24 + 4096  # of SQLite's write-ahead log: header and page


@contextmanager
def opened(path: Path) -> Iterator[tuple[SqliteLog, SqliteLedger]]:
    folder = DataFolder.open(path, partition_count=1)
    try:
        ledger = SqliteLedger(folder)
        yield SqliteLog(folder, ledger), ledger
    finally:
        folder.close()


async def fill(log: SqliteLog, ledger: SqliteLedger) -> None:
    for message in RECORDS:
        await log.append([(0, message)])
    for body in BODIES:
        await ledger.append(0, [body])


async def log_records(path: Path) -> list[Record]:
    """All of the log, as a reader gets it."""
    found: list[Record] = []
    with opened(path) as (log, _):
        end = await log.end_offset(0)
        reader = await log.read(0, 0)
        while not found or found[-1].offset + 1 < end:
            found += await reader.receive()
    return found


async def ledger_bodies(path: Path) -> list[bytes]:
    """All of the ledger, decoded once, as an owner reads it."""
    found: list[bytes] = []
    with opened(path) as (_, ledger):
        end = await ledger.end(0)
        reader = await ledger.read(0, 0)
        while len(found) < end:
            for record in await reader.receive():
                decode(record.body, partition=0, position=record.position)
                found.append(record.body)
    return found


async def test_any_changed_or_missing_byte_of_a_ledger_record_is_named(tmp_path: Path) -> None:
    """Whatever byte of the last ledger record is another, or from where on it is cut off: the reader names it."""
    with opened(tmp_path) as world:
        await fill(*world)
    last = BODIES[-1]
    damaged = [last[:at] + bytes([last[at] ^ 0x10]) + last[at + 1 :] for at in range(len(last))]
    damaged += [last[:at] for at in range(len(last))]
    for body in damaged:
        with closing(sqlite3.connect(tmp_path / "ledger.db")) as database, database:
            database.execute("UPDATE entry SET body = ? WHERE position = ?", (body, len(BODIES) - 1))
        with pytest.raises(DecodeError, match=f"{LEDGER}/0@{len(BODIES) - 1}"):
            await ledger_bodies(tmp_path)


async def test_any_changed_or_missing_byte_of_a_log_chunk_is_named(tmp_path: Path) -> None:
    """Whatever byte of the last chunk of the log is another, or from where on it is cut off: the reader says which."""
    with opened(tmp_path) as world:
        await fill(*world)
    with closing(sqlite3.connect(tmp_path / "log.db")) as database:
        number, body = database.execute("SELECT id, body FROM chunk ORDER BY id DESC LIMIT 1").fetchone()
    damaged = [body[:at] + bytes([body[at] ^ 0x10]) + body[at + 1 :] for at in range(len(body))]
    damaged += [body[:at] for at in range(len(body))]
    for other in damaged:
        with closing(sqlite3.connect(tmp_path / "log.db")) as database, database:
            database.execute("UPDATE chunk SET body = ? WHERE id = ?", (other, number))
        with pytest.raises(DataCorrupted, match=r"log\.db is damaged: .*\b4\b"):
            await log_records(tmp_path)


@pytest.mark.parametrize("name", ["log.db", "ledger.db"])
async def test_a_write_ahead_log_that_ends_anywhere_is_recovered(tmp_path: Path, name: str) -> None:
    """Wherever the last write to a file was torn, what was written before it is there, whole and in order."""
    with opened(tmp_path / "whole") as world:
        await fill(*world)
        shutil.copytree(tmp_path / "whole", tmp_path / "torn")  # as a process that dies now leaves it
    wal = tmp_path / "torn" / f"{name}-wal"
    written = wal.read_bytes()
    for cut in [*range(len(written) - FRAME_BYTES, len(written), 97), len(written) - 1]:
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path / "torn", copy)
        (copy / f"{name}-shm").unlink(missing_ok=True)
        (copy / f"{name}-wal").write_bytes(written[:cut])
        with trio.fail_after(5):
            if name == "log.db":
                values = [record.value for record in await log_records(copy)]
                assert values == [message.value for message in RECORDS[:-1]]
            else:
                assert await ledger_bodies(copy) == BODIES[:-1]
        shutil.rmtree(copy)


async def test_a_node_on_a_damaged_ledger_ends_and_says_where(tmp_path: Path) -> None:
    """The real process does not go on over a ledger record it cannot read: it ends, and names the record."""

    class Impatient(Killing):
        def settings(self) -> dict[str, str]:
            return {**super().settings(), "supervision.restarts_max": "0"}

        async def die_young(self) -> None:
            """Live until the ledger has its first record."""
            node = await self.start(f"{Failpoint.FENCE_APPENDED}:{PARTITIONS}")
            await node.wait()

    with Impatient(tmp_path) as killing:
        await killing.die_young()
        with closing(sqlite3.connect(killing.data / "ledger.db")) as database, database:
            database.execute("UPDATE entry SET body = substr(body, 1, 30) WHERE partition = 0 AND position = 0")
        node = await killing.start(CALM)
        with trio.fail_after(30):
            assert await node.wait() > 0
        assert b"spanloom-ledger/0@0" in killing.log.read_bytes()
