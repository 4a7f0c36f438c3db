"""The whole cluster deployment: Kafka in, Elasticsearch and Redis behind, any process answers for every trace."""

import json
from functools import partial
from itertools import product
from pathlib import Path

import pytest

from tests.cluster.members import Cluster, wait_for_share
from tests.integration.process import Process, eventually
from tests.servers import elasticsearch, need_servers, redis
from tests.servers.kafka import running
from tests.spans import Sp, traces_data


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A group on topics of its own."""
    need_servers()
    cluster = Cluster(running().brokers, tmp_path)
    cluster.create_topics()
    return cluster


def found(member: Process, trace: int) -> dict[str, object] | None:
    """The trace as the process answers it, once it is stored."""
    status, body = member.get(f"/v1/traces/{Sp(trace, 1).trace_id.hex()}")
    answer: dict[str, object] = json.loads(body)
    return answer if status == 200 and "spans" in answer else None


def test_any_process_answers_for_every_trace_whatever_becomes_of_redis(cluster: Cluster) -> None:
    """Traces sent to one process are found through both, out of Elasticsearch, by cache or without it."""
    prefix = cluster.prefix.lower()
    settings = {
        "elasticsearch__urls": elasticsearch.running().url,
        "elasticsearch__prefix": prefix,
        "elasticsearch__replicas": "0",
        "redis__url": redis.running().url,
    }
    traces = range(1, 41)
    with cluster.member("run", **settings) as first, cluster.member(**settings) as second:
        wait_for_share([first, second], cluster.partitions)
        for trace in traces:
            spans = [Sp(trace, 1, error=True), Sp(trace, 2, parent=1, service="pay")]
            assert first.post("/v1/traces", traces_data(spans), "application/x-protobuf")[0] == 200
        for member, trace in product((first, second), traces):
            answer = eventually(partial(found, member, trace), within_s=30)
            assert (answer["status"], answer["span_count"]) == ("kept", 2)
        redis.running().say("FLUSHALL")
        assert all(found(second, trace) for trace in traces)
        assert second.get("/v1/traces/00000000000000000000000000abcdef")[0] == 404
        for member in (first, second):
            assert member.terminate() == 0
    elasticsearch.running().forget(prefix)
