"""Explains what was decided of a trace, kept or dropped: finds it in the ledger, reads its spans again, tells.

A time near which to look makes the search short. Without one the last `remember` is looked through, where the answer
mostly is, and then what lies before it, back to a bound and slowly: one search at a time, a few megabytes a second, so
that nobody's question costs the partitions their ledger.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from spanloom.core.codec.json_text import JsonValue
from spanloom.core.explain import Account, Where, explanation_json, spans_asked, status_of
from spanloom.core.lookup import Rereading, TraceSearch, stream_time_in
from spanloom.core.partitioning import partition_of
from spanloom.core.query import PENDING
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.written import policies_from_body
from spanloom.errors import ConfigError, RecordsDeleted
from spanloom.interfaces import Ledger, LedgerReader, SpanSource, Standings
from spanloom.model import Decision, LedgerRecord

NEAR = 256  # positions: a time is found so closely, the rest is read
SCAN_POSITIONS = 1024  # read at once, from the end back
SCAN_BYTES_MAX = 256 << 20  # of ledger, about two million decisions
SCAN_BYTES_PER_S = 16 << 20
REREAD_BYTES_MAX = 256 << 20  # of spans between a decision's first and its cut: a partition's minute of heavy load
SILENCE_S = 5.0  # a record that must be there and does not come: a gap at the end
BEFORE_NS = 120_000_000_000  # read before a time, so that the CHECKPOINT in force there is met: one a minute is written


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nothing of the trace was found."""

    looked_from_ns: int | None  # the earliest stream time that was looked at; None: there is nothing to look at


class DecisionReader:
    """Explanations as JSON."""

    def __init__(
        self,
        ledger: Ledger,
        source: SpanSource,
        standings: Standings,
        *,
        partition_count: int,
        remember_ns: int,
        body_of: Callable[[int], bytes | None] = lambda _: None,
    ) -> None:
        """*body_of* gives the policies of a version, where they are known beyond the ledger."""
        self._ledger = ledger
        self._source = source
        self._standings = standings
        self._partition_count = partition_count
        self._remember_ns = remember_ns
        self._body_of = body_of
        self._one_at_a_time = trio.Lock()

    async def explain(self, trace_id: bytes, *, near_ns: int | None = None) -> dict[str, JsonValue] | Unknown:
        """All that can be told. Raises LedgerUnavailable, SourceUnavailable, DecodeError."""
        partition = partition_of(trace_id.hex().encode(), self._partition_count)
        standing = self._standings.standing(trace_id)  # first: what is decided while we look is found, or was pending
        async with self._one_at_a_time:
            search = _Search(self._ledger, trace_id, partition, self._remember_ns)
            if near_ns is None:
                await search.back_from_the_end()
            else:
                await search.around(near_ns)
            found = search.last
            accounts = await self._accounts(found, trace_id, partition) if found.found else []
        if not accounts and standing != PENDING:
            return Unknown(search.looked_from_ns)
        status = PENDING if standing == PENDING else status_of([account.decision for account in accounts])
        return await trio.to_thread.run_sync(explanation_json, trace_id, Where(partition), status, accounts)

    async def _accounts(self, search: TraceSearch, trace_id: bytes, partition: int) -> list[Account]:
        spans_again = Rereading(trace_id)
        accounts = []
        for decision, rate in search.found:
            chunks = await self._spans(partition, decision, spans_again)
            spans = None if chunks is None else await trio.to_thread.run_sync(spans_asked, chunks)
            if spans is not None and len(spans) != decision.span_count:
                spans = None  # another trace's duplicates, a gap: what is not the whole is not shown as if it were
            policies = self._policies(decision.policy_version, search.bodies)
            accounts.append(Account(decision, policies, rate, spans))
        return accounts

    def _policies(self, version: int, bodies: dict[int, bytes]) -> PolicySet | None:
        body = bodies.get(version) or self._body_of(version)
        try:
            return policies_from_body(body, version=version) if body else None
        except ConfigError:  # a later release's
            return None

    async def _spans(self, partition: int, decision: Decision, spans_again: Rereading) -> list[bytes] | None:
        """The decision's spans as they lie in the log, or None where that is no longer possible."""
        chunks: list[bytes] = []
        at, size = decision.first, 0
        reader = await self._source.read(partition, at)
        try:
            while at <= decision.cut:
                with trio.move_on_after(SILENCE_S) as silence:
                    records = await reader.receive()
                if silence.cancelled_caught:
                    return None
                wanted = [record.value for record in records if record.offset <= decision.cut]
                chunks += await trio.to_thread.run_sync(_taken, spans_again, wanted, decision)
                at, size = records[-1].offset + 1, size + sum(map(len, wanted))
                if size > REREAD_BYTES_MAX:
                    return None
        except RecordsDeleted:
            return None
        finally:
            with trio.CancelScope(shield=True):
                await reader.aclose()
        return chunks


def _taken(spans_again: Rereading, values: Sequence[bytes], decision: Decision) -> list[bytes]:
    return [chunk for value in values if (chunk := spans_again.take(value, decision))]


class _Search:
    """One search of one ledger partition."""

    def __init__(self, ledger: Ledger, trace_id: bytes, partition: int, remember_ns: int) -> None:
        self._ledger = ledger
        self._trace_id = trace_id
        self._partition = partition
        self._remember_ns = remember_ns
        self.last = TraceSearch(trace_id, partition)
        self.looked_from_ns: int | None = None

    async def around(self, near_ns: int) -> None:
        """Decisions about that time: a trace is decided soon after its spans, late spans within `remember` of that."""
        low, end = await self._bounds()
        if low >= end:
            return
        await self._window(near_ns - self._remember_ns, near_ns + 2 * self._remember_ns, low, end)
        while (origin_ns := self.last.origin_ns) is not None:  # late spans: what they follow lies before them
            before = self.last
            await self._window(origin_ns, origin_ns + 2 * self._remember_ns, low, end)
            if len(self.last.found) <= len(before.found):  # retention has taken what they follow
                self.last = before
                return

    async def back_from_the_end(self) -> None:
        """The last `remember`, then further back."""
        low, end = await self._bounds()
        if low >= end:
            return
        newest_ns = await self._newest(low, end)
        await self._window(newest_ns - self._remember_ns, newest_ns, low, end)
        if not self.last.found:
            await self._scan(low, end)
        if self.last.found:
            await self.around(self.last.found[0].decision.stream_ns)

    async def _window(self, from_ns: int, to_ns: int, low: int, end: int) -> None:
        """Read what was decided between two times, and on while late spans of what was found may follow."""
        search = self.last = TraceSearch(self._trace_id, self._partition)
        at = await self._position_before(from_ns - BEFORE_NS, low, end)
        self.looked_from_ns = max(0, from_ns)
        async with self._reading(at) as reader:
            while at < end:
                records = await _some(reader)
                if not records:
                    return
                await trio.to_thread.run_sync(search.read, records)
                at = records[-1].position + 1
                last_ns = max((found.decision.stream_ns for found in search.found), default=0)
                if search.stream_ns > max(to_ns, last_ns + self._remember_ns):
                    return

    async def _scan(self, low: int, end: int) -> None:
        """Window after window from the end back, no faster than is good for the others, no further than the bound."""
        left = SCAN_BYTES_MAX
        while end > low and left > 0 and not self.last.found:
            begin = max(low, end - SCAN_POSITIONS)
            search = self.last = TraceSearch(self._trace_id, self._partition)
            size, at = 0, begin
            async with self._reading(begin) as reader:
                while at < end and (records := await _some(reader)):
                    await trio.to_thread.run_sync(search.read, records)
                    at = records[-1].position + 1
                    size += sum(len(record.body) for record in records)
            self.looked_from_ns = await self._time_at(begin, end) or self.looked_from_ns
            left, end = left - size, begin
            await trio.sleep(size / SCAN_BYTES_PER_S)

    async def _bounds(self) -> tuple[int, int]:
        """The first position there is, and the one after the last; equal where there is nothing."""
        end = await self._ledger.end(self._partition)
        if end == 0:
            return 0, 0
        async with self._reading(0) as reader:
            records = await _some(reader)
        return (records[0].position if records else end), end

    async def _newest(self, low: int, end: int) -> int:
        """The stream time at the end, about."""
        begin, size = end, 1
        while begin > low:
            begin = max(low, end - size)
            found = await self._time_at(begin, end)
            if found is not None:
                return found
            size *= 4
        return 0

    async def _position_before(self, stream_ns: int, low: int, end: int) -> int:
        """A position before which no record has that stream time or a later one, and not far before it."""
        while end - low > NEAR:
            middle = (low + end) // 2
            found = await self._time_at(middle, end)
            if found is None or found >= stream_ns:
                end = middle
            else:
                low = middle
        return low

    async def _time_at(self, position: int, end: int) -> int | None:
        """The stream time of the first record from *position* on that has one; None where there is none."""
        at = position
        async with self._reading(position) as reader:
            while at < end and (records := await _some(reader)):
                found = stream_time_in(records, self._partition)
                if found is not None:
                    return found
                at = records[-1].position + 1
        return None

    @asynccontextmanager
    async def _reading(self, position: int) -> AsyncIterator[LedgerReader]:
        reader = await self._ledger.read(self._partition, position)
        try:
            yield reader
        finally:
            with trio.CancelScope(shield=True):
                await reader.aclose()


async def _some(reader: LedgerReader) -> Sequence[LedgerRecord]:
    """The next records; none where nothing comes although something must."""
    with trio.move_on_after(SILENCE_S):
        return await reader.receive()
    return ()
