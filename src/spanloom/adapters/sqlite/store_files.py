"""The store's day files: which there are, connections to the few in use, documents to rows and back. Blocking."""

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from spanloom.adapters.sqlite.files import insert_rows, transaction
from spanloom.model import AttributeValue, Document

SUFFIX = ".db"
_SIGNED_MAX = (1 << 63) - 1


class _Row(NamedTuple):
    """A document as its table holds it, in the order of _COLUMNS."""

    id: str
    trace_id: str
    root_service: str
    root_operation: str
    services: str
    operations: str
    start_unix_ns: int | bytes
    duration_ns: int | bytes
    root_duration_ns: int | bytes
    span_count: int
    error_count: int
    attributes: str
    verdict: str
    spans: bytes


_COLUMNS = ", ".join(_Row._fields)
_OF = ", ".join(f"document.{column}" for column in _Row._fields)

OF_TRACE = f"SELECT {_OF} FROM document WHERE trace_id = ? ORDER BY id"  # noqa: S608 - names of ours
NEWEST = f"SELECT {_OF} FROM document ORDER BY start_unix_ns DESC, id DESC LIMIT ?"  # noqa: S608
_SERVICE_ROWS = (  # CROSS JOIN: SQLite keeps the order of the tables, so the index gives the order of the rows
    "fragment_of CROSS JOIN document ON document.id = fragment_of.id WHERE fragment_of.service = ?"
    " ORDER BY fragment_of.start_unix_ns DESC, fragment_of.id DESC"
)
NEWEST_OF_SERVICE = f"SELECT {_OF} FROM {_SERVICE_ROWS} LIMIT ?"  # noqa: S608
SERVICES = "SELECT name FROM service"
_KNOWN = "SELECT id FROM document WHERE id IN (SELECT value FROM json_each(?))"

_texts = msgspec.json.Decoder(tuple[str, ...])
_attributes = msgspec.json.Decoder(dict[str, str])
_verdict: msgspec.json.Decoder[dict[str, AttributeValue]] = msgspec.json.Decoder(dict)


class DayFiles:
    """Open connections to day files, the least recently used closed first. One call at a time."""

    def __init__(
        self,
        folder: Path,
        open_day: Callable[[str], sqlite3.Connection],
        close: Callable[[sqlite3.Connection], None],
        open_max: int,
    ) -> None:
        self._folder = folder
        self._open_day = open_day
        self._close = close
        self._open_max = open_max
        self._open: OrderedDict[str, sqlite3.Connection] = OrderedDict()

    def days(self) -> list[str]:
        """Every day there is a file of, oldest first."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}"))

    def path(self, day: str) -> Path:
        """Where the day's file lies."""
        return self._folder / f"{day}{SUFFIX}"

    def connection(self, day: str) -> sqlite3.Connection:
        """The day's connection, opened if it is not. Raises sqlite3.Error, ConfigError."""
        connection = self._open.pop(day, None)
        if connection is None:
            while len(self._open) >= self._open_max:
                self.close(next(iter(self._open)))
            connection = self._open_day(day)
        self._open[day] = connection
        return connection

    def close(self, day: str) -> None:
        """Close the day's connection if it is open."""
        connection = self._open.pop(day, None)
        if connection is not None:
            self._close(connection)

    def remove(self, day: str) -> None:
        """Delete the day's file; nobody may have it open."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self.path(day)}{suffix}").unlink(missing_ok=True)


def write_documents(connection: sqlite3.Connection, documents: Sequence[Document]) -> None:
    """Insert those whose id is new, in one transaction. Raises sqlite3.Error."""
    with transaction(connection):
        known = connection.execute(_KNOWN, (_json(tuple(document.id for document in documents)),)).fetchall()
        new = {document.id: document for document in reversed(documents)}  # the first of an id stays
        for (identity,) in known:
            del new[identity]
        fragments = [
            (service, _unsigned_out(document.start_unix_ns), document.id)
            for document in new.values()
            for service in set(document.services)
        ]
        services = [(service,) for service in {service for service, _, _ in fragments}]
        insert_rows(connection, f"INSERT INTO document ({_COLUMNS})", map(_row, new.values()))
        insert_rows(connection, "INSERT INTO fragment_of (service, start_unix_ns, id)", fragments)
        insert_rows(connection, "INSERT INTO service (name)", services, then="ON CONFLICT DO NOTHING")


def read_documents(
    connection: sqlite3.Connection, day: str, query: str, parameters: Sequence[object]
) -> list[Document]:
    """The documents of the day that OF_TRACE or NEWEST* selects. Raises sqlite3.Error, ValueError: damaged."""
    return [_document(_Row(*row), day) for row in connection.execute(query, parameters).fetchall()]


def _row(document: Document) -> _Row:
    return _Row(
        document.id,
        document.trace_id,
        document.root_service,
        document.root_operation,
        _json(document.services),
        _json(document.operations),
        _unsigned_out(document.start_unix_ns),
        _unsigned_out(document.duration_ns),
        _unsigned_out(document.root_duration_ns),
        document.span_count,
        document.error_count,
        _json(document.attributes),
        _json(document.verdict),
        document.spans,
    )


def _document(row: _Row, day: str) -> Document:
    if not isinstance(row.spans, bytes):
        raise TypeError(f"{row.id}: expected a blob of spans, found {type(row.spans).__name__}")
    return Document(
        id=row.id,
        trace_id=row.trace_id,
        day=day,
        root_service=row.root_service,
        root_operation=row.root_operation,
        services=_texts.decode(row.services),
        operations=_texts.decode(row.operations),
        start_unix_ns=_unsigned_in(row.start_unix_ns),
        duration_ns=_unsigned_in(row.duration_ns),
        root_duration_ns=_unsigned_in(row.root_duration_ns),
        span_count=row.span_count,
        error_count=row.error_count,
        attributes=_attributes.decode(row.attributes),
        verdict=_verdict.decode(row.verdict),
        spans=row.spans,
    )


def _json(value: AttributeValue | tuple[str, ...] | dict[str, str]) -> str:
    return msgspec.json.encode(value).decode()


def _unsigned_out(value: int) -> int | bytes:
    return value if value <= _SIGNED_MAX else value.to_bytes(8, "big")


def _unsigned_in(value: int | bytes) -> int:
    return value if isinstance(value, int) else int.from_bytes(value, "big")
