"""The books that travel with a group's commits, held against the oracle's.

A commit's metadata is Base64 of: u8 version 1, u64 stream time, i64 last timestamp, u64 ledger position, u64 its epoch,
then ten counters of u64. It is read with spanloom's own handle: the Python client takes it for a text with a NUL at its
end, which it has not.
"""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from spanloom.adapters.kafka.handle import Handle, Place
from tests.oracle import Expected

COUNTERS = (
    "received", "stored", "duplicate", "not_sampled", "late", "pressure", "moved", "dead_lettered",
    "lost_to_retention", "conflicting",
)  # fmt: skip
_RECOUNTED = {"stored", "not_sampled", "duplicate", "conflicting"}
_METADATA = struct.Struct(f"<BQqQQ{len(COUNTERS)}Q")


@dataclass(frozen=True, slots=True)
class Books:
    """Where a partition stands, as its last commit says."""

    committed: int
    end: int
    counters: Mapping[str, int]

    @property
    def resolved(self) -> int:
        """Spans of which the commit says what became of them."""
        return sum(self.counters.values()) - self.counters["received"] - self.counters["conflicting"]


def read_books(brokers: str, *, group: str, topic: str, partitions: int) -> dict[int, Books]:
    """Of every partition that holds anything. Raises SourceUnavailable."""
    handle = Handle({"bootstrap.servers": brokers, "group.id": group, "log_level": "0"})
    try:
        found = {}
        for place in handle.committed([Place(topic, number) for number in range(partitions)]):
            end = handle.watermarks(topic, place.partition).high
            counters = dict.fromkeys(COUNTERS, 0)
            if place.metadata:
                version, _, _, _, _, *counts = _METADATA.unpack(base64.b64decode(place.metadata))
                assert version == 1, f"commit metadata of version {version}"
                counters = dict(zip(COUNTERS, counts, strict=True))
            if end:
                found[place.partition] = Books(max(0, place.offset), end, counters)
        return found
    finally:
        handle.close()


def check_books(books: Mapping[int, Books], expected: Expected) -> list[str]:
    """What does not add up, or differs from what the oracle counted; everything must be committed.

    One thing may differ. A replay that meets spans of a fragment which was done before the commit it starts from no
    longer knows which of them repeat one below that commit: it counts them as what the fragment came to. So a duplicate
    may be counted as stored or as not sampled, and a conflicting span not as such; the sum is the same.
    """
    differences = []
    for partition, each in expected.items():
        where = f"partition {partition}"
        if partition not in books:
            differences.append(f"{where}: nothing is committed")
            continue
        held = books[partition]
        if held.committed != held.end:
            differences.append(f"{where}: committed {held.committed} of {held.end}")
        if held.counters["received"] != held.resolved:
            differences.append(f"{where}: received {held.counters['received']}, resolved {held.resolved}")
        more = {name: held.counters[name] - each.counters.get(name, 0) for name in COUNTERS}
        as_their_fragment = _recounted_duplicates(more)
        differences += [
            f"{where}: {name} is {held.counters[name]}, expected {each.counters.get(name, 0)}"
            for name in COUNTERS
            if more[name] and not (as_their_fragment and name in _RECOUNTED)
        ]
    return differences


def recounted_duplicates(books: Mapping[int, Books], expected: Expected) -> int:
    """How many duplicates were counted as what their fragment came to (see check_books)."""
    return sum(
        max(0, each.counters["duplicate"] - books[partition].counters["duplicate"])
        for partition, each in expected.items()
        if partition in books
    )


def _recounted_duplicates(more: Mapping[str, int]) -> bool:
    """Whether the differences are duplicates that a replay counted as stored or not sampled, no more and no less."""
    is_moved = more["stored"] + more["not_sampled"] == -more["duplicate"]
    return is_moved and more["stored"] >= 0 and more["not_sampled"] >= 0 and more["conflicting"] <= 0
