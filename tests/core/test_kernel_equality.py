"""The native kernel equals the pure one: the same calls bring the same answers, bit for bit, whatever is fed."""

from collections.abc import Callable
from functools import partial
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanloom.core._pure import stamping, wire
from spanloom.errors import DecodeError
from tests.core.kernel_pair import Life, Maker, make
from tests.core.kernels import assembler_class, native_kernel
from tests.core.otlp_bytes import Universe, Writer

UNIVERSES = (
    Universe(traces=3, spans=4),
    Universe(traces=8, spans=5),
    Universe(traces=40, spans=6),
    Universe(traces=6, spans=60),
    Universe(traces=1000, spans=4),
    Universe(traces=3000, spans=3, plain=True),
)


def both_makers() -> tuple[Maker, Maker]:
    return partial(make, assembler_class("pure")), partial(make, assembler_class("native"))


def outcome(read: Callable[[bytes], object], data: bytes) -> object:
    """What *read* gives, or the facts of its DecodeError."""
    try:
        return read(data)
    except DecodeError as exc:
        return (exc.reason, exc.expected, exc.found, exc.position)


def scan_both(random: Random) -> None:
    """Scan, split and stamp one record, four times in five a damaged one, with both kernels."""
    writer = Writer(random, Universe(traces=5, spans=5))
    data = writer.traces_data()
    if random.randrange(5):
        data = writer.damaged(data)
    native = native_kernel()
    assert outcome(native.scan, data) == outcome(wire.scan, data), data.hex()
    assert outcome(native.split_by_trace, data) == outcome(wire.split_by_trace, data), data.hex()
    threshold = random.choice((0, 1, 1 << 55, 1 << 56, random.randrange(1 << 56)))
    stamped = outcome(lambda record: stamping.stamp(record, threshold), data)
    assert outcome(lambda record: native.stamp(record, threshold), data) == stamped, data.hex()


@settings(max_examples=300)
@given(random=st.randoms(use_true_random=False))
def test_any_bytes_are_scanned_split_and_stamped_alike(random: Random) -> None:
    """Both kernels find the same spans, make the same parts and stamps, and name the same first fault and its byte."""
    scan_both(random)


@given(data=st.binary(max_size=200))
def test_noise_is_refused_alike(data: bytes) -> None:
    """Bytes that nobody meant as a record get the same answer from both."""
    assert outcome(native_kernel().scan, data) == outcome(wire.scan, data)


@settings(max_examples=60)
@given(random=st.randoms(use_true_random=False))
def test_any_life_is_lived_alike(random: Random) -> None:
    """Whatever a partition goes through, both assemblers give the same harvests, books, states and failures."""
    Life(random, both_makers(), random.choice(UNIVERSES)).run(random.randrange(1, 40))


@pytest.mark.parametrize("seed", range(60))
def test_a_long_life_is_lived_alike(seed: int) -> None:
    """The same by seed, longer: restarts recall what was decided and rebuild it."""
    random = Random(seed)
    for _ in range(20):
        scan_both(random)
    Life(random, both_makers(), random.choice(UNIVERSES)).run(60)
