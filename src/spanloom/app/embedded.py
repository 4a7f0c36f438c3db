"""The embedded deployment: every role in one process, on one data folder.

    root
     |- partitions   one_for_one: partition-0, partition-1, ...
     |- intake       HTTP: OTLP and seed JSON
     |- grpc         gRPC: OTLP
     |- zipkin       HTTP: Zipkin's JSON
     |- query        HTTP: traces, health, metrics, web page
     |- policies     follows their versions
     '- house        lag, retention

Told to stop, it goes the way of the spans: the intake ends first, the partitions finish what is decided and commit,
then everything else ends.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from spanloom.actors.context import Board, PartitionSettings, World
from spanloom.actors.housekeeping import RetentionSettings, keep_house, watch_lag
from spanloom.actors.partition import run_partition
from spanloom.actors.supervisor import ChildSpec, Restart, supervise
from spanloom.adapters.memory import MemoryCache
from spanloom.adapters.policy_file import FilePolicyLog
from spanloom.adapters.sqlite import DataFolder, Durability, SqliteLedger, SqliteLog, SqliteOutlet, SqliteStore
from spanloom.app.doors import intake_servers
from spanloom.app.node import (
    Node,
    drain,
    make_node,
    make_world,
    partition_settings,
    query_server,
)
from spanloom.app.policies import rate_watch, start_policies
from spanloom.config import Config

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The adapters of one data folder. Implements interfaces.Retention."""

    log: SqliteLog
    ledger: SqliteLedger
    outlet: SqliteOutlet
    store: SqliteStore
    policies: FilePolicyLog

    async def trim_log(self, *, older_than_ms: int, below: Mapping[int, int]) -> int:
        return await self.log.trim(older_than_ms=older_than_ms, below=below)

    async def trim_ledger(self, before_position: Mapping[int, int]) -> int:
        return await self.ledger.trim(before_position)

    async def trim_topic(self, topic: str, *, older_than_ms: int) -> int:
        return await self.outlet.trim(topic, older_than_ms=older_than_ms)

    async def drop_days_before(self, day: str) -> Sequence[str]:
        return await self.store.drop_days_before(day)


@contextmanager
def _open_embedded(config: Config) -> Iterator[_Embedded]:
    data = config.data
    folder = DataFolder.open(data.folder, partition_count=data.partitions, durability=Durability(data.durability))
    try:
        ledger = SqliteLedger(folder)
        log_ = SqliteLog(folder, ledger, log_bytes_max=data.log_bytes_max)
        yield _Embedded(log_, ledger, SqliteOutlet(folder), SqliteStore(folder), FilePolicyLog(folder.path))
    finally:
        folder.close()


async def run_embedded(config: Config, *, task_status: trio.TaskStatus[Node]) -> None:
    """Run every role; see app.run_node."""
    settings = partition_settings(config)
    with _open_embedded(config) as parts:
        world = make_world(
            log=parts.log,
            source=parts.log,
            ledger=parts.ledger,
            store=parts.store,
            outlet=parts.outlet,
            cache=MemoryCache(),
        )
        node = make_node(config, Board(config.data.partitions), world, settings.orders)
        policies = [await start_policies(parts.policies, settings.orders), *rate_watch(config, settings.orders)]
        async with trio.open_nursery() as nursery:
            await nursery.start(supervise, [*policies, *_children(node, world, parts, settings)], node.budgets[0])
            await node.board.ready.wait()  # before anything is let in: a log may have offsets to keep free
            await nursery.start(supervise, intake_servers(node, world), node.budgets[2])
            log.info("ready", folder=config.data.folder, ports=node.ports, partitions=node.board.partition_count)
            task_status.started(node)
            await node.stopping.wait()
            await drain(node)
            nursery.cancel_scope.cancel()
    node.stopped.set()


def _children(node: Node, world: World, parts: _Embedded, settings: PartitionSettings) -> list[ChildSpec]:
    config, board = node.config, node.board
    retention = RetentionSettings(log_s=config.data.log_retention_s, store_s=config.data.store_retention_s)
    return [
        query_server(node, world),
        ChildSpec("partitions", partial(_own_partitions, node, world, settings), Restart.TRANSIENT),
        ChildSpec("lag", partial(watch_lag, world, board)),
        ChildSpec("house", partial(keep_house, parts, world, board, retention)),
    ]


async def _own_partitions(
    node: Node, world: World, settings: PartitionSettings, *, task_status: trio.TaskStatus[None]
) -> None:
    """A supervisor of its own for the partitions; they return once they are drained."""
    children = [
        ChildSpec(f"partition-{number}", partial(run_partition, number, world, settings, node.board), Restart.TRANSIENT)
        for number in range(node.board.partition_count)
    ]
    await supervise(children, node.budgets[1], task_status=task_status)
    node.drained.set()
