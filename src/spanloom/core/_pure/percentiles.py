"""The sketches of one latency_percentile policy: a fold over decided traces. The twin of ext/sketch.h.

State, little endian: i64 generation, u32 operations in the current half and in the earlier one; each operation u64 and
u32 buckets, each u32 bucket and u32 count; u32 cuts, each u64 operation, u64 count it was taken at, u32 bucket.
"""

import struct

from spanloom.core.sampling.policies import LatencyPercentilePolicy
from spanloom.core.sampling.sketch import bucket_of, quantile_bucket

POOLED = 0  # the operation under which those beyond `operations_max` are counted

_POLICY_HEADER = struct.Struct("<qII")  # generation, operations in the current half, in the earlier half
_OPERATION_HEADER = struct.Struct("<QI")  # operation, buckets
_BUCKET = struct.Struct("<II")  # bucket, count
_CUT_HEADER = struct.Struct("<I")
_CUT = struct.Struct("<QQI")  # operation, count it was taken at, bucket


class Percentiles:
    """The sketches of one latency_percentile policy: two halves of its window, the earlier one whole."""

    def __init__(self, policy: LatencyPercentilePolicy) -> None:
        self.policy = policy
        self.generation = 0
        self.current: dict[int, dict[int, int]] = {}
        self.earlier: dict[int, dict[int, int]] = {}
        self.cuts: dict[int, tuple[int, int]] = {}  # operation -> count when taken, bucket

    def turn(self, stream_ns: int) -> None:
        generation = stream_ns // (self.policy.window_ns // 2)
        if generation > self.generation:
            self.earlier = self.current if generation == self.generation + 1 else {}
            self.current = {}
            self.cuts = {}
            self.generation = generation

    def is_slow(self, operation: int, duration_ns: int, stream_ns: int) -> bool:
        """Whether the duration lies above the operation's cut. Leaves nothing behind that a fold would not."""
        self.turn(stream_ns)
        if operation not in self.current and operation not in self.earlier and self._full():
            operation = POOLED
        count = self._count(operation)
        if count < self.policy.min_count:
            return False
        _, bucket = self.cuts.get(operation) or (count, self._cut(operation))
        return bucket_of(duration_ns) > bucket

    def fold(self, operation: int, duration_ns: int, stream_ns: int) -> None:
        """Count a trace; take the cut anew once there is a sixteenth more to take it from."""
        self.turn(stream_ns)
        if operation not in self.current and self._full():
            operation = POOLED
        counts = self.current.setdefault(operation, {})
        bucket = bucket_of(duration_ns)
        counts[bucket] = counts.get(bucket, 0) + 1
        count = self._count(operation)
        taken = self.cuts.get(operation, (0, 0))[0]
        if count >= self.policy.min_count and (taken == 0 or count >= taken + max(1, taken >> 4)):
            self.cuts[operation] = (count, self._cut(operation))

    def _count(self, operation: int) -> int:
        return sum(self.current.get(operation, {}).values()) + sum(self.earlier.get(operation, {}).values())

    def _cut(self, operation: int) -> int:
        merged = dict(self.earlier.get(operation, {}))
        for bucket, count in self.current.get(operation, {}).items():
            merged[bucket] = merged.get(bucket, 0) + count
        return quantile_bucket(merged, self.policy.percentile_bp)

    def _full(self) -> bool:
        return len(self.current) >= self.policy.operations_max

    def encode(self) -> bytes:
        out = [_POLICY_HEADER.pack(self.generation, len(self.current), len(self.earlier))]
        for half in (self.current, self.earlier):
            for operation in sorted(half):
                out.append(_OPERATION_HEADER.pack(operation, len(half[operation])))
                out.extend(_BUCKET.pack(bucket, half[operation][bucket]) for bucket in sorted(half[operation]))
        out.append(_CUT_HEADER.pack(len(self.cuts)))
        out.extend(_CUT.pack(operation, *self.cuts[operation]) for operation in sorted(self.cuts))
        return b"".join(out)

    def decode(self, state: bytes, at: int) -> int:
        self.generation, *sizes = _POLICY_HEADER.unpack_from(state, at)
        at += _POLICY_HEADER.size
        halves: list[dict[int, dict[int, int]]] = []
        for size in sizes:
            half: dict[int, dict[int, int]] = {}
            for _ in range(size):
                operation, buckets = _OPERATION_HEADER.unpack_from(state, at)
                at += _OPERATION_HEADER.size
                end = at + buckets * _BUCKET.size
                half[operation] = dict(_BUCKET.iter_unpack(state[at:end]))
                at = end
            halves.append(half)
        self.current, self.earlier = halves
        (size,) = _CUT_HEADER.unpack_from(state, at)
        at += _CUT_HEADER.size
        end = at + int(size) * _CUT.size
        cuts = _CUT.iter_unpack(state[at:end])
        self.cuts = {operation: (taken, bucket) for operation, taken, bucket in cuts}
        return end
