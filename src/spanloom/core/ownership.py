"""One assignment of one partition: what its owner may do, and what the ledger makes it do.

    RECALLING  the ledger is read from where the last commit points, to its end      -> FENCING
    FENCING    our FENCE is appended; read on until a FENCE of that epoch comes back  -> OWNING, or FENCING again
    OWNING     records may be fed; what we read back takes effect                     -> LOST
    LOST       a newer FENCE was read: nothing may be done any more

The owner acts on what it reads back, never on what it sent (design, section 6). An instance is used for one assignment
and thrown away; after any doubt about a ledger write a new one takes its place, with a higher epoch.
"""

import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import NamedTuple

from spanloom.core._pure.sampler import rate_of_state
from spanloom.core.assembly import TALLY_FIELDS, Harvest, Limits, Position, Tally
from spanloom.core.deaths import Deaths, Foothold
from spanloom.core.kernel import Assembler
from spanloom.core.ledger import (
    Checkpoint,
    Config,
    Decide,
    Entry,
    Fence,
    Probe,
    Rate,
    Skip,
    Tick,
    decode,
    decode_decisions,
    encode,
)
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.written import policies_from_body
from spanloom.errors import DecodeError, Fenced
from spanloom.model import SPANS, Committed, Fragment, LedgerRecord, Record

METADATA_VERSION = 1
# version, stream time, last timestamp, ledger position and its epoch, then the tally
_METADATA = struct.Struct(f"<BQqQQ{len(TALLY_FIELDS)}Q")


_offset_of: Callable[[Record], int] = attrgetter("offset")


class Phase(Enum):
    """Where an assignment stands."""

    RECALLING = "recalling"
    FENCING = "fencing"
    OWNING = "owning"
    LOST = "lost"


@dataclass(slots=True)
class _Version:
    """A version of the policies: its names, its last CONFIG, and the last DECIDE that refers to it."""

    names: tuple[str, ...]
    config: Foothold
    used: Foothold


class _Needed(NamedTuple):
    """A ledger record that a recovery must read while the spans up to `cut` may be fed or the trace is remembered."""

    foothold: Foothold
    cut: int
    stream_ns: int


def decode_metadata(committed: Committed, *, partition: int) -> tuple[Position, Foothold]:
    """What a commit says. Raises DecodeError: a commit of another format must not be guessed at."""
    if not committed.metadata:
        return Position(committed.offset, 0, -1, Tally()), Foothold(0, 0)
    version = committed.metadata[0]
    if version != METADATA_VERSION or len(committed.metadata) != _METADATA.size:
        raise DecodeError(
            "metadata",
            f"commit metadata of version {METADATA_VERSION}, {_METADATA.size} bytes",
            f"version {version}, {len(committed.metadata)} bytes",
            topic=SPANS,
            partition=partition,
            offset=committed.offset,
        )
    _, stream_ns, last_ns, position, epoch, *counts = _METADATA.unpack(committed.metadata)
    return Position(committed.offset, stream_ns, last_ns, Tally(*counts)), Foothold(position, epoch)


class Ownership:
    """The state of one assignment. `owner` is a uuid of its own, but for the first half: that is its process's."""

    def __init__(
        self, partition: int, committed: Committed, assembler: Assembler, *, owner: bytes, limits: Limits
    ) -> None:
        self.partition = partition
        self.phase = Phase.RECALLING
        self.assembler = assembler
        self.policies: PolicySet | None = None  # what the ledger says
        self.rate = 1.0  # what the ledger says, too
        self._versions: dict[int, _Version] = {}  # of the policies, as far as decisions refer to them
        self._limits = limits
        self._owner = owner
        start, self.recall_from = decode_metadata(committed, partition=partition)
        self._epoch = self._own_epoch = self.recall_from.epoch
        self._offset = start.offset  # the next to be fed
        self._start = start.offset
        self._ticks: deque[Tick] = deque()  # to be applied in replay, in ledger order
        self._decided_cut = self._decided_ns = -1  # the furthest that earlier owners' decisions looked
        self._skips: set[int] = set()
        self._needed: deque[_Needed] = deque()
        self._config = self._checkpoint = self.recall_from
        self._appended = self._read_back = 0  # records of ours
        self._deaths = Deaths(owner, start.offset)
        self._condemned: set[int] = set()
        assembler.restore(start)

    @property
    def epoch(self) -> int:
        """The epoch in force as far as the ledger was read."""
        return self._epoch

    @property
    def start(self) -> int:
        """The committed offset that the assignment began at."""
        return self._start

    @property
    def offset(self) -> int:
        """The next offset to be fed."""
        return self._offset

    @property
    def spoken_of(self) -> int:
        """The first offset that the ledger, as far as it was read, says nothing of."""
        ticked = max((tick.offset for tick in self._ticks), default=0)
        return max(self._start, self._decided_cut + 1, ticked, *(offset + 1 for offset in self._skips))

    @property
    def unsettled(self) -> int:
        """Ledger records appended and not read back."""
        return self._appended - self._read_back

    @property
    def is_settled(self) -> bool:
        """All that was appended is read back."""
        return self._read_back == self._appended

    # The ledger, as it is read.

    def fence(self) -> bytes:
        """The ledger is read to its end: the FENCE to append next, with an epoch above all that was seen."""
        assert self.phase in (Phase.RECALLING, Phase.FENCING), self.phase
        self.phase = Phase.FENCING
        self._own_epoch = self._epoch + 1
        return encode(self.partition, self._own_epoch, Fence(self._owner, self._start))

    @property
    def is_outbid(self) -> bool:
        """Somebody else's FENCE of our epoch came first: fence again."""
        return self.phase is Phase.FENCING and self._epoch >= self._own_epoch

    def read_back(self, record: LedgerRecord) -> tuple[Fragment, ...]:
        """Take in the next ledger record; gives the fragments that may now be stored.

        Raises Fenced when a newer owner's FENCE is read, DecodeError where the ledger cannot be read.
        """
        epoch, entry = decode(record.body, partition=self.partition, position=record.position)
        before = Foothold(record.position, self._epoch)
        if isinstance(entry, Fence):
            self._read_fence(before, epoch, entry)
            return ()
        if epoch > self._epoch and self.phase is not Phase.OWNING:
            self._epoch = epoch  # its FENCE lies before where we began to read
        if epoch != self._epoch:
            return ()
        self._note_need(before, entry)
        if self.phase is Phase.OWNING:
            self._read_back += 1
            return self._take_effect(entry)
        self._recall(entry)
        return ()

    def _take_effect(self, entry: Entry) -> tuple[Fragment, ...]:
        """A record of our own has come back."""
        match entry:
            case Decide():
                return self.assembler.confirm(entry.count)
            case Skip(offset) if offset in self._condemned:
                self._skips.add(offset)
            case Skip(offset):
                self.assembler.skipped(offset)
        return ()

    def _read_fence(self, foothold: Foothold, epoch: int, fence: Fence) -> None:
        if epoch <= self._epoch:
            return  # stale, or second of its epoch
        self._epoch = epoch
        self._deaths.fence(fence, foothold)
        if self.phase is Phase.FENCING and epoch == self._own_epoch and fence.owner == self._owner:
            self.phase = Phase.OWNING
        elif self.phase is Phase.OWNING:
            self.phase = Phase.LOST
            raise Fenced(f"partition {self.partition}: epoch {epoch} has begun, ours was {self._own_epoch}")

    def _recall(self, entry: Entry) -> None:
        match entry:
            case Decide(entries):
                self.assembler.recall(entries)
            case Tick(offset):
                if offset >= self._start:
                    self._ticks.append(entry)
            case Skip(offset):
                self._skips.add(offset)
            case Config(_, version, body):
                self._adopt(policies_from_body(body, version=version))
            case Checkpoint(_, _, sampler):
                self.assembler.restore_sampler(sampler)
                self.rate = rate_of_state(sampler)
            case Rate(_, rate):
                self._bend(rate)
            case Probe(offset):
                self._deaths.probe(offset)
            case Fence():
                pass

    def _note_need(self, foothold: Foothold, entry: Entry) -> None:
        """Keep in mind up to when a recovery has to read this record."""
        match entry:
            case Decide(entries) if self.phase is Phase.OWNING:  # a bound that costs nothing: we have read no further
                if len(self._versions) > 1:
                    for decision in decode_decisions(entries):
                        self._note_version(foothold, decision.policy_version)
                self._needed.append(_Needed(foothold, self._offset, self.assembler.stream_ns))
            case Decide(entries):
                cut = stream_ns = 0
                for decision in decode_decisions(entries):
                    cut, stream_ns = max(cut, decision.cut), max(stream_ns, decision.stream_ns)
                    self._note_version(foothold, decision.policy_version)
                self._needed.append(_Needed(foothold, cut, stream_ns))
                self._decided_cut, self._decided_ns = max(self._decided_cut, cut), max(self._decided_ns, stream_ns)
            case Tick(offset) | Skip(offset):
                self._needed.append(_Needed(foothold, offset, 0))
            case Config(_, version, body):
                self._config = foothold
                for known in self._versions.values():
                    known.used = foothold  # decisions up to here may refer to it
                names = tuple(policy.name for policy in policies_from_body(body, version=version).policies)
                self._versions[version] = _Version(names, foothold, foothold)
            case Checkpoint():
                self._checkpoint = self._config  # from its CONFIG on, a fold needs nothing older
                if self.phase is Phase.OWNING:
                    self._deaths.checkpoint()
            case Rate() | Fence() | Probe():
                pass

    def _note_version(self, foothold: Foothold, version: int) -> None:
        """A CONFIG is needed as long as a decision under it is: a repeat of its document has the same names."""
        if version in self._versions:
            self._versions[version].used = foothold

    def _adopt(self, policies: PolicySet) -> None:
        self.policies = policies
        self.assembler.configure(policies)

    def _bend(self, rate: float) -> None:
        self.rate = rate
        self.assembler.set_rate(rate)

    def policy_names(self, version: int) -> tuple[str, ...]:
        """The names a decision's policy index and votes refer to; empty where the version was not seen."""
        return self._versions[version].names if version in self._versions else ()

    # What to append.

    def _encode(self, entries: Iterable[Entry]) -> list[bytes]:
        if self.phase is Phase.LOST:
            raise Fenced(f"partition {self.partition}: epoch {self._epoch} has begun, ours was {self._own_epoch}")
        assert self.phase is Phase.OWNING, self.phase
        bodies = [encode(self.partition, self._own_epoch, entry) for entry in entries]
        self._appended += len(bodies)
        return bodies

    def decide(self, harvest: Harvest) -> list[bytes]:
        """The DECIDE records of a harvest."""
        return self._encode(Decide(entries) for entries in harvest.decisions)

    @property
    def may_tick(self) -> bool:
        """Whether a TICK here and now leaves all that earlier owners decided as it is, and in its order.

        In a replay that waits for the log, a TICK would put time between records that decisions were made on. What was
        decided later than time stands here was decided on records that are still to come.
        """
        is_read = self._offset > self._decided_cut and self.assembler.stream_ns >= self._decided_ns
        return is_read and not self._ticks

    def tick(self, stream_ns: int) -> list[bytes]:
        """A TICK here and now; advance only once it is read back."""
        return self._encode([Tick(self._offset, stream_ns)])

    def skip(self, offset: int, reason: str) -> list[bytes]:
        """The record at *offset* is in the dead letters."""
        return self._encode([Skip(offset, reason)])

    @property
    def is_careful(self) -> bool:
        """Processes before ours kept ending at our committed offset, and we have not lived for long yet.

        Then records are fed one by one, each announced by a PROBE.
        """
        return self._deaths.is_careful

    def is_accused(self, offset: int) -> bool:
        """The record at *offset* has killed too often: dead-letter and `condemn` it; once settled, feed passes it by.

        Not so one that a logged decision was made on: somebody survived it, and the verdict stands on it.
        """
        is_free = offset > self._decided_cut and offset not in self._skips
        return is_free and self._deaths.is_accused(offset)

    def probe(self, offset: int) -> list[bytes]:
        """The record at *offset* is fed next; NO_OFFSET: nothing is."""
        return self._encode([Probe(offset)])

    def condemn(self, offset: int, reason: str) -> list[bytes]:
        """As `skip`, of a record that is not fed."""
        self._condemned.add(offset)
        return self.skip(offset, reason)

    def checkpoint(self, policies: PolicySet) -> list[bytes]:
        """CONFIG and CHECKPOINT: judge by *policies* from here on, and let a fold begin here."""
        self._adopt(policies)
        safe = self.assembler.safe_position()
        state = self.assembler.sampler_state()
        return self._encode(
            [Config(self._offset, policies.version, policies.body), Checkpoint(safe.offset, safe.tally, state)]
        )

    def bend(self, rate: float, cause: int) -> list[bytes]:
        """RATE: consistent probabilities keep that part of what they would, from here on."""
        self._bend(rate)
        return self._encode([Rate(self._offset, rate, cause)])

    # Records, as they are fed.

    def feed(self, records: Sequence[Record]) -> Harvest:
        """Feed records, and in replay apply each TICK and SKIP where it stood."""
        harvest = Harvest()
        at = 0
        while at < len(records):
            offset = records[at].offset
            harvest += self._apply_ticks(offset)
            if offset in self._skips:
                self._skips.discard(offset)
                stop = at + 1
                harvest += self.assembler.skip(records[at])
            else:
                stop = self._run(records, at)
                harvest += self.assembler.feed(records[at:stop])
            at = stop
            self._offset = records[at - 1].offset + 1
        return harvest + self._apply_ticks(self._offset)

    def _run(self, records: Sequence[Record], at: int) -> int:
        """Where the run of records from *at* ends that no TICK or SKIP interrupts; one record at least.

        A record of a native batch is made when it is looked at: few are.
        """
        if not self._ticks and not self._skips:
            return len(records)
        first, last = records[at].offset, records[-1].offset
        stops = [offset for offset in self._skips if first < offset <= last]
        if self._ticks and self._ticks[0].offset <= last:
            stops.append(self._ticks[0].offset)
        return bisect_left(records, min(stops), at + 1, key=_offset_of) if stops else len(records)

    def _apply_ticks(self, offset: int) -> Harvest:
        """Apply those that stood before the record at *offset*."""
        harvest = Harvest()
        while self._ticks and self._ticks[0].offset <= offset:
            harvest += self.assembler.advance(self._ticks.popleft().stream_ns)
        return harvest

    def advance(self, stream_ns: int) -> Harvest:
        """Our TICK is read back: it takes effect."""
        assert self.is_settled, "a TICK takes effect once it is read back"
        return self.assembler.advance(stream_ns)

    def jump(self, offset: int) -> Harvest:
        """Go on from *offset*: the records before it are deleted."""
        harvest = self.assembler.jump(offset)
        self._offset = offset
        self._decided_ns = -1  # the records that moved time so far may be gone
        return harvest + self._apply_ticks(offset)

    # Commit.

    def commit(self) -> Committed:
        """The safe offset, with all that a recovery from there needs."""
        safe = self.assembler.safe_position()
        horizon = safe.stream_ns - self._limits.remember_ns
        while self._needed and self._needed[0].cut < safe.offset and self._needed[0].stream_ns < horizon:
            self._needed.popleft()
        first = min(self._needed[0].foothold, self._checkpoint) if self._needed else self._checkpoint
        self._versions = {v: known for v, known in self._versions.items() if known.used >= first}
        ledger = min([first, *(known.config for known in self._versions.values())])
        if safe.offset == self._start and self._deaths.since:
            ledger = min(ledger, self._deaths.since)  # whoever comes next counts who ended here
        metadata = _METADATA.pack(
            METADATA_VERSION, safe.stream_ns, safe.last_timestamp_ns, *ledger, *safe.tally.values()
        )
        return Committed(safe.offset, metadata)
