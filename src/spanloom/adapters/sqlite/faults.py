"""What an error of SQLite means to spanloom: the one mapping of this adapter.

Disk full, locked, I/O errors: the role's Unavailable (wait, retry). A damaged file: DataCorrupted. Anything else (wrong
SQL, a misused connection) is a bug and passes through.
"""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spanloom.errors import ConfigError, DataCorrupted, SpanloomError, Unavailable

_AWAY = {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
}
_DAMAGED = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_CONSTRAINT,  # only if rows and heads disagree: every expected conflict is resolved in the SQL
}


@contextmanager
def translated(file: Path, role: type[Unavailable]) -> Iterator[None]:
    """Raise what *role* promises in place of SQLite's errors."""
    try:
        yield
    except sqlite3.Error as error:
        meaning = meaning_of(error, file, role)
        if meaning is None:
            raise
        raise meaning from error


def meaning_of(error: sqlite3.Error, file: Path, role: type[Unavailable]) -> SpanloomError | None:
    """The error to raise in place of *error*; None where it is a bug of ours."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised by Python's module itself; of these only text that is not UTF-8 comes from the file
        return DataCorrupted(str(file), str(error)) if isinstance(error, sqlite3.OperationalError) else None
    primary = code & 0xFF  # extended codes keep the primary one in their low byte
    if primary in _DAMAGED:
        return DataCorrupted(str(file), str(error))
    if primary in _AWAY:
        return role(f"{file}: {error} ({error.sqlite_errorname})")
    return None


@contextmanager
def at_start(path: Path) -> Iterator[None]:
    """While a folder is opened nobody waits for a full or read-only disk: the operator is told."""
    try:
        yield
    except OSError as error:
        cause = "the disk is full" if error.errno == errno.ENOSPC else f"it cannot be written: {error.strerror}"
        raise ConfigError(f"{path}: {cause}") from error
    except Unavailable as error:
        raise ConfigError(str(error)) from error
    except sqlite3.Error as error:
        meaning = meaning_of(error, path, Unavailable)
        if meaning is None:
            raise
        if isinstance(meaning, Unavailable):
            raise ConfigError(f"{path}: it cannot be opened: {error}") from error
        raise meaning from error
