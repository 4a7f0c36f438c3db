"""Group commit: whoever comes first writes for all who wait, in one transaction; all of them share its outcome.

The leader cannot be cancelled while it writes, for it writes other people's records too. A follower that is cancelled
before a leader took its item withdraws it; after that the item may be written, as the interfaces allow.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

from spanloom.errors import SpanloomError, Unavailable

Item = TypeVar("Item")

GROUP_BYTES_MAX = 16 << 20  # of one transaction: bounds its memory and how long the next one waits


@dataclass(slots=True, eq=False)
class _Waiter(Generic[Item]):
    item: Item
    size_bytes: int
    wake: trio.Event = field(default_factory=trio.Event)  # set once: settled, or first in line and now to lead
    settled: bool = False
    error: SpanloomError | None = None


class Coalescer(Generic[Item]):
    """Joins concurrent writes of one file.

    `flush` writes the items in order, all or none, or raises; whatever SpanloomError it raises, every waiter gets.
    """

    def __init__(self, flush: Callable[[list[Item]], Awaitable[None]], role: type[Unavailable]) -> None:
        self._flush = flush
        self._role = role
        self._waiting: deque[_Waiter[Item]] = deque()
        self._busy = False  # someone leads or has been woken to

    async def submit(self, item: Item, *, size_bytes: int) -> None:
        """Write *item*; returns when it is written."""
        await trio.lowlevel.checkpoint()  # before anything is done: here a cancelled call has had no effect
        waiter = _Waiter(item, size_bytes)
        self._waiting.append(waiter)
        if self._busy:
            await self._await_turn(waiter)
        if not waiter.settled:
            await self._lead()
        if waiter.error is not None:
            raise type(waiter.error)(*waiter.error.args) from waiter.error  # a traceback for each who waited

    async def _await_turn(self, waiter: _Waiter[Item]) -> None:
        try:
            await waiter.wake.wait()
        finally:
            if not waiter.wake.is_set() and waiter in self._waiting:
                self._waiting.remove(waiter)

    async def _lead(self) -> None:
        self._busy = True
        await trio.lowlevel.cancel_shielded_checkpoint()  # who was woken together with the leader joins it
        group = self._take_group()
        error: SpanloomError | None = self._role("the write ended in an error nobody foresaw")
        try:
            with trio.CancelScope(shield=True):
                await self._flush([waiter.item for waiter in group])
            error = None
        except SpanloomError as refusal:
            error = refusal
        finally:
            self._settle(group, error)

    def _take_group(self) -> list[_Waiter[Item]]:
        group = [self._waiting.popleft()]
        size_bytes = group[0].size_bytes
        while self._waiting and size_bytes + self._waiting[0].size_bytes <= GROUP_BYTES_MAX:
            size_bytes += self._waiting[0].size_bytes
            group.append(self._waiting.popleft())
        return group

    def _settle(self, group: list[_Waiter[Item]], error: SpanloomError | None) -> None:
        for waiter in group:
            waiter.settled, waiter.error = True, error
            waiter.wake.set()
        if self._waiting:
            self._waiting[0].wake.set()  # stays busy: the next leader has been named
        else:
            self._busy = False
