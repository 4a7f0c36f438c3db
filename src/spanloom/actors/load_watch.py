"""Bends the collector's sampling with the machine's load: measures, asks the rule, and tells the sampler."""

from collections.abc import Callable

import structlog
import trio

from spanloom.core.sampling.adaptive import AdaptiveRate, BendRule, LoadSample

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

INTERVAL_S = 1.0  # of a sample: long against a scheduler's slices, short against the rule's 3 s


async def watch_load(
    rule: BendRule,
    measure: Callable[[], LoadSample],
    bend: Callable[[float], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Call *bend* with each new factor, for ever; a restart begins at 1. *measure* looks back to its last call."""
    rate = AdaptiveRate(rule)
    bend(rate.factor)
    task_status.started()
    while True:
        await trio.sleep(INTERVAL_S)
        bent = rate.feed(trio.current_time(), measure())
        if bent is not None:
            bend(bent.factor)
            log.warning("sampling bends", factor=bent.factor, cause=bent.cause, load=round(bent.load, 3))
