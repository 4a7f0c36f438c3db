"""The ledger's records: what is written is read, and nothing else is taken for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.assembly import Tally
from spanloom.core.ledger import (
    Checkpoint,
    Config,
    Decide,
    Entry,
    Fence,
    Probe,
    Rate,
    Skip,
    Tick,
    chunk_decisions,
    decode,
    decode_decisions,
    encode,
    encode_decision,
)
from spanloom.errors import DecodeError
from spanloom.model import THRESHOLD_UNKNOWN, Decision, Identity, Trigger, Verdict

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
IDENTITIES = st.builds(Identity, st.binary(min_size=8, max_size=8), st.integers(0, 255), U64)
DECISIONS = st.builds(
    Decision,
    trace_id=st.binary(min_size=16, max_size=16),
    verdict=st.sampled_from(Verdict),
    trigger=st.sampled_from(Trigger),
    policy=st.integers(0, 255),
    policy_version=U32,
    votes=U64,
    threshold=st.integers(0, THRESHOLD_UNKNOWN),
    flags=st.integers(0, 255),
    first=U64,
    cut=U64,
    stream_ns=U64,
    origin_ns=U64,
    operation=U64,
    duration_ns=U64,
    span_count=U32,
    identities=st.lists(IDENTITIES, max_size=5).map(tuple),
)
ENTRIES: st.SearchStrategy[Entry] = st.one_of(
    st.builds(Fence, st.binary(min_size=16, max_size=16), U64),
    st.lists(DECISIONS, min_size=1, max_size=4).map(
        lambda decisions: Decide(chunk_decisions([encode_decision(d) for d in decisions], 1 << 20)[0])
    ),
    st.builds(Tick, U64, U64),
    st.builds(Config, U64, U32, st.binary(max_size=50)),
    st.builds(Rate, U64, st.floats(0, 1), st.integers(0, 255)),
    st.builds(Skip, U64, st.text(max_size=30)),
    st.builds(Probe, U64),
    st.builds(Checkpoint, U64, st.builds(Tally, received=U64, stored=U64), st.binary(max_size=50)),
)


@given(entry=ENTRIES, partition=U32, epoch=U64)
def test_every_record_reads_back_as_it_was_written(entry: Entry, partition: int, epoch: int) -> None:
    """Whatever an owner appends, every reader gets the same epoch and entry from it."""
    assert decode(encode(partition, epoch, entry), partition=partition, position=7) == (epoch, entry)


@given(decisions=st.lists(DECISIONS, max_size=6), bytes_max=st.integers(1, 600))
def test_decisions_survive_being_cut_into_records(decisions: list[Decision], bytes_max: int) -> None:
    """However small the records, the decisions come back whole and in order; none is empty."""
    bodies = chunk_decisions([encode_decision(d) for d in decisions], bytes_max)
    assert [d for body in bodies for d in decode_decisions(body)] == decisions
    assert all(Decide(body).count for body in bodies)


@given(entry=ENTRIES, data=st.data())
def test_a_changed_byte_is_noticed(entry: Entry, data: st.DataObject) -> None:
    """One changed byte anywhere in a record is an error that says where, never another entry."""
    body = bytearray(encode(3, 5, entry))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecodeError) as caught:
        decode(bytes(body), partition=3, position=9)
    assert "spanloom-ledger/3@9" in str(caught.value)


@given(entry=ENTRIES, data=st.data())
def test_a_record_cut_short_is_noticed(entry: Entry, data: st.DataObject) -> None:
    """A record that ends too soon is an error wherever it ends."""
    body = encode(3, 5, entry)
    with pytest.raises(DecodeError):
        decode(body[: data.draw(st.integers(0, len(body) - 1))], partition=3, position=9)


def test_another_format_version_is_refused_by_name() -> None:
    """A record of a later format says which version was expected and which came."""
    body = bytearray(encode(0, 1, Tick(1, 2)))
    body[0] = 3
    with pytest.raises(DecodeError, match="expected format version 2, found 3"):
        decode(bytes(body), partition=0, position=0)


def test_a_record_of_another_partition_is_refused() -> None:
    """A record that lies in the wrong ledger partition is not believed."""
    with pytest.raises(DecodeError, match="partition"):
        decode(encode(1, 1, Tick(1, 2)), partition=0, position=0)
