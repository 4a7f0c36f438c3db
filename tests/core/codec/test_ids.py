"""Ids as text."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.codec.ids import TEXT_MAX, span_id_from_text, trace_id_from_text
from spanloom.errors import DecodeError


@pytest.mark.parametrize(
    ("text", "trace_id"),
    [
        ("abc123", "00000000000000000000000000abc123"),
        ("ABC123", "00000000000000000000000000abc123"),
        ("463ac35c9f6413ad", "0000000000000000463ac35c9f6413ad"),
        ("4bf92f3577b34da6a3ce929d0e0e4736", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("1", "00000000000000000000000000000001"),
    ],
)
def test_hex_is_a_number_padded_on_the_left(text: str, trace_id: str) -> None:
    """Hex digits of any case and count are the id they spell."""
    assert trace_id_from_text(text).hex() == trace_id


@pytest.mark.parametrize(
    "text", ["order-17", "4bf92f3577b34da6a3ce929d0e0e47361", "0", "0" * 32, "abc 123", "é", "\ud800", "١٢"]
)
def test_other_text_is_hashed_as_documented(text: str) -> None:
    """What is no hex id, and what would be all zero, is the start of its SHA-256."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    assert trace_id_from_text(text) == digest[:16]


def test_a_span_id_has_eight_bytes() -> None:
    """A span id is read by the same rule: 16 hex digits, or hashed."""
    assert span_id_from_text("f00").hex() == "0000000000000f00"
    assert span_id_from_text("span001") == hashlib.sha256(b"span001").digest()[:8]
    assert span_id_from_text("0123456789abcdef0") == hashlib.sha256(b"0123456789abcdef0").digest()[:8]


@pytest.mark.parametrize("text", ["", "x" * (TEXT_MAX + 1)])
def test_text_that_is_no_id_is_refused(text: str) -> None:
    """Nothing, and too much, is no id."""
    with pytest.raises(DecodeError, match="expected 1 to 256 characters"):
        trace_id_from_text(text)


@given(st.text(min_size=1, max_size=TEXT_MAX))
def test_every_text_has_an_id_that_is_not_all_zero(text: str) -> None:
    """No text makes an invalid id."""
    assert len(trace_id_from_text(text)) == 16
    assert any(trace_id_from_text(text))
    assert len(span_id_from_text(text)) == 8
    assert any(span_id_from_text(text))


@given(st.binary(min_size=16, max_size=16).filter(any))
def test_an_id_written_as_hex_is_itself(trace_id: bytes) -> None:
    """The hex digits of an id lead back to it."""
    assert trace_id_from_text(trace_id.hex()) == trace_id
