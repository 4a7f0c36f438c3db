"""The oracle is right: little logs whose outcome is derived by hand, one rule each."""

from pathlib import Path

import pytest
import xxhash
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.oracle import (
    AGE,
    COMPLETE,
    DROP,
    FLAG_CONFLICTING,
    FLAG_ERROR,
    FLAG_LATE,
    FLAG_ORPHANS,
    FLAG_ROOT,
    IDLE,
    KEEP,
    LATE_ERROR,
    NO_POLICY,
    SIZE,
    ExpectedDecision,
    Limits,
    expect,
    partition_of,
    total,
)
from tests.oracle_folder import (
    ALL,
    T0,
    A,
    B,
    C,
    Records,
    S,
    brief,
    counted,
    end,
    fence,
    identity,
    outcome,
    span,
    tick,
    traces,
    write_ledger,
    write_log,
)
from tests.oracle_policies import THRESHOLD_UNKNOWN, Policies

# --- when a trace is decided ----------------------------------------------------------------------------------------


def test_a_complete_trace_is_decided_after_quiet(tmp_path: Path) -> None:
    """Root and child, last span at 1 s: decided `complete` at 7 s, and everything told of it is as derived."""
    root, child = span(A, 1), span(A, 2, 1, error=True)
    result = outcome(tmp_path, [(0, traces(child)), (1, traces(root)), end(7)])
    assert result.decisions == [
        ExpectedDecision(
            trace_id=A, verdict=KEEP, policy=0, votes=1, threshold=0, trigger=COMPLETE, flags=FLAG_ROOT | FLAG_ERROR,
            first=0, cut=1, stream_ns=T0 + 7 * S, origin_ns=T0 + 7 * S,
            operation=xxhash.xxh64_intdigest(b"shop\x1fop 1"), duration_ns=5_000_001, span_count=2,
            size_bytes=len(traces(child)) + len(traces(root)),
            identities=frozenset({identity(root), identity(child)}), places=((0, 0), (1, 0)),
        )
    ]  # fmt: skip
    assert counted(result) == {"received": 2, "stored": 2}


def test_quiet_is_not_over_a_moment_before(tmp_path: Path) -> None:
    """One millisecond before the deadline the trace is still open and its spans are pending."""
    result = outcome(tmp_path, [(0, traces(span(A, 1))), end(5.999)])
    assert result.decisions == []
    assert counted(result) == {"received": 1, "pending": 1}


def test_an_orphaned_trace_is_decided_after_idle(tmp_path: Path) -> None:
    """Without its root a trace waits `idle` from its last span: 2 + 15 s."""
    result = outcome(tmp_path, [(0, traces(span(A, 2, 1))), (2, traces(span(A, 3, 1))), end(16.9), end(17)])
    assert brief(result.decisions) == [(A, DROP, IDLE, 17)]
    assert result.decisions[0].flags == FLAG_ORPHANS
    assert (result.decisions[0].policy, result.decisions[0].threshold) == (NO_POLICY, THRESHOLD_UNKNOWN)
    assert counted(result) == {"received": 2, "not_sampled": 2}


def test_a_root_with_a_missing_parent_elsewhere_is_not_complete(tmp_path: Path) -> None:
    """A root is there, but one span's parent is not: idle, not quiet."""
    result = outcome(tmp_path, [(0, traces(span(A, 1), span(A, 3, 2))), end(60)])
    assert brief(result.decisions) == [(A, DROP, IDLE, 15)]
    assert result.decisions[0].flags == FLAG_ROOT | FLAG_ORPHANS


def test_completion_brings_the_deadline_forward(tmp_path: Path) -> None:
    """Idle would end at 15 s; the root at 1 s makes it 7 s."""
    result = outcome(tmp_path, [(0, traces(span(A, 2, 1))), (1, traces(span(A, 1))), end(30)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 7)]


def test_a_trace_that_never_rests_is_decided_by_age(tmp_path: Path) -> None:
    """A span every 5 s: at 60 s the trace is as old as it gets, whatever came last."""
    records = [(5.0 * n, traces(span(A, n + 1, n))) for n in range(13)]
    result = outcome(tmp_path, records)
    assert brief(result.decisions) == [(A, DROP, AGE, 60)]
    assert result.decisions[0].span_count == 12  # the one at 60 s comes after the decision
    assert counted(result) == {"received": 13, "not_sampled": 12, "late": 1}


def test_age_and_quiet_at_the_same_moment_is_complete(tmp_path: Path) -> None:
    """Last span at 54 s and quiet 6 s: the deadline 60 s is both; the trace counts as complete."""
    records = [(5.4 * n, traces(span(A, n + 1))) for n in range(11)]
    result = outcome(tmp_path, [*records, end(60)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 60)]


def test_too_many_spans_are_decided_at_the_end_of_the_record(tmp_path: Path) -> None:
    """With at most 2 spans, a record that brings the third to fifth is taken whole, then decided by size."""
    records: Records = [
        (0, traces(span(A, 1), span(A, 2, 1))),
        (1, traces(*(span(A, n, 1) for n in (3, 4, 5)), span(B, 1))),
    ]
    result = outcome(tmp_path, records, limits=Limits(spans_max=2))
    assert brief(result.decisions) == [(A, DROP, SIZE, 1)]
    assert (result.decisions[0].span_count, result.decisions[0].cut) == (5, 1)
    assert counted(result) == {"received": 6, "not_sampled": 5, "pending": 1}


def test_too_many_bytes_are_decided_by_size(tmp_path: Path) -> None:
    """The bytes that count are those of the spans alone, and exactly the limit is not too much."""
    one, two = span(A, 1), span(A, 2, 1)
    length = len(one.SerializeToString()) + len(two.SerializeToString())
    (tmp_path / "fits").mkdir()
    result = outcome(tmp_path / "fits", [(0, traces(one, two))], limits=Limits(bytes_max=length))
    assert result.decisions == []
    result = outcome(tmp_path, [(0, traces(one, two))], limits=Limits(bytes_max=length - 1))
    assert brief(result.decisions) == [(A, DROP, SIZE, 0)]


def test_traces_due_at_once_go_by_deadline_then_creation(tmp_path: Path) -> None:
    """B and C share a deadline and began in one record; A began first but is due last."""
    records: Records = [(0, traces(span(A, 2, 1))), (1, traces(span(B, 1), span(C, 1))), end(100)]
    result = outcome(tmp_path, records)
    assert brief(result.decisions) == [(B, DROP, COMPLETE, 7), (C, DROP, COMPLETE, 7), (A, DROP, IDLE, 15)]


def test_a_record_is_applied_after_what_it_makes_due(tmp_path: Path) -> None:
    """A span that comes at its own trace's deadline is late: the trace was decided without it."""
    result = outcome(tmp_path, [(0, traces(span(A, 1))), (6, traces(span(A, 2, 1)))], ALL)
    assert brief(result.decisions) == [(A, KEEP, COMPLETE, 6)]
    assert result.decisions[0].span_count == 1
    assert result.open_traces == 1  # the late fragment


# --- stream time ----------------------------------------------------------------------------------------------------


def test_one_wild_timestamp_does_not_move_time(tmp_path: Path) -> None:
    """A record an hour ahead moves nothing; a second one in its neighbourhood does."""
    (tmp_path / "one").mkdir()
    records: Records = [(0, traces(span(A, 1))), (3600, traces(span(B, 1))), (1, traces(span(C, 1)))]
    result = outcome(tmp_path / "one", records)
    assert result.decisions == []
    result = outcome(tmp_path, [*records[:2], (3601, traces(span(C, 1)))])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6), (B, DROP, COMPLETE, 6)]  # B was born at stream time 0


def test_time_does_not_go_back(tmp_path: Path) -> None:
    """A record with an earlier timestamp is read at the stream time reached."""
    result = outcome(tmp_path, [(5, traces(span(A, 1))), (0, traces(span(B, 1))), end(11)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 11), (B, DROP, COMPLETE, 11)]


def test_a_tick_moves_time_before_the_record_at_its_offset(tmp_path: Path) -> None:
    """TICK{1, 6 s}: A is decided before record 1 is read, so A's span there is late."""
    records: Records = [(0, traces(span(A, 1))), (1, traces(span(A, 2, 1)))]
    result = outcome(tmp_path, records, ledger=[fence(1), tick(1, 1, 6)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6)]
    assert counted(result) == {"received": 2, "not_sampled": 1, "late": 1}


def test_a_tick_at_the_end_takes_effect(tmp_path: Path) -> None:
    """A TICK at the end of the log decides what it makes due, at the deadline and not at the tick's time."""
    result = outcome(tmp_path, [(0, traces(span(A, 1)))], ledger=[fence(1), tick(1, 1, 50)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6)]


def test_a_stale_owners_tick_is_ignored(tmp_path: Path) -> None:
    """A TICK of epoch 1 after the FENCE of epoch 2 does nothing; one before it counts."""
    (tmp_path / "after").mkdir()
    records: Records = [(0, traces(span(A, 1)))]
    result = outcome(tmp_path / "after", records, ledger=[fence(1), fence(2), tick(1, 1, 6)])
    assert result.decisions == []
    result = outcome(tmp_path, records, ledger=[fence(1), tick(1, 1, 6), fence(2)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6)]


def test_an_older_fence_does_not_bring_an_epoch_back(tmp_path: Path) -> None:
    """FENCE 2, then a late FENCE 1: the epoch stays 2."""
    ledger = [fence(2), fence(1), tick(1, 1, 6)]
    assert outcome(tmp_path, [(0, traces(span(A, 1)))], ledger=ledger).decisions == []


# --- late, repeated and conflicting spans ---------------------------------------------------------------------------


def test_late_spans_of_a_kept_trace_form_a_further_fragment(tmp_path: Path) -> None:
    """The late span at 10 s is gathered, idles until 25 s, inherits KEEP, the vote and the day's origin."""
    records: Records = [(0, traces(span(A, 1))), (10, traces(span(A, 3, 2))), end(25)]
    result = outcome(tmp_path, records, ALL)
    assert brief(result.decisions) == [(A, KEEP, COMPLETE, 6), (A, KEEP, IDLE, 25)]
    late = result.decisions[1]
    assert (late.first, late.cut, late.origin_ns) == (1, 1, T0 + 6 * S)
    assert late.flags == FLAG_LATE | FLAG_ORPHANS
    assert (late.policy, late.votes, late.threshold) == (0, 1, 0)
    assert counted(result) == {"received": 2, "stored": 2}


def test_late_spans_of_a_dropped_trace_are_dropped(tmp_path: Path) -> None:
    """A late span that is no error is dropped{late} and opens nothing."""
    result = outcome(tmp_path, [(0, traces(span(A, 1))), (10, traces(span(A, 2, 1))), end(60)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6)]
    assert counted(result) == {"received": 2, "not_sampled": 1, "late": 1}


def test_late_errors_of_a_dropped_trace_are_kept(tmp_path: Path) -> None:
    """The error opens a LATE_ERROR fragment; a plain span beside it is dropped and does not prolong it."""
    bad = span(A, 2, 1, error=True)
    records: Records = [
        (0, traces(span(A, 1))),
        (10, traces(span(A, 3, 1), bad)),
        (20, traces(span(A, 4, 1), bad)),
        end(25),
    ]
    result = outcome(tmp_path, records)
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6), (A, LATE_ERROR, IDLE, 25)]
    late = result.decisions[1]
    assert late.identities == frozenset({identity(bad)})
    assert (late.first, late.cut, late.origin_ns) == (1, 2, T0 + 6 * S)  # the repeat moved the cut, not the timer
    assert (late.policy, late.votes, late.threshold) == (NO_POLICY, 0, 0)
    assert late.flags == FLAG_LATE | FLAG_ERROR | FLAG_ORPHANS
    assert counted(result) == {"received": 5, "not_sampled": 1, "late": 2, "stored": 1, "duplicate": 1}


def test_a_duplicate_in_an_open_trace_moves_the_cut_but_not_the_timers(tmp_path: Path) -> None:
    """The same bytes at 4 s: counted, cut 1, and the trace is still decided at 6 s."""
    result = outcome(tmp_path, [(0, traces(span(A, 1))), (4, traces(span(A, 1))), end(6)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6)]
    assert (result.decisions[0].cut, result.decisions[0].span_count) == (1, 1)
    assert counted(result) == {"received": 2, "not_sampled": 1, "duplicate": 1}


def test_a_duplicate_of_a_stored_span_opens_nothing(tmp_path: Path) -> None:
    """After KEEP a known identity is a duplicate, however much later, while the trace is remembered."""
    result = outcome(tmp_path, [(0, traces(span(A, 1))), (300, traces(span(A, 1))), end(400)], ALL)
    assert brief(result.decisions) == [(A, KEEP, COMPLETE, 6)]
    assert counted(result) == {"received": 2, "stored": 1, "duplicate": 1}


def test_a_stored_spans_duplicate_in_a_late_fragment_moves_only_its_cut(tmp_path: Path) -> None:
    """While a late fragment is open, a repeat of the first fragment's span is a duplicate in it."""
    records: Records = [(0, traces(span(A, 1))), (10, traces(span(A, 2, 1))), (12, traces(span(A, 1))), end(25)]
    result = outcome(tmp_path, records, ALL)
    assert brief(result.decisions) == [(A, KEEP, COMPLETE, 6), (A, KEEP, IDLE, 25)]
    assert (result.decisions[1].cut, result.decisions[1].span_count) == (2, 1)


def test_conflicting_spans_are_both_kept(tmp_path: Path) -> None:
    """The same id and kind with another name: two spans, flagged; another kind is no conflict."""
    records: Records = [(0, traces(span(A, 1), span(A, 1, name="other"), span(A, 1, kind=3))), end(6)]
    result = outcome(tmp_path, records, ALL)
    assert result.decisions[0].span_count == 3
    assert result.decisions[0].flags == FLAG_ROOT | FLAG_CONFLICTING
    assert counted(result) == {"received": 3, "stored": 3, "conflicting": 1}


def test_a_forgotten_trace_is_opened_anew(tmp_path: Path) -> None:
    """Decided at 6 s and remembered for 300 s: at 306 s it is known, just after that its span opens a new life."""
    (tmp_path / "known").mkdir()
    records: Records = [(0, traces(span(A, 1))), (306, traces(span(A, 2)))]
    result = outcome(tmp_path / "known", records)
    assert counted(result) == {"received": 2, "not_sampled": 1, "late": 1}
    result = outcome(tmp_path, [records[0], (306.001, traces(span(A, 1))), end(320)])
    assert brief(result.decisions) == [(A, DROP, COMPLETE, 6), (A, DROP, COMPLETE, 312.001)]
    assert result.decisions[1].flags == FLAG_ROOT
    assert result.decisions[1].origin_ns == T0 + 312_001 * 10**6


def test_each_decision_of_a_trace_is_forgotten_by_itself(tmp_path: Path) -> None:
    """At 310 s the first fragment (6 s) is forgotten and the late one (21 s) is not: its repeat is stored again."""
    first, late = span(A, 1), span(A, 2)
    records: Records = [(0, traces(first)), (15, traces(late)), end(21), (310, traces(late, first)), end(316)]
    result = outcome(tmp_path, records, ALL)
    assert brief(result.decisions) == [(A, KEEP, COMPLETE, 6), (A, KEEP, COMPLETE, 21), (A, KEEP, COMPLETE, 316)]
    assert result.decisions[2].identities == frozenset({identity(first)})
    assert counted(result) == {"received": 4, "stored": 3, "duplicate": 1}


# --- records --------------------------------------------------------------------------------------------------------


def test_a_record_may_hold_several_traces(tmp_path: Path) -> None:
    """Each goes its own way, and the places of its spans are counted over the whole record."""
    records: Records = [(0, traces(span(A, 1), span(B, 1), span(A, 2, 1))), end(6)]
    result = outcome(tmp_path, records, ALL)
    assert [(each.trace_id, each.span_count, each.places) for each in result.decisions] == [
        (A, 2, ((0, 0), (0, 2))),
        (B, 1, ((0, 1),)),
    ]


@pytest.mark.parametrize(
    "poison",
    [
        traces(span(A, 1))[:-1],
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a" + b"\x80" * 10 + b"\x01",
        b"\x08\x01",  # TracesData.resource_spans as a varint
        b"\x0b\x0c",  # a group
        b"\x0e",  # wire type 6
        b"\x02\x00",  # field number 0
        traces(span(A, 1), Span(trace_id=bytes(16), span_id=bytes(range(8)))),
        traces(span(A, 1), Span(trace_id=A, span_id=bytes(8))),
        traces(span(A, 1), Span(trace_id=A[:15], span_id=bytes(range(8)))),
        traces(span(A, 1), Span(trace_id=A, span_id=bytes(range(8)), parent_span_id=b"1234")),
    ],
)
def test_a_poison_record_is_dead_lettered_whole_but_moves_time(tmp_path: Path, poison: bytes) -> None:
    """Nothing of it is applied, it counts as one span, and what its timestamp makes due is decided."""
    result = outcome(tmp_path, [(0, traces(span(B, 1))), (6, poison)])
    assert brief(result.decisions) == [(B, DROP, COMPLETE, 6)]
    assert counted(result) == {"received": 2, "not_sampled": 1, "dead_lettered": 1}


def test_unknown_fields_and_an_empty_record_are_fine(tmp_path: Path) -> None:
    """What is not looked into may hold anything that is framed; a record without spans counts nothing."""
    made = span(A, 1)
    odd = made.SerializeToString() + b"\x4a\x02\xff\xff" + b"\x98\x06\x01"  # a broken attribute, field 99
    value = b"\x0a" + bytes([4 + len(odd)]) + b"\x12" + bytes([2 + len(odd)]) + b"\x12" + bytes([len(odd)]) + odd
    result = outcome(tmp_path, [end(0), (0, value), end(6)], ALL)
    assert result.decisions[0].identities == frozenset({(made.span_id, made.kind, xxhash.xxh64_intdigest(odd))})
    assert counted(result) == {"received": 1, "stored": 1}


def test_a_span_of_another_partition_is_moved(tmp_path: Path) -> None:
    """With two partitions one of the traces does not belong here; moved once already, the record is dead-lettered."""
    mine, other = sorted((A, B, C, bytes([4] * 16)), key=lambda trace_id: partition_of(trace_id, 2))[::3]
    assert (partition_of(mine, 2), partition_of(other, 2)) == (0, 1)
    write_log(tmp_path, [(0, traces(span(mine, 1), span(other, 1))), (1, traces(span(other, 2)))], headers={1: "moved"})
    write_ledger(tmp_path)
    expected = expect(tmp_path, ALL, partition_count=2)
    assert counted(expected[0]) == {"received": 3, "moved": 1, "dead_lettered": 1, "pending": 1}
    assert total(expected)["received"] == 3


# --- policies -------------------------------------------------------------------------------------------------------


def test_the_first_that_votes_decides_and_the_least_threshold_stands(tmp_path: Path) -> None:
    """Half of the ids pass 50 %: one with R just at T is kept at T, one below only by its error."""
    threshold = 2**55
    at = A[:9] + threshold.to_bytes(7, "big")
    below = A[:9] + (threshold - 1).to_bytes(7, "big")
    policies: Policies = [
        {"name": "half", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 50}},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": 4}},
        {"name": "cart", "type": "service_pattern", "service_pattern": {"services": ["cart-*", "sh?p"]}},
        {"name": "errors", "type": "error"},
    ]
    quick = span(below, 1)
    quick.end_time_unix_nano = quick.start_time_unix_nano + 4_999_999
    failed = span(below[:8] + b"\x00" + below[9:], 1, error=True)
    failed.end_time_unix_nano = failed.start_time_unix_nano + 1
    records: Records = [(0, traces(span(at, 1))), (0, traces(quick, service="card")), (0, traces(failed, service="x"))]
    result = outcome(tmp_path, [*records, end(6)], policies)
    assert [(each.verdict, each.policy, each.votes, each.threshold) for each in result.decisions] == [
        (KEEP, 0, 0b111, 0),
        (DROP, NO_POLICY, 0, THRESHOLD_UNKNOWN),
        (KEEP, 3, 0b1000, 0),
    ]


def test_latency_is_whole_milliseconds_as_the_spans_came(tmp_path: Path) -> None:
    """More than the threshold, in whole ms; an upper bound is kept to if it was so with the spans up to any one."""
    policies: Policies = [
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": 4}},
        {"name": "between", "type": "latency", "latency": {"threshold_ms": 3, "upper_threshold_ms": 4}},
    ]
    one, other = span(A, 1), span(A, 2, 1)
    one.end_time_unix_nano = one.start_time_unix_nano + 4_999_999
    other.end_time_unix_nano = other.start_time_unix_nano + 9_000_000
    votes: list[int] = []
    for order in ([one], [one, other], [other, one]):
        folder = tmp_path / str(len(votes))
        folder.mkdir()
        (decision,) = outcome(folder, [(0, traces(*order)), end(15)], policies).decisions
        votes.append(decision.votes)
    assert votes == [0b10, 0b11, 0b01]


def test_attributes_of_resource_and_span_are_asked(tmp_path: Path) -> None:
    """A text is equal, a number within bounds; what is no number is 0; `error` is a tag too."""
    policies: Policies = [
        {"name": "text", "type": "string_attribute", "string_attribute": {"key": "service.name", "values": ["shop"]}},
        {"name": "number", "type": "numeric_attribute",
         "numeric_attribute": {"key": "n", "min_value": -1, "max_value": 1}},
        {"name": "error", "type": "error"},
    ]  # fmt: skip
    tagged, wrong, failed = span(A, 1), span(B, 1), span(C, 1)
    tagged.attributes.add(key="n").value.int_value = 2
    wrong.attributes.add(key="n").value.string_value = "2"
    failed.attributes.add(key="error").value.string_value = "true"
    records: Records = [(0, traces(tagged)), (0, traces(wrong, service="x")), (0, traces(failed, service="y"))]
    result = outcome(tmp_path, [*records, end(6)], policies)
    assert [each.votes for each in result.decisions] == [0b001, 0b010, 0b100]


def test_a_rate_is_spent_and_comes_in_again(tmp_path: Path) -> None:
    """Two spans at once, one more after each second, of a rate of 1 and its default burst."""
    policies: Policies = [{"name": "rate", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 1}}]
    made = [span(bytes([n] * 16), 1) for n in range(1, 6)]
    times = (0, 0, 0.5, 1.5, 1.9)
    result = outcome(tmp_path, [*((at, traces(each)) for at, each in zip(times, made, strict=True)), end(9)], policies)
    assert [each.verdict for each in result.decisions] == [KEEP, KEEP, DROP, KEEP, DROP]


def test_a_probability_alone_leaves_its_threshold(tmp_path: Path) -> None:
    """Kept by 25 % alone, a trace's threshold is three quarters of 2^56."""
    policies: Policies = [
        {"name": "some", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 25}}
    ]
    kept = A[:9] + b"\xff" * 7
    result = outcome(tmp_path, [(0, traces(span(kept, 1))), end(6)], policies)
    assert result.decisions[0].threshold == 3 * 2**54


def test_the_slow_ones_of_an_operation_stand_out(tmp_path: Path) -> None:
    """After ten of 5 ms an eleventh is dropped and one of 6 ms kept; an operation not seen before has no vote."""
    policies: Policies = [
        {"name": "p50", "type": "latency_percentile", "latency_percentile": {"percentile": 50, "min_count": 10}}
    ]
    made = [span(bytes([16 + n] * 16), 1) for n in range(13)]
    made[11].end_time_unix_nano += 1_000_000
    made[12].end_time_unix_nano += 1_000_000
    made[12].name = "other"
    result = outcome(tmp_path, [*((0.001 * n, traces(each)) for n, each in enumerate(made)), end(7)], policies)
    assert [each.verdict for each in result.decisions] == [DROP] * 11 + [KEEP, DROP]
