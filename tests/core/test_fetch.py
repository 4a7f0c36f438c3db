"""A native batch of records: to everybody a sequence of Record, to the native assembler memory that it reads."""

import ctypes
from collections.abc import Iterator, Sequence
from functools import partial
from operator import attrgetter, itemgetter, methodcaller

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core import kernel
from spanloom.core._pure.assembler import Assembler as PureAssembler
from spanloom.core.assembly import Harvest, Limits
from spanloom.model import MOVED_HEADER, Record
from tests.spans import T0_MS, Sp, traces_data

if kernel.fetch is None:
    pytest.skip("there is no native code", allow_module_level=True)


class Message(ctypes.Structure):
    """rd_kafka_message_t."""

    _fields_ = (
        ("err", ctypes.c_int),
        ("topic", ctypes.c_void_p),
        ("partition", ctypes.c_int32),
        ("payload", ctypes.c_char_p),
        ("payload_bytes", ctypes.c_size_t),
        ("key", ctypes.c_char_p),
        ("key_bytes", ctypes.c_size_t),
        ("offset", ctypes.c_int64),
        ("number", ctypes.c_void_p),  # in place of librdkafka's own: which record it is of
    )


MESSAGE = ctypes.POINTER(Message)
SIZE, TEXT, ADDRESS = ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p


LIVING: list["Queue"] = []  # a library outlives the messages that it handed out


class Queue:
    """librdkafka's functions over a list of records; an int in it is an error's code."""

    def __init__(self, entries: Sequence[Record | int]) -> None:
        self.entries = entries
        self.messages = [self._message(number, entry) for number, entry in enumerate(entries)]
        self.destroyed: list[int] = []
        self._at = 0
        self._text = ctypes.create_string_buffer(b"it broke")
        self._kept = [
            ctypes.CFUNCTYPE(ctypes.c_ssize_t, ADDRESS, ctypes.c_int, ctypes.POINTER(MESSAGE), SIZE)(self._consume),
            ctypes.CFUNCTYPE(ctypes.c_int64, MESSAGE, ADDRESS)(self._timestamp),
            ctypes.CFUNCTYPE(ctypes.c_int, MESSAGE, ctypes.POINTER(ADDRESS))(self._headers),
            ctypes.CFUNCTYPE(
                ctypes.c_int, ADDRESS, SIZE, ctypes.POINTER(TEXT), ctypes.POINTER(TEXT), ctypes.POINTER(SIZE)
            )(self._header),
            ctypes.CFUNCTYPE(ADDRESS, MESSAGE)(lambda _: ctypes.cast(self._text, ADDRESS).value),
            ctypes.CFUNCTYPE(None, MESSAGE)(lambda message: self.destroyed.append(self._number(message))),
        ]
        assert kernel.fetch is not None
        taker = kernel.fetch.Taker(*(ctypes.cast(function, ADDRESS).value or 0 for function in self._kept))
        self.take = partial(taker.take, 0)
        LIVING.append(self)

    @staticmethod
    def _message(number: int, entry: Record | int) -> Message:
        if isinstance(entry, int):
            return Message(err=entry, number=number + 1)
        key = entry.key
        return Message(
            payload=entry.value, payload_bytes=len(entry.value), key=key, key_bytes=len(key or b""),
            offset=entry.offset, number=number + 1,
        )  # fmt: skip

    @staticmethod
    def _number(message: "ctypes._Pointer[Message]") -> int:
        return int(message.contents.number) - 1

    def _of(self, number: int) -> Record:
        entry = self.entries[number]
        assert isinstance(entry, Record)
        return entry

    def _consume(self, _: int, __: int, slots: "ctypes.Array[ctypes._Pointer[Message]]", most: int) -> int:
        given_out = self.messages[self._at : self._at + most]
        for place, message in enumerate(given_out):
            slots[place] = ctypes.pointer(message)
        self._at += len(given_out)
        return len(given_out)

    def _timestamp(self, message: "ctypes._Pointer[Message]", _: int) -> int:
        return self._of(self._number(message)).timestamp_ms

    def _headers(self, message: "ctypes._Pointer[Message]", found: "ctypes._Pointer[ctypes.c_void_p]") -> int:
        number = self._number(message)
        found[0] = number + 1
        return 0 if self._of(number).headers else -156

    def _header(self, number: int, index: int, *found: "ctypes._Pointer[ctypes.c_char_p]") -> int:
        headers = self._of(number - 1).headers
        if index >= len(headers):
            return -156
        name, value, size = found
        self._last = (headers[index][0].encode(), headers[index][1])  # alive until the next is asked for
        name[0], value[0], size[0] = self._last[0], self._last[1], len(self._last[1])
        return 0


headers = st.lists(st.tuples(st.sampled_from([MOVED_HEADER, "ot", "ä", ""]), st.binary(max_size=9)), max_size=3)
contents = st.tuples(
    st.integers(1, 3), st.integers(-(2**63), 2**63 - 1), st.none() | st.binary(max_size=40), st.binary(max_size=200),
    headers.map(tuple),
)  # fmt: skip


def records_of(drawn: list[tuple[int, int, bytes | None, bytes, tuple[tuple[str, bytes], ...]]]) -> Iterator[Record]:
    """Offsets ascend, with gaps."""
    offset = 0
    for step, timestamp_ms, key, value, its_headers in drawn:
        offset += step
        yield Record(offset, timestamp_ms, key, value, its_headers)


@given(st.lists(contents, max_size=20), st.integers(0, 30), st.integers(1, 25))
def test_a_batch_is_the_records_that_were_in_the_queue(
    drawn: list[tuple[int, int, bytes | None, bytes, tuple[tuple[str, bytes], ...]]], first: int, most: int
) -> None:
    """Key, value, time and headers of every record from the offset asked for on; whole, sliced and from the end."""
    records = list(records_of(drawn))
    queue = Queue(records)
    batch, problem = queue.take(most, first)
    expected = [record for record in records[:most] if record.offset >= first]
    assert problem is None
    assert list(batch) == expected
    assert len(batch) == len(expected)
    assert list(batch[1:-1]) == expected[1:-1]
    assert [batch[-at - 1] for at in range(len(batch))] == expected[::-1]
    assert list(batch[::2]) == expected[::2]
    with pytest.raises(IndexError):
        batch[len(expected)]
    held = {records.index(record) for record in expected}
    assert set(queue.destroyed) == set(range(min(most, len(records)))) - held
    part = batch[:1]
    del batch
    assert set(queue.destroyed).isdisjoint(held), "a slice holds on to all"
    del part
    assert sorted(queue.destroyed) == list(range(min(most, len(records))))


def test_a_batch_is_empty_once_its_consumer_is_closed() -> None:
    """Its messages go back at once, and only once; whoever looks into it still is told why he cannot."""
    queue = Queue([Record(0, T0_MS, b"key", b"value"), Record(1, T0_MS, None, b"")])
    batch, _ = queue.take(10, 0)
    batch.memory.release()
    assert queue.destroyed == [0, 1]
    for look in (itemgetter(0), attrgetter("end"), methodcaller("size_bytes"), methodcaller("within", 1)):
        with pytest.raises(ValueError, match="their consumer is closed"):
            look(batch)
    with pytest.raises(ValueError, match="their consumer is closed"):
        kernel.Assembler(Limits(), partition=0, partition_count=1).feed(batch)
    del batch
    assert queue.destroyed == [0, 1]


def test_nothing_is_taken_beyond_an_error() -> None:
    """An error in the queue ends the batch; what came with it and after it is given back to librdkafka, and dropped."""
    record = Record(0, T0_MS, b"key", b"value")
    queue = Queue([record, -140, record._replace(offset=5)])
    batch, problem = queue.take(10, 0)
    assert list(batch) == [record]
    assert problem == (-140, "it broke")
    assert queue.destroyed == [1, 2]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(0, 1000))
def test_a_batch_is_cut_where_its_bytes_are_enough(sizes: list[int], most_bytes: int) -> None:
    """`within` gives as many records as fit, one at least; `end` is the offset after the last of a slice."""
    records = [Record(at, T0_MS, None, bytes(size)) for at, size in enumerate(sizes)]
    batch, _ = Queue(records).take(100, 0)
    count = batch.within(most_bytes)
    assert count == 1 or sum(sizes[:count]) <= most_bytes
    assert count == len(sizes) or sum(sizes[: count + 1]) > most_bytes
    assert batch[:count].end == count
    assert batch.size_bytes() == sum(sizes)


@pytest.mark.parametrize("make", [kernel.Assembler, PureAssembler])
def test_both_kernels_read_a_batch_as_they_read_records(make: type[PureAssembler]) -> None:
    """The same harvest, rejects with key and headers included, from a batch, its slices and plain records."""
    good = [traces_data([Sp(trace, 1)]) for trace in range(40)]
    values = [b"\xff\xff poison" if at % 9 == 4 else value for at, value in enumerate(good)]
    tagged = ((MOVED_HEADER, b"1"), ("own", b"kept"))
    records = [Record(at, T0_MS + 700 * at, b"key", value, tagged * (at % 3 == 0)) for at, value in enumerate(values)]
    batch, _ = Queue(records).take(100, 0)
    harvests = []
    for parts in ([records], [batch], [batch[:13], batch[13:14], batch[14:]]):
        assembler = make(Limits(), partition=0, partition_count=3)
        found = sum((assembler.feed(part) for part in parts), Harvest())
        decided = b"".join(body[4:] for body in found.decisions)
        harvests.append((decided, found.fragments, found.rejects, found.moves, assembler.statistics()))
    assert harvests[0] == harvests[1] == harvests[2]
    assert len(harvests[0][2]) > 4
    assert harvests[0][3]
