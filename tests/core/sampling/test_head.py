"""Head sampling: what passes, what does not, and what it remembers."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.core.codec.otlp import decode_spans
from spanloom.core.kernel import scan, split_by_trace
from spanloom.core.sampling.head import (
    HeadSampler,
    Sifted,
    decision_from_bytes,
    decision_to_bytes,
    errors_of,
    randomness,
)
from tests.core.otlp_bytes import Universe, Writer
from tests.spans import Sp, traces_data

HALF = 1 << 55


def trace(r: int) -> bytes:
    """A trace id whose R is *r*."""
    return b"\xab" * 9 + r.to_bytes(7, "big")


def with_state(state: str, trace_id: bytes = trace(0)) -> bytes:
    data = TracesData.FromString(traces_data([Sp(1, 1)]))
    span = data.resource_spans[0].scope_spans[0].spans[0]
    span.trace_id, span.trace_state = trace_id, state
    return data.SerializeToString()


@pytest.mark.parametrize(
    ("probability", "r", "kept"),
    [
        (1.0, 0, True),
        (0.5, HALF - 1, False),
        (0.5, HALF, True),
        (0.01, (1 << 56) * 99 // 100 - 1, False),
        (0.01, (1 << 56) * 99 // 100 + 1, True),
        (0.0, (1 << 56) - 1, False),
    ],
)
def test_a_trace_passes_iff_r_is_at_least_the_threshold(probability: float, r: int, kept: bool) -> None:
    """R is the low 56 bits of the id, T is (1 - p) x 2^56."""
    sifted = HeadSampler(probability).sift([(trace(r), with_state("", trace(r)))], {})
    assert (len(sifted.parts), sifted.span_count) == (int(kept), int(kept))
    assert sifted.decided == {trace(r): kept}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("ot=rv:80000000000000", HALF),
        ("vendor=1,ot=th:8;rv:80000000000001", HALF + 1),
        ("a=b, ot=rv:ffffffffffffff;th:0 ,c=d", (1 << 56) - 1),
        ("ot=rv:8000000000000", 7),
        ("ot=rv:800000000000000", 7),
        ("ot=RV:80000000000000", 7),
        ("got=rv:80000000000000", 7),
        ("vendor=rv:80000000000000", 7),
        ("", 7),
    ],
)
def test_an_explicit_randomness_goes_before_the_id(state: str, expected: int) -> None:
    """`rv` of tracestate's `ot` is R where it is well formed, else the id's low 56 bits are."""
    assert randomness(trace(7), with_state(state, trace(7))) == expected


def test_errors_pass_and_take_the_rest_of_their_trace_with_them_from_then_on() -> None:
    """Of a trace that is not sampled only the error passes; it is remembered as sampled."""
    quiet, error = Sp(1, 1, name="quiet"), Sp(1, 2, name="error", error=True)
    sampler = HeadSampler(0.0)
    sifted = sampler.sift(split_by_trace(traces_data([quiet, error])).parts, {})
    ((trace_id, spans),) = sifted.parts
    assert [span.name for span in decode_spans(spans)] == ["error"]
    assert (sifted.span_count, sifted.decided) == (1, {trace_id: True})
    later = sampler.sift(split_by_trace(traces_data([Sp(1, 3)])).parts, sifted.decided)
    assert (later.span_count, later.decided) == (1, {})


def test_a_remembered_no_holds_but_for_errors() -> None:
    """What was dropped before stays dropped at a higher probability; an error passes all the same and is remembered."""
    sampler = HeadSampler(1.0)
    parts = split_by_trace(traces_data([Sp(1, 1)])).parts
    known = {parts[0][0]: False}
    assert sampler.sift(parts, known)[:3] == ([], 0, {})
    errors = split_by_trace(traces_data([Sp(1, 2, error=True)])).parts
    assert sampler.sift(errors, known)[1:3] == (1, {parts[0][0]: True})


def test_a_lower_probability_keeps_a_subset() -> None:
    """Whatever a node with a lower probability keeps, one with a higher keeps too."""
    parts = split_by_trace(traces_data([Sp(number, 1) for number in range(1, 300)])).parts
    kept = [{trace_id for trace_id, _ in HeadSampler(p).sift(parts, {}).parts} for p in (0.01, 0.1, 0.5, 1.0)]
    assert kept[0] < kept[1] < kept[2] < kept[3]
    assert 20 <= len(kept[1]) <= 40


@pytest.mark.parametrize("seed", range(50))
def test_the_errors_found_are_those_the_scan_sees(seed: int) -> None:
    """However strangely a record is encoded, its error spans come out byte for byte, and nothing else."""
    data = Writer(Random(seed), Universe(traces=3, spans=20)).traces_data()
    for _, part in split_by_trace(data).parts:
        errors, count = errors_of(part)
        wanted = [span.span for span in scan(part) if span.error]
        assert ([span.span for span in scan(errors)], count) == (wanted, len(wanted))


@given(st.sampled_from(["\x02", "\x82\x00", "\x82\x80\x00"]), st.sampled_from(["\x18", "\x98\x00", "\x98\x80\x00"]))
def test_an_error_in_a_padded_varint_is_an_error(value: str, tag: str) -> None:
    """A status code is what protobuf says it is, not how it is usually written."""
    status = (tag + value).encode("latin-1")
    span = b"\x0a\x10" + trace(1) + b"\x12\x08" + b"\x01" * 8 + b"\x7a" + bytes((len(status),)) + status
    scope = b"\x12" + bytes((len(span),)) + span
    resource = b"\x12" + bytes((len(scope),)) + scope
    assert errors_of(b"\x0a" + bytes((len(resource),)) + resource)[1] == 1


def states_of(sifted: Sifted) -> list[str]:
    return [
        span.trace_state
        for _, part in sifted.parts
        for span in TracesData.FromString(part).resource_spans[0].scope_spans[0].spans
    ]


@pytest.mark.parametrize(
    ("r", "before", "after"),
    [
        (HALF, "", "ot=th:8"),
        (HALF, "vendor=1", "ot=th:8,vendor=1"),
        (HALF, "ot=th:4", "ot=th:8"),
        (HALF, "ot=th:c", "ot=th:c"),
        (0, "ot=th:c;rv:ffffffffffffff,vendor=1", "ot=rv:ffffffffffffff;th:c,vendor=1"),
        (HALF, "not well-formed", "not well-formed"),
    ],
)
def test_what_passes_says_how_many_it_stands_for(r: int, before: str, after: str) -> None:
    """A kept span carries the threshold it passed, or the stricter one of who sampled before."""
    sifted = HeadSampler(0.5).sift([(trace(r), with_state(before, trace(r)))], {})
    assert states_of(sifted) == [after]


def test_an_error_stands_for_itself_and_what_follows_it_for_nobody_knows_how_many() -> None:
    """An error that passes by exception was certain to; a later span of its trace carries no threshold at all."""
    sampler, trace_id = HeadSampler(0.5), trace(1)
    data = TracesData.FromString(with_state("ot=th:4", trace_id))
    data.resource_spans[0].scope_spans[0].spans[0].status.code = 2  # type: ignore[assignment]
    error = sampler.sift([(trace_id, data.SerializeToString())], {})
    assert states_of(error) == ["ot=th:4"]
    later = sampler.sift([(trace_id, with_state("ot=th:4", trace_id))], error.decided)
    assert states_of(later) == [""]
    assert states_of(sampler.sift([(trace_id, with_state("", trace_id))], {trace_id: True})) == [""]


def test_under_load_a_share_of_what_would_pass_does() -> None:
    """Bent to a quarter, a sampler keeps a subset, counts what it shed apart, and keeps all again when load is gone."""
    parts = split_by_trace(traces_data([Sp(number, each) for number in range(1, 300) for each in (1, 2)])).parts
    sampler = HeadSampler(0.5)
    before = sampler.sift(parts, {})
    sampler.bend(0.25)
    bent = sampler.sift(parts, {})
    sampler.bend(1.0)
    assert sampler.sift(parts, {}) == before
    assert {trace_id for trace_id, _ in bent.parts} < {trace_id for trace_id, _ in before.parts}
    assert bent.shed_count == before.span_count - bent.span_count
    assert 20 < len(bent.parts) < 60
    assert (before.shed_count, sampler.factor) == (0, 1.0)
    assert states_of(bent)[0] == "ot=th:e"


def test_under_load_errors_pass() -> None:
    """What is shed is never an error."""
    sampler = HeadSampler(1.0)
    assert sampler.keeps_all
    sampler.bend(1 / 64)
    parts = split_by_trace(traces_data([Sp(n, e, error=e == 2) for n in range(1, 100) for e in (1, 2)])).parts
    sifted = sampler.sift(parts, {})
    assert sum(span.error for _, part in sifted.parts for span in scan(part)) == 99
    assert sifted.shed_count == 198 - sifted.span_count > 80


def test_a_decision_is_read_back_from_a_cache() -> None:
    """Yes and no come back as they were; what is none of ours is nothing."""
    assert [decision_from_bytes(decision_to_bytes(each)) for each in (True, False)] == [True, False]
    assert [decision_from_bytes(value) for value in (None, b"", b"yes", b"\x00")] == [None] * 4
