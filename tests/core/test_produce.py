"""Native sending: each record goes out as it was given, and a call is told once, when all of its records are."""

import ctypes
import gc
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from spanloom.core import kernel
from spanloom.model import Message

if TYPE_CHECKING:
    from spanloom._native.produce import Pending

if kernel.produce is None:
    pytest.skip("there is no native code", allow_module_level=True)

FULL = -184
TOPIC, PARTITION, VALUE, KEY, OWNER, FLAGS, TIMESTAMP, HEADER = range(2, 10)  # rd_kafka_vtype_t
ADDRESS, SIZE = ctypes.c_void_p, ctypes.c_size_t


class _Bytes(ctypes.Structure):
    _fields_ = (("at", ADDRESS), ("size", SIZE))


class _Header(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("at", ADDRESS), ("size", ctypes.c_ssize_t))


class _Of(ctypes.Union):
    _fields_ = (
        ("pointer", ADDRESS),
        ("number", ctypes.c_int32),
        ("wide", ctypes.c_int64),
        ("bytes", _Bytes),
        ("header", _Header),
        ("padding", ctypes.c_char * 64),
    )


class Argument(ctypes.Structure):
    """rd_kafka_vu_t."""

    _fields_ = (("type", ctypes.c_int), ("of", _Of))


class Report(ctypes.Structure):
    """rd_kafka_message_t."""

    _fields_ = (("error", ctypes.c_int), ("unused", ADDRESS * 6), ("offset", ctypes.c_int64), ("owner", ADDRESS))


class Producer:
    """librdkafka's functions, around a list of what was produced; `room` of records, then it is full."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.sent: list[dict[str, object]] = []
        self.owners: list[int] = []  # of the records not reported on
        self.events: list[list[Report]] = []
        self.kept: list[Report] = []
        functions = [
            ctypes.CFUNCTYPE(ADDRESS, ADDRESS, ctypes.POINTER(Argument), SIZE)(self._produce),
            ctypes.CFUNCTYPE(ctypes.c_int32, ADDRESS)(lambda _: FULL),
            ctypes.CFUNCTYPE(None, ADDRESS)(lambda _: None),
            ctypes.CFUNCTYPE(ADDRESS, ADDRESS, ctypes.c_int)(lambda _, __: len(self.events) or None),
            ctypes.CFUNCTYPE(ADDRESS, ADDRESS)(self._next),
            ctypes.CFUNCTYPE(None, ADDRESS)(lambda _: self.events.pop() and None),
        ]
        self._functions = functions
        assert kernel.produce is not None
        self.sender = kernel.produce.Sender(1, 2, *(ctypes.cast(each, ADDRESS).value or 0 for each in functions))

    def send(self, pending: "Pending", *messages: Message) -> tuple[int, int]:
        """To partition 3 of topic 77."""
        return self.sender.send([("spans", 3, message) for message in messages], {"spans": 77}, pending)

    def report(self, *errors: int) -> None:
        """An event: the next records' fates."""
        reports = [Report(error=error, owner=self.owners.pop(0)) for error in errors]
        self.kept += reports
        self.events.append(reports)

    def _produce(self, _: int, arguments: "ctypes._Pointer[Argument]", count: int) -> int | None:
        if len(self.sent) == self.room:
            return 1
        found = [arguments[number] for number in range(count)]
        by_type = {each.type: each.of for each in found}
        key = by_type.get(KEY)
        self.sent.append(
            {
                "topic": by_type[TOPIC].pointer,
                "partition": by_type[PARTITION].number,
                "flags": by_type[FLAGS].number,
                "value": ctypes.string_at(by_type[VALUE].bytes.at, by_type[VALUE].bytes.size),
                "key": key and ctypes.string_at(key.bytes.at, key.bytes.size),
                "timestamp": by_type[TIMESTAMP].wide if TIMESTAMP in by_type else None,
                "headers": tuple(
                    (each.of.header.name.decode(), ctypes.string_at(each.of.header.at, each.of.header.size))
                    for each in found
                    if each.type == HEADER
                ),
            }
        )
        self.owners.append(by_type[OWNER].pointer)
        return None

    def _next(self, _: int) -> int | None:
        return ctypes.addressof(self.events[-1].pop(0)) if self.events[-1] else None


class Owner:
    """Something that settle gives back."""


def pending(owner: object, count: int, timestamp_ms: int = 0) -> "Pending":
    assert kernel.produce is not None
    return kernel.produce.Pending(owner, count, timestamp_ms)


def some(count: int) -> Iterator[Message]:
    return (Message(b"key", b"value") for _ in range(count))


def test_a_record_goes_out_as_it_was_given() -> None:
    """Topic, partition, key, value, headers and time are the message's own, zeros and empty parts included."""
    producer = Producer()
    headers = tuple((f"header-{number} ü", b"\x00" * number) for number in range(40))
    messages = [Message(None, b""), Message(b"", b"\x00a"), Message(b"k\x00", b"v", headers)]
    assert producer.send(pending("a call", 3, 12345), *messages) == (3, 0)
    assert producer.sent == [
        {
            "topic": 77,
            "partition": 3,
            "flags": 2,
            "value": message.value,
            "key": message.key,
            "timestamp": 12345,
            "headers": message.headers,
        }
        for message in messages
    ]
    assert producer.send(pending("a call", 1), Message(None, b"")) == (1, 0)
    assert producer.sent[-1]["timestamp"] is None


def test_a_call_is_told_once_when_all_of_its_records_are_reported_on() -> None:
    """Reports may come in any portions; the first error's code is the call's."""
    producer = Producer()
    producer.send(pending("first", 3), *some(3))
    producer.send(pending("second", 2), *some(2))
    producer.report(0, -5)
    assert producer.sender.settle(0) == []
    producer.report(-7, 0)
    assert producer.sender.settle(0) == [("first", -5)]
    producer.report(0)
    assert producer.sender.settle(0) == [("second", 0)]
    assert producer.sender.settle(0) == []


def test_all_events_that_are_there_are_taken_at_once() -> None:
    """A batch a partition is reported on by an event of its own: one look is enough for them."""
    producer = Producer()
    producer.send(pending("a call", 4), *some(4))
    for _ in range(4):
        producer.report(0)
    assert producer.sender.settle(0) == [("a call", 0)]


def test_a_full_queue_takes_the_first_records() -> None:
    """What went in and why no more did is told; the others may be sent later, or given up."""
    producer = Producer(room=2)
    call = pending("a call", 5)
    assert producer.send(call, *some(5)) == (2, FULL)
    producer.room = 3
    assert producer.send(call, *some(3)) == (1, FULL)
    producer.report(0, 0, 0)
    assert producer.sender.settle(0) == []
    call.give_up()


def test_what_was_given_up_is_not_waited_for() -> None:
    """The records that went in end the call."""
    producer = Producer(room=2)
    call = pending("a call", 5)
    producer.send(call, *some(5))
    call.give_up()
    call.give_up()
    producer.report(0, 0)
    assert producer.sender.settle(0) == [("a call", 0)]


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_call_lives_as_long_as_reports_may_come(room: int) -> None:
    """Neither freed under librdkafka, nor kept when all is over."""
    producer, owner = Producer(room), Owner()
    gone = weakref.ref(owner)
    call = pending(owner, 3)
    producer.send(call, *some(3))
    call.give_up()
    del call, owner
    gc.collect()
    assert (gone() is None) == (room == 0)
    if room:
        producer.report(*[0] * room)
        assert len(producer.sender.settle(0)) == 1
    assert gone() is None


BROKEN = [
    Message(b"k", None),  # type: ignore[arg-type]
    Message("k", b"v"),  # type: ignore[arg-type]
    Message(b"k", b"v", (("header", "text"),)),  # type: ignore[arg-type]
    Message(b"k", b"v", (("header", None),)),  # type: ignore[arg-type]
    Message(b"k", b"v", ((b"header", b"v"),)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_message_that_is_none_is_refused_and_what_went_before_it_counts(broken: Message) -> None:
    """A bug of ours raises, and the records that were sent already are still reported on."""
    producer = Producer()
    call = pending("a call", 2)
    with pytest.raises(TypeError):
        producer.send(call, *some(1), broken)
    call.give_up()
    producer.report(0)
    assert producer.sender.settle(0) == [("a call", 0)]
