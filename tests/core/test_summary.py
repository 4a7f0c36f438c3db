"""The native summary equals the pure one, on whatever a fragment may hold."""

import math
from collections.abc import Callable
from importlib import import_module
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from spanloom.core._pure import summary as pure
from spanloom.core._pure.summary import ATTRIBUTE_CHARS_MAX, ATTRIBUTES_MAX, NAME_CHARS_MAX, Summary
from spanloom.errors import DecodeError
from tests.core.kernels import native_kernel
from tests.core.otlp_bytes import Universe, Writer, varint
from tests.spans import Sp, traces_data

TEXTS = ("", "a", "käse", "\U0001f9c0", "\x00", "\ufffd", "x" * 300, "ä" * 1100, '"\\')
KEYS = ("", "k", "k", "a.b", "a", "b", "schlüssel", "ö" * 300, "http.route", "undecodable")
NUMBERS = (0, 1, -1, 127, 128, (1 << 63) - 1, -(1 << 63), 10**15)
REALS = (0.0, -0.0, 1.5, 0.1, 1e16, 1e22, 5e-324, 2.0**-44, 1e-5, math.nan, math.inf, -math.inf, 9007199254740993.0)
BROKEN = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80", b"\xf0\x80\x80\x80")


def native() -> Callable[[bytes], Summary]:
    native_kernel()  # fails or skips where there is none
    found: Callable[[bytes], Summary] = import_module("spanloom._native.otlp").summarise
    return found


def outcome(summarise: Callable[[bytes], Summary], data: bytes) -> object:
    """The summary with its attributes in their order, or the facts of the DecodeError."""
    try:
        found = summarise(data)
    except DecodeError as exc:
        return (exc.reason, exc.expected, exc.found, exc.position)
    return found, list(found.attributes.items())


def agree(data: bytes) -> None:
    """Both say the same."""
    assert outcome(native(), data) == outcome(pure.summarise, data), data.hex()


def fill(random: Random, value: AnyValue, depth: int) -> None:
    """Any value, nested or not."""
    match random.randrange(9 if depth else 6):
        case 0:
            value.string_value = random.choice(TEXTS)
        case 1:
            value.int_value = random.choice(NUMBERS)
        case 2:
            value.double_value = random.choice(REALS)
        case 3:
            value.bool_value = random.random() < 0.5
        case 4:
            value.bytes_value = random.randbytes(random.randrange(5))
        case 6:
            value.array_value.SetInParent()
            for _ in range(random.randrange(4)):
                fill(random, value.array_value.values.add(), depth - 1)
        case 7 | 8:
            value.kvlist_value.SetInParent()
            for _ in range(random.randrange(4)):
                fill(random, value.kvlist_value.values.add(key=random.choice(KEYS)).value, depth - 1)


def some_pairs(random: Random) -> list[KeyValue]:
    """Attributes, some of them more than once, some without a value."""
    pairs = []
    for _ in range(random.choice((0, 1, 3, 3, 8, 8, 150))):
        pair = KeyValue(key=random.choice((*KEYS, f"n{random.randrange(200)}")))
        if random.randrange(20):
            fill(random, pair.value, random.choice((0, 0, 1, 3)))
        pairs.append(pair)
    return pairs


def some_spans(random: Random) -> bytes:
    """A fragment with everything a Span may have."""
    data = TracesData.FromString(
        traces_data(
            [Sp(1, n, parent=random.choice((0, 1)), service=random.choice(TEXTS), start=n % 2) for n in (1, 2, 3)]
        )
    )
    for resource in data.resource_spans:
        resource.resource.attributes.extend(some_pairs(random))
        resource.resource.dropped_attributes_count = random.choice((0, 1, 300))
        for scope in resource.scope_spans:
            for span in scope.spans:
                decorate(random, span)
    return data.SerializeToString()


def decorate(random: Random, span: Span) -> None:
    """Attributes, events, links, status and the rest."""
    span.name = random.choice(TEXTS)
    span.attributes.extend(some_pairs(random))
    span.trace_state = random.choice(("", "ot=th:8", "ot=th:c;rv:00000000000001", "k=a", "ot=th:xyz", "käse"))
    span.flags, span.dropped_links_count = random.choice((0, 1, 1 << 31)), random.choice((0, 5))
    if random.random() < 0.5:
        span.events.add(name=random.choice(TEXTS), time_unix_nano=5).attributes.extend(some_pairs(random)[:3])
        span.links.add(trace_id=b"t" * 16, span_id=b"s" * 8, trace_state="a=b").attributes.extend(
            some_pairs(random)[:3]
        )
    span.status.message = random.choice(TEXTS)
    span.status.code = random.choice(list(Status.StatusCode.values()))
    if random.randrange(10) == 0:
        span.start_time_unix_nano = random.choice((0, 5, 1 << 63))
        span.end_time_unix_nano = random.choice((0, 5, (1 << 64) - 1))


@settings(max_examples=100)
@given(random=st.randoms(use_true_random=False))
def test_any_record_is_summed_up_alike(random: Random) -> None:
    """Valid in every way protobuf allows, or damaged: the same summary, or the same fault."""
    writer = Writer(random, Universe(traces=2, spans=5))
    data = writer.traces_data()
    agree(data)
    agree(writer.damaged(data))


@settings(max_examples=100)
@given(random=st.randoms(use_true_random=False))
def test_any_attributes_are_flattened_alike(random: Random) -> None:
    """Unicode, huge and odd numbers, nested and repeated ones; whole, and with a few bytes changed."""
    data = some_spans(random)
    agree(data)
    agree(Writer(random, Universe(traces=1, spans=1)).damaged(data))


@settings(max_examples=30)
@given(random=st.randoms(use_true_random=False))
def test_a_changed_byte_below_the_framing_is_read_alike(random: Random) -> None:
    """A byte of one span's body becomes another: most of these are still records, and few are still plain."""
    data = bytearray(some_spans(random))
    for _ in range(8):
        at = random.randrange(len(data))
        before, data[at] = data[at], random.choice((0, 0x80, 0xFF, random.randrange(256)))
        agree(bytes(data))
        data[at] = before


@pytest.mark.parametrize("broken", BROKEN, ids=bytes.hex)
@pytest.mark.parametrize("mark", [b"MARKNAME", b"MARKTEXT", b"MARKKEYS", b"MARKEVNT", b"MARKRSRC"])
def test_what_is_no_utf8_is_read_alike(broken: bytes, mark: bytes) -> None:
    """In a name, a value, a key, an event or the resource: protobuf refuses the message, both say what is left."""
    data = TracesData.FromString(traces_data([Sp(1, 1, name="MARKNAME", service="shop")]))
    span = data.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="a").value.string_value = "MARKTEXT"
    span.attributes.add(key="MARKKEYS").value.bool_value = True
    span.events.add(name="MARKEVNT")
    data.resource_spans[0].resource.attributes.add(key="r").value.string_value = "MARKRSRC"
    agree(data.SerializeToString().replace(mark, broken.ljust(len(mark), b"x")))


def nested(depth: int) -> bytes:
    """An AnyValue of lists in maps, so many messages deep."""
    value = b""
    for level in range(depth):
        value = field(5, field(1, value)) if level % 2 else field(6, field(1, field(1, b"k") + field(2, value)))
    return value


def field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + varint(len(body)) + body


@pytest.mark.parametrize("depth", [1, 2, 5, 7, 11, 12, 13, 20, 31, 32, 33, 40, 60])
def test_nesting_is_followed_alike(depth: int) -> None:
    """As deep as the native kernel reads by itself, as protobuf's decoder goes, and beyond."""
    data = TracesData.FromString(traces_data([Sp(1, 1)]))
    span = data.resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    span += field(9, field(1, b"deep") + field(2, nested(depth)))
    agree(field(1, field(2, field(2, span))))


def pair(value: bytes) -> bytes:
    """A span's attribute of that AnyValue, or of what stands in its place."""
    return field(9, field(1, b"k") + field(2, value))


def one_text(text: bytes) -> bytes:
    """A list of one text, as the field of an AnyValue."""
    return field(5, field(1, field(1, text)))


ODD = {
    "a value twice": field(9, field(1, b"k") + field(2, field(1, b"a")) + field(2, field(1, b"b"))),
    "a value in two messages": field(9, field(1, b"k") + field(2, one_text(b"a")) + field(2, one_text(b"b"))),
    "a key twice": field(9, field(1, b"k") + field(1, b"l") + field(2, field(1, b"a"))),
    "two kinds in one value": pair(field(1, b"a") + b"\x18\x05"),
    "a list in two parts": pair(one_text(b"a") + one_text(b"b")),
    "a negative number": pair(b"\x18" + b"\xff" * 9 + b"\x01"),
    "a number of too many bits": pair(b"\x18" + b"\xff" * 9 + b"\x03"),
    "a number of far too many bits": pair(b"\x18" + b"\x80" * 9 + b"\x7e"),
    "a padded number": pair(b"\x18\x85\x00"),
    "a padded truth": pair(b"\x10\x81\x00"),
    "a large truth": pair(b"\x10\x02"),
    "a truth of high bits alone": pair(b"\x10" + b"\x80" * 9 + b"\x01"),
    "a padded length": b"\x4a\x87\x00" + field(1, b"k") + field(2, b"\x10\x01"),
    "a padded tag": b"\xca\x00\x07" + field(1, b"k") + field(2, b"\x10\x01"),
    "a key that is an index": field(9, b"\x18\x05"),
    "a value that is an index": pair(b"\x40\x05"),
    "no value": field(9, field(1, b"k")),
    "an empty value": pair(b""),
    "an empty attribute": field(9, b""),
    "an attribute that is a number": b"\x48\x01",
    "a group in an event": field(11, b"\x0b\x0c"),
    "an open group in an event": field(11, b"\x0b"),
    "a short double": pair(b"\x25\x00\x00\x00\x00"),
    "an unknown field": b"\xa2\x06\x01x",
    "a cut event": field(11, b"\x12\x05a"),
}


@pytest.mark.parametrize("odd", ODD)
def test_what_no_usual_sender_writes_is_read_alike(odd: str) -> None:
    """Parts that protobuf merges, values of the wrong length or type, fields of tomorrow."""
    data = TracesData.FromString(traces_data([Sp(1, 1)]))
    span = data.resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    span += pair(field(1, b"before")) + ODD[odd] + field(9, field(1, b"after") + field(2, b"\x10\x01"))
    agree(field(1, field(2, field(2, span))))


@pytest.mark.parametrize("count", [0, 1, 2, 100, 3000])
def test_many_names_are_told_apart_alike(count: int) -> None:
    """Services and operations: distinct, in order, bounded."""
    spans = [Sp(1, n, name=f"op {n % 1500}", service=f"s{n % 7}") for n in range(1, count + 1)]
    agree(traces_data(spans))


def test_a_usual_fragment_needs_no_second_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """What every sender writes is plain to the native kernel: it never asks the pure one."""
    data = TracesData.FromString(traces_data([Sp(1, 1, service="shop")]))
    span = data.resource_spans[0].scope_spans[0].spans[0]
    span.attributes.add(key="n").value.int_value = -5
    span.attributes.add(key="d").value.double_value = 0.25
    span.attributes.add(key="l" * NAME_CHARS_MAX).value.string_value = "ä" * (ATTRIBUTE_CHARS_MAX + 1)
    for number in range(ATTRIBUTES_MAX):
        span.attributes.add(key=f"k{number}").value.bool_value = True
    span.events.add(name="exception").attributes.add(key="t").value.string_value = "E"
    expected = pure.summarise(data.SerializeToString())
    module = import_module("spanloom._native.otlp")
    for name in ("searchable", "flattened"):
        monkeypatch.setattr(module, name, None)
    assert module.summarise(data.SerializeToString()) == expected
