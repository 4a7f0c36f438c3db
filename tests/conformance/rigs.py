"""What the conformance suites run against: one rig an implementation and role. A new adapter is one more rig."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from spanloom.adapters.memory import MemoryLedger, MemoryLog, MemoryOutlet, MemoryPolicyLog, MemoryStore
from spanloom.adapters.policy_file import FilePolicyLog
from spanloom.adapters.sqlite import DataFolder, SqliteLedger, SqliteLog, SqliteOutlet, SqliteStore
from spanloom.interfaces import Ledger, Outlet, PartitionReader, PolicyLog, SpanLog, SpanSource, TraceStore
from spanloom.model import Record

PARTITIONS = 4
BATCH_BYTES = 1 << 20


class Clock:
    """A wall clock the test moves."""

    def __init__(self) -> None:
        self.now_ms = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now_ms


class Log(SpanLog, SpanSource, Protocol):
    """Both sides of `spans`, with the retention of a log that is ours."""

    @abstractmethod
    async def trim(self, *, older_than_ms: int, below: Mapping[int, int]) -> int:
        """See SqliteLog."""

    @abstractmethod
    async def reserve(self, partition: int, next_offset: int) -> None:
        """See SqliteLog."""


class TrimmableLedger(Ledger, Protocol):
    """A ledger with the retention of one that is ours."""

    @abstractmethod
    async def trim(self, before_position: Mapping[int, int]) -> int:
        """See SqliteLedger."""


class ReadableOutlet(Outlet, Protocol):
    """An outlet a test can look into."""

    @abstractmethod
    async def read(self, topic: str, position: int, limit: int) -> Sequence[Record]:
        """See SqliteOutlet."""

    @abstractmethod
    async def trim(self, topic: str, *, older_than_ms: int) -> int:
        """See SqliteOutlet."""


class DailyStore(TraceStore, Protocol):
    """A store with retention by day."""

    @abstractmethod
    async def drop_days_before(self, day: str) -> Sequence[str]:
        """See SqliteStore."""


class Rig(Protocol):
    """Opens one implementation of every role; opening a role again goes on with what is durable of it."""

    clock: Clock
    durable: bool  # what was written is there when the role is opened again
    own_disk: bool  # it has a cap of its own to keep, and hands out the offsets itself
    metadata_bytes_max: int  # of a commit

    @abstractmethod
    async def log(self, *, log_bytes_max: int = 1 << 40, batch_bytes: int = BATCH_BYTES) -> Log:
        """`spans`."""

    @abstractmethod
    async def ledger(self) -> TrimmableLedger:
        """The ledger."""

    @abstractmethod
    async def store(self) -> DailyStore:
        """The trace store."""

    @abstractmethod
    async def outlet(self) -> ReadableOutlet:
        """The outgoing topics."""

    @abstractmethod
    async def policies(self) -> PolicyLog:
        """The versions of the policies."""

    @abstractmethod
    def close(self) -> None:
        """Release everything."""


class MemoryRig(Rig):
    """The fakes."""

    durable = False
    own_disk = True
    metadata_bytes_max = 1 << 20

    def __init__(self) -> None:
        self.clock = Clock()

    async def log(self, *, log_bytes_max: int = 1 << 40, batch_bytes: int = BATCH_BYTES) -> Log:
        """A new log."""
        return MemoryLog(PARTITIONS, log_bytes_max=log_bytes_max, batch_bytes=batch_bytes, wall_ms=self.clock)

    async def ledger(self) -> TrimmableLedger:
        """A new ledger."""
        return MemoryLedger(PARTITIONS)

    async def store(self) -> DailyStore:
        """A new store."""
        return MemoryStore()

    async def outlet(self) -> ReadableOutlet:
        """A new outlet."""
        return MemoryOutlet(wall_ms=self.clock)

    async def policies(self) -> PolicyLog:
        """A new log of versions."""
        return MemoryPolicyLog()

    def close(self) -> None:
        """Nothing to release."""


class SqliteRig(Rig):
    """One data folder, opened anew for each role asked for."""

    durable = True
    own_disk = True
    metadata_bytes_max = 1 << 20

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self.path = path
        self._open = ExitStack()

    async def log(self, *, log_bytes_max: int = 1 << 40, batch_bytes: int = BATCH_BYTES) -> Log:
        """The folder's log."""
        folder = self.folder()
        return SqliteLog(
            folder, SqliteLedger(folder), log_bytes_max=log_bytes_max, batch_bytes=batch_bytes, wall_ms=self.clock
        )

    async def ledger(self) -> TrimmableLedger:
        """The folder's ledger."""
        return SqliteLedger(self.folder())

    async def store(self) -> DailyStore:
        """The folder's store."""
        return SqliteStore(self.folder())

    async def outlet(self) -> ReadableOutlet:
        """The folder's outlet."""
        return SqliteOutlet(self.folder(), wall_ms=self.clock)

    async def policies(self) -> PolicyLog:
        """The folder's versions."""
        return FilePolicyLog(self.path)

    def folder(self) -> DataFolder:
        """The folder, opened again."""
        self.close()
        folder = DataFolder.open(self.path, partition_count=PARTITIONS)
        self._open.callback(folder.close)
        return folder

    def close(self) -> None:
        """Close the folder."""
        self._open.close()


async def read_until(reader: PartitionReader, end: int) -> list[Record]:
    """Everything up to offset *end*, which is there."""
    records: list[Record] = []
    while not records or records[-1].offset + 1 < end:
        records += await reader.receive()
    return records
