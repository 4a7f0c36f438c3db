"""Ids as people and foreign systems write them, as 16 and 8 bytes.

Text of up to 32 (trace) or 16 (span) hex digits of any case is that number, left-padded with zeros. Any other text,
and hex that is all zero (which OTLP forbids), is hashed: the first 16 or 8 bytes of SHA-256 over its UTF-8 bytes. So
`abc123` is 00000000000000000000000000abc123 and `span001` is the start of SHA-256("span001"), everywhere the same.
"""

import hashlib
import re

from spanloom.errors import DecodeError

TEXT_MAX = 256  # characters; longer is no id but somebody's mistake, and ids go into log lines and cache keys

_HEX = re.compile(r"[0-9a-fA-F]+")


def trace_id_from_text(text: str) -> bytes:
    """The 16 bytes *text* stands for, never all zero. Raises DecodeError if it is empty or over TEXT_MAX."""
    return _id_from_text(text, 16, "trace_id")


def span_id_from_text(text: str) -> bytes:
    """The 8 bytes *text* stands for, never all zero. Raises DecodeError if it is empty or over TEXT_MAX."""
    return _id_from_text(text, 8, "span_id")


def _id_from_text(text: str, size: int, reason: str) -> bytes:
    if not 0 < len(text) <= TEXT_MAX:
        raise DecodeError(reason, f"1 to {TEXT_MAX} characters", f"{len(text)}")
    if len(text) <= 2 * size and _HEX.fullmatch(text):
        number = bytes.fromhex(text.zfill(2 * size))
        if any(number):
            return number
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:size]
