"""The life of a trace on stream time, example by example (design, section 5)."""

from collections.abc import Mapping
from typing import ClassVar

import pytest

from spanloom.core._pure.assembler import Assembler
from spanloom.core.assembly import Harvest, Limits, Position, Tally
from spanloom.core.ledger import decode_decisions
from spanloom.core.sampling.written import parse_policies
from spanloom.model import (
    FLAG_CONFLICTING,
    FLAG_ERROR,
    FLAG_LATE,
    FLAG_ORPHANS,
    FLAG_ROOT,
    MOVED_HEADER,
    NO_POLICY,
    Decision,
    Fragment,
    Record,
    Trigger,
    Verdict,
)
from tests.core.kernels import BOTH, MODULES, assembler_class
from tests.spans import T0_MS, S, Sp, record, trace_id, traces_data

ERRORS_ONLY = ({"name": "errors", "type": "error"},)
KEEP_ALL = ({"name": "all", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 100}},)
T0_NS = T0_MS * 1_000_000


class Bench:
    """An assembler of one partition, and what came out of it."""

    kernel: ClassVar[type[Assembler]]  # the one under test

    def __init__(
        self,
        policies: tuple[Mapping[str, object], ...] = KEEP_ALL,
        *,
        limits: Limits | None = None,
        partition_count: int = 1,
        start: Position | None = None,
    ) -> None:
        self.assembler = self.kernel(limits or Limits(), partition=0, partition_count=partition_count)
        if start:
            self.assembler.restore(start)
        self.assembler.configure(parse_policies(policies, version=1))
        self.decisions: list[Decision] = []
        self.fragments: list[Fragment] = []
        self.harvest = Harvest()

    def feed(self, *records: Record) -> list[Decision]:
        return self._take(self.assembler.feed(records))

    def tick(self, at_s: float) -> list[Decision]:
        return self._take(self.assembler.advance(T0_NS + int(at_s * S)))

    def _take(self, harvest: Harvest) -> list[Decision]:
        self.harvest += harvest
        new = [decision for body in harvest.decisions for decision in decode_decisions(body)]
        self.decisions += new
        self.fragments += harvest.fragments
        return new

    def confirm_all(self) -> None:
        self.fragments += self.assembler.confirm(len(self.decisions))

    @property
    def tally(self) -> Tally:
        return self.assembler.statistics().tally


@pytest.fixture(params=BOTH, autouse=True)
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs on one kernel after the other."""
    name = str(request.param)
    monkeypatch.setattr(Bench, "kernel", assembler_class(name), raising=False)
    return name


def test_the_kernel_asked_for_is_the_one_that_runs(kernel: str) -> None:
    """Each run of these tests is on the kernel that its name says."""
    assert type(Bench().assembler).__module__ == MODULES[kernel]


def seconds(decision: Decision) -> float:
    return (decision.stream_ns - T0_NS) / S


def test_a_complete_trace_is_decided_once_it_is_quiet() -> None:
    """A trace with its root and every parent is decided 6 s after its last span, stamped with that very time."""
    bench = Bench()
    assert bench.feed(record(0, 0, Sp(1, 1), Sp(1, 2, parent=1)), record(1, 2, Sp(1, 3, parent=2))) == []
    assert bench.feed(record(2, 7.9, Sp(2, 1))) == []
    (decision,) = bench.feed(record(3, 30, Sp(2, 2, parent=1)))[:1]
    assert (decision.trigger, seconds(decision)) == (Trigger.COMPLETE, 8.0)
    assert (decision.first, decision.cut, decision.span_count) == (0, 1, 3)
    assert decision.flags == FLAG_ROOT


def test_a_trace_that_misses_a_parent_waits_until_it_is_idle() -> None:
    """A trace with a parent missing is decided 15 s after its last span."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1), Sp(1, 3, parent=2)))
    assert bench.tick(14.9) == []
    (decision,) = bench.tick(15)
    assert (decision.trigger, seconds(decision)) == (Trigger.IDLE, 15.0)
    assert decision.flags == FLAG_ROOT | FLAG_ORPHANS


def test_a_trace_that_never_rests_is_decided_by_age() -> None:
    """A trace whose first span is 60 s old is decided, however busy it is."""
    bench = Bench()
    decisions = bench.feed(*(record(i, i * 5, Sp(1, i + 1, parent=i)) for i in range(14)))
    assert [(d.trigger, seconds(d), d.cut) for d in decisions] == [(Trigger.AGE, 60.0, 11)]


def test_a_large_trace_is_decided_at_the_end_of_the_record_that_made_it_so() -> None:
    """A trace over `spans_max` is decided with every span of the record that brought it there."""
    bench = Bench(limits=Limits(spans_max=3))
    (decision,) = bench.feed(record(0, 1, *(Sp(1, i, parent=i - 1) for i in range(1, 7))))
    assert (decision.trigger, decision.span_count, seconds(decision)) == (Trigger.SIZE, 6, 1.0)


def test_traces_due_at_once_are_decided_in_order_of_deadline_then_age() -> None:
    """Traces that one record makes due are decided by deadline, those of one deadline in order of their first span."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1, parent=9), Sp(2, 1), Sp(3, 1)), record(1, 1, Sp(4, 1)))
    decisions = bench.tick(100)
    assert [d.trace_id for d in decisions] == [trace_id(n) for n in (2, 3, 4, 1)]


def test_batching_changes_nothing() -> None:
    """The same records give the same decisions whether they are fed one by one or all at once."""
    records = [record(i, i * 4, Sp(i % 5 + 1, i + 1, parent=i % 3)) for i in range(40)]
    whole, single = Bench(), Bench()
    whole.feed(*records)
    for one in records:
        single.feed(one)
    assert whole.decisions == single.decisions
    assert len(whole.decisions) > 5


def test_a_repeated_span_is_a_duplicate() -> None:
    """The same span sent twice is counted as a duplicate and is in the fragment once; the cut covers the repeat."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1)), record(1, 1, Sp(1, 1)))
    (decision,) = bench.tick(50)
    assert (decision.span_count, decision.cut, seconds(decision)) == (1, 1, 6.0)
    assert (bench.tally.received, bench.tally.duplicate) == (2, 1)


def test_a_span_with_the_same_id_and_other_content_is_kept_and_flagged() -> None:
    """Two contents under one span id and kind are both kept, and the trace says so."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1), Sp(1, 1, ms=11)))
    (decision,) = bench.tick(50)
    assert decision.span_count == 2
    assert decision.flags & FLAG_CONFLICTING
    assert bench.tally.conflicting == 1


def test_client_and_server_under_one_id_are_two_spans() -> None:
    """A Zipkin shared span, one id and two kinds, is two spans and no conflict."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1, kind=2), Sp(1, 1, kind=3)))
    (decision,) = bench.tick(50)
    assert (decision.span_count, decision.flags & FLAG_CONFLICTING) == (2, 0)


def test_late_spans_of_a_kept_trace_become_a_further_fragment() -> None:
    """A span after its trace was kept is gathered under the same timers and inherits the verdict and the day."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1)))
    (first,) = bench.tick(6)
    bench.feed(record(1, 20, Sp(1, 2, parent=1)), record(2, 21, Sp(1, 1)))
    (late,) = bench.tick(40)
    assert (late.verdict, late.flags & FLAG_LATE, late.first, late.cut) == (Verdict.KEEP, FLAG_LATE, 1, 2)
    assert (late.origin_ns, late.policy, late.threshold) == (first.stream_ns, first.policy, first.threshold)
    assert bench.tally.duplicate == 1


def test_late_spans_of_a_dropped_trace_are_dropped_but_errors_are_kept() -> None:
    """After a drop a late span is counted as late; an error span is kept as a further fragment."""
    bench = Bench(ERRORS_ONLY)
    bench.feed(record(0, 0, Sp(1, 1)))
    (first,) = bench.tick(6)
    assert (first.verdict, first.policy, first.identities) == (Verdict.DROP, NO_POLICY, ())
    bench.feed(record(1, 10, Sp(1, 2, parent=1)), record(2, 11, Sp(1, 3, parent=1, error=True), Sp(1, 4, parent=1)))
    (late,) = bench.tick(40)
    assert (late.verdict, late.span_count, late.threshold) == (Verdict.LATE_ERROR, 1, 0)
    assert late.flags == FLAG_LATE | FLAG_ERROR | FLAG_ORPHANS
    assert bench.tally.late == 2


def test_a_forgotten_trace_is_judged_anew() -> None:
    """Once `remember` has passed, a span of the trace opens a new life with a verdict of its own."""
    bench = Bench(ERRORS_ONLY)
    bench.feed(record(0, 0, Sp(1, 1)))
    bench.tick(6)
    bench.feed(record(1, 306, Sp(1, 2)))
    assert bench.tally.late == 1, "still remembered at the very end of `remember`"
    bench.feed(record(2, 306.001, Sp(1, 3, error=True)))
    (again,) = bench.tick(400)
    assert (again.verdict, again.first, again.flags & FLAG_LATE) == (Verdict.KEEP, 2, 0)


def test_a_lone_timestamp_far_ahead_does_not_move_time() -> None:
    """A timestamp more than `skew_max` ahead is passed over once; a second one near it is believed."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1)))
    assert bench.feed(record(1, 100_000, Sp(2, 1))) == []
    assert bench.feed(record(2, 1, Sp(3, 1))) == []
    assert bench.feed(record(3, 100_000, Sp(4, 1))) == []
    assert len(bench.feed(record(4, 100_001, Sp(5, 1)))) == 4


def test_memory_pressure_decides_the_oldest_first() -> None:
    """Shedding decides open traces from the oldest on, and the ledger says that memory forced it."""
    bench = Bench(ERRORS_ONLY)
    bench.feed(*(record(i, i * 0.1, Sp(i + 1, 1)) for i in range(10)))
    undecided = bench.assembler.undecided_bytes
    shed = bench._take(bench.assembler.shed(undecided // 2))
    assert [d.trace_id for d in shed] == [trace_id(n) for n in range(1, 6)]
    assert {d.trigger for d in shed} == {Trigger.PRESSURE}
    bench.confirm_all()
    assert bench.tally.pressure == 5


def test_a_record_that_cannot_be_read_is_held_until_it_is_dead_lettered() -> None:
    """A malformed record moves nothing but time, and its offset is not safe before it was skipped."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1))._replace(value=b"\x0a\xff\x01rubbish"))
    (reject,) = bench.harvest.rejects
    assert "truncated" in reject.reason
    assert bench.assembler.safe_position().offset == 0
    bench.assembler.skipped(0)
    safe = bench.assembler.safe_position()
    assert (safe.offset, safe.tally.received, safe.tally.dead_lettered) == (1, 1, 1)


def test_misplaced_spans_are_handed_out_and_resolved_once_moved() -> None:
    """Spans of another partition are handed out trace by trace; the rest of their record is taken in."""
    numbers = range(1, 40)
    bench = Bench(partition_count=4)
    bench.feed(record(0, 0, *(Sp(n, 1) for n in numbers)))
    (move,) = bench.harvest.moves
    assert 0 < len(move.parts) < len(numbers)
    assert bench.assembler.statistics().open_traces == len(numbers) - len(move.parts)
    bench.assembler.moved(0)
    assert bench.tally.moved == len(move.parts)
    (trace, part) = move.parts[0]
    assert part == traces_data([next(Sp(n, 1) for n in numbers if trace_id(n) == trace)])


def test_a_span_moved_once_and_still_wrong_is_dead_lettered() -> None:
    """A record with the `moved` header is not moved again: it is rejected."""
    bench = Bench(partition_count=4)
    misplaced = record(0, 0, *(Sp(n, 1) for n in range(1, 10)))._replace(headers=((MOVED_HEADER, b"1"),))
    bench.feed(misplaced)
    assert [reject.record.offset for reject in bench.harvest.rejects] == [0]
    assert bench.harvest.moves == ()


def test_the_safe_offset_waits_for_open_and_unstored_traces() -> None:
    """Nothing is safe past an open trace, nor past a kept one that is not stored; the tally below goes along."""
    bench = Bench()
    bench.feed(record(0, 0, Sp(1, 1)), record(1, 0, Sp(2, 1, parent=7)), record(2, 1, Sp(1, 2, parent=1)))
    bench.tick(8)
    assert bench.assembler.safe_position().offset == 0
    bench.confirm_all()
    (fragment,) = bench.fragments
    assert bench.assembler.safe_position().offset == 0
    bench.assembler.resolve(fragment.decision, "stored")
    safe = bench.assembler.safe_position()
    assert (safe.offset, safe.tally.stored, safe.tally.received) == (1, 1, 1)
    assert bench.tally.stored == 2
    assert bench.tally.pending == 1


def test_a_fragment_holds_the_spans_with_their_resources() -> None:
    """The bytes of a fragment are the TracesData of its records, duplicates left out."""
    bench = Bench()
    spans = (Sp(1, 1), Sp(1, 2, parent=1, service="pay"), Sp(1, 3, parent=1, service="pay"))
    bench.feed(record(0, 0, *spans, Sp(2, 1)), record(1, 0, Sp(1, 2, parent=1, service="pay"), Sp(1, 4, parent=3)))
    bench.tick(20)
    bench.confirm_all()
    bytes_of = {fragment.decision.trace_id: fragment.spans for fragment in bench.fragments}
    assert bytes_of[trace_id(1)] == traces_data(spans) + traces_data([Sp(1, 4, parent=3)])


def test_what_follows_a_deleted_stretch_is_read_and_the_gap_is_in_the_books() -> None:
    """Offsets that retention took count as received and lost, one each, and do not hold the safe offset back."""
    bench = Bench()
    bench.assembler.jump(7)
    bench.feed(record(7, 0, Sp(1, 1)))
    assert bench.tally.lost_to_retention == 7
    assert bench.assembler.safe_position().offset == 7


@pytest.mark.parametrize("committed", range(7))
def test_a_replay_rebuilds_what_the_ledger_decided(committed: int) -> None:
    """A later owner that starts at any safe offset decides nothing again and rebuilds unstored keeps byte for byte."""
    records = [
        record(0, 0, Sp(1, 1), Sp(2, 1, parent=5)),
        record(1, 1, Sp(1, 2, parent=1), Sp(1, 1)),
        record(2, 2, Sp(3, 1), Sp(2, 2, parent=1)),
        record(3, 30, Sp(1, 3, parent=1)),
        record(4, 31, Sp(1, 3, parent=1), Sp(4, 1)),
        record(5, 60, Sp(4, 2, parent=1)),
        record(6, 90, Sp(5, 1)),
    ]
    first = Bench()
    starts: dict[int, Position] = {}
    last_ns = -1
    for one in records:
        starts[one.offset] = Position(one.offset, first.assembler.stream_ns, last_ns, Tally())
        last_ns = one.timestamp_ms * 1_000_000
        first.feed(one)
    first.confirm_all()
    second = Bench(start=starts[committed])
    for body in first.harvest.decisions:
        second.assembler.recall(body)
    second.feed(*records[committed:])
    assert second.decisions == []
    unstored = [fragment for fragment in first.fragments if fragment.decision.first >= committed]
    by_place = {(f.decision.trace_id, f.decision.first): f.spans for f in second.fragments}
    assert by_place == {(f.decision.trace_id, f.decision.first): f.spans for f in unstored}
    late = [d for d in second.tick(200) if d.trace_id != trace_id(5)]
    assert late == []
