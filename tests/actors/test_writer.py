"""What the topics are told of a kept fragment."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.actors.writer import verdict_json
from spanloom.core.document import verdict_of
from spanloom.model import NO_POLICY, THRESHOLD_UNKNOWN, AttributeValue, Decision, Trigger, Verdict

NAMES = st.text(st.one_of(st.characters(max_codepoint=0x7F), st.sampled_from("äß\u2028\U0001f9c0")), max_size=6)
NUMBERS = st.integers(0, (1 << 63) - 1)


@st.composite
def verdicts(draw: st.DrawFn) -> dict[str, AttributeValue]:
    """Of any decision, under any policies."""
    threshold = draw(
        st.one_of(st.integers(0, THRESHOLD_UNKNOWN), st.integers(0, 60).map(lambda n: (1 << 56) - (1 << n)))
    )
    decision = Decision(
        trace_id=bytes(16), verdict=draw(st.sampled_from(Verdict)), trigger=draw(st.sampled_from(Trigger)),
        policy=draw(st.sampled_from((0, 1, NO_POLICY))), policy_version=draw(NUMBERS), votes=draw(st.integers(0, 7)),
        threshold=max(threshold, 0), flags=draw(st.integers(0, 31)), first=draw(NUMBERS), cut=draw(NUMBERS),
        stream_ns=draw(NUMBERS), origin_ns=draw(NUMBERS), operation=draw(NUMBERS), duration_ns=draw(NUMBERS),
        span_count=draw(NUMBERS),
    )  # fmt: skip
    return verdict_of(decision, draw(st.lists(NAMES, min_size=3, max_size=3)))


@given(verdicts())
def test_a_verdict_has_the_bytes_that_json_gives_it(verdict: dict[str, AttributeValue]) -> None:
    """Whoever writes it, now or in an earlier release: the same verdict is the same bytes."""
    assert verdict_json(verdict) == json.dumps(verdict, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("character", [chr(code) for code in (*range(128), 0xE4, 0x2028)], ids=ascii)
def test_any_character_in_a_policy_is_written_as_json_does(character: str) -> None:
    """Those that json escapes and msgspec does not as well."""
    verdict: dict[str, AttributeValue] = {"adjusted_count": 1.0, "policy": f"a{character}b"}
    assert verdict_json(verdict) == json.dumps(verdict, sort_keys=True, separators=(",", ":")).encode()
