"""What `compare.py` measures: one process on one full topic, from outside.

CPU is user and system time of the process, all threads. Start-up is left out: counting begins at the second last look
that saw no span taken in, looks being 10 ms apart until the first is. It ends when every trace is decided and, with us,
stored and committed: the waiting for quiet is in the CPU. It is not in the wall time, which ends at the first look that
saw every span taken in. Looks are 0.2 s apart while spans are taken in; each costs its process some milliseconds.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.compare_sides import Look, Running
from tests.servers.processes import cpu_s, peak_rss_bytes, rss_bytes

START_LOOK_S, TAKE_LOOK_S, END_LOOK_S = 0.01, 0.2, 0.5
WITHIN_S = 600
STUCK_S = 90  # neither side waits this long for anything


@dataclass(frozen=True, slots=True)
class Sample:
    """A look, and what was used just before it."""

    at_s: float
    cpu_s: float
    rss_bytes: int
    store_cpu_s: float
    look: Look


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run came to."""

    spans: int
    cpu_us: float  # a span
    cpu_start_us: float  # a span, start-up and all
    store_cpu_us: float  # a span, of the store's process
    spans_s: float  # wall
    stored_spans_s: float  # between a tenth and eight tenths of what is stored; 0 where nothing is
    peak_rss_bytes: int
    rss_before_bytes: int
    kept: int


def measure(running: Running, spans: int, *, may_hold: bool = False) -> Measured:
    """Watch until all is decided; with *may_hold*, until all is taken in. Raises AssertionError where that never is."""
    samples = watch(running, spans, may_hold=may_hold)
    first = next(place for place, sample in enumerate(samples) if sample.look.taken)
    begin, end = samples[max(0, first - 2)], samples[-1]
    taken = next(sample for sample in samples if sample.look.taken >= spans)
    return Measured(
        spans=spans,
        cpu_us=(end.cpu_s - begin.cpu_s) / spans * 1e6,
        cpu_start_us=end.cpu_s / spans * 1e6,
        store_cpu_us=(end.store_cpu_s - begin.store_cpu_s) / spans * 1e6,
        spans_s=spans / (taken.at_s - begin.at_s),
        stored_spans_s=rate(samples),
        peak_rss_bytes=peak_rss_bytes(running.pid),
        rss_before_bytes=begin.rss_bytes,
        kept=end.look.kept,
    )


def watch(running: Running, spans: int, *, may_hold: bool) -> list[Sample]:
    """Look again and again until there is nothing left to see."""
    samples: list[Sample] = []
    ends = time.monotonic() + WITHIN_S
    moved = time.monotonic()
    while True:
        samples.append(_sample(running))
        look = samples[-1].look
        if len(samples) > 1 and look != samples[-2].look:
            moved = time.monotonic()
        if look.taken >= spans and (may_hold or (look.undecided == 0 and running.has_committed())):
            return samples
        assert time.monotonic() < min(ends, moved + STUCK_S), f"not done: {look} of {spans} spans"
        if look.taken == 0:
            time.sleep(START_LOOK_S)
        else:
            time.sleep(TAKE_LOOK_S if look.taken < spans or look.stored else END_LOOK_S)


def rate(samples: Sequence[Sample]) -> float:
    """Spans stored a second, between a tenth and eight tenths of them; 0 where too little is stored to say."""
    stored = samples[-1].look.stored
    some = [sample for sample in samples if 0.1 * stored <= sample.look.stored <= 0.8 * stored]
    if len(some) < 2 or some[0].look.stored == some[-1].look.stored:
        return 0.0
    return (some[-1].look.stored - some[0].look.stored) / (some[-1].at_s - some[0].at_s)


def _sample(running: Running) -> Sample:
    at_s, used_s = time.monotonic(), cpu_s(running.pid)
    store_s = cpu_s(running.store_pid) if running.store_pid is not None else 0.0
    return Sample(at_s, used_s, rss_bytes(running.pid), store_s, running.look())
