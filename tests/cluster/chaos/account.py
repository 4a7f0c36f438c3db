"""What a chaos run's kills did: who took over what, after how long, and how much had to be done again.

Read from the dumped ledger and log, and from what the processes said. A takeover is the next effective FENCE of a
partition after its owner was killed, by another process; its work was uncommitted as far as records lay above the
committed offset that the FENCE states when the kill came.
"""

import sqlite3
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.cluster.chaos.fleet import Life
from tests.oracle_files import Malformed, decide_entries, parse_record, parse_spans

PROCESS_BYTES = 8  # of an owner: the half that names its process
_HEADER = struct.Struct("<BBHIQI")
_FENCE = struct.Struct("<16sQ")
FENCE, DECIDE, SKIP = 1, 2, 6


class Reign(NamedTuple):
    """One effective FENCE of a partition, and the highest cut that its owner decided."""

    partition: int
    epoch: int
    unix: float
    owner: bytes
    committed: int
    decided_cut: int


@dataclass(frozen=True, slots=True)
class Takeover:
    """A partition's way from a killed process to another."""

    life: int
    partition: int
    records: int  # in the log above the committed offset when the kill came
    spans: int
    decided: bool  # the dead owner had logged decisions above the committed offset
    recovery_s: float | None  # from the kill to the first record fetched; None: the new owner did not get so far


def read_reigns(ledger_db: Path) -> dict[int, list[Reign]]:
    """The effective FENCEs of every partition, in their order."""
    reigns: dict[int, list[Reign]] = {}
    with closing(sqlite3.connect(f"{ledger_db.as_uri()}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT partition, timestamp_ms, body FROM entry ORDER BY partition, position")
        for partition, timestamp_ms, body in rows:
            line = reigns.setdefault(partition, [])
            _, kind, _, _, epoch, _ = _HEADER.unpack_from(body)
            if kind == FENCE and (not line or epoch > line[-1].epoch):
                owner, committed = _FENCE.unpack_from(body, _HEADER.size)
                line.append(Reign(partition, epoch, timestamp_ms / 1000, owner, committed, -1))
            elif kind == DECIDE and line and epoch == line[-1].epoch:
                cut = max((decision.cut for decision in decide_entries(body[_HEADER.size :])), default=-1)
                line[-1] = line[-1]._replace(decided_cut=max(cut, line[-1].decided_cut))
    return reigns


def count_skips(ledger_db: Path) -> int:
    """SKIP records, of whatever epoch: nobody sent poison, so there should be none."""
    with closing(sqlite3.connect(f"{ledger_db.as_uri()}?mode=ro", uri=True)) as database:
        return sum(body[1] == SKIP for (body,) in database.execute("SELECT body FROM entry"))


def takeovers(dumped: Path, lives: Sequence[Life]) -> list[Takeover]:
    """What became of the partitions of every killed process."""
    reigns = read_reigns(dumped / "ledger.db")
    names = _names(lives, reigns)
    first_records = _first_records(lives)
    found = []
    with closing(sqlite3.connect(f"{(dumped / 'log.db').as_uri()}?mode=ro", uri=True)) as log:
        for life in (life for life in lives if life.killed_unix and life.number in names):
            for line in reigns.values():
                ended = _reign_at(line, life.killed_unix)
                if ended is None or ended.owner[:PROCESS_BYTES] != names[life.number]:
                    continue
                following = next((reign for reign in line if reign.epoch > ended.epoch), None)
                if following is None or following.owner[:PROCESS_BYTES] == names[life.number]:
                    continue
                records, spans = _above(log, following, life.killed_unix)
                fetched = first_records.get((following.partition, following.epoch))
                recovery_s = fetched - life.killed_unix if fetched is not None else None
                decided = ended.decided_cut >= following.committed
                found.append(Takeover(life.number, following.partition, records, spans, decided, recovery_s))
    return found


def _reign_at(line: Sequence[Reign], unix: float) -> Reign | None:
    before = [reign for reign in line if reign.unix <= unix]
    return before[-1] if before else None


def _names(lives: Sequence[Life], reigns: dict[int, list[Reign]]) -> dict[int, bytes]:
    """What each process is called in the ledger: it has said which epochs are its own."""
    owners = {(reign.partition, reign.epoch): reign.owner for line in reigns.values() for reign in line}
    names: dict[int, bytes] = {}
    for life in lives:
        for place, _ in _said(life, "assigned"):
            if place in owners:
                names[life.number] = owners[place][:PROCESS_BYTES]
    return names


def _first_records(lives: Sequence[Life]) -> dict[tuple[int, int], float]:
    return {place: unix for life in lives for place, unix in _said(life, "first records")}


def _said(life: Life, event: str) -> Iterator[tuple[tuple[int, int], float]]:
    for line in life.log:
        if line["event"] == event:
            partition, epoch = line["partition"], line["epoch"]
            assert isinstance(partition, int)
            assert isinstance(epoch, int)
            yield (partition, epoch), datetime.fromisoformat(str(line["timestamp"])).timestamp()


def _above(log: sqlite3.Connection, reign: Reign, unix: float) -> tuple[int, int]:
    """Records and spans from the committed offset on that lay in the log at that time."""
    rows = log.execute(
        "SELECT body FROM chunk WHERE partition = ? AND base >= ? AND timestamp_ms <= ?",
        (reign.partition, reign.committed, int(unix * 1000)),
    )
    records = spans = 0
    for (body,) in rows:
        records += 1
        spans += _span_count(body)
    return records, spans


def _span_count(chunk: bytes) -> int:
    _, _, value_length = struct.unpack_from("<IHI", chunk, 1)
    assert chunk[0] == 1, f"chunk version {chunk[0]}"
    value = chunk[len(chunk) - value_length :]
    try:
        return len(parse_spans(parse_record(value)))
    except Malformed:
        return 1


def spread(values: Iterable[float]) -> str:
    """Median, 90 %, 99 % and the most of some values."""
    ordered = sorted(values)
    if not ordered:
        return "none"
    shares = {"median": 0.5, "90 %": 0.9, "99 %": 0.99}
    told = [f"{name} {ordered[min(len(ordered) - 1, int(share * len(ordered)))]:.1f}" for name, share in shares.items()]
    return ", ".join([*told, f"most {ordered[-1]:.1f}"]) + f" ({len(ordered)} of them)"
