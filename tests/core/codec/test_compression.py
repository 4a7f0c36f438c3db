"""Compressed bodies."""

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from spanloom.core.codec.compression import PARTS_MAX, decompress
from spanloom.errors import DecodeError

ENCODINGS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("zstd", zstandard.compress),
    ("deflate", zlib.compress),
]
both = pytest.mark.parametrize(("encoding", "encode"), ENCODINGS)


def reason_of(body: bytes, encoding: str, size_max: int = 1000) -> str:
    with pytest.raises(DecodeError) as caught:
        decompress(body, encoding, size_max=size_max)
    return caught.value.reason


@given(body=st.binary(max_size=3000), encoding=st.sampled_from(ENCODINGS))
def test_what_was_compressed_comes_back(body: bytes, encoding: tuple[str, Callable[[bytes], bytes]]) -> None:
    """Any body comes back as it was."""
    name, encode = encoding
    assert decompress(encode(body), name, size_max=3000) == body


@both
def test_parts_one_after_another_are_one_body(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """Several members or frames are their concatenation."""
    assert (
        decompress(encode(b"a" * 400) + encode(b"") + encode(b"b" * 400), encoding, size_max=800)
        == b"a" * 400 + b"b" * 400
    )


@both
def test_a_body_over_the_limit_is_refused(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """One byte more than the limit is too large; the limit is not."""
    assert len(decompress(encode(b"x" * 1000), encoding, size_max=1000)) == 1000
    assert reason_of(encode(b"x" * 1001), encoding) == "too_large"
    assert reason_of(encode(b"x" * 600) * 2, encoding) == "too_large"


@both
def test_a_body_cut_short_is_refused(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """However much of a body is missing, it is not taken for a whole one."""
    whole = encode(b"hello " * 20)
    for size in range(len(whole)):
        assert reason_of(whole[:size], encoding) == "compression"


@both
def test_junk_is_refused(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """What is not compressed, and what follows a compressed body, is refused."""
    assert reason_of(b"junk junk junk", encoding) == "compression"
    assert reason_of(encode(b"x") + b"junk junk", encoding) == "compression"


@both
def test_a_body_of_countless_parts_is_refused(encoding: str, encode: Callable[[bytes], bytes]) -> None:
    """A part costs a decoder, so their number is bounded."""
    assert decompress(encode(b"") * PARTS_MAX, encoding, size_max=1000) == b""
    assert reason_of(encode(b"") * (PARTS_MAX + 1), encoding) == "compression"


def test_a_damaged_body_is_refused() -> None:
    """A checksum that does not fit is found."""
    whole = bytearray(gzip.compress(b"hello " * 20))
    whole[-6] ^= 1
    assert reason_of(bytes(whole), "gzip") == "compression"


def test_no_encoding_is_no_change() -> None:
    """`identity`, or nothing, leaves the body alone."""
    assert decompress(b"as it is", "", size_max=1) == b"as it is"
    assert decompress(b"as it is", " Identity ", size_max=1) == b"as it is"


@pytest.mark.parametrize("encoding", ["br", "lzma", "gzip, gzip"])
def test_an_encoding_we_do_not_read_is_named(encoding: str) -> None:
    """The error lists what is read."""
    with pytest.raises(DecodeError, match="content_encoding: expected gzip, x-gzip, zstd, deflate"):
        decompress(b"x", encoding, size_max=1)
