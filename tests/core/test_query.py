"""Traces put together from their fragments."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.document import build_document
from spanloom.core.query import assemble, summaries_json, trace_json
from spanloom.model import FLAG_LATE, FLAG_ROOT, Decision, Document, Fragment, Trigger, Verdict
from tests.spans import T0_MS, S, Sp, span_id, trace_id, traces_data

ROOT = Sp(1, 1, start=0, ms=30, name="checkout")
CHARGE = Sp(1, 2, parent=1, start=5, ms=35, name="charge", service="pay", error=True)
QUOTE = Sp(1, 3, parent=9, start=1, ms=2, name="quote", service="ship")


def fragment(
    *spans: Sp,
    first: int = 0,
    verdict: Verdict = Verdict.KEEP,
    trigger: Trigger = Trigger.COMPLETE,
    flags: int = FLAG_ROOT,
) -> Document:
    decision = Decision(
        trace_id=trace_id(spans[0].trace),
        verdict=verdict,
        trigger=trigger,
        policy=0,
        policy_version=1,
        votes=1,
        threshold=0,
        flags=flags,
        first=first,
        cut=first,
        stream_ns=T0_MS * 1_000_000 + first * S,
        origin_ns=T0_MS * 1_000_000,
        operation=0,
        duration_ns=40_000_000,
        span_count=len(spans),
    )
    return build_document(
        Fragment(decision, traces_data(spans)), incarnation="i", partition=0, policy_names=("errors",)
    )


WHOLE = fragment(ROOT, CHARGE)
LATE = fragment(QUOTE, first=9, flags=FLAG_LATE, trigger=Trigger.IDLE)


@pytest.mark.parametrize(
    ("documents", "status", "reasons"),
    [
        ([WHOLE], "kept", ()),
        ([WHOLE, WHOLE], "kept", ()),  # one fragment read from two places
        ([fragment(ROOT, trigger=Trigger.IDLE)], "partial", ("idle",)),
        ([fragment(ROOT, trigger=Trigger.AGE)], "partial", ("age",)),
        ([fragment(ROOT, trigger=Trigger.SIZE)], "partial", ("size",)),
        ([fragment(ROOT, trigger=Trigger.PRESSURE)], "partial", ("pressure",)),
        ([WHOLE, LATE], "partial", ("late", "idle")),
        ([WHOLE, fragment(QUOTE, first=9, flags=FLAG_LATE)], "partial", ("late",)),
        ([fragment(QUOTE, first=9, flags=FLAG_LATE)], "partial", ("late",)),
        ([WHOLE, fragment(QUOTE, first=9)], "partial", ("late",)),  # came after the trace was forgotten
        (
            [fragment(CHARGE, flags=FLAG_LATE, verdict=Verdict.LATE_ERROR, trigger=Trigger.IDLE)],
            "partial",
            ("late_error", "idle"),
        ),
    ],
)
def test_the_status_follows_the_designs_table(documents: list[Document], status: str, reasons: tuple[str, ...]) -> None:
    """Kept is one fragment, decided complete, with nothing later; anything else is partial, and says why."""
    trace = assemble(documents)
    assert (trace.status, trace.reasons) == (status, reasons)


def test_spans_are_joined_in_order_of_time() -> None:
    """Spans of all fragments come once each, by (start, span id), with the trace's own sums."""
    trace = assemble([LATE, WHOLE, fragment(CHARGE, QUOTE, first=12, flags=FLAG_LATE)])
    assert [span.name for span in trace.spans] == ["checkout", "quote", "charge"]
    assert (trace.start_unix_ns, trace.duration_ns, trace.root_duration_ns) == (
        T0_MS * 1_000_000,
        40_000_000,
        30_000_000,
    )
    assert (trace.error_count, trace.services) == (1, ("pay", "ship", "shop"))
    assert trace.missing_parents == (span_id(9).hex(),)
    assert not trace.conflicting
    assert [verdict["first"] for verdict in trace.fragments] == [0, 9, 12]


def test_spans_of_one_id_that_differ_are_both_shown() -> None:
    """Same id and kind with other content is a conflict; another kind is simply another span."""
    other = replace(CHARGE, ms=36)
    trace = assemble([fragment(ROOT, CHARGE, other)])
    assert len(trace.spans) == 3
    assert trace.conflicting
    shared = assemble([fragment(ROOT, CHARGE, replace(CHARGE, kind=3))])
    assert len(shared.spans) == 3
    assert not shared.conflicting


def test_without_a_root_there_is_no_root_duration() -> None:
    """What is not known is not given as zero."""
    assert assemble([fragment(QUOTE, trigger=Trigger.IDLE, flags=0)]).root_duration_ns is None


@given(st.permutations([WHOLE, LATE, fragment(CHARGE, first=10, flags=FLAG_LATE), WHOLE]))
def test_the_order_of_fragments_does_not_matter(documents: list[Document]) -> None:
    """The same fragments make the same trace however the store hands them out."""
    assert assemble(documents) == assemble([WHOLE, LATE, fragment(CHARGE, first=10, flags=FLAG_LATE)])


def test_a_trace_is_shown_in_the_seeds_names() -> None:
    """The JSON has µs and ns where the seed has them, the verdict of the first fragment, and every span."""
    seen = trace_json(assemble([LATE, WHOLE]))
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen
    spans = seen.pop("spans")
    assert isinstance(spans, list)
    assert [span["operation_name"] for span in spans if isinstance(span, dict)] == ["checkout", "quote", "charge"]
    verdict, fragments = seen.pop("verdict"), seen.pop("fragments")
    assert isinstance(verdict, dict)
    assert verdict["policy"] == "errors"
    assert isinstance(fragments, list)
    assert fragments[0] == verdict
    assert seen == {
        "trace_id": trace_id(1).hex(),
        "status": "partial",
        "reasons": ["late", "idle"],
        "conflicting": False,
        "missing_parents": [span_id(9).hex()],
        "span_count": 3,
        "error_count": 1,
        "start_time": T0_MS * 1000,
        "duration": 40_000_000,
        "root_duration": 30_000_000,
        "services": ["pay", "ship", "shop"],
    }


def test_recent_traces_are_a_line_each() -> None:
    """Fragments of one trace make one line, in the order of its newest; spans are not decoded for it."""
    other = fragment(Sp(2, 1), first=5)
    lines = summaries_json([replace(LATE, spans=b"\xff"), other, replace(WHOLE, spans=b"\xff")])
    assert [(line["trace_id"], line["status"]) for line in lines if isinstance(line, dict)] == [
        (trace_id(1).hex(), "partial"),
        (trace_id(2).hex(), "kept"),
    ]
    first = lines[0]
    assert isinstance(first, dict)
    assert (first["root_operation"], first["span_count"], first["error_count"]) == ("checkout", 3, 1)
    assert first["services"] == ["pay", "ship", "shop"]
