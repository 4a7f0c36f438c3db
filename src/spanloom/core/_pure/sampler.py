"""The tail sampler of one partition: judges a trace, then folds it into what later traces are judged by.

Its state is a fold over first fragments in ledger order and over nothing else: the same ledger gives the same state on
any node (design, section 6). Judging reads no clock and draws no number; what it takes from a bucket is told by the
vote bits that the ledger carries, so that a fold can take the same.

State, little endian: u8 version, f64 rate, then of each policy in order what its nodes hold, in the order in which they
stand: a percentile's sketches, shares, buckets.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from spanloom.core._pure import hashes
from spanloom.core._pure.percentiles import Percentiles
from spanloom.core._pure.predicates import Answers, Predicates
from spanloom.core._pure.rates import Shares, TokenBucket
from spanloom.core.sampling.policies import EmaThroughputPolicy, LatencyPercentilePolicy, PolicySet, bend
from spanloom.core.sampling.program import Bucket, Node, Op, Program, compile_policies
from spanloom.model import NO_POLICY, THRESHOLD_UNKNOWN, Decision, Verdict

RANDOMNESS_MASK = (1 << 56) - 1
STATE_VERSION = 2

_STATE_HEADER = struct.Struct("<Bd")  # version, rate
Key = LatencyPercentilePolicy | EmaThroughputPolicy | Bucket
State = Percentiles | Shares | TokenBucket


class Features(NamedTuple):
    """What nodes look at; the spans' answers to the predicates are asked for beside."""

    trace_id: bytes
    duration_ns: int
    operation: int
    span_count: int
    size_bytes: int  # of the fragment's TracesData
    stream_ns: int


class Vote(NamedTuple):
    """The outcome of all policies together."""

    verdict: Verdict
    votes: int
    policy: int
    threshold: int


class Answer(NamedTuple):
    """What a node says, and the threshold under which it does; the threshold counts only where it keeps."""

    keep: bool
    threshold: int = 0


class _Trace(NamedTuple):
    features: Features
    answers: Answers
    randomness: int


class Sampler:
    """Judges and folds under one policy set at a time."""

    def __init__(self, partition_count: int) -> None:
        self._partition_count = partition_count
        self.policies = PolicySet(0, (), b"[]")
        self.rate = 1.0
        self._program = Program((), (), (), asks_randomness=False)
        self._predicates = Predicates(self._program)
        self._states: dict[Key, State] = {}
        self._votes = 0  # of the trace that is judged

    def configure(self, policies: PolicySet) -> None:
        """Judge by *policies* from here on. A policy that stays as it is keeps what it has gathered."""
        known = self._states
        self.policies = policies
        self._program = compile_policies(policies)
        self._predicates = Predicates(self._program)
        self._states = {key: known.get(key) or self._state_of(key) for key in self._keys()}

    def set_rate(self, rate: float) -> None:
        """Let consistent probabilities keep this part of what they would, from here on."""
        assert 0 <= rate <= 1, f"rate {rate}, expected 0 to 1"
        self.rate = rate

    def _keys(self) -> Iterator[Key]:
        """What has a state, in the order it is stored in."""
        for node in self._program.nodes:
            yield from keys_of(node)

    def _state_of(self, key: Key) -> State:
        match key:
            case LatencyPercentilePolicy():
                return Percentiles(key)
            case EmaThroughputPolicy():
                return Shares(key, self._partition_count)
            case Bucket():
                return TokenBucket(key, self._partition_count)

    # Judging.

    def judge(self, features: Features, chunks: list[bytes]) -> Vote:
        """Ask every policy, those that drop first; *chunks* are the spans."""
        answers = self._predicates.ask(chunks)
        randomness = int.from_bytes(features.trace_id, "big") & RANDOMNESS_MASK if answers.rv is None else answers.rv
        trace = _Trace(features, answers, randomness)
        self._votes, decider, threshold = 0, NO_POLICY, THRESHOLD_UNKNOWN
        is_clear = True
        for index in self._program.order:
            node = self._program.nodes[index]
            answer = self._ask(node, trace)
            if answer.keep:
                self._votes |= 1 << index
            if node.op is Op.DROP:
                if answer.keep:
                    return Vote(Verdict.DROP, self._votes, index, THRESHOLD_UNKNOWN)
                is_clear = is_clear and answer.threshold == 0
            elif answer.keep:
                decider = index if decider == NO_POLICY else decider
                threshold = min(threshold, answer.threshold)
        verdict = Verdict.DROP if decider == NO_POLICY else Verdict.KEEP
        return Vote(verdict, self._votes, decider, threshold if is_clear else THRESHOLD_UNKNOWN)

    def _ask(self, node: Node, trace: _Trace) -> Answer:
        match node.op:
            case Op.NOT:
                answer = self._ask(node.children[0], trace)
                return Answer(not answer.keep, THRESHOLD_UNKNOWN if node.is_chance else 0)
            case Op.AND:
                return self._all_of(node, trace)
            case Op.DROP:
                return self._ask_drop(node, trace)
            case Op.COMPOSITE:
                return self._ask_composite(node, trace)
            case _:
                return self._ask_leaf(node, trace)

    def _all_of(self, node: Node, trace: _Trace) -> Answer:
        threshold = 0
        for child in node.children:
            answer = self._ask(child, trace)
            if not answer.keep:
                return Answer(keep=False)
            threshold = max(threshold, answer.threshold)
        return Answer(keep=True, threshold=threshold)

    def _ask_drop(self, node: Node, trace: _Trace) -> Answer:
        """Where it does not drop: threshold 0 if it could not have dropped the trace, whatever chance had said."""
        if self._all_of(node, trace).keep:
            return Answer(keep=True)
        could = node.is_chance and all(child.is_chance or self._ask(child, trace).keep for child in node.children)
        return Answer(keep=False, threshold=THRESHOLD_UNKNOWN if could else 0)

    def _ask_composite(self, node: Node, trace: _Trace) -> Answer:
        for child, bucket in zip(node.children, node.buckets, strict=True):
            if self._ask(child, trace).keep:
                return Answer(self._take(bucket, trace), THRESHOLD_UNKNOWN)
        return Answer(keep=False)

    def _ask_leaf(self, node: Node, trace: _Trace) -> Answer:
        features = trace.features
        match node.op:
            case Op.ALWAYS:
                return Answer(keep=True)
            case Op.PREDICATE:
                return Answer(bool(trace.answers.matched >> node.predicate & 1) != node.inverted)
            case Op.SPAN_COUNT:
                enough = features.span_count >= node.low
                return Answer(enough and (node.high == 0 or features.span_count <= node.high))
            case Op.FNV:
                return Answer(hashes.fnv1a_64(node.salt + features.trace_id) <= node.low, THRESHOLD_UNKNOWN)
            case Op.CONSISTENT:
                threshold = bend(node.low, self.rate)
                return Answer(trace.randomness >= threshold, threshold)
            case Op.PERCENTILE:
                sketches = self._percentiles(node)
                return Answer(sketches.is_slow(features.operation, features.duration_ns, features.stream_ns))
            case Op.EMA:
                threshold = self._shares(node).threshold(features.operation, features.stream_ns)
                return Answer(trace.randomness >= threshold, threshold)
            case _:
                assert node.op is Op.BUCKET, node.op
                return Answer(self._take(node.buckets[0], trace), THRESHOLD_UNKNOWN)

    def _take(self, bucket: Bucket, trace: _Trace) -> bool:
        features = trace.features
        taken = self._bucket(bucket).take(features.span_count, features.size_bytes, features.stream_ns)
        self._votes |= taken << bucket.charge
        return taken

    def _percentiles(self, node: Node) -> Percentiles:
        assert isinstance(node.policy, LatencyPercentilePolicy)
        state = self._states[node.policy]
        assert isinstance(state, Percentiles)
        return state

    def _shares(self, node: Node) -> Shares:
        assert isinstance(node.policy, EmaThroughputPolicy)
        state = self._states[node.policy]
        assert isinstance(state, Shares)
        return state

    def _bucket(self, bucket: Bucket) -> TokenBucket:
        state = self._states[bucket]
        assert isinstance(state, TokenBucket)
        return state

    # The fold.

    def fold(self, decision: Decision, *, is_ours: bool) -> None:
        """Count a decided first fragment. One that an earlier owner judged has its buckets charged here too."""
        for key, state in self._states.items():
            match state:
                case Percentiles():
                    state.fold(decision.operation, decision.duration_ns, decision.stream_ns)
                case Shares():
                    state.fold(decision.operation, decision.span_count, decision.stream_ns)
                case TokenBucket():
                    assert isinstance(key, Bucket)
                    if not is_ours and decision.votes >> key.charge & 1:
                        state.charge(decision.span_count, decision.size_bytes, decision.stream_ns)

    def state(self) -> bytes:
        """All that the fold has gathered, for a CHECKPOINT."""
        return _STATE_HEADER.pack(STATE_VERSION, self.rate) + b"".join(
            state.encode() for state in self._states.values()
        )

    def restore(self, state: bytes) -> None:
        """Go on from a CHECKPOINT's state, written under the policies now configured."""
        version, self.rate = _STATE_HEADER.unpack_from(state)
        assert version == STATE_VERSION, f"sampler state version {version}, expected {STATE_VERSION}"
        at = _STATE_HEADER.size
        for held in self._states.values():
            at = held.decode(state, at)
        assert at == len(state), f"sampler state of {len(state)} bytes, {at} expected under these policies"


def rate_of_state(state: bytes) -> float:
    """The rate in force, of a CHECKPOINT's state."""
    rate: float = _STATE_HEADER.unpack_from(state)[1]
    return rate


def keys_of(node: Node) -> Iterator[Key]:
    """What has a state in *node* and below."""
    if node.policy is not None:
        yield node.policy
    yield from node.buckets
    for child in node.children:
        yield from keys_of(child)
