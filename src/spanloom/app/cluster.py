"""The cluster deployment: any number of processes, whose Kafka consumer group shares the partitions among them.

    root
     |- partitions   a place in the group: partition-17, partition-42, ... as they are assigned
     |- intake, grpc, zipkin   the doors of app/doors.py, which produce to `spans`   (role intake)
     |- query        HTTP: traces, health, metrics, web page
     '- lag, house

Told to stop, it is not ready any more, takes nothing in, lets its partitions finish what is decided and commit, leaves
the group so that the others need not wait for its session to end, and ends.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from spanloom.actors.assignment import Share, own_share
from spanloom.actors.context import Board, PartitionSettings, World
from spanloom.actors.housekeeping import watch_lag
from spanloom.actors.partition import run_partition
from spanloom.actors.supervisor import ChildSpec, Restart, supervise
from spanloom.adapters.kafka.clients import open_consumers, open_member
from spanloom.adapters.kafka.ledger import KafkaLedger
from spanloom.adapters.kafka.log import KafkaLog
from spanloom.adapters.kafka.member import Member
from spanloom.adapters.kafka.outlet import KafkaOutlet
from spanloom.adapters.kafka.policies import KafkaPolicyLog
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.source import KafkaSource
from spanloom.adapters.kafka.topics import TopicFacts, Topics
from spanloom.adapters.memory import MemoryStore
from spanloom.app.backends import drop_old_days, open_cache, open_store
from spanloom.app.doors import intake_servers
from spanloom.app.node import (
    Node,
    Role,
    drain,
    http_server,
    make_node,
    make_world,
    partition_settings,
    query_server,
)
from spanloom.app.policies import rate_watch, start_policies
from spanloom.config import Config, KafkaConfig, client_properties
from spanloom.core.http_routes import Router
from spanloom.errors import (
    LedgerUnavailable,
    OutletUnavailable,
    PoliciesUnavailable,
    SourceUnavailable,
    Unavailable,
)
from spanloom.model import DEAD_LETTERS, LEDGER, POLICIES, SAMPLING_DECISIONS, SPANS, TRACES_COMPLETE
from spanloom.query.health import health_routes

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LINGER_MS = 10  # design, section 2; a ledger record does not wait: reading does, for it

STORING = frozenset({Role.AGGREGATOR, Role.QUERY})  # a collector has no store, and no folder


def kafka_settings(config: KafkaConfig, environ: Mapping[str, str]) -> KafkaSettings:
    """How the adapters are told. Raises ConfigError for the client's own properties."""
    return KafkaSettings(
        config.brokers,
        group=config.group,
        session_ms=round(config.session_s * 1000),
        topics={
            SPANS: config.spans,
            LEDGER: config.ledger,
            TRACES_COMPLETE: config.traces_complete,
            SAMPLING_DECISIONS: config.sampling_decisions,
            DEAD_LETTERS: config.dead_letters,
            POLICIES: config.policies,
        },
        reader=config.consumer,
        client=client_properties(config.client_file, environ),
    )


async def run_cluster(config: Config, roles: frozenset[Role], *, task_status: trio.TaskStatus[Node]) -> None:
    """Run the roles as one process of many; see app.run_node."""
    settings, kafka = partition_settings(config), kafka_settings(config.kafka, os.environ)
    topics = Topics(kafka)
    facts = await trio.to_thread.run_sync(topics.look)
    protocol = await trio.to_thread.run_sync(topics.group_protocol)
    with open_cluster(config, kafka, facts, protocol, roles=roles) as parts:
        board = Board(facts.partition_count)
        board.expect([])
        node = make_node(config, board, parts.world, settings.orders)
        children = [_server(node, parts.world, roles), *_role_children(node, parts, settings, roles)]
        if Role.AGGREGATOR in roles:
            children += [await start_policies(parts.policies, settings.orders), *rate_watch(config, settings.orders)]
        async with trio.open_nursery() as nursery:
            await nursery.start(supervise, children, node.budgets[0])
            log.info("ready", ports=node.ports, roles=sorted(role.value for role in roles), group=kafka.group)
            task_status.started(node)
            await node.stopping.wait()
            await drain(node)
            nursery.cancel_scope.cancel()
    node.stopped.set()


@dataclass(frozen=True, slots=True)
class _Cluster:
    """What is open."""

    world: World
    member: Member
    policies: KafkaPolicyLog


@contextmanager
def open_cluster(
    config: Config,
    kafka: KafkaSettings,
    facts: TopicFacts,
    protocol: Mapping[str, str],
    *,
    roles: frozenset[Role] = frozenset(Role),
) -> Iterator[_Cluster]:
    with ExitStack() as closing:

        def publisher(unavailable: type[Unavailable], linger_ms: int) -> Publisher:
            made = Publisher(kafka.connection(), unavailable, linger_ms=linger_ms)
            closing.callback(made.close)
            return made

        spans = kafka.topic(SPANS)
        consumers = open_consumers(kafka, facts.partition_count)
        closing.callback(consumers.close)
        member = open_member(kafka, spans, protocol)
        closing.callback(member.close)
        world = make_world(
            log=KafkaLog(publisher(SourceUnavailable, LINGER_MS), spans, facts.partition_count),
            source=KafkaSource(consumers, member, spans, incarnation=facts.incarnation),
            ledger=KafkaLedger(publisher(LedgerUnavailable, 0), consumers, kafka.topic(LEDGER)),
            store=closing.enter_context(open_store(config, facts.partition_count))
            if roles & STORING
            else MemoryStore(),
            outlet=KafkaOutlet(publisher(OutletUnavailable, LINGER_MS), kafka.topics),
            cache=closing.enter_context(open_cache(config.redis)),
            threads=_threads(),
        )
        policies = KafkaPolicyLog(publisher(PoliciesUnavailable, 0), consumers, kafka.topic(POLICIES))
        yield _Cluster(world, member, policies)


def _threads() -> trio.CapacityLimiter | None:
    """As many as there are CPUs beside the two that trio's thread and librdkafka's already keep busy."""
    spare = len(os.sched_getaffinity(0)) - 1
    return trio.CapacityLimiter(spare) if spare > 1 else None


def _server(node: Node, world: World, roles: frozenset[Role]) -> ChildSpec:
    """What answers: for traces, or where there are none for health and metrics alone."""
    if Role.QUERY in roles:
        return query_server(node, world)
    health = Router(health_routes(unready=node.unready, metrics=node.metrics))
    return http_server(node, "query", node.config.http.query_port, health)


def _role_children(node: Node, parts: _Cluster, settings: PartitionSettings, roles: frozenset[Role]) -> list[ChildSpec]:
    children = []
    if Role.AGGREGATOR in roles:
        children.append(ChildSpec("partitions", partial(_own_share, node, parts, settings), Restart.TRANSIENT))
        children.append(ChildSpec("lag", partial(watch_lag, parts.world, node.board)))
        retention_s = node.config.elasticsearch.retention_s
        children.append(ChildSpec("house", partial(drop_old_days, parts.world.store, parts.world, retention_s)))
    else:
        node.drained.set()
    if Role.INTAKE in roles:
        children += intake_servers(node, parts.world)
    return children


async def _own_share(
    node: Node, parts: _Cluster, settings: PartitionSettings, *, task_status: trio.TaskStatus[None]
) -> None:
    """What the group assigns to us, until the node stops."""

    async def run(partition: int, *, task_status: trio.TaskStatus[None]) -> None:
        await run_partition(partition, parts.world, settings, node.board, task_status=task_status)

    share = Share(
        parts.member,
        run,
        node.board,
        node.budgets[1],
        drain_s=node.config.kafka.revoke_s,
        draw=parts.world.random,
    )
    await own_share(share, node.stopping, task_status=task_status)
    node.drained.set()
