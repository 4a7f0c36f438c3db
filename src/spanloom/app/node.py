"""A node whatever it is deployed on: what its owner sees of it, its ports, its metrics, how it drains."""

import os
import random
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

import structlog
import trio

from spanloom.actors.context import Board, Orders, PartitionSettings, PartitionStatistics, World, pass_by
from spanloom.actors.feed import FeedStatistics
from spanloom.actors.head_decisions import HeadDecisions
from spanloom.actors.intake import Head, Intake, IntakeStatistics
from spanloom.actors.supervisor import ChildSpec, Restart
from spanloom.adapters.failpoints import VARIABLE, HalvingStore, failpoint_from
from spanloom.adapters.grpc import GrpcCounters
from spanloom.adapters.http import Gate, HttpCounters, HttpLimits, let_everybody_in, open_listeners, serve_http
from spanloom.adapters.machine import memory_limit_bytes
from spanloom.adapters.trial import survives
from spanloom.config import Config
from spanloom.core.assembly import Limits
from spanloom.core.cache_lookups import CacheLookups
from spanloom.core.http_routes import Router
from spanloom.core.restart import RestartBudget
from spanloom.core.sampling.head import HeadSampler, SamplingMode
from spanloom.core.sampling.written import parse_policies
from spanloom.interfaces import Cache, Ledger, Outlet, SpanLog, SpanSource, TraceStore
from spanloom.metrics import Sample, render
from spanloom.query.decisions import DecisionReader
from spanloom.query.health import health_routes
from spanloom.query.traces import TraceReader
from spanloom.query.ui import ui_routes
from spanloom.query.v1 import query_routes

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

CACHES = ("trace", "sampled")  # by what their keys begin with
INTAKE_SERVERS = frozenset({"intake", "grpc", "zipkin"})  # stopped first


class Role(Enum):
    """What a process of the cluster deployment does; the embedded one does everything."""

    INTAKE = "intake"
    AGGREGATOR = "aggregator"
    QUERY = "query"


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


def partition_settings(config: Config) -> PartitionSettings:
    """What a partition actor needs to know of the configuration. Raises ConfigError for a wrong policy.

    Its policies are those of a first start; app/policies.py puts those in force in their place.
    """
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
        orders=Orders(parse_policies(config.sampling.policies, version=1)),
        commit_interval_s=config.commit_interval_s,
        undecided_bytes_max=assembly.undecided_bytes_max or memory_limit_bytes() // 4,
    )


def _ns(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


@dataclass(slots=True)
class Node:
    """A running node, as its owner sees it: ports, statistics, and the way to stop it."""

    config: Config
    board: Board
    orders: Orders
    intake: Intake
    budgets: tuple[RestartBudget, ...]  # of the root, the partitions, the doors
    lookups: Mapping[str, CacheLookups]  # by cache
    ports: dict[str, int] = field(default_factory=dict)  # `intake`, `grpc`, `zipkin`, `query`: where they listen
    counters: HttpCounters = field(default_factory=HttpCounters)
    grpc_counters: GrpcCounters = field(default_factory=GrpcCounters)
    routers: list[Router] = field(default_factory=list)
    stopping: trio.Event = field(default_factory=trio.Event)
    drained: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)
    servers: dict[str, trio.CancelScope] = field(default_factory=dict)
    feed: FeedStatistics = field(default_factory=FeedStatistics)
    draining: list[trio.Event] = field(default_factory=list)  # doors that end by themselves once `stopping` is set

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
        if self.stopping.is_set():
            return "stopping"
        return "" if self.board.is_ready() else "partitions are being taken over"

    def metrics(self) -> str:
        """Prometheus' text."""
        return render(_samples(self))


def make_world(
    *,
    log: SpanLog,
    source: SpanSource,
    ledger: Ledger,
    store: TraceStore,
    outlet: Outlet,
    cache: Cache,
    threads: trio.CapacityLimiter | None = None,
) -> World:
    """The world of a process: its adapters, its name, its dice and its clock; and where it dies, if a test says so."""
    process = uuid.uuid4().bytes[:8]
    failpoint = failpoint_from(os.environ.get(VARIABLE, ""))
    return World(
        log=log,
        source=source,
        ledger=ledger,
        store=HalvingStore(store, failpoint) if failpoint else store,
        outlet=outlet,
        cache=cache,
        uuid=lambda: process + uuid.uuid4().bytes[8:],
        random=random.random,
        unix_s=time.time,
        threads=threads,
        failpoint=failpoint or pass_by,
        survives=survives,
    )


def make_node(config: Config, board: Board, world: World, orders: Orders) -> Node:
    """A node that nothing runs in yet."""
    sampling = config.sampling
    lookups = {cache: CacheLookups() for cache in CACHES}
    head = Head(HeadSampler(1.0))  # discards nothing but what overload sheds, if it may
    if sampling.mode == SamplingMode.HEAD:
        decisions = HeadDecisions(world.cache, random=world.random, lookups=lookups["sampled"])
        head = Head(HeadSampler(sampling.head_probability), decisions)
    intake = Intake(
        world.log,
        waiting_bytes_max=config.intake.waiting_bytes_max,
        head=head,
        failpoint=world.failpoint,
        random=world.random,
    )
    supervision = config.supervision
    budgets = tuple(RestartBudget(supervision.restarts_max, supervision.period_s) for _ in range(3))
    return Node(config, board, orders, intake, budgets, lookups)


def query_server(node: Node, world: World) -> ChildSpec:
    """The HTTP server that answers: traces, health, metrics, web page."""
    health = health_routes(unready=node.unready, metrics=node.metrics)
    lookups = node.lookups["trace"]
    reader = TraceReader(world.store, world.cache, node.board, random=random.random, lookups=lookups)
    decisions = DecisionReader(
        world.ledger,
        world.source,
        node.board,
        partition_count=node.board.partition_count,
        remember_ns=_ns(node.config.assembly.remember_s),
        body_of=lambda version: found.body if (found := node.orders.versions.get(version)) else None,
    )
    router = Router([*query_routes(world.store, reader, decisions), *health, *ui_routes()])
    return http_server(node, "query", node.config.http.query_port, router)


@dataclass(frozen=True, slots=True)
class Entrance:
    """Who gets in, and how."""

    gate: Gate = let_everybody_in
    tls: ssl.SSLContext | None = None


EVERYBODY = Entrance()


def http_server(node: Node, name: str, port: int, router: Router, *, entrance: Entrance = EVERYBODY) -> ChildSpec:
    """An HTTP server under a name, by which it can be stopped alone."""
    node.routers.append(router)
    return ChildSpec(name, partial(_serve, node, name, port, router, entrance=entrance), Restart.TRANSIENT)


async def drain(node: Node) -> None:
    """Take nothing more in; let the partitions finish what is decided, within the grace."""
    log.info("draining", grace_s=node.config.drain_s)
    for name in INTAKE_SERVERS & node.servers.keys():
        node.servers[name].cancel()
    node.board.drain(node.board.expected)
    with trio.move_on_after(node.config.drain_s) as grace:
        for door in node.draining:
            await door.wait()
        await node.drained.wait()
        await node.intake.wait_empty()
    log.info("drained", whole=not grace.cancelled_caught)


async def _serve(
    node: Node, name: str, port: int, router: Router, *, entrance: Entrance, task_status: trio.TaskStatus[None]
) -> None:
    """An HTTP server that can be stopped alone; restarted, it listens where it did before."""
    http = node.config.http
    limits = HttpLimits(body_bytes_max=http.body_bytes_max, connections_max=http.connections_max, idle_s=http.idle_s)
    with trio.CancelScope() as node.servers[name]:
        listeners = await open_listeners(http.host, node.ports.get(name, port))
        node.ports[name] = listeners[0].socket.getsockname()[1]
        async with trio.open_nursery() as nursery:
            serve = partial(serve_http, listeners, router.handle, limits=limits, counters=node.counters)
            await nursery.start(partial(serve, gate=entrance.gate, tls=entrance.tls))
            task_status.started()


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
        yield Sample("spanloom_policy_version", p.policy_version, label)
        yield Sample("spanloom_sampling_rate", p.rate, label)
    yield Sample("spanloom_store_writes_total", sum(p.documents_stored for p in statistics.partitions))
    yield Sample("spanloom_store_rejected_total", sum(p.documents_rejected for p in statistics.partitions))
    for cache, lookups in node.lookups.items():
        for result, count in (("hit", lookups.hits), ("miss", lookups.misses), ("failure", lookups.failures)):
            yield Sample("spanloom_cache_lookups_total", count, {"cache": cache, "result": result})
    for child, count in statistics.restarts.items():
        yield Sample("spanloom_actor_restarts_total", count, {"child": child})
    yield from _intake_samples(statistics.intake)
    for outcome in ("taken", "dead_lettered", "lost"):
        yield Sample("spanloom_feed_records_total", getattr(node.feed, f"records_{outcome}"), {"outcome": outcome})
    answers = sum((Counter(router.statistics()) for router in node.routers), Counter[tuple[str, int]]())
    for (route, status), count in answers.items():
        yield Sample("spanloom_http_responses_total", count, {"route": route, "status": str(status)})
    grpc = node.grpc_counters
    for outcome in ("answered", "refused", "slow", "crashed"):
        yield Sample("spanloom_grpc_calls_total", getattr(grpc, outcome), {"outcome": outcome})
    yield Sample("spanloom_http_connections_open", node.counters.connections_open)
    yield Sample("spanloom_http_connections_total", node.counters.connections)
    yield Sample("spanloom_http_refused_total", node.counters.refused)
    yield Sample("spanloom_http_crashes_total", node.counters.crashes)


def _intake_samples(intake: IntakeStatistics) -> Iterator[Sample]:
    yield Sample("spanloom_intake_spans_accepted_total", intake.accepted)
    for outcome in ("produced", "dropped_head", "dropped_shed", "refused", "rejected"):
        yield Sample("spanloom_intake_spans_total", getattr(intake, outcome), {"outcome": outcome})
    yield Sample("spanloom_intake_sampling_factor", intake.sampling_factor)
    yield Sample("spanloom_intake_spans_waiting", intake.waiting)
    yield Sample("spanloom_intake_waiting_bytes", intake.waiting_bytes)
    requests = {"accepted": intake.requests, "refused": intake.requests_refused, "rejected": intake.requests_malformed}
    for outcome, count in requests.items():
        yield Sample("spanloom_intake_requests_total", count, {"outcome": outcome})
