"""Damaged files: a clear error that names the file, never wrong data, never a crash of another kind."""

import random
import sqlite3
from pathlib import Path

import pytest

from spanloom.adapters.sqlite import DataFolder, SqliteLedger, SqliteLog, SqliteOutlet, SqliteStore
from spanloom.errors import ConfigError, DataCorrupted
from spanloom.model import Message, Record
from tests.adapters.test_data_folder import fill, open_folder, use_everything
from tests.conformance.test_store import document


def update(path: Path, statement: str, *parameters: object) -> None:
    """Change the file behind spanloom's back."""
    connection = sqlite3.connect(path)
    with connection:
        assert connection.execute(statement, parameters).rowcount > 0
    connection.close()


async def three_chunks(path: Path) -> None:
    """A log of three chunks of two records."""
    folder = open_folder(path)
    log = SqliteLog(folder, SqliteLedger(folder))
    for number in range(3):
        await log.append([(0, Message(b"key", b"%d" % number)), (0, Message(None, bytes(100)))])
    folder.close()


async def read_log(path: Path, *, count: int) -> list[Record]:
    """Read *count* records of partition 0."""
    folder = open_folder(path)
    try:
        reader = await SqliteLog(folder, SqliteLedger(folder)).read(0, 0)
        records: list[Record] = []
        while len(records) < count:
            records += await reader.receive()
        return records
    finally:
        folder.close()


@pytest.mark.parametrize("place", range(0, 60, 7))
async def test_a_flipped_byte_in_a_chunk_is_found(tmp_path: Path, place: int) -> None:
    """Whole chunks before the damaged one are given; then the error names file, partition and offset."""
    await three_chunks(tmp_path)
    connection = sqlite3.connect(tmp_path / "log.db")
    body = bytearray(connection.execute("SELECT body FROM chunk WHERE base = 2").fetchone()[0])
    connection.close()
    body[place] ^= 0x10
    update(tmp_path / "log.db", "UPDATE chunk SET body = ? WHERE base = 2", bytes(body))

    assert [record.offset for record in await read_log(tmp_path, count=2)] == [0, 1]
    with pytest.raises(DataCorrupted, match=r"log\.db is damaged: chunk of partition 0 at offset 2: expected crc"):
        await read_log(tmp_path, count=3)


@pytest.mark.parametrize(
    "change", ["body = 'text'", "body = 7", "count = 3", "count = 1", "timestamp_ms = 'noon'", "body = x'', crc = 0"]
)
async def test_a_chunk_that_makes_no_sense_is_found(tmp_path: Path, change: str) -> None:
    """Values of other types and counts that do not fit are damage, not a crash."""
    await three_chunks(tmp_path)
    update(tmp_path / "log.db", f"UPDATE chunk SET {change} WHERE base = 4")

    with pytest.raises(DataCorrupted, match=r"log\.db is damaged: chunk of partition 0 at offset 4"):
        await read_log(tmp_path, count=6)


async def test_a_document_that_does_not_decode_is_found(tmp_path: Path) -> None:
    """The error names the day's file."""
    await fill(tmp_path)
    update(tmp_path / "store" / "2026.01.02.db", "UPDATE document SET verdict = '{'")
    folder = open_folder(tmp_path)

    with pytest.raises(DataCorrupted, match=r"2026\.01\.02\.db is damaged: a document"):
        await SqliteStore(folder).read(document().trace_id)

    folder.close()


async def test_text_that_is_not_utf8_is_found(tmp_path: Path) -> None:
    """Bytes that are no text come as damage, not as a decoding error of Python's."""
    await fill(tmp_path)
    update(tmp_path / "store" / "2026.01.02.db", "UPDATE document SET root_service = CAST(x'ff' AS TEXT)")
    folder = open_folder(tmp_path)

    with pytest.raises(DataCorrupted, match=r"2026\.01\.02\.db"):
        await SqliteStore(folder).read(document().trace_id)

    folder.close()


FILES = ["log.db", "ledger.db", "outlet.db", "store/2026.01.02.db"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("size", [1, 99, 1000, 4096, 5000])
async def test_a_truncated_file_is_found(tmp_path: Path, name: str, size: int) -> None:
    """A file cut short anywhere is refused by name when it is opened or read."""
    await fill(tmp_path)
    with (tmp_path / name).open("r+b") as file:
        file.truncate(size)

    with pytest.raises(DataCorrupted, match=name):
        await use_everything(tmp_path)


@pytest.mark.parametrize("name", FILES)
async def test_a_file_of_noise_is_found(tmp_path: Path, name: str) -> None:
    """Something that is no database at all is refused by name."""
    await fill(tmp_path)
    (tmp_path / name).write_bytes(bytes(range(256)) * 64)

    with pytest.raises(DataCorrupted, match=name):
        await use_everything(tmp_path)


@pytest.mark.parametrize("seed", range(60))
async def test_noise_anywhere_in_the_log_is_an_error_of_ours_or_harmless(tmp_path: Path, seed: int) -> None:
    """Whatever page is overwritten, reading gives the true records or a clear error."""
    await three_chunks(tmp_path)
    path = tmp_path / "log.db"
    chance = random.Random(seed)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(chance.randrange(100, size))
        file.write(chance.randbytes(chance.choice([1, 2, 16])))

    complaint = ""
    records: list[Record] = []
    try:
        records = await read_log(tmp_path, count=6)
    except (DataCorrupted, ConfigError) as error:
        complaint = str(error)

    assert str(tmp_path) in complaint or [record.value for record in records[::2]] == [b"0", b"1", b"2"]


async def test_a_missing_table_is_no_data(tmp_path: Path) -> None:
    """A folder whose outlet lost a topic table behind our back treats the topic as new."""
    await fill(tmp_path)
    connection = sqlite3.connect(tmp_path / "outlet.db")
    connection.execute('DROP TABLE "traces-complete"')
    connection.close()
    folder = DataFolder.open(tmp_path, partition_count=4)
    outlet = SqliteOutlet(folder)

    assert list(await outlet.read("traces-complete", 0, 10)) == []

    folder.close()
