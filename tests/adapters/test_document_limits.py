"""What no store can take is found, however short the first look is."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.adapters import document_limits
from spanloom.adapters.document_limits import rejection_of
from spanloom.errors import StoreRejected
from spanloom.model import AttributeValue, Document
from tests.conformance.test_store import document

TEXTS = st.text(
    st.one_of(st.characters(max_codepoint=0x7F), st.sampled_from("ä\x00\ud800\udfff\U0001f9c0")), max_size=3
)
NUMBERS = st.one_of(st.sampled_from([limit + more for limit in (0, 1 << 63, 1 << 64, -1 << 63) for more in (-1, 0, 1)]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.floats(), TEXTS, st.binary(max_size=2))
VALUES: st.SearchStrategy[AttributeValue] = st.recursive(
    SCALARS, lambda some: st.one_of(st.lists(some, max_size=3), st.dictionaries(TEXTS, some, max_size=3)), max_leaves=4
)
CHANGES: dict[str, st.SearchStrategy[object]] = {
    "id": TEXTS,
    "root_operation": TEXTS,
    "day": st.sampled_from(["2026.01.02", "2026.1.2", "", "2026.01.02\n"]),
    "services": st.lists(TEXTS, max_size=2).map(tuple),
    "operations": st.lists(TEXTS, max_size=2).map(tuple),
    "start_unix_ns": NUMBERS,
    "duration_ns": NUMBERS,
    "root_duration_ns": NUMBERS,
    "span_count": NUMBERS,
    "error_count": NUMBERS,
    "attributes": st.dictionaries(TEXTS, TEXTS, max_size=2),
    "verdict": st.dictionaries(TEXTS, VALUES, max_size=3),
}


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """With one or two fields that may be odd."""
    names = draw(st.lists(st.sampled_from(sorted(CHANGES)), min_size=1, max_size=2, unique=True))
    changes = {name: draw(CHANGES[name]) for name in names}
    return replace(document(), **changes)  # type: ignore[arg-type]


def looked_through(document: Document) -> StoreRejected | None:
    """The same, every value looked at by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document_limits, "_is_usual", lambda _: False)
        return rejection_of(document)


@given(documents())
def test_the_short_look_lets_no_fault_pass(document: Document) -> None:
    """A document is refused exactly where looking at each of its values finds why."""
    found, expected = rejection_of(document), looked_through(document)
    assert (found is None) == (expected is None)
    assert found is None or expected is None or found.reason == expected.reason


def test_the_short_look_is_enough_for_a_usual_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """What spanloom itself makes is not looked at value by value."""
    monkeypatch.setattr(document_limits, "_faults", None)
    usual = replace(document(), verdict={"policy": "a", "votes": ["a", "b"], "late": False, "count": 1.5, "of": None})
    assert rejection_of(usual) is None
