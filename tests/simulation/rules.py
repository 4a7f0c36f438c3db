"""The rules of the ledger, run on the real core: one partition, owners that overlap, die, freeze and come back.

No IO and no time: a seed decides who steps next, what lands in the ledger and when, who is killed and what of its
unlanded writes still arrives. At the end a clean owner finishes the log, and the oracles look at what is left behind.
After `shared/model/ledger_model.py`, with `Ownership` and `Assembler` in the place of the model's owner.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from spanloom.core.assembly import Harvest, Limits
from spanloom.core.kernel import Assembler
from spanloom.core.ledger import Decide, Entry, Fence, Tick, decode, decode_decisions
from spanloom.core.ownership import Ownership, Phase
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import Fenced
from spanloom.model import Committed, Decision, Fragment, LedgerRecord, Record
from tests.spans import T0_MS, S, Sp, span_id, trace_id, traces_data

LIMITS = Limits(quiet_ns=2 * S, idle_ns=4 * S, age_max_ns=12 * S, remember_ns=25 * S, skew_max_ns=30 * S, spans_max=6)
POLICIES = parse_policies(
    [
        {"name": "errors", "type": "error"},
        {"name": "slow", "type": "latency_percentile",
         "latency_percentile": {"percentile": 60, "min_count": 2, "window_s": 40}},
        {"name": "rate", "type": "and", "and": {"and_sub_policy": [
            {"type": "string_attribute", "string_attribute": {"key": "service.name", "values": ["shop"]}},
            {"type": "bytes_limiting", "bytes_limiting": {"bytes_per_second": 20, "burst_capacity": 1200}}]}},
        {"name": "base", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 30}},
    ],
    version=1,
)  # fmt: skip
IdentityKey = tuple[bytes, bytes, int, int]  # trace id, span id, kind, content
Place = tuple[bytes, int]  # trace id, first offset
DocumentKey = tuple[int, bytes, int]  # day, trace id, first offset
DAY_NS = 5 * S  # short, so that a run sees many


@dataclass(slots=True)
class World:
    """What outlives every owner."""

    rng: random.Random
    records: list[Record] = field(default_factory=list)
    ledger: list[bytes] = field(default_factory=list)
    committed: Committed = field(default_factory=lambda: Committed(0, b""))
    store: dict[DocumentKey, Fragment] = field(default_factory=dict)
    written: dict[Place, Fragment] = field(default_factory=dict)  # every fragment that was sent to the store
    completed: dict[Place, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    clock_s: float = 1.0
    faults: Counter[str] = field(default_factory=Counter)


class Node:
    """One owner: what a partition actor does, a step at a time, in whatever order the seed says."""

    assembler_type: type[Assembler] = Assembler
    ownership_type: type[Ownership] = Ownership

    def __init__(self, world: World, number: int, policies: PolicySet = POLICIES) -> None:
        self.world = world
        self.policies = policies
        self.is_over = False
        self.frozen_until = 0
        self.unlanded: list[bytes] = []
        self.to_store: list[Fragment] = []
        self.waiting_tick: int | None = None
        self.assembler = self.assembler_type(LIMITS, partition=0, partition_count=1)
        owner = number.to_bytes(16, "big")
        self.ownership = self.ownership_type(0, world.committed, self.assembler, owner=owner, limits=LIMITS)
        self.ledger_at = self.ownership.recall_from.position
        while self.ledger_at < len(world.ledger):
            self.follow()
        self.unlanded.append(self.ownership.fence())
        self.started = False

    @property
    def owns(self) -> bool:
        return self.ownership.phase is Phase.OWNING

    def follow(self) -> None:
        """Read one ledger record, if there is one."""
        if self.ledger_at >= len(self.world.ledger):
            return
        record = LedgerRecord(self.ledger_at, self.world.ledger[self.ledger_at])
        self.ledger_at += 1
        try:
            self.to_store += self.ownership.read_back(record)
        except Fenced:
            self.world.faults["fenced"] += 1
            self.is_over = True
            return
        if self.ownership.is_outbid:
            self.unlanded.append(self.ownership.fence())
        if self.owns and not self.started:
            self.started = True
            self.unlanded += self.ownership.checkpoint(self.policies)
        if self.waiting_tick is not None and self.ownership.is_settled:
            target, self.waiting_tick = self.waiting_tick, None
            self._reap(self.ownership.advance(target))

    def _reap(self, harvest: Harvest) -> None:
        self.unlanded += self.ownership.decide(harvest)
        self.to_store += harvest.fragments

    def read(self, most: int) -> None:
        if not self.owns or not self.started or self.waiting_tick is not None:
            return
        at = self.ownership.offset
        if at < len(self.world.records):
            self._reap(self.ownership.feed(self.world.records[at : at + most]))

    def store(self) -> None:
        if self.to_store:
            fragment = self.to_store.pop(self.world.rng.randrange(len(self.to_store)))
            self.put(fragment)
            self.assembler.resolve(fragment.decision, "stored")

    def put(self, fragment: Fragment) -> None:
        put(self.world, fragment)

    def commit(self) -> None:
        if self.owns:
            self.world.committed = self.ownership.commit()

    def tick(self, skew_s: float = 0.0) -> None:
        """Stream time of an idle partition goes on."""
        caught_up = self.ownership.offset == len(self.world.records)
        now = int((T0_MS / 1000 + self.world.clock_s + skew_s) * S)
        if self.owns and self.started and caught_up and self.waiting_tick is None and now > self.assembler.stream_ns:
            self.unlanded += self.ownership.tick(now)
            self.waiting_tick = now

    def checkpoint(self) -> None:
        if self.owns and self.started:
            self.unlanded += self.ownership.checkpoint(self.policies)


def put(world: World, fragment: Fragment) -> None:
    """Create the fragment's document; a second create of an id is a success and changes nothing."""
    place = (fragment.decision.trace_id, fragment.decision.first)
    world.store.setdefault((fragment.decision.origin_ns // DAY_NS, *place), fragment)
    world.written.setdefault(place, fragment)
    world.completed[place].add(fragment.spans)


class Traffic:
    """Records of a few traces that come, repeat themselves and give way to others."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.jitter_s = world.rng.choice([0, 0, 2])
        self.live = [1, 2, 3]
        self.next_trace = 4
        self.next_span = 1
        self.sent: list[Sp] = []

    def produce(self) -> None:
        rng = self.world.rng
        spans = []
        for _ in range(rng.choice([1, 1, 2, 3])):
            if self.sent and rng.random() < 0.15:
                spans.append(rng.choice(self.sent))
                continue
            parent = rng.choice([0, self.next_span - 1, self.next_span - 2])
            span = Sp(rng.choice(self.live), self.next_span, max(0, parent), ms=rng.choice([1, 10, 100, 1000]))
            if rng.random() < 0.1:
                span = Sp(span.trace, span.span, span.parent, error=True)
            if self.sent and rng.random() < 0.03:
                old = rng.choice(self.sent)
                span = Sp(old.trace, old.span, old.parent, ms=77)
            self.next_span += 1
            self.sent.append(span)
            spans.append(span)
        at_s = self.world.clock_s - rng.random() * self.jitter_s
        if rng.random() < 0.01:
            at_s += 1000  # a clock that was wrong once
        timestamp = T0_MS + int(at_s * 1000)
        self.world.records.append(Record(len(self.world.records), timestamp, None, traces_data(spans)))
        if rng.random() < 0.15:
            self.live[rng.randrange(3)] = self.next_trace
            self.next_trace += 1


def run(seed: int, steps: int = 350, node_type: type[Node] = Node) -> World:
    """Let owners come, overlap, freeze and die over *steps*; then an undisturbed one finishes."""
    world = World(random.Random(seed))
    rng, traffic = world.rng, Traffic(world)
    skew_s = rng.choice([0.0, 3.0])
    nodes, ghosts, number = [node_type(world, 0)], list[Node](), 1
    for step in range(steps):
        dice = rng.random()
        if dice < 0.10:
            traffic.produce()
        elif dice < 0.15:
            world.clock_s += rng.choice([1, 1, 2, 5])
        elif dice < 0.28:
            _land(world, nodes + ghosts)
        elif dice < 0.295 and nodes:
            dead = rng.choice(nodes)
            nodes.remove(dead)
            del dead.unlanded[rng.randint(0, len(dead.unlanded)) :]
            ghosts.append(dead)
            world.faults["killed"] += 1
        elif dice < 0.31 and nodes:
            rng.choice(nodes).frozen_until = step + rng.randint(5, 60)
            world.faults["frozen"] += 1
        elif dice < 0.33 and len(nodes) < 3:
            nodes.append(node_type(world, number))
            number += 1
            world.faults["overlapping"] += len(nodes) > 1
        elif nodes:
            node = rng.choice(nodes)
            if node.frozen_until < step:
                _step(node, skew_s)
        ghosts += [node for node in nodes if node.is_over]
        nodes = [node for node in nodes if not node.is_over] or [node_type(world, number)]
        number += 1
    _finish(world, nodes + ghosts, node_type, number)
    return world


def _land(world: World, nodes: Sequence[Node]) -> None:
    writers = [node for node in nodes if node.unlanded]
    if writers:
        world.ledger.append(world.rng.choice(writers).unlanded.pop(0))


def _step(node: Node, skew_s: float) -> None:
    dice = node.world.rng.random()
    if dice < 0.40:
        node.read(node.world.rng.choice([1, 1, 3, 10]))
    elif dice < 0.70:
        node.follow()
    elif dice < 0.84:
        node.store()
    elif dice < 0.92:
        node.commit()
    elif dice < 0.96:
        node.tick(skew_s)
    else:
        node.checkpoint()


def _finish(world: World, others: Sequence[Node], node_type: type[Node], number: int) -> None:
    """What was in flight lands, in part; a clean owner reads all and decides all; zombies' bulks arrive after it."""
    for node in others:
        del node.unlanded[world.rng.randint(0, len(node.unlanded)) :]
        world.ledger += node.unlanded
    world.clock_s += 5000
    settle(node_type(world, number))
    for node in others:
        for fragment in node.to_store:
            if world.rng.random() < 0.5:
                node.put(fragment)


def settle(node: Node) -> None:
    """Run an undisturbed owner until every trace is decided and stored, and the whole log committed."""
    world = node.world
    while True:
        world.ledger += node.unlanded
        node.unlanded.clear()
        if node.ledger_at < len(world.ledger):
            node.follow()
        elif node.to_store:
            node.store()
        elif node.ownership.offset < len(world.records):
            node.read(7)
        elif node.assembler.next_deadline() is not None:
            world.clock_s += 100
            node.tick()
        else:
            break
    node.commit()


# Oracles.


def valid_entries(ledger: Sequence[bytes]) -> list[Entry]:
    """The ledger's entries that count, whoever wrote them."""
    epoch = 0
    entries: list[Entry] = []
    for position, body in enumerate(ledger):
        of, entry = decode(body, partition=0, position=position)
        if isinstance(entry, Fence):
            epoch = max(epoch, of)
        elif of == epoch:
            entries.append(entry)
    return entries


def decisions(ledger: Sequence[bytes]) -> list[Decision]:
    return [d for entry in valid_entries(ledger) if isinstance(entry, Decide) for d in decode_decisions(entry.entries)]


def crash_free(world: World) -> World:
    """The same records and ticks, read by one owner that nothing ever happens to."""
    calm = World(random.Random(0), records=world.records, clock_s=world.clock_s)
    node = Node(calm, 1)
    node.ownership._ticks.extend(entry for entry in valid_entries(world.ledger) if isinstance(entry, Tick))
    settle(node)
    return calm


def differences(world: World) -> list[str]:
    """Everything in which *world* is not as promised."""
    found = []
    calm = crash_free(world)
    mine, theirs = decisions(world.ledger), decisions(calm.ledger)
    if sorted(mine, key=_place) != sorted(theirs, key=_place):
        found.append(f"DIVERGE {set(mine) ^ set(theirs)}")
    if sorted(world.store) != sorted(calm.store):
        found.append(f"STORED {set(world.store) ^ set(calm.store)}")
    found += [f"BYTES {key}" for key, seen in world.completed.items() if len(seen) > 1]
    where: Counter[IdentityKey] = Counter()
    for fragment in world.store.values():
        for identity in fragment.decision.identities:
            where[(fragment.decision.trace_id, *identity)] += 1
    lives = Counter[IdentityKey]()  # a forgotten trace may store a span again: as often as without a crash
    for fragment in calm.written.values():
        for identity in fragment.decision.identities:
            lives[(fragment.decision.trace_id, *identity)] += 1
    found += [f"TWICE {key}" for key, count in where.items() if count > lives[key]]
    found += [f"LOST {key}" for key in lives if key not in where]
    if world.committed.offset != len(world.records):
        found.append(f"COMMITTED {world.committed.offset} of {len(world.records)}")
    return found


def _place(decision: Decision) -> tuple[bytes, int]:
    return decision.trace_id, decision.first


__all__ = ["differences", "run", "span_id", "trace_id"]
