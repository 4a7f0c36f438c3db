"""Making SQLite files of our formats; opening them checked against their format, set to the durability asked for."""

import errno
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from enum import StrEnum
from pathlib import Path

from spanloom.adapters.sqlite.formats import FileFormat
from spanloom.errors import ConfigError, DataCorrupted

BUSY_TIMEOUT_S = 5.0  # only a foreign reader (sqlite3's shell, say) can hold a lock, and never for long
WAL_BYTES_MAX = 64 << 20  # a write-ahead log that grew beyond this is cut back after its checkpoint
STATEMENT_ROWS_MAX = 128  # keeps a statement's parameters below SQLite's 32,766
STATEMENT_BYTES_MAX = 8 << 20  # SQLite copies what is bound: bounds that second copy


class Durability(StrEnum):
    """What an acknowledged write survives: the death of any process, or a power cut too."""

    PROCESS = "process"
    POWER = "power"


_SYNCHRONOUS = {Durability.PROCESS: "NORMAL", Durability.POWER: "FULL"}


def make_file(path: Path, form: FileFormat) -> None:
    """Make an empty file of the format. Whole, synced and under its name, or not there: whatever the durability.

    Raises sqlite3.Error, OSError.
    """
    fresh = path.with_name(f"{path.name}.new")
    for left_over in (fresh, fresh.with_name(f"{fresh.name}-journal")):  # of a start that was killed
        left_over.unlink(missing_ok=True)
    with closing(_connect(fresh, mode="rwc")) as connection:
        connection.execute(f"PRAGMA page_size = {form.page_size}")
        connection.execute("PRAGMA synchronous = FULL")
        with transaction(connection):
            for statement in form.schema.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {form.application_id}")
            connection.execute(f"PRAGMA user_version = {form.version}")
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_file(path: Path, form: FileFormat, durability: Durability) -> sqlite3.Connection:
    """Open a file that is there for writing.

    Raises ConfigError if it is of another format or version, DataCorrupted if it is empty, sqlite3.Error, OSError.
    """
    if path.exists() and not os.access(path, os.W_OK, effective_ids=True):  # SQLite would read only, silently
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    connection = _connect(path, mode="rw")
    with ExitStack() as unless_opened:
        unless_opened.callback(connection.close)
        _check(connection, path, form)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[durability]}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
        connection.execute("PRAGMA secure_delete = OFF")  # Debian's build overwrites deleted bytes: retention's cost
        unless_opened.pop_all()
    return connection


def open_reader(path: Path, form: FileFormat) -> sqlite3.Connection:
    """Open a file that is there for reading. Raises as `open_file` does."""
    connection = _connect(path, mode="rw")  # reading beside a writer needs write access to its shared memory
    with ExitStack() as unless_opened:
        unless_opened.callback(connection.close)
        _check(connection, path, form)
        connection.execute("PRAGMA query_only = ON")
        unless_opened.pop_all()
    return connection


def _connect(path: Path, *, mode: str) -> sqlite3.Connection:
    # Autocommit: transactions are ours to begin. A connection moves between worker threads, one at a time.
    name = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(name, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=True)


def _check(connection: sqlite3.Connection, path: Path, form: FileFormat) -> None:
    application_id, version = pragma(connection, "application_id"), pragma(connection, "user_version")
    if pragma(connection, "page_count") == 0:  # SQLite takes a file of 0 or 1 bytes for an empty database
        raise DataCorrupted(str(path), f"expected a spanloom {form.role} file, found an empty one")
    if application_id != form.application_id:
        raise ConfigError(
            f"{path}: expected a spanloom {form.role} file (application id {form.application_id:#x}),"
            f" found application id {application_id:#x}"
        )
    if version != form.version:
        raise ConfigError(f"{path}: expected format version {form.version}, found {version}")


def pragma(connection: sqlite3.Connection, name: str) -> int:
    """The value of a PRAGMA that is a number."""
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: committed at the end of the block, rolled back where anything raised."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            connection.execute("ROLLBACK")


Row = Sequence[object]


def insert_rows(connection: sqlite3.Connection, insert: str, rows: Iterable[Row], *, then: str = "") -> None:
    """Run `insert VALUES (...), (...), ... then` over *rows*, several in a statement.

    Every step of SQLite hands the GIL over and must win it back from a busy main thread, up to 5 ms each time; so a
    batch takes few steps.
    """
    flat: list[object] = []
    count = size = width = 0
    for row in rows:
        flat += row
        count, width = count + 1, len(row)
        size += sum(len(value) for value in row if isinstance(value, bytes))
        if count == STATEMENT_ROWS_MAX or size >= STATEMENT_BYTES_MAX:
            connection.execute(_statement(insert, width, count, then), flat)
            flat, count, size = [], 0, 0
    if count:
        connection.execute(_statement(insert, width, count, then), flat)


def _statement(insert: str, width: int, count: int, then: str) -> str:
    row = "(" + ", ".join("?" * width) + ")"
    return f"{insert} VALUES {', '.join([row] * count)} {then}"
