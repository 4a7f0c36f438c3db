"""What the actors need from the world, one Protocol a role; the adapters implement them, memory fakes included.

Every method may be cancelled; one that was cancelled may or may not have been applied. Every write is idempotent or
its reader removes repeats, so the answer to doubt is always to do it again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from spanloom.errors import StoreRejected
from spanloom.model import (
    Committed,
    Document,
    HttpRequest,
    HttpResponse,
    LedgerRecord,
    Message,
    PartitionChange,
    PolicyVersion,
    Record,
)


class SpanLog(Protocol):
    """The append side of `spans`."""

    @property
    def partition_count(self) -> int:
        """Partitions of `spans`; fixed for the life of the log."""

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        """Append each message to its partition, in order within a partition.

        Durable against the death of any process when it returns. Raises SourceUnavailable: none, some or all of the
        batch may have been appended; Overloaded: none was (a disk cap is reached).
        """


class PartitionReader(Protocol):
    """One partition's records from the offset it was opened at: in order, each once, gaps allowed."""

    async def receive(self) -> Sequence[Record]:
        """Wait for at least one record; give at most the adapter's batch size in bytes (one record at least).

        A cancelled call loses nothing. Raises RecordsDeleted where the next offset is gone, SourceUnavailable.
        """

    async def aclose(self) -> None:
        """Give up the reader. May be called again."""


class SpanSource(Protocol):
    """The read side of `spans`."""

    @property
    def incarnation(self) -> str:
        """Names this log for ever: another topic or data folder of the same name has another one."""

    async def committed(self, partition: int) -> Committed:
        """The last commit, or Committed(0, b"") where there is none."""

    async def commit(self, partition: int, committed: Committed) -> None:
        """Store offset and metadata in one durable write. Never goes back. Raises SourceUnavailable, Fenced."""

    async def read(self, partition: int, offset: int) -> PartitionReader:
        """Open a reader at *offset*, which may be the end."""

    async def end_offset(self, partition: int) -> int:
        """The offset the next record will get."""

    async def reserve(self, partition: int, next_offset: int) -> None:
        """Never give a record an offset below *next_offset*: the ledger speaks of what lies there.

        Only a log that a power cut can shorten has something to do. Raises SourceUnavailable.
        """


class Membership(Protocol):
    """A place in the group whose members share the partitions. One task uses it."""

    async def join(self) -> None:
        """Ask to be given partitions. May be called again after `leave`."""

    async def next_change(self) -> PartitionChange:
        """Wait for the next change; the one before is acknowledged, or comes again. A cancelled call loses nothing."""

    async def acknowledge(self, change: PartitionChange) -> None:
        """*change* is carried out. From here on commits of what was revoked raise Fenced; of what is lost, already."""

    async def leave(self) -> None:
        """Give back, at once, whatever we still have. May be called again."""


class LedgerReader(Protocol):
    """One ledger partition from the position it was opened at, in order, each record once."""

    async def receive(self) -> Sequence[LedgerRecord]:
        """Wait for at least one record. A cancelled call loses nothing. Raises LedgerUnavailable."""

    async def aclose(self) -> None:
        """Give up the reader. May be called again."""


class Ledger(Protocol):
    """The decision log, one partition for each partition of `spans`."""

    async def append(self, partition: int, bodies: Sequence[bytes]) -> None:
        """Append in order; durable when it returns. Raises LedgerUnavailable: a prefix of them may be there."""

    async def read(self, partition: int, position: int) -> LedgerReader:
        """Open a reader at *position*, or at the first record after it where it is gone."""

    async def end(self, partition: int) -> int:
        """The position after the last record."""


class PolicyLog(Protocol):
    """Versions of the sampling policies, one log for all processes; core/sampling/versions.py says which count."""

    async def append(self, written: PolicyVersion) -> None:
        """Write a version; durable when it returns. It counts only if it is above all before it: read, and look for
        its mark. Raises PoliciesUnavailable: it may be there, or may come to be.
        """

    async def read(self) -> Sequence[PolicyVersion]:
        """Every version that counts, in order, all that were acknowledged before. Raises PoliciesUnavailable."""

    async def next_after(self, version: int) -> Sequence[PolicyVersion]:
        """Wait for versions above *version*; those that count, one at least. A cancelled call loses nothing.

        Raises PoliciesUnavailable.
        """


class TraceStore(Protocol):
    """Documents by id; a second write of an id is a success and changes nothing.

    A write is durable when it returns, and in the readers' sight at the latest after the backend's next refresh (a
    second on Elasticsearch, at once elsewhere).
    """

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        """Make every document durable, but those returned, which will never be accepted.

        Raises StoreUnavailable: any subset may be there; send the same again.
        """

    async def read(self, trace_id: str) -> Sequence[Document]:
        """All fragments of a trace, in order of (day, id); empty if there is none. Raises StoreUnavailable."""

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        """The newest fragments, newest first, of one service or of all. `limit` is at most 1000."""

    async def services(self) -> Sequence[str]:
        """Every service seen, in order."""


class Outlet(Protocol):
    """The topics that only leave: `traces-complete`, `sampling-decisions`, `spans-dead-letter`. At least once."""

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        """Durable when it returns. Raises OutletUnavailable: some may be there."""


class Cache(Protocol):
    """Bytes by key for a while. Disposable: what it says may be missing, never wrong by more than its time to live."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None. Raises CacheUnavailable."""

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep *value* for about *ttl_s* seconds. Raises CacheUnavailable."""

    async def delete(self, key: str) -> None:
        """Forget the key. Raises CacheUnavailable."""


@runtime_checkable
class BatchCache(Protocol):
    """What a Cache can beside, where many keys cost about one round trip."""

    async def get_many(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """Each key's value, or None, in the keys' order. Raises CacheUnavailable."""

    async def put_many(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep each value for about *ttl_s* seconds. Raises CacheUnavailable: some may be kept."""


class Retention(Protocol):
    """What the embedded deployment deletes by itself, and a cluster's servers do for it."""

    async def trim_log(self, *, older_than_ms: int, below: Mapping[int, int]) -> int:
        """Delete records of `spans` older than that (unix ms), and over the disk cap those below *below*; how many."""

    async def trim_ledger(self, before_position: Mapping[int, int]) -> int:
        """Delete each partition's ledger records before that position; how many."""

    async def trim_topic(self, topic: str, *, older_than_ms: int) -> int:
        """Delete messages older than that (unix ms); how many."""

    async def drop_days_before(self, day: str) -> Sequence[str]:
        """Delete the stored traces of every day (YYYY.MM.DD) before *day*; which days went."""


class IntakeDoor(Protocol):
    """What a collector hands its spans to."""

    async def accept(self, body: bytes, *, size_bytes: int, encoding: str = "otlp_proto") -> "Accepted":
        """Put a body's spans into the log, split by trace; returns when that is durable.

        Where the operator has it so (`intake.acknowledge: accepted`) it returns before. `encoding` is one of
        core.codec.transcode's, by default OTLP TracesData.

        `size_bytes` counts against the intake's bound. Raises DecodeError (nothing was taken), Overloaded,
        SourceUnavailable (the sender must send again; repeats are removed).
        """


class Accepted(Protocol):
    """What became of a request's spans."""

    @property
    def accepted(self) -> int:
        """Spans now in the log."""

    @property
    def rejected(self) -> int:
        """Spans refused for what they are (a bad id, or not readable in their encoding); the others went in."""

    @property
    def reason(self) -> str:
        """Why the first rejected span was; empty if none."""


class Standings(Protocol):
    """What the partitions of this process know of a trace that is not in the store (yet)."""

    def standing(self, trace_id: bytes) -> str | None:
        """`pending`, `dropped`, or None: not known here."""


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]
