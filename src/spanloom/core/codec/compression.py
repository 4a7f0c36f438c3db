"""Content-Encoding undone, within a limit: a small body may claim to be a large one.

Gzip may hold several members one after another (RFC 1952), zstd several frames (RFC 8878); both are called parts
here. A body is fed in steps, so that neither the output nor the copying of what follows a part grows out of bounds.
"""

import zlib
from collections.abc import Callable
from typing import Protocol

import zstandard

from spanloom.errors import DecodeError

PARTS_MAX = 1024  # senders make one; each costs a decoder, and 20 MiB of empty ones would cost a million
_WINDOW_BYTES_MAX = 8 << 20  # RFC 9659: no HTTP sender needs a larger zstd window, and we would have to hold it
_STEP_BYTES = 512  # a step's output cannot be bounded beforehand; 512 bytes are at most 170 zstd blocks of 128 KiB


class _Decoder(Protocol):
    """What zlib and zstandard have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def _gzip_decoder() -> _Decoder:
    return zlib.decompressobj(wbits=31)  # 31: the gzip header is required and its checksum checked


def _deflate_decoder() -> _Decoder:
    return zlib.decompressobj(wbits=15)  # RFC 9110: the zlib format


def _zstd_decoder() -> _Decoder:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES_MAX).decompressobj()


_DECODERS: dict[str, Callable[[], _Decoder]] = {
    "gzip": _gzip_decoder,
    "x-gzip": _gzip_decoder,
    "zstd": _zstd_decoder,
    "deflate": _deflate_decoder,
}


def decompress(body: bytes, encoding: str, *, size_max: int) -> bytes:
    """*body* as it was before *encoding* (a Content-Encoding header) was applied.

    Raises DecodeError: `content_encoding` for one we do not read, `too_large` as soon as more than *size_max* bytes
    have come out, `compression` if the body is damaged or cut short.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _DECODERS:
        raise DecodeError("content_encoding", ", ".join(_DECODERS), encoding[:40])
    try:
        return _decompress(body, _DECODERS[name], size_max)
    except (zlib.error, zstandard.ZstdError) as exc:
        raise DecodeError("compression", f"a {name} body", str(exc)) from exc


def _decompress(body: bytes, decoder: Callable[[], _Decoder], size_max: int) -> bytes:
    part, parts = decoder(), 1
    out: list[bytes] = []
    size = at = 0
    while at < len(body):
        if part.eof:
            part, parts = decoder(), parts + 1
            if parts > PARTS_MAX:
                raise DecodeError("compression", f"at most {PARTS_MAX} members or frames", "more")
        step = body[at : at + _STEP_BYTES]
        out.append(part.decompress(step))
        at += len(step) - len(part.unused_data)
        size += len(out[-1])
        if size > size_max:
            raise DecodeError("too_large", f"at most {size_max} bytes once decompressed", "more")
    if not part.eof:
        raise DecodeError("compression", "a whole body", "one cut short", position=len(body))
    return b"".join(out)
