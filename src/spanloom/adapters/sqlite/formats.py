"""The layout of every SQLite file of a data folder, in one place: another program may read them from this page alone.

Every file says what it is by `PRAGMA application_id` and `PRAGMA user_version`; any other is refused. A change of any
line below needs a higher version.

log.db, `spans`: records packed into chunks, one row each.
    chunk      base .. base + count - 1 are the offsets of its records, `timestamp_ms` the wall clock at the append,
               crc = zlib.crc32(body), body as drawn in chunks.py
    head       floors that outlive what retention deletes: the next offset is max(next, end of the last chunk), and
               offsets below `earliest` were deleted (a gap above it is one, too, but nothing ever lay there)
    meta       `incarnation` (hex) and `partition_count`
ledger.db, `spanloom-ledger` and the commits: bodies as core/ledger.py draws them.
    entry      one ledger record; positions count from 0 in each partition
    committed  one row a partition: where it goes on after a restart
    head       as above, for positions
    meta       `incarnation` of the log this ledger decides on
outlet.db: one table a topic (made when first published to): position, timestamp_ms, key, headers, value.
store/YYYY.MM.DD.db, the documents of one day (UTC).
    document   times and durations are unsigned 64 bit: an integer up to 2^63 - 1, above it 8 bytes big-endian (SQLite
               orders blobs after integers, so comparing columns still compares numbers); lists and maps are JSON
    fragment_of  service -> its documents in order of start
    service    every service of the day
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What a file says of itself and what it is made with."""

    role: str
    application_id: int
    version: int
    page_size: int
    schema: str  # statements, each ended by a semicolon


_APPLICATION_ID = 0x53504C00  # "SPL", then one byte a role

LOG = FileFormat(
    role="log",
    application_id=_APPLICATION_ID | 1,
    version=1,
    page_size=16384,  # chunks are large: fewer overflow pages to chain, checksum and free than with 4096
    schema="""
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        CREATE TABLE chunk (
            id INTEGER PRIMARY KEY,
            partition INTEGER NOT NULL,
            base INTEGER NOT NULL,
            count INTEGER NOT NULL,
            timestamp_ms INTEGER NOT NULL,
            crc INTEGER NOT NULL,
            body BLOB NOT NULL
        );
        CREATE UNIQUE INDEX chunk_place ON chunk (partition, base);
        CREATE TABLE head (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL, earliest INTEGER NOT NULL);
    """,
)

LEDGER = FileFormat(
    role="ledger",
    application_id=_APPLICATION_ID | 2,
    version=1,
    page_size=4096,
    schema="""
        CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
        CREATE TABLE entry (
            partition INTEGER NOT NULL,
            position INTEGER NOT NULL,
            body BLOB NOT NULL,
            PRIMARY KEY (partition, position)
        );
        CREATE TABLE committed (partition INTEGER PRIMARY KEY, "offset" INTEGER NOT NULL, metadata BLOB NOT NULL);
        CREATE TABLE head (partition INTEGER PRIMARY KEY, next INTEGER NOT NULL);
    """,
)

OUTLET = FileFormat(role="outlet", application_id=_APPLICATION_ID | 3, version=1, page_size=4096, schema="")

STORE_DAY = FileFormat(
    role="store day",
    application_id=_APPLICATION_ID | 4,
    version=1,
    page_size=4096,
    schema="""
        CREATE TABLE document (
            id TEXT NOT NULL UNIQUE,
            trace_id TEXT NOT NULL,
            root_service TEXT NOT NULL,
            root_operation TEXT NOT NULL,
            services TEXT NOT NULL,
            operations TEXT NOT NULL,
            start_unix_ns NOT NULL,
            duration_ns NOT NULL,
            root_duration_ns NOT NULL,
            span_count INTEGER NOT NULL,
            error_count INTEGER NOT NULL,
            attributes TEXT NOT NULL,
            verdict TEXT NOT NULL,
            spans BLOB NOT NULL
        );
        CREATE INDEX document_trace ON document (trace_id);
        CREATE INDEX document_start ON document (start_unix_ns, id);
        CREATE TABLE fragment_of (
            service TEXT NOT NULL,
            start_unix_ns NOT NULL,
            id TEXT NOT NULL,
            PRIMARY KEY (service, start_unix_ns, id)
        ) WITHOUT ROWID;
        CREATE TABLE service (name TEXT PRIMARY KEY) WITHOUT ROWID;
    """,
)
