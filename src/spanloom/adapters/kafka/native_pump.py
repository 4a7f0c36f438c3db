"""A producer by librdkafka's C API: a batch goes in by one call, its records are counted out in C (ext/produce.h)."""

import ctypes
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from spanloom.adapters.kafka.delivery import POLL_S, PURGED_S, Delivery, Failure, Outgoing, Reporter, tell
from spanloom.adapters.kafka.librdkafka import (
    ERR_FATAL,
    ERR_QUEUE_FULL,
    ERR_TIMED_OUT,
    EVENT_DELIVERY,
    PURGE_IN_FLIGHT,
    PURGE_QUEUED,
    TYPE_PRODUCER,
    addresses_of,
    explain,
    library,
    new_handle,
)
from spanloom.core import kernel

if TYPE_CHECKING:
    from spanloom._native.produce import Sender


class NativePump:
    """Implements delivery.Pump."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Raises ConfigError for a setting that librdkafka refuses."""
        assert kernel.produce is not None, "there is no native code"
        self._lib = library()
        self._producer = new_handle(TYPE_PRODUCER, settings, events=EVENT_DELIVERY)
        self._queue = self._lib.rd_kafka_queue_get_main(self._producer)
        addresses = addresses_of(kernel.produce.FUNCTIONS)
        self._sender: Sender = kernel.produce.Sender(self._producer, self._queue, *addresses)
        self._pending = kernel.produce.Pending
        self._topics: dict[str, int] = {}
        self.is_broken = False
        self._sending = threading.Lock()  # held while the producer must not be freed
        self.reporter = Reporter(self._run)
        self.reporter.start()

    def send(self, batch: list[Outgoing], delivery: Delivery) -> tuple[int, Failure | None]:
        """See delivery.Pump."""
        if delivery.pending is None:
            delivery.pending = self._pending(delivery, delivery.count, delivery.timestamp_ms)
        with self._sending:
            if self.reporter.is_retired:
                return 0, Failure("the producer has ended", ends_producer=True)
            for topic in {topic for topic, _, _ in batch} - self._topics.keys():
                self._topics[topic] = self._lib.rd_kafka_topic_new(self._producer, topic.encode(), None)
            taken, code = self._sender.send(batch, self._topics, delivery.pending)
        return taken, None if code in (0, ERR_QUEUE_FULL) else self._failure(code)

    def _run(self) -> None:
        while not self.reporter.is_retired:
            self._settle()
        with self._sending:  # nobody sends any more
            self._lib.rd_kafka_purge(self._producer, PURGE_QUEUED | PURGE_IN_FLIGHT)  # who waits gets a report
        until = time.monotonic() + PURGED_S
        while self._lib.rd_kafka_outq_len(self._producer) and time.monotonic() < until:
            self._settle()
        for topic in self._topics.values():
            self._lib.rd_kafka_topic_destroy(topic)
        self._lib.rd_kafka_queue_destroy(self._queue)
        self._lib.rd_kafka_destroy_flags(self._producer, 0)

    def _settle(self) -> None:
        """Wait a moment for reports, and tell those of whose records all is known."""
        ended = []
        for owner, code in self._sender.settle(round(POLL_S * 1000)):
            delivery = cast("Delivery", owner)
            delivery.failure = self._failure(code) if code else None
            ended.append(delivery)
        tell(ended)

    def _failure(self, code: int) -> Failure:
        return Failure(explain(code), code in (ERR_FATAL, ERR_TIMED_OUT) or self._has_fatal_error())

    def _has_fatal_error(self) -> bool:
        return bool(self._lib.rd_kafka_fatal_error(self._producer, ctypes.create_string_buffer(1), 1))
