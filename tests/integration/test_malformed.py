"""Bytes that are no spans, through the port and laid straight into the log: counted, kept for a look, never fatal."""

import random
import struct
from contextlib import closing
from pathlib import Path

import pytest
import trio

from spanloom.adapters.sqlite import DataFolder, SqliteLedger, SqliteLog, SqliteOutlet
from spanloom.core.partitioning import partition_of
from spanloom.model import DEAD_LETTERS, Message
from tests.integration.process import QUICK, running
from tests.spans import Sp, trace_id, traces_data

GOOD = traces_data([Sp(1, 1), Sp(1, 2, parent=1)])


def _with_times(start: int, end: int) -> bytes:
    """A span whose times are these, fixed64 as they stand."""
    body = b"\x0a\x10" + trace_id(9) + b"\x12\x08" + struct.pack("<Q", 9)
    body += b"\x39" + struct.pack("<Q", start) + b"\x41" + struct.pack("<Q", end)
    return _nest(_nest(_nest(body)), b"\x0a")


def _with_ids(trace: bytes, span: bytes, parent: bytes = b"") -> bytes:
    """A span with these bytes for ids."""
    body = _nest(trace, b"\x0a") + _nest(span) + _nest(parent, b"\x22")
    return _nest(_nest(_nest(body)), b"\x0a")


def _nest(body: bytes, tag: bytes = b"\x12") -> bytes:
    size = len(body)
    out = bytearray()
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return tag + bytes([*out, size]) + body


def _deep(levels: int) -> bytes:
    """A span with an attribute nested *levels* deep in arrays."""
    value = b"\x0a\x01x"
    for _ in range(levels):
        value = _nest(_nest(value, b"\x0a"), b"\x2a")
    attribute = _nest(b"\x0a\x01k" + _nest(value), b"\x4a")
    span = b"\x0a\x10" + trace_id(8) + b"\x12\x08" + struct.pack("<Q", 8) + attribute
    return _nest(_nest(_nest(span)), b"\x0a")


UNREADABLE = {
    "truncated": GOOD[:-3],
    "oversized length": b"\x0a\xff\xff\xff\xff\x7f" + GOOD,
    "wrong wire type": b"\x08\x01" + GOOD,
    "group": b"\x0b" + GOOD,
    "endless varint": b"\x0a" + b"\xff" * 20,
    "text": b"this is not protobuf",
    "zeros": bytes(100),
}
BAD_IDS = {
    "short trace id": _with_ids(b"x" * 15, b"12345678"),
    "zero trace id": _with_ids(bytes(16), b"12345678"),
    "no trace id": _with_ids(b"", b"12345678"),
    "long trace id": _with_ids(b"x" * 17, b"12345678"),
    "zero span id": _with_ids(trace_id(1), bytes(8)),
    "short span id": _with_ids(trace_id(1), b"1234567"),
    "odd parent id": _with_ids(trace_id(1), b"12345678", b"123"),
}
STRANGE = {
    "empty": b"",
    "no spans": b"\x0a\x00",
    "deep nesting": _deep(2000),
    "times of zero": _with_times(0, 0),
    "times of the far future": _with_times(2**64 - 2, 2**64 - 1),
    "end before start": _with_times(2**63, 1),
}


def test_malformed_requests_are_answered_and_the_service_goes_on(tmp_path: Path) -> None:
    """Through the port: what cannot be read gets 400, what can be read gets 200, and good spans still go in."""
    rng = random.Random(1)
    with running(tmp_path / "data") as node:
        for name, body in UNREADABLE.items():
            assert node.post("/v1/traces", body, "application/x-protobuf")[0] == 400, name
        for name, body in STRANGE.items():
            assert node.post("/v1/traces", body, "application/x-protobuf")[0] == 200, name
        for _ in range(300):
            damaged = bytearray(GOOD)
            for _ in range(3):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            assert node.post("/v1/traces", bytes(damaged), "application/x-protobuf")[0] in (200, 400)
        assert node.post("/v1/traces", b"{]", "application/json")[0] == 400
        assert node.post("/v1/traces", b"[" * 10_000, "application/json")[0] == 400
        assert node.post("/v1/spans", b'{"trace_id": 7}', "application/json")[0] == 400
        assert node.post("/v1/traces", GOOD, "text/plain")[0] == 415
        assert (
            node.post("/v1/traces", b"\x1f\x8b\x08rubbish", "application/x-protobuf", **{"Content-Encoding": "gzip"})[0]
            == 400
        )
        assert node.post("/v1/traces", GOOD, "application/x-protobuf")[0] == 200
        node.settled(3)
        assert node.terminate() == 0


def test_a_bad_id_costs_one_span_and_the_sender_is_told(tmp_path: Path) -> None:
    """A span with a bad id is rejected in a partial success that counts it; the request's others go in."""
    data = traces_data([Sp(1, 1), Sp(2, 5)]).replace(trace_id(2), bytes(16))
    with running(tmp_path / "data") as node:
        status, body = node.post("/v1/traces", data, "application/x-protobuf")
        assert status == 200
        assert b"trace_id" in body
        node.settled(1)
        assert node.metric("spanloom_spans_received_total") == 1


async def _lay(folder: Path, bodies: list[bytes]) -> list[int]:
    """Append records behind the intake's back, all in the partition of trace 1; their offsets."""
    with closing(DataFolder.open(folder, partition_count=4)) as opened:
        log = SqliteLog(opened, SqliteLedger(opened))
        partition = partition_of(trace_id(1).hex().encode(), 4)
        await log.append([(partition, Message(b"laid", body)) for body in bodies])
    return list(range(len(bodies)))


async def _dead_letters(folder: Path) -> dict[int, tuple[str, bytes]]:
    with closing(DataFolder.open(folder, partition_count=4)) as opened:
        letters = await SqliteOutlet(opened).read(DEAD_LETTERS, 0, 1000)
    found = {}
    for letter in letters:
        headers = dict(letter.headers)
        found[int(headers["source-offset"])] = (headers["reason"].decode(), letter.value)
    return found


@pytest.mark.parametrize("corpus", [{**UNREADABLE, **BAD_IDS, **STRANGE}], ids=["corpus"])
def test_malformed_records_in_the_log_are_dead_lettered_with_their_reason(
    tmp_path: Path, corpus: dict[str, bytes]
) -> None:
    """Laid into the log: each unreadable record is in the dead letters with reason and place, the others go on."""
    folder = tmp_path / "data"
    names = [*corpus, "good"]
    trio.run(_lay, folder, [*corpus.values(), GOOD])
    bad = {*UNREADABLE, *BAD_IDS}
    with running(folder, QUICK) as node:
        node.settled(len(bad) + 2)
        assert node.metric("spanloom_spans_dead_lettered_total") == len(bad)
        assert node.terminate() == 0
    letters = trio.run(_dead_letters, folder)
    assert {names[offset] for offset in letters} == bad
    for offset, (reason, value) in letters.items():
        assert value == corpus[names[offset]]
        assert ": expected " in reason, f"{names[offset]}: {reason}"
