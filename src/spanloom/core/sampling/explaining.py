"""What each policy asked of a trace, what it saw and what it said, in words. For people: no verdict comes from here.

What spans say is seen anew in the spans, where they are still there; what a policy said is the vote that the ledger
carries. A sampler's state of that time (sketches, averages, what a bucket held) is nowhere any more: who has it beside
him answers for it by `recall`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from spanloom.core._pure import hashes
from spanloom.core._pure.predicates import Asked, Predicates
from spanloom.core._pure.sampler import RANDOMNESS_MASK, Features
from spanloom.core.sampling.policies import (
    RANDOMNESS_END,
    EmaThroughputPolicy,
    LatencyPercentilePolicy,
    PolicySet,
    bend,
)
from spanloom.core.sampling.program import Bucket, Node, Op, Program, compile_policies
from spanloom.core.sampling.sights import seen, spans_text, type_of, wanted
from spanloom.core.sampling.threshold import randomness_of

NS_PER_MS, NS_PER_S = 1_000_000, 1_000_000_000
_TYPES = {
    Op.ALWAYS: "always_sample",
    Op.SPAN_COUNT: "span_count",
    Op.FNV: "probabilistic",
    Op.CONSISTENT: "consistent_probability",
    Op.PERCENTILE: "latency_percentile",
    Op.EMA: "ema_throughput",
    Op.NOT: "not",
    Op.AND: "and",
    Op.DROP: "drop",
    Op.COMPOSITE: "composite",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One policy, or a part of one."""

    name: str
    type: str  # as it is written
    asked: bool | None  # None: not known
    keeps: bool | None  # what it said of the trace (of `drop`: that it goes); None: not asked, or not known any more
    wants: str
    saw: str  # empty where nothing of it can be seen any more
    parts: tuple["Finding", ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """How a trace was judged."""

    votes: int
    features: Features
    rate: float | None  # by which probabilities were bent; None: not known
    spans: tuple[Asked, ...] | None  # None: they are gone
    recall: Callable[[Node], bool | None] = lambda _: None  # what a node said that asks a state


def findings_of(policies: PolicySet, judged: Judged) -> tuple[Finding, ...]:
    """A finding a policy, in the order in which they are written."""
    program = compile_policies(policies)
    describer = _Describer(judged, program)
    is_open, found = True, {}
    for index in program.order:
        said = bool(judged.votes >> index & 1) if is_open else None
        found[index] = describer.finding(program.nodes[index], is_reached=is_open, said=said)
        is_open = is_open and not (said and program.nodes[index].op is Op.DROP)  # a drop ends the asking
    return tuple(found[index] for index in range(len(program.nodes)))


class _Describer:
    def __init__(self, judged: Judged, program: Program) -> None:
        self._judged = judged
        self._predicates = program.predicates
        self._asking = Predicates(program)
        rvs = (randomness_of(span.fields.trace_state).rv for span in judged.spans or ())
        self._rv = next((rv for rv in rvs if rv is not None), None)

    def finding(self, node: Node, *, is_reached: bool | None, said: bool | None = None) -> Finding:
        """*said* is what the votes have of it; *is_reached* whether it was asked, None where that is not known."""
        parts = self._parts(node, is_reached=is_reached)
        keeps = None if is_reached is False else said
        if keeps is None and is_reached is not False:
            keeps = self._answer(node, parts, is_reached=is_reached)
        return Finding(node.name, self._type(node), is_reached, keeps, self._wants(node), self._saw(node), parts)

    def _parts(self, node: Node, *, is_reached: bool | None) -> tuple[Finding, ...]:
        """`and` asks up to the first that does not keep, `composite` up to the first that does."""
        ends_with = node.op is Op.COMPOSITE
        found = []
        for child in node.children:
            part = self.finding(child, is_reached=is_reached)
            found.append(part)
            if is_reached is not False and (part.keeps is None or part.keeps is ends_with):
                is_reached = None if part.keeps is None else False
        return tuple(found)

    def _answer(self, node: Node, parts: tuple[Finding, ...], *, is_reached: bool | None) -> bool | None:
        features, spans = self._judged.features, self._judged.spans
        match node.op:
            case Op.ALWAYS:
                return True
            case Op.PREDICATE if spans is not None:
                return any(self._asking.holds(node.predicate, span) for span in spans) != node.inverted
            case Op.SPAN_COUNT:
                return features.span_count >= node.low and (not node.high or features.span_count <= node.high)
            case Op.FNV:
                return self._hash(node) <= node.low
            case Op.CONSISTENT if spans is not None and self._judged.rate is not None:
                return self._randomness >= bend(node.low, self._judged.rate)
            case Op.PERCENTILE | Op.EMA:
                return self._judged.recall(node)
            case Op.BUCKET:
                return self._is_charged(node.buckets[0]) or (False if is_reached else None)
            case Op.NOT:
                return None if parts[0].keeps is None else not parts[0].keeps
            case Op.AND | Op.DROP:
                said = [part.keeps for part in parts]
                return False if False in said else None if None in said else True
        return None

    def _is_charged(self, bucket: Bucket) -> bool:
        return bool(self._judged.votes >> bucket.charge & 1)

    def _hash(self, node: Node) -> int:
        return hashes.fnv1a_64(node.salt + self._judged.features.trace_id)

    @property
    def _randomness(self) -> int:
        own = int.from_bytes(self._judged.features.trace_id, "big") & RANDOMNESS_MASK
        return own if self._rv is None else self._rv

    def _type(self, node: Node) -> str:
        if node.op is Op.PREDICATE:
            return type_of(self._predicates[node.predicate])
        if node.op is Op.BUCKET:
            return "bytes_limiting" if node.buckets[0].by_bytes else "rate_limiting"
        return _TYPES[node.op]

    def _wants(self, node: Node) -> str:
        match node.op:
            case Op.PREDICATE:
                asked = wanted(self._predicates[node.predicate])
                return f"no span with {asked}" if node.inverted else asked
            case Op.SPAN_COUNT:
                return f"at least {node.low} spans" + (f", at most {node.high}" if node.high else "")
            case Op.FNV:
                return f"a hash of at most {node.low:016x} ({_percent(node.low + 1, 1 << 64)})"
            case Op.CONSISTENT:
                return f"R of at least {self._consistent(node)}"
            case Op.BUCKET:
                return f"room in {_budget(node.buckets[0])}"
            case Op.COMPOSITE:
                budgets = ", ".join(f"{child.name} {_budget(bucket)}" for child, bucket in _pairs(node))
                return f"the first that keeps it has room: {budgets}"
        match node.policy:
            case LatencyPercentilePolicy(percentile_bp=bp, min_count=least, window_ns=window):
                return f"slower than p{bp / 100:g} of {least} or more of its operation within {window // NS_PER_S} s"
            case EmaThroughputPolicy(goal_spans_per_second=goal):
                return f"R within its operation's share of {goal} spans/s"
        return {Op.ALWAYS: "every trace", Op.NOT: "what its policy does not", Op.DROP: "to drop what all keep"}.get(
            node.op, "all of them"
        )

    def _consistent(self, node: Node) -> str:
        rate = self._judged.rate
        if rate is None or rate == 1:
            return _threshold(node.low)
        return f"{_threshold(bend(node.low, rate))}, which load has bent from {_threshold(node.low)}"

    def _saw(self, node: Node) -> str:
        features, spans = self._judged.features, self._judged.spans
        match node.op:
            case Op.PREDICATE:
                return "" if spans is None else self._seen_by(node.predicate, spans)
            case Op.SPAN_COUNT:
                return spans_text(features.span_count)
            case Op.FNV:
                return f"{self._hash(node):016x}"
            case Op.CONSISTENT | Op.EMA:
                return "" if spans is None else self._seen_randomness()
            case Op.PERCENTILE:
                return f"{features.duration_ns / NS_PER_MS:.3f} ms, operation {features.operation:016x}"
            case Op.BUCKET:
                by_bytes = node.buckets[0].by_bytes
                return f"{features.size_bytes} bytes" if by_bytes else spans_text(features.span_count)
            case Op.COMPOSITE:
                charged = [child.name for child, bucket in _pairs(node) if self._is_charged(bucket)]
                return f"{spans_text(features.span_count)}, " + (
                    f"room with {charged[0]}" if charged else "no room taken"
                )
        return ""

    def _seen_by(self, bit: int, spans: Sequence[Asked]) -> str:
        return seen(self._predicates[bit], spans, [span for span in spans if self._asking.holds(bit, span)])

    def _seen_randomness(self) -> str:
        return f"{self._randomness:014x}, {'of the trace id' if self._rv is None else 'rv of its tracestate'}"


def _pairs(node: Node) -> Iterator[tuple[Node, Bucket]]:
    return zip(node.children, node.buckets, strict=True)


def _budget(bucket: Bucket) -> str:
    unit = "bytes" if bucket.by_bytes else "spans"
    return f"{bucket.per_second} {unit}/s (at most {bucket.burst} at once)"


def _threshold(threshold: int) -> str:
    return f"{threshold:014x} ({_percent(RANDOMNESS_END - threshold, RANDOMNESS_END)})"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.6g} %"
