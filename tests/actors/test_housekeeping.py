"""Retention deletes what is old and no longer needed, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import trio
import trio.testing

from spanloom.actors.housekeeping import RetentionSettings, keep_house, watch_lag
from spanloom.core.ledger import Decide, Fence, Tick, decode
from spanloom.errors import StoreUnavailable
from tests.actors.test_partition import Town, _holds, eventually
from tests.spans import T0_MS, Sp

DAY_S = 86_400


class Shed:
    """The memory adapters as a Retention."""

    def __init__(self, town: Town) -> None:
        self.town = town

    async def trim_log(self, *, older_than_ms: int, below: Mapping[int, int]) -> int:
        return await self.town.log.trim(older_than_ms=older_than_ms, below=below)

    async def trim_ledger(self, before_position: Mapping[int, int]) -> int:
        return await self.town.ledger.trim(before_position)

    async def trim_topic(self, topic: str, *, older_than_ms: int) -> int:
        return await self.town.outlet.trim(topic, older_than_ms=older_than_ms)

    async def drop_days_before(self, day: str) -> Sequence[str]:
        return await self.town.store.drop_days_before(day)


async def kinds(town: Town) -> list[type]:
    """The kinds of the ledger's records, in order."""
    reader = await town.ledger.read(0, 0)
    return [type(decode(r.body, partition=0, position=r.position)[1]) for r in await reader.receive()]


async def test_what_is_older_than_its_retention_goes(autojump_clock: trio.testing.MockClock) -> None:
    """After its retention a decision leaves the ledger; what a recovery needs and what is younger stays."""
    town = Town()
    settings = RetentionSettings(log_s=1500, store_s=2 * DAY_S, interval_s=60)
    town.settings = replace(town.settings, checkpoint_interval_s=600)
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _holds(town, {1: 1}))
        await trio.sleep(2000)
        await town.send(Sp(2, 1))
        await eventually(lambda: _holds(town, {2: 1}))
        before = await kinds(town)
        await trio.sleep(700)
        now_s = trio.current_time()
        town.world = replace(town.world, unix_s=lambda: now_s)
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_house, Shed(town), town.world, town.board, settings)
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
        after = await kinds(town)
    assert (before.count(Fence), before.count(Decide)) == (1, 2)
    assert (after.count(Fence), after.count(Decide), Tick in after) == (0, 1, True)
    assert await town.stored(1) == 1


async def test_a_young_ledger_is_left_alone(autojump_clock: trio.testing.MockClock) -> None:
    """While nothing is old nothing is deleted, the first FENCE included: a reader must know whose epoch it reads."""
    town = Town()
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _holds(town, {1: 1}))
        await trio.sleep(100)
        before = await kinds(town)
        town.world = replace(town.world, unix_s=lambda: T0_MS / 1000)
        async with trio.open_nursery() as nursery:
            settings = RetentionSettings(log_s=T0_MS, store_s=T0_MS / 1000 - 1)
            await nursery.start(keep_house, Shed(town), town.world, town.board, settings)
            await trio.sleep(30)
            nursery.cancel_scope.cancel()
        assert (await kinds(town))[: len(before)] == before


async def test_an_outage_only_delays_retention(autojump_clock: trio.testing.MockClock) -> None:
    """A store that is away when its old days should go is asked again later."""
    town = Town()
    asked: list[str] = []

    class Away(Shed):
        async def drop_days_before(self, day: str) -> Sequence[str]:
            asked.append(day)
            if len(asked) == 1:
                raise StoreUnavailable("away")
            return await super().drop_days_before(day)

    async with trio.open_nursery() as nursery:
        settings = RetentionSettings(log_s=DAY_S, store_s=DAY_S)
        await nursery.start(keep_house, Away(town), town.world, town.board, settings)
        await trio.sleep(70)
        nursery.cancel_scope.cancel()
    assert len(asked) == 2


async def test_the_lag_is_what_stands_in_the_log_unread(autojump_clock: trio.testing.MockClock) -> None:
    """The board learns the end of each partition's log within a second."""
    town = Town(partition_count=2)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch_lag, town.world, town.board)
        await town.send(*(Sp(n, 1) for n in range(1, 11)))
        await trio.sleep(2)
        nursery.cancel_scope.cancel()
    assert sum(town.board.ends.values()) == 10
