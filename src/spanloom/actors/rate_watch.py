"""Bends the policies of this process's partitions with the machine's load: each owner says so in its ledger."""

from collections.abc import Callable

import structlog
import trio

from spanloom.actors.context import Orders
from spanloom.core.sampling.adaptive import AdaptiveRate, BendRule, Cause, LoadSample

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

INTERVAL_S = 1.0  # of a sample: long against a scheduler's slices, short against the rule's 3 s


async def watch_rate(
    rule: BendRule,
    measure: Callable[[], LoadSample],
    orders: Orders,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Keep the rate of *orders*, for ever; a restart begins at 1. *measure* looks back to its last call."""
    rate = AdaptiveRate(rule)
    orders.rate = rate.factor
    task_status.started()
    while True:
        await trio.sleep(INTERVAL_S)
        bent = rate.feed(trio.current_time(), measure())
        if bent is not None:
            orders.rate, orders.cause = bent.factor, tuple(Cause).index(bent.cause)
            log.warning("policies bend", rate=bent.factor, cause=bent.cause, load=round(bent.load, 3))
