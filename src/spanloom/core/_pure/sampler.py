"""The tail sampler of one partition: judges a trace, then folds it into what later traces are judged by.

Its state is a fold over first fragments in ledger order and over nothing else: the same ledger gives the same state on
any node (design, section 6). Judging reads no clock and draws no number.
"""

import struct
from typing import NamedTuple

from spanloom.core.sampling.policies import (
    ConsistentProbabilityPolicy,
    ErrorPolicy,
    LatencyPercentilePolicy,
    LatencyPolicy,
    Policy,
    PolicySet,
    ServicePatternPolicy,
)
from spanloom.core.sampling.sketch import bucket_of, quantile_bucket
from spanloom.model import NO_POLICY, THRESHOLD_UNKNOWN

RANDOMNESS_MASK = (1 << 56) - 1
POOLED = 0  # the operation under which those beyond `operations_max` are counted

_STATE_HEADER = struct.Struct("<BI")  # version, number of percentile policies
_POLICY_HEADER = struct.Struct("<qII")  # generation, operations in the current half, in the earlier half
_OPERATION_HEADER = struct.Struct("<QI")  # operation, buckets
_BUCKET = struct.Struct("<II")  # bucket, count
_CUT_HEADER = struct.Struct("<I")
_CUT = struct.Struct("<QQI")  # operation, count it was taken at, bucket
STATE_VERSION = 1


class Features(NamedTuple):
    """What the policies look at."""

    trace_id: bytes
    error: bool
    duration_ns: int
    operation: int
    services: frozenset[str]
    stream_ns: int


class Vote(NamedTuple):
    """The outcome of all policies together."""

    keep: bool
    votes: int
    policy: int
    threshold: int


class _Percentiles:
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


class Sampler:
    """Judges and folds under one policy set at a time."""

    def __init__(self) -> None:
        self.policies = PolicySet(0, (), b"[]")
        self._percentiles: dict[int, _Percentiles] = {}

    def configure(self, policies: PolicySet) -> None:
        """Judge by *policies* from here on. A percentile policy that stays as it is keeps its sketches."""
        known = {sketches.policy: sketches for sketches in self._percentiles.values()}
        self.policies = policies
        self._percentiles = {
            index: known.get(policy) or _Percentiles(policy)
            for index, policy in enumerate(policies.policies)
            if isinstance(policy, LatencyPercentilePolicy)
        }
        self._matchers = {
            index: policy.matcher()
            for index, policy in enumerate(policies.policies)
            if isinstance(policy, ServicePatternPolicy)
        }

    def judge(self, trace: Features) -> Vote:
        """Ask every policy, in order."""
        votes, decider, threshold = 0, NO_POLICY, THRESHOLD_UNKNOWN
        for index, policy in enumerate(self.policies.policies):
            own = self._threshold(index, policy, trace)
            if own is not None:
                votes |= 1 << index
                decider = index if decider == NO_POLICY else decider
                threshold = min(threshold, own)
        return Vote(votes != 0, votes, decider, threshold)

    def _threshold(self, index: int, policy: Policy, trace: Features) -> int | None:
        """The sampling threshold under which *policy* keeps *trace*; None if it does not vote for it."""
        match policy:
            case ErrorPolicy():
                return 0 if trace.error else None
            case LatencyPolicy(threshold_ns=least):
                return 0 if trace.duration_ns >= least else None
            case LatencyPercentilePolicy():
                slow = self._percentiles[index].is_slow(trace.operation, trace.duration_ns, trace.stream_ns)
                return 0 if slow else None
            case ServicePatternPolicy():
                return 0 if any(map(self._matchers[index], trace.services)) else None
            case ConsistentProbabilityPolicy(threshold=threshold):
                randomness = int.from_bytes(trace.trace_id[9:], "big")
                return threshold if randomness >= threshold else None

    def fold(self, operation: int, duration_ns: int, stream_ns: int) -> None:
        """Count a decided trace. Once for each first fragment, in ledger order."""
        for sketches in self._percentiles.values():
            sketches.fold(operation, duration_ns, stream_ns)

    def state(self) -> bytes:
        """All that the fold has gathered, for a CHECKPOINT."""
        parts = [self._percentiles[index].encode() for index in sorted(self._percentiles)]
        return _STATE_HEADER.pack(STATE_VERSION, len(parts)) + b"".join(parts)

    def restore(self, state: bytes) -> None:
        """Go on from a CHECKPOINT's state, written under the policies now configured."""
        version, count = _STATE_HEADER.unpack_from(state)
        assert version == STATE_VERSION, f"sampler state version {version}, expected {STATE_VERSION}"
        assert count == len(self._percentiles), (
            f"{count} percentile policies in the state, {len(self._percentiles)} here"
        )
        at = _STATE_HEADER.size
        for index in sorted(self._percentiles):
            at = self._percentiles[index].decode(state, at)
