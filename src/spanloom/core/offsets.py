"""Which offset is safe to commit, and the books below it.

A record stays a line in the books until each of its spans is resolved; the first line that is not is the safe offset.
Because the tally of a record is kept with it, the counters that travel with a commit count just the spans below the
committed offset, and a replay counts the others again.
"""

from collections import deque
from dataclasses import dataclass, field

from spanloom.core.assembly import Position, Tally


@dataclass(slots=True)
class Line:
    """A record: its tally, and where the partition stood before it was read."""

    offset: int
    stream_ns: int
    last_timestamp_ns: int
    tally: Tally = field(default_factory=Tally)
    unresolved: int = 0


class Books:
    """The lines of one partition from the safe offset on."""

    def __init__(self, start: Position) -> None:
        self.total = start.tally.copy()  # everything read so far
        self._settled = start.tally.copy()  # below the first line
        self._lines: deque[Line] = deque()

    def begin(self, offset: int, stream_ns: int, last_timestamp_ns: int) -> Line:
        """Open the line of the next record."""
        line = Line(offset, stream_ns, last_timestamp_ns)
        self._lines.append(line)
        return line

    def receive(self, line: Line, count: int) -> None:
        """*count* spans stand in the record."""
        line.tally.received += count
        line.unresolved += count
        self.total.received += count

    def resolve(self, line: Line, outcome: str, count: int = 1) -> None:
        """It is settled what became of *count* of them: *outcome* is a field of Tally."""
        assert line.unresolved >= count, f"offset {line.offset}: {count} resolved of {line.unresolved}"
        line.unresolved -= count
        self.note(line, outcome, count)

    def note(self, line: Line, name: str, count: int = 1) -> None:
        """Count something of a record that settles nothing."""
        for tally in (line.tally, self.total):
            setattr(tally, name, getattr(tally, name) + count)

    def safe(self, now: Position) -> Position:
        """The position that may be committed; *now* is where the partition stands, its tally is not looked at."""
        while self._lines and not self._lines[0].unresolved:
            self._settled.add(self._lines.popleft().tally)
        if self._lines:
            first = self._lines[0]
            return Position(first.offset, first.stream_ns, first.last_timestamp_ns, self._settled.copy())
        return now._replace(tally=self._settled.copy())
