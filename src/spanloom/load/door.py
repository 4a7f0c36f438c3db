"""Sends generated requests through an intake's door in this process: straight into the log, with no HTTP between.

What `client.py` does over the network. A request is repeated, byte for byte, while the log is away or full.
"""

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import trio

from spanloom.core.backoff import Backoff
from spanloom.errors import DecodeError, Unavailable
from spanloom.interfaces import IntakeDoor
from spanloom.load.client import DELAY_CAP_S, FIRST_DELAY_S, LoadStatistics, Paced, Report
from spanloom.load.record import Fate
from spanloom.load.workload import Request


class DoorClient:
    """As LoadClient, for a door."""

    def __init__(self, door: IntakeDoor, *, connections: int = 4, give_up_s: float = 600.0, seed: int = 0) -> None:
        """*connections* is how many requests may be on their way at once."""
        self._door = door
        self._connections = connections
        self._give_up_s = give_up_s
        self._random = Random(seed)
        self._statistics = LoadStatistics()

    def statistics(self) -> LoadStatistics:
        """A snapshot; may be asked while sending."""
        return self._statistics

    async def send(self, requests: Iterable[Request], report: Report, *, spans_per_s: float | None = None) -> None:
        """See LoadClient."""
        source = Paced(iter(requests), spans_per_s)
        async with trio.open_nursery() as nursery:
            for _ in range(self._connections):
                nursery.start_soon(self._keep_sending, source, report)

    async def _keep_sending(self, source: Paced, report: Report) -> None:
        while (request := await source.take()) is not None:
            self._count(requests_sent=1, spans_sent=request.span_count, bytes_sent=len(request.body))
            report(request, await self._send_one(request))

    async def _send_one(self, request: Request) -> Fate:
        give_up_at = trio.current_time() + self._give_up_s
        backoff = Backoff(FIRST_DELAY_S, DELAY_CAP_S, self._random.random)
        while True:
            try:
                receipt = await self._door.accept(request.body, size_bytes=len(request.body))
            except DecodeError as exc:
                self._count(requests_refused=1)
                self._statistics = replace(self._statistics, last_refusal=str(exc))
                return Fate.REFUSED
            except Unavailable:
                delay_s = backoff.next_delay_s()
                if trio.current_time() + delay_s >= give_up_at:
                    self._count(requests_abandoned=1)
                    return Fate.ABANDONED
                self._count(retries=1)
                await trio.sleep(delay_s)
            else:
                if receipt.rejected:
                    self._count(requests_partial=1, spans_rejected=receipt.rejected)
                    return Fate.PARTIAL
                self._count(requests_acknowledged=1, spans_acknowledged=request.span_count)
                return Fate.ACKNOWLEDGED

    def _count(self, **more: int) -> None:
        now = self._statistics
        self._statistics = replace(now, **{name: getattr(now, name) + count for name, count in more.items()})
