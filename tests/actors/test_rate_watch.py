"""Load moves the rate that this process's partitions bend their policies by."""

import trio
import trio.testing

from spanloom.actors.context import Orders
from spanloom.actors.rate_watch import watch_rate
from spanloom.core.ledger import Rate, decode
from spanloom.core.sampling.adaptive import BendRule, Cause, LoadSample
from spanloom.core.sampling.written import parse_policies
from tests.actors.test_partition import KEEP_ALL, Town

RULE = BendRule(frozenset(Cause))


class Machine:
    """As busy as the test says."""

    def __init__(self) -> None:
        self.sample = LoadSample(0.1, 0.1)

    def __call__(self) -> LoadSample:
        return self.sample


async def watched(
    machine: Machine, orders: Orders, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    await watch_rate(RULE, machine, orders, task_status=task_status)


async def test_load_halves_the_rate_and_its_end_brings_it_back(autojump_clock: trio.testing.MockClock) -> None:
    """Above the limit for a while: a half, then a quarter; between the limits nothing; below, slowly back to all."""
    machine, orders = Machine(), Orders(parse_policies(KEEP_ALL, version=1))
    async with trio.open_nursery() as nursery:
        await nursery.start(watched, machine, orders)
        machine.sample = LoadSample(0.2, 0.9)
        await trio.sleep(5.5)
        assert (orders.rate, orders.cause) == (0.5, tuple(Cause).index(Cause.MEMORY))
        await trio.sleep(3)
        assert orders.rate == 0.25
        machine.sample = LoadSample(0.7, 0.7)
        await trio.sleep(300)
        assert orders.rate == 0.25
        machine.sample = LoadSample(0.1, 0.1)
        await trio.sleep(31.5)
        assert orders.rate == 0.5
        await trio.sleep(31)
        assert orders.rate == 1.0
        nursery.cancel_scope.cancel()


async def test_every_owned_partition_says_so_in_its_ledger(autojump_clock: trio.testing.MockClock) -> None:
    """One RATE record a partition and change, with its cause, whether spans come in or not."""
    machine, town = Machine(), Town(3)
    machine.sample = LoadSample(0.95, 0.1)
    async with trio.open_nursery() as nursery:
        await nursery.start(watched, machine, town.settings.orders)
        async with town.at_work():
            await trio.sleep(6)
            machine.sample = LoadSample(0.7, 0.1)
            await trio.sleep(60)
        nursery.cancel_scope.cancel()
    for partition in range(3):
        entries = [
            decode(record.body, partition=partition, position=record.position)[1]
            for record in town.ledger._entries[partition]
        ]
        bent = [(entry.rate, entry.cause) for entry in entries if isinstance(entry, Rate)]
        assert bent == [(0.5, tuple(Cause).index(Cause.CPU))]
