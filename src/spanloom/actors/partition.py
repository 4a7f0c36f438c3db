"""Owns one partition: read, assemble, decide, log the verdict, store, commit; in that order, for ever.

Four tasks share an assignment's state machine: one feeds records and appends what was decided, one follows the ledger
and hands on what comes back, one stores, one commits. A crash of any ends them all, and the next assignment resumes at
the committed offset. An outage is no crash: reads and idempotent writes are tried again for as long as it takes; after
doubt about a ledger write, or a fence, a new assignment begins (design, section 6).

Where there are worker threads a large batch is fed in one: it holds no GIL, so that several partitions use several
cores. Until it comes back no task touches the state machine (`Assignment.at_rest`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from spanloom.actors.context import Board, PartitionSettings, World
from spanloom.actors.patience import RETRY_CAP_S, RETRY_FIRST_S, patiently
from spanloom.actors.writer import receive_bulk, write_bulk
from spanloom.core import kernel
from spanloom.core.assembly import Harvest, Move, Reject
from spanloom.core.backoff import Backoff
from spanloom.core.failpoints import Failpoint
from spanloom.core.ledger import NO_OFFSET
from spanloom.core.ownership import Ownership, Phase
from spanloom.core.partitioning import partition_of
from spanloom.core.sampling.policies import PolicySet
from spanloom.errors import Fenced, RecordsDeleted, Unavailable
from spanloom.interfaces import LedgerReader, PartitionReader
from spanloom.model import DEAD_LETTERS, MOVED_HEADER, SPANS, Fragment, Message, Record

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

NS_PER_S = 1_000_000_000
THREAD_RECORDS_MIN = 200  # a hop to a thread and back costs 0.1 ms, so many records twice that or more
DEADLY = "deadly: the process died each time while this record was fed"


@dataclass(slots=True)
class Assignment:
    """What the tasks of one assignment share."""

    partition: int
    world: World
    settings: PartitionSettings
    board: Board
    ownership: Ownership
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    is_lent: bool = False  # to a worker thread
    returned: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def at_rest(self) -> None:
        """Wait until no thread has the state machine: the caller has it to itself until it waits again."""
        await trio.lowlevel.checkpoint()
        while self.is_lent:
            await self.returned.park()

    async def feed(self, records: Sequence[Record]) -> Harvest:
        """Feed records, wherever that is best. Once begun it cannot be cancelled: the batch is fed whole."""
        await trio.lowlevel.checkpoint()
        threads = self.world.threads
        if threads is None or len(records) < THREAD_RECORDS_MIN:
            return self.ownership.feed(records)
        self.is_lent = True
        try:
            return await trio.to_thread.run_sync(self.board.feed_alone, self.partition, records, limiter=threads)
        finally:
            self.is_lent = False
            self.returned.unpark_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until *condition* holds; it is looked at whenever something came back or was resolved."""
        await trio.lowlevel.checkpoint()
        while not condition():
            await self.changed.park()


async def run_partition(
    partition: int,
    world: World,
    settings: PartitionSettings,
    board: Board,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Own *partition*, one assignment after another.

    Returns once the board drains it and all decided is committed, or once the partition is somebody else's.
    """
    task_status.started()
    backoff = Backoff(RETRY_FIRST_S, RETRY_CAP_S, world.random)
    # Who comes back from a crash may have been away for long: it asks first, as one does that was fenced.
    is_ours = not board.has_been_assigned(partition) or await _may_commit(partition, world)
    while is_ours and not board.is_draining(partition):
        try:
            await _own(partition, world, settings, board)
        except* Unavailable as away:
            log.warning("assignment given up", partition=partition, why=str(away.exceptions[0]))
        except* Fenced as fenced:
            log.warning("fenced", partition=partition, why=str(fenced.exceptions[0]))
            is_ours = await _may_commit(partition, world)
        else:
            backoff.reset()
        if not board.is_draining(partition):
            await trio.sleep(backoff.next_delay_s())


async def _may_commit(partition: int, world: World) -> bool:
    """Whether we may fence again: who cannot commit was away, and must not push the new owner out. Ends the actor."""

    async def commit_again() -> None:
        await world.source.commit(partition, await world.source.committed(partition))

    try:
        await patiently(commit_again, draw=world.random, partition=partition, what="commit")
    except Fenced as lost:
        log.warning("partition lost", partition=partition, why=str(lost))
        return False
    return True


async def _own(partition: int, world: World, settings: PartitionSettings, board: Board) -> None:
    """One assignment, from the ledger's word to its end."""
    assembler = kernel.Assembler(settings.limits, partition=partition, partition_count=board.partition_count)
    committed = await world.source.committed(partition)
    ownership = Ownership(partition, committed, assembler, owner=world.uuid(), limits=settings.limits)
    board.assigned(partition, ownership, committed)
    assignment = Assignment(partition, world, settings, board, ownership)
    reader = await world.ledger.read(partition, ownership.recall_from.position)
    try:
        await _take_over(assignment, reader)
        await _reserve(assignment)
        board.took_over()
        log.info("assigned", partition=partition, epoch=ownership.epoch, committed=committed.offset)
        await _work(assignment, reader)
    finally:
        with trio.CancelScope(shield=True):
            await reader.aclose()


async def _take_over(assignment: Assignment, reader: LedgerReader) -> None:
    """Read the ledger to its end, fence, and read on until our fence is the first of its epoch."""
    world, ownership, partition = assignment.world, assignment.ownership, assignment.partition
    end = await world.ledger.end(partition)
    position = ownership.recall_from.position
    while position < end:
        for record in await reader.receive():
            ownership.read_back(record)
            position = record.position + 1
    world.failpoint(Failpoint.BEFORE_FENCE)
    await world.ledger.append(partition, [ownership.fence()])
    world.failpoint(Failpoint.FENCE_APPENDED)
    while ownership.phase is not Phase.OWNING:
        for record in await reader.receive():
            ownership.read_back(record)
        if ownership.is_outbid:
            await world.ledger.append(partition, [ownership.fence()])


async def _reserve(assignment: Assignment) -> None:
    """The ledger may know records that a power cut took from the log: their offsets are not given to others."""
    source, partition, needed = assignment.world.source, assignment.partition, assignment.ownership.spoken_of
    end = await source.end_offset(partition)
    if end < needed:
        log.error("the log ends before what the ledger speaks of", partition=partition, end=end, ledger=needed)
        await source.reserve(partition, needed)
    assignment.board.ends[partition] = max(end, needed)


async def _work(assignment: Assignment, reader: LedgerReader) -> None:
    """Run the four tasks until the board drains; then let what is decided reach the store, and commit."""
    queue = assignment.settings.store_queue_max
    to_store, from_ledger = trio.open_memory_channel[Fragment](queue)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_follow_ledger, assignment, reader, to_store)
        nursery.start_soon(_store, assignment, from_ledger)
        nursery.start_soon(_commit_for_ever, assignment)
        await _read(assignment, to_store)
        assembler = assignment.ownership.assembler
        await assignment.until(lambda: assignment.ownership.is_settled and not assembler.storing_bytes)
        nursery.cancel_scope.cancel()
    await _commit(assignment)


async def _follow_ledger(
    assignment: Assignment, reader: LedgerReader, to_store: trio.MemorySendChannel[Fragment]
) -> None:
    """Read back what was appended: only now it takes effect."""
    while True:
        for record in await reader.receive():
            await assignment.at_rest()
            for fragment in assignment.ownership.read_back(record):
                try:  # to wait is a turn of all tasks, for each kept trace
                    to_store.send_nowait(fragment)
                except trio.WouldBlock:
                    await to_store.send(fragment)
        assignment.changed.unpark_all()


async def _store(assignment: Assignment, fragments: trio.MemoryReceiveChannel[Fragment]) -> None:
    """Store kept fragments in bulks; resolve them."""
    ownership = assignment.ownership
    while True:
        bulk = await receive_bulk(fragments, assignment.settings.bulk_bytes)
        outcomes = await write_bulk(
            bulk, assignment.world, partition=assignment.partition, policy_names=ownership.policy_names
        )
        await assignment.at_rest()
        for fragment, outcome in zip(bulk, outcomes, strict=True):
            ownership.assembler.resolve(fragment.decision, outcome)
        assignment.world.failpoint(Failpoint.BEFORE_COMMIT)
        stored = outcomes.count("stored")
        assignment.board.wrote(assignment.partition, stored=stored, rejected=len(outcomes) - stored)
        assignment.changed.unpark_all()


async def _commit_for_ever(assignment: Assignment) -> None:
    while True:
        await trio.sleep(assignment.settings.commit_interval_s)
        await _commit(assignment)


async def _commit(assignment: Assignment) -> None:
    await assignment.at_rest()
    committed, world, partition = assignment.ownership.commit(), assignment.world, assignment.partition
    await patiently(
        lambda: world.source.commit(partition, committed), draw=world.random, partition=partition, what="commit"
    )
    world.failpoint(Failpoint.COMMITTED)
    assignment.board.committed(partition, committed)


# Reading.


async def _read(assignment: Assignment, to_store: trio.MemorySendChannel[Fragment]) -> None:
    """Feed records, keep stream time going while there are none, write checkpoints; until the board drains."""
    ownership, settings = assignment.ownership, assignment.settings
    await _append(assignment, ownership.checkpoint(_policies_due(assignment)))
    checkpoint_at = trio.current_time() + settings.checkpoint_interval_s
    idle = _Idle(settings.tick_after_s)
    reader = await assignment.world.source.read(assignment.partition, ownership.offset)
    try:
        while not assignment.board.is_draining(assignment.partition):
            await assignment.until(lambda: _has_room(assignment))
            records, reader = await _receive(assignment, reader, idle, to_store)
            if records:
                if ownership.offset == ownership.start:
                    log.info("first records", partition=assignment.partition, epoch=ownership.epoch)
                await _feed(assignment, records, to_store)
            await _tick_if_idle(assignment, idle, to_store)
            await _shed_if_full(assignment, to_store)
            if trio.current_time() >= checkpoint_at or _policies_due(assignment) is not ownership.policies:
                await _append(assignment, ownership.checkpoint(_policies_due(assignment)))
                checkpoint_at = trio.current_time() + settings.checkpoint_interval_s
            await _bend_if_due(assignment)
    finally:
        with trio.CancelScope(shield=True):
            await reader.aclose()


async def _feed(assignment: Assignment, records: Sequence[Record], to_store: trio.MemorySendChannel[Fragment]) -> None:
    """Feed records; one by one, each announced in the ledger, where one of them may have killed the lives before."""
    ownership = assignment.ownership
    if not ownership.is_careful:
        await _reap(assignment, await assignment.feed(records), to_store)
        return
    log.warning("reading record by record", partition=assignment.partition, offset=records[0].offset)
    for record in records:
        feed = partial(ownership.feed, [record])
        # Whoever is killed often, and for other reasons, has announced innocent records: they are heard before.
        if ownership.is_accused(record.offset) and not await assignment.world.survives(feed):
            await _publish_letter(assignment, record, DEADLY)
            await _append(assignment, ownership.condemn(record.offset, DEADLY))
            await assignment.until(lambda: ownership.is_settled)
        else:
            await _append(assignment, ownership.probe(record.offset))
        harvest = feed()
        await _append(assignment, ownership.probe(NO_OFFSET))
        await _reap(assignment, harvest, to_store)


def _policies_due(assignment: Assignment) -> PolicySet:
    """The process's policies, or the ledger's where those are of a higher version: an owner before us knew more."""
    orders, ledger = assignment.settings.orders, assignment.ownership.policies
    ordered = orders.policies
    if ledger is None or ledger.version < ordered.version:
        return ordered
    if (ledger.version, ledger.body) != (ordered.version, ordered.body):
        orders.report(ledger)
    return ledger


async def _bend_if_due(assignment: Assignment) -> None:
    """Let the rate that the process's load leaves hold from here on; what is decided stands in the ledger before it."""
    ownership, orders = assignment.ownership, assignment.settings.orders
    if ownership.rate != orders.rate:
        await _append(assignment, ownership.bend(orders.rate, orders.cause))


def _has_room(assignment: Assignment) -> bool:
    """Not too much is decided and waiting: what comes next would only wait in memory instead of in the log."""
    settings, ownership = assignment.settings, assignment.ownership
    return (
        ownership.unsettled <= settings.unsettled_max
        and ownership.assembler.storing_bytes <= settings.storing_bytes_max
    )


@dataclass(slots=True)
class _Idle:
    """How long stream time has stood while we waited for records; time spent working or held back does not count."""

    tick_after_s: float
    waited_s: float = 0.0
    stream_ns: int = -1

    def waited(self, duration_s: float, stream_ns: int) -> None:
        self.waited_s = self.waited_s + duration_s if stream_ns == self.stream_ns else duration_s
        self.stream_ns = stream_ns


async def _receive(
    assignment: Assignment, reader: PartitionReader, idle: _Idle, to_store: trio.MemorySendChannel[Fragment]
) -> tuple[Sequence[Record], PartitionReader]:
    """The next records, none if none came for a while; and the reader to go on with."""
    began = trio.current_time()
    records: Sequence[Record] = ()
    try:
        with trio.move_on_after(idle.tick_after_s):
            records = await reader.receive()
    except RecordsDeleted as gap:
        log.error("records deleted unread", partition=gap.partition, wanted=gap.wanted, earliest=gap.earliest)
        await reader.aclose()
        await _reap(assignment, assignment.ownership.jump(gap.earliest), to_store)
        reader = await assignment.world.source.read(assignment.partition, gap.earliest)
    idle.waited(trio.current_time() - began, assignment.ownership.assembler.stream_ns)
    return records, reader


async def _tick_if_idle(assignment: Assignment, idle: _Idle, to_store: trio.MemorySendChannel[Fragment]) -> None:
    """Log a TICK once the time waited makes a trace due; nothing is read until it is read back and takes effect."""
    ownership = assignment.ownership
    assembler = ownership.assembler
    deadline = assembler.next_deadline()
    if idle.waited_s < idle.tick_after_s or deadline is None:
        return
    if idle.stream_ns != assembler.stream_ns:
        return  # the wait has ended with records that moved stream time: it lies before them, not after
    now_ns = assembler.stream_ns + int(idle.waited_s * NS_PER_S)
    if now_ns < deadline or not ownership.may_tick:
        return
    await _append(assignment, ownership.tick(now_ns))
    assignment.world.failpoint(Failpoint.TICK_APPENDED)
    await assignment.until(lambda: ownership.is_settled)
    await _reap(assignment, ownership.advance(now_ns), to_store)


async def _shed_if_full(assignment: Assignment, to_store: trio.MemorySendChannel[Fragment]) -> None:
    """The node holds more undecided bytes than it may: read nothing for a while, then decide our oldest traces.

    What other partitions decide meanwhile may be enough. Else down to a part of our share, so that there is room for
    what comes: at the very share each further record would stop reading again.
    """
    most, board = assignment.settings.undecided_bytes_max, assignment.board
    if board.undecided_bytes() <= most:
        return
    await trio.sleep(assignment.settings.hold_s)
    if (held := board.undecided_bytes()) > most:
        log.warning("deciding early", partition=assignment.partition, undecided_bytes=held, most=most)
        share = most * 3 // 4 // board.expected_count
        await _reap(assignment, assignment.ownership.assembler.shed(share), to_store)


async def _reap(assignment: Assignment, harvest: Harvest, to_store: trio.MemorySendChannel[Fragment]) -> None:
    """Carry out what a call to the assembler brought forth."""
    assignment.board.holds(assignment.partition, assignment.ownership.assembler.undecided_bytes)
    decided = assignment.ownership.decide(harvest)
    if decided:
        assignment.world.failpoint(Failpoint.BEFORE_DECIDE)
        await _append(assignment, decided)
        assignment.world.failpoint(Failpoint.DECIDE_APPENDED)
    for fragment in harvest.fragments:
        await to_store.send(fragment)
    for reject in harvest.rejects:
        await _dead_letter(assignment, reject)
    for move in harvest.moves:
        await _move(assignment, move)


async def _move(assignment: Assignment, move: Move) -> None:
    """Produce misplaced spans to the partitions that their trace ids name."""
    world, partition = assignment.world, assignment.partition
    batch = []
    for trace_id, part in move.parts:
        key = trace_id.hex().encode()
        target = partition_of(key, world.log.partition_count, hashes=kernel.hashes)
        batch.append((target, Message(key, part, ((MOVED_HEADER, b"1"),))))
    log.warning(
        "moving spans: key them by trace id, 32 hex digits, murmur2 (`partition_traces_by_id: true`)",
        topic=SPANS,
        partition=partition,
        offset=move.offset,
        traces=len(batch),
    )
    await patiently(lambda: world.log.append(batch), draw=world.random, partition=partition, what="move")
    world.failpoint(Failpoint.MOVE_APPENDED)
    assignment.ownership.assembler.moved(move.offset)


async def _append(assignment: Assignment, bodies: list[bytes]) -> None:
    """Append to the ledger. A failure leaves the outcome unknown: the assignment ends, a new one fences and looks."""
    if bodies:
        await assignment.world.ledger.append(assignment.partition, bodies)
        assignment.board.appended(assignment.partition, len(bodies))


async def _dead_letter(assignment: Assignment, reject: Reject) -> None:
    """Keep the bytes of a record that cannot be read; only then say so in the ledger."""
    await _publish_letter(assignment, reject.record, reject.reason)
    await _append(assignment, assignment.ownership.skip(reject.record.offset, reject.reason))


async def _publish_letter(assignment: Assignment, record: Record, reason: str) -> None:
    world, partition = assignment.world, assignment.partition
    headers = (
        ("reason", reason.encode()),
        ("source-topic", SPANS.encode()),
        ("source-partition", str(partition).encode()),
        ("source-offset", str(record.offset).encode()),
    )
    message = Message(record.key, record.value, headers + record.headers)
    log.error("dead letter", topic=SPANS, partition=partition, offset=record.offset, reason=reason)
    await patiently(
        lambda: world.outlet.publish(DEAD_LETTERS, [message]),
        draw=world.random,
        partition=partition,
        what="dead letter",
    )
    world.failpoint(Failpoint.BEFORE_SKIP)
