"""What a producer and whoever waits for it say to each other."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import trio

from spanloom.model import Message

if TYPE_CHECKING:
    from spanloom._native.produce import Pending

Outgoing = tuple[str, int, Message]  # topic, partition

POLL_S = 0.1  # how soon a thread that takes reports notices that it is to end
PURGED_S = 5.0  # the last reports of a producer that ends: they are there already


@dataclass(frozen=True, slots=True)
class Failure:
    """A record's, or the producer's."""

    text: str
    ends_producer: bool  # nothing may come of it any more


class Delivery:
    """The fate of one call's records, known once all of them have been reported on."""

    def __init__(self, count: int, token: trio.lowlevel.TrioToken, timestamp_ms: int) -> None:
        self.count = count
        self.token = token
        self.timestamp_ms = timestamp_ms  # 0: that of the append
        self.done = trio.Event()
        self.failure: Failure | None = None  # the first one's
        self.pending: Pending | None = None  # what native code counts by
        self._left = count

    def report(self, failure: Failure | None) -> None:
        """In the thread that takes reports: one record's fate is known."""
        self.failure = self.failure or failure
        self._left -= 1
        if self._left == 0:
            tell([self])

    def give_up(self) -> None:
        """No more of the records are sent than have been."""
        if self.pending is not None:
            self.pending.give_up()


def tell(ended: Sequence[Delivery]) -> None:
    """In the thread that takes reports: wake whoever waits, with one word to each trio."""
    waiting: dict[trio.lowlevel.TrioToken, list[Delivery]] = {}
    for delivery in ended:
        waiting.setdefault(delivery.token, []).append(delivery)
    for token, deliveries in waiting.items():
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(_wake, deliveries)


def _wake(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.done.set()


class Reporter:
    """The thread that takes a producer's delivery reports, until the producer is retired."""

    def __init__(self, run: Callable[[], None]) -> None:
        """*run* returns by and by once it sees `is_retired`."""
        self._retired = threading.Event()
        self._thread = threading.Thread(target=run, name="kafka-delivery", daemon=True)

    def start(self) -> None:
        """Once; whoever runs in it has the reporter by then."""
        self._thread.start()

    @property
    def is_retired(self) -> bool:
        """Whether the producer ends: what is sent now may never be reported on."""
        return self._retired.is_set()

    def retire(self) -> None:
        """End by and by; nothing may be sent any more."""
        self._retired.set()

    def stop(self) -> None:
        """End. Blocks a moment."""
        self.retire()
        self._thread.join()


class Pump(Protocol):
    """A producer and the thread that takes its delivery reports."""

    is_broken: bool  # to be retired
    reporter: Reporter

    def send(self, batch: list[Outgoing], delivery: Delivery) -> tuple[int, Failure | None]:
        """Put records into the queue, in order: how many went in before it was full, or what does not let them in."""
