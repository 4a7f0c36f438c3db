"""The public hashes, each twin against published vectors, other implementations and each other."""

from typing import cast

import mmh3
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core._pure import hashes as pure
from tests.core.twins import Hashes, native_hashes


@pytest.fixture(params=["pure", "native"])
def hashes(request: pytest.FixtureRequest) -> Hashes:
    """One twin after the other."""
    return cast(Hashes, pure) if request.param == "pure" else native_hashes()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_gives_what_kafkas_own_tests_expect(hashes: Hashes, data: bytes, expected: int) -> None:
    """murmur2 equals the Java client's on the vectors of Kafka's UtilsTest (there as signed integers)."""
    assert hashes.murmur2(data) == expected % 2**32


@pytest.mark.parametrize(
    ("data", "bits_32", "bits_64"),
    [
        (b"", 0x811C9DC5, 0xCBF29CE484222325),
        (b"a", 0xE40C292C, 0xAF63DC4C8601EC8C),
        (b"foobar", 0xBF9CF968, 0x85944171F73967E8),
    ],
)
def test_fnv1a_gives_the_published_vectors(hashes: Hashes, data: bytes, bits_32: int, bits_64: int) -> None:
    """FNV-1a equals the vectors of its authors' test suite in both widths."""
    assert hashes.fnv1a_32(data) == bits_32
    assert hashes.fnv1a_64(data) == bits_64


@pytest.mark.parametrize("length", range(100))
def test_murmur3_and_content_hash_equal_other_implementations(hashes: Hashes, length: int) -> None:
    """At every length across the block borders the results are those of the mmh3 and xxhash packages."""
    data = bytes(range(156, 156 + length))
    assert hashes.murmur3_x86_32(data) == mmh3.hash(data, 0, signed=False)
    assert hashes.content_hash(data) == xxhash.xxh64_intdigest(data, seed=0)


def test_content_hash_of_nothing_is_the_published_value(hashes: Hashes) -> None:
    """XXH64 of no bytes at all is the value every implementation documents."""
    assert hashes.content_hash(b"") == 0xEF46DB3751D8E999


@pytest.mark.parametrize("name", ["murmur2", "murmur3_x86_32", "fnv1a_32", "fnv1a_64", "content_hash"])
@given(data=st.binary(max_size=300))
def test_native_equals_pure(name: str, data: bytes) -> None:
    """The native twin gives the pure one's result on any input."""
    assert getattr(native_hashes(), name)(data) == getattr(pure, name)(data)


@pytest.mark.parametrize("name", ["murmur2", "murmur3_x86_32", "fnv1a_32", "fnv1a_64", "content_hash"])
@pytest.mark.parametrize("wrong", [None, "text", bytearray(b"x"), 7])
def test_native_refuses_what_is_not_bytes(name: str, wrong: object) -> None:
    """Anything but bytes is a TypeError, never a read of foreign memory."""
    with pytest.raises(TypeError):
        getattr(native_hashes(), name)(wrong)
