"""Rates of a sampler: token buckets, and the shares of an EMA throughput policy. Folds over decisions, in integers.

A partition has its part of a budget that is the fleet's: the same whoever works it. A trace may pass while the bucket
holds what it costs, or, of n partitions, an nth of its fill: then it takes what the bucket does not have, and the
partition pays it off before the next one passes. A part of n holds the square root of n times an nth of the burst:
traffic comes to a small part in fits, and what ran over in between would never be used. So large traces pass through
small parts, and the budget is used up and holds in the long run whatever n is; with n = 1 the rule is that of a plain
token bucket. The floor: a bucket holds one token at least.

State, little endian: a bucket is i64 level and i64 filled_us; shares are u32 operations, i64 generation, then each
u64 operation, u64 average, u64 spans of this interval, u64 threshold.
"""

import struct
from math import isqrt

from spanloom.core.sampling.policies import RANDOMNESS_END, EmaThroughputPolicy
from spanloom.core.sampling.program import Bucket

US_PER_S = 1_000_000
POOLED = 0  # the operation under which those beyond `operations_max` are counted
ONE = 16  # bits below one span in an average
LEVEL_MAX = 1 << 62
LEVEL_MIN = -(1 << 62)  # a deeper debt is forgiven: a state holds 63 bits, whatever a ledger says
QUIET_MAX = 64  # intervals without a trace that are averaged in; after more, all is forgotten

_BUCKET = struct.Struct("<qq")
_SHARES = struct.Struct("<Iq")
_SHARE = struct.Struct("<QQQQ")


class TokenBucket:
    """One bucket of one partition. A token is US_PER_S x partition_count units, so that filling is exact."""

    def __init__(self, bucket: Bucket, partition_count: int) -> None:
        self.bucket = bucket
        self._unit = US_PER_S * partition_count
        part = max(bucket.burst * US_PER_S, self._unit if bucket.burst else 0)
        self._full = min(max(part, bucket.burst * US_PER_S * isqrt(partition_count)), LEVEL_MAX)
        self._enough = part // partition_count
        self.level = part
        self.filled_us = 0

    def take(self, span_count: int, size_bytes: int, stream_ns: int) -> bool:
        """Charge the trace if it may pass; whether it does. One that may not leaves no mark: a fold does not see it."""
        tokens = size_bytes if self.bucket.by_bytes else span_count
        level = self._level_at(stream_ns // 1000)
        if tokens > self.bucket.burst or level < min(tokens * self._unit, self._enough):
            return False
        self.charge(span_count, size_bytes, stream_ns)
        return True

    def charge(self, span_count: int, size_bytes: int, stream_ns: int) -> None:
        """The same, of a trace that is known to have passed."""
        now_us = stream_ns // 1000
        tokens = size_bytes if self.bucket.by_bytes else span_count
        self.level = max(LEVEL_MIN, self._level_at(now_us) - tokens * self._unit)
        self.filled_us = max(self.filled_us, now_us)

    def _level_at(self, now_us: int) -> int:
        elapsed_us = max(0, now_us - self.filled_us) if self.filled_us else 0  # before the first trace no time passes
        return min(self._full, self.level + elapsed_us * self.bucket.per_second)

    def encode(self) -> bytes:
        return _BUCKET.pack(self.level, self.filled_us)

    def decode(self, state: bytes, at: int) -> int:
        self.level, self.filled_us = _BUCKET.unpack_from(state, at)
        return at + _BUCKET.size


class Shares:
    """The operations of one ema_throughput policy, and what each may keep."""

    def __init__(self, policy: EmaThroughputPolicy, partition_count: int) -> None:
        self.policy = policy
        self._goal = (policy.goal_spans_per_second * policy.interval_ns << ONE) // (1_000_000_000 * partition_count)
        self.generation = 0
        self.averages: dict[int, int] = {}  # spans an interval, ONE bits below the point
        self.spans: dict[int, int] = {}  # of this interval
        self.thresholds: dict[int, int] = {}

    def threshold(self, operation: int, stream_ns: int) -> int:
        """The rejection threshold of a trace of *operation*."""
        self._turn(stream_ns)
        return self.thresholds.get(operation, self.thresholds.get(POOLED, 0) if self._is_full() else 0)

    def fold(self, operation: int, span_count: int, stream_ns: int) -> None:
        """Count a decided trace."""
        self._turn(stream_ns)
        if operation not in self.spans and operation not in self.averages and self._is_full():
            operation = POOLED
        self.spans[operation] = self.spans.get(operation, 0) + span_count

    def _is_full(self) -> bool:
        return len(self.averages.keys() | self.spans.keys()) >= self.policy.operations_max

    def _turn(self, stream_ns: int) -> None:
        """Close the intervals that are over."""
        generation = stream_ns // self.policy.interval_ns
        passed = generation - self.generation
        if passed <= 0:
            return
        if self.generation and passed <= QUIET_MAX:
            for _ in range(passed):
                self._average()
                self.spans = {}
        else:
            self.averages, self.spans = {}, {}
        self.generation = generation
        self._share_out()

    def _average(self) -> None:
        weight, averages = self.policy.weight, {}
        for operation in self.averages.keys() | self.spans.keys():
            newest = self.spans.get(operation, 0) << ONE
            before = self.averages.get(operation)
            average = newest if before is None else (before * (256 - weight) + newest * weight) >> 8
            if average:
                averages[operation] = average
        self.averages = averages

    def _share_out(self) -> None:
        """Give each operation its part of the goal, the smallest first: what it leaves goes to those after it."""
        rising = sorted(self.averages.items(), key=lambda entry: (entry[1], entry[0]))
        left, weights = self._goal, sum(_weight_of(average) for _, average in rising)
        self.thresholds = {}
        for operation, average in rising:
            weight = _weight_of(average)
            part = min(average, left * weight // weights)
            left -= part
            weights -= weight
            self.thresholds[operation] = RANDOMNESS_END - RANDOMNESS_END * part // average

    def encode(self) -> bytes:
        operations = sorted(self.averages.keys() | self.spans.keys() | self.thresholds.keys())
        rows = [
            _SHARE.pack(
                operation,
                self.averages.get(operation, 0),
                self.spans.get(operation, 0),
                self.thresholds.get(operation, 0),
            )
            for operation in operations
        ]
        return _SHARES.pack(len(rows), self.generation) + b"".join(rows)

    def decode(self, state: bytes, at: int) -> int:
        count, self.generation = _SHARES.unpack_from(state, at)
        at += _SHARES.size
        end = at + int(count) * _SHARE.size
        rows = list(_SHARE.iter_unpack(state[at:end]))
        self.averages = {operation: average for operation, average, _, _ in rows if average}
        self.spans = {operation: spans for operation, _, spans, _ in rows if spans}
        self.thresholds = {operation: threshold for operation, average, _, threshold in rows if average}
        return end


def _weight_of(average: int) -> int:
    """About 64 times the binary logarithm, plus 64: linear between powers of two, so that every machine agrees."""
    exponent = average.bit_length() - 1
    return (exponent + 1) * 64 + ((average << 6) >> exponent) - 64
