"""What a partition actor is given: the world around it, its settings, and the board it shows itself on."""

import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

import trio

from spanloom.core.assembly import AssemblerStatistics, Harvest, Limits
from spanloom.core.ownership import Ownership, Phase, decode_metadata
from spanloom.core.partitioning import partition_of
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.written import policies_from_body
from spanloom.interfaces import Cache, Ledger, Outlet, SpanLog, SpanSource, TraceStore
from spanloom.model import Committed, PolicyVersion, Record


def pass_by(_: str) -> None:
    """A failpoint that nothing is armed at."""


async def condemn_unheard(_: Callable[[], object]) -> bool:
    """Where nothing can be tried, what is accused of killing the process is taken to do so."""
    await trio.lowlevel.checkpoint()
    return False


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside; one of each for all partitions of a process."""

    log: SpanLog
    source: SpanSource
    ledger: Ledger
    store: TraceStore
    outlet: Outlet
    cache: Cache
    uuid: Callable[[], bytes]  # 16 bytes: 8 that name the process, 8 that are new each time
    random: Callable[[], float]  # in [0, 1), for back-off
    unix_s: Callable[[], float]  # wall clock: for retention only, no verdict reads it
    threads: trio.CapacityLimiter | None = None  # large batches are fed in so many threads; None: in trio's own
    failpoint: Callable[[str], None] = pass_by  # told each instant of core/failpoints.py as it comes
    survives: Callable[[Callable[[], object]], Awaitable[bool]] = condemn_unheard  # tried in another process


@dataclass(slots=True)
class Orders:
    """What the partitions of this process judge by from now on; moved by who watches the versions and the load."""

    policies: PolicySet
    versions: dict[int, PolicyVersion] = field(default_factory=dict)  # all that count
    rate: float = 1.0  # what load leaves of consistent probabilities
    cause: int = 0  # of that rate: index of the Cause
    strange: PolicySet | None = None  # what a ledger has and the versions do not

    def adopt(self, written: PolicyVersion) -> None:
        """Judge by it. Raises ConfigError where it cannot be read: a later release may have written it."""
        policies = policies_from_body(written.body, version=written.version)
        self.versions[written.version] = written
        self.policies = policies

    def report(self, policies: PolicySet) -> None:
        """A ledger has these, and they are not what the versions have: they were lost, or begun anew."""
        self.strange = policies


@dataclass(frozen=True, slots=True)
class PartitionSettings:
    """Bounds and intervals of a partition actor, and what it judges by."""

    limits: Limits
    orders: Orders
    commit_interval_s: float = 1.0
    tick_after_s: float = 1.0  # design, section 5
    checkpoint_interval_s: float = 60.0  # bounds the ledger a recovery reads
    undecided_bytes_max: int = 512 << 20  # of the node
    hold_s: float = 0.5  # above it: how long reading waits before traces are decided early
    storing_bytes_max: int = 64 << 20  # of a partition; reading waits above it
    unsettled_max: int = 64  # ledger records in flight; reading waits above it
    bulk_bytes: int = 4 << 20  # Elasticsearch does best at 3 to 8 MB a bulk
    store_queue_max: int = 4096  # fragments waiting for the store


@dataclass(frozen=True, slots=True)
class PartitionStatistics:
    """A look at a partition."""

    partition: int
    phase: Phase
    epoch: int
    committed: int
    end: int  # of the log, about a second old
    ledger_needed: int  # the ledger position a recovery reads from
    assignments: int  # this and those below: since the process started
    ledger_appends: int  # records
    documents_stored: int
    documents_rejected: int
    policy_version: int  # in force; 0: none yet
    rate: float  # in force: what load has left of consistent probabilities
    assembler: AssemblerStatistics


@dataclass(slots=True)
class _Place:
    ownership: Ownership
    committed: Committed
    mutex: threading.Lock = field(default_factory=threading.Lock)  # held while a thread feeds, and for each look
    undecided_bytes: int = 0
    assignments: int = 0
    ledger_appends: int = 0
    documents_stored: int = 0
    documents_rejected: int = 0


@dataclass(slots=True)
class Board:
    """Where the partitions of this process stand; written by the actors, read by queries and metrics."""

    partition_count: int
    ready: trio.Event = field(default_factory=trio.Event)  # every partition has been owned
    ends: dict[int, int] = field(default_factory=dict)  # of the log, by partition; about a second old
    _places: dict[int, _Place] = field(default_factory=dict)
    _expected: frozenset[int] | None = None  # None: all
    _draining: set[int] = field(default_factory=set)

    def expect(self, partitions: Iterable[int]) -> None:
        """These are ours, or soon will be; where nobody says so, all are."""
        self._expected = frozenset(partitions)

    @property
    def expected(self) -> frozenset[int]:
        """The partitions that are ours, or soon will be."""
        return frozenset(range(self.partition_count)) if self._expected is None else self._expected

    @property
    def expected_count(self) -> int:
        """How many share what the node may hold; one at least."""
        return max(1, len(self.expected))

    def drain(self, partitions: Iterable[int]) -> None:
        """Their actors stop reading, finish what is decided, commit and return."""
        self._draining |= set(partitions)

    def is_draining(self, partition: int) -> bool:
        """Whether the partition's actor is to come to an end."""
        return partition in self._draining

    def release(self, partition: int) -> None:
        """The partition has no actor here any more: forget what it was doing."""
        self._draining.discard(partition)
        self._places.pop(partition, None)
        self.ends.pop(partition, None)

    def has_been_assigned(self, partition: int) -> bool:
        """Whether an actor had the partition before, and nobody has released it since."""
        return partition in self._places

    def assigned(self, partition: int, ownership: Ownership, committed: Committed) -> None:
        """A new assignment begins."""
        place = self._places.setdefault(partition, _Place(ownership, committed))
        place.ownership, place.committed, place.undecided_bytes = ownership, committed, 0
        place.assignments += 1

    def took_over(self) -> None:
        """A partition's fence has come back: it is owned."""
        if self.is_ready():
            self.ready.set()

    def committed(self, partition: int, committed: Committed) -> None:
        """A commit has succeeded."""
        self._places[partition].committed = committed

    def appended(self, partition: int, records: int) -> None:
        """Ledger records were appended."""
        self._places[partition].ledger_appends += records

    def wrote(self, partition: int, *, stored: int, rejected: int) -> None:
        """The store has answered for a bulk."""
        self._places[partition].documents_stored += stored
        self._places[partition].documents_rejected += rejected

    def feed_alone(self, partition: int, records: Sequence[Record]) -> Harvest:
        """In a worker thread: whoever looks at the partition meanwhile waits, a batch's time."""
        place = self._places[partition]
        with place.mutex:
            return place.ownership.feed(records)

    def statistics(self) -> tuple[PartitionStatistics, ...]:
        """Of every partition that was ever assigned here, in order."""
        return tuple(self._statistics(partition, place) for partition, place in sorted(self._places.items()))

    def _statistics(self, partition: int, place: _Place) -> PartitionStatistics:
        with place.mutex:
            return PartitionStatistics(
                partition,
                place.ownership.phase,
                place.ownership.epoch,
                place.committed.offset,
                self.ends.get(partition, 0),
                decode_metadata(place.committed, partition=partition)[1].position,
                place.assignments,
                place.ledger_appends,
                place.documents_stored,
                place.documents_rejected,
                place.ownership.policies.version if place.ownership.policies else 0,
                place.ownership.rate,
                place.ownership.assembler.statistics(),
            )

    def holds(self, partition: int, undecided_bytes: int) -> None:
        """So many span bytes are undecided in a partition now; told here, because looking may have to wait."""
        self._places[partition].undecided_bytes = undecided_bytes

    def undecided_bytes(self) -> int:
        """Of all partitions together."""
        return sum(place.undecided_bytes for place in self._places.values())

    def is_ready(self) -> bool:
        """Every partition of ours is owned and reading."""
        owned = {number for number, place in self._places.items() if place.ownership.phase is Phase.OWNING}
        return self.expected <= owned and not self._draining

    def standing(self, trace_id: bytes) -> str | None:
        """`pending`, `dropped`, `kept`, or None: not known here. Implements interfaces.Standings."""
        place = self._places.get(partition_of(trace_id.hex().encode(), self.partition_count))
        if place is None:
            return None
        with place.mutex:
            return place.ownership.assembler.standing(trace_id)
