"""What goes into an assembler and what comes out of it: the words both kernels speak.

An assembler owns one partition of `spans` from the committed offset on. Feed it records in offset order, append the
decisions it hands out to the ledger, confirm them once they are read back, resolve what became of the fragments; then
ask which offset is safe. The rules are design.md's sections 4 to 6; `core/_pure/assembler.py` spells them out.
"""

from dataclasses import dataclass, field, fields
from typing import NamedTuple, Self

from spanloom.model import Fragment, Record

S = 1_000_000_000  # ns


@dataclass(frozen=True, slots=True)
class Limits:
    """When a trace is decided, and how long it is remembered (design, section 5). Stream time, in ns."""

    quiet_ns: int = 6 * S  # above the SDKs' 5 s batch delay
    idle_ns: int = 15 * S
    age_max_ns: int = 60 * S
    remember_ns: int = 300 * S
    skew_max_ns: int = 600 * S  # a broker's clock step; a lone timestamp further ahead does not move stream time
    spans_max: int = 50_000
    bytes_max: int = 16 << 20
    decide_bytes: int = 512 << 10  # a DECIDE record grows to about this, half of Kafka's default message limit


@dataclass(slots=True)
class Tally:
    """What became of spans. received = every other field but `conflicting`, summed, + pending."""

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    not_sampled: int = 0  # dropped by the policies
    late: int = 0  # dropped because their trace was
    pressure: int = 0  # dropped by a verdict that memory forced
    moved: int = 0
    dead_lettered: int = 0  # a record that cannot be read counts as one span
    lost_to_retention: int = 0  # records deleted before they were read: received and gone, an operator's fault
    conflicting: int = 0  # kept beside another span of the same id and kind; of the stored or dropped ones

    def add(self, other: "Tally") -> None:
        """Add *other*, field by field."""
        for name in TALLY_FIELDS:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def copy(self) -> Self:
        """A tally of its own with the same numbers."""
        return type(self)(*self.values())

    def values(self) -> tuple[int, ...]:
        """The numbers, in the order of TALLY_FIELDS."""
        return tuple(getattr(self, name) for name in TALLY_FIELDS)

    @property
    def resolved(self) -> int:
        """Spans of which it is settled what became of them."""
        return sum(self.values()) - self.received - self.conflicting

    @property
    def pending(self) -> int:
        """Spans still open or on their way."""
        return self.received - self.resolved


TALLY_FIELDS = tuple(f.name for f in fields(Tally))


class Position(NamedTuple):
    """Where a partition stands at an offset: what a restart there needs of stream time, and the books below it."""

    offset: int
    stream_ns: int
    last_timestamp_ns: int  # of the record before; -1 where there is none
    tally: Tally


class Reject(NamedTuple):
    """A record that cannot be read: hold its offset, dead-letter it, log a SKIP, then call `skipped`."""

    record: Record
    reason: str


class Move(NamedTuple):
    """A record with spans that belong to other partitions: produce them there, then call `moved`."""

    offset: int
    parts: tuple[tuple[bytes, bytes], ...]  # trace id, TracesData


@dataclass(frozen=True, slots=True)
class Harvest:
    """What one call brought forth, in order."""

    decisions: tuple[bytes, ...] = ()  # bodies of DECIDE records, each of about Limits.decide_bytes
    fragments: tuple[Fragment, ...] = ()  # rebuilt in replay: their verdict is in the ledger already
    rejects: tuple[Reject, ...] = ()
    moves: tuple[Move, ...] = ()

    def __add__(self, other: "Harvest") -> "Harvest":
        return Harvest(
            self.decisions + other.decisions,
            self.fragments + other.fragments,
            self.rejects + other.rejects,
            self.moves + other.moves,
        )


@dataclass(frozen=True, slots=True)
class AssemblerStatistics:
    """A look at an assembler; cheap."""

    open_traces: int
    remembered: int  # decided traces still known
    undecided_bytes: int  # span bytes of open traces
    storing_bytes: int  # fragment bytes decided to be kept and not stored yet
    stream_ns: int
    offset: int  # the next to be read
    tally: Tally = field(default_factory=Tally)  # everything read, those above the safe offset included
    replayed: int = 0  # spans read again after a restart, that an earlier owner had decided
    triggers: tuple[int, ...] = (0, 0, 0, 0, 0)  # decisions by Trigger
