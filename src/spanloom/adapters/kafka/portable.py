"""Fetching through the Python Consumer: where native code or this librdkafka cannot do. Slower, same promises.

One consumer fetches many partitions, and one thread, which nobody else's calls disturb, carries its messages to trio.
A partition that is not read is paused once what waits for its reader passes a bound; what was fetched ahead of that is
fetched again. A second reader of a partition takes another consumer.
"""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TypeVar

import confluent_kafka
import structlog
import trio
from confluent_kafka import TopicPartition

from spanloom.adapters.kafka.handle import CALL_TIMEOUT_MS, Place, Watermarks
from spanloom.adapters.kafka.reader import BATCH_BYTES, KafkaReader, Problem, Taken
from spanloom.errors import ConfigError, SourceUnavailable, Unavailable
from spanloom.model import Record

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Result = TypeVar("Result")

POLL_S = 0.05  # how soon the thread looks whether something is wanted of it
TAKE_MAX = 1000  # messages at once
ENDED = 0  # no error of librdkafka's
BATCHES_AHEAD = 2  # that wait for a reader; then its partition is paused
THREADS = 16  # that may wait for a broker; none of those that others wait for


def new_consumer(settings: Mapping[str, str]) -> confluent_kafka.Consumer:
    """A consumer. Raises ConfigError for a setting that librdkafka refuses."""
    try:
        return confluent_kafka.Consumer(dict(settings))
    except confluent_kafka.KafkaException as exc:
        raise ConfigError(f"kafka: {exc.args[0].str()}") from exc


class Jobs:
    """What others want a consumer's thread to do: calls from a second thread may wait for ever while one polls."""

    def __init__(self, thread: threading.Thread) -> None:
        self._thread = thread
        self._waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    def have_done(self, work: Callable[[], Result]) -> Result:
        """Let the thread do it, and wait. Raises SourceUnavailable where librdkafka, or the thread, does not."""
        done = threading.Event()
        results: list[Result] = []
        failures: list[confluent_kafka.KafkaException | RuntimeError] = []

        def do() -> None:
            try:
                results.append(work())
            except (confluent_kafka.KafkaException, RuntimeError) as exc:  # the second: it is closed
                failures.append(exc)
            done.set()

        self._waiting.put(do)
        while not done.wait(POLL_S):
            if not self._thread.is_alive():
                raise SourceUnavailable("the consumer's thread has ended")
        if failures:
            raise SourceUnavailable(explained(failures[0])) from failures[0]
        return results[0]

    def do_waiting(self) -> None:
        """In the thread: what waits now."""
        while not self._waiting.empty():
            job = self._waiting.get()
            if job is not None:
                job()

    def do_until_told(self) -> None:
        """In the thread: whatever comes, until `go_on`."""
        while (job := self._waiting.get()) is not None:
            job()

    def go_on(self) -> None:
        """The thread need not wait any longer."""
        self._waiting.put(None)


def explained(error: confluent_kafka.KafkaException | RuntimeError) -> str:
    """What a client's exception says."""
    if isinstance(error, confluent_kafka.KafkaException):
        return str(error.args[0].str())
    return str(error)


class PortableConsumers:
    """Implements reader.Consumers."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        """Connects by and by. Raises ConfigError for a setting that librdkafka refuses."""
        self._settings = settings
        self._asker = new_consumer(settings)  # for questions: two threads on one consumer wait for each other
        self._pumps: list[_Pump] = []
        self.threads = trio.CapacityLimiter(THREADS)

    def lease(self, inbox: "_Inbox") -> "_Pump":
        """A consumer that does not fetch the inbox's partition yet; it is the inbox's."""
        for pump in self._pumps:
            if pump.is_alive and inbox.key not in pump.leased:
                break
        else:
            pump = _Pump(self._settings)
            self._pumps.append(pump)
        pump.leased.add(inbox.key)
        return pump

    def read(
        self,
        start: Place,
        *,
        batch_bytes: int = BATCH_BYTES,
        unavailable: type[Unavailable] = SourceUnavailable,
        steps_over_gaps: bool = False,
    ) -> KafkaReader:
        """See reader.Consumers."""

        def stream_from(offset: int) -> PortableStream:
            return PortableStream(self, start._replace(offset=offset), batch_bytes)

        return KafkaReader(
            start, stream_from, self.watermarks, unavailable=unavailable, steps_over_gaps=steps_over_gaps
        )

    async def watermarks(self, topic: str, partition: int) -> Watermarks:
        """See reader.Consumers."""

        def ask() -> Watermarks:
            place = TopicPartition(topic, partition)
            try:
                found = self._asker.get_watermark_offsets(place, timeout=CALL_TIMEOUT_MS / 1000)
            except confluent_kafka.KafkaException as exc:
                self._look_for_leaders(topic)
                raise SourceUnavailable(f"{topic}/{partition}: {exc.args[0].str()}") from exc
            if found is None:
                raise SourceUnavailable(f"{topic}/{partition}: no answer in {CALL_TIMEOUT_MS} ms")
            return Watermarks(*found)

        return await trio.to_thread.run_sync(ask, limiter=self.threads)

    def _look_for_leaders(self, topic: str) -> None:
        """Of a topic that is only asked about librdkafka goes on asking a leader that died. Blocks."""
        with suppress(confluent_kafka.KafkaException):
            self._asker.list_topics(topic, timeout=CALL_TIMEOUT_MS / 1000)

    def close(self) -> None:
        """See reader.Consumers."""
        for pump in self._pumps:
            pump.stop()
        self._pumps.clear()
        self._asker.close()


@dataclass(slots=True)
class _Inbox:
    """What was fetched of one partition and not given yet. The thread adds through trio, the stream takes."""

    start: Place
    paused_above_bytes: int
    token: trio.lowlevel.TrioToken
    messages: deque[confluent_kafka.Message] = field(default_factory=deque)
    brought_bytes: int = 0  # the thread's to count
    taken_bytes: int = 0  # the stream's
    problem: Problem | None = None
    closed: bool = False
    arrived: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    @property
    def key(self) -> tuple[str, int]:
        """The partition."""
        return self.start.topic, self.start.partition

    @property
    def is_full(self) -> bool:
        """Its reader is far behind."""
        return self.brought_bytes - self.taken_bytes > self.paused_above_bytes

    def bring(self, messages: Sequence[confluent_kafka.Message], problem: Problem | None = None) -> None:
        """In the thread."""
        self.brought_bytes += sum(map(len, messages))
        self.token.run_sync_soon(self._add, messages, problem)

    def _add(self, messages: Sequence[confluent_kafka.Message], problem: Problem | None) -> None:
        self.messages.extend(messages)
        self.problem = self.problem or problem
        self.arrived.unpark_all()


class PortableStream:
    """Implements reader.Stream over what a consumer's thread brings."""

    def __init__(self, consumers: PortableConsumers, start: Place, batch_bytes: int) -> None:
        self._consumers = consumers
        self._next = start.offset
        self._batch_bytes = batch_bytes
        self._inbox = _Inbox(start, BATCHES_AHEAD * batch_bytes, trio.lowlevel.current_trio_token())
        self._pump = consumers.lease(self._inbox)

    async def open(self) -> None:
        """See reader.Stream."""
        await self._run(self._pump.begin)

    async def close(self) -> None:
        """See reader.Stream."""
        if self._pump.is_alive:
            await self._run(self._pump.end)
        self._pump.leased.discard(self._inbox.key)

    async def _run(self, work: Callable[[_Inbox], None]) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(work, self._inbox, limiter=self._consumers.threads)

    def take(self) -> Taken | Problem | None:
        """See reader.Stream."""
        inbox, batch, room = self._inbox, list[Record](), self._batch_bytes
        while inbox.messages and inbox.problem is None and (not batch or len(inbox.messages[0]) <= room):
            message = inbox.messages.popleft()
            inbox.taken_bytes += len(message)
            offset = message.offset()
            if error := message.error():
                inbox.problem = Problem(error.code(), error.str())
            elif offset is not None and offset >= self._next:
                room -= len(message)
                self._next = offset + 1
                batch.append(_to_record(offset, message))
        return Taken(batch, self._next) if batch else inbox.problem

    async def wait(self) -> None:
        """See reader.Stream."""
        if self._inbox.closed:
            await trio.lowlevel.checkpoint()
        else:
            await self._inbox.arrived.park()

    def wake(self) -> None:
        """See reader.Stream."""
        self._inbox.closed = True
        self._inbox.arrived.unpark_all()


class _Pump:
    """A consumer and its thread, which alone uses it."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.leased: set[tuple[str, int]] = set()
        self._consumer = new_consumer(settings)
        self._inboxes: dict[tuple[str, int], _Inbox] = {}
        self._paused: set[tuple[str, int]] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kafka-consume", daemon=True)
        self._jobs = Jobs(self._thread)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Its thread works."""
        return self._thread.is_alive()

    def begin(self, inbox: _Inbox) -> None:
        """Fetch into *inbox*. Blocks a moment. Raises SourceUnavailable."""
        self._jobs.have_done(lambda: self._begin(inbox))

    def end(self, inbox: _Inbox) -> None:
        """Fetch into it no more. Blocks a moment."""
        with suppress(SourceUnavailable):  # then it is not fetched either
            self._jobs.have_done(lambda: self._end(inbox))

    def stop(self) -> None:
        """End the thread and the consumer. Blocks a moment."""
        self._stopping.set()
        self._thread.join()

    def _begin(self, inbox: _Inbox) -> None:
        self._consumer.incremental_assign([TopicPartition(*inbox.start[:3])])
        self._inboxes[inbox.key] = inbox

    def _end(self, inbox: _Inbox) -> None:
        if self._inboxes.get(inbox.key) is inbox:
            del self._inboxes[inbox.key]
            self._paused.discard(inbox.key)
            self._consumer.incremental_unassign([TopicPartition(*inbox.key)])

    def _work(self) -> None:
        try:
            while not self._stopping.is_set():
                self._jobs.do_waiting()
                self._hold_back()
                first = self._consumer.poll(POLL_S)
                if first is not None:
                    self._carry([first, *self._consumer.consume(TAKE_MAX, 0)])
        except trio.RunFinishedError:
            return
        finally:
            self._consumer.close()
            for inbox in self._inboxes.values():
                with suppress(trio.RunFinishedError):
                    inbox.bring((), Problem(ENDED, "the consumer's thread has ended"))

    def _hold_back(self) -> None:
        """Pause the partitions whose readers are behind, and let the others go on."""
        full = {key for key, inbox in self._inboxes.items() if inbox.is_full}
        if held := full - self._paused:
            self._consumer.pause([TopicPartition(*key) for key in held])
        if freed := self._paused - full:
            self._consumer.resume([TopicPartition(*key) for key in freed])
        self._paused = full

    def _carry(self, messages: Sequence[confluent_kafka.Message]) -> None:
        """Hand each partition's records to its inbox."""
        sorted_out: dict[tuple[str, int], list[confluent_kafka.Message]] = {}
        for message in messages:
            topic, partition = message.topic(), message.partition()
            if topic is None or partition is None:
                log.warning("kafka", what=str(message.error()))
            else:
                sorted_out.setdefault((topic, partition), []).append(message)
        for key, found in sorted_out.items():
            if key in self._inboxes:
                self._inboxes[key].bring(found)


def _to_record(offset: int, message: confluent_kafka.Message) -> Record:
    """A model.Record of a message; a value or a header's value that is null is empty."""
    key = message.key()
    headers = message.headers() or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Record(
        offset,
        message.timestamp()[1],
        _as_bytes(key) if key is not None else None,
        _as_bytes(message.value()),
        tuple((name, _as_bytes(content)) for name, content in pairs),
    )


def _as_bytes(content: str | bytes | None) -> bytes:
    return content.encode() if isinstance(content, str) else content or b""
