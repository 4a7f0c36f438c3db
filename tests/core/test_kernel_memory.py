"""The native kernel gives back what it takes, and refuses what it cannot take."""

import resource
from itertools import count
from random import Random

import pytest

from spanloom.core.assembly import Limits, Position, Tally
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Record
from tests.core.kernel_pair import POLICIES, T0_MS, Kernel
from tests.core.kernels import BOTH, assembler_class
from tests.core.otlp_bytes import Universe, Writer

UNIVERSE = Universe(traces=1 << 40, spans=6, plain=True)
LIMITS = Limits(remember_ns=60_000_000_000)


def new_native() -> Kernel:
    return assembler_class("native")(LIMITS, partition=0, partition_count=1)


def rss_kib() -> int:
    """Highest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def live(kernel: Kernel, values: list[bytes], rounds: int) -> None:
    """Feed the values again and again, each round a minute later, and settle all that comes of them."""
    offset = count(kernel.statistics().offset)
    at_ms = max(T0_MS, kernel.statistics().stream_ns // 1_000_000)
    for _ in range(rounds):
        at_ms += 120_000
        harvest = kernel.feed([Record(next(offset), at_ms, None, value) for value in values])
        fragments = kernel.confirm(sum(int.from_bytes(body[:4], "little") for body in harvest.decisions))
        for fragment in fragments:
            kernel.resolve(fragment.decision, "stored")
        kernel.safe_position()


def test_memory_stands_still_however_many_traces_have_passed() -> None:
    """Half a million spans through one assembler, and through many, leave memory where the first ones brought it."""
    writer = Writer(Random(1), UNIVERSE)
    values = [writer.traces_data() for _ in range(2000)]
    kernel = new_native()
    kernel.configure(parse_policies(POLICIES, version=1))
    live(kernel, values, 10)
    before = rss_kib()
    live(kernel, values, 100)
    for _ in range(10):
        kernel = new_native()
        kernel.configure(parse_policies(POLICIES, version=1))
        live(kernel, values, 2)
    assert rss_kib() - before < 4096
    statistics = kernel.statistics()
    assert statistics.tally.received > 4000
    assert statistics.open_traces < 4000


def test_a_kept_fragment_may_outlive_its_assembler() -> None:
    """What was handed out is the caller's: its assembler can go."""
    kernel = new_native()
    kernel.configure(
        parse_policies([POLICIES[0], {"name": "all", "type": "latency", "latency": {"threshold_ms": 0}}], version=1)
    )
    writer = Writer(Random(2), UNIVERSE)
    harvest = kernel.feed([Record(0, T0_MS, None, writer.traces_data() + writer.traces_data())])
    harvest += kernel.shed(0)
    fragments = kernel.confirm(sum(int.from_bytes(body[:4], "little") for body in harvest.decisions))
    spans = [fragment.spans for fragment in fragments]
    del kernel
    assert spans == [fragment.spans for fragment in fragments]
    assert all(spans)


@pytest.mark.parametrize(
    "wrong",
    [
        (0, T0_MS, None, bytearray(b""), ()),
        (0, T0_MS, None, None, ()),
        (0, T0_MS, None, b""),
        (0.5, T0_MS, None, b"", ()),
        (0, None, None, b"", ()),
        object(),
    ],
)
def test_what_is_no_record_is_refused(wrong: object) -> None:
    """Anything but a Record with bytes in it is a TypeError, never a read of foreign memory; nothing was fed."""
    kernel = new_native()
    with pytest.raises(TypeError):
        kernel.feed([Record(0, T0_MS, None, b""), wrong])  # type: ignore[list-item]
    assert kernel.statistics().offset == 0


@pytest.mark.parametrize("name", BOTH)
def test_a_timestamp_that_no_clock_shows_is_taken_as_the_far_future(name: str) -> None:
    """A hostile timestamp neither fails nor overflows: what is safe to commit can still be written down."""
    kernel: Kernel = assembler_class(name)(LIMITS, partition=0, partition_count=1)
    kernel.feed([Record(0, 1 << 62, None, b""), Record(1, -(1 << 70), None, b""), Record(2, T0_MS, None, b"")])
    position = kernel.safe_position()
    assert position.offset == 3
    assert all(-(1 << 63) <= number < 1 << 63 for number in position[:3])


def test_an_assembler_that_was_fed_cannot_be_restored() -> None:
    """A committed position is where an assembler begins, not where it is put later."""
    kernel = new_native()
    kernel.feed([Record(0, T0_MS, None, Writer(Random(3), UNIVERSE).traces_data() * 2)])
    with pytest.raises(AssertionError):
        kernel.restore(Position(0, 0, -1, Tally()))
