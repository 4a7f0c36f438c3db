"""What the kernels run: policies taken apart into predicates on spans and small trees of nodes.

A predicate is asked of each span (and its resource) while that is scanned, and what a trace keeps of it is one bit:
whether it has held once. So an undecided span stays bytes. A node is asked of the whole trace when it is decided; it
gives whether it keeps the trace, and OpenTelemetry's threshold under which it does (0: whatever R is; unknown where
chance came in that R does not know of). Equal predicates share a bit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from spanloom.core.sampling.policies import (
    POLICIES_MAX,
    PREDICATES_MAX,
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
)
from spanloom.errors import ConfigError


class PredicateKind(IntEnum):
    """What a predicate asks of a span. Its fields are those of Predicate named here."""

    TEXT = 0  # attribute `key` of resource or span is a string among `texts`
    PATTERN = 1  # ... matches one of the RE2 patterns `texts`; an empty one of a span does not
    INTEGER = 2  # attribute `key` of resource or span, 0 where it is no integer, lies within `low` and `high`
    BOOLEAN = 3  # attribute `key` of resource or span, false where it is no boolean, is `low`
    STATUS = 4  # the status code's bit is set in `low` (1 << code)
    STATE = 5  # W3C tracestate has `key` with one of `texts`
    SAMPLED_FLAG = 6  # bit 0 of flags
    LATENCY = 7  # the trace so far lasts more than `low` ms, and at most `high` where that is not 0
    SERVICE = 8  # the resource's service.name matches one of the globs `texts`
    ERROR = 9  # status ERROR, or a span attribute `error` that is true or "true"


@dataclass(frozen=True, slots=True)
class Predicate:
    """A question asked of each span; its answer for a trace is whether any span said yes."""

    kind: PredicateKind
    key: str = ""
    texts: tuple[str, ...] = ()
    low: int = 0
    high: int = 0


class Op(IntEnum):
    """What a node asks of a trace."""

    ALWAYS = 0
    PREDICATE = 1  # bit `predicate` is set; `inverted`: is not
    SPAN_COUNT = 2  # `low` <= spans, and <= `high` where that is not 0
    FNV = 3  # FNV-1a-64 of `salt` and trace id is at most `low`
    CONSISTENT = 4  # R >= `low`, bent by the rate
    PERCENTILE = 5  # slower than `policy`'s percentile
    BUCKET = 6  # `bucket` has room for the trace's spans or bytes
    EMA = 7  # R >= the threshold of its operation under `policy`
    NOT = 8
    AND = 9
    DROP = 10
    COMPOSITE = 11  # children in order; each has a bucket of its own in `buckets`


@dataclass(frozen=True, slots=True)
class Bucket:
    """Tokens that fill at `per_second` up to `burst`, the fleet's; `charge` is the vote bit that says it was."""

    name: str  # of its policy, and sub-policy: a bucket that stays as it is keeps its level
    per_second: int
    burst: int
    by_bytes: bool
    charge: int = field(compare=False)  # where it stands is no part of what it is


@dataclass(frozen=True, slots=True)
class Node:
    """One question of a policy's tree."""

    op: Op
    name: str
    low: int = 0
    high: int = 0
    salt: bytes = b""
    predicate: int = 0
    inverted: bool = False
    policy: LatencyPercentilePolicy | EmaThroughputPolicy | None = None
    buckets: tuple[Bucket, ...] = ()
    children: tuple["Node", ...] = ()
    is_chance: bool = False  # whether chance or what others took has a part in its answer


@dataclass(frozen=True, slots=True)
class Program:
    """A policy set, ready to be run. `order` is that in which the policies are asked: `drop` first."""

    predicates: tuple[Predicate, ...]
    nodes: tuple[Node, ...]  # one a policy, by its index
    order: tuple[int, ...]
    asks_randomness: bool  # some node compares R, so that `rv` is looked for

    @property
    def buckets(self) -> tuple[Bucket, ...]:
        """Every bucket, in order of policies."""
        found: list[Bucket] = []
        for node in self.nodes:
            _collect_buckets(node, found)
        return tuple(found)


def _collect_buckets(node: Node, found: list[Bucket]) -> None:
    found.extend(node.buckets)
    for child in node.children:
        _collect_buckets(child, found)


def compile_policies(policies: PolicySet) -> Program:
    """Take *policies* apart. Raises ConfigError where they need more votes or predicates than there are."""
    compiler = _Compiler(len(policies.policies))
    nodes = tuple(compiler.policy(policy, index) for index, policy in enumerate(policies.policies))
    drops = [index for index, node in enumerate(nodes) if node.op is Op.DROP]
    others = [index for index, node in enumerate(nodes) if node.op is not Op.DROP]
    if compiler.votes > POLICIES_MAX:
        raise ConfigError(
            f"sampling.policies: expected at most {POLICIES_MAX} policies and rates within policies, "
            f"found {compiler.votes}"
        )
    if len(compiler.predicates) > PREDICATES_MAX:
        raise ConfigError(
            f"sampling.policies: expected at most {PREDICATES_MAX} different conditions, "
            f"found {len(compiler.predicates)}"
        )
    asks_randomness = any(map(_asks_randomness, nodes))
    return Program(tuple(compiler.predicates), nodes, (*drops, *others), asks_randomness)


def _asks_randomness(node: Node) -> bool:
    return node.op in (Op.CONSISTENT, Op.EMA) or any(map(_asks_randomness, node.children))


@dataclass(slots=True)
class _Compiler:
    votes: int  # bits taken: one a policy, then one a bucket that is not a policy of its own
    predicates: dict[Predicate, int] = field(default_factory=dict)

    def policy(self, policy: Policy, index: int) -> Node:
        match policy:
            case AndPolicy() | DropPolicy():
                return self._all_of(policy, policy.name)
            case NotPolicy():
                return self._not(policy, policy.name)
            case CompositePolicy():
                return self._composite(policy)
            case _:
                return self._leaf(policy, policy.name, charge=index)

    def _all_of(self, policy: AndPolicy | DropPolicy, path: str) -> Node:
        children = self._children(policy.policies, path)
        op = Op.DROP if isinstance(policy, DropPolicy) else Op.AND
        return Node(op, policy.name, children=children, is_chance=any(child.is_chance for child in children))

    def _children(self, policies: Sequence[Leaf | NotPolicy], path: str) -> tuple[Node, ...]:
        return tuple(
            self._not(sub, f"{path}/{number}") if isinstance(sub, NotPolicy) else self._leaf(sub, f"{path}/{number}")
            for number, sub in enumerate(policies)
        )

    def _not(self, policy: NotPolicy, path: str) -> Node:
        child = self._leaf(policy.policy, f"{path}/not")
        return Node(Op.NOT, policy.name, children=(child,), is_chance=child.is_chance)

    def _composite(self, policy: CompositePolicy) -> Node:
        children, buckets = [], []
        for number, (sub, allotted) in enumerate(zip(policy.policies, policy.allotted, strict=True)):
            path = f"{policy.name}/{number}"
            children.append(self._all_of(sub, path) if isinstance(sub, AndPolicy) else self._leaf(sub, path))
            most = min(allotted, policy.max_total_spans_per_second)
            buckets.append(Bucket(f"{path}/allotted", most, most, by_bytes=False, charge=self._vote()))
        return Node(Op.COMPOSITE, policy.name, buckets=tuple(buckets), children=tuple(children), is_chance=True)

    def _vote(self) -> int:
        self.votes += 1
        return self.votes - 1

    def _leaf(self, policy: Leaf, path: str, charge: int | None = None) -> Node:
        name = policy.name
        match policy:
            case AlwaysSamplePolicy():
                return Node(Op.ALWAYS, name)
            case SpanCountPolicy(min_spans=low, max_spans=high):
                return Node(Op.SPAN_COUNT, name, low=low, high=high)
            case ProbabilisticPolicy(hash_salt=salt, threshold=threshold):
                return Node(Op.FNV, name, low=threshold, salt=salt, is_chance=True)
            case ConsistentProbabilityPolicy(threshold=threshold):
                return Node(Op.CONSISTENT, name, low=threshold, is_chance=True)
            case LatencyPercentilePolicy():
                return Node(Op.PERCENTILE, name, policy=policy)
            case EmaThroughputPolicy():
                return Node(Op.EMA, name, policy=policy, is_chance=True)
            case RateLimitingPolicy(spans_per_second=rate, burst_capacity=burst):
                by_bytes = False
            case BytesLimitingPolicy(bytes_per_second=rate, burst_capacity=burst):
                by_bytes = True
            case _:
                return self._predicate(policy)
        charge = self._vote() if charge is None else charge
        return Node(Op.BUCKET, name, buckets=(Bucket(path, rate, burst, by_bytes, charge),), is_chance=True)

    def _predicate(self, policy: Leaf) -> Node:
        inverted = False
        match policy:
            case LatencyPolicy(threshold_ms=low, upper_threshold_ms=high):
                asked = Predicate(PredicateKind.LATENCY, low=low, high=high)
            case NumericAttributePolicy(key=key, min_value=low, max_value=high, invert_match=inverted):
                asked = Predicate(PredicateKind.INTEGER, key, low=low, high=high)
            case StringAttributePolicy(key=key, values=values, is_regex=is_regex, invert_match=inverted):
                kind = PredicateKind.PATTERN if is_regex else PredicateKind.TEXT
                asked = Predicate(kind, key, tuple(value for value in values if value or is_regex))
            case BooleanAttributePolicy(key=key, value=value, invert_match=inverted):
                asked = Predicate(PredicateKind.BOOLEAN, key, low=int(value))
            case StatusCodePolicy(status_codes=codes):
                asked = Predicate(PredicateKind.STATUS, low=sum({1 << code for code in codes}))
            case TraceStatePolicy(key=key, values=values):
                short = tuple(value for value in values if value and len(key.encode()) + len(value.encode()) < 256)
                asked = Predicate(PredicateKind.STATE, key, short)
            case TraceFlagsPolicy():
                asked = Predicate(PredicateKind.SAMPLED_FLAG)
            case ServicePatternPolicy(services=services):
                asked = Predicate(PredicateKind.SERVICE, texts=services)
            case ErrorPolicy():
                asked = Predicate(PredicateKind.ERROR)
            case _:
                raise AssertionError(policy)
        bit = self.predicates.setdefault(asked, len(self.predicates))
        return Node(Op.PREDICATE, policy.name, predicate=bit, inverted=inverted)
