"""Policies as they are written: the Collector's defaults, its nesting, ours within, and the body that is canonical."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.sampling.policies import (
    AlwaysSamplePolicy,
    AndPolicy,
    CompositePolicy,
    DropPolicy,
    EmaThroughputPolicy,
    ErrorPolicy,
    LatencyPolicy,
    NotPolicy,
    NumericAttributePolicy,
    Policy,
    ProbabilisticPolicy,
    RateLimitingPolicy,
    SpanCountPolicy,
    StatusCodePolicy,
    StringAttributePolicy,
)
from spanloom.core.sampling.written import parse_policies, policies_from_body
from spanloom.errors import PolicyRefused
from tests.core.sampling.judged import Written, of

INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


def parsed(policy: Written) -> Policy:
    return parse_policies([policy], version=1).policies[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"name": "a", "type": "always_sample"}, AlwaysSamplePolicy("a")),
        ({"name": "a", "type": "always_sample", "always_sample": None}, AlwaysSamplePolicy("a")),
        (of("latency", "a", upper_threshold_ms=5), LatencyPolicy("a", 0, 5)),
        (of("latency", "a", threshold_ms=500.0), LatencyPolicy("a", 500)),
        (
            of("numeric_attribute", "a", key="k", min_value=0, max_value=9),
            NumericAttributePolicy("a", "k", INT64_MIN, 9),
        ),
        (
            of("numeric_attribute", "a", key="k", min_value=-9, max_value=0, invert_match=True),
            NumericAttributePolicy("a", "k", -9, INT64_MAX, invert_match=True),
        ),
        (
            of("string_attribute", "a", key="k", values=["v"], enabled_regex_matching=True, cache_max_size=-1),
            StringAttributePolicy("a", "k", ("v",), is_regex=True),
        ),
        (of("status_code", "a", status_codes=["OK", "ERROR", "UNSET"]), StatusCodePolicy("a", (1, 2, 0))),
        (
            of("probabilistic", "a", sampling_percentage=100),
            ProbabilisticPolicy("a", b"default-hash-seed", 2**64 - 1),
        ),
        (of("rate_limiting", "a", spans_per_second=35), RateLimitingPolicy("a", 35, 70)),
        (of("rate_limiting", "a", spans_per_second=35, burst_capacity=7), RateLimitingPolicy("a", 35, 7)),
        (of("span_count", "a", min_spans=2), SpanCountPolicy("a", 2)),
        (
            of("ema_throughput", "a", goal_spans_per_second=9),
            EmaThroughputPolicy("a", 9, 15_000_000_000, 128, 1000),
        ),
    ],
)
def test_what_is_left_out_has_the_collector_s_default(written: Written, meant: Policy) -> None:
    """A policy with as little as it needs means what it means to the Collector; ours have defaults of their own."""
    assert parsed(written) == meant


def test_a_name_within_another_policy_may_be_left_out() -> None:
    """A policy within another is called by its type where it has no name, and names may repeat."""
    inner = {"type": "error"}
    assert parsed(of("not", "n", not_sub_policy=inner)) == NotPolicy("n", ErrorPolicy("error"))
    assert parsed(of("and", "a", and_sub_policy=[inner, inner])) == AndPolicy("a", (ErrorPolicy("error"),) * 2)
    both = [inner, of("not", not_sub_policy=inner)]
    assert parsed(of("drop", "d", drop_sub_policy=both)) == DropPolicy(
        "d", (ErrorPolicy("error"), NotPolicy("not", ErrorPolicy("error")))
    )


def test_a_composite_shares_out_as_the_collector_does() -> None:
    """Percentages are cut off to whole spans; 0 and less is an equal part; who is not named has none."""
    subs = [{"type": "error", "name": name} for name in "abcd"]
    shares = [{"policy": "a", "percent": 33}, {"policy": "b", "percent": -1}, {"policy": "c"}]
    policy = parsed(
        of(
            "composite",
            "x",
            max_total_spans_per_second=101,
            policy_order=["d", "a"],
            composite_sub_policy=[*subs, of("and", "e", and_sub_policy=subs[:1])],
            rate_allocation=shares,
        )
    )
    assert isinstance(policy, CompositePolicy)
    assert policy.allotted == (33, 20, 20, 0, 0)
    assert [each.name for each in policy.policies] == ["a", "b", "c", "d", "e"]


def test_one_meaning_has_one_body() -> None:
    """The order of keys does not matter, that of policies does; the body gives the same policies back."""
    one = parse_policies([{"name": "a", "type": "error"}, of("latency", threshold_ms=1)], version=1)
    other = parse_policies([{"type": "error", "name": "a"}, of("latency", threshold_ms=1)], version=7)
    assert one.body == other.body
    assert policies_from_body(one.body, version=1) == one
    turned = parse_policies([of("latency", threshold_ms=1), {"name": "a", "type": "error"}], version=1)
    assert turned.body != one.body


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        (of("latency", threshold_ms=1 << 63), (0, "latency", "threshold_ms")),
        (of("latency", threshold_ms=True), (0, "latency", "threshold_ms")),
        (of("rate_limiting", spans_per_second=500_000_000_001), (0, "rate_limiting", "spans_per_second")),
        (
            of("rate_limiting", spans_per_second=1, burst_capacity=10**12 + 1),
            (0, "rate_limiting", "burst_capacity"),
        ),
        (of("span_count", min_spans=1 << 31), (0, "span_count", "min_spans")),
        (of("probabilistic", sampling_percentage=float("nan")), (0, "probabilistic", "sampling_percentage")),
        (of("probabilistic", sampling_percentage=float("inf")), (0, "probabilistic", "sampling_percentage")),
        (of("ema_throughput", goal_spans_per_second=10**9 + 1), (0, "ema_throughput", "goal_spans_per_second")),
        (of("string_attribute", key="k", values=["\ud800"]), (0, "string_attribute", "values", 0)),
        (of("string_attribute", key="\ud800", values=["v"]), (0, "string_attribute", "key")),
        (of("trace_state", key="k", values=[]), (0, "trace_state", "values")),
        (of("trace_state", key="", values=["v"]), (0, "trace_state", "key")),
        (of("string_attribute", key="k", values=["v"] * 10_001), (0, "string_attribute", "values")),
        (
            of("string_attribute", key="k", values=["v"] * 1001, enabled_regex_matching=True),
            (0, "string_attribute", "values"),
        ),
        (of("string_attribute", key="k", values=["x" * 600_000]), ()),
        (of("not", not_sub_policy=of("not", not_sub_policy=of("error"))), (0, "not", "not_sub_policy", "type")),
        (of("not", not_sub_policy=of("and", and_sub_policy=[of("error")])), (0, "not", "not_sub_policy", "type")),
        ({"name": "a", "type": "error", 7: 8}, (0,)),
    ],
)
def test_what_the_kernels_cannot_hold_is_refused(policy: Written, path: tuple[str | int, ...]) -> None:
    """Beyond the stated ranges, and where the Collector has no such nesting, the path names the culprit."""
    with pytest.raises(PolicyRefused) as refused:
        parse_policies([policy], version=1)
    assert refused.value.path == path


def test_votes_are_counted_within_policies_too() -> None:
    """Sixty-four votes: every policy has one, and every rate within one."""
    rates = of("and", and_sub_policy=[of("rate_limiting", spans_per_second=1)] * 63)
    parse_policies([rates], version=1)
    with pytest.raises(PolicyRefused, match="found 65"):
        parse_policies([rates, of("error")], version=1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
TYPES = st.sampled_from(["latency", "and", "not", "drop", "composite", "string_attribute", "rate_limiting"])
SETTINGS = st.dictionaries(st.sampled_from(["and_sub_policy", "key", "values", "threshold_ms", "x"]), VALUES)


@given(TYPES, SETTINGS, VALUES)
def test_whatever_is_written_is_refused_or_is_read(kind: str, settings: dict[str, object], other: object) -> None:
    """Nothing that YAML or JSON can hold is answered with anything but policies or a refusal."""
    for written in ({"name": "a", "type": kind, kind: settings}, {"name": "a", "type": kind, kind: other}, other):
        try:
            made = parse_policies([written], version=1)
        except PolicyRefused:
            continue
        assert policies_from_body(made.body, version=1) == made
