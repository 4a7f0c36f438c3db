"""How one value is written and checked: a Kind reads what a YAML file, the environment or a flag gave.

Sizes and times may carry a unit (`16MiB`, `7d`) or be plain numbers of bytes and seconds.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")

_SIZES: Mapping[str, Decimal] = {
    "TiB": Decimal(1 << 40),
    "GiB": Decimal(1 << 30),
    "MiB": Decimal(1 << 20),
    "KiB": Decimal(1 << 10),
    "TB": Decimal(10**12),
    "GB": Decimal(10**9),
    "MB": Decimal(10**6),
    "kB": Decimal(10**3),
    "B": Decimal(1),
}
_TIMES: Mapping[str, Decimal] = {
    "d": Decimal(86400),
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("0.001"),
}
_BINARY = ("TiB", "GiB", "MiB", "KiB")
_NUMBER_AND_UNIT = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One shape of value. `read` raises ValueError; the caller knows the key and says `accepts`."""

    accepts: str  # completes "expected ..."
    read: Callable[[object], T]
    show: Callable[[T], str]
    secret: bool = False  # what was written is not repeated, not even where it is refused


def whole(low: int, high: int) -> Kind[int]:
    """A whole number in a closed range."""

    def read(value: object) -> int:
        if isinstance(value, str):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError
        return within(value, low, high)

    return Kind(f"a whole number from {low} to {high}", read, str)


def size_bytes(low: int, high: int) -> Kind[int]:
    """A number of bytes in a closed range."""

    def read(value: object) -> int:
        number = _scaled(value, _SIZES, default="B")
        if number != int(number):
            raise ValueError
        return within(int(number), low, high)

    accepts = f"a size from {show_bytes(low)} to {show_bytes(high)}"
    return Kind(accepts, read, show_bytes)


AUTO = 0  # a size that depends on where we run


def size_bytes_or_auto(low: int, high: int) -> Kind[int]:
    """The same, or `auto`, read as AUTO."""
    kind = size_bytes(low, high)

    def read(value: object) -> int:
        return AUTO if value == "auto" else kind.read(value)

    return Kind(f"{kind.accepts}, or auto", read, lambda size: "auto" if size == AUTO else show_bytes(size))


def seconds(low: float, high: float) -> Kind[float]:
    """A time in seconds in a closed range."""

    def read(value: object) -> float:
        return within(float(_scaled(value, _TIMES, default="s")), low, high)

    accepts = f"a time from {show_seconds(low)} to {show_seconds(high)}"
    return Kind(accepts, read, show_seconds)


def probability() -> Kind[float]:
    """A number from 0 to 1."""

    def read(value: object) -> float:
        if isinstance(value, str):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        return within(float(value), 0.0, 1.0)

    return Kind("a number from 0 to 1", read, lambda value: f"{value:g}")


def one_of(*choices: str) -> Kind[str]:
    """One of a few words."""

    def read(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise ValueError
        return value

    return Kind(" or ".join(choices), read, str)


def text(meaning: str) -> Kind[str]:
    """Any text that is not empty."""

    def read(value: object) -> str:
        if not isinstance(value, str) or not value:
            raise ValueError
        return value

    return Kind(meaning, read, str)


def text_or_nothing(meaning: str) -> Kind[str]:
    """Any text; the empty one says that there is none."""

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError
        return value

    return Kind(f"{meaning}; empty: none", read, str)


def secret(meaning: str) -> Kind[str]:
    """Text that is never shown; the empty one says that there is none."""
    hidden = text_or_nothing(meaning)
    return Kind(hidden.accepts, hidden.read, lambda value: "(hidden)" if value else "", secret=True)


def urls(*schemes: str) -> Kind[str]:
    """URLs with a host and a port, several with commas between; the empty text says that there is none."""
    url = rf"(?:{'|'.join(schemes)})://[^\s/@,]+:[0-9]+(?:/[^\s,@]*)?"
    several = re.compile(rf"(?:{url}(?:\s*,\s*{url})*)?", re.ASCII)

    def read(value: object) -> str:
        if not isinstance(value, str) or not several.fullmatch(value.strip()):
            raise ValueError
        return value.strip()

    forms = " or ".join(f"{scheme}://host:port" for scheme in schemes)
    # One that is refused may be so for the password in it.
    return Kind(f"{forms}, without user and password; empty: none", read, str, secret=True)


def path(meaning: str) -> Kind[Path]:
    """A path; a relative one starts where the program was started."""
    return Kind(meaning, lambda value: Path(text(meaning).read(value)), str)


def show_bytes(count: int) -> str:
    """The shortest way to write *count* bytes that reads back as the same number."""
    for unit in _BINARY:
        if count and count % _SIZES[unit] == 0:
            return f"{count // int(_SIZES[unit])}{unit}"
    return f"{count}B"


def show_seconds(time_s: float) -> str:
    """The shortest way to write *time_s* seconds that reads back as the same number."""
    exact = Decimal(repr(time_s))
    for unit in ("d", "h", "m", "s", "ms"):
        count = exact / _TIMES[unit]
        if count >= 1 and count == int(count):
            return f"{int(count)}{unit}"
    return f"{exact.normalize():f}s"


def _scaled(value: object, units: Mapping[str, Decimal], *, default: str) -> Decimal:
    if isinstance(value, str):
        match = _NUMBER_AND_UNIT.fullmatch(value.strip())
        if match is None or (match[2] or default) not in units:
            raise ValueError
        return Decimal(match[1]) * units[match[2] or default]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError
    number = Decimal(repr(value))
    if not number.is_finite():
        raise ValueError
    return number


Number = TypeVar("Number", int, float)


def within(number: Number, low: Number, high: Number) -> Number:
    """*number*, or ValueError where it lies outside the closed range."""
    if not low <= number <= high:
        raise ValueError
    return number
