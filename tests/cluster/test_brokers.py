"""A cluster of three brokers of which one dies: acknowledged is acknowledged."""

import time
from pathlib import Path

import pytest

from tests.cluster.members import Cluster, load, wait_for_share
from tests.integration.process import eventually
from tests.servers import need_servers
from tests.servers.kafka import kafka

SPANS = 12_000


@pytest.mark.parametrize("consumer", ["auto", "portable"])
def test_a_broker_that_dies_costs_no_span(tmp_path: Path, consumer: str) -> None:
    """kill -9 of one of three brokers under load: everything sent is acknowledged, and the oracle finds no fault."""
    need_servers()
    record, how = tmp_path / "sent", {"kafka__consumer": consumer}
    with kafka(tmp_path, nodes=3) as servers:
        cluster = Cluster(servers.brokers, tmp_path)
        cluster.create_topics()
        with cluster.member("run", **how) as first, cluster.member(**how) as second:
            members = [first, second]
            wait_for_share(members, cluster.partitions)
            with load(first, record, f"--spans={SPANS}", "--rate=3000") as sending:
                time.sleep(1)
                servers.nodes[1].kill()
                assert sending.wait(120) == 0

            def settled() -> bool:
                received = sum(member.metric("spanloom_spans_received_total") for member in members)
                return received >= SPANS and not any(member.metric("spanloom_spans_pending") for member in members)

            eventually(settled, within_s=90)
            assert [member.terminate() for member in members] == [0, 0]
        tally = cluster.judge(record)
    assert tally["received"] >= SPANS
    assert tally["stored"] > 0
