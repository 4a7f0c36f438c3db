"""Composition root: the embedded deployment, every role in one process. It alone knows both actors and adapters.

    root
     |- partitions   one_for_one: partition-0, partition-1, ...
     |- intake       HTTP: OTLP and seed JSON
     |- query        HTTP: traces, health, metrics, web page
     '- house        lag, retention

Told to stop, it goes the way of the spans: the intake ends first, the partitions finish what is decided and commit,
then everything else ends.
"""

import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from spanloom.actors.context import Board, PartitionSettings, PartitionStatistics, World
from spanloom.actors.housekeeping import RetentionSettings, keep_house, watch_lag
from spanloom.actors.intake import Intake, IntakeStatistics
from spanloom.actors.partition import run_partition
from spanloom.actors.supervisor import ChildSpec, Restart, supervise
from spanloom.adapters.http import HttpCounters, HttpLimits, open_listeners, serve_http
from spanloom.adapters.memory import MemoryCache
from spanloom.adapters.sqlite import DataFolder, Durability, SqliteLedger, SqliteLog, SqliteOutlet, SqliteStore
from spanloom.collector.otlp_http import otlp_routes
from spanloom.collector.seed_http import seed_routes
from spanloom.config import Config
from spanloom.core.assembly import Limits
from spanloom.core.http_routes import Router
from spanloom.core.restart import RestartBudget
from spanloom.core.sampling.policies import parse_policies
from spanloom.metrics import Sample, render
from spanloom.query.health import health_routes
from spanloom.query.traces import TraceReader
from spanloom.query.ui import ui_routes
from spanloom.query.v1 import query_routes

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class NodeStatistics:
    """Everything a node knows of itself at one moment."""

    partitions: tuple[PartitionStatistics, ...]
    intake: IntakeStatistics
    restarts: Mapping[str, int]  # by child

    @property
    def lag(self) -> int:
        """Records in the log and not read."""
        return sum(max(0, p.end - p.assembler.offset) for p in self.partitions)


@dataclass(frozen=True, slots=True)
class _Embedded:
    """The adapters of one data folder. Implements interfaces.Retention."""

    log: SqliteLog
    ledger: SqliteLedger
    outlet: SqliteOutlet
    store: SqliteStore

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
        yield _Embedded(log_, ledger, SqliteOutlet(folder), SqliteStore(folder))
    finally:
        folder.close()


def partition_settings(config: Config) -> PartitionSettings:
    """What a partition actor needs to know of the configuration. Raises ConfigError for a wrong policy."""
    parse_policies(config.sampling.policies, version=1)
    assembly = config.assembly
    limits = Limits(
        quiet_ns=_ns(assembly.quiet_s),
        idle_ns=_ns(assembly.idle_s),
        age_max_ns=_ns(assembly.age_max_s),
        remember_ns=_ns(assembly.remember_s),
        skew_max_ns=_ns(assembly.skew_max_s),
        spans_max=assembly.spans_max,
        bytes_max=assembly.bytes_max,
    )
    return PartitionSettings(
        limits=limits,
        policies=tuple(config.sampling.policies),
        commit_interval_s=config.commit_interval_s,
        undecided_bytes_max=assembly.undecided_bytes_max,
    )


def _ns(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


@dataclass(slots=True)
class Node:
    """A running node, as its owner sees it: ports, statistics, and the way to stop it."""

    config: Config
    board: Board
    intake: Intake
    budgets: tuple[RestartBudget, ...]
    ports: dict[str, int] = field(default_factory=dict)  # `intake`, `query`: where they really listen
    counters: HttpCounters = field(default_factory=HttpCounters)
    routers: list[Router] = field(default_factory=list)
    stopping: trio.Event = field(default_factory=trio.Event)
    drained: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)
    servers: dict[str, trio.CancelScope] = field(default_factory=dict)

    def stop(self) -> None:
        """Begin to stop. May be called again, and from a signal's task."""
        self.stopping.set()

    def statistics(self) -> NodeStatistics:
        """A look at everything."""
        restarts: dict[str, int] = {}
        for budget in self.budgets:
            restarts |= budget.statistics().restarts
        return NodeStatistics(self.board.statistics(), self.intake.statistics(), restarts)

    def unready(self) -> str:
        """Why the node cannot serve yet; empty when it can."""
        if self.board.draining.is_set():
            return "stopping"
        return "" if self.board.is_ready() else "partitions are being taken over"

    def metrics(self) -> str:
        """Prometheus' text."""
        return render(_samples(self))


async def run_node(config: Config, *, task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED) -> None:
    """Run every role until `Node.stop` is called or this is cancelled. Reports itself started when it is ready.

    Raises ConfigError, DataCorrupted and RestartIntensityExceeded, inside exception groups.
    """
    settings = partition_settings(config)
    with _open_embedded(config) as parts:
        board = Board(config.data.partitions)
        world = World(
            log=parts.log,
            source=parts.log,
            ledger=parts.ledger,
            store=parts.store,
            outlet=parts.outlet,
            cache=MemoryCache(),
            uuid=lambda: uuid.uuid4().bytes,
            random=random.random,
            unix_s=time.time,
        )
        intake = Intake(parts.log, waiting_bytes_max=config.http.waiting_bytes_max)
        supervision = config.supervision
        budgets = tuple(RestartBudget(supervision.restarts_max, supervision.period_s) for _ in range(2))
        node = Node(config, board, intake, budgets)
        async with trio.open_nursery() as nursery:
            await nursery.start(supervise, _children(node, world, parts, settings), budgets[0])
            await board.ready.wait()
            log.info("ready", folder=config.data.folder, ports=node.ports, partitions=board.partition_count)
            task_status.started(node)
            await node.stopping.wait()
            await _drain(node)
            nursery.cancel_scope.cancel()
    node.stopped.set()


async def _drain(node: Node) -> None:
    """Take nothing more in; let the partitions finish what is decided, within the grace."""
    log.info("draining", grace_s=node.config.drain_s)
    node.servers["intake"].cancel()
    node.board.draining.set()
    with trio.move_on_after(node.config.drain_s) as grace:
        await node.drained.wait()
    log.info("drained", whole=not grace.cancelled_caught)


def _children(node: Node, world: World, parts: _Embedded, settings: PartitionSettings) -> list[ChildSpec]:
    config, board = node.config, node.board
    retention = RetentionSettings(log_s=config.data.log_retention_s, store_s=config.data.store_retention_s)
    health = health_routes(unready=node.unready, metrics=node.metrics)
    reader = TraceReader(world.store, world.cache, board, random=random.random)
    intake = Router([*otlp_routes(node.intake), *seed_routes(node.intake), *health])
    query = Router([*query_routes(world.store, reader), *health, *ui_routes()])
    node.routers += [intake, query]
    return [
        ChildSpec("intake", partial(_serve, node, "intake", config.http.port, intake), Restart.TRANSIENT),
        ChildSpec("query", partial(_serve, node, "query", config.http.query_port, query), Restart.TRANSIENT),
        ChildSpec("partitions", partial(_own_partitions, node, world, settings), Restart.TRANSIENT),
        ChildSpec("lag", partial(watch_lag, world, board)),
        ChildSpec("house", partial(keep_house, parts, world, board, retention)),
    ]


async def _serve(node: Node, name: str, port: int, router: Router, *, task_status: trio.TaskStatus[None]) -> None:
    """An HTTP server that can be stopped alone; restarted, it listens where it did before."""
    http = node.config.http
    limits = HttpLimits(body_bytes_max=http.body_bytes_max, connections_max=http.connections_max, idle_s=http.idle_s)
    with trio.CancelScope() as node.servers[name]:
        listeners = await open_listeners(http.host, node.ports.get(name, port))
        node.ports[name] = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            serve = partial(serve_http, listeners, router.handle, limits=limits, counters=node.counters)
            await nursery.start(serve)
            task_status.started()


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


def _samples(node: Node) -> Iterator[Sample]:
    """What a node knows, in the table's words."""
    statistics = node.statistics()
    for p in statistics.partitions:
        label, assembler = {"partition": str(p.partition)}, p.assembler
        tally = assembler.tally
        for outcome in (
            "received",
            "stored",
            "duplicate",
            "moved",
            "dead_lettered",
            "lost_to_retention",
            "conflicting",
        ):
            yield Sample(f"spanloom_spans_{outcome}_total", getattr(tally, outcome), label)
        for reason in ("not_sampled", "late", "pressure"):
            yield Sample("spanloom_spans_dropped_total", getattr(tally, reason), {**label, "reason": reason})
        yield Sample("spanloom_spans_pending", tally.pending, label)
        yield Sample("spanloom_traces_open", assembler.open_traces, label)
        yield Sample("spanloom_traces_remembered", assembler.remembered, label)
        yield Sample("spanloom_undecided_bytes", assembler.undecided_bytes, label)
        yield Sample("spanloom_lag_records", max(0, p.end - assembler.offset), label)
        yield Sample("spanloom_ledger_appends_total", p.ledger_appends, label)
    yield Sample("spanloom_store_writes_total", sum(p.documents_stored for p in statistics.partitions))
    yield Sample("spanloom_store_rejected_total", sum(p.documents_rejected for p in statistics.partitions))
    for child, count in statistics.restarts.items():
        yield Sample("spanloom_actor_restarts_total", count, {"child": child})
    for outcome, count in (("accepted", statistics.intake.accepted), ("rejected", statistics.intake.rejected)):
        yield Sample("spanloom_intake_spans_total", count, {"outcome": outcome})
    for outcome, count in (("accepted", statistics.intake.requests), ("refused", statistics.intake.refused)):
        yield Sample("spanloom_intake_requests_total", count, {"outcome": outcome})
    answers = sum((Counter(router.statistics()) for router in node.routers), Counter[tuple[str, int]]())
    for (route, status), count in answers.items():
        yield Sample("spanloom_http_responses_total", count, {"route": route, "status": str(status)})
    yield Sample("spanloom_http_connections_open", node.counters.connections_open)
    yield Sample("spanloom_http_connections_total", node.counters.connections)
    yield Sample("spanloom_http_refused_total", node.counters.refused)
    yield Sample("spanloom_http_crashes_total", node.counters.crashes)
