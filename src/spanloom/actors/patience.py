"""An outage is not a crash: try an idempotent thing again until it succeeds, for as long as it takes."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
import trio

from spanloom.core.backoff import Backoff
from spanloom.errors import Unavailable

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Result = TypeVar("Result")

RETRY_FIRST_S = 0.05
RETRY_CAP_S = 5.0  # the end of an outage is noticed this soon


async def patiently(
    attempt: Callable[[], Awaitable[Result]], *, draw: Callable[[], float], partition: int, what: str
) -> Result:
    """What *attempt* gives once it does not raise Unavailable. The first failure is logged, and the end of them."""
    backoff = Backoff(RETRY_FIRST_S, RETRY_CAP_S, draw)
    failures = 0
    while True:
        try:
            result = await attempt()
        except Unavailable as exc:
            failures += 1
            if failures == 1:
                log.warning("waiting", partition=partition, what=what, why=str(exc))
            await trio.sleep(backoff.next_delay_s())
        else:
            if failures:
                log.info("went on", partition=partition, what=what, failures=failures)
            return result
