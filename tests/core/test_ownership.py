"""One assignment: when it may tick, when it reads with care, and how far back the next one has to read."""

from collections.abc import Iterable, Sequence
from itertools import count

import pytest

from spanloom.core._pure.assembler import Assembler
from spanloom.core.assembly import Limits
from spanloom.core.deaths import ACCUSATIONS_MAX, DEATHS_MAX
from spanloom.core.ledger import NO_OFFSET, Fence, encode
from spanloom.core.ownership import Ownership, Phase, decode_metadata
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import Fenced
from spanloom.model import Committed, Fragment, LedgerRecord, Record
from tests.core.kernels import BOTH, assembler_class
from tests.spans import T0_MS, S, Sp, record

LIMITS = Limits()
ALL = {"type": "consistent_probability", "consistent_probability": {"sampling_percentage": 100}}
FIRST = parse_policies([{"name": "first", **ALL}], version=1)
SECOND = parse_policies([{"name": "second", **ALL}], version=2)


class Partition:
    """A ledger and a commit, and owners that come one after another."""

    def __init__(self) -> None:
        self.ledger: list[bytes] = []
        self.committed = Committed(0, b"")
        self.kept: list[Fragment] = []
        self._assignments = count(1)

    def owner(self, process: int) -> Ownership:
        """A new assignment in *process* that has taken over."""
        assembler = Assembler(LIMITS, partition=0, partition_count=1)
        uuid = process.to_bytes(8, "big") + next(self._assignments).to_bytes(8, "big")
        owner = Ownership(0, self.committed, assembler, owner=uuid, limits=LIMITS)
        self.follow(owner, owner.recall_from.position)
        self.append(owner, [owner.fence()])
        assert owner.phase is Phase.OWNING
        return owner

    def append(self, owner: Ownership, bodies: Sequence[bytes]) -> None:
        """Append, and let the owner read it back."""
        at = len(self.ledger)
        self.ledger += bodies
        self.follow(owner, at)

    def follow(self, owner: Ownership, position: int) -> None:
        for place in range(position, len(self.ledger)):
            self.kept += owner.read_back(LedgerRecord(place, self.ledger[place]))

    def feed(self, owner: Ownership, records: Iterable[Record]) -> None:
        self.append(owner, owner.decide(owner.feed(list(records))))


def test_processes_that_end_at_one_offset_make_the_next_one_careful() -> None:
    """After three processes that came no further than the committed offset, records are fed one by one."""
    partition = Partition()
    careful = [partition.owner(process).is_careful for process in range(DEATHS_MAX + 1)]
    assert careful == [False] * DEATHS_MAX + [True]


def test_assignments_of_one_process_are_no_deaths() -> None:
    """However often a process fences again after doubt, it is alive, and nobody need be careful."""
    partition = Partition()
    assert not any(partition.owner(7).is_careful for _ in range(10))


def test_a_life_that_lasted_ends_the_care() -> None:
    """Once its second checkpoint is read back an owner is past what killed the others, and so is who comes next."""
    partition = Partition()
    for process in range(DEATHS_MAX):
        partition.owner(process)
    owner = partition.owner(99)
    partition.append(owner, owner.checkpoint(FIRST))
    partition.append(owner, owner.checkpoint(FIRST))
    assert not owner.is_careful
    partition.committed = owner.commit()
    assert not partition.owner(100).is_careful


def test_commits_at_the_same_offset_keep_the_deaths_in_sight() -> None:
    """Owners that commit again where they began, and die, are counted all the same."""
    partition = Partition()
    for process in range(DEATHS_MAX):
        owner = partition.owner(process)
        partition.append(owner, owner.checkpoint(FIRST))
        partition.committed = owner.commit()
    assert partition.owner(99).is_careful


def accuse(partition: Partition, processes: Iterable[int], offset: int) -> None:
    """Each process dies while the record at *offset* is fed."""
    for process in processes:
        owner = partition.owner(process)
        partition.append(owner, owner.probe(offset))


def test_a_record_is_accused_once_two_processes_ended_while_it_was_fed() -> None:
    """One death may be anybody's kill -9."""
    partition = Partition()
    accuse(partition, range(ACCUSATIONS_MAX - 1), 5)
    assert not partition.owner(50).is_accused(5)
    accuse(partition, [60], 5)
    assert partition.owner(70).is_accused(5)
    assert not partition.owner(71).is_accused(4)


def test_a_record_that_was_survived_is_not_accused() -> None:
    """Whoever gets past the record clears it; so does a process that turns out to live."""
    partition = Partition()
    accuse(partition, [1, 2], 5)
    owner = partition.owner(3)
    partition.append(owner, owner.probe(5))
    partition.append(owner, owner.probe(NO_OFFSET))
    assert not partition.owner(4).is_accused(5)
    accuse(partition, [5, 6], 8)
    partition.owner(5)
    assert not partition.owner(7).is_accused(8)


def test_a_condemned_record_is_passed_by_and_counted() -> None:
    """Once its SKIP is read back the record is not fed: it counts as dead-lettered and holds no offset."""
    partition = Partition()
    accuse(partition, [1, 2], 0)
    owner = partition.owner(3)
    partition.append(owner, owner.condemn(0, "deadly"))
    owner.feed([record(0, 0, Sp(1, 1))])
    safe = owner.assembler.safe_position()
    assert (safe.offset, safe.tally.dead_lettered) == (1, 1)


def test_a_record_that_a_decision_was_made_on_is_never_condemned() -> None:
    """What somebody decided on, somebody survived; and without it the logged verdict would stand on nothing."""
    partition = Partition()
    owner = partition.owner(1)
    partition.append(owner, owner.checkpoint(FIRST))
    partition.feed(owner, [record(0, 0, Sp(1, 1)), record(1, 60, Sp(2, 1))])
    accuse(partition, [2, 3], 0)
    assert not partition.owner(4).is_accused(0)


def test_time_is_not_moved_by_hand_before_what_was_decided_is_read_again() -> None:
    """In a replay that waits for the log, a TICK would change what earlier decisions were made on."""
    partition = Partition()
    owner = partition.owner(1)
    partition.append(owner, owner.checkpoint(FIRST))
    records = [record(0, 0, Sp(1, 1)), record(1, 0, Sp(3, 1)), record(2, 60, Sp(2, 1))]
    partition.feed(owner, records)
    assert owner.may_tick
    late = partition.owner(2)
    assert not late.may_tick
    late.feed(records[:2])
    assert not late.may_tick  # time stood higher when they were decided: records are still to come
    late.feed(records[2:])
    assert late.may_tick


def test_time_goes_on_where_what_moved_it_was_deleted() -> None:
    """After a jump over deleted records nothing is waited for that cannot come."""
    partition = Partition()
    owner = partition.owner(1)
    partition.append(owner, owner.checkpoint(FIRST))
    partition.feed(owner, [record(0, 0, Sp(1, 1)), record(1, 60, Sp(2, 1))])
    late = partition.owner(2)
    late.jump(2)
    assert late.may_tick


def test_a_tick_that_is_still_to_come_holds_back_others() -> None:
    """An earlier owner's TICK further on is reached before time is moved by hand again."""
    partition = Partition()
    owner = partition.owner(1)
    partition.append(owner, owner.checkpoint(FIRST))
    owner.feed([record(0, 0, Sp(1, 1))])
    partition.append(owner, owner.tick(T0_MS * 1_000_000 + S))
    late = partition.owner(2)
    assert not late.may_tick
    late.feed([record(0, 0, Sp(1, 1))])
    assert late.may_tick


def test_the_names_of_old_policies_are_found_as_long_as_a_decision_refers_to_them() -> None:
    """A document rebuilt after the policies changed names the same policy as the first time."""
    partition = Partition()
    owner = partition.owner(1)
    partition.append(owner, owner.checkpoint(FIRST))
    partition.feed(owner, [record(0, 0, Sp(1, 1)), record(1, 60, Sp(2, 1))])
    partition.committed = owner.commit()
    for process in (2, 3, 4):
        owner = partition.owner(process)
        partition.append(owner, owner.checkpoint(SECOND))
        assert owner.policy_names(1) == ("first",)
        partition.committed = owner.commit()
    assert decode_metadata(partition.committed, partition=0)[1].position <= 1


def test_an_owner_that_has_lost_says_so_instead_of_appending() -> None:
    """What would be appended after a newer FENCE is refused as Fenced: no crash, and no restart that fences again."""
    partition = Partition()
    owner = partition.owner(1)
    newer = encode(0, owner.epoch + 1, Fence(bytes(16), 0))
    with pytest.raises(Fenced):
        owner.read_back(LedgerRecord(len(partition.ledger), newer))
    with pytest.raises(Fenced):
        owner.tick(1)


@pytest.mark.parametrize("kernel", BOTH)
def test_a_fragment_is_rebuilt_even_if_time_runs_ahead_in_the_replay(kernel: str) -> None:
    """Where retention took the records that held time back, a logged decision still governs its own spans."""
    first = assembler_class(kernel)(LIMITS, partition=0, partition_count=1)
    first.configure(FIRST)
    harvest = first.feed([record(0, 0, Sp(9, 1)), record(1, 5000, Sp(1, 1)), record(2, 20, Sp(2, 1))])
    harvest += first.advance(T0_MS * 1_000_000 + 30 * S)
    replay = assembler_class(kernel)(LIMITS, partition=0, partition_count=1)
    replay.configure(FIRST)
    for body in harvest.decisions:
        replay.recall(body)
    replay.jump(1)
    again = replay.feed([record(1, 5000, Sp(1, 1))])
    assert [fragment.decision.first for fragment in again.fragments] == [1]
    assert replay.statistics().open_traces == 0
