"""The native kernel equals the pure one: the same calls bring the same answers, bit for bit, whatever is fed."""

from collections.abc import Callable
from functools import partial
from itertools import count
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spanloom.core._pure import stamping, wire
from spanloom.core._pure.hashes import content_hash
from spanloom.core.assembly import Limits
from spanloom.core.ledger import encode_decision
from spanloom.core.partitioning import partition_of
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import DecodeError
from spanloom.model import FLAG_LATE, Decision, Record, Trigger, Verdict
from tests.core.kernel_pair import T0_MS, Life, Maker, make
from tests.core.kernels import assembler_class, native_kernel
from tests.core.otlp_bytes import Universe, Writer
from tests.core.policies_written import gathering_policies
from tests.spans import Sp, trace_id, traces_data

NS_PER_MS = 1_000_000

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


def recalled(random: Random, number: int, stream_ns: int, operation: int) -> Decision:
    """A decision of an earlier owner under policies that nobody knows."""
    return Decision(
        trace_id=number.to_bytes(16, "big"),
        verdict=random.choice((Verdict.KEEP, Verdict.DROP)),
        trigger=Trigger.IDLE,
        policy=0,
        policy_version=1,
        votes=random.getrandbits(64),
        threshold=0,
        flags=random.choice((0, 0, FLAG_LATE)),
        first=0,
        cut=0,
        stream_ns=stream_ns,
        origin_ns=stream_ns,
        operation=operation,
        duration_ns=random.choice((0, 1, 127, 128, 10**6, 10**9, 1 << 63)),
        span_count=random.choice((0, 1, 1, 3, 50_000, (1 << 32) - 1)),
        size_bytes=random.choice((1, 100, 400, 1 << 40, 1 << 62)),
    )


def fold_some(random: Random) -> None:
    """Recall a ledger of few operations, close in time, between traces of the same, which are judged by it."""
    policies = parse_policies(gathering_policies(random), version=1)
    partition_count = random.choice((1, 1, 3, 100))
    both = [maker(Limits(idle_ns=0, quiet_ns=0), 0, partition_count) for maker in both_makers()]
    stream_ns, operations = T0_MS * NS_PER_MS, [content_hash(b"\x1f%d" % name) for name in range(6)]
    ours = (n for n in count(1) if partition_of(trace_id(n).hex().encode(), partition_count) == 0)
    for kernel in both:
        kernel.configure(policies)
    for number in range(1, random.randrange(2, 60)):
        stream_ns += random.choice((0, 1, 400_000_000, 1_000_000_000, 9_000_000_000, 80_000_000_000))
        if random.randrange(3) == 0:
            entry = encode_decision(recalled(random, number, stream_ns, random.choice(operations)))
            for kernel in both:
                kernel.recall(b"\1\0\0\0" + entry)
        else:
            span = Sp(next(ours), 1, name=str(random.randrange(6)), service="", ms=random.choice((1, 2, 50)))
            record = Record(number, stream_ns // NS_PER_MS, None, traces_data([span]), ())
            pure, native = ([kernel.feed([record]), kernel.shed(0)] for kernel in both)
            assert pure == native
        assert both[0].sampler_state() == both[1].sampler_state()


@settings(max_examples=60)
@given(random=st.randoms(use_true_random=False))
def test_any_ledger_is_folded_alike(random: Random) -> None:
    """What policies gather from earlier owners' decisions and from their own is the same, and so is what they say."""
    fold_some(random)


@pytest.mark.parametrize("seed", range(60))
def test_a_long_life_is_lived_alike(seed: int) -> None:
    """The same by seed, longer: restarts recall what was decided and rebuild it."""
    random = Random(seed)
    for _ in range(20):
        scan_both(random)
    Life(random, both_makers(), random.choice(UNIVERSES)).run(60)
