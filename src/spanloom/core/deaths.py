"""Which processes died of a partition, and of which record, as far as its ledger tells.

A process that ends while the committed offset stands still has perhaps died of a record above it. After DEATHS_MAX of
them an owner is careful: it says in a PROBE which record it feeds next, and in another that it survived. A record that
was announced and never survived, by ACCUSATIONS_MAX processes, is skipped (design, section 6: a record that kills the
process). A process that fences again is alive, whatever its last assignment was doing.
"""

from typing import NamedTuple

from spanloom.core.ledger import NO_OFFSET, Fence

PROCESS_BYTES = 8  # of an owner's uuid: the half that all assignments of a process share
DEATHS_MAX = 3  # processes that ended at one committed offset before records are fed one by one
ACCUSATIONS_MAX = 2  # processes that ended while one record was fed before it is skipped; one may be a mere kill -9
LIVED_CHECKPOINTS = 2  # of an assignment, the one it begins with included: it did not die at once


class Foothold(NamedTuple):
    """A ledger position to read from, and the epoch in force before it."""

    position: int
    epoch: int


class Deaths:
    """Told every record that counts, in ledger order, by an assignment that starts at the offset *committed*."""

    def __init__(self, owner: bytes, committed: int) -> None:
        self.since: Foothold | None = None  # the first FENCE that whoever comes next must see; None: none
        self._own = owner[:PROCESS_BYTES]
        self._committed = committed
        self._checkpoints = 0
        self._latest = b""  # whose the last FENCE was
        self._owners: set[bytes] = set()  # since the committed offset last moved
        self._probed = NO_OFFSET
        self._accusers: dict[int, set[bytes]] = {}  # by offset: processes not heard of since its record was fed

    def fence(self, fence: Fence, foothold: Foothold) -> None:
        """An assignment begins, so the one before has ended."""
        process = fence.owner[:PROCESS_BYTES]
        if fence.committed != self._committed:
            self.since = None
            self._owners.clear()
            self._accusers.clear()
        elif self._probed != NO_OFFSET:
            self._accusers.setdefault(self._probed, set()).add(self._latest)
        for accusers in self._accusers.values():
            accusers.discard(process)
        self.since = self.since or foothold
        self._owners.add(process)
        self._latest, self._probed = process, NO_OFFSET

    def probe(self, offset: int) -> None:
        """The record at *offset* is fed next, and the one before was survived."""
        self._accusers.pop(self._probed, None)
        self._probed = offset

    def checkpoint(self) -> None:
        """Our own assignment has come to a checkpoint."""
        self._checkpoints += 1
        if self._checkpoints >= LIVED_CHECKPOINTS:
            self.since = None

    @property
    def is_careful(self) -> bool:
        """Records are to be fed one by one."""
        return len(self._owners - {self._own}) >= DEATHS_MAX and self._checkpoints < LIVED_CHECKPOINTS

    def is_accused(self, offset: int) -> bool:
        """The record at *offset* has killed too often."""
        return len(self._accusers.get(offset, ())) >= ACCUSATIONS_MAX
