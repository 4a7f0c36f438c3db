"""What a kill left behind, read from the data folder without spanloom: is there anything to recover, and what."""

import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from tests.oracle import DROP
from tests.oracle_checks import stored_fragments
from tests.oracle_files import log_partitions, read_ledger

SKIP, FENCE = 6, 1


@dataclass(frozen=True, slots=True)
class Wreck:
    """Counts over all partitions."""

    unresolved: int  # records at or above the committed offset: of open traces, undecided or unstored ones
    unstored: int  # kept decisions in the ledger whose document is not in the store
    uncommitted: int  # kept decisions whose document is stored, and whose last span is not below the committed offset

    @property
    def is_clean(self) -> bool:
        """Nothing was left to recover: the kill has proved nothing."""
        return not (self.unresolved or self.unstored or self.uncommitted)

    @property
    def row(self) -> str:
        """The row of the crash table that the kill hit."""
        if self.unstored:
            return "acknowledged, before the store"
        if self.uncommitted:
            return "stored, before commit"
        return "before DECIDE is appended" if self.unresolved else "nothing to recover"


def inspect(folder: Path) -> Wreck:
    """Look at a folder that no process has open."""
    committed = committed_offsets(folder)
    stored = {fragment.key for fragment in stored_fragments(folder)}
    unresolved = unstored = uncommitted = 0
    for partition in log_partitions(folder / "log.db"):
        safe = committed.get(partition, 0)
        unresolved += max(0, end_offset(folder, partition) - safe)
        _, decisions = read_ledger(folder / "ledger.db", partition)
        for decision in decisions:
            if decision.verdict == DROP:
                continue
            if (decision.trace_id.hex(), partition, decision.first) not in stored:
                unstored += 1
            elif decision.cut >= safe:
                uncommitted += 1
    return Wreck(unresolved, unstored, uncommitted)


def committed_offsets(folder: Path) -> dict[int, int]:
    """By partition."""
    with closing(sqlite3.connect(f"{(folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as database:
        return dict(database.execute('SELECT partition, "offset" FROM committed'))


def end_offset(folder: Path, partition: int) -> int:
    """Where the partition's log ends."""
    with closing(sqlite3.connect(f"{(folder / 'log.db').as_uri()}?mode=ro", uri=True)) as database:
        (end,) = database.execute("SELECT max(base + count) FROM chunk WHERE partition = ?", (partition,)).fetchone()
        return int(end or 0)


def is_settled(folder: Path) -> bool:
    """Everything in the log is committed."""
    committed = committed_offsets(folder)
    return all(
        committed.get(partition, 0) == end_offset(folder, partition) for partition in log_partitions(folder / "log.db")
    )


def skipped(folder: Path) -> list[tuple[int, int, str]]:
    """Partition, offset and reason of every SKIP."""
    found = []
    with closing(sqlite3.connect(f"{(folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as database:
        for partition, body in database.execute("SELECT partition, body FROM entry ORDER BY partition, position"):
            if body[1] == SKIP:
                (offset,) = struct.unpack_from("<Q", body, 20)
                found.append((partition, offset, body[28:].decode()))
    return found
