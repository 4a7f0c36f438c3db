"""Requests out of bytes, however they arrive."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.adapters.http_wire import End, Event, Fault, Head, RequestReader

HEAD = b"POST /x?a=1 HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX-A: 1\r\nx-a: 2\r\n\r\n"
CHUNKED = (
    b"POST /y HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n"
)
UPGRADE = b"POST /z HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
LAST = b"GET /end HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
STREAM = HEAD + b"abc" + CHUNKED + UPGRADE + b"\r\n" + LAST


def read(data: bytes, *cuts: int, head_bytes_max: int = 1000) -> list[Event]:
    """What comes of *data* fed in pieces; neighbouring pieces of a body as one."""
    reader = RequestReader(head_bytes_max=head_bytes_max)
    events: list[Event] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in pairwise(edges):
        reader.feed(data[start:stop])
        while (event := reader.next_event()) is not None:
            if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
                event = events.pop() + event  # type: ignore[operator] # just looked at
            events.append(event)
    return events


def test_requests_come_out_in_order() -> None:
    """Head, body, end; names in lower case, repeated values joined, trailers and a wish to upgrade left out."""
    assert read(STREAM) == [
        Head("POST", "/x?a=1", {"host": "h", "content-length": "3", "x-a": "1, 2"}, True),
        b"abc",
        End.END,
        Head("POST", "/y", {"host": "h", "transfer-encoding": "chunked"}, True),
        b"abcde",
        End.END,
        Head("POST", "/z", {"host": "h", "connection": "Upgrade", "content-length": "2"}, True),
        b"ok",
        End.END,
        Head("GET", "/end", {"host": "h", "connection": "close"}, False),
        End.END,
    ]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_it_does_not_matter_how_the_bytes_arrive(cuts: list[int]) -> None:
    """Any pieces give the same requests."""
    assert read(STREAM, *cuts) == read(STREAM)


@given(st.integers(0, 1 << 32), st.lists(st.integers(0, len(STREAM)), max_size=4))
def test_damage_ends_in_a_fault_or_another_request(seed: int, cuts: list[int]) -> None:
    """Changed bytes crash nothing, and nothing follows a fault."""
    random = Random(seed)
    data = bytearray(STREAM)
    for _ in range(random.randrange(1, 4)):
        data[random.randrange(len(data))] = random.choice(b"\r\n :;0aP\x00\xff")
    events = read(bytes(data), *(min(cut, len(data)) for cut in cuts))
    faults = [index for index, event in enumerate(events) if isinstance(event, Fault)]
    assert faults in ([], [len(events) - 1])


@given(st.binary(), st.lists(st.integers(0, 20), max_size=3))
def test_junk_is_no_request(data: bytes, cuts: list[int]) -> None:
    """Bytes that are no HTTP end in a fault at most."""
    assert all(isinstance(event, Fault) for event in read(data, *(min(cut, len(data)) for cut in cuts)))


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"x" * 2000,
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 400,
        b"GET / HTTP/1.1\r\nA: " + b"x" * 2000,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: " + b"x" * 2000,
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;" + b"x" * 2000,
    ],
)
@pytest.mark.parametrize("step", [1, 100, 1000])
def test_a_head_or_trailer_without_end_is_cut_off(endless: bytes, step: int) -> None:
    """What is neither body nor a whole head is not gathered for ever, in whatever steps it comes."""
    fault = read(endless, *range(step, len(endless), step))[-1]
    assert isinstance(fault, Fault)
    assert fault.status == 431


def test_a_head_just_below_the_limit_passes() -> None:
    """The limit is the head's size, not what one read brought."""
    body = b"x" * 5000
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\nA: " + b"y" * 900 + b"\r\n\r\n"
    assert read(head + body)[-1] is End.END


def test_a_body_is_not_bounded_here() -> None:
    """A long chunked body in small pieces is no endless head."""
    chunked = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n"
    assert read(chunked, *range(7, len(chunked), 7))[-2:] == [b"x" * 3000, End.END]
