"""What a partition's ledger says of one trace, and where in the ledger a time lies. Sans-IO: fed with its records."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spanloom.core._pure import hashes
from spanloom.core._pure.sampler import rate_of_state
from spanloom.core._pure.wire import Placed, frame, read_traces_data
from spanloom.core.ledger import Checkpoint, Config, Decide, Rate, Tick, decode, decode_decisions
from spanloom.errors import DecodeError
from spanloom.model import Decision, Identity, LedgerRecord, Verdict


class Found(NamedTuple):
    """One decision on the trace."""

    decision: Decision
    rate: float | None  # in force; None: no record before it in what was read says


@dataclass(slots=True)
class TraceSearch:
    """Looks for a trace in records that are read in order, from anywhere on."""

    trace_id: bytes
    partition: int
    found: list[Found] = field(default_factory=list)
    bodies: dict[int, bytes] = field(default_factory=dict)  # of the policies met on the way, by version
    stream_ns: int = 0  # of the last record that has one
    _epoch: int = 0
    _rate: float | None = None

    def read(self, records: Sequence[LedgerRecord]) -> None:
        """Take records in. Raises DecodeError where the ledger cannot be read."""
        for record in records:
            epoch, entry = decode(record.body, partition=self.partition, position=record.position)
            if epoch < self._epoch:
                continue  # of an owner that was fenced off
            self._epoch = epoch
            match entry:
                case Decide(entries):
                    self._decided(entries)
                case Tick(_, stream_ns):
                    self.stream_ns = max(self.stream_ns, stream_ns)
                case Config(_, version, body):
                    self.bodies[version] = body
                case Rate(_, rate):
                    self._rate = rate
                case Checkpoint(_, _, sampler):
                    self._rate = rate_of_state(sampler)

    def _decided(self, entries: bytes) -> None:
        first = next(decode_decisions(entries), None)
        self.stream_ns = max(self.stream_ns, first.stream_ns if first else 0)
        if self.trace_id not in entries:
            return
        mine = (decision for decision in decode_decisions(entries) if decision.trace_id == self.trace_id)
        self.found += [Found(decision, self._rate) for decision in mine]

    @property
    def origin_ns(self) -> int | None:
        """When the life began that the first decision found belongs to, if that is an earlier one."""
        first = self.found[0].decision if self.found else None
        return first.origin_ns if first and first.origin_ns < first.stream_ns else None


def stream_time_in(records: Sequence[LedgerRecord], partition: int) -> int | None:
    """The stream time of the first record that has one."""
    for record in records:
        _, entry = decode(record.body, partition=partition, position=record.position)
        match entry:
            case Tick(_, stream_ns):
                return stream_ns
            case Decide(entries):
                for decision in decode_decisions(entries):
                    return decision.stream_ns
    return None


@dataclass(slots=True)
class Rereading:
    """Finds the spans of a trace's decisions again, in the records that they came in: each span once."""

    trace_id: bytes
    _seen: set[Identity] = field(default_factory=set)

    def take(self, record: bytes, decision: Decision) -> bytes:
        """TracesData of the spans of *decision* in a record's value; nothing where there is none."""
        if self.trace_id not in record:
            return b""
        try:
            resources = read_traces_data(record)
        except DecodeError:
            return b""  # it went to the dead letters
        placed = []
        for r, resource in enumerate(resources):
            for s, scope in enumerate(resource.scopes):
                for span in scope.spans:
                    wanted = span.error or decision.verdict is not Verdict.LATE_ERROR
                    identity = Identity(span.span_id, span.kind, hashes.content_hash(span.span))
                    if span.trace_id == self.trace_id and wanted and identity not in self._seen:
                        self._seen.add(identity)
                        placed.append(Placed(r, s, span.span))
        return frame(resources, placed)
