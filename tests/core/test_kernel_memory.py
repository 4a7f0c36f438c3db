"""The native kernel gives back what it takes, and refuses what it cannot take."""

import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import pytest

from spanloom.core.assembly import Harvest, Limits, Position, Tally
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Record
from tests.core.kernel_pair import POLICIES, T0_MS, Kernel
from tests.core.kernels import BOTH, assembler_class
from tests.core.memory import TELLS_HEAP, UNDER_ASAN, heap_bytes, resident_bytes
from tests.core.otlp_bytes import Universe, Writer

ROOT = Path(__file__).parents[2]
UNIVERSE = Universe(traces=1 << 40, spans=6, plain=True)
LIMITS = Limits(remember_ns=60_000_000_000)
REMEMBERED_BYTES_MAX = 24  # a dropped trace that is not forgotten (design, section 9)


def new_native() -> Kernel:
    return assembler_class("native")(LIMITS, partition=0, partition_count=1)


def settle(kernel: Kernel, harvest: Harvest) -> None:
    """Read back what was decided, store what is kept."""
    for fragment in kernel.confirm(sum(int.from_bytes(body[:4], "little") for body in harvest.decisions)):
        kernel.resolve(fragment.decision, "stored")
    kernel.safe_position()


def live(kernel: Kernel, values: list[bytes], rounds: int) -> None:
    """Feed the values again and again, each round a minute later, and settle all that comes of them."""
    offset = count(kernel.statistics().offset)
    at_ms = max(T0_MS, kernel.statistics().stream_ns // 1_000_000)
    for _ in range(rounds):
        at_ms += 120_000
        settle(kernel, kernel.feed([Record(next(offset), at_ms, None, value) for value in values]))


def test_memory_stands_still_however_many_traces_have_passed() -> None:
    """Half a million spans through one assembler, and through many, leave memory where the first ones brought it."""
    writer = Writer(Random(1), UNIVERSE)
    values = [writer.traces_data() for _ in range(2000)]
    kernel = new_native()
    kernel.configure(parse_policies(POLICIES, version=1))
    live(kernel, values, 10)
    before = resident_bytes()
    live(kernel, values, 100)
    for _ in range(10):
        kernel = new_native()
        kernel.configure(parse_policies(POLICIES, version=1))
        live(kernel, values, 2)
    assert resident_bytes() - before < 4 << 20
    statistics = kernel.statistics()
    assert statistics.tally.received > 4000
    assert statistics.open_traces < 4000


def one_span(number: int) -> bytes:
    """The shortest record: a span, a root, in a trace of its own."""
    return b"\x0a\x20\x12\x1e\x12\x1c\x0a\x10" + number.to_bytes(16, "big") + b"\x12\x08" + number.to_bytes(8, "big")


def heap_after_drops(remember_ns: int, per_ms: int, traces: int) -> tuple[int, int]:
    """Heap that a kernel holds that was fed so many traces and dropped them, and how many of them it remembers."""
    before = heap_bytes()
    kernel: Kernel = assembler_class("native")(Limits(remember_ns=remember_ns), partition=0, partition_count=1)
    for at in range(0, traces, 1000):
        numbers = range(at + 1, at + 1001)
        settle(kernel, kernel.feed([Record(n, T0_MS + n // per_ms, None, one_span(n)) for n in numbers]))
    settle(kernel, kernel.advance(kernel.statistics().stream_ns + LIMITS.quiet_ns))
    return heap_bytes() - before, kernel.statistics().remembered


@pytest.mark.skipif(not TELLS_HEAP, reason="only glibc and AddressSanitizer tell the heap")
@pytest.mark.parametrize(("per_ms", "remember_s"), [(1, 300), (4, 60)])
def test_a_remembered_drop_costs_at_most_24_bytes(per_ms: int, remember_s: int) -> None:
    """At one drop a millisecond of stream time and at more, all that is kept of it counted, malloc's part included."""
    feed = partial(heap_after_drops, per_ms=per_ms, traces=2500 * remember_s * per_ms)
    feed(1_000_000)  # what is made once a process is not counted
    (whole, remembered), (rest, forgotten) = feed(remember_s * 1_000_000_000), feed(1_000_000)
    assert remembered > 990 * remember_s * per_ms
    assert (whole - rest) / (remembered - forgotten) <= REMEMBERED_BYTES_MAX


def drop(kernel: Kernel, numbers: range, at_ms: int) -> None:
    """A span each of so many traces, all dropped."""
    settle(kernel, kernel.feed([Record(n, at_ms, None, one_span(n)) for n in numbers]))
    settle(kernel, kernel.advance(at_ms * 1_000_000 + LIMITS.quiet_ns))


@pytest.mark.parametrize("name", BOTH)
def test_what_is_forgotten_does_not_come_back_after_two_to_the_32_ms(name: str) -> None:
    """A drop remembers its time by 32 bits of ms; 49.7 days on, those of the same bits are not taken for it."""
    kernel: Kernel = assembler_class(name)(LIMITS, partition=0, partition_count=1)
    drop(kernel, range(1, 401), T0_MS)
    later_ms = T0_MS + (1 << 32)
    settle(kernel, kernel.advance(later_ms * 1_000_000))
    drop(kernel, range(401, 402), later_ms)
    assert kernel.standing((401).to_bytes(16, "big")) == "dropped"
    assert {kernel.standing(n.to_bytes(16, "big")) for n in range(1, 401)} == {None}


SILENCE = """
import resource
from tests.core.kernels import assembler_class
from tests.core.test_kernel_memory import LIMITS, T0_MS, drop
kernel = assembler_class("native")(LIMITS, partition=0, partition_count=1)
drop(kernel, range(1, 2), T0_MS)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
later_ms = T0_MS + 45 * 86_400_000
kernel.advance(later_ms * 1_000_000)
drop(kernel, range(2, 3), later_ms)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(UNDER_ASAN, reason="peak memory is AddressSanitizer's own there")
def test_a_silence_of_weeks_costs_no_memory() -> None:
    """What was dropped before it is forgotten before anything after it is remembered: no gap is bridged, not even once.

    In a process of its own, whose memory was never as high as a bridge of weeks would make it.
    """
    ran = subprocess.run([sys.executable, "-c", SILENCE], capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(ran.stdout) < 8 << 10  # KiB


GAPS_MS = (0, 0, 0, 1, 7, 8, 16, 127, 128, 134, 135, 254, 255, 1000, 20_000)  # about where a run's bits end


@pytest.mark.parametrize("seed", range(5))
def test_drops_are_forgotten_alike_however_they_lie_in_time(seed: int) -> None:
    """Bursts within a millisecond and gaps of any length leave the same ones remembered as in the pure kernel."""
    random, number, at_ms = Random(seed), 0, T0_MS
    both: list[Kernel] = [assembler_class(name)(LIMITS, partition=0, partition_count=1) for name in BOTH]
    for _ in range(300):
        at_ms += random.choice(GAPS_MS)
        numbers = range(number + 1, number + 1 + random.choice((1, 2, 14, 15, 16, 17, 45)))
        records = [Record(n, at_ms, None, one_span(n)) for n in numbers]
        number = numbers[-1]
        for kernel in both:
            settle(kernel, kernel.feed(records))
        assert both[0].statistics() == both[1].statistics()
        for n in random.sample(range(1, number + 1), min(number, 10)):
            trace_id = n.to_bytes(16, "big")
            assert both[0].standing(trace_id) == both[1].standing(trace_id)
    assert 0 < both[0].statistics().remembered < number


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
