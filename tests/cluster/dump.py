"""Lays what a cluster holds into an embedded data folder's form, so that the one oracle judges both deployments.

Reads with a plain consumer and SQL: nothing of spanloom.
"""

import base64
import json
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, Message, TopicPartition

from tests.servers.elasticsearch import ElasticsearchServer

READ_S = 60.0  # without a record
PAGE = 500
_DOCUMENT_TABLE = (
    "CREATE TABLE IF NOT EXISTS document(id TEXT PRIMARY KEY, span_count INTEGER, error_count INTEGER,"
    " duration_ns, verdict TEXT, spans BLOB)"
)


class StoredDocument(NamedTuple):
    """A document of Elasticsearch, as far as the oracle looks."""

    day: str
    id: str
    span_count: int
    error_count: int
    duration_ns: int
    verdict: str
    spans: bytes


def dump(brokers: str, *, spans: str, ledger: str, stores: Sequence[Path], into: Path) -> Path:
    """Write log.db, ledger.db and store/ from two topics and the stores of several processes; gives *into*."""
    (into / "store").mkdir(parents=True)
    dump_topics(brokers, spans=spans, ledger=ledger, into=into)
    _unite(stores, into / "store")
    return into


def dump_topics(brokers: str, *, spans: str, ledger: str, into: Path) -> None:
    """Write log.db and ledger.db; a ledger entry's timestamp is its writer's."""
    with closing(sqlite3.connect(into / "log.db")) as database, database:
        database.execute(
            "CREATE TABLE chunk(id INTEGER PRIMARY KEY, partition INTEGER, base INTEGER, count INTEGER,"
            " timestamp_ms INTEGER, crc INTEGER, body BLOB)"
        )
        for message in everything(brokers, spans):
            body = _chunk(message)
            row = (message.partition(), message.offset(), message.timestamp()[1], zlib.crc32(body), body)
            database.execute("INSERT INTO chunk VALUES (NULL, ?, ?, 1, ?, ?, ?)", row)
        database.execute("CREATE INDEX place ON chunk(partition, base)")
    with closing(sqlite3.connect(into / "ledger.db")) as database, database:
        database.execute(
            "CREATE TABLE entry(partition INTEGER, position INTEGER, body BLOB, timestamp_ms INTEGER,"
            " PRIMARY KEY (partition, position))"
        )
        for message in everything(brokers, ledger):
            place = (message.partition(), message.offset(), message.value(), message.timestamp()[1])
            database.execute("INSERT INTO entry VALUES (?, ?, ?, ?)", place)


def dump_documents(documents: Iterable[StoredDocument], into: Path) -> None:
    """Write Elasticsearch's documents as day files."""
    (into / "store").mkdir(parents=True)
    days: dict[str, sqlite3.Connection] = {}
    with ExitStack() as closing_all:
        for document in documents:
            if document.day not in days:
                days[document.day] = closing_all.enter_context(
                    closing(sqlite3.connect(into / "store" / f"{document.day}.db"))
                )
                days[document.day].execute(_DOCUMENT_TABLE)
            days[document.day].execute("INSERT INTO document VALUES (?, ?, ?, ?, ?, ?)", document[1:])
        for database in days.values():
            database.commit()


def stored_documents(server: ElasticsearchServer, prefix: str) -> Iterator[StoredDocument]:
    """Every document of every day, in no particular order of days."""
    server.request("POST", f"/{prefix}*/_refresh")
    after: list[object] | None = None
    while True:
        query: dict[str, object] = {"size": PAGE, "sort": [{"_index": "asc"}, {"id": "asc"}]}
        if after is not None:
            query["search_after"] = after
        hits = json.loads(server.request("POST", f"/{prefix}*/_search", json.dumps(query).encode()))["hits"]["hits"]
        for hit in hits:
            source = hit["_source"]
            assert hit["_id"] == source["id"], f"{hit['_id']} says it is {source['id']}"
            yield StoredDocument(
                hit["_index"].removeprefix(prefix),
                source["id"],
                source["span_count"],
                source["error_count"],
                source["duration_ns"],
                json.dumps(source["verdict"]),
                base64.b64decode(source["spans"]),
            )
        if len(hits) < PAGE:
            return
        after = hits[-1]["sort"]


def everything(brokers: str, topic: str) -> Iterator[Message]:
    """Every record of a topic there is now, in order within each partition."""
    settings = {"bootstrap.servers": brokers, "group.id": "dump", "enable.auto.commit": False}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "log_level": 0})
    ends_s = time.monotonic() + READ_S
    try:
        partitions = consumer.list_topics(topic, timeout=READ_S).topics[topic].partitions
        places = [TopicPartition(topic, partition, 0) for partition in partitions]
        wanted = {place.partition: consumer.get_watermark_offsets(place, timeout=READ_S)[1] for place in places}
        consumer.assign(places)
        while any(wanted.values()):
            assert time.monotonic() < ends_s, f"{topic}: not all read: {wanted}"
            for message in consumer.consume(1000, 0.05):  # waits that long unless there are so many
                assert message.error() is None, message.error()
                partition, offset = message.partition(), message.offset()
                assert partition is not None
                assert offset is not None
                if offset + 1 >= wanted[partition]:
                    wanted[partition] = 0
                yield message
                ends_s = time.monotonic() + READ_S
    finally:
        consumer.close()


def _chunk(message: Message) -> bytes:
    key, value = _bytes(message.key()), _bytes(message.value())
    headers = [(name.encode(), _bytes(content)) for name, content in _headers(message)]
    packed = b"".join(struct.pack("<HI", len(name), len(content)) + name + content for name, content in headers)
    return b"\x01" + struct.pack("<IHI", len(key), len(headers), len(value)) + key + packed + value


def _headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    headers = message.headers() or []
    assert isinstance(headers, list)
    return headers


def _bytes(content: str | bytes | None) -> bytes:
    assert not isinstance(content, str)
    return content or b""


def _unite(stores: Sequence[Path], into: Path) -> None:
    """One day file of all processes' files of that day; a document that two have must be the same in both."""
    for path in (path for store in stores for path in sorted((store / "store").glob("????.??.??.db"))):
        with closing(sqlite3.connect(into / path.name)) as database, database:
            database.execute(_DOCUMENT_TABLE)
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as source:
                for row in source.execute(
                    "SELECT id, span_count, error_count, duration_ns, verdict, spans FROM document"
                ):
                    known = database.execute("SELECT * FROM document WHERE id = ?", row[:1]).fetchone()
                    assert known in (None, row), f"{row[0]}: two processes stored it differently"
                    if known is None:
                        database.execute("INSERT INTO document VALUES (?, ?, ?, ?, ?, ?)", row)
