"""The log of policy versions of a deployment, for a command."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from spanloom.adapters.policy_file import FilePolicyLog
from spanloom.config import Config
from spanloom.errors import ConfigError, PoliciesUnavailable
from spanloom.interfaces import PolicyLog
from spanloom.model import POLICIES


@contextmanager
def open_policy_log(config: Config) -> Iterator[PolicyLog]:
    """Kafka's topic where there is a cluster, else the data folder's file. Raises ConfigError."""
    if not config.kafka.brokers:
        yield FilePolicyLog(config.data.folder)
        return
    from spanloom.adapters.kafka.clients import open_consumers
    from spanloom.adapters.kafka.policies import KafkaPolicyLog
    from spanloom.adapters.kafka.publisher import Publisher
    from spanloom.adapters.kafka.topics import Topics
    from spanloom.app.cluster import kafka_settings

    settings = kafka_settings(config.kafka, os.environ)
    topic = settings.topic(POLICIES)
    if Topics(settings).describe(topic) is None:
        raise ConfigError(f"kafka: expected a topic {topic}, found none; `spanloom topics create` makes it")
    with ExitStack() as closing:
        publisher = Publisher(settings.connection(), PoliciesUnavailable, linger_ms=0)
        closing.callback(publisher.close)
        consumers = open_consumers(settings, 1)
        closing.callback(consumers.close)
        yield KafkaPolicyLog(publisher, consumers, topic)
