"""Policies of a cluster have one source: processes with other files end on one version, and switch together."""

from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.cluster.members import Cluster, load, wait_for_share
from tests.integration.process import Process, eventually
from tests.judged import judged
from tests.servers import need_servers
from tests.servers.kafka import running

SPANS = 1_000_000  # more than there is time for: the sender is killed
ALL = "- {name: all, type: always_sample}\n"
HALF = "- {name: half, type: consistent_probability, consistent_probability: {sampling_percentage: 50}}\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A group on topics of its own."""
    need_servers()
    cluster = Cluster(running().brokers, tmp_path, partitions=4)
    cluster.create_topics()
    return cluster


def ledger(cluster: Cluster, partition: int) -> list[bytes]:
    """Every record of a ledger partition."""
    topic = f"{cluster.prefix}ledger"
    consumer = Consumer({"bootstrap.servers": cluster.brokers, "group.id": "look", "enable.auto.commit": "false"})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
        consumer.assign([TopicPartition(topic, partition, 0)])
        bodies: list[bytes] = []
        while len(bodies) < end:
            message = consumer.poll(30)
            assert message is not None
            assert message.error() is None
            value = message.value()
            assert value is not None
            bodies.append(value)
        return bodies
    finally:
        consumer.close()


def received(members: list[Process]) -> float:
    return sum(member.metric("spanloom_spans_received_total") for member in members)


def test_processes_with_other_files_end_on_one_version_and_switch_together_under_load(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Both judge by what was first in the topic; a version applied under load is everybody's, and no trace has two."""
    files = {name: tmp_path / f"{name}.yaml" for name in ("all", "half")}
    files["all"].write_text(ALL)
    files["half"].write_text(HALF)
    mine = {name: {"sampling__policies": str(file)} for name, file in files.items()}
    with cluster.member("run", **mine["all"]) as first, cluster.member("run", **mine["half"]) as second:
        members = [first, second]
        wait_for_share(members, cluster.partitions)
        assert sum(member.metric("spanloom_policy_version") for member in members) == cluster.partitions
        differing = [member for member in members if member.said("policies differ from the configuration")]
        assert len(differing) == 1, "one of them has given way"
        with load(first, tmp_path / "sent", f"--spans={SPANS}", "--rate=1500") as sending:
            eventually(lambda: received(members) > 2000, 60)
            assert cluster.command("sampling", "apply", str(tmp_path / "half.yaml")).stdout.startswith("version")
            cluster.command("sampling", "apply", str(tmp_path / "all.yaml"), "--comment=and back")
            newest = len(cluster.command("sampling", "history").stdout.splitlines())
            everywhere = newest * cluster.partitions
            eventually(lambda: sum(m.metric("spanloom_policy_version") for m in members) == everywhere, 60)
            so_far = received(members)
            eventually(lambda: received(members) > so_far + 3000, 60)
            sending.kill()
        eventually(lambda: sum(m.metric("spanloom_spans_pending") for m in members) == 0, 60)
        assert [member.terminate() for member in members] == [0, 0]
    outcome = [judged(ledger(cluster, partition), partition) for partition in range(cluster.partitions)]
    assert {versions[0] for versions, _ in outcome} == {1}
    assert {versions[-1] for versions, _ in outcome} == {newest}
    assert len({decision.policy_version for _, decisions in outcome for decision in decisions}) > 1
