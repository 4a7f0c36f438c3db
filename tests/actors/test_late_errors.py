"""An error that comes late is not lost, whoever said no before, and wherever that is remembered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from spanloom.actors.head_decisions import HeadDecisions
from spanloom.actors.intake import Head, Intake
from spanloom.adapters.memory import MemoryCache
from spanloom.core.assembly import Limits
from spanloom.core.sampling.head import HeadSampler
from tests.actors.fleet import Fleet, settings_of
from tests.spans import S, Sp, traces_data

LIMITS = Limits(quiet_ns=S, idle_ns=2 * S, remember_ns=300 * S)
DECIDED_S = 10  # by then it has been, and is committed
ERRORS: dict[str, object] = {"name": "errors", "type": "error"}
ALL: dict[str, object] = {"name": "all", "type": "always_sample"}
UNSET: dict[str, object] = {"name": "unset", "type": "status_code", "status_code": {"status_codes": ["UNSET"]}}
DROP: dict[str, object] = {"name": "drop", "type": "drop", "drop": {"drop_sub_policy": [UNSET]}}
POLICIES = {"nobody votes": [ERRORS], "a drop policy speaks": [ALL, DROP]}

FIRST, LATE_OK, LATE_ERROR = Sp(1, 1), Sp(1, 2, parent=1), Sp(1, 3, parent=1, error=True)


@asynccontextmanager
async def dropped(policies: list[dict[str, object]]) -> AsyncIterator[Fleet]:
    """A fleet whose partition has dropped trace 1."""
    settings = settings_of(*policies, limits=LIMITS, checkpoint_interval_s=3)
    async with trio.open_nursery() as nursery:
        fleet = Fleet(nursery, 1, settings)
        await fleet.spread([fleet.process()])
        await fleet.send([FIRST])
        await trio.sleep(DECIDED_S)
        assert (await fleet.log.committed(0)).offset == 1
        assert fleet.documents() == []
        yield fleet
        nursery.cancel_scope.cancel()


async def assert_error_is_kept_alone(fleet: Fleet) -> None:
    """The late error is a fragment of its own, which stands for itself; what came with it is dropped as late."""
    await fleet.send([LATE_OK], [LATE_ERROR])
    await trio.sleep(DECIDED_S)
    (document,) = fleet.documents(trace=1)
    (statistics,) = fleet.owners[0].board.statistics()
    assert (document.verdict["verdict"], document.verdict["late"]) == ("late_error", True)
    assert (document.span_count, document.error_count, document.verdict["adjusted_count"]) == (1, 1, 1.0)
    assert statistics.assembler.tally.late == 1
    assert statistics.committed == 3


async def test_an_error_after_a_head_no_is_kept(autojump_clock: trio.testing.MockClock) -> None:
    """The head has discarded a trace: its error passes all the same, is judged and stored, and opens the door."""
    async with trio.open_nursery() as nursery:
        fleet = Fleet(nursery, 1, settings_of(ERRORS, limits=LIMITS))
        await fleet.spread([fleet.process()])
        head = Head(HeadSampler(0.0), HeadDecisions(MemoryCache(), random=lambda: 0.5))
        intake = Intake(fleet.log, waiting_bytes_max=1 << 20, head=head)
        for span in (FIRST, LATE_ERROR, LATE_OK):
            body = traces_data([span])
            await intake.accept(body, size_bytes=len(body))
        await trio.sleep(DECIDED_S)
        (document,) = fleet.documents(trace=1)
        nursery.cancel_scope.cancel()
    assert intake.statistics().dropped_head == 1
    assert (document.verdict["verdict"], document.verdict["policy"]) == ("keep", "errors")
    assert (document.span_count, document.error_count) == (2, 1)


@pytest.mark.parametrize("why", POLICIES)
async def test_an_error_after_a_tail_drop_is_kept(autojump_clock: trio.testing.MockClock, why: str) -> None:
    """The policies have dropped a trace: an error that comes after it is kept, alone."""
    async with dropped(POLICIES[why]) as fleet:
        await assert_error_is_kept_alone(fleet)


@pytest.mark.parametrize("why", POLICIES)
async def test_an_error_after_a_restart_is_kept(autojump_clock: trio.testing.MockClock, why: str) -> None:
    """A process that comes after one that died knows what that one had dropped."""
    async with dropped(POLICIES[why]) as fleet:
        await fleet.kill(0, fleet.process())
        await assert_error_is_kept_alone(fleet)


@pytest.mark.parametrize("why", POLICIES)
async def test_an_error_after_a_rebalance_is_kept(autojump_clock: trio.testing.MockClock, why: str) -> None:
    """A partition that was handed over, and over again, takes its verdicts along."""
    async with dropped(POLICIES[why]) as fleet:
        await fleet.give(0, fleet.process())
        await trio.sleep(DECIDED_S)
        await fleet.give(0, fleet.process())
        await assert_error_is_kept_alone(fleet)


async def test_a_late_error_on_its_way_survives_its_owner(autojump_clock: trio.testing.MockClock) -> None:
    """The owner dies between a late error and its verdict: the successor reads it again and keeps it, once."""
    async with dropped([ERRORS]) as fleet:
        await fleet.send([LATE_OK], [LATE_ERROR])
        await trio.sleep(0.5)
        await fleet.kill(0, fleet.process())
        await trio.sleep(DECIDED_S)
        (document,) = fleet.documents(trace=1)
    assert (document.verdict["verdict"], document.span_count) == ("late_error", 1)
