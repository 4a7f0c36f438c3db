"""Verdicts depend on the records alone: not on how many processes read them."""

import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import trio

from spanloom.load.workload import Workload
from tests.cluster.books import read_books
from tests.cluster.dump import dump_topics
from tests.cluster.members import ORACLE_LIMITS, POLICIES, Cluster, wait_for_share
from tests.cluster.timed import Sender, Sent, last_records, timed
from tests.integration.process import Process, eventually
from tests.oracle import expect
from tests.oracle_checks import check_ledger
from tests.oracle_files import LoggedDecision, read_ledger
from tests.servers import kafka, need_servers

PARTITIONS = 8
UNHURRIED = ("-m", "tests.cluster.unhurried")
SPANS = 8_000
AFTER_MS = 120_000  # by then every trace is due

Verdict = tuple[bytes, int, int, int, int, int]


def traffic() -> list[Sent]:
    """Under a minute of a fleet; then a record a partition, much later."""
    workload = Workload(seed=7, spans=SPANS, spans_per_s=200, batch_delay_s=0.5, late_delay_s=5)
    epoch_unix_ns = time.time_ns() - int(workload.length_s * 1e9)
    sent = trio.run(partial(timed, workload, epoch_unix_ns=epoch_unix_ns, partitions=PARTITIONS))
    return sent + last_records(PARTITIONS, sent[-1].at_ms + AFTER_MS)


def verdicts(folder: Path, sent: list[Sent], processes: int) -> set[Verdict]:
    """What so many processes decide; the oracle finds no fault with it."""
    folder.mkdir()
    cluster = Cluster(kafka.running().brokers, folder, partitions=PARTITIONS)
    cluster.make_topics(spans={"message.timestamp.type": "CreateTime"})
    with ExitStack() as stop:
        members: list[Process] = [stop.enter_context(cluster.member(program=UNHURRIED)) for _ in range(processes)]
        wait_for_share(members, PARTITIONS)
        sender = Sender(cluster.brokers, f"{cluster.prefix}spans")
        sender.send(sent)
        sender.finish()
        eventually(lambda: _is_done(cluster), within_s=90)
        assert [member.terminate() for member in members] == [0] * processes
    dump_topics(cluster.brokers, spans=f"{cluster.prefix}spans", ledger=f"{cluster.prefix}ledger", into=folder)
    found: set[Verdict] = set()
    for partition in range(PARTITIONS):
        ticks, decisions = read_ledger(folder / "ledger.db", partition)
        assert not ticks
        found |= set(map(_verdict, decisions))
    expected = expect(folder, POLICIES, partition_count=PARTITIONS, limits=ORACLE_LIMITS)
    assert check_ledger(folder, expected) == []
    return found


def _verdict(decision: LoggedDecision) -> Verdict:
    """Trace, verdict, policy, threshold, and which fragment of it that is about."""
    one = decision
    return one.trace_id, one.verdict, one.policy, one.threshold, one.first, one.cut


def _is_done(cluster: Cluster) -> bool:
    """All but the last record is committed, everywhere."""
    books = read_books(
        cluster.brokers, group=f"{cluster.prefix}group", topic=f"{cluster.prefix}spans", partitions=PARTITIONS
    )
    return len(books) == PARTITIONS and all(held.committed == held.end - 1 for held in books.values())


def test_one_two_and_four_processes_decide_the_same(tmp_path: Path) -> None:
    """The same records read by 1, 2 and 4 processes: the same set of trace, verdict, policy, threshold and cut."""
    need_servers()
    sent = traffic()
    one, two, four = (verdicts(tmp_path / f"{processes}", sent, processes) for processes in (1, 2, 4))
    assert one == two == four
    assert {verdict for _, verdict, *_ in one} >= {0, 1}
    assert len(one) > SPANS / 20
