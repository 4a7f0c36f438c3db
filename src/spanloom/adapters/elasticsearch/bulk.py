"""Bulk requests: documents packed into bodies of a good size, and the answer read item by item. Sans-IO."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from spanloom.errors import StoreRejected

BULK_BYTES = 8 << 20  # of a body, unless one document has more; Elasticsearch does best at 3 to 8 MB
TARGET = "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason"

_DONE = {200, 201, 409}  # 409: the id is there, and an id names its bytes
_NEVER = {400, 413}
# Answered with 400 too, and no fault of the document: the cluster has no room for a new index, or an index is closed.
_NOT_THE_DOCUMENT = {"validation_exception", "index_closed_exception", "cluster_block_exception"}
_REASON_CHARS_MAX = 300


class Entry(NamedTuple):
    """A document on its way."""

    document_id: str
    lines: bytes


@dataclass(slots=True)
class Outcome:
    """What became of a bulk's entries."""

    stored: int = 0
    rejected: list[StoreRejected] = field(default_factory=list)
    again: list[Entry] = field(default_factory=list)
    why: str = ""  # the first reason to send again


class _Error(msgspec.Struct):
    type: str = ""
    reason: str | None = None


class _Result(msgspec.Struct):
    status: int
    error: _Error | None = None


class _Item(msgspec.Struct):
    create: _Result


class _Answer(msgspec.Struct):
    items: list[_Item]


_decoder = msgspec.json.Decoder(_Answer)


def packed(entries: Sequence[Entry], bytes_max: int = BULK_BYTES) -> Iterator[list[Entry]]:
    """Entries in order, in groups of at most *bytes_max* bytes; a larger one has a group to itself."""
    group: list[Entry] = []
    size_bytes = 0
    for entry in entries:
        if group and size_bytes + len(entry.lines) > bytes_max:
            yield group
            group, size_bytes = [], 0
        group.append(entry)
        size_bytes += len(entry.lines)
    if group:
        yield group


def read_answer(body: bytes, entries: Sequence[Entry]) -> Outcome:
    """What a bulk's answer with status 200 says of each entry. Raises ValueError: it is no answer to this bulk."""
    items = _decoder.decode(body).items  # msgspec's DecodeError is a ValueError
    if len(items) != len(entries):
        raise ValueError(f"expected {len(entries)} items, found {len(items)}")
    outcome = Outcome()
    for entry, item in zip(entries, items, strict=True):
        result = item.create
        if result.status in _DONE:
            outcome.stored += 1
            continue
        error = result.error or _Error()
        reason = f"{result.status} {error.type}: {error.reason or ''}"[:_REASON_CHARS_MAX]
        if result.status in _NEVER and error.type not in _NOT_THE_DOCUMENT:
            outcome.rejected.append(StoreRejected(entry.document_id, reason))
        else:
            outcome.again.append(entry)
            outcome.why = outcome.why or reason
    return outcome
