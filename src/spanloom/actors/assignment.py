"""The partitions that the group gives this process: an actor each, from assignment to revocation.

    Assigned  acknowledged, then an actor starts: it reads the last commit, fences, and goes on from there
    Revoked   the actors stop reading, finish what is decided and commit, within a budget; then they are cancelled,
              and only then the group hears that the partitions are free. What an actor still waits for is void.
    Lost      others have them already: the actors are cancelled, nothing is committed

What a cancelled actor did not finish its successor, wherever it runs, finds in the log and in the ledger.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog
import trio

from spanloom.actors.context import Board
from spanloom.actors.patience import RETRY_CAP_S, RETRY_FIRST_S
from spanloom.actors.supervisor import ChildSpec, Restart, supervise_one
from spanloom.core.backoff import Backoff
from spanloom.core.restart import RestartBudget
from spanloom.errors import Unavailable
from spanloom.interfaces import Membership
from spanloom.model import Assigned, Lost, PartitionChange, Revoked

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

RunPartition = Callable[..., Awaitable[None]]  # takes the partition, and `task_status`


@dataclass(frozen=True, slots=True)
class _Actor:
    """A partition at work."""

    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    ended: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True)
class Share:
    """What is needed to own partitions as the group has it."""

    membership: Membership
    run: RunPartition
    board: Board
    budget: RestartBudget
    drain_s: float  # what a partition gets to finish when it is revoked, or when we leave
    draw: Callable[[], float]  # in [0, 1), for back-off
    actors: dict[int, _Actor] = field(default_factory=dict)


async def own_share(
    share: Share, stopping: trio.Event, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Be a member until *stopping* is set; then finish what is decided, commit, leave, and return.

    Raises (inside exception groups) RestartIntensityExceeded; started anew, it joins again.
    """
    share.budget.refill()
    share.board.expect([])
    try:
        async with trio.open_nursery() as nursery:
            following = trio.CancelScope()
            nursery.start_soon(_cancel_when, stopping, following)
            task_status.started()
            with following:
                await _follow(share, nursery)
            await _release(share, list(share.actors))
            nursery.cancel_scope.cancel()
    finally:
        share.actors.clear()
        with trio.CancelScope(shield=True):
            await share.membership.leave()
    log.info("left the group")


async def _cancel_when(stopping: trio.Event, scope: trio.CancelScope) -> None:
    await stopping.wait()
    scope.cancel()


async def _follow(share: Share, nursery: trio.Nursery) -> None:
    """Join, and carry out each change the group makes."""
    backoff = Backoff(RETRY_FIRST_S, RETRY_CAP_S, share.draw)
    joined = False
    while True:
        try:
            if not joined:
                await share.membership.join()
                joined = True
            await _carry_out(share, await share.membership.next_change(), nursery)
        except Unavailable as away:
            log.warning("the group is away", why=str(away))
            await trio.sleep(backoff.next_delay_s())
        else:
            backoff.reset()


async def _carry_out(share: Share, change: PartitionChange, nursery: trio.Nursery) -> None:
    match change:
        case Assigned(partitions):
            await share.membership.acknowledge(change)
            log.info("partitions assigned", partitions=partitions)
            share.board.expect(share.board.expected | set(partitions))
            for partition in partitions:
                await _start(share, partition, nursery)
        case Revoked(partitions):
            log.info("partitions revoked", partitions=partitions)
            await _release(share, partitions)
            await share.membership.acknowledge(change)
        case Lost(partitions):
            log.warning("partitions lost", partitions=partitions)
            await _cancel(share, partitions)
            await share.membership.acknowledge(change)


async def _start(share: Share, partition: int, nursery: trio.Nursery) -> None:
    assert partition not in share.actors, f"partition {partition} is assigned twice"
    actor = share.actors[partition] = _Actor()
    await nursery.start(_work, share, partition, actor)


async def _work(share: Share, partition: int, actor: _Actor, *, task_status: trio.TaskStatus[None]) -> None:
    """One partition under supervision, until it is drained, given up or cancelled."""

    async def start(*, task_status: trio.TaskStatus[None]) -> None:
        await share.run(partition, task_status=task_status)

    child = ChildSpec(f"partition-{partition}", start, Restart.TRANSIENT)
    try:
        with actor.scope:
            await supervise_one(child, share.budget, draw=share.draw, task_status=task_status)
    finally:
        actor.ended.set()


async def _release(share: Share, partitions: Iterable[int]) -> None:
    """Let them finish what is decided and commit; whoever has not within the budget is cancelled."""
    wanted = [partition for partition in partitions if partition in share.actors]
    share.board.drain(wanted)
    with trio.move_on_after(share.drain_s) as budget:
        for partition in wanted:
            await share.actors[partition].ended.wait()
    if budget.cancelled_caught:
        log.warning("not drained in time", partitions=wanted, drain_s=share.drain_s)
    await _cancel(share, wanted)


async def _cancel(share: Share, partitions: Iterable[int]) -> None:
    """End the actors where they stand, and forget them."""
    for partition in [partition for partition in partitions if partition in share.actors]:
        actor = share.actors[partition]
        actor.scope.cancel()
        with trio.CancelScope(shield=True):
            await actor.ended.wait()
        del share.actors[partition]
        share.board.release(partition)
        share.board.expect(share.board.expected - {partition})
