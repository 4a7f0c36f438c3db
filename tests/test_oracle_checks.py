"""The checks find every kind of difference between what is there and what must be, and none where there is none."""

import sqlite3
import struct
import zlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from tests.oracle import ExpectedDecision, expect
from tests.oracle_checks import check_ledger, check_loadgen_record, check_store, reframed
from tests.oracle_files import Malformed, parse_record, parse_spans
from tests.oracle_folder import (
    ALL,
    DECIDE,
    A,
    B,
    C,
    Records,
    end,
    fence,
    identity,
    outcome,
    span,
    traces,
    write_ledger,
    write_log,
)


def decide(decisions: Sequence[ExpectedDecision], **changed: int) -> tuple[int, int, bytes]:
    body = struct.pack("<I", len(decisions))
    for each in decisions:
        cut = changed.get("cut", each.cut)
        body += struct.pack(
            "<BBBBIQQ16sQQQQQQQII", each.verdict, each.trigger, each.policy, each.flags, 1, each.votes, each.threshold,
            each.trace_id, each.first, cut, each.stream_ns, each.origin_ns, each.operation, each.duration_ns,
            each.size_bytes, each.span_count, len(each.identities),
        )  # fmt: skip
        body += b"".join(struct.pack("<8sBQ", *one) for one in sorted(each.identities))
    return DECIDE, 1, body


RECORDS: Records = [(0, traces(span(A, 1), span(B, 1))), (1, traces(span(A, 2, 1), service="cart")), end(30)]


def write_folder(folder: Path, ledger: list[tuple[int, int, bytes]]) -> None:
    write_log(folder, RECORDS)
    write_ledger(folder, ledger)


def expected_decisions(folder: Path) -> list[ExpectedDecision]:
    (folder / "aside").mkdir()
    return outcome(folder / "aside", RECORDS, ALL).decisions


def test_a_ledger_that_says_what_it_must_has_no_difference(tmp_path: Path) -> None:
    """The expected decisions, spread over two DECIDE records, pass."""
    decisions = expected_decisions(tmp_path)
    write_folder(tmp_path, [fence(1), decide(decisions[:1]), decide(decisions[1:])])
    assert check_ledger(tmp_path, expect(tmp_path, ALL, partition_count=1)) == []


def test_every_difference_in_a_ledger_is_told(tmp_path: Path) -> None:
    """A missing, a changed, a repeated and a reordered decision are differences; a stale owner's is none."""
    decisions = expected_decisions(tmp_path)
    stale = (DECIDE, 0, decide(decisions)[2])
    for name, ledger, text in (
        ("missing", [fence(1), decide(decisions[1:]), stale], "not decided"),
        ("changed", [fence(1), decide(decisions, cut=7)], "cut is 7"),
        ("repeated", [fence(1), decide(decisions), decide(decisions[:1])], "decided twice"),
        ("reordered", [fence(1), decide(decisions[::-1])], "another order"),
    ):
        (tmp_path / name).mkdir()
        write_folder(tmp_path / name, ledger)
        differences = check_ledger(tmp_path / name, expect(tmp_path / name, ALL, partition_count=1))
        assert any(text in difference for difference in differences), (name, differences)


def write_store(folder: Path, documents: Sequence[tuple[str, int, bytes, ExpectedDecision]], day: str) -> None:
    """Documents are (id, span count, spans, the decision their verdict tells of)."""
    (folder / "store").mkdir()
    with closing(sqlite3.connect(folder / "store" / f"{day}.db")) as database, database:
        database.execute("CREATE TABLE document(id TEXT UNIQUE, span_count, error_count, duration_ns, verdict, spans)")
        for name, span_count, spans, each in documents:
            verdict = (
                f'{{"first": {each.first}, "cut": {each.cut}, "stream_ns": {each.stream_ns}, "origin_ns":'
                f' {each.origin_ns}, "duration_ns": {each.duration_ns}, "span_count": {each.span_count}}}'
            )
            row = (name, span_count, 0, each.duration_ns, verdict, spans)
            database.execute("INSERT INTO document VALUES (?, ?, ?, ?, ?, ?)", row)


DAY = "2026.09.21"  # of T0


def documents_of(decisions: Sequence[ExpectedDecision]) -> list[tuple[str, int, bytes, ExpectedDecision]]:
    """B's spans and A's, as the records hold them: A's second one under its other service."""
    a, b = (next(each for each in decisions if each.trace_id == trace_id) for trace_id in (A, B))
    spans_of_a = traces(kept(span(A, 1))) + traces(kept(span(A, 2, 1)), service="cart")
    return [(f"{A.hex()}.log1.0.0", 2, spans_of_a, a), (f"{B.hex()}.log1.0.0", 1, traces(kept(span(B, 1))), b)]


def kept(sent: Span) -> Span:
    """As it is stored by a policy that keeps all."""
    sent.trace_state = "ot=th:0"
    return sent


def test_a_store_that_holds_what_it_must_has_no_difference(tmp_path: Path) -> None:
    """Each kept fragment under its id and day, its spans re-framed from the records one after another."""
    documents = documents_of(expected_decisions(tmp_path))
    write_folder(tmp_path, [])
    write_store(tmp_path, documents, DAY)
    assert check_store(tmp_path, expect(tmp_path, ALL, partition_count=1)) == []


def test_every_difference_in_a_store_is_told(tmp_path: Path) -> None:
    """A missing and a surplus document, wrong bytes and a wrong day are differences."""
    documents = documents_of(expected_decisions(tmp_path))
    a, b = documents
    for name, wrong, day, text in (
        ("missing", [a], DAY, f"trace {B.hex()}, first 0: kept but not stored"),
        ("surplus", [a, b, (f"{C.hex()}.log1.0.0", *b[1:])], DAY, f"trace {C.hex()}, first 0: stored but not kept"),
        ("bytes", [(a[0], 2, traces(span(A, 1)), a[3]), b], DAY, "1 spans missing, 0 too many"),
        ("day", documents, "2026.09.22", "stored under 2026.09.22"),
    ):
        (tmp_path / name).mkdir()
        write_folder(tmp_path / name, [])
        write_store(tmp_path / name, wrong, day)
        differences = check_store(tmp_path / name, expect(tmp_path / name, ALL, partition_count=1))
        assert any(text in difference for difference in differences), (name, differences)


def write_load_record(path: Path, entries: Sequence[tuple[int, Sequence[Span]]]) -> Path:
    """Entries are (fate, spans)."""
    data = b"SPANREC\x01"
    for number, (fate, spans) in enumerate(entries):
        body = struct.pack("<QB", number, fate)
        for each in spans:
            span_id, kind, content = identity(each)
            body += struct.pack("<16s8sBQB", each.trace_id, span_id, kind, content, 0)
        data += struct.pack("<II", len(body), zlib.crc32(body)) + body
    path.write_bytes(data)
    return path


def test_a_lost_span_is_told_and_only_acknowledged_ones_are_promised(tmp_path: Path) -> None:
    """Spans of the log satisfy the record; an abandoned request promises nothing, an acknowledged one must be there."""
    write_folder(tmp_path, [])
    sound = write_load_record(tmp_path / "sound", [(1, [span(A, 1), span(B, 1)]), (0, [span(C, 1)])])
    assert check_loadgen_record(sound, tmp_path) == []
    lossy = write_load_record(tmp_path / "lossy", [(1, [span(A, 1), span(C, 1)])])
    assert check_loadgen_record(lossy, tmp_path) == [
        f"request 0: span {C.hex()}/{span(C, 1).span_id.hex()} is not in the log"
    ]
    empty = write_load_record(tmp_path / "empty", [(0, [span(A, 1)])])
    assert "nothing was proved" in check_loadgen_record(empty, tmp_path)[0]


def test_a_span_stored_twice_is_told(tmp_path: Path) -> None:
    """The same identity in two documents of one trace is a difference."""
    a, b = documents_of(expected_decisions(tmp_path))
    write_folder(tmp_path, [])
    write_store(tmp_path, [a, b, (f"{A.hex()}.log1.0.9", *a[1:])], DAY)
    record = write_load_record(tmp_path / "record", [(1, [span(A, 1)])])
    assert any("stored twice" in difference for difference in check_loadgen_record(record, tmp_path))


# --- the reader of OTLP ---------------------------------------------------------------------------------------------


def test_the_oracles_reader_agrees_with_protobufs_own() -> None:
    """Ids, kind, times, status, service and bytes of every span are those that protobuf's parser sees."""
    value = traces(span(A, 1, error=True), span(B, 2, 1, kind=4), service="one") + traces(span(C, 3), service="two")
    parsed = [
        (
            *(each.trace_id, each.span_id, each.parent_span_id, each.kind),
            *(each.start_time_unix_nano, each.end_time_unix_nano, each.status.code == 2),
            *(resource.resource.attributes[0].value.string_value, each.name, each.ByteSize()),
        )
        for resource in TracesData.FromString(value).resource_spans
        for scope in resource.scope_spans
        for each in scope.spans
    ]
    assert [
        (
            *(each.trace_id, each.span_id, each.parent, each.kind, each.start, each.end, each.error),
            *(each.service.decode(), each.name.decode(), each.length),
        )
        for each in parse_spans(parse_record(value))
    ] == parsed


def test_reframing_everything_gives_a_minimal_record_back() -> None:
    """A record as protobuf writes it is the same bytes when framed anew with all its spans, and fewer with fewer."""
    value = traces(span(A, 1), span(B, 2)) + traces(span(A, 3), service="two")
    resources = parse_record(value)
    assert reframed(resources, {0, 1, 2}) == value
    assert reframed(resources, {1}) == traces(span(B, 2))
    assert reframed(resources, set()) == b""


def test_what_follows_a_fault_does_not_matter() -> None:
    """A fault anywhere spoils the record, however good the rest is."""
    with pytest.raises(Malformed):
        parse_spans(parse_record(traces(span(A, 1)) + b"\x0a\x7f"))
