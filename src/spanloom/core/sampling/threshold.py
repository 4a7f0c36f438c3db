"""W3C tracestate as far as sampling looks into it: members, and OpenTelemetry's `rv` and `th` in the member `ot`.

`th` is a rejection threshold: up to 14 hex digits, trailing zeros left out, for a probability of 1 - th / 2^56. `rv` is
the randomness R, 14 hex digits. Sources: W3C Trace Context, section 3.3; OpenTelemetry, "TraceState: Probability
Sampling".
"""

import re
from typing import NamedTuple

from spanloom.model import THRESHOLD_UNKNOWN

MEMBERS_MAX = 32
VALUE_MAX = 256  # characters of a member's value
HEX_DIGITS = 14
_KEY = re.compile(r"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}")
_VALUE = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_RV = re.compile(r"[0-9a-f]{14}")
_TH = re.compile(r"[0-9a-f]{1,14}")


class Randomness(NamedTuple):
    """What `ot` says, None where it does not or not well."""

    rv: int | None
    th: int | None


def members_of(trace_state: str) -> dict[str, str] | None:
    """Its members, or None where it is not well-formed: a key twice, a bad key or value, more than 32."""
    members: dict[str, str] = {}
    for member in trace_state.split(","):
        if not member:
            continue
        key, sign, value = member.partition("=")
        key, value = key.lstrip(" \t"), value.rstrip(" \t")
        if not sign or not _KEY.fullmatch(key) or not _VALUE.fullmatch(value) or key in members:
            return None
        members[key] = value
    return members if len(members) <= MEMBERS_MAX else None


def randomness_of(trace_state: str) -> Randomness:
    """`rv` and `th` of the member `ot`."""
    fields = _fields_of((members_of(trace_state) or {}).get("ot", ""))
    rv = fields.get("rv", "")
    return Randomness(int(rv, 16) if _RV.fullmatch(rv) else None, _threshold_of(fields))


def _threshold_of(fields: dict[str, str]) -> int | None:
    th = fields.get("th", "")
    return int(th.ljust(HEX_DIGITS, "0"), 16) if _TH.fullmatch(th) else None


def _fields_of(ot: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for field in ot.split(";"):
        key, sign, value = field.partition(":")
        if sign:
            fields.setdefault(key, value)
    return fields


def with_threshold(trace_state: str, threshold: int) -> str:
    """*trace_state* of a span that was sampled under *threshold* too.

    Whoever sampled more strictly before stands. Where the threshold is not known, or `ot` has no room for it, no `th`
    is left: a wrong one would be counted. A tracestate that is not well-formed, or need not change, stays as it is.
    """
    members = members_of(trace_state)
    if members is None:
        return trace_state
    before = members.pop("ot", "")
    kept = [field for field in before.split(";") if field and not field.startswith("th:")]
    if threshold < THRESHOLD_UNKNOWN:
        threshold = max(threshold, _threshold_of(_fields_of(before)) or 0)
        after = ";".join([*kept, f"th:{format_threshold(threshold)}"])
    if threshold >= THRESHOLD_UNKNOWN or len(after) > VALUE_MAX:
        after = ";".join(kept).rstrip(" ;")  # a value does not end with a blank
    if after == before:
        return trace_state
    rest = [f"{key}={value}" for key, value in members.items()]
    return ",".join([f"ot={after}", *rest[: MEMBERS_MAX - 1]] if after else rest)


def format_threshold(threshold: int) -> str:
    """As `th` is written: 14 hex digits less the zeros at the end, one at least."""
    return f"{threshold:014x}".rstrip("0") or "0"


def adjusted_count(threshold: int) -> float | None:
    """How many traces one kept under *threshold* stands for; None where that is not known."""
    return None if threshold >= THRESHOLD_UNKNOWN else (1 << 56) / ((1 << 56) - threshold)
