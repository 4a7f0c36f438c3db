"""A member of a cluster explains verdicts of every partition, its own and those of others, from Kafka alone."""

import json
from pathlib import Path

import pytest

from tests.cluster.members import Cluster, wait_for_share
from tests.integration.process import eventually
from tests.servers import need_servers
from tests.servers.kafka import running
from tests.spans import Sp, trace_id, traces_data

TRACES = 12
POLICIES = "- {name: slow, type: latency, latency: {threshold_ms: 500}}\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A group on topics of its own."""
    need_servers()
    cluster = Cluster(running().brokers, tmp_path, partitions=4)
    cluster.create_topics()
    return cluster


def test_any_member_explains_any_trace(cluster: Cluster, tmp_path: Path) -> None:
    """What each policy saw is read again from `spans`, whoever owns the partition."""
    (tmp_path / "sampling.yaml").write_text(POLICIES)
    settings = {"sampling__policies": str(tmp_path / "sampling.yaml")}
    with cluster.member("run", **settings) as first, cluster.member("run", **settings) as second:
        wait_for_share([first, second], cluster.partitions)
        spans = [Sp(trace, 1, ms=1000 if trace % 2 else 20) for trace in range(1, TRACES + 1)]
        assert first.post("/v1/traces", traces_data(spans), "application/x-protobuf")[0] == 200
        eventually(lambda: sum(m.metric("spanloom_spans_received_total") for m in (first, second)) == TRACES, 60)
        eventually(lambda: sum(m.metric("spanloom_spans_pending") for m in (first, second)) == 0, 60)
        for trace in range(1, TRACES + 1):
            for member in (first, second):
                status, body = member.get(f"/v1/traces/{trace_id(trace).hex()}/decision")
                found = json.loads(body)
                assert (status, found.get("status")) == (200, "kept" if trace % 2 else "dropped"), found
                (policy,) = found["decisions"][0]["policies"]
                assert policy["saw"] == ("1000 ms" if trace % 2 else "20 ms")
