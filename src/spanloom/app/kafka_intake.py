"""The Kafka door: a place in a group of its own that shares a foreign topic's partitions, an actor for each.

kafka-intake   the group's assignments; opened anew each time it is started
 '- partition-0, partition-7, ...   actors/feed.py
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import trio

from spanloom.actors.assignment import Share, own_share
from spanloom.actors.context import Board, World
from spanloom.actors.feed import Feed, run_feed
from spanloom.actors.supervisor import ChildSpec, Restart
from spanloom.adapters.kafka.clients import open_consumers, open_member
from spanloom.adapters.kafka.member import Member
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.source import KafkaSource
from spanloom.adapters.kafka.topics import TopicFacts, Topics
from spanloom.app.node import Node
from spanloom.config import Config, client_properties
from spanloom.core.restart import RestartBudget
from spanloom.errors import ConfigError


def kafka_intake(node: Node, world: World) -> ChildSpec:
    """The door as a child of who runs the others. Raises ConfigError for a topic that would feed itself."""
    config = node.config
    settings = _settings(config, os.environ)
    ours = {config.kafka.spans, config.kafka.ledger, config.kafka.dead_letters, config.kafka.traces_complete}
    if config.kafka_intake.topic in ours and settings.brokers == config.kafka.brokers:
        raise ConfigError(
            f"kafka_intake.topic: expected a topic that is not spanloom's own, found {config.kafka_intake.topic}"
        )
    supervision = config.supervision
    budget = RestartBudget(supervision.restarts_max, supervision.period_s)
    door = _Door(node, world, settings, budget)
    node.draining.append(door.drained)
    return ChildSpec("kafka-intake", partial(_run, door), Restart.TRANSIENT)


@dataclass(frozen=True, slots=True)
class _Door:
    """What the door is made of, every time anew."""

    node: Node
    world: World
    settings: KafkaSettings
    budget: RestartBudget  # of its partitions
    drained: trio.Event = field(default_factory=trio.Event)


async def _run(door: _Door, *, task_status: trio.TaskStatus[None]) -> None:
    """Be a member until the node stops; then finish what was read, commit and leave."""
    node, world, settings = door.node, door.world, door.settings
    topic = node.config.kafka_intake.topic
    topics = Topics(settings)
    facts = await trio.to_thread.run_sync(topics.describe, topic)
    if facts is None:
        raise ConfigError(f"kafka_intake.topic: expected a topic, found no {topic} at {settings.brokers}")
    protocol = await trio.to_thread.run_sync(topics.group_protocol)
    with _opened(settings, topic, facts, protocol) as (source, member):
        board = Board(facts.partition_count)
        feed = Feed(
            topic,
            node.config.kafka_intake.encoding,
            source=source,
            intake=node.intake,
            outlet=world.outlet,
            board=board,
            draw=world.random,
            statistics=node.feed,
        )

        async def run(partition: int, *, task_status: trio.TaskStatus[None]) -> None:
            await run_feed(partition, feed, task_status=task_status)

        share = Share(member, run, board, door.budget, drain_s=node.config.kafka.revoke_s, draw=world.random)
        await own_share(share, node.stopping, task_status=task_status)
    door.drained.set()


@contextmanager
def _opened(
    settings: KafkaSettings, topic: str, facts: TopicFacts, protocol: Mapping[str, str]
) -> Iterator[tuple[KafkaSource, Member]]:
    with ExitStack() as closing:
        consumers = open_consumers(settings, facts.partition_count)
        closing.callback(consumers.close)
        member = open_member(settings, topic, protocol)
        closing.callback(member.close)
        yield KafkaSource(consumers, member, topic, incarnation=facts.incarnation), member


def _settings(config: Config, environ: Mapping[str, str]) -> KafkaSettings:
    """Where the topic is: where it is said, else where the log is. Raises ConfigError."""
    door, kafka = config.kafka_intake, config.kafka
    if not (door.brokers or kafka.brokers):
        raise ConfigError("kafka_intake.brokers: expected host:port of a Kafka cluster, found nothing (default)")
    file = door.client_file if door.brokers else kafka.client_file
    settings = KafkaSettings(
        door.brokers or kafka.brokers,
        session_ms=round(kafka.session_s * 1000),
        client=client_properties(file, environ),
        reader=kafka.consumer,
    )
    return replace(settings, group=door.group)
