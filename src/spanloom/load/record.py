"""The record of what a load sent: what an independent check holds the log and the store against.

Append-only, one entry a request once its fate is known. An entry is written in one call before the next request takes
the connection, so what survives the death of this process is whole; a torn last entry is left out on reading. Not
synced: a power cut may take the end. Requests still on their way have no entry; only acknowledged ones are promised.

    header  8 B  "SPANREC" and the format version, 1
    entry   u32 length of the rest, u32 CRC-32 of the rest, then the rest:
            u64 request number, u8 fate, then for each span 34 B as in workload.SENT_SPAN:
            16 B trace id, 8 B span id, u8 kind, u64 XXH64 of the span's protobuf bytes, u8 1 if its status is ERROR

All integers are little-endian.
"""

import struct
import zlib
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from spanloom.errors import ConfigError, DecodeError
from spanloom.load.workload import SENT_SPAN

_HEADER = b"SPANREC\x01"
_ENTRY = struct.Struct("<II")
_REQUEST = struct.Struct("<QB")
_ENTRY_BYTES_MAX = 1 << 28  # eight million spans: a longer entry is not ours


class Fate(IntEnum):
    """What became of a request."""

    ABANDONED = 0  # no answer in time: it may be in the log or not
    ACKNOWLEDGED = 1  # every span of it is promised
    PARTIAL = 2  # acknowledged, but the answer says some spans were rejected, not which
    REFUSED = 3  # an answer that no retry would change


class SentSpan(NamedTuple):
    """One span of a request."""

    trace_id: bytes
    span_id: bytes
    kind: int
    content: int
    error: bool


class Entry(NamedTuple):
    """One request and what became of it."""

    number: int
    fate: Fate
    spans: list[SentSpan]


class LoadRecorder:
    """Appends entries to a new record file; a context manager."""

    def __init__(self, path: Path) -> None:
        """Create *path*. Raises ConfigError where it exists (a record is evidence) or cannot be written."""
        try:
            self._file = path.open("xb", buffering=0)
        except FileExistsError:
            raise ConfigError(f"record: expected a new file, found an existing one: {path}") from None
        except OSError as error:
            raise ConfigError(f"record: expected a file that can be created, found {path}: {error.strerror}") from error
        self._file.write(_HEADER)

    def __enter__(self) -> "LoadRecorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, number: int, fate: Fate, sent: bytes) -> None:
        """Record the fate of request *number*; *sent* is its spans as SENT_SPAN packs them."""
        rest = _REQUEST.pack(number, fate) + sent
        unwritten = memoryview(_ENTRY.pack(len(rest), zlib.crc32(rest)) + rest)
        while unwritten:  # one call, but for a disk that takes only a part
            unwritten = unwritten[self._file.write(unwritten) :]


def read_record(path: Path) -> Iterator[Entry]:
    """Every whole entry in order of writing. Raises DecodeError where an entry before the last is damaged."""
    with path.open("rb") as file:
        header = file.read(len(_HEADER))
        if header != _HEADER:
            raise DecodeError("version", f"a load record starting {_HEADER!r}", repr(header), 0)
        while True:
            at = file.tell()
            prefix = file.read(_ENTRY.size)
            if len(prefix) < _ENTRY.size:
                return
            length, checksum = _ENTRY.unpack(prefix)
            if not _REQUEST.size <= length <= _ENTRY_BYTES_MAX:
                raise DecodeError("length", "the length of an entry", str(length), at)
            rest = file.read(length)
            if len(rest) < length:
                return
            if zlib.crc32(rest) != checksum:
                raise DecodeError("checksum", f"CRC-32 {checksum:08x}", f"{zlib.crc32(rest):08x}", at)
            number, fate = _REQUEST.unpack_from(rest)
            spans = [
                SentSpan(trace_id, span_id, kind, content, error == 1)
                for trace_id, span_id, kind, content, error in SENT_SPAN.iter_unpack(rest[_REQUEST.size :])
            ]
            yield Entry(number, Fate(fate), spans)
