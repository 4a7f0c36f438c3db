"""The oracle's reading of policies: votes on whole traces, every span looked at when the trace is decided.

The types that runs and simulations use; none of those that are made of others. A partition has its part of a rate.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import NamedTuple

from tests.oracle_files import WireSpan, attributes_of, status_of

THRESHOLD_UNKNOWN = 2**56
STATUS_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}

Policies = Sequence[Mapping[str, object]]


class Features(NamedTuple):
    """What policies look at."""

    trace_id: bytes
    duration_ns: int
    operation: int
    spans: Sequence[WireSpan]  # in order of arrival
    size_bytes: int  # of all of it, as TracesData
    stream_ns: int  # of the decision


Voter = Callable[[Features], int | None]  # the sampling threshold if it votes to keep, else None


class Judges:
    """All policies of a partition: their votes, and what they remember of the traces judged before."""

    def __init__(self, policies: Policies, partition_count: int) -> None:
        self.partition_count = partition_count
        self.percentiles: list[Percentile] = []
        self.voters = [self._voter(str(policy["type"]), policy) for policy in policies]

    def vote(self, trace: Features) -> dict[int, int]:
        """The threshold of each policy that votes to keep, by index."""
        thresholds = {index: voter(trace) for index, voter in enumerate(self.voters)}
        return {index: threshold for index, threshold in thresholds.items() if threshold is not None}

    def fold(self, trace: Features) -> None:
        """A first fragment has been decided."""
        for percentile in self.percentiles:
            percentile.fold(trace)

    def _voter(self, kind: str, policy: Mapping[str, object]) -> Voter:
        options = policy.get(kind, {})
        assert isinstance(options, Mapping)
        if kind == "consistent_probability":
            return _consistent_probability(float(options["sampling_percentage"]))
        if kind in ("rate_limiting", "bytes_limiting"):
            return Bucket(kind, options, self.partition_count).vote
        if kind == "latency_percentile":
            percentile = Percentile(options)
            self.percentiles.append(percentile)
            return percentile.vote
        return _condition(kind, options)


def _condition(kind: str, options: Mapping[str, object]) -> Voter:
    """A policy that keeps a trace for what its spans are, whatever chance and other traces."""
    holds = _CONDITIONS[kind]
    return lambda trace: 0 if holds(trace, options) else None


def _is_error(span: WireSpan) -> bool:
    tag = attributes_of((span.data,), 9).get(b"error") if b"error" in span.data else None
    return span.error or tag is True or tag == b"true"


def _lasts(trace: Features, options: Mapping[str, object]) -> bool:
    """Looked at with every span that came: what lay within the bounds once is kept."""
    least, most = (int(str(options.get(key, 0))) for key in ("threshold_ms", "upper_threshold_ms"))
    start = end = 0
    for span in trace.spans:
        start = span.start if start == 0 else min(start, span.start)
        end = span.end if end == 0 else max(end, span.end)
        lasting = min(max(_int64(end) - _int64(start), -(2**63)), 2**63 - 1)
        whole = abs(lasting) // 10**6 * (1 if lasting > 0 else -1)
        if whole > least and (not most or whole <= most):
            return True
    return False


def _int64(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _values(trace: Features, options: Mapping[str, object]) -> Iterator[object]:
    """What the resources and the spans have under the key."""
    key = str(options["key"]).encode()
    for span in trace.spans:
        for message, number in ((span.resource, 1), ((span.data,), 9)):
            if any(key in part for part in message):
                found = attributes_of(message, number)
                if key in found:
                    yield found[key]


def _within(trace: Features, options: Mapping[str, object]) -> bool:
    low, high = (int(str(options.get(key, 0))) for key in ("min_value", "max_value"))
    numbers = (value if type(value) is int else 0 for value in _values(trace, options))
    return any((not low or low <= number) and (not high or number <= high) for number in numbers)


def _is_one_of(trace: Features, options: Mapping[str, object]) -> bool:
    assert not options.get("enabled_regex_matching"), "the oracle does not know patterns"
    values = options["values"]
    assert isinstance(values, Sequence)
    return any(found in {value.encode() for value in values} for found in _values(trace, options))


def _any_matches(services: Iterable[bytes], globs: object) -> bool:
    assert isinstance(globs, Sequence)
    return any(fnmatchcase(name.decode(errors="replace"), glob) for name in services for glob in globs)


def _counts(trace: Features, options: Mapping[str, object]) -> bool:
    least, most = (int(str(options.get(key, 0))) for key in ("min_spans", "max_spans"))
    return least <= len(trace.spans) and (not most or len(trace.spans) <= most)


def _has_status(trace: Features, options: Mapping[str, object]) -> bool:
    codes = options["status_codes"]
    assert isinstance(codes, Sequence)
    return any(status_of(span.data) in {STATUS_CODES[code] for code in codes} for span in trace.spans)


_CONDITIONS: dict[str, Callable[[Features, Mapping[str, object]], bool]] = {
    "always_sample": lambda trace, options: True,
    "error": lambda trace, options: any(map(_is_error, trace.spans)),
    "latency": _lasts,
    "numeric_attribute": _within,
    "string_attribute": _is_one_of,
    "status_code": _has_status,
    "span_count": _counts,
    "service_pattern": lambda trace, options: _any_matches({span.service for span in trace.spans}, options["services"]),
}


def _consistent_probability(percentage: float) -> Voter:
    if percentage <= 0:
        return lambda trace: None
    threshold = 0 if percentage >= 100 else 2**56 - round(percentage / 100 * 2**56)
    return lambda trace: threshold if int.from_bytes(trace.trace_id[9:], "big") >= threshold else None


class Bucket:
    """rate_limiting and bytes_limiting: a part of the fleet's bucket, in exact fractions of a token.

    A trace within the fleet's burst passes where the part holds what it costs, or as large a part of its fill as it is
    of the fleet; what is not there is owed.
    """

    def __init__(self, kind: str, options: Mapping[str, object], parts: int) -> None:
        self.by_bytes = kind == "bytes_limiting"
        rate = int(str(options["bytes_per_second" if self.by_bytes else "spans_per_second"]))
        self.burst = int(str(options.get("burst_capacity", 0))) or 2 * rate
        self.per_us = Fraction(rate, parts * 10**6)
        self.fill = max(Fraction(self.burst, parts), Fraction(1 if self.burst else 0))
        self.enough = self.fill / parts
        self.level, self.at_us = self.fill, 0

    def vote(self, trace: Features) -> int | None:
        tokens = trace.size_bytes if self.by_bytes else len(trace.spans)
        now_us = trace.stream_ns // 1000
        level = min(self.fill, self.level + max(0, now_us - self.at_us) * self.per_us)
        if tokens > self.burst or level < min(self.enough, Fraction(tokens)):
            return None
        self.level, self.at_us = level - tokens, max(self.at_us, now_us)
        return THRESHOLD_UNKNOWN


class Percentile:
    """latency_percentile: every duration of two half windows, kept one by one.

    An operation's cut is its percentile when last taken: anew whenever a sixteenth more durations are there than then.
    Durations are compared by their bucket (highest bit and the six bits below it). Operations beyond the busiest share
    one list.
    """

    def __init__(self, options: Mapping[str, float]) -> None:
        self.basis_points = round(options.get("percentile", 95) * 100)
        self.min_count = int(options.get("min_count", 100))
        self.half_ns = int(options.get("window_s", 600) * 10**9) // 2
        self.operations_max = int(options.get("operations_max", 1000))
        self.half = 0
        self.now: dict[int, list[int]] = {}
        self.before: dict[int, list[int]] = {}
        self.cuts: dict[int, tuple[int, int]] = {}  # count when taken, bucket

    def vote(self, trace: Features) -> int | None:
        self.turn(trace.stream_ns)
        operation = trace.operation
        if operation not in self.now and operation not in self.before and len(self.now) >= self.operations_max:
            operation = 0
        durations = self.before.get(operation, []) + self.now.get(operation, [])
        if len(durations) < self.min_count:
            return None
        cut = self.cuts[operation][1] if operation in self.cuts else self.cut(durations)
        return 0 if bucket(trace.duration_ns) > cut else None

    def fold(self, trace: Features) -> None:
        self.turn(trace.stream_ns)
        operation = trace.operation
        if operation not in self.now and len(self.now) >= self.operations_max:
            operation = 0
        self.now.setdefault(operation, []).append(trace.duration_ns)
        durations = self.before.get(operation, []) + self.now[operation]
        taken_at = self.cuts.get(operation, (0, 0))[0]
        if len(durations) >= self.min_count and (not taken_at or len(durations) >= taken_at + max(1, taken_at // 16)):
            self.cuts[operation] = (len(durations), self.cut(durations))

    def turn(self, stream_ns: int) -> None:
        half = stream_ns // self.half_ns
        if half > self.half:
            self.before = self.now if half == self.half + 1 else {}
            self.now, self.cuts, self.half = {}, {}, half

    def cut(self, durations: list[int]) -> int:
        rank = max(1, -(-len(durations) * self.basis_points // 10_000))
        return sorted(map(bucket, durations))[rank - 1]


def bucket(duration_ns: int) -> int:
    shift = max(0, duration_ns.bit_length() - 7)
    return shift * 64 + (duration_ns >> shift)
