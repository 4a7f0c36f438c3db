"""A place in the group through the Python Consumer: the fallback of member.py, which says what it must do.

One thread polls, and in it librdkafka's callbacks say what the group wants; each blocks that thread until the change is
acknowledged, as the protocol has it. All other calls are made in that thread too, also while a callback waits: a
partition that is drained because it is wanted back must be committed.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import confluent_kafka
import structlog
import trio
from confluent_kafka import TopicPartition

from spanloom.adapters.kafka.commits import COMMIT_S, END, Commits
from spanloom.adapters.kafka.handle import CALL_TIMEOUT_MS, Place
from spanloom.adapters.kafka.librdkafka import OFFSET_END
from spanloom.adapters.kafka.portable import POLL_S, THREADS, Jobs, explained, new_consumer
from spanloom.errors import SourceUnavailable
from spanloom.model import Assigned, Committed, Lost, PartitionChange, Revoked

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

Result = TypeVar("Result")

LEAVE_S = 5.0  # then the group finds out by itself


class PortableMember:
    """Implements member.Member."""

    def __init__(self, settings: Mapping[str, str], topic: str) -> None:
        """*settings* are a consumer's, with what the group's protocol needs (see topics.group_protocol)."""
        self._settings = settings
        self._topic = topic
        self._consumer: confluent_kafka.Consumer | None = None
        self._poller: _Poller | None = None
        self._pending: PartitionChange | None = None
        self._changed = trio.lowlevel.ParkingLot()
        self._threads = trio.CapacityLimiter(THREADS)
        self._commits = Commits(topic, ask=self._ask, send=self._send)

    # Membership.

    async def join(self) -> None:
        """See interfaces.Membership."""
        if self._poller is None or not self._poller.is_alive:
            self._poller = _Poller(self._open(), self._topic, self)
        self._commits.is_joined = True
        await trio.lowlevel.checkpoint()

    async def next_change(self) -> PartitionChange:
        """See interfaces.Membership."""
        await trio.lowlevel.checkpoint()
        while self._pending is None:
            await self._changed.park()
        return self._pending

    async def acknowledge(self, change: PartitionChange) -> None:
        """See interfaces.Membership."""
        assert change == self._pending, f"{change} is acknowledged, {self._pending} was given"
        assert self._poller is not None, "acknowledged without having joined"
        if isinstance(change, Assigned):
            self._commits.took(change.partitions)
        else:
            self._commits.gave(change.partitions)
        self._pending = None
        self._poller.jobs.go_on()
        await trio.lowlevel.checkpoint()

    async def leave(self) -> None:
        """See interfaces.Membership."""
        self._commits.gave(tuple(self._commits.mine))
        poller, self._poller = self._poller, None
        if poller is not None:
            self._consumer = None  # the poller closes it
            with trio.CancelScope(shield=True), trio.move_on_after(LEAVE_S):
                await trio.to_thread.run_sync(poller.leave, abandon_on_cancel=True)
        self._commits.is_joined, self._pending = False, None
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Free everything. Blocks a moment."""
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.leave()
        elif self._consumer is not None:
            self._consumer.close()
        self._consumer = None

    def want(self, change: PartitionChange) -> None:
        """In trio's thread: the group has a change for us."""
        if isinstance(change, Lost):
            self._commits.gave(change.partitions)
        self._pending = change
        self._changed.unpark_all()

    def _open(self) -> confluent_kafka.Consumer:
        if self._consumer is None:
            self._consumer = new_consumer(self._settings)
        return self._consumer

    # Committed offsets.

    async def committed(self, partition: int) -> Committed | None:
        """See member.Member."""
        return await self._commits.committed(partition)

    async def commit(self, partition: int, committed: Committed) -> None:
        """See member.Member."""
        await self._commits.commit(partition, committed)

    async def _ask(self, partition: int) -> Place:
        consumer, wanted = self._open(), [TopicPartition(self._topic, partition)]
        (found,) = await self._have_done(lambda: consumer.committed(wanted, timeout=CALL_TIMEOUT_MS / 1000))
        if found.error is not None:
            raise SourceUnavailable(f"committed offsets: {found.error.str()}")
        return Place(self._topic, partition, found.offset, (found.metadata or "").encode())

    async def _send(self, places: Sequence[Place]) -> None:
        consumer = self._open()
        wanted = [TopicPartition(at.topic, at.partition, at.offset, at.metadata.rstrip(END).decode()) for at in places]
        done: Sequence[TopicPartition] = ()
        with trio.move_on_after(COMMIT_S) as patience:
            done = await self._have_done(lambda: consumer.commit(offsets=wanted, asynchronous=False) or ())
        if patience.cancelled_caught:
            raise SourceUnavailable(f"commit: no answer in {COMMIT_S:g} s")
        for place in done:
            if place.error is not None:
                raise SourceUnavailable(f"commit: {place.error.str()}")

    async def _have_done(self, work: Callable[[], Result]) -> Result:
        """Do what blocks, in the thread that polls where there is one. Raises SourceUnavailable."""
        poller = self._poller

        def do() -> Result:
            if poller is not None:
                return poller.jobs.have_done(work)
            try:
                return work()
            except (confluent_kafka.KafkaException, RuntimeError) as exc:
                raise SourceUnavailable(explained(exc)) from exc

        return await trio.to_thread.run_sync(do, limiter=self._threads, abandon_on_cancel=True)


class _Poller:
    """The thread that polls a member's consumer, in which its callbacks run."""

    def __init__(self, consumer: confluent_kafka.Consumer, topic: str, member: PortableMember) -> None:
        self._consumer = consumer
        self._topic = topic
        self._member = member
        self._token = trio.lowlevel.current_trio_token()
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kafka-group", daemon=True)
        self.jobs = Jobs(self._thread)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Its thread works."""
        return self._thread.is_alive()

    def leave(self) -> None:
        """Leave the group and close the consumer. Blocks."""
        self._leaving.set()
        self.jobs.go_on()
        self._thread.join()

    def _work(self) -> None:
        self._consumer.subscribe(
            [self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not self._leaving.is_set():
                self.jobs.do_waiting()
                message = self._consumer.poll(POLL_S)
                if message is not None and (error := message.error()):
                    log.warning("kafka", what=error.str())
        except trio.RunFinishedError:
            return
        finally:
            self._leaving.set()  # what the group still wants is granted
            self._consumer.close()

    def _on_assign(self, _: confluent_kafka.Consumer, places: list[TopicPartition]) -> None:
        self._have_acknowledged(Assigned(_numbers(places)))
        ours = [TopicPartition(place.topic, place.partition, OFFSET_END) for place in places]
        self._consumer.incremental_assign(ours)
        self._consumer.pause(ours)  # it fetches nothing

    def _on_revoke(self, _: confluent_kafka.Consumer, places: list[TopicPartition]) -> None:
        self._have_acknowledged(Revoked(_numbers(places)))  # what is to be done then the client does

    def _on_lost(self, _: confluent_kafka.Consumer, places: list[TopicPartition]) -> None:
        self._have_acknowledged(Lost(_numbers(places)))

    def _have_acknowledged(self, change: PartitionChange) -> None:
        if not self._leaving.is_set() and change.partitions:
            self._token.run_sync_soon(self._member.want, change)
            self.jobs.do_until_told()


def _numbers(places: Sequence[TopicPartition]) -> tuple[int, ...]:
    return tuple(sorted(place.partition for place in places))
