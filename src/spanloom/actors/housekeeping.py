"""What goes on beside the partitions: watching how far they lag, deleting what retention says.

A span is never deleted unread by the disk cap, only by the log's own retention (design, section 1: the outage that
spanloom survives is shorter than that).
"""

from dataclasses import dataclass
from datetime import UTC, datetime

import structlog
import trio

from spanloom.actors.context import Board, World
from spanloom.core.ledger import Decide, Tick, decode, decode_decisions
from spanloom.errors import Unavailable
from spanloom.interfaces import Retention
from spanloom.model import DEAD_LETTERS, SAMPLING_DECISIONS, TRACES_COMPLETE

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LAG_INTERVAL_S = 1.0
DAY_S = 86_400
TOPIC_RETENTION_S = {TRACES_COMPLETE: DAY_S, SAMPLING_DECISIONS: DAY_S, DEAD_LETTERS: 7 * DAY_S}  # design, section 3


async def watch_lag(
    world: World, board: Board, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Keep the board's log ends fresh."""
    task_status.started()
    while True:
        try:
            for partition in sorted(board.expected):
                board.ends[partition] = await world.source.end_offset(partition)
        except Unavailable as exc:
            log.warning("lag not known", why=str(exc))
        await trio.sleep(LAG_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long things are kept."""

    log_s: float  # spans and ledger
    store_s: float
    interval_s: float = 60.0


async def keep_house(
    retention: Retention,
    world: World,
    board: Board,
    settings: RetentionSettings,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Apply retention now and then. An outage only delays it."""
    task_status.started()
    while True:
        try:
            await _trim(retention, world, board, settings)
        except Unavailable as exc:
            log.warning("retention not applied", why=str(exc))
        await trio.sleep(settings.interval_s)


async def _trim(retention: Retention, world: World, board: Board, settings: RetentionSettings) -> None:
    now_s = world.unix_s()
    committed = {s.partition: s.committed for s in board.statistics()}
    await retention.trim_log(older_than_ms=int((now_s - settings.log_s) * 1000), below=committed)
    for topic, keep_s in TOPIC_RETENTION_S.items():
        await retention.trim_topic(topic, older_than_ms=int((now_s - keep_s) * 1000))
    await retention.drop_days_before(datetime.fromtimestamp(now_s - settings.store_s, UTC).strftime("%Y.%m.%d"))
    horizon_ns = int((now_s - settings.log_s) * 1e9)
    needed = {s.partition: s.ledger_needed for s in board.statistics()}
    await retention.trim_ledger({p: await _old(world, p, horizon_ns, position) for p, position in needed.items()})


async def _old(world: World, partition: int, horizon_ns: int, needed: int) -> int:
    """The ledger position up to which all is older than the horizon and no recovery needs it. Reads what may go, once.

    Only DECIDE and TICK carry a time; what stands between two old ones is old.
    """
    old = position = 0
    reader = await world.ledger.read(partition, 0)
    try:
        while position < needed:
            for record in await reader.receive():
                position = record.position + 1
                _, entry = decode(record.body, partition=partition, position=record.position)
                match entry:
                    case Decide(entries):
                        stream_ns = next(iter(decode_decisions(entries))).stream_ns
                    case Tick(_, stream_ns):
                        pass
                    case _:
                        continue
                if stream_ns >= horizon_ns or position > needed:
                    return min(old, needed)
                old = position
    finally:
        await reader.aclose()
    return min(old, needed)
