"""Policies as an operator writes them: checked key by key, refused with what was expected and what stood there.

The Collector's are written as its `tail_sampling` processor takes them, with its defaults, and nest as they do there.
Ours may stand wherever one of its simple policies may. Refused beyond what it refuses is what it would pass over in
silence and nobody means: unknown keys, blocks of another type, a condition without key or values. An error carries the
path to what is wrong; who has read a file knows the line of it.
"""

import difflib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeGuard

import re2

from spanloom.core._pure.predicates import compile_pattern
from spanloom.core.sampling.policies import (
    AlwaysSamplePolicy,
    AndPolicy,
    BooleanAttributePolicy,
    BytesLimitingPolicy,
    CompositePolicy,
    ConsistentProbabilityPolicy,
    DropPolicy,
    EmaThroughputPolicy,
    ErrorPolicy,
    LatencyPercentilePolicy,
    LatencyPolicy,
    Leaf,
    NotPolicy,
    NumericAttributePolicy,
    Policy,
    PolicySet,
    ProbabilisticPolicy,
    RateLimitingPolicy,
    ServicePatternPolicy,
    SpanCountPolicy,
    StatusCodePolicy,
    StringAttributePolicy,
    TraceFlagsPolicy,
    TraceStatePolicy,
    fnv_threshold_of,
    threshold_of,
)
from spanloom.core.sampling.program import compile_policies
from spanloom.errors import ConfigError, PolicyRefused

BODY_BYTES_MAX = 512 * 1024  # a CONFIG record carries it; half of what Kafka takes as a message by default
VALUES_MAX = 10_000  # exact values of a condition
PATTERNS_MAX = 1000  # each is tried where none before it matched
RATE_MAX = 500_000_000_000  # a second; twice that, the burst, times a million fits 63 bits
BURST_MAX = 2 * RATE_MAX
GOAL_MAX = 1_000_000_000  # spans a second; times an hour, in 65536ths, fits 63 bits
INT32_MAX, INT64_MIN, INT64_MAX = (1 << 31) - 1, -(1 << 63), (1 << 63) - 1
PERCENT_MAX = 1_000_000
NS_PER_S = 1_000_000_000
DEFAULT_HASH_SALT = "default-hash-seed"  # the Collector's
STATUS_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}
SHOWN_MAX = 80  # characters of what stood there

Path = tuple[str | int, ...]


def parse_policies(written: Sequence[object], *, version: int) -> PolicySet:
    """Check what was written. Raises PolicyRefused: which policy and key, what was expected, what stood there."""
    if not written:
        raise _refusal((), "at least one policy", "none")
    policies = tuple(_policy(_Block((index,), entry)) for index, entry in enumerate(written))
    names: set[str] = set()
    for index, policy in enumerate(policies):
        if policy.name in names:
            raise _refusal((index, "name"), "a name that no policy before it has", repr(policy.name))
        names.add(policy.name)
    body = json.dumps(list(written), sort_keys=True, separators=(",", ":")).encode()
    if len(body) > BODY_BYTES_MAX:
        raise _refusal((), f"at most {BODY_BYTES_MAX} bytes of policies", f"{len(body)}")
    made = PolicySet(version, policies, body)
    try:
        compile_policies(made)
    except ConfigError as exc:
        raise PolicyRefused(str(exc)) from None
    return made


def policies_from_body(body: bytes, *, version: int) -> PolicySet:
    """The policy set that a CONFIG record carries."""
    return parse_policies(json.loads(body), version=version)


def _refusal(path: Path, expected: str, found: str, hint: str = "") -> PolicyRefused:
    where = "sampling.policies" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return PolicyRefused(f"{where}: expected {expected}, found {found}{hint}", path)


def _show(value: object) -> str:
    if value is None:
        return "nothing"
    shown = repr(value)
    return shown if len(shown) <= SHOWN_MAX else f"{shown[: SHOWN_MAX - 3]}..."


def _did_you_mean(found: object, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(found), known, n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


class _Block:
    """A mapping somebody wrote, read key by key. `null` is an empty one, as in the Collector."""

    def __init__(self, path: Path, written: object) -> None:
        if not isinstance(written, Mapping) and written is not None:
            raise _refusal(path, "a mapping with name and type" if _is_policy(path) else "a mapping", _show(written))
        self.path = path
        self.written: Mapping[object, object] = {} if written is None else written

    def refuse(self, key: str, expected: str, hint: str = "") -> PolicyRefused:
        return _refusal((*self.path, key), expected, _show(self.written.get(key)), hint)

    def only(self, keys: tuple[str, ...]) -> None:
        """Refuse what nobody asked for."""
        for key in self.written:
            if key not in keys:
                path = (*self.path, key) if isinstance(key, str) else self.path
                expected = f"one of {', '.join(keys)}" if keys else "nothing"
                raise _refusal(path, expected, f"the key {key!r}", _did_you_mean(key, keys))

    def some_of(self, *keys: str) -> None:
        """Refuse a block in which none of *keys* stands."""
        if all(self.written.get(key) is None for key in keys):
            raise _refusal(self.path, " or ".join(keys), "neither")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.written.get(key)
        value = default if value is None else value
        if not _is_text(value) or (not value and default is None):
            raise self.refuse(key, "a text", _quote_it(value))
        return value

    def texts(self, key: str, most: int) -> tuple[str, ...]:
        value = self.written.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or not value:
            raise self.refuse(key, "a list of texts")
        if len(value) > most:
            raise _refusal((*self.path, key), f"at most {most} texts", f"{len(value)}")
        for index, text in enumerate(value):
            if not _is_text(text):
                raise _refusal((*self.path, key, index), "a text", _show(text), _quote_it(text))
        return tuple(value)

    def flag(self, key: str) -> bool:
        value = self.written.get(key)
        if value is not None and not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return bool(value)

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        value = self.written.get(key)
        value = default if value is None else value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            bounds = f" from {low} to {high}" if low > INT64_MIN else ""
            raise self.refuse(key, f"a whole number{bounds}")
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        value = self.written.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            bounds = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
            raise self.refuse(key, f"a number {bounds}")
        if not math.isfinite(value):
            raise self.refuse(key, "a finite number")
        return value

    def block(self, key: str) -> "_Block":
        return _Block((*self.path, key), self.written.get(key))

    def blocks(self, key: str, *, may_be_empty: bool = False) -> Iterator["_Block"]:
        value = self.written.get(key)
        if may_be_empty and value is None:
            return
        if not isinstance(value, Sequence) or isinstance(value, str) or not (value or may_be_empty):
            raise self.refuse(key, "a list of policies" if not may_be_empty else "a list")
        for index, entry in enumerate(value):
            yield _Block((*self.path, key, index), entry)


def _is_policy(path: Path) -> bool:
    return isinstance(path[-1], int) or path[-1] == "not_sub_policy"


def _is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text that UTF-8 can hold: YAML and JSON can write half a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _quote_it(value: object) -> str:
    return "; put it in quotes" if isinstance(value, bool | int | float) else ""


# Policies of their own: no other policy stands in them.


class _Simple(NamedTuple):
    keys: tuple[str, ...]
    read: Callable[[str, _Block], Leaf]


def _latency(name: str, block: _Block) -> Leaf:
    block.some_of("threshold_ms", "upper_threshold_ms")
    low, high = (block.whole(key, INT64_MIN, INT64_MAX, 0) for key in ("threshold_ms", "upper_threshold_ms"))
    return LatencyPolicy(name, low, high)


def _numeric_attribute(name: str, block: _Block) -> Leaf:
    low, high = (block.whole(key, INT64_MIN, INT64_MAX, 0) for key in ("min_value", "max_value"))
    if low == high == 0:
        raise _refusal(block.path, "min_value or max_value other than 0, which means none", "neither")
    low, high = low or INT64_MIN, high or INT64_MAX  # the Collector's rule: 0 is no bound
    if low > high:
        raise block.refuse("max_value", f"at least min_value, which is {low}")
    return NumericAttributePolicy(name, block.text("key"), low, high, block.flag("invert_match"))


def _string_attribute(name: str, block: _Block) -> Leaf:
    is_regex = block.flag("enabled_regex_matching")
    block.whole("cache_max_size", INT64_MIN, INT64_MAX, 0)  # nothing hangs on it: RE2 takes linear time
    values = block.texts("values", PATTERNS_MAX if is_regex else VALUES_MAX)
    for index, pattern in enumerate(values if is_regex else ()):
        _check_pattern(pattern, (*block.path, "values", index))
    return StringAttributePolicy(name, block.text("key"), values, is_regex, block.flag("invert_match"))


def _check_pattern(pattern: str, path: Path) -> None:
    try:
        compile_pattern(pattern)
    except re2.error as exc:
        reason = exc.args[0].decode(errors="replace") if isinstance(exc.args[0], bytes) else str(exc)
        raise _refusal(path, "a pattern in RE2's syntax", _show(pattern), f": {reason}") from None


def _boolean_attribute(name: str, block: _Block) -> Leaf:
    return BooleanAttributePolicy(name, block.text("key"), block.flag("value"), block.flag("invert_match"))


def _status_code(name: str, block: _Block) -> Leaf:
    codes = block.texts("status_codes", VALUES_MAX)
    for index, code in enumerate(codes):
        if code not in STATUS_CODES:
            raise _refusal((*block.path, "status_codes", index), f"one of {', '.join(STATUS_CODES)}", repr(code))
    return StatusCodePolicy(name, tuple(STATUS_CODES[code] for code in codes))


def _probabilistic(name: str, block: _Block) -> Leaf:
    salt = block.text("hash_salt", "") or DEFAULT_HASH_SALT
    return ProbabilisticPolicy(name, salt.encode(), fnv_threshold_of(block.number("sampling_percentage", 0, math.inf)))


def _rate_limiting(name: str, block: _Block) -> Leaf:
    rate = block.whole("spans_per_second", 0, RATE_MAX)
    return RateLimitingPolicy(name, rate, block.whole("burst_capacity", 0, BURST_MAX, 0) or 2 * rate)


def _bytes_limiting(name: str, block: _Block) -> Leaf:
    rate = block.whole("bytes_per_second", 0, RATE_MAX)
    return BytesLimitingPolicy(name, rate, block.whole("burst_capacity", 0, BURST_MAX, 0) or 2 * rate)


def _span_count(name: str, block: _Block) -> Leaf:
    block.some_of("min_spans", "max_spans")
    low, high = (block.whole(key, 0, INT32_MAX, 0) for key in ("min_spans", "max_spans"))
    if high and low > high:
        raise block.refuse("max_spans", f"0, which means none, or at least min_spans, which is {low}")
    return SpanCountPolicy(name, low, high)


def _latency_percentile(name: str, block: _Block) -> Leaf:
    return LatencyPercentilePolicy(
        name,
        percentile_bp=round(block.number("percentile", 0.01, 99.99, 95) * 100),
        min_count=block.whole("min_count", 1, 1_000_000, 100),
        window_ns=int(block.number("window_s", 1, 86_400, 600) * NS_PER_S),
        operations_max=block.whole("operations_max", 1, 100_000, 1000),
    )


def _ema_throughput(name: str, block: _Block) -> Leaf:
    return EmaThroughputPolicy(
        name,
        goal_spans_per_second=block.whole("goal_spans_per_second", 1, GOAL_MAX),
        interval_ns=int(block.number("interval_s", 1, 3600, 15) * NS_PER_S),
        weight=max(1, round(block.number("weight", 0.01, 1, 0.5) * 256)),
        operations_max=block.whole("operations_max", 1, 100_000, 1000),
    )


_SIMPLE: dict[str, _Simple] = {
    "always_sample": _Simple((), lambda name, _: AlwaysSamplePolicy(name)),
    "latency": _Simple(("threshold_ms", "upper_threshold_ms"), _latency),
    "numeric_attribute": _Simple(("key", "min_value", "max_value", "invert_match"), _numeric_attribute),
    "string_attribute": _Simple(
        ("key", "values", "enabled_regex_matching", "cache_max_size", "invert_match"), _string_attribute
    ),
    "boolean_attribute": _Simple(("key", "value", "invert_match"), _boolean_attribute),
    "status_code": _Simple(("status_codes",), _status_code),
    "probabilistic": _Simple(("hash_salt", "sampling_percentage"), _probabilistic),
    "rate_limiting": _Simple(("spans_per_second", "burst_capacity"), _rate_limiting),
    "bytes_limiting": _Simple(("bytes_per_second", "burst_capacity"), _bytes_limiting),
    "span_count": _Simple(("min_spans", "max_spans"), _span_count),
    "trace_state": _Simple(
        ("key", "values"),
        lambda name, block: TraceStatePolicy(name, block.text("key"), block.texts("values", VALUES_MAX)),
    ),
    "trace_flags": _Simple((), lambda name, _: TraceFlagsPolicy(name)),
    "error": _Simple((), lambda name, _: ErrorPolicy(name)),
    "latency_percentile": _Simple(("percentile", "min_count", "window_s", "operations_max"), _latency_percentile),
    "service_pattern": _Simple(
        ("services",), lambda name, block: ServicePatternPolicy(name, block.texts("services", PATTERNS_MAX))
    ),
    "consistent_probability": _Simple(
        ("sampling_percentage",),
        lambda name, block: ConsistentProbabilityPolicy(
            name, threshold_of(block.number("sampling_percentage", 0, 100))
        ),
    ),
    "ema_throughput": _Simple(("goal_spans_per_second", "interval_s", "weight", "operations_max"), _ema_throughput),
}

# Policies made of others, nested as deep as the Collector nests them. A name within one may be left out.

_MADE_OF_OTHERS = ("and", "not", "drop", "composite")
TYPES = (*_SIMPLE, *_MADE_OF_OTHERS)


def _kind_of(block: _Block, others: tuple[str, ...]) -> str:
    """The policy's type, once it is known that nothing stands in it but its name and the block of that type."""
    known = (*_SIMPLE, *others)
    kind = block.text("type")
    if kind == "ottl_condition":
        raise block.refuse("type", "a condition that can be run", "; there is no OTTL here")
    if kind in _MADE_OF_OTHERS and kind not in others:
        raise block.refuse("type", f"a policy that may stand here: {', '.join((*others, 'a simple one'))}")
    if kind not in known:
        raise block.refuse("type", f"one of {', '.join(known)}", _did_you_mean(kind, known))
    block.only(("name", "type", kind))
    return kind


def _policy(block: _Block) -> Policy:
    kind = _kind_of(block, _MADE_OF_OTHERS)
    name = block.text("name")
    match kind:
        case "drop":
            return DropPolicy(name, _all_of(block.block(kind), "drop_sub_policy"))
        case "composite":
            return _composite(name, block.block(kind))
        case "and":
            return AndPolicy(name, _all_of(block.block(kind), "and_sub_policy"))
        case "not":
            return _not(name, block.block(kind))
        case _:
            return _simple(name, kind, block.block(kind))


def _simple(name: str, kind: str, settings: _Block) -> Leaf:
    settings.only(_SIMPLE[kind].keys)
    return _SIMPLE[kind].read(name, settings)


def _leaf(block: _Block) -> Leaf:
    kind = _kind_of(block, ())
    return _simple(block.text("name", "") or kind, kind, block.block(kind))


def _not(name: str, settings: _Block) -> NotPolicy:
    settings.only(("not_sub_policy",))
    return NotPolicy(name, _leaf(settings.block("not_sub_policy")))


def _all_of(settings: _Block, key: str) -> tuple[Leaf | NotPolicy, ...]:
    settings.only((key,))
    return tuple(map(_leaf_or_not, settings.blocks(key)))


def _leaf_or_not(block: _Block) -> Leaf | NotPolicy:
    kind = _kind_of(block, ("not",))
    return _not(block.text("name", "") or kind, block.block(kind)) if kind == "not" else _leaf(block)


def _leaf_or_and(block: _Block) -> Leaf | AndPolicy:
    kind = _kind_of(block, ("and",))
    if kind != "and":
        return _leaf(block)
    return AndPolicy(block.text("name", "") or kind, _all_of(block.block(kind), "and_sub_policy"))


def _composite(name: str, settings: _Block) -> CompositePolicy:
    """`policy_order` is read and not followed: the Collector asks in the order in which the policies stand."""
    settings.only(("max_total_spans_per_second", "policy_order", "composite_sub_policy", "rate_allocation"))
    most = settings.whole("max_total_spans_per_second", 0, RATE_MAX)
    policies = tuple(map(_leaf_or_and, settings.blocks("composite_sub_policy")))
    names = [policy.name for policy in policies]
    if settings.written.get("policy_order"):
        for index, ordered in enumerate(settings.texts("policy_order", VALUES_MAX)):
            _check_named(ordered, names, (*settings.path, "policy_order", index))
    allotted = dict.fromkeys(names, 0)
    for share in settings.blocks("rate_allocation", may_be_empty=True):
        share.only(("policy", "percent"))
        of = share.text("policy")
        _check_named(of, names, (*share.path, "policy"))
        percent = share.whole("percent", INT64_MIN, PERCENT_MAX, 0)
        # The Collector's arithmetic: floats, cut off; without a percentage an equal part.
        allotted[of] = int(percent / 100 * most if percent > 0 else most / len(policies))
    return CompositePolicy(name, most, policies, tuple(allotted[each] for each in names))


def _check_named(name: str, names: Sequence[str], path: Path) -> None:
    if name not in names:
        raise _refusal(path, f"a policy of composite_sub_policy: {', '.join(names)}", repr(name))
