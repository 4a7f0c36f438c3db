"""Partitions that come and go: actors start, drain and end as the group says."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from spanloom.actors.assignment import Share, own_share
from spanloom.actors.context import Board
from spanloom.core.restart import RestartBudget
from spanloom.errors import RestartIntensityExceeded, SourceUnavailable
from spanloom.model import Assigned, Lost, PartitionChange, Revoked

DRAIN_S = 5.0


class FakeGroup:
    """Implements interfaces.Membership: the test says what the group does, and sees what it hears."""

    def __init__(self) -> None:
        self.changes: list[PartitionChange] = []
        self.heard: list[str | PartitionChange] = []
        self.away = 0  # joins that fail first
        self._more = trio.lowlevel.ParkingLot()

    def change(self, change: PartitionChange) -> None:
        self.changes.append(change)
        self._more.unpark_all()

    async def join(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            self.away -= 1
            raise SourceUnavailable("no broker")
        self.heard.append("join")

    async def next_change(self) -> PartitionChange:
        await trio.lowlevel.checkpoint()
        while not self.changes:
            await self._more.park()
        return self.changes[0]

    async def acknowledge(self, change: PartitionChange) -> None:
        await trio.lowlevel.checkpoint()
        assert change == self.changes.pop(0)
        self.heard.append(change)

    async def leave(self) -> None:
        await trio.lowlevel.checkpoint()
        self.heard.append("leave")


@dataclass
class Office:
    """A group, and partitions whose actors do what the test says."""

    finish_s: float = 1.0  # what a drained actor needs
    group: FakeGroup = field(default_factory=FakeGroup)
    board: Board = field(default_factory=lambda: Board(8))
    budget: RestartBudget = field(default_factory=lambda: RestartBudget(2, 60))
    stopping: trio.Event = field(default_factory=trio.Event)
    events: list[str] = field(default_factory=list)
    crash: Callable[[int], bool] = lambda _: False

    async def run(self, partition: int, *, task_status: trio.TaskStatus[None]) -> None:
        """Stands in for run_partition."""
        task_status.started()
        self.events.append(f"start {partition}")
        try:
            while not self.board.is_draining(partition):
                if self.crash(partition):
                    raise ZeroDivisionError
                await trio.sleep(0.1)
            await trio.sleep(self.finish_s)
            self.events.append(f"done {partition}")
        except trio.Cancelled:
            self.events.append(f"cancelled {partition}")
            raise

    def share(self) -> Share:
        return Share(self.group, self.run, self.board, self.budget, drain_s=DRAIN_S, draw=lambda: 0.5)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with trio.open_nursery() as nursery:
            await nursery.start(own_share, self.share(), self.stopping)
            yield
            self.stopping.set()


async def test_assigned_partitions_get_an_actor_each(autojump_clock: trio.testing.MockClock) -> None:
    """The group hears that they are taken, an actor starts for each, and the board expects them."""
    office = Office()
    async with office.open():
        office.group.change(Assigned((2, 5)))
        office.group.change(Assigned(()))
        office.group.change(Assigned((6,)))
        await trio.sleep(1)
        assert office.events == ["start 2", "start 5", "start 6"]
        assert office.board.expected == {2, 5, 6}


async def test_a_revoked_partition_is_given_back_only_once_it_is_drained(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its actor finishes first, then the group hears of it; the other partitions never notice."""
    office = Office()
    async with office.open():
        office.group.change(Assigned((2, 5)))
        await trio.sleep(1)
        office.group.change(Revoked((5,)))
        await trio.sleep(0.5)
        assert Revoked((5,)) not in office.group.heard
        await trio.sleep(1)
        assert office.group.heard[-1] == Revoked((5,))
        assert office.events == ["start 2", "start 5", "done 5"]
        assert office.board.expected == {2}


async def test_a_partition_that_does_not_drain_in_time_is_cancelled(autojump_clock: trio.testing.MockClock) -> None:
    """After the budget its actor ends where it stands, and the group hears of it all the same."""
    office = Office(finish_s=100)
    async with office.open():
        office.group.change(Assigned((2,)))
        await trio.sleep(1)
        began = trio.current_time()
        office.group.change(Revoked((2,)))
        while Revoked((2,)) not in office.group.heard:  # noqa: ASYNC110 - the clock is a mock
            await trio.sleep(0.1)
        assert DRAIN_S <= trio.current_time() - began < DRAIN_S + 1
        assert office.events == ["start 2", "cancelled 2"]


async def test_a_lost_partition_is_cancelled_at_once(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is drained: the partition is somebody else's."""
    office = Office()
    async with office.open():
        office.group.change(Assigned((2, 3)))
        await trio.sleep(1)
        office.group.change(Lost((2,)))
        await trio.sleep(0.05)
        assert office.events == ["start 2", "start 3", "cancelled 2"]
        assert office.group.heard[-1] == Lost((2,))


async def test_a_partition_may_come_back(autojump_clock: trio.testing.MockClock) -> None:
    """Assigned again after it was revoked, it gets a new actor that does not drain."""
    office = Office()
    async with office.open():
        for change in (Assigned((2,)), Revoked((2,)), Assigned((2,))):
            office.group.change(change)
            await trio.sleep(3)
        assert office.events == ["start 2", "done 2", "start 2"]


async def test_a_member_that_stops_drains_everything_and_leaves(autojump_clock: trio.testing.MockClock) -> None:
    """All actors finish, then the group hears that we leave; nothing is cancelled."""
    office = Office()
    async with office.open():
        office.group.change(Assigned((1, 2, 3)))
        await trio.sleep(1)
    assert sorted(office.events[3:]) == ["done 1", "done 2", "done 3"]
    assert office.group.heard[-1] == "leave"


async def test_a_member_that_stops_in_the_middle_of_a_revocation_leaves_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Being told to stop while a partition drains loses neither that partition's commit nor the others'."""
    office = Office()
    async with office.open():
        office.group.change(Assigned((1, 2)))
        await trio.sleep(1)
        office.group.change(Revoked((1,)))
        await trio.sleep(0.5)
    assert sorted(office.events[2:]) == ["done 1", "done 2"]
    assert office.group.heard[-1] == "leave"


async def test_a_crashed_actor_is_restarted_alone(autojump_clock: trio.testing.MockClock) -> None:
    """One crash costs one restart of one partition; the membership stays as it was."""
    crashes = iter([False, True])
    office = Office(crash=lambda partition: partition == 2 and next(crashes, False))
    async with office.open():
        office.group.change(Assigned((1, 2)))
        await trio.sleep(3)
        assert office.events == ["start 1", "start 2", "start 2"]
        assert office.group.heard == ["join", Assigned((1, 2))]


async def test_a_spent_restart_budget_ends_the_membership(autojump_clock: trio.testing.MockClock) -> None:
    """Too many crashes: every actor ends, the group is left so that others take over, and the parent decides."""
    office = Office(crash=lambda partition: partition == 2)
    with pytest.RaisesGroup(pytest.RaisesExc(RestartIntensityExceeded), flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            await nursery.start(own_share, office.share(), office.stopping)
            office.group.change(Assigned((1, 2)))
    assert "cancelled 1" in office.events
    assert office.group.heard[-1] == "leave"


async def test_a_group_that_is_away_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """Joining is tried again until it succeeds."""
    office = Office()
    office.group.away = 3
    async with office.open():
        office.group.change(Assigned((1,)))
        await trio.sleep(10)
        assert office.group.heard == ["join", Assigned((1,))]
