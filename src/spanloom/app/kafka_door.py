"""A door straight into Kafka's `spans`, for programs that are no node."""

from collections.abc import Iterator
from contextlib import contextmanager

from spanloom.actors.intake import Intake
from spanloom.adapters.kafka.log import KafkaLog
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.topics import Topics
from spanloom.app.cluster import LINGER_MS
from spanloom.errors import ConfigError, SourceUnavailable
from spanloom.model import SPANS


@contextmanager
def open_kafka_door(settings: KafkaSettings, *, waiting_bytes_max: int) -> Iterator[Intake]:
    """Spans that go in are split by trace, keyed and in the log, acks=all. Blocks a moment.

    Raises ConfigError, SourceUnavailable.
    """
    topic = settings.topic(SPANS)
    facts = Topics(settings).describe(topic)
    if facts is None:
        raise ConfigError(f"kafka: expected a topic {topic}, found none; `spanloom topics create` makes it")
    publisher = Publisher(settings.connection(), SourceUnavailable, linger_ms=LINGER_MS)
    try:
        yield Intake(KafkaLog(publisher, topic, facts.partition_count), waiting_bytes_max=waiting_bytes_max)
    finally:
        publisher.close()
