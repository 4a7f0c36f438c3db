"""One trace at a time: how many spans, in what shape, how long each takes, which of them fail.

A parent always comes before its children in the lists of a Tree, which makes every pass over it a single loop.
"""

import math
from dataclasses import dataclass
from random import Random

from spanloom.load.fleet import Fleet, Operation, Process
from spanloom.model import SpanKind

_GIANT_SHARE = 0.001  # of traces come from the power law below: batch jobs and runaway loops
_GIANT_SPANS = 300
_GIANT_EXPONENT = 1.1
_CHAIN_SPANS_MAX = 60  # real call chains are not deeper
_PARALLEL_SPANS = 100  # above so many spans children run side by side, or a trace would last for minutes
_PROPAGATION = 0.7  # how often the caller of a failed span fails as well


@dataclass(frozen=True, slots=True)
class Tree:
    """One trace before it has ids. All lists are indexed alike; `parents[0]` is -1."""

    operations: list[Operation]
    parents: list[int]
    processes: list[Process]
    starts_ns: list[int]  # from the start of the trace
    durations_ns: list[int]
    failed: frozenset[int]


def draw_size(random: Random, *, median: float, sigma: float, spans_max: int) -> int:
    """How many spans a trace has: log-normal, with a power-law tail of giants."""
    if random.random() < _GIANT_SHARE:
        size = _GIANT_SPANS * random.paretovariate(_GIANT_EXPONENT)
    else:
        size = median * math.exp(sigma * random.gauss(0, 1))
    return max(1, min(spans_max, round(size)))


def grow(random: Random, fleet: Fleet, size: int, *, fails: bool) -> Tree:
    """Draw a trace of *size* spans. *fails*: one span of it is in error, and perhaps some of those above it."""
    root = fleet.entries[random.getrandbits(6)]
    operations, parents = [root], [-1]
    processes = [root.service.processes[random.getrandbits(16) % len(root.service.processes)]]
    _add_spans(random, size, operations=operations, parents=parents, processes=processes)
    own_ns = [operation.latencies_ns[random.getrandbits(8)] + random.getrandbits(16) for operation in operations]
    side_by_side = size > _PARALLEL_SPANS or random.getrandbits(2) == 0
    starts_ns, durations_ns = _times(operations, parents, own_ns, side_by_side=side_by_side)
    failed = _failures(random, parents) if fails else frozenset()
    return Tree(operations, parents, processes, starts_ns, durations_ns, failed)


def _add_spans(
    random: Random, size: int, *, operations: list[Operation], parents: list[int], processes: list[Process]
) -> None:
    """Grow the tree to *size*: a chain follows its newest span, a fan its oldest, a bush any."""
    bits = random.getrandbits
    shape = random.random()
    chain = shape < 0.15 and size <= _CHAIN_SPANS_MAX
    fan = shape >= 0.8
    callers = [0]  # spans that may have children
    while len(operations) < size:
        draw = bits(32)
        if chain:
            parent = callers[-1]
        elif fan:
            parent = callers[(draw >> 16) % min(3, len(callers))]
        else:
            parent = callers[(draw >> 16) % len(callers)]
        operation = operations[parent].calls[draw & 63]
        operations.append(operation)
        parents.append(parent)
        processes.append(processes[parent])
        other_side = operation.other_side
        if other_side is not None and len(operations) < size:
            parents.append(len(operations) - 1)
            operations.append(other_side)
            others = other_side.service.processes
            processes.append(others[(draw >> 6 & 0x3FF) % len(others)])
        if operations[-1].calls:
            callers.append(len(operations) - 1)


def _times(
    operations: list[Operation], parents: list[int], own_ns: list[int], *, side_by_side: bool
) -> tuple[list[int], list[int]]:
    """Starts and durations: a caller outlasts what it calls, but does not wait for the consumers of its messages."""
    durations = list(own_ns)
    for index in range(len(parents) - 1, 0, -1):
        parent = parents[index]
        if operations[index].kind is SpanKind.CONSUMER:
            continue
        if side_by_side:
            durations[parent] = max(durations[parent], own_ns[parent] + durations[index])
        else:
            durations[parent] += durations[index]
    starts = [0] * len(parents)
    next_start = [own >> 1 for own in own_ns]  # of each span's next child, from the span's own start
    for index in range(1, len(parents)):
        parent = parents[index]
        starts[index] = starts[parent] + next_start[parent]
        if operations[index].kind is SpanKind.CONSUMER:
            starts[index] += 20 * own_ns[index]  # it lay in the topic for a while
        elif not side_by_side:
            next_start[parent] += durations[index]
    return starts, durations


def _failures(random: Random, parents: list[int]) -> frozenset[int]:
    index = random.randrange(len(parents))
    failed = {index}
    while parents[index] >= 0 and random.random() < _PROPAGATION:
        index = parents[index]
        failed.add(index)
    return frozenset(failed)
