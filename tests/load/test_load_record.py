"""The record of a load survives what it is for: the sudden death of who writes it."""

from pathlib import Path

import pytest

from spanloom.errors import ConfigError, DecodeError
from spanloom.load.record import Entry, Fate, LoadRecorder, SentSpan, read_record
from spanloom.load.workload import SENT_SPAN

FIRST = SentSpan(bytes(range(16)), b"\x01" * 8, 2, 0xFEDC_BA98_7654_3210, error=True)
SECOND = SentSpan(bytes(range(1, 17)), b"\x02" * 8, 5, 7, error=False)


def write_two(path: Path) -> None:
    with LoadRecorder(path) as recorder:
        recorder.append(0, Fate.ACKNOWLEDGED, SENT_SPAN.pack(*FIRST) + SENT_SPAN.pack(*SECOND))
        recorder.append(1, Fate.ABANDONED, SENT_SPAN.pack(*SECOND))


def test_a_record_reads_back_what_was_written(tmp_path: Path) -> None:
    """Number, fate and spans come back in order."""
    path = tmp_path / "record"
    write_two(path)
    assert list(read_record(path)) == [
        Entry(0, Fate.ACKNOWLEDGED, [FIRST, SECOND]),
        Entry(1, Fate.ABANDONED, [SECOND]),
    ]


def test_a_torn_last_entry_is_left_out(tmp_path: Path) -> None:
    """Cut anywhere in its last entry, a record still gives the entries before."""
    path = tmp_path / "record"
    write_two(path)
    whole = path.read_bytes()
    last_bytes = 8 + 9 + SENT_SPAN.size
    for cut in range(1, last_bytes):
        path.write_bytes(whole[:-cut])
        assert [entry.number for entry in read_record(path)] == [0]


def test_damage_before_the_end_is_an_error(tmp_path: Path) -> None:
    """A record whose middle was changed is not trusted."""
    path = tmp_path / "record"
    write_two(path)
    damaged = bytearray(path.read_bytes())
    damaged[30] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DecodeError, match="checksum"):
        list(read_record(path))


def test_another_format_is_refused(tmp_path: Path) -> None:
    """A file of another kind or version is not read as a record."""
    path = tmp_path / "record"
    path.write_bytes(b"SPANREC\x02")
    with pytest.raises(DecodeError, match="version"):
        list(read_record(path))


def test_an_existing_record_is_never_overwritten(tmp_path: Path) -> None:
    """A record is evidence: writing where one exists is refused."""
    path = tmp_path / "record"
    write_two(path)
    with pytest.raises(ConfigError, match="existing"):
        LoadRecorder(path)
    assert len(list(read_record(path))) == 2
