"""Holds what spanloom left behind against what the oracle expects and what the load generator sent.

Every check returns the differences as sentences; an empty list means there is none. Imports nothing of spanloom.
"""

import json
import sqlite3
import struct
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from tests.oracle import DROP, Expected, ExpectedDecision
from tests.oracle_files import (
    LoggedDecision,
    Malformed,
    WireResource,
    WireSpan,
    frame,
    log_partitions,
    parse_record,
    parse_spans,
    read_ledger,
    read_log,
)
from tests.oracle_stamps import stamp_differences, unstamped

DIFFERENCES_MAX = 50  # of one kind; the rest are counted

Key = tuple[str, int, int]  # trace id, partition, first offset


class StoredFragment(NamedTuple):
    """One document as it lies in a day file."""

    day: str
    id: str
    span_count: int
    error_count: int
    duration_ns: int
    verdict: dict[str, object]
    spans: bytes

    @property
    def key(self) -> Key:
        trace_id, _, partition, first = self.id.split(".")
        return trace_id, int(partition), int(first)


def check_ledger(data_folder: Path, expected: Expected) -> list[str]:
    """The DECIDE entries of valid epochs against the expected decisions, field by field and in their order."""
    differences: list[str] = []
    for partition, each in expected.items():
        _, logged = read_ledger(data_folder / "ledger.db", partition)
        logged_by_key = {_logged_key(decision): decision for decision in logged}
        expected_by_key = {(decision.trace_id, decision.first): decision for decision in each.decisions}
        if len(logged_by_key) != len(logged):
            differences.append(f"partition {partition}: {len(logged) - len(logged_by_key)} fragments decided twice")
        for key, decision in expected_by_key.items():
            where = f"partition {partition}, trace {key[0].hex()}, first {key[1]}"
            if key not in logged_by_key:
                differences.append(f"{where}: not decided, expected {_brief(decision)}")
            else:
                differences += (f"{where}: {text}" for text in decision_differences(decision, logged_by_key[key]))
        for key in logged_by_key.keys() - expected_by_key.keys():
            differences.append(
                f"partition {partition}, trace {key[0].hex()}, first {key[1]}: decided, but nothing was due"
            )
        if not differences and list(logged_by_key) != list(expected_by_key):
            differences.append(f"partition {partition}: the decisions are logged in another order than they fell due")
    return _shortened(differences)


def check_store(data_folder: Path, expected: Expected) -> list[str]:
    """The stored documents against the kept fragments: which, under which day, and their bytes."""
    differences: list[str] = []
    wanted = {
        (decision.trace_id.hex(), partition, decision.first): decision
        for partition, each in expected.items()
        for decision in each.decisions
        if decision.verdict != DROP
    }
    stored: dict[Key, StoredFragment] = {}
    for fragment in stored_fragments(data_folder):
        if fragment.key in stored:
            differences.append(f"{fragment.id}: stored twice")
        stored[fragment.key] = fragment
    differences += [f"{_name(key)}: kept but not stored" for key in wanted.keys() - stored.keys()]
    differences += [f"{_name(key)}: stored but not kept" for key in stored.keys() - wanted.keys()]
    both = {key: decision for key, decision in wanted.items() if key in stored}
    for key, spans in _fragment_bytes(data_folder, both):
        differences += (f"{_name(key)}: {text}" for text in _document_differences(both[key], stored[key], spans))
    return _shortened(differences)


def check_loadgen_record(record: Path, data_folder: Path) -> list[str]:
    """Every acknowledged span lies in the log at least once, and no span is stored twice."""
    differences: list[str] = []
    in_log: set[bytes] = set()
    for partition in log_partitions(data_folder / "log.db"):
        for entry in read_log(data_folder / "log.db", partition):
            try:
                in_log.update(map(_packed_identity, parse_spans(parse_record(entry.value))))
            except Malformed:
                continue  # laid there by hand; the load generator sends none
    acknowledged = 0
    for number, packed in acknowledged_spans(record):
        acknowledged += 1
        if packed not in in_log:
            differences.append(f"request {number}: span {packed[:16].hex()}/{packed[16:24].hex()} is not in the log")
    if not acknowledged:
        differences.append(f"{record}: no acknowledged span: nothing was proved")
    in_store: set[bytes] = set()
    for fragment in stored_fragments(data_folder):
        for span in parse_spans(parse_record(unstamped(fragment.spans))):
            packed = _packed_identity(span)
            if packed in in_store:
                differences.append(f"{fragment.id}: span {span.span_id.hex()} is stored twice")
            in_store.add(packed)
    return _shortened(differences)


def stored_fragments(data_folder: Path) -> Iterator[StoredFragment]:
    """Every document of every day file."""
    for path in sorted((data_folder / "store").glob("????.??.??.db")):
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT id, span_count, error_count, duration_ns, verdict, spans FROM document")
            for identity, span_count, error_count, duration_ns, verdict, spans in rows:
                if isinstance(duration_ns, bytes):  # above 2^63 - 1
                    duration_ns = int.from_bytes(duration_ns, "big")
                yield StoredFragment(
                    path.stem, identity, span_count, error_count, duration_ns, json.loads(verdict), spans
                )


def acknowledged_spans(record: Path) -> Iterator[tuple[int, bytes]]:
    """Request number and packed identity of every span that the load generator's record promises.

    The format: 8 bytes `SPANREC` and version 1; then entries of u32 length, u32 CRC-32 and so many bytes: u64 request
    number, u8 fate (1: acknowledged), then 34 bytes a span: trace id, span id, u8 kind, u64 content, u8 error.
    """
    data = record.read_bytes()
    assert data[:8] == b"SPANREC\x01", "not a load record"
    at = 8
    while at + 8 <= len(data):
        length, checksum = struct.unpack_from("<II", data, at)
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            return  # its writer died
        assert zlib.crc32(body) == checksum, f"the load record is damaged at byte {at}"
        number, fate = struct.unpack_from("<QB", body)
        if fate == 1:
            for start in range(9, length, 34):
                yield number, body[start : start + 33]
        at += 8 + length


def _packed_identity(span: WireSpan) -> bytes:
    return struct.pack("<16s8sBQ", span.trace_id, span.span_id, span.kind, span.content)


def _logged_key(decision: LoggedDecision) -> tuple[bytes, int]:
    return decision.trace_id, decision.first


def decision_differences(expected: ExpectedDecision, logged: LoggedDecision) -> Iterator[str]:
    for name in (
        "verdict", "trigger", "policy", "votes", "threshold", "flags", "cut", "stream_ns", "origin_ns", "operation",
        "duration_ns", "span_count", "size_bytes",
    ):  # fmt: skip
        wanted, found = getattr(expected, name), getattr(logged, name)
        if wanted != found:
            yield f"{name} is {found}, expected {wanted}"
    if len(set(logged.identities)) != len(logged.identities):
        yield "an identity is logged twice"
    if set(logged.identities) != expected.identities:
        missing, extra = expected.identities - set(logged.identities), set(logged.identities) - expected.identities
        yield f"identities: {len(missing)} missing, {len(extra)} too many"


def _document_differences(expected: ExpectedDecision, stored: StoredFragment, spans: bytes) -> Iterator[str]:
    day = datetime.fromtimestamp(expected.origin_ns // 10**9, UTC).strftime("%Y.%m.%d")
    if stored.day != day:
        yield f"stored under {stored.day}, expected {day}"
    try:
        stored_spans, sent_spans = unstamped(stored.spans), unstamped(spans)
        found = {span.identity for span in parse_spans(parse_record(stored_spans))}
    except Malformed as fault:
        yield f"the stored spans are malformed: {fault}"
        return
    if stored_spans == sent_spans:
        yield from stamp_differences(spans, stored.spans, expected.threshold)
    else:
        missing, extra = expected.identities - found, found - expected.identities
        yield f"other bytes than expected: {len(missing)} spans missing, {len(extra)} too many"
    if stored.span_count != expected.span_count:
        yield f"span_count is {stored.span_count}, expected {expected.span_count}"
    if stored.duration_ns != min(expected.duration_ns, 2**63 - 1):
        yield f"duration_ns is {stored.duration_ns}, expected {expected.duration_ns}"
    for name in ("first", "cut", "stream_ns", "origin_ns", "duration_ns", "span_count"):
        if stored.verdict.get(name) != getattr(expected, name):
            yield f"verdict.{name} is {stored.verdict.get(name)}, expected {getattr(expected, name)}"


def _fragment_bytes(data_folder: Path, wanted: dict[Key, ExpectedDecision]) -> Iterator[tuple[Key, bytes]]:
    """The bytes of each wanted fragment, framed anew from the log."""
    for partition in {partition for _, partition, _ in wanted}:
        parts: dict[Key, list[bytes]] = {key: [] for key in wanted if key[1] == partition}
        at_offset: defaultdict[int, list[tuple[Key, set[int]]]] = defaultdict(list)
        for key in parts:
            places: defaultdict[int, set[int]] = defaultdict(set)
            for offset, place in wanted[key].places:
                places[offset].add(place)
            for offset, chosen in places.items():
                at_offset[offset].append((key, chosen))
        for record in read_log(data_folder / "log.db", partition):
            if record.offset in at_offset:
                resources = parse_record(record.value)
                for key, chosen in at_offset[record.offset]:
                    parts[key].append(reframed(resources, chosen))
        for key, pieces in parts.items():
            yield key, b"".join(pieces)


def reframed(resources: list[WireResource], chosen: set[int]) -> bytes:
    """TracesData of the spans at these places of a record, each with its resource's and scope's other fields."""
    out = b""
    place = 0
    for resource in resources:
        scopes = b""
        for scope in resource.scopes:
            spans = b""
            for span in scope.spans:
                if place in chosen:
                    spans += frame(2, span)
                place += 1
            if spans:
                scopes += frame(2, scope.other_fields + spans)
        if scopes:
            out += frame(1, resource.other_fields + scopes)
    return out


def _brief(decision: ExpectedDecision) -> str:
    return f"verdict {decision.verdict}, trigger {decision.trigger}, cut {decision.cut}, {decision.span_count} spans"


def _name(key: Key) -> str:
    trace_id, partition, first = key
    return f"partition {partition}, trace {trace_id}, first {first}"


def _shortened(differences: Iterable[str]) -> list[str]:
    found = list(differences)
    if len(found) <= DIFFERENCES_MAX:
        return found
    return [*found[:DIFFERENCES_MAX], f"... and {len(found) - DIFFERENCES_MAX} more"]
