"""The write-ahead log stays small: whatever readers meet, they leave nothing open that keeps it from being reset."""

from pathlib import Path

from spanloom.adapters.sqlite import SqliteLedger, SqliteLog
from spanloom.errors import DataCorrupted, RecordsDeleted
from spanloom.interfaces import LedgerReader, PartitionReader
from spanloom.model import Message
from tests.adapters.test_data_folder import open_folder
from tests.conformance.rigs import Clock

MEGABYTE = Message(None, bytes(1 << 20))


async def receive(reader: PartitionReader | LedgerReader) -> Exception | None:
    """Receive once; the error, if that is what comes, kept alive with all its frames."""
    try:
        await reader.receive()
    except (RecordsDeleted, DataCorrupted) as error:
        return error
    return None


async def test_readers_leave_no_snapshot_behind(tmp_path: Path) -> None:
    """After cut batches, deleted records and damage the write-ahead logs can be reset at once."""
    folder = open_folder(tmp_path)
    ledger, clock = SqliteLedger(folder, batch_bytes=1), Clock()
    log = SqliteLog(folder, ledger, batch_bytes=1, wall_ms=clock)
    for _ in range(2):
        await log.append([(0, Message(None, b"x")), (0, Message(None, b"y"))])
        clock.now_ms += 1000
    await ledger.append(0, [b"a", b"b", b"c"])

    kept = [await receive(await log.read(0, 0)), await receive(await ledger.read(0, 0))]
    await log.trim(older_than_ms=clock.now_ms - 1000, below={})
    kept.append(await receive(await log.read(0, 0)))
    log._file._connection.execute("UPDATE chunk SET crc = 0")
    kept.append(await receive(await log.read(0, 2)))

    assert [type(error) for error in kept] == [type(None), type(None), RecordsDeleted, DataCorrupted]
    for connection in (log._file._connection, ledger._file._connection):
        connection.execute("PRAGMA busy_timeout = 0")
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
    folder.close()


def file_bytes(path: Path) -> int:
    """What the file takes."""
    return path.stat().st_size


async def test_a_log_at_its_cap_does_not_grow_on_disk(tmp_path: Path) -> None:
    """Under a steady load with commits, log.db stays about its cap and its write-ahead log near its limit."""
    cap_bytes = 8 << 20
    folder = open_folder(tmp_path)
    log = SqliteLog(folder, SqliteLedger(folder), log_bytes_max=cap_bytes)
    reader = await log.read(0, 0)

    for _ in range(60):
        await log.append([(0, MEGABYTE)])
        last = (await reader.receive())[-1].offset
        await log.commit(0, (await log.committed(0))._replace(offset=last + 1))

    assert file_bytes(tmp_path / "log.db") < cap_bytes * 1.2
    assert file_bytes(tmp_path / "log.db-wal") < 40 << 20
    folder.close()
