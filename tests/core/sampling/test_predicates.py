"""What conditions on spans mean: the Collector's, oddities included, and ours."""

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.core._pure.sampler import Sampler
from spanloom.model import Verdict
from tests.core.sampling.judged import (
    START_MS,
    Seen,
    Value,
    Written,
    features,
    keeps,
    key_value,
    of,
    sampler,
    traces_data,
)

KEY = "k"


def numeric(low: int = 0, high: int = 0, *, invert: bool = False) -> Written:
    return of("numeric_attribute", key=KEY, min_value=low, max_value=high, invert_match=invert)


def text(*values: str, regex: bool = False, invert: bool = False) -> Written:
    return of("string_attribute", key=KEY, values=list(values), enabled_regex_matching=regex, invert_match=invert)


def boolean(*, value: bool, invert: bool = False) -> Written:
    return of("boolean_attribute", key=KEY, value=value, invert_match=invert)


@pytest.mark.parametrize(("value", "kept"), [(49, False), (50, True), (100, True), (101, False)])
def test_numbers_lie_within_closed_bounds(value: int, *, kept: bool) -> None:
    """Both bounds belong to the range, on a span as on a resource."""
    assert keeps(numeric(50, 100), Seen({KEY: value})) is kept
    assert keeps(numeric(50, 100), Seen(resource={KEY: value})) is kept


@pytest.mark.parametrize("value", ["60", True, 60.0, None])
def test_a_number_that_is_none_counts_as_zero(value: Value) -> None:
    """An attribute of another kind is there all the same, with the value 0."""
    assert keeps(numeric(-5, 5), Seen({KEY: value}))
    assert not keeps(numeric(50, 100), Seen({KEY: value}))
    assert not keeps(numeric(-5, 5), Seen({"other": value}))


def test_a_bound_of_zero_is_no_bound() -> None:
    """`max_value: 0` with a negative minimum keeps every larger number, as in the Collector."""
    assert keeps(numeric(-5, 0), Seen({KEY: 1_000_000}))
    assert keeps(numeric(0, 5), Seen({KEY: -1_000_000}))


def test_an_inverted_condition_keeps_what_has_no_match() -> None:
    """Inverted: one matching span or resource is enough not to keep; without the attribute a trace is kept."""
    inverted = numeric(50, 100, invert=True)
    assert keeps(inverted, Seen(), Seen({KEY: 7}))
    assert not keeps(inverted, Seen({KEY: 7}), Seen({KEY: 60}))
    assert not keeps(inverted, Seen({KEY: 7}, resource={KEY: 60}))
    assert keeps(text("a", invert=True), Seen({KEY: "b"}))
    assert not keeps(text("a", invert=True), Seen({KEY: "b"}), Seen({KEY: "a"}))
    assert not keeps(boolean(value=True, invert=True), Seen({KEY: True}))


def test_a_span_s_own_attribute_does_not_hide_the_resource_s() -> None:
    """Both are asked."""
    assert keeps(text("a"), Seen({KEY: "b"}, resource={KEY: "a"}))
    assert keeps(numeric(5, 5), Seen({KEY: 1}, resource={KEY: 5}))


def test_texts_are_whole_values() -> None:
    """A text matches as a whole, letter for letter."""
    assert keeps(text("x", "pay"), Seen(), Seen({KEY: "pay"}))
    for value in ("Pay", "pay ", "repay", ""):
        assert not keeps(text("x", "pay"), Seen({KEY: value}))


def test_an_empty_value_matches_nothing() -> None:
    """An empty text in `values` is passed over: not even an empty attribute has it."""
    assert not keeps(text(""), Seen({KEY: ""}, resource={KEY: ""}))


def test_patterns_match_anywhere() -> None:
    """A pattern without anchors is found within the value."""
    assert keeps(text("b+", regex=True), Seen({KEY: "aabbcc"}))
    assert not keeps(text("^b+$", regex=True), Seen({KEY: "aabbcc"}))
    assert keeps(text("x", r"(?i)^A\w+$", regex=True), Seen({KEY: "abc"}))


@pytest.mark.parametrize("value", ["", 7, True, None])
def test_a_pattern_is_asked_of_an_empty_resource_attribute_alone(value: Value) -> None:
    """What is no text counts as the empty one; of a span that is not asked about, of a resource it is."""
    assert keeps(text("^$", regex=True), Seen(resource={KEY: value}))
    assert not keeps(text("^$", regex=True), Seen({KEY: value}))


@pytest.mark.parametrize(("attribute", "kept"), [(True, True), (False, False), ("true", False), (1, False)])
def test_truth_is_a_boolean_s(attribute: Value, *, kept: bool) -> None:
    """Only a boolean can be true."""
    assert keeps(boolean(value=True), Seen({KEY: attribute})) is kept


@pytest.mark.parametrize("attribute", [False, "true", 1, 0.5, None])
def test_what_is_no_boolean_counts_as_false(attribute: Value) -> None:
    """An attribute of another kind is there, and false; one that is not there is neither."""
    assert keeps(boolean(value=False), Seen({KEY: attribute}))
    assert not keeps(boolean(value=False), Seen())


def test_a_key_that_stands_twice_counts_as_it_stands_first() -> None:
    """The first of two attributes with one key is the one asked about."""
    data = TracesData.FromString(traces_data(Seen({KEY: "first"})))
    data.resource_spans[0].scope_spans[0].spans[0].attributes.append(key_value(KEY, "second"))
    assert _kept(text("first"), data.SerializeToString())
    assert not _kept(text("second"), data.SerializeToString())


def test_a_value_that_stands_twice_counts_as_it_stands_last() -> None:
    """Within one attribute the last value of the oneof is the value, as protobuf has it."""
    twice = key_value(KEY, "first").SerializeToString() + key_value(KEY, "last").SerializeToString()[3:]
    assert _kept(text("last"), _with_attribute(twice))
    assert not _kept(text("first"), _with_attribute(twice))


def test_a_malformed_attribute_is_none() -> None:
    """An attribute whose framing is broken is not there, and the others of the span still are."""
    cut_off = key_value(KEY, "value").SerializeToString()[:-1]
    data = _with_attribute(cut_off, Seen({"other": "x"}))
    assert not _kept(text("value", "valu"), data)
    assert _kept(text("value", invert=True), data)
    assert _kept(of("string_attribute", key="other", values=["x"]), data)


def _kept(policy: Written, data: bytes) -> bool:
    made: Sampler = sampler(policy)
    return made.judge(features(), [data]).verdict is Verdict.KEEP


def _with_attribute(raw: bytes, seen: Seen | None = None) -> bytes:
    """A trace of one span that has *raw* as a further attribute."""
    data = TracesData.FromString(traces_data(seen or Seen()))
    span = data.resource_spans[0].scope_spans[0].spans[0].SerializeToString() + _length_delimited(9, raw)
    return _length_delimited(1, _length_delimited(2, _length_delimited(2, span)))


def _length_delimited(number: int, payload: bytes) -> bytes:
    assert len(payload) < 1 << 14
    length = len(payload)
    size = bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])
    return bytes([number << 3 | 2]) + size + payload


@pytest.mark.parametrize(("written", "code"), [("UNSET", 0), ("OK", 1), ("ERROR", 2)])
def test_a_status_code_is_that_of_any_span(written: str, code: int) -> None:
    """A span of one of the codes is enough; one without a status is UNSET."""
    policy = of("status_code", status_codes=[written])
    assert keeps(policy, Seen(status=(code + 1) % 3), Seen(status=code))
    assert not keeps(policy, Seen(status=(code + 1) % 3), Seen(status=(code + 2) % 3))


@pytest.mark.parametrize(("ms", "kept"), [(500, False), (500.999, False), (501, True), (5000, True)])
def test_latency_is_more_than_so_many_whole_milliseconds(ms: float, *, kept: bool) -> None:
    """The threshold itself is not exceeded, nor by part of a millisecond."""
    assert keeps(of("latency", threshold_ms=500), Seen(end_ms=ms)) is kept


def test_latency_is_from_the_first_start_to_the_last_end() -> None:
    """Spans that are short may make a trace that is long."""
    assert keeps(of("latency", threshold_ms=500), Seen(end_ms=10), Seen(start_ms=590, end_ms=600))


def test_an_upper_bound_holds_for_the_spans_so_far() -> None:
    """A trace that lay within both bounds at any moment is kept, however long it became: order of arrival counts."""
    policy = of("latency", threshold_ms=500, upper_threshold_ms=700)
    assert keeps(policy, Seen(end_ms=700))
    assert not keeps(policy, Seen(end_ms=701))
    within, beyond = Seen(end_ms=600), Seen(end_ms=2000)
    assert keeps(policy, within, beyond)
    assert not keeps(policy, beyond, within)


def test_a_time_of_zero_gives_way() -> None:
    """A span without a start counts from 1970, until a span that has one comes; so does one without an end."""
    policy = of("latency", threshold_ms=500)
    assert keeps(policy, Seen(start_ms=-START_MS))
    assert not keeps(policy, Seen(end_ms=-START_MS), Seen())


@pytest.mark.parametrize(
    ("trace_state", "kept"),
    [
        ("vendor=blue", True),
        ("a=1, vendor=blue ,b=2", True),
        ("vendor=red", False),
        ("other=blue", False),
        ("vendor=blue,vendor=red", False),
        ("vendor=blue,Upper=1", False),
        ("vendor=blue,novalue", False),
        ("vendor=blue,é=1", False),
        (",".join(["vendor=blue", *(f"k{i}=1" for i in range(31))]), True),
        (",".join(["vendor=blue", *(f"k{i}=1" for i in range(32))]), False),
        ("", False),
    ],
)
def test_a_trace_state_counts_where_it_is_well_formed(trace_state: str, *, kept: bool) -> None:
    """One error anywhere in a span's tracestate and none of its members is looked at."""
    assert keeps(of("trace_state", key="vendor", values=["blue"]), Seen(), Seen(trace_state=trace_state)) is kept


def test_a_member_that_is_too_long_is_not_looked_for() -> None:
    """Key and value of 256 bytes and more are passed over in `values`, though a tracestate may hold them."""
    for size, kept in ((249, True), (250, False)):
        policy = of("trace_state", key="vendor", values=["x" * size])
        assert keeps(policy, Seen(trace_state=f"vendor={'x' * size}")) is kept


def test_trace_flags_look_at_the_sampled_bit() -> None:
    """The lowest bit is the W3C flag; the others say other things."""
    assert keeps(of("trace_flags"), Seen(), Seen(flags=0x101))
    assert not keeps(of("trace_flags"), Seen(flags=0x1FE))


@pytest.mark.parametrize(
    ("seen", "kept"),
    [
        (Seen(status=2), True),
        (Seen({"error": True}), True),
        (Seen({"error": "true"}), True),
        (Seen(status=1), False),
        (Seen({"error": False}), False),
        (Seen({"error": "TRUE"}), False),
        (Seen({"error": 1}), False),
        (Seen(resource={"error": True}), False),
    ],
)
def test_an_error_is_a_status_or_a_tag_of_a_span(seen: Seen, *, kept: bool) -> None:
    """Status ERROR, or `error` as true or "true"; a resource is no error."""
    assert keeps(of("error"), Seen(), seen) is kept


@pytest.mark.parametrize(("service", "kept"), [("pay", True), ("pay-eu", True), ("PAY", False), ("repay", False)])
def test_service_patterns_are_globs_over_every_service(service: str, *, kept: bool) -> None:
    """A trace is kept when any of its services matches a glob, letter case and both ends included."""
    policy = of("service_pattern", services=["bank", "pay*"])
    assert keeps(policy, Seen(resource={"service.name": "shop"}), Seen(resource={"service.name": service})) is kept
