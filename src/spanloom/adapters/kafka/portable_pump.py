"""A producer by the Python client: a callback and a few objects a record. For where there is no native code."""

from collections.abc import Mapping
from functools import partial

import confluent_kafka

from spanloom.adapters.kafka.delivery import POLL_S, PURGED_S, Delivery, Failure, Outgoing, Reporter
from spanloom.errors import ConfigError

TIMED_OUT = confluent_kafka.KafkaError._MSG_TIMED_OUT  # noqa: SLF001 - its only name


class PortablePump:
    """Implements delivery.Pump."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Raises ConfigError for a setting that librdkafka refuses."""
        try:
            self._producer = confluent_kafka.Producer(dict(settings))
        except confluent_kafka.KafkaException as exc:
            raise ConfigError(f"kafka: {exc.args[0].str()}") from exc
        self.is_broken = False
        self.reporter = Reporter(self._run)
        self.reporter.start()

    def send(self, batch: list[Outgoing], delivery: Delivery) -> tuple[int, Failure | None]:
        """See delivery.Pump."""
        report = partial(_report, delivery)
        for number, (topic, partition, message) in enumerate(batch):
            try:
                self._producer.produce(
                    topic,
                    message.value,
                    message.key,
                    partition=partition,
                    on_delivery=report,
                    timestamp=delivery.timestamp_ms,
                    headers=list(message.headers),
                )
            except BufferError:
                return number, None
            except confluent_kafka.KafkaException as exc:
                return number, _failure(exc.args[0])
        return len(batch), None

    def _run(self) -> None:
        while not self.reporter.is_retired:
            self._producer.poll(POLL_S)
        self._producer.purge()  # whoever still waits for a report gets one: it was not delivered
        self._producer.flush(PURGED_S)


def _report(delivery: Delivery, error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
    delivery.report(None if error is None else _failure(error))


def _failure(error: confluent_kafka.KafkaError) -> Failure:
    return Failure(error.str(), bool(error.fatal()) or error.code() == TIMED_OUT)
