"""A chunk's body: the documented bytes, round trips, and nonsense refused."""

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.adapters.sqlite.chunks import pack_body, pack_headers, pack_message, unpack_body, unpack_headers
from spanloom.model import Message, Record

headers = st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.binary()), max_size=4).map(tuple)
messages = st.builds(Message, st.none() | st.binary(max_size=40), st.binary(max_size=200), headers)


def unpack(body: bytes, *, base: int, count: int, first: int = 0, bytes_max: int = 1 << 30) -> list[Record]:
    """`unpack_body` with the arguments most tests do not care about."""
    return unpack_body(body, base=base, count=count, timestamp_ms=9, first=first, bytes_max=bytes_max)


@given(st.lists(messages, min_size=1), st.integers(0, 1 << 60), st.data())
def test_what_was_packed_is_unpacked_from_any_offset(some: list[Message], base: int, data: st.DataObject) -> None:
    """Records come back with their offsets, from wherever reading starts."""
    body, crc = pack_body([pack_message(message) for message in some])
    first = data.draw(st.integers(base, base + len(some) - 1))

    records = unpack(body, base=base, count=len(some), first=first)

    assert records == [Record(base + place, 9, *message) for place, message in enumerate(some)][first - base :]
    assert crc == zlib.crc32(body)


@given(st.lists(messages, min_size=1), st.integers(0, 300))
def test_a_batch_is_cut_at_its_size(some: list[Message], bytes_max: int) -> None:
    """A prefix comes, as long as fits and one record at least."""
    body, _ = pack_body([pack_message(message) for message in some])

    records = unpack(body, base=0, count=len(some), bytes_max=bytes_max)

    assert [record.value for record in records] == [message.value for message in some[: len(records)]]
    assert len(records) == 1 or sum(len(record.value) for record in records) <= bytes_max
    if len(records) < len(some):
        assert sum(len(message.value) for message in some[: len(records) + 1]) > bytes_max


@given(st.lists(messages, min_size=1), st.data())
def test_a_truncated_body_is_refused(some: list[Message], data: st.DataObject) -> None:
    """No proper prefix of a body decodes."""
    body, _ = pack_body([pack_message(message) for message in some])
    size = data.draw(st.integers(0, len(body) - 1))

    with pytest.raises(ValueError, match=r"expected|ends at byte"):
        unpack(body[:size], base=0, count=len(some))


@given(st.binary(), st.integers(1, 5))
def test_any_bytes_decode_or_raise_value_error(body: bytes, count: int) -> None:
    """Nonsense never crashes in another way, nor yields more records than asked for."""
    try:
        records = unpack(b"\x01" + body, base=0, count=count)
    except ValueError:
        return
    assert len(records) == count


@given(headers)
def test_headers_alone_are_unpacked(some: tuple[tuple[str, bytes], ...]) -> None:
    """The outlet's headers come back in order."""
    assert unpack_headers(pack_headers(some)) == some


def test_the_bytes_are_the_documented_ones() -> None:
    """A body is laid out as its description says, so that other programs can read it."""
    body, _ = pack_body([pack_message(Message(None, b"v")), pack_message(Message(b"k", b"", (("n", b"hv"),)))])

    expected = b"\x01" + struct.pack("<IHI", 0xFFFFFFFF, 0, 1) + b"v"
    expected += struct.pack("<IHI", 1, 1, 0) + b"k" + struct.pack("<HI", 1, 2) + b"n" + b"hv"
    assert body == expected


def test_another_format_version_is_refused() -> None:
    """A body of a later version is not guessed at."""
    with pytest.raises(ValueError, match="expected format version 1, found 02"):
        unpack(b"\x02", base=0, count=1)
