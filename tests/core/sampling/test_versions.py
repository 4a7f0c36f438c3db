"""Versions of the policies: which records of their log count, and what two versions differ in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.sampling.versions import changes, decode_version, encode_version, those_that_count
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import DecodeError
from spanloom.model import PolicyVersion

ERRORS: dict[str, object] = {"name": "errors", "type": "error"}
BODY = parse_policies([ERRORS], version=1).body


def written(version: int, mark: str = "m", body: bytes = BODY) -> PolicyVersion:
    return PolicyVersion(version, body, "me@here", 1_700_000_000_000, "why", mark)


def body(*names: str, threshold_ms: int = 5) -> bytes:
    policies = [{"name": name, "type": "latency", "latency": {"threshold_ms": threshold_ms}} for name in names]
    return parse_policies(policies, version=1).body


def test_a_version_comes_back_as_it_was_written() -> None:
    """Number, policies byte for byte, author, time and comment; on one line."""
    record = encode_version(written(7))
    assert decode_version(record) == written(7)
    assert b"\n" not in record


@given(st.text(max_size=200), st.text(max_size=50))
def test_any_comment_and_name_can_be_written(comment: str, author: str) -> None:
    """Whatever an operator types, the log stays a log of lines."""
    record = encode_version(written(1)._replace(comment=comment, author=author))
    assert b"\n" not in record
    assert decode_version(record).comment == comment


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{}",
        b'{"version":0,"policies":[],"written_unix_ms":1}',
        b'{"version":true,"policies":[],"written_unix_ms":1}',
        b'{"version":4294967296,"policies":[],"written_unix_ms":1}',
        b'{"version":1,"policies":{},"written_unix_ms":1}',
        b'{"version":1,"policies":[],"written_unix_ms":"now"}',
        b'{"version":1,"policies":[],"written_unix_ms":1,"author":3}',
    ],
)
def test_what_is_no_version_counts_for_nothing(record: bytes) -> None:
    """A record that cannot be read is passed over by everybody alike."""
    with pytest.raises(DecodeError):
        decode_version(record)
    assert those_that_count([record, encode_version(written(1))]) == [written(1)]


def test_of_two_that_write_one_version_the_first_counts() -> None:
    """Versions are ordered by the log: what does not lie above all before it says nothing, however late it comes."""
    log = [written(1, "a"), written(1, "b"), written(2, "b"), written(2, "a"), written(1, "c"), written(5, "d")]
    counted = those_that_count(map(encode_version, log))
    assert [(one.version, one.mark) for one in counted] == [(1, "a"), (2, "b"), (5, "d")]
    assert those_that_count(map(encode_version, log), above=2) == [written(5, "d")]


@given(st.lists(st.tuples(st.integers(1, 6), st.text("abc", min_size=1, max_size=1)), max_size=20), st.integers(0, 20))
def test_a_reader_that_joins_later_counts_the_same(log: list[tuple[int, str]], cut: int) -> None:
    """Read at once or in two parts, the same versions count."""
    records = [encode_version(written(version, mark)) for version, mark in log]
    first = those_that_count(records[:cut])
    rest = those_that_count(records[cut:], above=first[-1].version if first else 0)
    assert first + rest == those_that_count(records)


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (b"[]", body("a", "b"), "+a +b"),
        (body("a", "b"), body("b", "c"), "+c -a"),
        (body("a", "b"), body("a", "b"), ""),
        (body("a", "b"), body("b", "a"), "order"),
        (body("a", "b"), body("a", "b", threshold_ms=6), "~a ~b"),
    ],
)
def test_what_changed_is_said_by_name(before: bytes, after: bytes, said: str) -> None:
    """Added, removed and changed policies; or that only their order is another."""
    assert changes(before, after) == said


def test_the_policies_are_stored_as_they_were_written() -> None:
    """Another program can read a version without knowing how spanloom orders keys."""
    assert json.loads(encode_version(written(1)))["policies"] == [ERRORS]
