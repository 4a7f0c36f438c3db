"""Verdicts explained: what each policy asked, saw and said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.core._pure.sampler import Features
from spanloom.core.explain import (
    Account,
    Where,
    explanation_json,
    explanation_lines,
    findings,
    spans_asked,
    status_of,
    time_ns_of,
)
from spanloom.core.sampling.explaining import Finding, Judged, findings_of
from spanloom.core.sampling.written import parse_policies
from spanloom.core.trial import read_traces, try_traces
from spanloom.errors import DecodeError
from spanloom.model import FLAG_LATE, Decision, Trigger, Verdict
from tests.spans import Sp, trace_id, traces_data

Written = dict[str, object]
ERRORS: Written = {"name": "errors", "type": "error"}
SPANS = [Sp(1, 1, ms=700), Sp(1, 2, parent=1, error=True, service="pay", name="charge"), Sp(1, 3, parent=9)]


def sent() -> bytes:
    """One trace, its root with attributes of every kind."""
    data = TracesData.FromString(traces_data(SPANS))
    root = data.resource_spans[0].scope_spans[0].spans[0]
    root.attributes.add(key="code").value.int_value = 503
    root.attributes.add(key="vip").value.bool_value = True
    root.attributes.add(key="env").value.string_value = "prod"
    root.trace_state, root.flags = "vendor=x,ot=rv:ffffffffffff00", 1
    return data.SerializeToString()


def policy(kind: str, **settings: object) -> Written:
    return {"name": kind, "type": kind, kind: settings}


def tried(*written: Written, spans: bytes | None = None) -> tuple[Account, tuple[Finding, ...]]:
    policies = parse_policies(written, version=1)
    (trial,) = try_traces(sent() if spans is None else spans, policies)
    return trial.account, findings(trial.account)


@pytest.mark.parametrize(
    ("written", "keeps", "saw"),
    [
        (ERRORS, True, '1 of 3 spans: "pay: charge"'),
        (policy("latency", threshold_ms=500), True, "700 ms"),
        (policy("latency", threshold_ms=500, upper_threshold_ms=600), False, "700 ms"),
        (policy("numeric_attribute", key="code", min_value=500, max_value=599), True, "503"),
        (policy("numeric_attribute", key="none", min_value=0, max_value=9), False, "no none"),
        (policy("string_attribute", key="env", values=["dev"]), False, '"prod"'),
        (
            policy("string_attribute", key="service.name", values=["^p"], enabled_regex_matching=True),
            True,
            '"shop", "pay"',
        ),
        (policy("boolean_attribute", key="vip", value=True), True, "true"),
        (policy("status_code", status_codes=["OK"]), False, "UNSET in 2 spans, ERROR in 1 span"),
        (policy("trace_state", key="vendor", values=["x"]), True, '"x"'),
        ({"name": "trace_flags", "type": "trace_flags"}, True, "it in 1 of 3 spans"),
        (policy("span_count", min_spans=4), False, "3 spans"),
        (policy("service_pattern", services=["b*"]), False, '"shop", "pay"'),
        (policy("consistent_probability", sampling_percentage=1), True, "ffffffffffff00, rv of its tracestate"),
        (policy("rate_limiting", spans_per_second=2), True, "3 spans"),
        (policy("bytes_limiting", bytes_per_second=1), False, None),
    ],
)
def test_a_policy_says_what_it_saw_and_said(written: Written, keeps: bool, saw: str | None) -> None:
    """The value is the trace's, the vote the sampler's."""
    account, (finding,) = tried(written)
    assert (finding.name, finding.type, finding.asked, finding.keeps) == (written["name"], written["type"], True, keeps)
    assert saw is None or finding.saw == saw
    assert (account.decision.verdict is Verdict.KEEP) == keeps


def test_an_upper_bound_that_held_once_is_told() -> None:
    """A latency policy asks with each span that comes: what it saw then is said beside what came of it."""
    _, (finding,) = tried(
        policy("latency", threshold_ms=5, upper_threshold_ms=100),
        spans=traces_data([Sp(1, 2, parent=1, ms=10), Sp(1, 1, ms=700)]),
    )
    assert (finding.keeps, finding.saw) == (True, "10 ms at first, 700 ms with all spans")


def test_the_parts_of_a_policy_are_shown_as_far_as_they_were_asked() -> None:
    """`and` stops at the first that does not keep: what comes after it was not asked."""
    parts = [policy("span_count", min_spans=2), policy("status_code", status_codes=["OK"]), ERRORS]
    _, (finding,) = tried({"name": "all", "type": "and", "and": {"and_sub_policy": parts}})
    assert [(part.name, part.asked, part.keeps) for part in finding.parts] == [
        ("span_count", True, True),
        ("status_code", True, False),
        ("errors", False, None),
    ]
    assert finding.keeps is False


def test_a_drop_ends_the_asking() -> None:
    """Policies after one that dropped the trace were not asked, wherever they are written."""
    drop: Written = {"name": "gone", "type": "drop", "drop": {"drop_sub_policy": [policy("span_count", min_spans=1)]}}
    account, found = tried(ERRORS, drop)
    assert [(finding.name, finding.asked, finding.keeps) for finding in found] == [
        ("errors", False, None),
        ("gone", True, True),
    ]
    assert "gone dropped it" in "\n".join(explanation_lines(trace_id(1), None, "dropped", [account]))


def test_votes_are_told_where_the_spans_are_gone() -> None:
    """Without its spans a trace's votes are still known, and that nothing was seen is said, not guessed."""
    account, _ = tried(ERRORS, policy("latency", threshold_ms=900))
    blind = Account(account.decision, account.policies)
    assert [(finding.keeps, finding.saw) for finding in findings(blind)] == [(True, ""), (False, "")]
    assert "could not be read again" in "\n".join(explanation_lines(trace_id(1), Where(3), "kept", [blind]))
    said = explanation_json(trace_id(1), Where(3), "kept", [blind])["decisions"]
    assert isinstance(said, list)
    assert isinstance(said[0], dict)
    assert (said[0]["spans_read_again"], said[0]["missing_parents"]) == (False, None)


def test_missing_parents_and_the_adjusted_count_are_told() -> None:
    """Ids that no span has are listed; what was sampled upstream counts."""
    data = TracesData.FromString(sent())
    data.resource_spans[0].scope_spans[0].spans[0].trace_state = "ot=th:c"
    account, _ = tried(ERRORS, spans=data.SerializeToString())
    text = "\n".join(explanation_lines(trace_id(1), None, "partial", [account]))
    assert "missing parents: 0000000000000009" in text
    assert "it stands for 4" in text


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ([(Verdict.DROP, Trigger.COMPLETE, 0)], "dropped"),
        ([(Verdict.KEEP, Trigger.COMPLETE, 0)], "kept"),
        ([(Verdict.KEEP, Trigger.IDLE, 0)], "partial"),
        ([(Verdict.KEEP, Trigger.COMPLETE, 0), (Verdict.KEEP, Trigger.IDLE, FLAG_LATE)], "partial"),
        ([(Verdict.DROP, Trigger.COMPLETE, 0), (Verdict.LATE_ERROR, Trigger.IDLE, FLAG_LATE)], "partial"),
        ([(Verdict.KEEP, Trigger.COMPLETE, 0), (Verdict.DROP, Trigger.COMPLETE, 0)], "dropped"),
    ],
)
def test_the_status_is_that_of_the_last_life(entries: list[tuple[Verdict, Trigger, int]], status: str) -> None:
    """What was decided before a trace was forgotten is told, but does not say how it stands now."""
    account, _ = tried(ERRORS)
    decisions = [
        Decision(
            **{name: getattr(account.decision, name) for name in Decision.__slots__}
            | {"verdict": verdict, "trigger": trigger, "flags": flags}
        )
        for verdict, trigger, flags in entries
    ]
    assert status_of(decisions) == status


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1_700_000_000),
        ("1700000000.5", 1_700_000_000.5),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("2023-11-14 22:13", 1_699_999_980),
    ],
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    """ISO 8601, UTC where no zone is named, or seconds since 1970."""
    assert time_ns_of(text) == seconds * 1_000_000_000


@pytest.mark.parametrize("text", ["", "yesterday", "1e9999", "2023-13-01"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """The message says how a time is written."""
    with pytest.raises(DecodeError, match="2026-01-31"):
        time_ns_of(text)


def test_a_file_may_hold_protobuf_json_or_json_lines() -> None:
    """Each is read for what it is, several traces each judged by themselves."""
    one = '{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%032x","spanId":"%016x","name":"a"}]}]}]}'
    policies = parse_policies([policy("span_count", min_spans=2)], version=1)
    lines = "\n".join([one % (1, 1), one % (2, 2), one % (1, 3)]).encode()
    for content, verdicts in (
        (traces_data(SPANS), [Verdict.KEEP]),
        ((one % (1, 1)).replace(",", ",\n").encode(), [Verdict.DROP]),
        (lines, [Verdict.KEEP, Verdict.DROP]),
    ):
        trials = try_traces(read_traces(content), policies)
        assert [trial.account.decision.verdict for trial in trials] == verdicts
    for wrong in (b"", b"\x00", b"{}"):
        with pytest.raises(DecodeError):
            list(try_traces(read_traces(wrong), policies))


KINDS = [
    ERRORS,
    policy("latency", threshold_ms=500),
    policy("span_count", min_spans=3),
    policy("consistent_probability", sampling_percentage=50),
    policy("probabilistic", sampling_percentage=50),
    policy("rate_limiting", spans_per_second=1),
]
LEAVES = st.sampled_from(KINDS)


@given(st.lists(LEAVES, min_size=1, max_size=4), st.integers(1, 40))
def test_what_is_recomputed_agrees_with_the_votes(parts: list[Written], number: int) -> None:
    """What the parts of an `and` are said to have said comes to what the sampler's vote is."""
    named = [{**part, "name": f"{place}"} for place, part in enumerate(parts)]
    whole: Written = {"name": "all", "type": "and", "and": {"and_sub_policy": named}}
    spans = traces_data([Sp(number, span, ms=100 * number, error=number % 3 == 0) for span in range(1, 2 + number % 4)])
    account, (finding,) = tried(whole, spans=spans)
    assert None not in [part.keeps for part in finding.parts if part.asked]
    assert finding.keeps == all(part.keeps for part in finding.parts if part.asked)
    assert finding.keeps == (account.decision.verdict is Verdict.KEEP)


def test_a_finding_needs_no_more_than_votes() -> None:
    """Every kind of policy can be described without spans, rate or state."""
    account, _ = tried(ERRORS)
    policies = parse_policies(
        [
            *KINDS,
            policy("latency_percentile", percentile=95, min_count=10, window_s=60),
            policy("ema_throughput", goal_spans_per_second=10),
            {"name": "n", "type": "not", "not": {"not_sub_policy": ERRORS}},
            {"name": "c", "type": "composite", "composite": COMPOSITE},
            {"name": "always", "type": "always_sample"},
        ],
        version=2,
    )
    features = account.decision
    judged = Judged(0, Features(features.trace_id, 1, 2, 3, 4, 5), None, None)
    assert all(finding.wants and finding.keeps is False for finding in findings_of(policies, judged))
    assert spans_asked([sent()])


COMPOSITE: Written = {
    "max_total_spans_per_second": 10,
    "policy_order": ["errors", "span_count"],
    "composite_sub_policy": [ERRORS, policy("span_count", min_spans=1)],
    "rate_allocation": [{"policy": "errors", "percent": 50}, {"policy": "span_count", "percent": 50}],
}
