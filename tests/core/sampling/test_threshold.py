"""`rv` and `th` by the OpenTelemetry specification: TraceState Handling, and TraceState: Probability Sampling."""

import re
import string
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spanloom.core.sampling.head import HeadSampler
from spanloom.core.sampling.policies import bend, threshold_of
from spanloom.core.sampling.threshold import (
    adjusted_count,
    format_threshold,
    members_of,
    randomness_of,
    with_threshold,
)
from spanloom.model import THRESHOLD_UNKNOWN
from tests.core.sampling.judged import Seen, keeps, of, traces_data

MAX_ADJUSTED_COUNT = 1 << 56
THRESHOLDS = st.one_of(
    st.integers(0, MAX_ADJUSTED_COUNT - 1),
    st.integers(0, 15).flatmap(lambda digit: st.integers(0, 13).map(lambda at: digit << 4 * at)),
)
OR_UNKNOWN = st.one_of(THRESHOLDS, st.just(THRESHOLD_UNKNOWN))

# What the specifications' grammars allow, and a little of what they do not.
KEY = st.one_of(
    st.from_regex(r"[a-z][a-z0-9_*/-]{0,8}", fullmatch=True),
    st.from_regex(r"[a-z0-9][a-z0-9_*/-]{0,8}@[a-z][a-z0-9_*/-]{0,13}", fullmatch=True),
).filter(lambda key: key != "ot")
VALUE = st.from_regex(r"[ -+\--<>-~]{0,8}[!-+\--<>-~]", fullmatch=True)
MEMBERS = tuple(f"{key}{n}{tail}" for n in range(12) for key, tail in (("k", "=v"), ("a/", "@b=a b"), ("x_", "=;th:8")))
OTHERS = st.lists(st.sampled_from(MEMBERS), unique=True, max_size=32)
HEX_TEXT = st.text("0123456789abcdef", max_size=16) | st.text("0123456789abcdefAFgx.-", max_size=15)
FIELD = st.one_of(
    HEX_TEXT.map("th:{}".format),
    HEX_TEXT.map("rv:{}".format),
    st.from_regex(r"[a-z][a-z0-9]{0,5}:[A-Za-z0-9._-]{0,8}", fullmatch=True),
)
OT = st.lists(FIELD, max_size=5).map(";".join)


@st.composite
def trace_states(draw: st.DrawFn) -> str:
    """Well-formed ones: members in any order, `ot` among them or not."""
    members = draw(OTHERS)
    ot = draw(OT)
    if ot and len(members) < 32:
        members.insert(draw(st.integers(0, len(members))), f"ot={ot}")
    return ",".join(members)


ANY = st.one_of(trace_states(), st.text(string.ascii_lowercase + "=,;:@ \tAé019", max_size=40))


# The encoding.


@given(THRESHOLDS)
@example(0)
def test_a_threshold_is_written_without_the_zeros_at_its_end(threshold: int) -> None:
    """`th` has 1 to 14 lower-case hex digits, none of them a zero at the end unless it is the only one."""
    written = format_threshold(threshold)
    assert re.fullmatch(r"0|[0-9a-f]{0,13}[1-9a-f]", written)
    assert int(written + "0" * (14 - len(written)), 16) == threshold


@given(THRESHOLDS)
def test_a_threshold_that_was_written_is_read_back(threshold: int) -> None:
    """What one process writes, another reads."""
    assert randomness_of(f"ot=th:{format_threshold(threshold)}").th == threshold


@given(HEX_TEXT)
def test_only_one_to_fourteen_lower_case_digits_are_a_threshold(text: str) -> None:
    """An invalid `th` counts as none; a valid one is extended with zeros to 14 digits."""
    valid = 1 <= len(text) <= 14 and set(text) <= set("0123456789abcdef")
    assert randomness_of(f"ot=th:{text}").th == (int(text, 16) * 16 ** (14 - len(text)) if valid else None)


@given(HEX_TEXT)
def test_only_fourteen_lower_case_digits_are_randomness(text: str) -> None:
    """An invalid `rv` counts as none."""
    valid = len(text) == 14 and set(text) <= set("0123456789abcdef")
    assert randomness_of(f"ot=rv:{text}").rv == (int(text, 16) if valid else None)


def test_the_specifications_own_figures() -> None:
    """1 % is fd70a3d70a3d71, which five digits round to fd70a4; th:8 is a half, th:0 everything."""
    assert format_threshold(threshold_of(1)) == "fd70a3d70a3d71"
    assert randomness_of("ot=th:fd70a4").th == 0xFD70A400000000
    assert adjusted_count(0xFD70A400000000) == pytest.approx(100, rel=1e-4)
    assert [adjusted_count(randomness_of(f"ot=th:{th}").th or 0) for th in ("0", "8", "c", "e", "f")] == [
        1,
        2,
        4,
        8,
        16,
    ]
    assert threshold_of(100) == 0
    assert threshold_of(0) == THRESHOLD_UNKNOWN


@given(THRESHOLDS)
def test_an_adjusted_count_is_the_inverse_of_the_probability(threshold: int) -> None:
    """A kept trace stands for 2^56 / (2^56 - T) traces; the count is exact to the last bit but one of a float."""
    count = adjusted_count(threshold)
    exact = Fraction(MAX_ADJUSTED_COUNT, MAX_ADJUSTED_COUNT - threshold)
    assert count is not None
    assert abs(Fraction(count) / exact - 1) < Fraction(1, 1 << 51)


def test_an_unknown_threshold_has_no_count() -> None:
    """Where chance came in that R does not know of, nothing is guessed."""
    assert adjusted_count(THRESHOLD_UNKNOWN) is None


# Tracestates.


@given(trace_states(), HEX_TEXT)
def test_only_the_member_ot_is_asked(trace_state: str, text: str) -> None:
    """Other members may say rv and th as they like, OpenTelemetry's of a tenant too."""
    ours = randomness_of(trace_state)
    others = f"vendor=rv:{'0' * 14};th:1,t@ot=th:{text or 0}"
    both = f"{others},{trace_state}" if trace_state else others
    if members_of(both) is not None:
        assert randomness_of(both) == ours


@given(st.lists(st.tuples(KEY, VALUE), min_size=1, max_size=36))
def test_a_tracestate_has_up_to_32_members_of_different_keys(pairs: list[tuple[str, str]]) -> None:
    """A 33rd member, or a key twice, makes all of it invalid."""
    keys = [key for key, _ in pairs]
    well_formed = len(pairs) <= 32 and len(set(keys)) == len(keys)
    found = members_of(",".join(f"{key}={value}" for key, value in pairs))
    assert found == (dict(pairs) if well_formed else None)


@given(ANY, OR_UNKNOWN)
@example(",".join(f"k{i}=v" for i in range(32)), THRESHOLD_UNKNOWN)
@example(",".join(f"k{i}=v" for i in range(32)), 1 << 55)
@example("ot=" + "a:" + "b" * 250, 1)
@example("ot=th:8", 0)
@example("ot= ;th:8", THRESHOLD_UNKNOWN)
def test_a_tracestate_stays_well_formed(trace_state: str, threshold: int) -> None:
    """Stamping leaves 32 members at most and 256 characters of value; one that was not well-formed stays as it is."""
    after = with_threshold(trace_state, threshold)
    if members_of(trace_state) is None:
        assert after == trace_state
        return
    members = members_of(after)
    assert members is not None
    assert len(members) <= 32


@given(trace_states(), THRESHOLDS)
def test_a_threshold_is_never_lowered(trace_state: str, threshold: int) -> None:
    """A later stage cannot raise the probability with which an earlier one sampled."""
    before = randomness_of(trace_state).th or 0
    assert randomness_of(with_threshold(trace_state, threshold)).th == max(before, threshold)


@given(trace_states())
@example("ot=th:8,a=1")
@example("ot=th:8;th:c")
def test_an_unknown_probability_erases_the_threshold(trace_state: str) -> None:
    """Who samples by a chance that R does not know of leaves no `th`, valid or not."""
    after = members_of(with_threshold(trace_state, THRESHOLD_UNKNOWN)) or {}
    assert not any(field.startswith("th:") for field in after.get("ot", "").split(";"))


def _fields_beside_th(ot: str) -> list[str]:
    return [field for field in ot.split(";") if field and not field.startswith("th:")]


@given(trace_states(), OR_UNKNOWN)
@example(",".join(f"k{i}=v" for i in range(32)), THRESHOLD_UNKNOWN)
@example(",".join(f"k{i}=v" for i in range(32)), 1 << 55)
def test_what_is_not_the_threshold_is_kept(trace_state: str, threshold: int) -> None:
    """`rv` and the other fields of `ot` stay; so do other members, in order, less the last where there is no room."""
    before, after = members_of(trace_state) or {}, members_of(with_threshold(trace_state, threshold)) or {}
    ot, ot_after = before.pop("ot", ""), after.pop("ot", "")
    assert _fields_beside_th(ot_after) == _fields_beside_th(ot)
    assert randomness_of(with_threshold(trace_state, threshold)).rv == randomness_of(trace_state).rv
    assert list(after.items()) == list(before.items())[: len(after)]
    assert len(after) >= len(before) - 1
    assert after == before or (len(before) == 32 and threshold < THRESHOLD_UNKNOWN)


@given(trace_states(), THRESHOLDS)
def test_the_member_that_changed_stands_first(trace_state: str, threshold: int) -> None:
    """As W3C has it: to the left. A tracestate that says all that is to be said stays as it is, byte for byte."""
    after = with_threshold(trace_state, threshold)
    assert after == trace_state or after.startswith("ot=")


@given(ANY, OR_UNKNOWN, OR_UNKNOWN)
@example("a=1,ot=th:8", 0, 0)
def test_stamping_twice_is_stamping_once_with_the_stricter(trace_state: str, first: int, second: int) -> None:
    """Stages in a row come to their strictest; the same stage again changes nothing."""
    once = with_threshold(trace_state, first)
    assert with_threshold(once, first) == once
    if first < THRESHOLD_UNKNOWN and second < THRESHOLD_UNKNOWN:
        assert randomness_of(with_threshold(once, second)) == randomness_of(
            with_threshold(trace_state, max(first, second))
        )


# Sampling by it.


@given(st.integers(0, MAX_ADJUSTED_COUNT - 1), st.floats(0, 100), st.floats(0, 100))
def test_who_keeps_more_keeps_what_who_keeps_less_keeps(randomness: int, low: float, high: float) -> None:
    """Consistent: what passes one probability passes every higher one, and both in a row are the lower one alone."""
    low, high = sorted((low, high))
    by_low, by_high = (randomness >= threshold_of(percentage) for percentage in (low, high))
    assert by_high or not by_low
    assert (by_low and by_high) == (randomness >= max(threshold_of(low), threshold_of(high)))


@given(st.floats(0, 100))
def test_a_probabilitys_threshold_is_off_by_half_at_most(percentage: float) -> None:
    """T is (1 - p) x 2^56, rounded, however small p is; one too small for it keeps nothing."""
    kept = Fraction(percentage / 100) * MAX_ADJUSTED_COUNT
    assert abs(MAX_ADJUSTED_COUNT - threshold_of(percentage) - kept) <= Fraction(1, 2)


@given(OR_UNKNOWN, st.floats(0, 1), st.floats(0, 1))
def test_load_bends_a_threshold_upwards(threshold: int, less: float, more: float) -> None:
    """Under load a part of what was kept is kept: a lower rate never keeps what a higher one drops."""
    less, more = sorted((less, more))
    assert threshold - 8 <= bend(threshold, more) <= bend(threshold, less) <= THRESHOLD_UNKNOWN
    assert bend(threshold, 0.0) == THRESHOLD_UNKNOWN


PERCENTAGES = st.sampled_from([100, 50, 25, 12.5, 3.125, 0.1])  # of which head and tail make the very same threshold


@given(st.integers(0, MAX_ADJUSTED_COUNT - 1), st.booleans(), PERCENTAGES, PERCENTAGES)
def test_sampled_at_the_head_and_in_the_tail_is_sampled_once(r: int, explicit: bool, head: float, tail: float) -> None:
    """R is the trace id or `rv`: what passes the head's probability and then the tail's passes the lower alone."""
    number = (1 << 100) + (r if not explicit else MAX_ADJUSTED_COUNT - 1 - r)
    span = Seen(trace_state=f"a=1,ot=th:0;rv:{r:014x}" if explicit else "a=1")
    body = traces_data(span, number=number)
    passes = HeadSampler(head / 100).sift([(number.to_bytes(16, "big"), body)], {}).parts != []
    assert passes == keeps(of("consistent_probability", sampling_percentage=head), span, number=number)
    both = passes and keeps(of("consistent_probability", sampling_percentage=tail), span, number=number)
    assert both == keeps(of("consistent_probability", sampling_percentage=min(head, tail)), span, number=number)
