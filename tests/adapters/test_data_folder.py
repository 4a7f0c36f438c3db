"""One data folder: who holds it, what it is, and what is refused."""

import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spanloom.adapters.sqlite import DataFolder, Durability, SqliteLedger, SqliteLog, SqliteOutlet, SqliteStore
from spanloom.errors import ConfigError, DataCorrupted
from spanloom.model import Message
from tests.conformance.test_store import document

NOBODY = 65534  # Debian's user without rights


def open_folder(path: Path, *, partition_count: int = 4, durability: Durability = Durability.PROCESS) -> DataFolder:
    """Open with the arguments most tests do not care about."""
    return DataFolder.open(path, partition_count=partition_count, durability=durability)


async def fill(path: Path) -> None:
    """A folder with something in each of its files."""
    folder = open_folder(path)
    log = SqliteLog(folder, SqliteLedger(folder))
    await log.append([(0, Message(None, b"record"))])
    await SqliteLedger(folder).append(0, [b"entry"])
    await SqliteOutlet(folder).publish("traces-complete", [Message(None, b"trace")])
    await SqliteStore(folder).write([document()])
    folder.close()


def test_a_second_start_is_refused_and_names_the_holder(tmp_path: Path) -> None:
    """While a process has the folder, another start names the folder and that process."""
    folder = open_folder(tmp_path / "data")

    with pytest.raises(ConfigError, match=f"{tmp_path}/data: in use by the process with pid {os.getpid()}"):
        open_folder(tmp_path / "data")

    folder.close()
    open_folder(tmp_path / "data").close()


def test_a_dead_process_holds_no_folder(tmp_path: Path) -> None:
    """A folder whose holder was killed opens at once."""
    program = (
        "import os, pathlib, signal, sys\n"
        "from spanloom.adapters.sqlite import DataFolder\n"
        "DataFolder.open(pathlib.Path(sys.argv[1]), partition_count=4)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    source = Path(__file__).parents[2] / "src"
    killed = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(source)}, timeout=60
    )
    assert killed.returncode == -9

    open_folder(tmp_path).close()


def test_closing_twice_is_allowed(tmp_path: Path) -> None:
    """A closed folder stays closed."""
    folder = open_folder(tmp_path)

    folder.close()
    folder.close()


def test_each_folder_has_its_own_incarnation_for_ever(tmp_path: Path) -> None:
    """Two folders differ; one opened again does not."""
    incarnations = []
    for name in ("a", "b", "a"):
        folder = open_folder(tmp_path / name)
        incarnations.append(folder.incarnation)
        folder.close()

    assert incarnations[0] == incarnations[2] != incarnations[1]


def test_another_partition_count_is_refused(tmp_path: Path) -> None:
    """The count of the first start stands; the message names both."""
    open_folder(tmp_path, partition_count=4).close()

    with pytest.raises(ConfigError, match=r"expected partition count 4, .* found 8"):
        open_folder(tmp_path, partition_count=8)

    open_folder(tmp_path, partition_count=4).close()


@pytest.mark.parametrize("place", ["file/data", "/proc/spanloom"], ids=["below a file", "read-only"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path, place: str) -> None:
    """The operator is told which folder and why."""
    (tmp_path / "file").touch()
    path = tmp_path / place  # an absolute place stands alone

    with pytest.raises(ConfigError) as refused:
        open_folder(path)

    assert str(refused.value).startswith(f"{path}: it cannot be written: ")
    assert "\n" not in str(refused.value)


@pytest.fixture
def plain_folder() -> Iterator[Path]:
    """A folder of somebody who is not root, who would write anywhere."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, NOBODY, NOBODY)
        os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["", "log.db", "ledger.db"])
def test_read_only_files_are_refused(plain_folder: Path, name: str) -> None:
    """A folder or file without write permission is named."""
    open_folder(plain_folder).close()
    (plain_folder / name).chmod(0o500)

    with pytest.raises(ConfigError, match=str(plain_folder)):
        open_folder(plain_folder)


@pytest.mark.parametrize("name", ["log.db", "ledger.db", "outlet.db", "store/2026.01.02.db"])
async def test_a_file_of_another_format_version_is_refused(tmp_path: Path, name: str) -> None:
    """A file from a later spanloom is left alone; the message names it, the version expected and the one found."""
    await fill(tmp_path)
    with sqlite3.connect(tmp_path / name) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()

    with pytest.raises(ConfigError, match=f"{name}: expected format version 1, found 7"):
        await use_everything(tmp_path)


async def use_everything(path: Path) -> None:
    """Open the folder and touch each of its files."""
    folder = open_folder(path)
    try:
        SqliteLog(folder, SqliteLedger(folder))
        SqliteOutlet(folder)
        await SqliteStore(folder).read(document().trace_id)
    finally:
        folder.close()


@pytest.mark.parametrize("name", ["log.db", "ledger.db", "outlet.db", "store/2026.01.02.db"])
async def test_a_foreign_database_is_refused(tmp_path: Path, name: str) -> None:
    """Somebody else's SQLite file is neither used nor changed."""
    await fill(tmp_path)
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"{name}{suffix}").unlink(missing_ok=True)
    with sqlite3.connect(tmp_path / name) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()

    with pytest.raises(ConfigError, match=f"{name}: expected a spanloom"):
        await use_everything(tmp_path)


@pytest.mark.parametrize("name", ["log.db", "ledger.db"])
@pytest.mark.parametrize("content", [None, b""], ids=["missing", "empty"])
async def test_a_log_and_a_ledger_that_were_parted_are_refused(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    """A log without its ledger would decide again, a ledger without its log would give offsets away twice."""
    await fill(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(DataCorrupted, match=name):
        open_folder(tmp_path)


async def test_a_ledger_of_another_log_is_refused(tmp_path: Path) -> None:
    """Files of two folders do not mix."""
    await fill(tmp_path / "a")
    await fill(tmp_path / "b")
    (tmp_path / "b" / "ledger.db").replace(tmp_path / "a" / "ledger.db")

    with pytest.raises(DataCorrupted, match=r"ledger\.db is damaged: expected the ledger of log"):
        open_folder(tmp_path / "a")


@pytest.mark.parametrize("stage", ["lock", "half a log", "log"])
def test_a_first_start_that_was_cut_short_is_finished_by_the_next(tmp_path: Path, stage: str) -> None:
    """Whatever a killed first start left behind, the next one makes a folder of it."""
    (tmp_path / "spanloom.lock").touch()
    if stage == "half a log":
        (tmp_path / "log.db.new").write_bytes(b"half")
        (tmp_path / "log.db.new-journal").write_bytes(b"half")
    if stage == "log":
        open_folder(tmp_path).close()
        (tmp_path / "ledger.db").unlink()

    folder = open_folder(tmp_path)

    assert folder.incarnation
    folder.close()


@pytest.mark.parametrize(("durability", "level"), [(Durability.PROCESS, 1), (Durability.POWER, 2)])
async def test_durability_sets_how_every_file_is_synced(tmp_path: Path, durability: Durability, level: int) -> None:
    """`power` syncs each commit (synchronous = FULL), `process` does not (NORMAL); both use a write-ahead log."""
    folder = open_folder(tmp_path, durability=durability)
    ledger = SqliteLedger(folder)
    log, outlet, store = SqliteLog(folder, ledger), SqliteOutlet(folder), SqliteStore(folder)
    await store.write([document()])

    writers = [
        log._file._connection,
        ledger._file._connection,
        outlet._connection,
        store._written.connection("2026.01.02"),
    ]
    for connection in writers:
        assert connection.execute("PRAGMA synchronous").fetchone() == (level,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    folder.close()


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_the_store_keeps_few_files_open(tmp_path: Path) -> None:
    """However many days there are, open files stay bounded, and every day is still found."""
    folder = open_folder(tmp_path)
    store = SqliteStore(folder)
    before = open_files()

    for number in range(1, 29):
        await store.write([document(f"{number:02}", day=f"2026.01.{number:02}")])
    for _ in range(3):
        assert len(await store.read(document().trace_id)) == 28

    assert open_files() - before <= 4 * 12  # SQLite keeps a spare of a file that is open twice
    folder.close()
