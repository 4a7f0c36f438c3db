"""Group commit: who writes, who waits, what an error or a cancellation does."""

import random

import pytest
import trio
import trio.testing

from spanloom.adapters.coalescer import GROUP_BYTES_MAX, Coalescer
from spanloom.errors import LedgerUnavailable


class Disk:
    """Keeps what it is told to write, in groups; waits for `go` first, fails as told."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.go = trio.Event()
        self.failure: Exception | None = None

    async def flush(self, items: list[int]) -> None:
        """Write one group."""
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        self.groups.append(items)


async def submit(writes: Coalescer[int], item: int, size_bytes: int = 1) -> None:
    """Submit one item."""
    await writes.submit(item, size_bytes=size_bytes)


async def submit_all(writes: Coalescer[int], items: range, disk: Disk) -> None:
    """Submit each item from a task of its own, then let the disk go."""
    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(submit, writes, item)
        await trio.testing.wait_all_tasks_blocked()
        disk.go.set()


async def test_all_who_come_together_are_written_together() -> None:
    """Tasks that submit at the same moment share one group."""
    disk = Disk()
    writes = Coalescer(disk.flush, LedgerUnavailable)

    await submit_all(writes, range(10), disk)

    assert [sorted(group) for group in disk.groups] == [list(range(10))]


async def test_who_comes_during_a_write_is_written_next() -> None:
    """What arrives while a group is written makes one further group, led by one of those who wait."""
    disk = Disk()
    writes = Coalescer(disk.flush, LedgerUnavailable)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit, writes, 0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(submit_all, writes, range(1, 10), disk)

    assert [sorted(group) for group in disk.groups] == [[0], list(range(1, 10))]


async def test_a_group_is_bounded() -> None:
    """Large items are written in several groups; one above the bound goes alone."""
    disk = Disk()
    disk.go.set()
    writes = Coalescer(disk.flush, LedgerUnavailable)

    async with trio.open_nursery() as nursery:
        for item in range(5):
            nursery.start_soon(submit, writes, item, GROUP_BYTES_MAX // 2 + item % 2)

    assert sorted(item for group in disk.groups for item in group) == list(range(5))
    assert all(sum(GROUP_BYTES_MAX // 2 + item % 2 for item in group) <= GROUP_BYTES_MAX for group in disk.groups)


async def test_an_error_reaches_everyone_of_the_group_and_nobody_else() -> None:
    """All who shared the failed write learn of it; the next write goes through."""
    disk = Disk()
    writes = Coalescer(disk.flush, LedgerUnavailable)
    disk.failure = LedgerUnavailable("disk full")
    refused: list[int] = []

    async def be_refused(item: int) -> None:
        with pytest.raises(LedgerUnavailable, match="disk full"):
            await submit(writes, item)
        refused.append(item)

    async with trio.open_nursery() as nursery:
        for item in range(5):
            nursery.start_soon(be_refused, item)
        await trio.testing.wait_all_tasks_blocked()
        disk.go.set()
    disk.failure = None
    await submit(writes, 5)

    assert sorted(refused) == list(range(5))
    assert disk.groups == [[5]]


async def test_a_bug_in_the_write_kills_its_leader_and_leaves_nobody_waiting() -> None:
    """An error nobody foresaw reaches the leader as it is, the others as Unavailable."""
    disk = Disk()
    writes = Coalescer(disk.flush, LedgerUnavailable)
    disk.failure = ZeroDivisionError("bug")
    disk.go.set()
    errors: list[str] = []

    async def fail(item: int) -> None:
        try:
            await submit(writes, item)
        except (ZeroDivisionError, LedgerUnavailable) as error:
            errors.append(type(error).__name__)

    async with trio.open_nursery() as nursery:
        for item in range(3):
            nursery.start_soon(fail, item)

    assert sorted(errors) == ["LedgerUnavailable", "LedgerUnavailable", "ZeroDivisionError"]
    disk.failure = None
    await submit(writes, 3)
    assert disk.groups == [[3]]


async def test_a_cancelled_follower_withdraws_what_was_not_taken() -> None:
    """An item whose submitter gave up before its write began is not written; the others are."""
    disk = Disk()
    writes = Coalescer(disk.flush, LedgerUnavailable)
    impatient = trio.CancelScope()

    async def give_up() -> None:
        with impatient:
            await submit(writes, 1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(submit, writes, 0)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(submit, writes, 2)
        await trio.testing.wait_all_tasks_blocked()
        impatient.cancel()
        await trio.testing.wait_all_tasks_blocked()
        disk.go.set()

    assert disk.groups == [[0], [2]]


async def test_a_cancelled_leader_still_writes_for_the_others() -> None:
    """Cancelling whoever leads does not undo the group."""
    disk = Disk()
    writes = Coalescer(disk.flush, LedgerUnavailable)

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(submit_all, writes, range(1, 4), disk)
            nursery.start_soon(cancel_when_blocked, scope)
            await submit(writes, 0)

    assert sorted(item for group in disk.groups for item in group) == [0, 1, 2, 3]


async def cancel_when_blocked(scope: trio.CancelScope) -> None:
    """Cancel *scope* while all others wait, before the disk goes."""
    await trio.testing.wait_all_tasks_blocked(0.0)
    scope.cancel()


@pytest.mark.parametrize("seed", range(50))
async def test_cancellation_at_any_moment_never_stops_the_others(seed: int) -> None:
    """However submitters are cancelled, whoever was not has been written, once, and the queue goes on."""
    chance = random.Random(seed)
    written: list[int] = []

    async def flush(items: list[int]) -> None:
        for _ in range(chance.randrange(3)):
            await trio.lowlevel.checkpoint()
        written.extend(items)

    writes = Coalescer(flush, LedgerUnavailable)
    acknowledged: list[int] = []

    async def submit_until(scope: trio.CancelScope, item: int) -> None:
        with scope:
            await submit(writes, item)
            acknowledged.append(item)

    async def cancel(scope: trio.CancelScope) -> None:
        for _ in range(chance.randrange(12)):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async with trio.open_nursery() as nursery:
        for item in range(30):
            scope = trio.CancelScope()
            nursery.start_soon(submit_until, scope, item)
            if item % 3:
                nursery.start_soon(cancel, scope)
    await submit(writes, 99)

    assert len(written) == len(set(written))
    assert set(acknowledged) <= set(written)
    assert set(range(0, 30, 3)) <= set(acknowledged)
