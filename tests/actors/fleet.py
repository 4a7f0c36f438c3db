"""Processes that share a log, a ledger and a store, and hand partitions over to each other; all in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

import trio

from spanloom.actors.context import Board, Orders, PartitionSettings, World
from spanloom.actors.partition import run_partition
from spanloom.adapters.memory import MemoryCache, MemoryLedger, MemoryLog, MemoryOutlet, MemoryStore
from spanloom.core.assembly import Limits
from spanloom.core.partitioning import partition_of
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Document, Message
from tests.spans import T0_MS, Sp, trace_id, traces_data


@dataclass
class Process:
    """One of them: what its actors show, and how to kill each."""

    board: Board
    world: World
    scopes: dict[int, trio.CancelScope] = field(default_factory=dict)
    ended: dict[int, trio.Event] = field(default_factory=dict)


class Fleet:
    """A number of partitions, and who owns them now."""

    def __init__(self, nursery: trio.Nursery, partition_count: int, settings: PartitionSettings) -> None:
        self.log = MemoryLog(partition_count)
        self.store = MemoryStore()
        self.owners: dict[int, Process] = {}
        self._nursery = nursery
        self._settings = settings
        self._ledger, self._outlet = MemoryLedger(partition_count), MemoryOutlet()
        self._numbers = count(1)

    def process(self) -> Process:
        """A new one, that owns nothing yet."""
        world = World(
            log=self.log,
            source=self.log,
            ledger=self._ledger,
            store=self.store,
            outlet=self._outlet,
            cache=MemoryCache(),
            uuid=lambda: next(self._numbers).to_bytes(16, "big"),
            random=lambda: 0.5,
            unix_s=lambda: T0_MS / 1000,
        )
        return Process(Board(self.log.partition_count), world)

    async def give(self, partition: int, process: Process) -> None:
        """As the group does: the owner drains and commits, then the other begins."""
        owner = self.owners.get(partition)
        if owner is process:
            return
        if owner is not None:
            owner.board.drain([partition])
            await owner.ended[partition].wait()
            owner.board.release(partition)
        self._begin(partition, process)

    async def kill(self, partition: int, successor: Process) -> None:
        """The owner is gone in the middle of what it did."""
        owner = self.owners[partition]
        owner.scopes[partition].cancel()
        await owner.ended[partition].wait()
        self._begin(partition, successor)

    def _begin(self, partition: int, process: Process) -> None:
        self.owners[partition] = process
        process.scopes[partition], process.ended[partition] = trio.CancelScope(), trio.Event()
        self._nursery.start_soon(self._own, partition, process)

    async def _own(self, partition: int, process: Process) -> None:
        with process.scopes[partition]:
            await run_partition(partition, process.world, self._settings, process.board)
        process.ended[partition].set()

    async def spread(self, processes: list[Process]) -> None:
        """Deal the partitions out to these, one at a time."""
        for partition in range(self.log.partition_count):
            await self.give(partition, processes[partition % len(processes)])

    async def send(self, *traces: Iterable[Sp]) -> None:
        """Append each as a record of its own, to the partition that its trace names."""
        batch = []
        for spans in map(list, traces):
            key = spans[0].trace_id.hex().encode()
            batch.append((partition_of(key, self.log.partition_count), Message(key, traces_data(spans))))
        await self.log.append(batch)

    def documents(self, trace: int | None = None) -> list[Document]:
        """What is stored, of one trace or of all, in order of what was decided first."""
        wanted = trace_id(trace).hex() if trace is not None else None
        found = [each for each in self.store._documents.values() if wanted in (None, each.trace_id)]
        return sorted(found, key=lambda each: int(str(each.verdict["stream_ns"])))


def settings_of(*policies: dict[str, object], limits: Limits, checkpoint_interval_s: float = 60.0) -> PartitionSettings:
    """Settings to judge by these."""
    orders = Orders(parse_policies(policies, version=1))
    return PartitionSettings(limits=limits, orders=orders, checkpoint_interval_s=checkpoint_interval_s)
