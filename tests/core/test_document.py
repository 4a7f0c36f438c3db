"""Fragments as documents."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.core import kernel
from spanloom.core._pure.summary import ATTRIBUTE_CHARS_MAX, ATTRIBUTES_MAX, NAMES_MAX
from spanloom.core.document import build_document, verdict_of
from spanloom.core.timed import extent
from spanloom.model import (
    FLAG_ERROR,
    FLAG_LATE,
    FLAG_ROOT,
    NO_POLICY,
    THRESHOLD_UNKNOWN,
    Decision,
    Document,
    Fragment,
    Span,
    Trigger,
    Verdict,
)
from tests.spans import T0_MS, Sp, trace_id, traces_data

POLICIES = ("errors", "slow", "Baseline")
DECISION = Decision(
    trace_id=trace_id(1),
    verdict=Verdict.KEEP,
    trigger=Trigger.COMPLETE,
    policy=0,
    policy_version=3,
    votes=0b101,
    threshold=0,
    flags=FLAG_ROOT | FLAG_ERROR,
    first=17,
    cut=21,
    stream_ns=T0_MS * 1_000_000,
    origin_ns=T0_MS * 1_000_000,
    operation=0xABC,
    duration_ns=40_000_000,
    span_count=3,
)
SPANS = [
    Sp(1, 2, parent=1, start=5, ms=35, name="charge", service="pay", error=True),
    Sp(1, 1, start=0, ms=30, name="checkout", service="shop"),
    Sp(1, 3, parent=1, start=1, ms=2, name="charge", service="pay"),
]


def built(spans: bytes = traces_data(SPANS), decision: Decision = DECISION) -> Document:
    return build_document(Fragment(decision, spans), incarnation="abcd", partition=4, policy_names=POLICIES)


def test_a_document_sums_its_fragment_up() -> None:
    """Id, day, root, names, times and counts are those of the fragment; its spans are stamped."""
    document = built()
    assert document.id == f"{trace_id(1).hex()}.abcd.4.17"
    assert document.trace_id == trace_id(1).hex()
    assert document.day == "2023.11.14"
    assert (document.root_service, document.root_operation) == ("shop", "checkout")
    assert document.services == ("pay", "shop")
    assert document.operations == ("pay\x1fcharge", "shop\x1fcheckout")
    assert document.start_unix_ns == T0_MS * 1_000_000
    assert (document.duration_ns, document.root_duration_ns) == (40_000_000, 30_000_000)
    assert (document.span_count, document.error_count) == (3, 1)
    assert document.spans == kernel.stamp(traces_data(SPANS), DECISION.threshold) != traces_data(SPANS)


def test_the_verdict_says_everything_the_decision_does() -> None:
    """Names stand for numbers, flags are booleans, offsets and times are numbers."""
    assert built().verdict == {
        "verdict": "keep",
        "trigger": "complete",
        "policy": "errors",
        "policy_version": 3,
        "votes": ["errors", "baseline"],
        "threshold": "00000000000000",
        "adjusted_count": 1.0,
        "first": 17,
        "cut": 21,
        "stream_ns": T0_MS * 1_000_000,
        "origin_ns": T0_MS * 1_000_000,
        "operation": "0000000000000abc",
        "duration_ns": 40_000_000,
        "span_count": 3,
        "late": False,
        "root": True,
        "error": True,
        "conflicting": False,
        "orphans": False,
    }


@pytest.mark.parametrize(
    ("threshold", "text", "adjusted"),
    [
        (0, "00000000000000", 1.0),
        (1 << 55, "80000000000000", 2.0),
        (round(0.99 * (1 << 56)), "fd70a3d70a3d70", pytest.approx(100)),
        ((1 << 56) - 1, "ffffffffffffff", float(1 << 56)),
        (THRESHOLD_UNKNOWN, None, None),
    ],
)
def test_a_threshold_gives_the_adjusted_count(threshold: int, text: str | None, adjusted: float | None) -> None:
    """A kept trace stands for 1 / probability traces; where the threshold is unknown nothing is guessed."""
    verdict = verdict_of(replace(DECISION, threshold=threshold), POLICIES)
    assert (verdict["threshold"], verdict["adjusted_count"]) == (text, adjusted)


@pytest.mark.parametrize(
    ("threshold", "upstream", "adjusted"),
    [
        (0, "ot=th:c", 4.0),
        (1 << 55, "ot=th:c", 4.0),
        (1 << 55, "ot=th:4", 2.0),
        (1 << 55, "ot=th:xyz", 2.0),
        (THRESHOLD_UNKNOWN, "ot=th:c", None),
    ],
)
def test_spans_sampled_before_count_for_more(threshold: int, upstream: str, adjusted: float | None) -> None:
    """The lowest probability on a span's way counts, whoever sampled by it; unknown stays unknown."""
    data = TracesData.FromString(traces_data(SPANS))
    data.resource_spans[0].scope_spans[0].spans[0].trace_state = upstream
    document = built(data.SerializeToString(), replace(DECISION, threshold=threshold))
    assert document.verdict["adjusted_count"] == adjusted


def test_a_policy_this_process_cannot_name_keeps_its_number() -> None:
    """Another version's policies, and none at all, are told apart."""
    assert verdict_of(replace(DECISION, policy=7, votes=1 << 63), POLICIES)["policy"] == "policy 7"
    assert verdict_of(replace(DECISION, votes=1 << 63), ())["votes"] == ["policy 63"]
    assert verdict_of(replace(DECISION, votes=1 << 63 | 1), POLICIES)["votes"] == ["errors"]
    assert verdict_of(replace(DECISION, policy=NO_POLICY), POLICIES)["policy"] is None


def test_late_errors_are_named() -> None:
    """A fragment of late errors says so."""
    verdict = verdict_of(replace(DECISION, verdict=Verdict.LATE_ERROR, flags=FLAG_LATE, trigger=Trigger.IDLE), POLICIES)
    assert (verdict["verdict"], verdict["trigger"], verdict["late"]) == ("late_error", "idle", True)


def test_without_a_root_the_earliest_span_names_the_trace() -> None:
    """A fragment whose root is missing is found by its earliest span, and has no root duration."""
    document = built(traces_data([SPANS[0], SPANS[2]]))
    assert (document.root_service, document.root_operation) == ("pay", "charge")
    assert document.root_duration_ns == 0


def with_attributes(count: int, size: int) -> bytes:
    data = TracesData.FromString(traces_data([SPANS[1]]))
    span = data.resource_spans[0].scope_spans[0].spans[0]
    for index in range(count):
        span.attributes.add(key=f"k{index}").value.string_value = "x" * size
    nested = span.attributes.add(key="o").value.kvlist_value
    nested.values.add(key="list").value.array_value.values.add().bool_value = True
    return data.SerializeToString()


def test_attributes_of_root_and_resource_are_flattened() -> None:
    """Nested attributes are found by dotted names, lists as JSON; the resource's come after the root's."""
    assert built(with_attributes(1, 3)).attributes == {"k0": "xxx", "o.list": "[true]", "service.name": "shop"}


def test_searchable_attributes_are_bounded() -> None:
    """Neither many attributes nor long ones make a document grow without end; the bytes keep all of them."""
    document = built(with_attributes(500, 5000))
    assert len(document.attributes) == ATTRIBUTES_MAX
    assert {len(value) for value in document.attributes.values()} == {ATTRIBUTE_CHARS_MAX}


def test_names_are_bounded() -> None:
    """A trace with a different name for each span does not flood the index."""
    spans = [Sp(1, number, name=f"op {number}") for number in range(1, NAMES_MAX + 50)]
    assert len(built(traces_data(spans)).operations) == NAMES_MAX


def test_absurd_times_fit_the_stores_integers() -> None:
    """Times that no 64-bit signed integer holds are cut to the largest one."""
    data = TracesData.FromString(traces_data([SPANS[1]]))
    span = data.resource_spans[0].scope_spans[0].spans[0]
    span.start_time_unix_nano, span.end_time_unix_nano = (1 << 64) - 2, (1 << 64) - 1
    document = built(data.SerializeToString(), replace(DECISION, duration_ns=(1 << 64) - 1, origin_ns=(1 << 64) - 1))
    assert document.start_unix_ns == (1 << 63) - 1
    assert document.duration_ns == (1 << 63) - 1
    assert document.day == "2554.07.21"


def span(start: int, end: int) -> Span:
    return Span(b"t" * 16, b"s" * 8, b"", "shop", "op", 0, start, end, error=False)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], (0, 0)),
        ([(0, 0)], (0, 0)),
        ([(5, 9)], (5, 4)),
        ([(5, 9), (0, 20), (3, 0)], (3, 17)),
        ([(9, 5)], (9, 0)),
        ([(0, 5)], (0, 0)),
    ],
)
def test_the_extent_ignores_times_of_zero(times: list[tuple[int, int]], expected: tuple[int, int]) -> None:
    """Max end - min start; a time nobody set counts for nothing, and it is never negative."""
    assert extent([span(start, end) for start, end in times]) == expected


@given(st.permutations(SPANS))
def test_the_same_fragment_makes_the_same_document(spans: list[Sp]) -> None:
    """Building a document twice gives the same one, and its summary does not depend on the order of spans."""
    data = traces_data(spans)
    assert built(data) == built(data)
    assert replace(built(data), spans=b"", attributes={}) == replace(built(), spans=b"", attributes={})
