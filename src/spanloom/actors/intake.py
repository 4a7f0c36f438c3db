"""The door of the log: a request's spans are split by trace, keyed, and appended before the sender is answered.

Bounded in bytes: above the bound a sender is told to come back, never dropped. Books: accepted = appended + refused.
"""

from collections.abc import Callable
from dataclasses import dataclass

from spanloom.actors.context import pass_by
from spanloom.core import kernel
from spanloom.core.failpoints import Failpoint
from spanloom.core.partitioning import partition_of
from spanloom.errors import Overloaded
from spanloom.interfaces import SpanLog
from spanloom.model import Message


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a request's spans. Implements interfaces.Accepted."""

    accepted: int
    rejected: int
    reason: str


@dataclass(frozen=True, slots=True)
class IntakeStatistics:
    """Since the start."""

    requests: int
    accepted: int  # spans, appended
    rejected: int  # spans with a bad id
    refused: int  # requests turned away: the bound was reached
    waiting_bytes: int


class Intake:
    """Implements interfaces.IntakeDoor over a log."""

    def __init__(
        self, log: SpanLog, *, waiting_bytes_max: int, failpoint: Callable[[str], None] = pass_by
    ) -> None:
        self._log = log
        self._failpoint = failpoint
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting_bytes = self._requests = self._accepted = self._rejected = self._refused = 0

    async def accept(self, traces_data: bytes, *, size_bytes: int) -> Receipt:
        """Append a request's spans; see interfaces.IntakeDoor."""
        if self._waiting_bytes and self._waiting_bytes + size_bytes > self._waiting_bytes_max:
            self._refused += 1
            raise Overloaded(f"{self._waiting_bytes} bytes wait to be appended, at most {self._waiting_bytes_max} may")
        split = kernel.split_by_trace(traces_data)
        count = self._log.partition_count
        batch = []
        for trace_id, part in split.parts:
            key = trace_id.hex().encode()
            batch.append((partition_of(key, count, hashes=kernel.hashes), Message(key, part)))
        self._waiting_bytes += size_bytes
        try:
            if batch:
                await self._log.append(batch)
                self._failpoint(Failpoint.INTAKE_APPENDED)
        finally:
            self._waiting_bytes -= size_bytes
        self._requests += 1
        self._accepted += split.span_count
        self._rejected += split.rejected
        return Receipt(split.span_count, split.rejected, split.reason)

    def statistics(self) -> IntakeStatistics:
        """A look at it."""
        return IntakeStatistics(self._requests, self._accepted, self._rejected, self._refused, self._waiting_bytes)
