"""The append side: one idempotent producer, its delivery reports brought to trio by one thread.

acks=all, in order within a partition, no repeats by retries. A report of failure leaves open whether the record was
appended; so does cancelling. After an error that ends the producer for good the next append makes a new one; and after
a time-out, because a producer whose broker came back may never send again (seen with librdkafka 2.16 after a restart of
the only broker: connected, and for eight minutes every record timed out, while a new producer sent at once).
"""

from collections.abc import Callable, Mapping, Sequence

import structlog
import trio

from spanloom.adapters.kafka.delivery import Delivery, Outgoing, Pump
from spanloom.adapters.kafka.native_pump import NativePump
from spanloom.adapters.kafka.portable_pump import PortablePump
from spanloom.adapters.kafka.selftest import is_sender_sound
from spanloom.errors import Unavailable
from spanloom.model import Message

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

FULL_S = 0.01  # how soon a full queue is tried again
ANY_PARTITION = -1  # the key says which: murmur2, as Java's clients have it

SETTINGS = {
    "enable.idempotence": "true",  # and with it acks=all
    "partitioner": "murmur2_random",
    "batch.size": str(64 << 10),
    "compression.type": "lz4",
    "message.max.bytes": str(64 << 20),  # the topics' own limits are lower
    "delivery.timeout.ms": "30000",  # then it is for the caller to say whether to go on
    "queue.buffering.max.kbytes": str(256 << 10),
    "reconnect.backoff.max.ms": "1000",
    "log_level": "0",  # what goes wrong is raised, and logged once by who waits
}


def new_pump(settings: Mapping[str, str]) -> Pump:
    """Through native code where that can do. Raises ConfigError for a setting that librdkafka refuses."""
    return NativePump(settings) if is_sender_sound() else PortablePump(settings)


class Publisher:
    """Appends to topics of one cluster."""

    def __init__(
        self,
        settings: Mapping[str, str],
        unavailable: type[Unavailable],
        *,
        linger_ms: int,
        stamp: Callable[[], int] | None = None,  # ms; else the record gets the time of its append
        make_pump: Callable[[Mapping[str, str]], Pump] = new_pump,
    ) -> None:
        """Connects by and by. Raises ConfigError for a setting that librdkafka refuses."""
        self._settings = {**SETTINGS, "linger.ms": str(linger_ms), **settings}
        self._unavailable = unavailable
        self._stamp = stamp
        self._make_pump = make_pump
        self._pump = make_pump(self._settings)

    async def publish(self, batch: Sequence[tuple[str, int, Message]]) -> None:
        """Append each message to its topic and partition; durable when it returns. Raises Unavailable's kind."""
        await trio.lowlevel.checkpoint()
        if not batch:
            return
        pump = self._living_pump()
        delivery = Delivery(len(batch), trio.lowlevel.current_trio_token(), self._stamp() if self._stamp else 0)
        try:
            await self._send(pump, list(batch), delivery)
        finally:
            delivery.give_up()
        await delivery.done.wait()
        if delivery.failure is not None:
            pump.is_broken |= delivery.failure.ends_producer
            raise self._unavailable(delivery.failure.text)

    def close(self) -> None:
        """Stop; what was not acknowledged may be appended or not. Blocks a moment. May be called again."""
        self._pump.reporter.stop()

    async def _send(self, pump: Pump, batch: list[Outgoing], delivery: Delivery) -> None:
        """Into the producer's queue, as soon as there is room."""
        while True:
            if pump.reporter.is_retired:
                raise self._unavailable("the producer was given up for a new one")
            taken, failure = pump.send(batch, delivery)
            if failure is not None:
                pump.is_broken |= failure.ends_producer
                raise self._unavailable(failure.text)
            if taken == len(batch):
                return
            del batch[:taken]
            await trio.sleep(FULL_S)  # librdkafka tells nobody that there is room again

    def _living_pump(self) -> Pump:
        if self._pump.is_broken:
            log.warning("producer ended, making a new one")
            self._pump.reporter.retire()
            self._pump = self._make_pump(self._settings)
        return self._pump
