"""A document as Elasticsearch holds it, and the index template that says which of its fields can be searched.

Everything a document says is in `_source`, so that it comes back as it was, also through a reindex. What the index
would refuse or lose goes in changed (a time beyond 63 bits as the largest there is, a key without its NULs) and, as it
is, under `exact`, which is not indexed and hardly ever there.
"""

import re
from binascii import b2a_base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import cast

import msgspec

from spanloom.adapters.document_limits import INTEGER_MAX, INTEGER_MIN, rejection_of
from spanloom.errors import DataCorrupted, StoreRejected
from spanloom.model import AttributeValue, Document

FORMAT = 1  # of the source; in the mapping's _meta
ID_BYTES_MAX = 512  # Elasticsearch's own bound of an _id
NAME_CHARS_MAX = 1024  # longer names and values are stored and cannot be searched; Lucene ends at 32,766 bytes
_NS_PER_S = 1_000_000_000
_SECONDS_CHARS = len("2026-01-02T03:04:05")
_DAY = re.compile(r"\d{4}\.\d{2}\.\d{2}", re.ASCII)
_NUL = "\x00"  # separates key and value in a flattened field's terms


class Exact(msgspec.Struct, omit_defaults=True):
    """What the indexed fields hold only nearly."""

    duration_ns: int | None = None
    root_duration_ns: int | None = None
    attributes: dict[str, str] | None = None


class Source(msgspec.Struct, omit_defaults=True):
    """`_source`; the day is the index's."""

    id: str
    trace_id: str
    root_service: str
    root_operation: str
    services: tuple[str, ...]
    operations: tuple[str, ...]
    start: str  # for people and ranges: RFC 3339 with nanoseconds
    start_order: int  # start_unix_ns - 2^63: unsigned 64 bits in the order of a signed long
    duration_ns: int
    root_duration_ns: int
    span_count: int
    error_count: int
    attributes: dict[str, str]
    verdict: dict[str, object]
    exact: Exact | None = None
    spans: bytes = b""  # base64 in JSON; put in by bulk_lines


_encoder = msgspec.json.Encoder()
_source = msgspec.json.Decoder(Source)


def refusal_of(document: Document) -> StoreRejected | None:
    """Why Elasticsearch can never take *document*, or None: it can."""
    size = len(document.id.encode(errors="replace"))
    if not 1 <= size <= ID_BYTES_MAX:
        return StoreRejected(document.id, f"id: expected 1 to {ID_BYTES_MAX} bytes, found {size}")
    return rejection_of(document)


def bulk_lines(document: Document, prefix: str) -> bytes:
    """Action and source, as `_bulk` wants them: create, so that a second write of an id changes nothing."""
    action = {"create": {"_index": f"{prefix}{document.day}", "_id": document.id}}
    source = _encoder.encode(_source_of(document))
    # binascii writes base64 in half of msgspec's time; its letters need no escape.
    spans = b2a_base64(document.spans, newline=False)
    return b'%b\n%b,"spans":"%b"}\n' % (_encoder.encode(action), source[:-1], spans)


def document_of(index: str, source: msgspec.Raw, prefix: str) -> Document:
    """The document as it was written. Raises DataCorrupted: somebody else wrote it."""
    day = day_of(index, prefix)
    try:
        held = _source.decode(source)
    except msgspec.DecodeError as error:
        raise DataCorrupted(index, f"a document that is not spanloom's: {error}") from error
    if day is None:
        raise DataCorrupted(index, f"expected {prefix} and a day as the index of {held.id}")
    exact = held.exact or Exact()
    return Document(
        id=held.id,
        trace_id=held.trace_id,
        day=day,
        root_service=held.root_service,
        root_operation=held.root_operation,
        services=held.services,
        operations=held.operations,
        start_unix_ns=held.start_order - INTEGER_MIN,
        duration_ns=held.duration_ns if exact.duration_ns is None else exact.duration_ns,
        root_duration_ns=held.root_duration_ns if exact.root_duration_ns is None else exact.root_duration_ns,
        span_count=held.span_count,
        error_count=held.error_count,
        attributes=held.attributes if exact.attributes is None else exact.attributes,
        verdict=cast(dict[str, AttributeValue], held.verdict),
        spans=held.spans,
    )


def day_of(index: str, prefix: str) -> str | None:
    """The day an index holds; None: it is not ours."""
    day = index.removeprefix(prefix)
    return day if index.startswith(prefix) and _DAY.fullmatch(day) else None


def template(prefix: str, *, shards: int, replicas: int, policy: str | None) -> bytes:
    """The body of the index template. *policy* names the lifecycle policy, where the server has such."""
    name = {"type": "keyword", "ignore_above": NAME_CHARS_MAX}
    number = {"type": "long"}
    properties: dict[str, Mapping[str, object]] = {
        "id": {"type": "keyword", "index": False},  # the last word on the order of a search
        "trace_id": {"type": "keyword"},
        **dict.fromkeys(("root_service", "root_operation", "services", "operations"), name),
        "start": {"type": "date_nanos"},
        "start_order": {"type": "long", "index": False},
        **dict.fromkeys(("duration_ns", "root_duration_ns", "span_count", "error_count"), number),
        "attributes": {"type": "flattened", "ignore_above": NAME_CHARS_MAX},
        "verdict": {"type": "object", "enabled": False},
        "exact": {"type": "object", "enabled": False},
        "spans": {"type": "binary"},
    }
    index: dict[str, object] = {"number_of_shards": shards, "number_of_replicas": replicas}
    if policy is not None:
        index["lifecycle.name"] = policy
    mappings = {"dynamic": False, "_meta": {"spanloom_format": FORMAT}, "properties": properties}
    return _encoder.encode(
        {
            "index_patterns": [f"{prefix}*"],
            "priority": 300,  # above the ones Elastic ships (at most 200)
            "template": {"settings": {"index": index}, "mappings": mappings},
        }
    )


def _source_of(document: Document) -> Source:
    attributes = document.attributes
    if _NUL in "".join(attributes):
        attributes = {key.replace(_NUL, "\ufffd"): value for key, value in attributes.items()}
    exact = Exact(
        duration_ns=_beyond(document.duration_ns),
        root_duration_ns=_beyond(document.root_duration_ns),
        attributes=document.attributes if attributes is not document.attributes else None,
    )
    return Source(
        id=document.id,
        trace_id=document.trace_id,
        root_service=document.root_service,
        root_operation=document.root_operation,
        services=document.services,
        operations=document.operations,
        start=_rfc3339(min(document.start_unix_ns, INTEGER_MAX)),
        start_order=document.start_unix_ns + INTEGER_MIN,
        duration_ns=min(document.duration_ns, INTEGER_MAX),
        root_duration_ns=min(document.root_duration_ns, INTEGER_MAX),
        span_count=document.span_count,
        error_count=document.error_count,
        attributes=attributes,
        verdict=cast(dict[str, object], document.verdict),
        exact=exact if exact != Exact() else None,
    )


def _beyond(value: int) -> int | None:
    return value if value > INTEGER_MAX else None


def _rfc3339(unix_ns: int) -> str:
    seconds, ns = divmod(unix_ns, _NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC).isoformat()[:_SECONDS_CHARS]}.{ns:09}Z"
