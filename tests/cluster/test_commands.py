"""What an operator does to a cluster, as commands on a real Kafka."""

from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.cluster.members import Cluster, load
from tests.integration.process import eventually
from tests.servers import need_servers
from tests.servers.kafka import PASSWORD, USER, running
from tests.spans import Sp, traces_data


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    """A group whose topics are not there yet."""
    need_servers()
    return Cluster(running().brokers, tmp_path, partitions=2)


def test_topics_are_created_checked_and_needed(cluster: Cluster) -> None:
    """`topics create` makes them once, `topics check` says what differs, and no member starts without them."""
    refused = cluster.command("aggregator", f"--data={cluster.folder}", check=False)
    assert refused.returncode == 2
    assert f"expected a topic {cluster.prefix}spans, found none; `spanloom topics create` makes it" in refused.stderr
    missing = cluster.command("topics", "check", "--spans-partitions=2", check=False)
    assert (missing.returncode, missing.stdout.count("is not there")) == (2, 6)

    cluster.create_topics()
    assert cluster.command("topics", "create", "--spans-partitions=2").stdout.count("was there") == 6
    assert "as they should be" in cluster.command("topics", "check", "--spans-partitions=2").stdout
    different = cluster.command("topics", "check", "--spans-partitions=4", "--replicas=3", check=False)
    assert different.returncode == 2
    assert f"{cluster.prefix}spans: expected 4 partitions, found 2" in different.stdout
    assert f"{cluster.prefix}ledger: min.insync.replicas: expected at least 2, found 1" in different.stdout


def test_a_broker_that_is_not_there_is_said_in_one_line() -> None:
    """Nobody answers at the address: exit 4, one line, no traceback."""
    cluster = Cluster("127.0.0.1:1", Path())
    refused = cluster.command("topics", "check", check=False)
    assert refused.returncode == 4
    assert refused.stderr.count("\n") == 1
    assert "Traceback" not in refused.stderr


def test_credentials_come_from_a_file_and_the_environment_and_reach_every_client(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a listener that wants a name and a password a member works with them, and is refused without, unprinted."""
    cluster.create_topics()
    cluster.brokers = f"127.0.0.1:{running().nodes[0].sasl_port}"
    file = tmp_path / "client.properties"
    file.write_text(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n"
        f"sasl.username={USER}\nsasl.password=${{env:KAFKA_PASSWORD}}\n"
    )
    monkeypatch.setenv("SPANLOOM__KAFKA__CLIENT_FILE", str(file))
    monkeypatch.setenv("KAFKA_PASSWORD", "wrong")
    refused = cluster.command("topics", "check", check=False)
    assert refused.returncode == 4
    assert "SASL authentication error" in refused.stderr
    assert "wrong" not in refused.stderr

    monkeypatch.setenv("KAFKA_PASSWORD", PASSWORD)
    with cluster.member("run") as member:
        with load(member, tmp_path / "sent", "--spans=200") as sending:
            assert sending.wait(60) == 0
        member.settled(200)
        assert member.terminate() == 0
    assert PASSWORD not in str(member.log)


def test_dead_letters_are_listed_and_sent_again_once(cluster: Cluster, tmp_path: Path) -> None:
    """A record nobody can read waits in the dead letters; sent again it is refused again; a readable one is stored."""
    cluster.create_topics()
    producer = Producer({"bootstrap.servers": cluster.brokers})
    producer.produce(f"{cluster.prefix}spans", b"\xff\xff poison", b"a key", partition=1, headers=[("own", b"kept")])
    refused: list[tuple[str, str | bytes | None]] = [("reason", b"store: mapping"), ("source-partition", b"0")]
    readable = traces_data([Sp(1, 1, error=True)])
    producer.produce(f"{cluster.prefix}dead_letters", readable, b"key", partition=9, headers=refused)
    producer.flush(30)
    with cluster.member() as member:
        eventually(lambda: member.metric("spanloom_spans_dead_lettered_total") or member.said("dead letter"), 30)
        eventually(lambda: "2 dead letters" in cluster.command("dead-letters", "list").stdout, 30)
        listed = cluster.command("dead-letters", "list").stdout
        assert "store: mapping" in listed
        assert f"{len(b'??') + 7:>9} B" in listed
        assert "2 dead letters sent again" in cluster.command("dead-letters", "replay").stdout
        eventually(lambda: member.metric("spanloom_spans_stored_total") == 1, 30)
        eventually(lambda: "1 dead letters not" in cluster.command("dead-letters", "list").stdout, 30)
        assert "3 dead letters" in cluster.command("dead-letters", "list", "--all").stdout


def test_drain_waits_until_every_span_is_resolved(cluster: Cluster, tmp_path: Path) -> None:
    """While a trace is open `drain` waits, and says so with exit 4; once all is committed it says that, with exit 0."""
    cluster.create_topics()
    slow = {"assembly__quiet_s": "8s", "assembly__idle_s": "8s", "assembly__age_max_s": "20s"}
    with cluster.member("run", **slow) as member:
        with load(member, tmp_path / "sent", "--spans=200") as sending:
            assert sending.wait(60) == 0
        early = cluster.command("drain", "--timeout=0", check=False)
        assert early.returncode == 4
        assert "are not done" in early.stdout
        assert "drained" in cluster.command("drain", "--timeout=60").stdout
        assert member.metric("spanloom_spans_pending") == 0
