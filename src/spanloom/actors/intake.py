"""The door of the log: a request's spans are split by trace, sifted, keyed, and appended before the sender is answered.

Bounded in bytes: above the bound a sender is told to come back, never dropped. Books, in spans, at every moment:
accepted = produced + dropped by head sampling + shed under load + refused + waiting. A span is accepted once its
request could be read and its ids are good; refused are those whose sender was told to send them again, so they may be
accepted again. Beside them stand the rejected: spans that cannot be read in the encoding they came in, or bad ids.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
import trio

from spanloom.actors.context import pass_by
from spanloom.actors.head_decisions import HeadDecisions
from spanloom.actors.patience import RETRY_CAP_S, RETRY_FIRST_S
from spanloom.core import kernel
from spanloom.core.backoff import Backoff
from spanloom.core.codec.transcode import OTLP_PROTO, transcode
from spanloom.core.failpoints import Failpoint
from spanloom.core.partitioning import partition_of
from spanloom.core.sampling.head import HeadSampler, Sifted
from spanloom.errors import DecodeError, Overloaded, Unavailable
from spanloom.interfaces import SpanLog
from spanloom.model import Message

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a request's spans. Implements interfaces.Accepted."""

    accepted: int
    rejected: int
    reason: str


@dataclass(frozen=True, slots=True)
class IntakeStatistics:
    """Since the start."""

    requests: int  # answered with success
    requests_refused: int  # come back later
    requests_malformed: int
    accepted: int  # spans: the five after it, summed
    produced: int  # in the log
    dropped_head: int
    dropped_shed: int  # not sampled because of the load
    refused: int
    waiting: int  # on their way into the log
    rejected: int  # spans that cannot be read, or with a bad id: never accepted
    waiting_bytes: int
    sampling_factor: float  # what load has left of the probability


@dataclass(frozen=True, slots=True)
class Head:
    """What the collector discards: by a probability, or under load, or nothing while the sampler keeps all."""

    sampler: HeadSampler
    decisions: HeadDecisions | None = None  # none: nothing is remembered, each request is decided by itself


Put = Callable[[kernel.Split], Awaitable[Sifted]]
Outcome = Receipt | DecodeError


class Intake:
    """Implements interfaces.IntakeDoor over a log."""

    def __init__(
        self,
        log: SpanLog,
        *,
        waiting_bytes_max: int,
        head: Head | None = None,
        failpoint: Callable[[str], None] = pass_by,
        random: Callable[[], float] = lambda: 1.0,
    ) -> None:
        """*head* is None where the collector discards nothing; *random* gives numbers from 0 to 1 for back-off."""
        self._log = log
        self._random = random
        self._later: trio.Nursery | None = None
        self._emptied = trio.lowlevel.ParkingLot()
        self._head = head
        self._failpoint = failpoint
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting_bytes = self._requests = self._requests_refused = self._requests_malformed = 0
        self._accepted = self._produced = self._dropped_head = self._dropped_shed = 0
        self._refused = self._waiting = self._rejected = 0

    async def accept(self, body: bytes, *, size_bytes: int, encoding: str = OTLP_PROTO) -> Receipt:
        """Append a request's spans; see interfaces.IntakeDoor."""
        self._check_room(size_bytes)
        try:
            split = _read(body, encoding)
        except DecodeError:
            self._requests_malformed += 1
            raise
        self._begin(split, size_bytes)
        if self._later is None:
            await self._take(split, size_bytes, self._put)
        else:
            self._later.start_soon(self._take, split, size_bytes, self._put_patiently)
        self._requests += 1
        self._rejected += split.rejected
        return Receipt(split.span_count, split.rejected, split.reason)

    async def accept_records(self, values: Sequence[bytes], *, encoding: str) -> list[Outcome]:
        """Append the spans of several records at once; what each came to, in their order.

        Durable when it returns, whatever senders are answered early; on the books as one request. Raises Overloaded,
        SourceUnavailable: send all of them again.
        """
        size_bytes = sum(map(len, values))
        self._check_room(size_bytes)
        found = await _read_each(values, encoding)
        good = [one for one in found if not isinstance(one, DecodeError)]
        joined = _joined(good)
        self._begin(joined, size_bytes)
        await self._take(joined, size_bytes, self._put)
        self._requests += bool(good)
        self._requests_malformed += len(found) - len(good)
        self._rejected += joined.rejected
        return [
            one if isinstance(one, DecodeError) else Receipt(one.span_count, one.rejected, one.reason) for one in found
        ]

    async def answer_early(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """While this runs senders are answered before their spans are in the log: a crash loses what waits.

        The bounds and the books are the same. What was answered is appended for as long as it takes.
        """
        async with trio.open_nursery() as self._later:
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._later = None

    def bend(self, factor: float) -> None:
        """Load has changed: keep that share of what would be kept."""
        if self._head:
            self._head.sampler.bend(factor)

    async def wait_empty(self) -> None:
        """Until nothing waits to be appended."""
        while self._waiting:
            await self._emptied.park()

    async def _take(self, split: kernel.Split, size_bytes: int, put: Put) -> None:
        """Into the log with what passes; on the books whatever happens, a cancelled request as one that was refused."""
        sifted = None
        try:
            sifted = await put(split)
        finally:
            self._waiting -= split.span_count
            self._waiting_bytes -= size_bytes
            if sifted is None:
                self._refused += split.span_count
                self._requests_refused += 1
            else:
                self._produced += sifted.span_count
                self._dropped_shed += sifted.shed_count
                self._dropped_head += split.span_count - sifted.span_count - sifted.shed_count
            if not self._waiting:
                self._emptied.unpark_all()
        if self._head and self._head.decisions and sifted.decided:
            await self._head.decisions.remember(sifted.decided)

    async def _put(self, split: kernel.Split) -> Sifted:
        sifted = await self._sift(split)
        await self._append(sifted)
        return sifted

    async def _put_patiently(self, split: kernel.Split) -> Sifted:
        """As often as it takes: its sender will not send it again."""
        backoff = Backoff(RETRY_FIRST_S, RETRY_CAP_S, self._random)
        while True:
            try:
                return await self._put(split)
            except Unavailable as exc:
                log.warning("answered spans wait", spans=split.span_count, why=str(exc))
            await trio.sleep(backoff.next_delay_s())

    def _check_room(self, size_bytes: int) -> None:
        """One request may be larger than the bound, if it is alone. Raises Overloaded."""
        if self._waiting_bytes and self._waiting_bytes + size_bytes > self._waiting_bytes_max:
            self._requests_refused += 1
            raise Overloaded(f"{self._waiting_bytes} bytes wait to be appended, at most {self._waiting_bytes_max} may")

    def _begin(self, split: kernel.Split, size_bytes: int) -> None:
        self._accepted += split.span_count
        self._waiting += split.span_count
        self._waiting_bytes += size_bytes

    async def _sift(self, split: kernel.Split) -> Sifted:
        head = self._head
        if head is None or (head.decisions is None and head.sampler.keeps_all):
            return Sifted(split.parts, split.span_count, {})
        known = await head.decisions.known([trace_id for trace_id, _ in split.parts]) if head.decisions else {}
        return head.sampler.sift(split.parts, known)

    async def _append(self, sifted: Sifted) -> None:
        count = self._log.partition_count
        batch = []
        for trace_id, part in sifted.parts:
            key = trace_id.hex().encode()
            batch.append((partition_of(key, count, hashes=kernel.hashes), Message(key, part)))
        if batch:
            await self._log.append(batch)
            self._failpoint(Failpoint.INTAKE_APPENDED)

    def statistics(self) -> IntakeStatistics:
        """A look at it."""
        return IntakeStatistics(
            requests=self._requests,
            requests_refused=self._requests_refused,
            requests_malformed=self._requests_malformed,
            accepted=self._accepted,
            produced=self._produced,
            dropped_head=self._dropped_head,
            dropped_shed=self._dropped_shed,
            refused=self._refused,
            waiting=self._waiting,
            rejected=self._rejected,
            waiting_bytes=self._waiting_bytes,
            sampling_factor=self._head.sampler.factor if self._head else 1.0,
        )


READ_BYTES = 64 << 10  # of records at once: others get their turn in between


def _read(body: bytes, encoding: str) -> kernel.Split:
    """A body taken apart by trace. Raises DecodeError where no span of it can be read."""
    transcoded = transcode(encoding, body)
    split = kernel.split_by_trace(transcoded.traces_data)
    if not transcoded.rejected:
        return split
    rejected, reason = split.rejected + transcoded.rejected, transcoded.reason
    return kernel.Split(split.parts, split.span_count, rejected, reason)


async def _read_each(values: Sequence[bytes], encoding: str) -> list[kernel.Split | DecodeError]:
    found: list[kernel.Split | DecodeError] = []
    read_bytes = READ_BYTES
    for value in values:
        read_bytes += len(value)
        if read_bytes >= READ_BYTES:
            await trio.lowlevel.checkpoint()
            read_bytes = 0
        try:
            found.append(_read(value, encoding))
        except DecodeError as fault:
            found.append(fault)
    return found


def _joined(splits: Sequence[kernel.Split]) -> kernel.Split:
    """One part a trace, whichever records its spans came in: each part is a whole TracesData, so they can be strung."""
    if len(splits) == 1:
        return splits[0]
    parts: dict[bytes, list[bytes]] = {}
    for split in splits:
        for trace_id, part in split.parts:
            parts.setdefault(trace_id, []).append(part)
    return kernel.Split(
        [(trace_id, b"".join(found)) for trace_id, found in parts.items()],
        sum(split.span_count for split in splits),
        sum(split.rejected for split in splits),
        next((split.reason for split in splits if split.reason), ""),
    )
