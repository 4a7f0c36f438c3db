"""A reader of one partition, whichever client fetches for it: what it gives, where it goes on, what an error means.

Not reading is how a partition is held back: what is fetched ahead is bounded, and the others go on. Fetching starts
with the first `receive`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

import trio

from spanloom.adapters.kafka.handle import Place, Watermarks
from spanloom.adapters.kafka.librdkafka import ERR_AUTO_OFFSET_RESET
from spanloom.errors import RecordsDeleted, SourceUnavailable, Unavailable
from spanloom.interfaces import PartitionReader
from spanloom.model import Record

BATCH_BYTES = 1 << 20  # what a reader gives at once
AHEAD_S = 0.25  # how soon a reader beyond the end looks whether the end has come


class Taken(NamedTuple):
    """Records in offset order, one at least, and the offset after the last."""

    records: Sequence[Record]
    end: int


class Problem(NamedTuple):
    """What came in place of a record, after all that was taken: librdkafka's error."""

    code: int
    text: str


class Stream(Protocol):
    """One partition as it is fetched from one offset on."""

    async def open(self) -> None:
        """Begin to fetch. Raises SourceUnavailable; closed in any case."""

    async def close(self) -> None:
        """Fetch no more; not to be cancelled."""

    def take(self) -> Taken | Problem | None:
        """What is there, at most a batch of it; None: nothing. Nothing is taken beyond a problem: a gap is a loss."""

    async def wait(self) -> None:
        """Wait until there may be something. Raises ClosedResourceError, or returns, once woken."""

    def wake(self) -> None:
        """Whoever waits does no longer: the stream is about to be closed."""


class Consumers(Protocol):
    """What fetches partitions, any number at once."""

    def read(
        self,
        start: Place,
        *,
        batch_bytes: int = BATCH_BYTES,
        unavailable: type[Unavailable] = SourceUnavailable,
        steps_over_gaps: bool = False,
    ) -> PartitionReader:
        """A reader of one partition from *start* on.

        It raises *unavailable*; with *steps_over_gaps* never RecordsDeleted, but goes on at the first record there is.
        """

    async def watermarks(self, topic: str, partition: int) -> Watermarks:
        """Where the partition begins and ends now. Raises SourceUnavailable."""

    def close(self) -> None:
        """Close them all. Blocks a moment."""


class KafkaReader:
    """Implements interfaces.PartitionReader."""

    def __init__(
        self,
        start: Place,
        stream_from: Callable[[int], Stream],
        watermarks: Callable[[str, int], Awaitable[Watermarks]],
        *,
        unavailable: type[Unavailable],
        steps_over_gaps: bool,
    ) -> None:
        """*stream_from* makes a stream of *start*'s partition from an offset on. See Consumers.read."""
        self._topic, self._partition = start.topic, start.partition
        self._next = start.offset
        self._stream_from = stream_from
        self._ask_watermarks = watermarks
        self._unavailable = unavailable
        self._steps_over_gaps = steps_over_gaps
        self._stream: Stream | None = None
        self._closed = False

    async def receive(self) -> Sequence[Record]:
        """See interfaces.PartitionReader."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                await self._stop()  # of one that was about to open when the reader was closed
                raise trio.ClosedResourceError(f"the reader of {self._topic}/{self._partition} is closed")
            if self._stream is None:
                await self._start()
                continue
            match self._stream.take():
                case Taken(records, end):
                    self._next = end
                    return records
                case Problem() as problem:
                    await self._mend(problem)
                case None:
                    await self._stream.wait()

    async def aclose(self) -> None:
        """Give up the reader."""
        if not self._closed:
            self._closed = True
            if self._stream is not None:
                self._stream.wake()
            await self._stop()
        await trio.lowlevel.checkpoint()

    async def _start(self) -> None:
        stream = self._stream_from(self._next)
        try:
            await stream.open()
        except SourceUnavailable as exc:
            await stream.close()
            raise self._unavailable(str(exc)) from exc
        self._stream = stream  # whole: nothing may ever be asked of one that is not

    async def _stop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    async def _mend(self, problem: Problem) -> None:
        """An error came instead of a record. Raises RecordsDeleted, Unavailable, or makes it go on."""
        await self._stop()
        if problem.code != ERR_AUTO_OFFSET_RESET:
            raise self._unavailable(f"{self._topic}/{self._partition}: {problem.text}")
        marks = await self._watermarks()
        if self._next < marks.low:
            if not self._steps_over_gaps:
                raise RecordsDeleted(self._partition, self._next, marks.low)
            self._next = marks.low
        elif self._next > marks.high:
            await trio.sleep(AHEAD_S)

    async def _watermarks(self) -> Watermarks:
        try:
            return await self._ask_watermarks(self._topic, self._partition)
        except SourceUnavailable as exc:
            raise self._unavailable(str(exc)) from exc
