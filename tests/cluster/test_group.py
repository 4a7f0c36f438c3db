"""Processes that share the partitions of a real Kafka: whatever one of them does, nothing is lost and nothing twice."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.cluster.members import Cluster, load, owned, wait_for_share
from tests.integration.process import Process, eventually
from tests.servers import need_servers
from tests.servers.kafka import running

SPANS = 12_000


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A group on topics of its own."""
    need_servers()
    cluster = Cluster(running().brokers, tmp_path)
    cluster.create_topics()
    return cluster


def assert_balanced(cluster: Cluster, survivor: Process, record: Path) -> None:
    """The oracle finds nothing wrong, the books included, and the survivor counts what went with the commits.

    A duplicate that a replay met may stand in the books as what its fragment came to: see books.check_books.
    """
    counted = {
        name: survivor.metric(f"spanloom_spans_{name}_total") for name in ("received", "stored", "duplicate", "dropped")
    }
    assert survivor.terminate() == 0
    tally = cluster.judge(record)
    committed = sum((Counter(each.counters) for each in cluster.books().values()), Counter())
    committed["dropped"] = committed["not_sampled"] + committed["late"] + committed["pressure"]
    assert counted == {name: committed[name] for name in counted}
    assert tally["received"] >= SPANS
    assert min(tally["stored"], tally["duplicate"], tally["not_sampled"]) > 0


@pytest.mark.parametrize("consumer", ["auto", "portable"])
def test_a_killed_member_s_partitions_are_taken_over_and_nothing_is_lost_or_twice(
    cluster: Cluster, tmp_path: Path, consumer: str
) -> None:
    """kill -9 of a member under load: another owns its partitions and the books balance, whichever client reads."""
    record, how = tmp_path / "sent", {"kafka__consumer": consumer}
    with cluster.member("run", **how) as first, cluster.member(**how) as second:
        wait_for_share([first, second], cluster.partitions)
        shares = owned(second)
        with load(first, record, f"--spans={SPANS}", "--rate=3000") as sending:
            eventually(lambda: second.metric("spanloom_spans_received_total") > 1000, within_s=30)
            second.popen.kill()
            killed = time.monotonic()
            eventually(lambda: shares <= owned(first), within_s=60)
            took_s = time.monotonic() - killed
            assert sending.wait(120) == 0
        first.settled(SPANS)
        assert_balanced(cluster, first, record)
    print(f"taken over {took_s:.1f} s after kill -9")


def test_a_member_that_is_told_to_stop_hands_its_partitions_on_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """SIGTERM under load: what is decided is stored and committed, the group is left, exit 0; no session runs out."""
    record = tmp_path / "sent"
    with cluster.member("run") as first, cluster.member() as second:
        wait_for_share([first, second], cluster.partitions)
        shares = owned(second)
        with load(first, record, f"--spans={SPANS}", "--rate=3000") as sending:
            eventually(lambda: second.metric("spanloom_spans_received_total") > 1000, within_s=30)
            told = time.monotonic()
            assert second.terminate() == 0
            eventually(lambda: shares <= owned(first), within_s=60)
            took_s = time.monotonic() - told
            assert sending.wait(120) == 0
        drained = second.said("drained")
        assert drained is not None
        assert drained["whole"] is True
        first.settled(SPANS)
        assert_balanced(cluster, first, record)
    print(f"handed over {took_s:.1f} s after SIGTERM")


def test_a_frozen_member_that_wakes_up_does_no_harm(cluster: Cluster, tmp_path: Path) -> None:
    """SIGSTOP beyond the session, SIGCONT: its partitions went to another, it stops at once and joins anew."""
    record = tmp_path / "sent"
    with cluster.member("run") as first, cluster.member() as second:
        wait_for_share([first, second], cluster.partitions)
        shares = owned(second)
        with load(first, record, f"--spans={SPANS}", "--rate=1500") as sending:
            eventually(lambda: second.metric("spanloom_spans_received_total") > 1000, within_s=30)
            second.popen.send_signal(signal.SIGSTOP)
            eventually(lambda: shares <= owned(first), within_s=60)
            second.popen.send_signal(signal.SIGCONT)
            eventually(lambda: second.said("partitions lost"), within_s=30)
            assert sending.wait(120) == 0
        wait_for_share([first, second], cluster.partitions)
        assert second.terminate() == 0
        eventually(lambda: len(owned(first)) == cluster.partitions, within_s=60)
        first.settled(SPANS)
        assert_balanced(cluster, first, record)
