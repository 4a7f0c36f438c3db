"""The append side: one idempotent producer, its delivery reports brought to trio by one thread.

acks=all, in order within a partition, no repeats by retries. A report of failure leaves open whether the record was
appended; so does cancelling. After an error that ends the producer for good the next append makes a new one; and after
a time-out, because a producer whose broker came back may never send again (seen with librdkafka 2.16 after a restart of
the only broker: connected, and for eight minutes every record timed out, while a new producer sent at once).
"""

import threading
from collections.abc import Callable, Mapping, Sequence

import confluent_kafka
import structlog
import trio

from spanloom.errors import ConfigError, Unavailable
from spanloom.model import Message

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

POLL_S = 0.1  # how soon the thread notices that it is to end
PURGED_S = 5.0  # the last reports of one that ends: they are there already
TIMED_OUT = confluent_kafka.KafkaError._MSG_TIMED_OUT  # noqa: SLF001 - its only name
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

Report = Callable[[confluent_kafka.KafkaError | None, confluent_kafka.Message], None]


class Publisher:
    """Appends to topics of one cluster."""

    def __init__(
        self,
        settings: Mapping[str, str],
        unavailable: type[Unavailable],
        *,
        linger_ms: int,
        stamp: Callable[[], int] | None = None,  # ms; else the record gets the time of its append
    ) -> None:
        """Connects by and by. Raises ConfigError for a setting that librdkafka refuses."""
        self._settings = {**SETTINGS, "linger.ms": str(linger_ms), **settings}
        self._unavailable = unavailable
        self._stamp = stamp
        self._pump = _Pump(self._settings)

    async def publish(self, batch: Sequence[tuple[str, int, Message]]) -> None:
        """Append each message to its topic and partition; durable when it returns. Raises Unavailable's kind."""
        await trio.lowlevel.checkpoint()
        if not batch:
            return
        pump = self._living_pump()
        now_ms = self._stamp() if self._stamp else 0
        delivery = _Delivery(len(batch), trio.lowlevel.current_trio_token())
        report = delivery.report  # bound once
        for record in batch:
            # librdkafka tells nobody that there is room again
            while not self._enqueued(pump, record, report, now_ms):  # noqa: ASYNC110
                await trio.sleep(FULL_S)
        await delivery.done.wait()
        if delivery.error is not None:
            pump.is_broken |= bool(delivery.error.fatal()) or delivery.error.code() == TIMED_OUT
            raise self._unavailable(delivery.error.str())

    def close(self) -> None:
        """Stop; what was not acknowledged may be appended or not. Blocks a moment. May be called again."""
        self._pump.stop()

    def _enqueued(self, pump: "_Pump", record: tuple[str, int, Message], report: Report, timestamp_ms: int) -> bool:
        topic, partition, (key, value, headers) = record
        if pump.is_retired:
            raise self._unavailable("the producer was given up for a new one")
        try:
            pump.producer.produce(
                topic, value, key, partition, on_delivery=report, timestamp=timestamp_ms, headers=list(headers)
            )
        except BufferError:
            return False
        except confluent_kafka.KafkaException as exc:
            pump.is_broken |= bool(exc.args[0].fatal())
            raise self._unavailable(exc.args[0].str()) from exc
        return True

    def _living_pump(self) -> "_Pump":
        if self._pump.is_broken:
            log.warning("producer ended, making a new one")
            self._pump.retire()
            self._pump = _Pump(self._settings)
        return self._pump


class _Pump:
    """A producer and the thread that takes its delivery reports."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        try:
            self.producer = confluent_kafka.Producer(dict(settings))
        except confluent_kafka.KafkaException as exc:
            raise ConfigError(f"kafka: {exc.args[0].str()}") from exc
        self.is_broken = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-delivery", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.producer.poll(POLL_S)
        self.producer.purge()  # whoever still waits for a report gets one: it was not delivered
        self.producer.flush(PURGED_S)

    @property
    def is_retired(self) -> bool:
        """Whether it ends: what is produced now may never be reported on."""
        return self._stopping.is_set()

    def retire(self) -> None:
        """End by and by; nothing may be produced with it any more."""
        self._stopping.set()

    def stop(self) -> None:
        """End. Blocks a moment."""
        self.retire()
        self._thread.join()


class _Delivery:
    """Counts the reports of one call; the thread's, until `done`."""

    def __init__(self, count: int, token: trio.lowlevel.TrioToken) -> None:
        self.done = trio.Event()
        self.error: confluent_kafka.KafkaError | None = None
        self._left = count
        self._token = token

    def report(self, error: confluent_kafka.KafkaError | None, _: confluent_kafka.Message) -> None:
        """One record's fate is known."""
        self.error = self.error or error
        self._left -= 1
        if self._left == 0:
            try:
                self._token.run_sync_soon(self.done.set)
            except trio.RunFinishedError:
                return
