"""Records packed into the body of one log chunk, and back. Little endian:

    body    u8 format version (1), then the records one after another
    record  u32 key length (0xffffffff: no key), u16 header count, u32 value length, key, headers, value
    header  u16 name length, u32 value length, name (UTF-8), value

Nothing here knows of SQLite. Bytes that do not decode raise ValueError, whatever they are.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence

from spanloom.model import Message, Record

VERSION = 1
_BODY_HEAD = bytes([VERSION])
_NO_KEY = 0xFFFFFFFF
_RECORD = struct.Struct("<IHI")
_HEADER = struct.Struct("<HI")

MESSAGE_BYTES_MAX = 512 << 20  # SQLite takes at most 10^9 bytes a value; the intake's own bound is far below


def pack_message(message: Message) -> bytes:
    """One record of a body."""
    key, value, headers = message
    assert len(value) <= MESSAGE_BYTES_MAX
    head = _RECORD.pack(_NO_KEY if key is None else len(key), len(headers), len(value))
    if headers:
        return b"".join((head, key or b"", pack_headers(headers), value))
    return b"".join((head, key, value)) if key else head + value


def pack_headers(headers: Iterable[tuple[str, bytes]]) -> bytes:
    """The headers of one record, without their count."""
    parts: list[bytes] = []
    for name, value in headers:
        name_bytes = name.encode()
        parts += (_HEADER.pack(len(name_bytes), len(value)), name_bytes, value)
    return b"".join(parts)


def pack_body(records: Sequence[bytes]) -> tuple[bytes, int]:
    """A chunk's body from its packed records, and its CRC.

    The CRC is taken record by record: above 5 KB zlib lets the GIL go, and winning it back from a busy main thread
    costs up to 5 ms a chunk, a thousand times what the CRC does.
    """
    crc = zlib.crc32(_BODY_HEAD)
    for record in records:
        crc = zlib.crc32(record, crc)
    return b"".join((_BODY_HEAD, *records)), crc


def unpack_body(body: bytes, *, base: int, count: int, timestamp_ms: int, first: int, bytes_max: int) -> list[Record]:
    """The records from offset *first* on, at least one where there is one, at most *bytes_max* bytes of them else."""
    if body[:1] != _BODY_HEAD:
        raise ValueError(f"expected format version {VERSION}, found {body[:1].hex() or 'nothing'}")
    records: list[Record] = []
    place, taken_bytes = 1, 0
    for offset in range(base, base + count):
        key_size, header_count, value_size = _unpack(_RECORD, body, place)
        place += _RECORD.size
        key = None
        if key_size != _NO_KEY:
            key = body[place : place + key_size]
            place += key_size
        headers: tuple[tuple[str, bytes], ...] = ()
        if header_count:
            headers, place = _unpack_headers(body, place, header_count)
        end = place + value_size
        if end > len(body):
            raise ValueError(f"record {offset} ends at byte {end} of {len(body)}")
        if offset >= first:
            taken_bytes += value_size
            if records and taken_bytes > bytes_max:
                return records
            records.append(Record(offset, timestamp_ms, key, body[place:end], headers))
        place = end
    if place != len(body):
        raise ValueError(f"expected {count} records to end at byte {len(body)}, found {place}")
    return records


def unpack_headers(packed: bytes) -> tuple[tuple[str, bytes], ...]:
    """What `pack_headers` packed."""
    headers: list[tuple[str, bytes]] = []
    place = 0
    while place < len(packed):
        one, place = _unpack_headers(packed, place, 1)
        headers += one
    return tuple(headers)


def _unpack_headers(body: bytes, place: int, count: int) -> tuple[tuple[tuple[str, bytes], ...], int]:
    headers: list[tuple[str, bytes]] = []
    for _ in range(count):
        name_size, value_size = _unpack(_HEADER, body, place)
        place += _HEADER.size
        end = place + name_size + value_size
        if end > len(body):
            raise ValueError(f"header ends at byte {end} of {len(body)}")
        name = body[place : place + name_size].decode()  # a UnicodeDecodeError is a ValueError
        headers.append((name, body[end - value_size : end]))
        place = end
    return tuple(headers), place


def _unpack(layout: struct.Struct, body: bytes, place: int) -> Sequence[int]:
    if place + layout.size > len(body):
        raise ValueError(f"{layout.size} bytes expected at byte {place} of {len(body)}")
    return layout.unpack_from(body, place)
