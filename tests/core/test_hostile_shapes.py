"""Trace ids chosen to collide, one endless trace, very many short ones: decided as any others, and the books add up.

What they cost is benchmarks/bench_growth.py's business.
"""

from collections.abc import Iterable
from itertools import count, islice
from random import Random

import pytest

from spanloom.core.assembly import Harvest, Limits
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Fragment, Record, Trigger
from tests.core.kernel_pair import Kernel
from tests.core.kernels import BOTH, assembler_class
from tests.core.memory import TELLS_HEAP, heap_bytes
from tests.spans import T0_MS, S, Sp, trace_id, traces_data

ERRORS_ONLY: list[dict[str, object]] = [{"name": "errors", "type": "error"}]
DEFAULTS = Limits()
SPANS_MAX = 100
REMEMBERED_BYTES_MIN = 20  # a dropped trace


def kernel_of(name: str, limits: Limits = DEFAULTS) -> Kernel:
    one: Kernel = assembler_class(name)(limits, partition=0, partition_count=1)
    one.configure(parse_policies(ERRORS_ONLY, version=1))
    return one


def settle(one: Kernel, harvest: Harvest) -> list[Fragment]:
    """Read back and store; the fragments."""
    kept = list(one.confirm(sum(int.from_bytes(body[:4], "little") for body in harvest.decisions)))
    for fragment in kept:
        one.resolve(fragment.decision, "stored")
    return kept


def live(one: Kernel, values: Iterable[bytes], per_ms: int = 10) -> list[Fragment]:
    """Feed a record each and decide everything."""
    records = [Record(n, T0_MS + n // per_ms, None, value) for n, value in enumerate(values)]
    kept = []
    for at in range(0, len(records), 500):
        kept += settle(one, one.feed(records[at : at + 500]))
    return kept + settle(one, one.advance(one.statistics().stream_ns + 3600 * S))


def one_span(trace: bytes, *, error: bool) -> bytes:
    """A root alone in its trace."""
    known = trace_id(1)
    return traces_data([Sp(1, 1, error=error)]).replace(known, trace)


COLLIDING = {
    "counted up": lambda number: (number + 1).to_bytes(16, "big"),
    "counted up by 2**32": lambda number: ((1 << 127) + (number << 32)).to_bytes(16, "big"),
    "the same low 64 bits": lambda number: (number + 1).to_bytes(8, "big") + bytes(8),
    "both halves alike": lambda number: (number + 1).to_bytes(8, "little") * 2,
}


@pytest.mark.parametrize("ids", COLLIDING)
@pytest.mark.parametrize("name", BOTH)
def test_ids_that_collide_without_a_key_are_told_apart(name: str, ids: str) -> None:
    """Two thousand traces, every tenth with an error: each is one decision of one span, and those are kept."""
    traces = [COLLIDING[ids](number) for number in range(2000)]
    one = kernel_of(name)
    kept = live(one, [one_span(trace, error=number % 10 == 0) for number, trace in enumerate(traces)])
    assert {fragment.decision.trace_id for fragment in kept} == set(traces[::10])
    seen = one.statistics()
    assert (sum(seen.triggers), seen.tally.stored, seen.tally.not_sampled) == (2000, 200, 1800)
    assert seen.tally.pending == 0


def long_trace(spans: int, *, error_at: int | None) -> list[bytes]:
    """A span a record, a root first."""
    return [traces_data([Sp(1, n, parent=min(n - 1, 1), error=n - 1 == error_at)]) for n in range(1, spans + 1)]


@pytest.mark.parametrize("name", BOTH)
def test_an_endless_kept_trace_is_stored_piece_by_piece(name: str) -> None:
    """Every piece but the last is cut by its size; together they hold each span once, and sent again none is new."""
    spans = 10 * SPANS_MAX
    one = kernel_of(name, Limits(spans_max=SPANS_MAX))
    values = long_trace(spans, error_at=0)
    kept = live(one, values + values[:SPANS_MAX])
    sizes = [fragment.decision.span_count for fragment in kept]
    assert sizes == [SPANS_MAX + 1] * (len(kept) - 1) + [spans % (SPANS_MAX + 1)]
    seen = one.statistics()
    assert seen.triggers[Trigger.SIZE] == len(kept) - 1
    assert (seen.tally.stored, seen.tally.duplicate, seen.tally.pending) == (spans, SPANS_MAX, 0)


@pytest.mark.parametrize("name", BOTH)
def test_an_endless_dropped_trace_is_late_after_its_first_piece(name: str) -> None:
    """Nothing after the first cut is held: every span is late, but for one with an error, which is stored."""
    spans = 10 * SPANS_MAX
    one = kernel_of(name, Limits(spans_max=SPANS_MAX))
    kept = live(one, long_trace(spans, error_at=spans - 1))
    assert [fragment.decision.span_count for fragment in kept] == [1]
    tally = one.statistics().tally
    assert (tally.not_sampled, tally.late, tally.stored) == (SPANS_MAX + 1, spans - SPANS_MAX - 2, 1)
    assert tally.pending == 0


@pytest.mark.skipif(not TELLS_HEAP, reason="only glibc and AddressSanitizer tell the heap")
def test_what_many_short_traces_took_is_given_back() -> None:
    """A hundred thousand within a second: a while after they are forgotten a twentieth of it is held, or less."""
    one = kernel_of("native", Limits(remember_ns=60 * S))
    value, known = traces_data([Sp(1, 1)]), trace_id(1)
    offset, random, at_ms = count(), Random(1), count(T0_MS, 1000)

    def feed(traces: int, seconds: int) -> int:
        for from_ms in islice(at_ms, seconds):
            ids = [random.randbytes(16) for _ in range(traces // seconds)]
            settle(one, one.feed([Record(next(offset), from_ms, None, value.replace(known, each)) for each in ids]))
            one.safe_position()
        return heap_bytes()

    usual = feed(1800, 180)
    crowd_bytes = feed(100_000, 1) - usual
    assert feed(20_000, 20) > usual + 100_000 * REMEMBERED_BYTES_MIN
    assert feed(40_000, 4000) - usual < crowd_bytes / 20
    tally = one.statistics().tally
    assert (tally.received, tally.stored) == (161_800, 0)
    assert tally.pending == one.statistics().open_traces
