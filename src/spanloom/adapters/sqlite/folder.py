"""One data folder: the only process in it, its files, what it is for ever (incarnation, partition count).

What an acknowledged write survives:
- durability `process` (WAL, synchronous=NORMAL): the death of any process at any instant, `kill -9` included. A power
  cut or a kernel crash may take the last writes of each file back, of each file by itself: the log may then end below
  an offset that is committed or decided, so `SqliteLog.reserve` keeps those offsets from being handed out again.
- durability `power` (WAL, synchronous=FULL): a power cut too, as far as the disk keeps what it says it has synced. Each
  write is synced before it is acknowledged, so the order on disk is the order of effects: log, ledger, store, commit.
"""

import fcntl
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from spanloom.adapters.sqlite.faults import at_start
from spanloom.adapters.sqlite.files import Durability, make_file, open_file, open_reader, transaction
from spanloom.adapters.sqlite.formats import LEDGER, LOG, FileFormat
from spanloom.errors import ConfigError, DataCorrupted

LOG_FILE = "log.db"
LEDGER_FILE = "ledger.db"
OUTLET_FILE = "outlet.db"
STORE_FOLDER = "store"
LOCK_FILE = "spanloom.lock"


class DataFolder:
    """An open data folder; made by `open`. Owns every connection to its files and closes them all."""

    def __init__(self, path: Path, durability: Durability) -> None:
        self.path = path
        self.durability = durability
        self.incarnation = ""
        self.partition_count = 0
        self._connections: set[sqlite3.Connection] = set()
        self._held = ExitStack()  # the lock

    @classmethod
    def open(cls, path: Path, *, partition_count: int, durability: Durability = Durability.PROCESS) -> "DataFolder":
        """Open the folder for this process alone, making it if there is none. Blocks: call it at start.

        Raises ConfigError: it cannot be written, another process holds it, or it is of another format or partition
        count; DataCorrupted.
        """
        folder = cls(path, durability)
        with ExitStack() as unless_opened:
            unless_opened.callback(folder.close)
            with at_start(path):
                (path / STORE_FOLDER).mkdir(parents=True, exist_ok=True)
                folder._held.enter_context(_locked(path))
                folder._identify(partition_count)
            unless_opened.pop_all()
        return folder

    def close(self) -> None:
        """Release everything. May be called again; no adapter of the folder may be in use."""
        while self._connections:
            self._connections.pop().close()
        self._held.close()

    def open_writer(self, name: str, form: FileFormat) -> sqlite3.Connection:
        """A connection for writing to the file *name*, made if it is not there.

        Raises as `files.make_file` and `files.open_file` do.
        """
        return self._keep(self._open_or_make(name, form))

    def open_reader(self, name: str, form: FileFormat) -> sqlite3.Connection:
        """A connection for reading the file *name*, which is there."""
        return self._keep(open_reader(self.path / name, form))

    def release(self, connection: sqlite3.Connection) -> None:
        """Close one connection early."""
        self._connections.discard(connection)
        connection.close()

    def _keep(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._connections.add(connection)
        return connection

    def _identify(self, partition_count: int) -> None:
        """Read who this folder is, or settle it on its first start."""
        decided_on = self._ledger_incarnation()
        log_path = self.path / LOG_FILE
        with at_start(log_path), closing(self._open_or_make(LOG_FILE, LOG)) as log:
            named = _meta(log, "incarnation")
            if named is None and decided_on is None:
                named = secrets.token_hex(8)
                _found(log, named, partition_count)
            if named is None:
                raise DataCorrupted(
                    str(log_path), f"expected the log {decided_on}, which {LEDGER_FILE} is of, found none"
                )
            held = _meta(log, "partition_count")
            (holds_records,) = log.execute("SELECT EXISTS (SELECT 1 FROM chunk)").fetchone()
        if decided_on != named and (decided_on or holds_records):
            found = decided_on or "none"
            raise DataCorrupted(str(self.path / LEDGER_FILE), f"expected the ledger of log {named}, found {found}")
        if held != str(partition_count):
            raise ConfigError(
                f"data folder {self.path}: expected partition count {held}, settled at its first start,"
                f" found {partition_count} in the configuration"
            )
        self.incarnation, self.partition_count = named, partition_count
        if decided_on is None:  # last: the log's own name is on disk by now
            with at_start(self.path / LEDGER_FILE), closing(self._open_or_make(LEDGER_FILE, LEDGER)) as ledger:
                ledger.execute("INSERT INTO meta VALUES ('incarnation', ?)", (named,))

    def _ledger_incarnation(self) -> str | None:
        with at_start(self.path / LEDGER_FILE):
            if not (self.path / LEDGER_FILE).exists():
                return None
            with closing(self._open_or_make(LEDGER_FILE, LEDGER)) as ledger:
                return _meta(ledger, "incarnation")

    def _open_or_make(self, name: str, form: FileFormat) -> sqlite3.Connection:
        path = self.path / name
        if not path.exists():
            make_file(path, form)
        return open_file(path, form, self.durability)


def _meta(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row[0])


def _found(log: sqlite3.Connection, incarnation: str, partition_count: int) -> None:
    with transaction(log):
        log.execute("INSERT INTO meta VALUES ('incarnation', ?)", (incarnation,))
        log.execute("INSERT INTO meta VALUES ('partition_count', ?)", (str(partition_count),))
        log.executemany("INSERT INTO head VALUES (?, 0, 0)", [(partition,) for partition in range(partition_count)])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder; the kernel lets go of it when the process dies, however it dies."""
    descriptor = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip() or "unknown"
            raise ConfigError(f"data folder {path}: in use by the process with pid {holder}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
