"""Keeps actors running: Erlang/OTP's one_for_one supervisor on trio nurseries.

A child that crashes is restarted alone, at once or, after crashes in a row, with a backoff, and resumes from what is
durable. Its siblings never notice. When the shared restart budget is spent the supervisor itself crashes, and its
parent, if that is a supervisor too, restarts all of it. With cli.main this is the only place that catches Exception.
Source: OTP design principles, "Supervision Principles"; trio's nurseries (`Nursery.start`).
"""

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import structlog
import trio

from spanloom.core.backoff import Backoff
from spanloom.core.restart import RestartBudget
from spanloom.errors import RestartIntensityExceeded

# A stray crash is answered at once, as OTP does: its work waits. A child that soon crashes again waits longer each
# time, so that it does not spin. The cap is below period_s / intensity of the default budget (60 s / 10): a child that
# never comes up still spends the budget.
RESTART_DELAY_FIRST_S = 0.1  # the most before the second restart in a row
RESTART_DELAY_CAP_S = 5.0

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Restart(Enum):
    """When a child that ended is started again."""

    PERMANENT = auto()  # always
    TRANSIENT = auto()  # after a crash
    TEMPORARY = auto()  # never


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child: its name among its siblings and how to start it, every time anew."""

    id: str
    start: Callable[..., Awaitable[None]]  # takes `task_status` (trio.TaskStatus[None]) and reports itself started
    restart: Restart = Restart.PERMANENT


async def supervise(
    children: Sequence[ChildSpec],
    budget: RestartBudget,
    *,
    draw: Callable[[], float] = random.random,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Start the children in order, report started, keep them running until cancelled or none is left to run.

    `budget` is this supervisor's alone: it is refilled on start, and its `statistics()` count each child's restarts.
    Raises (inside exception groups) RestartIntensityExceeded, or whatever a child's first start raised.
    """
    ids = [child.id for child in children]
    assert len(set(ids)) == len(ids), f"children of one supervisor need different ids: {ids}"
    budget.refill()
    async with trio.open_nursery() as nursery:
        for child in children:
            backoff = Backoff(RESTART_DELAY_FIRST_S, RESTART_DELAY_CAP_S, draw)
            await nursery.start(_keep_running, child, budget, backoff)
        task_status.started()


async def supervise_one(
    child: ChildSpec,
    budget: RestartBudget,
    *,
    draw: Callable[[], float] = random.random,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep one child running whose siblings come and go: OTP's simple_one_for_one. They share *budget* all the same.

    Returns, and raises, as `supervise` does.
    """
    backoff = Backoff(RESTART_DELAY_FIRST_S, RESTART_DELAY_CAP_S, draw)
    await _keep_running(child, budget, backoff, task_status=task_status)


async def _keep_running(
    child: ChildSpec, budget: RestartBudget, backoff: Backoff, *, task_status: trio.TaskStatus[None]
) -> None:
    ready, is_repeated = False, False
    while True:
        crash = None
        born_s = trio.current_time()
        try:
            async with trio.open_nursery() as life:
                await life.start(child.start)
                if not ready:
                    ready = True
                    task_status.started()
        except* Exception as group:  # Cancelled is none: it passes through, with whatever crashed beside it logged
            if not ready:
                raise  # a failed first start is a config error, not a crash
            crash = group
            log.error("child crashed", child=child.id, restart=child.restart.name, exc_info=group)
        if child.restart is Restart.TEMPORARY or (child.restart is Restart.TRANSIENT and crash is None):
            return
        await trio.lowlevel.checkpoint_if_cancelled()  # failing while being stopped asks for no restart
        if not budget.spend(trio.current_time(), child.id):
            log.error("restart budget spent", child=child.id, intensity=budget.intensity, period_s=budget.period_s)
            raise RestartIntensityExceeded(
                f"{child.id}: more than {budget.intensity} restarts in {budget.period_s:g} s"
            ) from crash
        if trio.current_time() - born_s > RESTART_DELAY_CAP_S:
            backoff.reset()  # it had been up for a while: this crash is a new story
            is_repeated = False
        await trio.sleep(backoff.next_delay_s() if is_repeated else 0)
        is_repeated = True
