"""Which client reads: librdkafka through native code, or the Python Consumer where that cannot do."""

from collections.abc import Mapping

import structlog

from spanloom.adapters.kafka.handle import Handle
from spanloom.adapters.kafka.member import KafkaMember, Member
from spanloom.adapters.kafka.native import NativeConsumers
from spanloom.adapters.kafka.portable import PortableConsumers
from spanloom.adapters.kafka.portable_member import PortableMember
from spanloom.adapters.kafka.reader import Consumers
from spanloom.adapters.kafka.selftest import native_taker
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.errors import ConfigError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def is_native(settings: KafkaSettings) -> bool:
    """Whether native code reads. Raises ConfigError where it is asked for and must not be used."""
    if settings.reader == "portable":
        return False
    try:
        native_taker()
    except ConfigError as exc:
        if settings.reader == "native":
            raise
        log.warning("reading through the portable consumer, which costs several times the CPU", why=str(exc))
        return False
    return True


def open_consumers(settings: KafkaSettings, partition_count: int) -> Consumers:
    """What fetches up to so many partitions."""
    consumer = settings.consumer(partition_count)
    return NativeConsumers(lambda: Handle(consumer)) if is_native(settings) else PortableConsumers(consumer)


def open_member(settings: KafkaSettings, topic: str, protocol: Mapping[str, str]) -> Member:
    """A place in the group that shares *topic*; *protocol* is topics.group_protocol()."""
    consumer = {**settings.consumer(1), **protocol}
    return KafkaMember(consumer, topic) if is_native(settings) else PortableMember(consumer, topic)
