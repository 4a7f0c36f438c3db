"""Tail-sampling policies as they mean something: checked, frozen, in the words of the OpenTelemetry Collector.

`written.py` makes them of what an operator wrote, `program.py` makes of them what the kernels run. Those of the
Collector judge as its `tail_sampling` processor of version 0.158 does, oddities included; each docstring names them.
Ours stand below. A trace is kept if one policy votes for it and no `drop` policy speaks.
"""

from dataclasses import dataclass

from spanloom.model import THRESHOLD_UNKNOWN

POLICIES_MAX = 64  # votes travel as a 64-bit set; sub-policies that are charged take bits too
PREDICATES_MAX = 256
RANDOMNESS_END = 1 << 56  # OpenTelemetry's R lies below it


@dataclass(frozen=True, slots=True)
class AlwaysSamplePolicy:
    """Keep everything."""

    name: str


@dataclass(frozen=True, slots=True)
class LatencyPolicy:
    """Keep a trace of more than `threshold_ms` whole milliseconds, and at most `upper_threshold_ms` where that is set.

    Measured from the least start to the greatest end while spans are taken in, in order of arrival: a trace that was
    within the bounds at any moment is kept. A start or end of 0 gives way to the next span's.
    """

    name: str
    threshold_ms: int
    upper_threshold_ms: int = 0  # 0: none


@dataclass(frozen=True, slots=True)
class NumericAttributePolicy:
    """Keep a trace if a resource or span has the attribute within the bounds; inverted: if none has.

    An attribute that is there and is no integer counts as 0.
    """

    name: str
    key: str
    min_value: int
    max_value: int
    invert_match: bool = False


@dataclass(frozen=True, slots=True)
class StringAttributePolicy:
    """Keep a trace if a resource or span has the attribute with one of the values; inverted: if none has.

    An attribute that is there and is no string counts as the empty string, which no exact value equals, and a pattern
    is not asked about an empty one of a span. Patterns are RE2's and match anywhere.
    """

    name: str
    key: str
    values: tuple[str, ...]
    is_regex: bool = False
    invert_match: bool = False


@dataclass(frozen=True, slots=True)
class BooleanAttributePolicy:
    """Keep a trace if a resource or span has the attribute with this value; inverted: if none has.

    An attribute that is there and is no boolean counts as false.
    """

    name: str
    key: str
    value: bool
    invert_match: bool = False


@dataclass(frozen=True, slots=True)
class StatusCodePolicy:
    """Keep a trace that holds a span of one of these status codes (0 UNSET, 1 OK, 2 ERROR)."""

    name: str
    status_codes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ProbabilisticPolicy:
    """Keep a trace iff FNV-1a-64 of salt and trace id is at most `threshold`."""

    name: str
    hash_salt: bytes
    threshold: int


@dataclass(frozen=True, slots=True)
class RateLimitingPolicy:
    """Keep a trace while its spans fit a bucket that fills at this rate; the fleet's, so a partition has its part."""

    name: str
    spans_per_second: int
    burst_capacity: int


@dataclass(frozen=True, slots=True)
class BytesLimitingPolicy:
    """Keep a trace while its bytes (of TracesData) fit a bucket that fills at this rate."""

    name: str
    bytes_per_second: int
    burst_capacity: int


@dataclass(frozen=True, slots=True)
class SpanCountPolicy:
    """Keep a trace of at least `min_spans` spans, and at most `max_spans` where that is set."""

    name: str
    min_spans: int
    max_spans: int = 0  # 0: no limit


@dataclass(frozen=True, slots=True)
class TraceStatePolicy:
    """Keep a trace one of whose spans has one of these values under the key in its W3C tracestate."""

    name: str
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TraceFlagsPolicy:
    """Keep a trace one of whose spans has the W3C flag `sampled`."""

    name: str


# Ours.


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """Keep a trace that holds an error: a span of status ERROR, or with a tag `error` that is true or "true"."""

    name: str


@dataclass(frozen=True, slots=True)
class LatencyPercentilePolicy:
    """Keep a trace slower than this percentile of its own operation's earlier traces.

    The operation is the root span's service and name. Two spans of time, each half of `window_ns`, are remembered;
    an operation with fewer than `min_count` traces in them has no vote.
    """

    name: str
    percentile_bp: int  # hundredths of a percent, 1 to 9999
    min_count: int
    window_ns: int
    operations_max: int  # a partition; the rest share one sketch


@dataclass(frozen=True, slots=True)
class ServicePatternPolicy:
    """Keep a trace that passes through a service whose name matches one of these globs."""

    name: str
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ConsistentProbabilityPolicy:
    """Keep a trace iff R >= threshold, R being `rv` of its tracestate or the low 56 bits of its id.

    Every node agrees without talking. Under load the threshold rises (see `bend`). Source: OpenTelemetry's consistent
    probability sampling.
    """

    name: str
    threshold: int  # 0 keeps all; THRESHOLD_UNKNOWN, one above every R, keeps none


@dataclass(frozen=True, slots=True)
class EmaThroughputPolicy:
    """Keep about so many spans a second of the fleet, rare operations more often than frequent ones.

    Each interval an operation's spans are averaged exponentially; the goal is shared out by the logarithm of that
    average, what a rare operation leaves goes to the others, and a trace is kept by OpenTelemetry's consistent rule at
    its operation's probability. An operation not seen before is kept. Source: the idea of Refinery's EMA throughput.
    """

    name: str
    goal_spans_per_second: int
    interval_ns: int
    weight: int  # of the newest interval, in 256ths
    operations_max: int  # a partition; the rest share one probability


Leaf = (
    AlwaysSamplePolicy
    | LatencyPolicy
    | NumericAttributePolicy
    | StringAttributePolicy
    | BooleanAttributePolicy
    | StatusCodePolicy
    | ProbabilisticPolicy
    | RateLimitingPolicy
    | BytesLimitingPolicy
    | SpanCountPolicy
    | TraceStatePolicy
    | TraceFlagsPolicy
    | ErrorPolicy
    | LatencyPercentilePolicy
    | ServicePatternPolicy
    | ConsistentProbabilityPolicy
    | EmaThroughputPolicy
)


# Those made of others.


@dataclass(frozen=True, slots=True)
class NotPolicy:
    """Keep what its policy does not."""

    name: str
    policy: Leaf


@dataclass(frozen=True, slots=True)
class AndPolicy:
    """Keep what all of its policies keep. They are asked in order up to the first that does not."""

    name: str
    policies: tuple[Leaf | NotPolicy, ...]


@dataclass(frozen=True, slots=True)
class DropPolicy:
    """Drop what all of its policies keep, whoever else votes for it. Asked before every policy of another kind."""

    name: str
    policies: tuple[Leaf | NotPolicy, ...]


@dataclass(frozen=True, slots=True)
class CompositePolicy:
    """Ask its policies in order; the first that keeps the trace decides, if its allotted spans a second suffice.

    A policy without an allotment never keeps anything, as in the Collector.
    """

    name: str
    max_total_spans_per_second: int
    policies: tuple[Leaf | AndPolicy, ...]
    allotted: tuple[int, ...]  # spans per second of each


Policy = Leaf | NotPolicy | AndPolicy | DropPolicy | CompositePolicy


@dataclass(frozen=True, slots=True)
class PolicySet:
    """One version of the policies, in the order in which they were written."""

    version: int
    policies: tuple[Policy, ...]
    body: bytes  # canonical JSON of what was written: two sets with one body are one set


def threshold_of(percentage: float) -> int:
    """OpenTelemetry's rejection threshold T for keeping *percentage* percent: keep iff R >= T."""
    if percentage >= 100:
        return 0
    if percentage <= 0:
        return THRESHOLD_UNKNOWN
    return RANDOMNESS_END - round(percentage / 100 * RANDOMNESS_END)  # 1 - p would lose the small ones' digits


def bend(threshold: int, rate: float) -> int:
    """The threshold that keeps *rate* (0 to 1) of what *threshold* keeps. Plain float arithmetic: kernels agree."""
    return RANDOMNESS_END - int(float(RANDOMNESS_END - threshold) * rate)


def fnv_threshold_of(percentage: float) -> int:
    """The highest FNV-1a-64 that is kept: 2^64 - 1 times the ratio, rounded to 64 bits of mantissa, then down."""
    ratio = percentage / 100
    if ratio <= 0:
        return 0
    numerator, denominator = ratio.as_integer_ratio()
    numerator *= (1 << 64) - 1
    shift = 64 - (numerator // denominator).bit_length()  # below 1 the bits beyond are gone either way
    if shift >= 64:
        return 0
    scaled, divisor = (numerator << max(0, shift)), denominator << max(0, -shift)
    mantissa, rest = divmod(scaled, divisor)
    if 2 * rest > divisor or (2 * rest == divisor and mantissa & 1):
        mantissa += 1
    value = mantissa >> shift if shift >= 0 else mantissa << -shift
    return min(value, (1 << 64) - 1)
