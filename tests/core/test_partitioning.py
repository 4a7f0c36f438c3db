"""Keys land where Kafka's, Sarama's and mmh3's own partitioners put them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core._pure import hashes as pure
from spanloom.core.partitioning import Partitioner, PartitionHashes, partition_of
from tests.core.twins import native_hashes


@pytest.fixture(params=["pure", "native"])
def hashes(request: pytest.FixtureRequest) -> PartitionHashes:
    """One twin after the other."""
    return pure if request.param == "pure" else native_hashes()


@pytest.mark.parametrize(
    ("key", "partitioner", "expected"),
    [
        (b"cfcd208495d565ef66e7dff9f98764da", Partitioner.MURMUR2, 1),
        (b"cfcd208495d565ef66e7dff9f98764da", Partitioner.FNV1A, 0),
        (b"cfcd208495d565ef66e7dff9f98764da", Partitioner.MURMUR3, 3),
        (b"c4ca4238a0b923820dcc509a6f75849b", Partitioner.MURMUR2, 9),
        (b"c4ca4238a0b923820dcc509a6f75849b", Partitioner.FNV1A, 0),
        (b"c81e728d9d4c2f636f067f89cc14862c", Partitioner.MURMUR2, 3),
        (b"c81e728d9d4c2f636f067f89cc14862c", Partitioner.FNV1A, 4),
        (b"eccbc87e4b5ce2fe28308fd9f2a7baf3", Partitioner.FNV1A, 11),
        (b"e4da3b7fbbce2345d7772b0674a318d5", Partitioner.FNV1A, 1),
    ],
)
def test_a_key_lands_where_other_producers_put_it(
    hashes: PartitionHashes, key: bytes, partitioner: Partitioner, expected: int
) -> None:
    """Among 12 partitions every partitioner gives the vectors measured on the programs it stands for."""
    assert partition_of(key, 12, partitioner, hashes=hashes) == expected


def test_murmur2_is_the_default() -> None:
    """A caller that names no partitioner gets the one spanloom's own topics use."""
    assert partition_of(b"c4ca4238a0b923820dcc509a6f75849b", 12) == 9


@given(key=st.binary(max_size=64), count=st.integers(1, 2**31 - 1), partitioner=st.sampled_from(Partitioner))
def test_every_key_has_a_partition_in_range(key: bytes, count: int, partitioner: Partitioner) -> None:
    """No key goes below zero or past the last partition, whatever sign its hash has."""
    assert 0 <= partition_of(key, count, partitioner) < count


@given(key=st.binary(max_size=64), count=st.integers(1, 2**31 - 1))
def test_fnv1a_is_sarama_s_signed_remainder(key: bytes, count: int) -> None:
    """The fnv1a partition is the absolute value of the C remainder of the hash read as a signed integer, not a mask."""
    signed = int.from_bytes(pure.fnv1a_32(key).to_bytes(4, "little"), "little", signed=True)
    assert partition_of(key, count, Partitioner.FNV1A) == abs(math.fmod(signed, count))


@pytest.mark.parametrize("count", [0, -1])
def test_no_partitions_is_a_bug(count: int) -> None:
    """A partition count below one is refused, not answered."""
    with pytest.raises(AssertionError, match="must be positive"):
        partition_of(b"key", count)
