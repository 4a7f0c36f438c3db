"""Where each partition of a log ends, who sleeps there until it moves, and the reader that does so. One process."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio

Item = TypeVar("Item")


class Tails:
    """The end of every partition. No polling: an append that is durable publishes it."""

    def __init__(self, ends: Sequence[int]) -> None:
        self._ends = list(ends)
        self._sleepers = [trio.lowlevel.ParkingLot() for _ in ends]

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, partition: int) -> int:
        return self._ends[partition]

    def publish(self, ends: Sequence[int]) -> None:
        """Move the ends forward and wake who sleeps at those that moved."""
        for partition, end in enumerate(ends):
            if end > self._ends[partition]:
                self._ends[partition] = end
                self.wake(partition)

    def wake(self, partition: int) -> None:
        """Let everyone at the end of *partition* look again."""
        self._sleepers[partition].unpark_all()

    async def sleep(self, partition: int) -> None:
        """Sleep until woken."""
        await self._sleepers[partition].park()


class TailReader(Generic[Item]):
    """A reader of one partition: a PartitionReader of records, a LedgerReader of ledger records.

    `fetch(offset)` gives what lies from *offset* on, as much as one batch takes, and the offset to go on from; it gives
    nothing where only a gap lies. The place moves after the last checkpoint, so a cancelled call loses nothing.
    """

    def __init__(
        self, tails: Tails, partition: int, offset: int, fetch: Callable[[int], Awaitable[tuple[Sequence[Item], int]]]
    ) -> None:
        self._tails = tails
        self._partition = partition
        self._next = offset
        self._fetch = fetch
        self._closed = False

    async def receive(self) -> Sequence[Item]:
        """Wait for at least one. Raises what `fetch` does; trio.ClosedResourceError after `aclose`."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._closed:
                raise trio.ClosedResourceError(f"the reader of partition {self._partition} is closed")
            if self._next >= self._tails[self._partition]:
                await self._tails.sleep(self._partition)
                continue
            found, self._next = await self._fetch(self._next)
            if found:
                return found

    async def aclose(self) -> None:
        """Give up the reader."""
        self._closed = True
        self._tails.wake(self._partition)
        await trio.lowlevel.checkpoint()
