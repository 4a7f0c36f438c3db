"""The partition actor over the memory adapters: what it stores, commits and survives."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count

import trio
import trio.testing

from spanloom.actors.context import Board, Orders, PartitionSettings, World
from spanloom.actors.partition import run_partition
from spanloom.actors.supervisor import ChildSpec, supervise
from spanloom.adapters.memory import MemoryCache, MemoryLedger, MemoryLog, MemoryOutlet, MemoryStore
from spanloom.core.assembly import Limits
from spanloom.core.partitioning import partition_of
from spanloom.core.restart import RestartBudget
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import LedgerUnavailable, OutletUnavailable, StoreRejected, StoreUnavailable
from spanloom.model import DEAD_LETTERS, MOVED_HEADER, SAMPLING_DECISIONS, TRACES_COMPLETE, Document, Message
from tests.spans import T0_MS, Sp, trace_id, traces_data

KEEP_ALL: tuple[dict[str, object], ...] = (
    {"name": "all", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 100}},
)


@dataclass
class Faults:
    """Raises each planned error once, at the call and moment it is planned for."""

    planned: dict[str, list[Exception]] = field(default_factory=dict)

    async def __call__(self, moment: str) -> None:
        await trio.lowlevel.checkpoint()
        if self.planned.get(moment):
            raise self.planned[moment].pop(0)


class Town:
    """A world of memory adapters with `partition_count` partition actors in it."""

    def __init__(self, partition_count: int = 1) -> None:
        self.faults: dict[str, Faults] = {name: Faults() for name in ("log", "ledger", "store", "outlet")}
        self.log = MemoryLog(partition_count, faults=self.faults["log"])
        self.ledger = MemoryLedger(partition_count, faults=self.faults["ledger"])
        self.store = MemoryStore(faults=self.faults["store"])
        self.outlet = MemoryOutlet(faults=self.faults["outlet"])
        self.board = Board(partition_count)
        self.settings = PartitionSettings(limits=Limits(), orders=Orders(parse_policies(KEEP_ALL, version=1)))
        self.budget = RestartBudget(10, 60)
        numbers = count(1)
        self.world = World(
            log=self.log,
            source=self.log,
            ledger=self.ledger,
            store=self.store,
            outlet=self.outlet,
            cache=MemoryCache(),
            uuid=lambda: next(numbers).to_bytes(16, "big"),
            random=lambda: 0.5,
            unix_s=lambda: T0_MS / 1000,
        )

    def child(self, partition: int) -> ChildSpec:
        async def start(*, task_status: trio.TaskStatus[None]) -> None:
            await run_partition(partition, self.world, self.settings, self.board, task_status=task_status)

        return ChildSpec(f"partition-{partition}", start)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Supervised actors, until the block ends."""
        children = [self.child(partition) for partition in range(self.log.partition_count)]
        async with trio.open_nursery() as nursery:
            await nursery.start(supervise, children, self.budget)
            yield
            nursery.cancel_scope.cancel()

    async def send(self, *spans: Sp) -> None:
        """Append each span as a record of its own, keyed."""
        for span in spans:
            key = span.trace_id.hex().encode()
            partition = partition_of(key, self.log.partition_count)
            await self.log.append([(partition, Message(key, traces_data([span])))])

    async def stored(self, trace: int) -> int:
        """How many spans of trace number *trace* are in the store."""
        return sum(document.span_count for document in await self.store.read(trace_id(trace).hex()))

    def received(self) -> int:
        return sum(s.assembler.tally.received for s in self.board.statistics())


async def eventually(condition: Callable[[], Awaitable[bool]], within_s: float = 300) -> None:
    """Let the mock clock run until *condition* holds."""
    with trio.fail_after(within_s):
        while not await condition():  # noqa: ASYNC110 - the clock is a mock
            await trio.sleep(0.5)


async def test_a_trace_is_read_decided_stored_told_of_and_committed(autojump_clock: trio.testing.MockClock) -> None:
    """A trace laid into the log is in the store, on both topics, and below the committed offset, with no more input."""
    town = Town()
    async with town.at_work():
        await town.send(Sp(1, 1), Sp(1, 2, parent=1))
        await eventually(lambda: _holds(town, {1: 2}))
        await trio.sleep(3)
    assert (await town.log.committed(0)).offset == 2
    for topic in (TRACES_COMPLETE, SAMPLING_DECISIONS):
        assert [message.key for message in await town.outlet.read(topic, 0, 10)] == [trace_id(1).hex().encode()]


async def _holds(town: Town, spans: dict[int, int]) -> bool:
    return all([await town.stored(trace) == wanted for trace, wanted in spans.items()])


async def test_a_long_silence_before_a_trace_is_not_counted_as_its_own(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first trace after a long silence has its whole quiet period: the silence before it decides nothing."""
    town = Town()
    async with town.at_work():
        await trio.sleep(60)
        await town.send(Sp(1, 1))
        await trio.sleep(2)
        await town.send(Sp(1, 2, parent=1))
        await eventually(lambda: _holds(town, {1: 2}))
    assert len(await town.store.read(trace_id(1).hex())) == 1


async def test_a_store_that_is_away_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """An outage of the store restarts nobody and loses nothing: the same document is written once it is back."""
    town = Town()
    town.faults["store"].planned = {"write:before": [StoreUnavailable("away")] * 20}
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _holds(town, {1: 1}))
    assert town.budget.statistics().restarts == {}


async def test_an_ambiguous_ledger_write_that_was_applied_is_followed(autojump_clock: trio.testing.MockClock) -> None:
    """A DECIDE whose answer was lost but which is in the ledger is followed by the next assignment, not repeated."""
    town = Town()
    async with town.at_work():
        await town.send(Sp(1, 1), Sp(2, 1))
        await trio.sleep(3)
        town.faults["ledger"].planned = {"append:after": [LedgerUnavailable("no answer")] * 3}
        await eventually(lambda: _holds(town, {1: 1, 2: 1}))
        (statistics,) = town.board.statistics()
    assert statistics.assignments > 1
    assert len(await town.store.read(trace_id(1).hex())) == 1


async def test_a_crashed_actor_comes_back_alone(autojump_clock: trio.testing.MockClock) -> None:
    """A crash in one partition restarts its actor from the committed offset; the others go on untouched."""
    town = Town(partition_count=3)
    async with town.at_work():
        spans = [Sp(n, 1) for n in range(1, 20)]
        await town.send(*spans)
        town.faults["store"].planned = {"write:after": [RuntimeError("boom")]}
        await eventually(lambda: _holds(town, dict.fromkeys(range(1, 20), 1)))
        assignments = sorted(s.assignments for s in town.board.statistics())
    assert assignments == [1, 1, 2]
    assert sum(town.budget.statistics().restarts.values()) == 1


async def test_a_poison_record_is_dead_lettered_and_the_rest_goes_on(autojump_clock: trio.testing.MockClock) -> None:
    """Bytes that are no spans end in the dead letters with reason and place, even if those are away for a while."""
    town = Town()
    town.faults["outlet"].planned = {"publish:before": [OutletUnavailable("away")] * 5}
    async with town.at_work():
        await town.log.append([(0, Message(b"key", b"\x0a\xff\xff\xff\xff\x0fpoison"))])
        await town.send(Sp(1, 1))
        await eventually(lambda: _holds(town, {1: 1}))
        await trio.sleep(2)
        (statistics,) = town.board.statistics()
    (letter,) = await town.outlet.read(DEAD_LETTERS, 0, 10)
    headers = dict(letter.headers)
    assert letter.value == b"\x0a\xff\xff\xff\xff\x0fpoison"
    assert (headers["source-partition"], headers["source-offset"]) == (b"0", b"0")
    assert headers["reason"].startswith(b"truncated")
    assert statistics.assembler.tally.dead_lettered == 1
    assert (await town.log.committed(0)).offset == 2


async def test_misplaced_spans_end_in_their_own_partition(autojump_clock: trio.testing.MockClock) -> None:
    """Spans produced to a wrong partition are moved to the right one, marked, and stored from there once."""
    town = Town(partition_count=4)
    traces = range(1, 30)
    async with town.at_work():
        await town.log.append([(0, Message(None, traces_data([Sp(n, 1)]))) for n in traces])
        await eventually(lambda: _holds(town, dict.fromkeys(traces, 1)))
        tallies = [s.assembler.tally for s in town.board.statistics()]
    moved = sum(tally.moved for tally in tallies)
    assert moved == sum(partition_of(trace_id(n).hex().encode(), 4) != 0 for n in traces)
    assert sum(tally.received for tally in tallies) == len(traces) + moved
    reader = await town.log.read(1, 0)
    assert {name for record in await reader.receive() for name, _ in record.headers} == {MOVED_HEADER}


async def test_draining_commits_what_is_decided_and_returns(autojump_clock: trio.testing.MockClock) -> None:
    """A drained partition stores what it decided, commits past it, and its open traces stay for the next start."""
    town = Town()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_partition, 0, town.world, town.settings, town.board)
        await town.send(Sp(1, 1))
        await eventually(lambda: _holds(town, {1: 1}))
        await town.send(Sp(2, 1))
        await trio.sleep(0.2)
        town.board.drain([0])
    assert (await town.log.committed(0)).offset == 1
    again = Town()
    again.world = replace(town.world)
    again.log, again.store, again.settings = town.log, town.store, town.settings
    async with again.at_work():
        await eventually(lambda: _holds(again, {1: 1, 2: 1}))


async def test_too_many_undecided_bytes_are_decided_early(autojump_clock: trio.testing.MockClock) -> None:
    """Over the node's budget the oldest traces are decided at once, and counted as decided by pressure."""
    town = Town()
    town.settings = replace(town.settings, undecided_bytes_max=400)
    async with town.at_work():
        await town.send(*(Sp(n, 1) for n in range(1, 30)))
        await trio.sleep(3)
        (statistics,) = town.board.statistics()
    assert statistics.assembler.triggers[4] > 10
    assert statistics.assembler.undecided_bytes <= 400


async def test_what_others_decide_meanwhile_may_spare_an_early_decision(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Over the node's budget reading waits first; once there is room again nothing is decided early."""

    class Relieved(Board):
        def undecided_bytes(self) -> int:
            return 500 if trio.current_time() < relieved_at else 0

    relieved_at = trio.current_time() + 0.4
    town = Town()
    town.board = Relieved(town.board.partition_count)
    town.settings = replace(town.settings, undecided_bytes_max=400)
    async with town.at_work():
        await town.send(*(Sp(n, 1) for n in range(1, 5)))
        await trio.sleep(1)
        (statistics,) = town.board.statistics()
    assert statistics.assembler.triggers[4] == 0


async def test_a_document_the_store_refuses_is_dead_lettered(autojump_clock: trio.testing.MockClock) -> None:
    """What the store will never take goes to the dead letters, counted as such, and holds nothing up."""

    class PickyStore(MemoryStore):
        async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
            good = [document for document in documents if document.trace_id != trace_id(1).hex()]
            await super().write(good)
            return [StoreRejected(document.id, "not today") for document in documents if document not in good]

    town = Town()
    town.store = PickyStore()
    town.world = replace(town.world, store=town.store)
    async with town.at_work():
        await town.send(Sp(1, 1), Sp(2, 1))
        await eventually(lambda: _holds(town, {2: 1}))
        await trio.sleep(2)
        (statistics,) = town.board.statistics()
    (letter,) = await town.outlet.read(DEAD_LETTERS, 0, 10)
    assert dict(letter.headers)["reason"] == b"store: not today"
    assert (letter.key, letter.value) == (trace_id(1).hex().encode(), traces_data([Sp(1, 1)]))
    tally = statistics.assembler.tally
    assert (tally.stored, tally.dead_lettered, statistics.committed) == (1, 1, 2)


async def test_offsets_that_the_ledger_speaks_of_are_not_given_again(autojump_clock: trio.testing.MockClock) -> None:
    """A log that a power cut shortened below what was decided gives new records offsets beyond that, and goes on."""
    town = Town()
    async with town.at_work():
        await town.send(Sp(1, 1), Sp(1, 2, parent=1))
        await eventually(lambda: _holds(town, {1: 2}))
    town.log, town.board = MemoryLog(1), Board(1)
    town.world = replace(town.world, log=town.log, source=town.log)
    await town.send(Sp(1, 1))
    async with town.at_work():
        await trio.sleep(2)
        await town.send(Sp(2, 1))
        await eventually(lambda: _holds(town, {2: 1}))
    reader = await town.log.read(0, 1)
    assert [record.offset for record in await reader.receive()] == [2]
