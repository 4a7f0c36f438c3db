"""Feeding in worker threads: the same promises, and nobody touches a state machine that a thread has."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import trio
import trio.testing

from spanloom.actors.context import Board
from spanloom.actors.partition import THREAD_RECORDS_MIN, Assignment
from spanloom.core.assembly import Harvest, Limits
from spanloom.core.ownership import Ownership
from spanloom.model import Committed, Record
from tests.actors.test_partition import Town
from tests.spans import Sp, trace_id

MS = 1_000_000
QUICK = Limits(quiet_ns=20 * MS, idle_ns=40 * MS, age_max_ns=400 * MS)
TRACES = 3 * THREAD_RECORDS_MIN


class SlowOwnership:
    """Feeds until it is let go."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()

    def feed(self, records: Sequence[Record]) -> Harvest:
        self.began.set()
        assert self.may_end.wait(10)
        return Harvest(decisions=(b"%d" % len(records),))


async def test_partitions_fed_in_threads_lose_nothing_whoever_looks_meanwhile() -> None:
    """Large batches of two partitions, statistics and standings asked for all the time: every span is stored once."""
    town = Town(2)
    town.world = replace(town.world, threads=trio.CapacityLimiter(2))
    town.settings = replace(town.settings, limits=QUICK, tick_after_s=0.05, commit_interval_s=0.01)
    for trace in range(TRACES):
        await town.send(Sp(trace, 1), Sp(trace, 2, parent=1))
    with trio.fail_after(60):
        async with town.at_work():
            while sum(s.assembler.tally.stored for s in town.board.statistics()) < 2 * TRACES:
                assert town.board.standing(trace_id(1)) in (None, "pending", "kept")
                await trio.lowlevel.checkpoint()
    assert [await town.stored(trace) for trace in range(TRACES)] == [2] * TRACES
    assert town.received() == 2 * TRACES


async def test_a_thread_that_feeds_is_waited_for_even_when_cancelled() -> None:
    """Cancelled amid a feed, the actor ends only after it; who needs the state machine waits for it too."""
    town, slow = Town(), SlowOwnership()
    world = replace(town.world, threads=trio.CapacityLimiter(1))
    board, ownership = Board(1), cast(Ownership, slow)
    board.assigned(0, ownership, Committed(0, b""))
    assignment = Assignment(0, world, town.settings, board, ownership)
    ends: list[str] = []

    async def feed(scope: trio.CancelScope) -> None:
        with scope:
            harvest = await assignment.feed([Record(0, 0, None, b"")] * THREAD_RECORDS_MIN)
            ends.append(f"fed {harvest.decisions[0].decode()}")

    async def rest() -> None:
        await assignment.at_rest()
        ends.append("at rest")

    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()
        nursery.start_soon(feed, scope)
        await trio.to_thread.run_sync(slow.began.wait)
        nursery.start_soon(rest)
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert ends == []
        slow.may_end.set()
    assert sorted(ends) == ["at rest", f"fed {THREAD_RECORDS_MIN}"]
