"""Budgets are the fleet's: what may be kept does not change with who works on it."""

from itertools import pairwise
from random import Random

import pytest
import trio
import trio.testing

from spanloom.core.assembly import Limits
from tests.actors.fleet import Fleet, settings_of
from tests.spans import S, Sp

LIMITS = Limits(quiet_ns=S, idle_ns=2 * S)
PARTITIONS = 12
PACE_S = 0.5
WARM_UP_S = 15  # full buckets are emptied meanwhile
PHASE_S = 30
PHASES = (1, 6, 2)  # processes


def rate_limiting(spans_per_second: int) -> dict[str, object]:
    """With a burst of five seconds: an owner that began with a full bucket would be seen."""
    settings = {"spans_per_second": spans_per_second, "burst_capacity": 5 * spans_per_second}
    return {"name": "budget", "type": "rate_limiting", "rate_limiting": settings}


async def traffic(fleet: Fleet, spans_per_second: float, *, spans_max: int) -> None:
    """For ever: so many spans each second, in traces of 1 to *spans_max*."""
    random, number = Random(5), 0
    owed = 0.0
    while True:
        owed += spans_per_second * PACE_S
        traces = []
        while owed > 0:
            number += 1
            size = random.randint(1, spans_max)
            owed -= size
            traces.append([Sp(number, span, parent=span - 1, start=number) for span in range(1, size + 1)])
        await fleet.send(*traces)
        await trio.sleep(PACE_S)


def kept_between(fleet: Fleet, start_s: float, end_s: float) -> int:
    """Spans of the traces decided then, on stream time, which is the clock's here."""
    low, high = int(start_s * S), int(end_s * S)
    decided = ((int(str(each.verdict["stream_ns"])), each.span_count) for each in fleet.documents())
    return sum(spans for stream_ns, spans in decided if low <= stream_ns < high)


async def kept_by_phase(spans_per_second: int, load: float, *, spans_max: int) -> list[int]:
    """What the fleet keeps of each phase, its processes going from one to six to two."""
    settings = settings_of(rate_limiting(spans_per_second), limits=LIMITS, checkpoint_interval_s=10)
    async with trio.open_nursery() as nursery:
        fleet = Fleet(nursery, PARTITIONS, settings)
        await fleet.spread([fleet.process()])
        nursery.start_soon(lambda: traffic(fleet, load, spans_max=spans_max))
        began = trio.current_time()
        await trio.sleep(WARM_UP_S)
        ends = [trio.current_time()]
        for count in PHASES:
            await fleet.spread([fleet.process() for _ in range(count)])
            await trio.sleep_until(began + WARM_UP_S + len(ends) * PHASE_S)
            ends.append(trio.current_time())
        await trio.sleep(5)  # until all of it is stored
        nursery.cancel_scope.cancel()
    return [kept_between(fleet, low, high) for low, high in pairwise(ends)]


async def test_a_budget_holds_while_processes_come_and_go(autojump_clock: trio.testing.MockClock) -> None:
    """From one process to six to two, four times as much coming as may be kept: within 5 % of the budget each time."""
    kept = await kept_by_phase(96, 4 * 96, spans_max=4)
    assert kept == [pytest.approx(96 * PHASE_S, rel=0.05)] * 3


async def test_a_budget_smaller_than_the_number_of_partitions_holds(autojump_clock: trio.testing.MockClock) -> None:
    """Five spans a second over twelve partitions: each lets one pass now and then, together they keep to it."""
    kept = await kept_by_phase(5, 60, spans_max=1)
    assert sum(kept) == pytest.approx(5 * PHASE_S * 3, rel=0.05)
    assert kept == [pytest.approx(5 * PHASE_S, abs=PARTITIONS)] * 3
