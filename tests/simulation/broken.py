"""The rules of the ledger, each broken alone: what the simulation must notice. Small copies, none of it in `src`."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace

from spanloom.core._pure.assembler import Assembler
from spanloom.core._pure.gathering import Gathering
from spanloom.core.assembly import Harvest, Position, Tally
from spanloom.core.ledger import COUNT, Decide, Entry, Fence, Tick, decode, decode_decisions, encode, encode_decision
from spanloom.core.ownership import Ownership, Phase
from spanloom.errors import StoreRejected
from spanloom.model import Committed, Decision, Document, Fragment, LedgerRecord, Record, Trigger, Verdict
from tests.simulation import wire
from tests.simulation.rules import Node


class CommitsBeforeTheLedger(Node):
    """A decided span counts as resolved at once."""

    class assembler_type(Assembler):  # noqa: N801
        def _decide(self, gathering: Gathering, trigger: Trigger, stream_ns: int) -> None:
            super()._decide(gathering, trigger, stream_ns)
            for line in gathering.lines:
                self._books.resolve(line, "stored")
            gathering.lines = []


class AcceptsStaleEpochs(Node):
    """Nobody is fenced off, and what a fenced owner wrote counts."""

    class ownership_type(Ownership):  # noqa: N801
        def read_back(self, record: LedgerRecord) -> tuple[Fragment, ...]:
            epoch, entry = decode(record.body, partition=0, position=record.position)
            if self.phase is Phase.OWNING:
                return () if isinstance(entry, Fence) else super().read_back(record)
            if epoch < self._epoch and not isinstance(entry, Fence):
                record = LedgerRecord(record.position, encode(0, self._epoch, entry))
            return super().read_back(record)


class ActsOnWhatItSent(Node):
    """No read-back: a decision takes effect when it is appended."""

    class ownership_type(Ownership):  # noqa: N801
        def _take_effect(self, entry: Entry) -> tuple[Fragment, ...]:
            return () if isinstance(entry, Decide) else super()._take_effect(entry)

    def _reap(self, harvest: Harvest) -> None:
        super()._reap(harvest)
        for body in harvest.decisions:
            self.to_store += self.assembler.confirm(Decide(body).count)


class KnowsNoCut(Node):
    """Spans that came late join a fragment that is rebuilt."""

    class assembler_type(Assembler):  # noqa: N801
        def recall(self, entries: bytes) -> None:
            later = [encode_decision(replace(d, cut=d.cut + 4)) for d in decode_decisions(entries)]
            super().recall(COUNT.pack(len(later)) + b"".join(later))


class ForgetsWhatWasCharged(Node):
    """A successor's buckets are as full as if its predecessors had kept nothing."""

    class assembler_type(Assembler):  # noqa: N801
        def _fold(self, decision: Decision, *, is_ours: bool) -> None:
            super()._fold(decision, is_ours=True)


class StoresByTraceId(Node):
    """One document a trace: a further fragment finds its id taken."""

    def put(self, fragment: Fragment) -> None:
        alone = replace(fragment, decision=replace(fragment.decision, first=0, origin_ns=0))
        self.world.store.setdefault((0, alone.decision.trace_id, 0), fragment)


class CommitsPastOpenTraces(Node):
    """What is read and not yet decided holds no offset."""

    class assembler_type(Assembler):  # noqa: N801
        def safe_position(self) -> Position:
            if self._awaiting or self._storing or self._rebuilding or self._held:
                return super().safe_position()
            return Position(self._offset, self._stream_ns, self._last_timestamp_ns, Tally())


class StoresLateSpansUnlogged(Node):
    """A further fragment goes to the store without an entry in the ledger."""

    class assembler_type(Assembler):  # noqa: N801
        def _decide(self, gathering: Gathering, trigger: Trigger, stream_ns: int) -> None:
            super()._decide(gathering, trigger, stream_ns)
            if gathering.inherited and gathering.inherited.verdict is Verdict.KEEP:
                self._decided.pop()
                self._rebuilt.append(self._hand_out(*self._awaiting.pop()))


class LooksAtTimersByBatch(Node):
    """Traces are decided at the end of what was read at once, not before each record."""

    class assembler_type(Assembler):  # noqa: N801
        batched = False

        def feed(self, records: Sequence[Record]) -> Harvest:
            self.batched = True
            harvest = super().feed(records)
            self.batched = False
            self._expire()
            return harvest + self._harvest()

        def _expire(self) -> None:
            if not self.batched:
                super()._expire()


class TakesTheDayAnew(Node):
    """A rebuilt fragment is filed under the day of its replay."""

    class assembler_type(Assembler):  # noqa: N801
        def _finish_rebuilding(self) -> None:
            rebuilt = len(self._rebuilt)
            super()._finish_rebuilding()
            self._rebuilt[rebuilt:] = [
                replace(fragment, decision=replace(fragment.decision, origin_ns=self._stream_ns))
                for fragment in self._rebuilt[rebuilt:]
            ]


class TicksWithoutEpoch(Node):
    """A TICK counts whoever wrote it, fenced off or not."""

    class ownership_type(Ownership):  # noqa: N801
        def read_back(self, record: LedgerRecord) -> tuple[Fragment, ...]:
            epoch, entry = decode(record.body, partition=0, position=record.position)
            if isinstance(entry, Tick) and epoch < self._epoch and self.phase is not Phase.OWNING:
                record = LedgerRecord(record.position, encode(0, self._epoch, entry))
            return super().read_back(record)


class SamplesFromTheCheckpointAlone(Node):
    """Decisions after the last CHECKPOINT are not folded into the sampler."""

    class assembler_type(Assembler):  # noqa: N801
        def recall(self, entries: bytes) -> None:
            for decision in decode_decisions(entries):
                self._remember(decision)


class ReadsTheLedgerTooLate(Node):
    """A commit points at the newest CHECKPOINT, whatever is still remembered or not yet stored before it."""

    class ownership_type(Ownership):  # noqa: N801
        def commit(self) -> Committed:
            self._needed.clear()
            return super().commit()


class FramesSpansAnew(Node):
    """A rebuilt fragment says the same in other bytes."""

    class assembler_type(Assembler):  # noqa: N801
        def _finish_rebuilding(self) -> None:
            for _, gathering in self._rebuilding.values():
                gathering.chunks.reverse()
            super()._finish_rebuilding()


# Within how many seeds each is caught; about five times what it takes.
CORE: dict[type[Node], int] = {
    CommitsBeforeTheLedger: 10,
    AcceptsStaleEpochs: 10,
    ActsOnWhatItSent: 30,
    KnowsNoCut: 10,
    ForgetsWhatWasCharged: 10,
    StoresByTraceId: 10,
    CommitsPastOpenTraces: 10,
    StoresLateSpansUnlogged: 10,
    LooksAtTimersByBatch: 10,
    TakesTheDayAnew: 10,
    TicksWithoutEpoch: 100,
    SamplesFromTheCheckpointAlone: 10,
    ReadsTheLedgerTooLate: 10,
    FramesSpansAnew: 10,
}


@contextmanager
def conflicts_as_failures() -> Iterator[None]:
    """A store that answers 409 for a document it has is taken to have refused it."""
    whole = wire.LinkedStore.write

    async def write(self: wire.LinkedStore, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        held = {document.id for document in documents if document.id in self.store._documents}
        return [*await whole(self, documents), *(StoreRejected(name, "409") for name in sorted(held))]

    wire.LinkedStore.write = write  # type: ignore[method-assign]
    try:
        yield
    finally:
        wire.LinkedStore.write = whole  # type: ignore[method-assign]


@contextmanager
def _in_place_of(owner: object, name: str, broken: object) -> Iterator[None]:
    whole = getattr(owner, name)
    setattr(owner, name, broken)
    try:
        yield
    finally:
        setattr(owner, name, whole)


def forgets_the_rate() -> AbstractContextManager[None]:
    """A new owner judges by no rate until its own load changes."""
    whole = Ownership._recall

    def recall(self: Ownership, entry: Entry) -> None:
        whole(self, entry)
        self.assembler.set_rate(1.0)

    return _in_place_of(Ownership, "_recall", recall)


def bends_without_a_record() -> AbstractContextManager[None]:
    """A rate takes effect and the ledger does not say so."""

    def bend(self: Ownership, rate: float, cause: int) -> list[bytes]:
        self._bend(rate)
        return []

    return _in_place_of(Ownership, "bend", bend)
