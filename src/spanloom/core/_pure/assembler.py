"""The assembler of one partition: spans in, verdicts out. Readable, and the oracle of the native one.

It owns every trace that is open, every one decided in the last `remember` of stream time, and the tally of each record
that is not wholly resolved. A call reads and returns; nothing waits. The invariants:

- The same records, ticks and policies give the same decisions, however they were batched.
- A fragment's bytes and cut follow from the log alone, so a later owner rebuilds it byte for byte.
- The safe offset is that of the first record with an unresolved span.

Source: design.md, sections 4 to 6, and the model of the ledger's rules that stands beside it.
"""

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from spanloom.core._pure import hashes
from spanloom.core._pure.gathering import Gathering
from spanloom.core._pure.sampler import Sampler, Vote
from spanloom.core._pure.wire import Placed, Resource, ScannedSpan, frame, raise_fault, read_traces_data, spans_of
from spanloom.core.assembly import AssemblerStatistics, Harvest, Limits, Move, Position, Reject, Tally
from spanloom.core.ledger import chunk_decisions, decode_decisions, encode_decision
from spanloom.core.offsets import Books, Line
from spanloom.core.partitioning import partition_of
from spanloom.core.sampling.policies import PolicySet
from spanloom.errors import DecodeError
from spanloom.model import (
    FLAG_LATE,
    MOVED_HEADER,
    NO_POLICY,
    Decision,
    Fragment,
    Identity,
    Record,
    Trigger,
    Verdict,
)

NS_PER_MS = 1_000_000
TIMESTAMP_MS_MAX = 9_000_000_000_000  # the year 2255: ns of what a sender's clock claims must fit in 63 bits


class _Past(NamedTuple):
    """A decision still remembered, an earlier owner's or one of ours."""

    decision: Decision
    identities: frozenset[Identity]


class Assembler:
    """One partition's assembler. Use: restore, configure, recall what the ledger says; then feed, confirm, resolve."""

    def __init__(self, limits: Limits, *, partition: int, partition_count: int) -> None:
        self._limits = limits
        self._partition = partition
        self._partition_count = partition_count
        self._sampler = Sampler(partition_count)
        self._open: dict[bytes, Gathering] = {}  # in order of creation
        self._timers: list[tuple[int, int, bytes]] = []  # heap of due_ns, order, trace id; stale ones are passed over
        self._past: dict[bytes, list[_Past]] = {}
        self._fading: deque[tuple[int, int, bytes]] = deque()  # stream time of decision, cut, trace id
        self._awaiting: deque[tuple[Decision, Gathering]] = deque()  # decided, not yet read back
        self._storing: dict[tuple[bytes, int], Gathering] = {}  # by trace id and first offset
        self._rebuilding: dict[tuple[bytes, int], tuple[Decision, Gathering]] = {}
        self._held: dict[int, tuple[Line, int]] = {}  # rejected or moving: line and spans, by offset
        self._created = 0
        self._undecided_bytes = self._storing_bytes = self._replayed = 0
        self._triggers = [0] * len(Trigger)
        self._decided: list[bytes] = []
        self._rebuilt: list[Fragment] = []
        self._rejects: list[Reject] = []
        self._moves: list[Move] = []
        self.restore(Position(0, 0, -1, Tally()))

    # Assignment: what is known before the first record.

    def restore(self, start: Position) -> None:
        """Begin at *start*, a committed position. Once, before anything is fed."""
        assert not self._created, "restored after feeding"
        self._start = self._offset = start.offset
        self._stream_ns = start.stream_ns
        self._last_timestamp_ns = start.last_timestamp_ns
        self._books = Books(start)

    def configure(self, policies: PolicySet) -> None:
        """Judge by *policies* from here on, open traces included."""
        self._sampler.configure(policies)

    def set_rate(self, rate: float) -> None:
        """Let consistent probabilities keep this part of what they would, from here on."""
        self._sampler.set_rate(rate)

    def recall(self, entries: bytes) -> None:
        """Take in a DECIDE body of an earlier owner: its verdicts stand, its effects may not be done yet."""
        for decision in decode_decisions(entries):
            self._remember(decision)
            self._fold(decision, is_ours=False)

    def sampler_state(self) -> bytes:
        """For a CHECKPOINT."""
        return self._sampler.state()

    def restore_sampler(self, state: bytes) -> None:
        """From a CHECKPOINT, written under the policies now configured."""
        self._sampler.restore(state)

    # Reading.

    def feed(self, records: Sequence[Record]) -> Harvest:
        """Read *records*, in offset order, none twice."""
        for record in records:
            line = self._arrive(record)
            try:
                resources = read_traces_data(record.value)
                misplaced = self._misplaced(record, resources)
            except DecodeError as exc:
                self._hold(line, 1)
                self._rejects.append(Reject(record, str(exc)))
            else:
                self._apply(line, resources, misplaced)
            self._finish_rebuilding()
        return self._harvest()

    def skip(self, record: Record) -> Harvest:
        """Pass over a record that the ledger says is dead-lettered."""
        line = self._arrive(record)
        self._books.receive(line, 1)
        self._books.resolve(line, "dead_lettered")
        self._finish_rebuilding()
        return self._harvest()

    def jump(self, offset: int) -> Harvest:
        """Go on from *offset*: retention deleted the records before it, and each counts as one span that is gone."""
        gone = offset - self._offset
        assert gone > 0, f"jump to {offset} from {self._offset}"
        line = self._books.begin(self._offset, self._stream_ns, self._last_timestamp_ns)
        self._books.receive(line, gone)
        self._books.resolve(line, "lost_to_retention", gone)
        self._offset = offset
        self._finish_rebuilding()
        return self._harvest()

    def advance(self, stream_ns: int) -> Harvest:
        """A TICK takes effect: stream time is at least *stream_ns*."""
        self._stream_ns = max(self._stream_ns, stream_ns)
        self._last_timestamp_ns = max(self._last_timestamp_ns, stream_ns)
        self._expire()
        return self._harvest()

    def shed(self, undecided_bytes: int) -> Harvest:
        """Decide the oldest open traces until at most *undecided_bytes* are left: a last resort, logged as such."""
        while self._open and self._undecided_bytes > undecided_bytes:
            self._decide(next(iter(self._open.values())), Trigger.PRESSURE, self._stream_ns)
        return self._harvest()

    # Effects.

    def confirm(self, count: int) -> tuple[Fragment, ...]:
        """The oldest *count* decisions are read back from the ledger: drops are resolved, keeps handed out to store."""
        kept = []
        for _ in range(count):
            decision, gathering = self._awaiting.popleft()
            if decision.verdict is Verdict.DROP:
                outcome = _drop_outcome(decision)
                for line in gathering.lines:
                    self._books.resolve(line, outcome)
            else:
                kept.append(self._hand_out(decision, gathering))
        return tuple(kept)

    def resolve(self, decision: Decision, outcome: str) -> None:
        """A fragment handed out is done: *outcome* is `stored` or `dead_lettered`."""
        gathering = self._storing.pop((decision.trace_id, decision.first))
        self._storing_bytes -= gathering.size_bytes
        for line in gathering.lines:
            self._books.resolve(line, outcome)

    def skipped(self, offset: int) -> None:
        """The rejected record at *offset* is dead-lettered, and the ledger says so."""
        line, count = self._held.pop(offset)
        self._books.resolve(line, "dead_lettered", count)

    def moved(self, offset: int) -> None:
        """The misplaced spans of the record at *offset* are in their own partitions."""
        line, count = self._held.pop(offset)
        self._books.resolve(line, "moved", count)

    # Questions.

    @property
    def stream_ns(self) -> int:
        """Stream time."""
        return self._stream_ns

    @property
    def undecided_bytes(self) -> int:
        """Span bytes of open traces."""
        return self._undecided_bytes

    @property
    def storing_bytes(self) -> int:
        """Span bytes of fragments handed out and not resolved."""
        return self._storing_bytes

    def safe_position(self) -> Position:
        """What may be committed."""
        return self._books.safe(Position(self._offset, self._stream_ns, self._last_timestamp_ns, Tally()))

    def standing(self, trace_id: bytes) -> str | None:
        """`pending`, `dropped`, `kept`, or None where the trace is not known (any more)."""
        if trace_id in self._open:
            return "pending"
        past = self._past.get(trace_id)
        if not past:
            return None
        if past[-1].decision.verdict is Verdict.DROP:
            return "dropped"
        waiting = any(decision.trace_id == trace_id for decision, _ in self._awaiting)
        return "pending" if waiting or any(key[0] == trace_id for key in self._storing) else "kept"

    def statistics(self) -> AssemblerStatistics:
        """A look at it."""
        return AssemblerStatistics(
            open_traces=len(self._open),
            remembered=len(self._fading),
            undecided_bytes=self._undecided_bytes,
            storing_bytes=self._storing_bytes,
            stream_ns=self._stream_ns,
            offset=self._offset,
            tally=self._books.total.copy(),
            replayed=self._replayed,
            triggers=tuple(self._triggers),
        )

    # A record.

    def _arrive(self, record: Record) -> Line:
        """Move stream time to the record, decide what that makes due, open the record's line."""
        assert record.offset >= self._offset, f"offset {record.offset} fed at {self._offset}"
        line = self._books.begin(record.offset, self._stream_ns, self._last_timestamp_ns)
        timestamp = max(-TIMESTAMP_MS_MAX, min(record.timestamp_ms, TIMESTAMP_MS_MAX)) * NS_PER_MS
        last = self._last_timestamp_ns
        if last < 0 or timestamp <= last + self._limits.skew_max_ns:
            self._stream_ns = max(self._stream_ns, timestamp)
        self._last_timestamp_ns = timestamp
        self._expire()  # before the record counts as read: decisions on its own spans are not forgotten yet
        self._offset = record.offset + 1
        return line

    def _hold(self, line: Line, count: int) -> None:
        self._books.receive(line, count)
        self._held[line.offset] = (line, count)

    def _misplaced(self, record: Record, resources: list[Resource]) -> frozenset[bytes]:
        """The record's traces that belong elsewhere. Raises DecodeError unless the whole record can be used."""
        traces = set()
        for span in spans_of(resources):
            if span.fault:
                raise_fault(span)
            traces.add(span.trace_id)
        misplaced = frozenset(trace for trace in traces if not self._is_mine(trace))
        if misplaced and any(name == MOVED_HEADER for name, _ in record.headers):
            raise DecodeError("moved_twice", f"traces of partition {self._partition}", min(misplaced).hex())
        return misplaced

    def _is_mine(self, trace_id: bytes) -> bool:
        known = trace_id in self._open or trace_id in self._past
        return known or partition_of(trace_id.hex().encode(), self._partition_count) == self._partition

    def _apply(self, line: Line, resources: list[Resource], misplaced: frozenset[bytes]) -> None:
        touched: dict[int, Gathering] = {}
        moving: dict[bytes, list[Placed]] = {}
        for r, resource in enumerate(resources):
            for s, scope in enumerate(resource.scopes):
                for span in scope.spans:
                    placed = Placed(r, s, span.span)
                    if span.trace_id in misplaced:
                        moving.setdefault(span.trace_id, []).append(placed)
                        continue
                    self._books.receive(line, 1)
                    gathering = self._take(line, span, placed)
                    if gathering:
                        touched[id(gathering)] = gathering
        for gathering in touched.values():
            gathering.seal(resources)
        self._decide_large(list(touched.values()))
        if moving:
            self._hold(line, sum(map(len, moving.values())))
            parts = tuple((trace_id, frame(resources, placed)) for trace_id, placed in moving.items())
            self._moves.append(Move(line.offset, parts))

    def _decide_large(self, touched: list[Gathering]) -> None:
        limits = self._limits
        for gathering in sorted(touched, key=lambda gathering: gathering.order):
            too_large = len(gathering.spans) > limits.spans_max or gathering.size_bytes > limits.bytes_max
            if too_large and self._open.get(gathering.trace_id) is gathering:
                self._decide(gathering, Trigger.SIZE, self._stream_ns)

    # A span.

    def _take(self, line: Line, span: ScannedSpan, placed: Placed) -> Gathering | None:
        """Put a span where it belongs; what took it in, or None where it is settled at once."""
        identity = Identity(span.span_id, span.kind, hashes.content_hash(span.span))
        past = self._remembered(span.trace_id, line.offset)
        for known in past:
            if line.offset <= known.decision.cut:
                return self._replay(line, span, placed, known.decision)
        gathering = self._open.get(span.trace_id)
        inherited = gathering.inherited if gathering else past[-1].decision if past else None
        if inherited and inherited.verdict is not Verdict.KEEP and not span.error:
            self._books.resolve(line, "late")
            return None
        if any(identity in known.identities for known in past) or (gathering and gathering.holds(identity)):
            self._books.resolve(line, "duplicate")
            if gathering:
                gathering.cut = line.offset
            return None
        if gathering is None:
            gathering = self._open[span.trace_id] = self._gather(span.trace_id, line.offset, inherited)
        if gathering.add(span, identity, placed, line):
            self._books.note(line, "conflicting")
        self._undecided_bytes += len(span.span)
        gathering.last_ns = self._stream_ns
        self._schedule(gathering)
        return gathering

    def _gather(self, trace_id: bytes, offset: int, inherited: Decision | None) -> Gathering:
        self._created += 1
        now = self._stream_ns
        return Gathering(trace_id, self._created, offset, offset, inherited, born_ns=now, last_ns=now)

    def _remembered(self, trace_id: bytes, offset: int) -> list[_Past]:
        """The trace's decisions that count at *offset*: not forgotten, not of spans yet to come in a replay.

        One whose own spans are read again always counts: where retention took records away, stream time in a replay
        may run ahead of what it was.
        """
        horizon = self._stream_ns - self._limits.remember_ns
        return [
            past
            for past in self._past.get(trace_id, ())
            if past.decision.first <= offset and (past.decision.stream_ns >= horizon or offset <= past.decision.cut)
        ]

    # Replay: a span that an earlier owner had decided.

    def _replay(self, line: Line, span: ScannedSpan, placed: Placed, decision: Decision) -> Gathering | None:
        self._replayed += 1
        if decision.verdict is Verdict.LATE_ERROR and not span.error:
            self._books.resolve(line, "late")
            return None
        if decision.first < self._start:  # its fragment was done before the commit we start from
            self._books.resolve(line, "stored" if decision.verdict is not Verdict.DROP else _drop_outcome(decision))
            return None
        key = (decision.trace_id, decision.first)
        if key not in self._rebuilding:
            self._rebuilding[key] = (decision, self._gather(decision.trace_id, decision.first, decision))
        gathering = self._rebuilding[key][1]
        identity = Identity(span.span_id, span.kind, hashes.content_hash(span.span))
        before = [past for past in self._remembered(span.trace_id, line.offset) if past.decision.cut < decision.first]
        if gathering.holds(identity) or any(identity in past.identities for past in before):
            self._books.resolve(line, "duplicate")
            return None
        if gathering.add(span, identity, placed, line):
            self._books.note(line, "conflicting")
        if decision.verdict is Verdict.DROP:
            self._books.resolve(line, _drop_outcome(decision))
        return gathering

    def _finish_rebuilding(self) -> None:
        if not self._rebuilding:
            return
        done = [key for key, (decision, _) in self._rebuilding.items() if decision.cut < self._offset]
        for key in done:
            decision, gathering = self._rebuilding.pop(key)
            if decision.verdict is not Verdict.DROP:
                self._rebuilt.append(self._hand_out(decision, gathering))

    def _hand_out(self, decision: Decision, gathering: Gathering) -> Fragment:
        self._storing[decision.trace_id, decision.first] = gathering
        self._storing_bytes += gathering.size_bytes
        return Fragment(replace(decision, identities=()), b"".join(gathering.chunks))

    # Time.

    def next_deadline(self) -> int | None:
        """The earliest stream time in ns at which a trace may be due; None where none is open."""
        while self._timers and self._is_stale(self._timers[0]):
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _is_stale(self, timer: tuple[int, int, bytes]) -> bool:
        due, order, trace_id = timer
        gathering = self._open.get(trace_id)
        return gathering is None or gathering.order != order or gathering.due_ns != due

    def _schedule(self, gathering: Gathering) -> None:
        """Look at it no later than it can be due: a span may have made it complete, so `quiet` counts."""
        earliest = min(gathering.last_ns + self._limits.quiet_ns, gathering.born_ns + self._limits.age_max_ns)
        if gathering.due_ns == 0 or earliest < gathering.due_ns:
            self._look_at(gathering, earliest)

    def _look_at(self, gathering: Gathering, due_ns: int) -> None:
        gathering.due_ns = due_ns
        heapq.heappush(self._timers, (due_ns, gathering.order, gathering.trace_id))

    def _expire(self) -> None:
        """Decide every trace due at stream time, in order of deadline, then of creation."""
        due = []
        while (earliest := self.next_deadline()) is not None and earliest <= self._stream_ns:
            gathering = self._open[heapq.heappop(self._timers)[2]]
            deadline, trigger = self._deadline(gathering)
            if deadline <= self._stream_ns:
                gathering.due_ns = -1  # taken
                due.append((deadline, gathering.order, trigger, gathering))
            else:
                self._look_at(gathering, deadline)
        for deadline, _, trigger, gathering in sorted(due, key=lambda entry: entry[:2]):
            self._decide(gathering, trigger, deadline)

    def _deadline(self, gathering: Gathering) -> tuple[int, Trigger]:
        limits = self._limits
        age = gathering.born_ns + limits.age_max_ns
        if gathering.is_complete():
            quiet, trigger = gathering.last_ns + limits.quiet_ns, Trigger.COMPLETE
        else:
            quiet, trigger = gathering.last_ns + limits.idle_ns, Trigger.IDLE
        return (quiet, trigger) if quiet <= age else (age, Trigger.AGE)

    # Verdicts.

    def _decide(self, gathering: Gathering, trigger: Trigger, stream_ns: int) -> None:
        del self._open[gathering.trace_id]
        self._undecided_bytes -= gathering.size_bytes
        self._triggers[trigger] += 1
        features = gathering.features(stream_ns)
        past = gathering.inherited
        version = past.policy_version if past else self._sampler.policies.version
        if past is None:
            vote = self._sampler.judge(features, gathering.chunks)
        elif past.verdict is Verdict.KEEP:
            vote = Vote(Verdict.KEEP, past.votes, past.policy, past.threshold)
        else:
            vote = Vote(Verdict.LATE_ERROR, 0, NO_POLICY, 0)
        decision = Decision(
            trace_id=gathering.trace_id,
            verdict=vote.verdict,
            trigger=trigger,
            policy=vote.policy,
            policy_version=version,
            votes=vote.votes,
            threshold=vote.threshold,
            flags=gathering.flags(),
            first=gathering.first,
            cut=gathering.cut,
            stream_ns=stream_ns,
            origin_ns=past.origin_ns if past else stream_ns,
            operation=features.operation,
            duration_ns=features.duration_ns,
            span_count=features.span_count,
            size_bytes=features.size_bytes,
            identities=tuple(gathering.identities) if vote.verdict is not Verdict.DROP else (),
        )
        self._fold(decision, is_ours=True)
        self._remember(decision)
        self._awaiting.append((decision, gathering))
        self._decided.append(encode_decision(decision))

    def _fold(self, decision: Decision, *, is_ours: bool) -> None:
        if not decision.flags & FLAG_LATE:
            self._sampler.fold(decision, is_ours=is_ours)

    def _remember(self, decision: Decision) -> None:
        """Know the decision until `remember` has passed; forget those whose time is over."""
        past = _Past(replace(decision, identities=()), frozenset(decision.identities))
        self._past.setdefault(decision.trace_id, []).append(past)
        self._fading.append((decision.stream_ns, decision.cut, decision.trace_id))
        horizon = self._stream_ns - self._limits.remember_ns
        while self._fading and self._fading[0][0] < horizon and self._fading[0][1] < self._offset:
            _, cut, trace_id = self._fading.popleft()
            self._past[trace_id] = [past for past in self._past[trace_id] if past.decision.cut != cut]
            if not self._past[trace_id]:
                del self._past[trace_id]

    def _harvest(self) -> Harvest:
        harvest = Harvest(
            chunk_decisions(self._decided, self._limits.decide_bytes),
            tuple(self._rebuilt),
            tuple(self._rejects),
            tuple(self._moves),
        )
        self._decided, self._rebuilt, self._rejects, self._moves = [], [], [], []
        return harvest


def _drop_outcome(decision: Decision) -> str:
    return "pressure" if decision.trigger is Trigger.PRESSURE else "not_sampled"
