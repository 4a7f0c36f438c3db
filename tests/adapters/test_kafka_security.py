"""Kafka behind SASL_SSL, on a broker with a certificate of its own: who gets in, who is refused, and how it is said."""

import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trio

from spanloom.adapters.kafka.clients import open_consumers, open_member
from spanloom.adapters.kafka.handle import Place
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.adapters.kafka.settings import KafkaSettings
from spanloom.adapters.kafka.topics import Topics, plan
from spanloom.config import client_properties
from spanloom.core import kernel
from spanloom.errors import ConfigError, SourceUnavailable
from spanloom.model import DEAD_LETTERS, LEDGER, POLICIES, SAMPLING_DECISIONS, SPANS, TRACES_COMPLETE, Assigned, Message
from tests.cluster.members import Cluster
from tests.servers import need_servers
from tests.servers.certificates import pem_files
from tests.servers.kafka import PASSWORD, USER, Kafka, kafka

WRONG = "s3same-open"  # nothing says this by chance
NAMES = (SPANS, LEDGER, POLICIES, TRACES_COMPLETE, SAMPLING_DECISIONS, DEAD_LETTERS)
SAID_S = 60.0  # a loaded machine's worst; what is waited for takes less than a second
_runs = itertools.count()


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker with a listener for those who name themselves and speak TLS, and who vouches for it."""

    server: Kafka
    authority: Path
    stranger: Path  # another authority, which has signed nothing here

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.server.nodes[0].secure_port}"

    def client_file(self, folder: Path, **changes: str) -> Path:
        """A `kafka.client_file` that gets in, but for the *changes*."""
        properties = {
            "security_protocol": "SASL_SSL",
            "ssl_ca_location": str(self.authority),
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_username": USER,
            "sasl_password": PASSWORD,
        } | changes
        file = folder / "client.properties"
        file.write_text("".join(f"{key.replace('_', '.')}={value}\n" for key, value in properties.items()))
        return file


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """One broker for the tests of this module."""
    need_servers()
    with TemporaryDirectory(prefix="spanloom-kafka-", ignore_cleanup_errors=True) as name:
        own, other = Path(name) / "own", Path(name) / "other"
        own.mkdir()
        other.mkdir()
        files = pem_files(own)
        with kafka(Path(name), keystore=files.server) as server:
            yield Secured(server, files.authority, pem_files(other).authority)


@pytest.fixture
def cluster(secured: Secured, tmp_path: Path) -> Cluster:
    """A group whose topics are not there yet, at the secured listener."""
    return Cluster(secured.brokers, tmp_path, partitions=2)


def settings_of(secured: Secured, file: Path, reader: str = "auto") -> KafkaSettings:
    prefix = f"secured-{next(_runs)}-"
    topics = {name: prefix + name for name in NAMES}
    client = client_properties(str(file), {})
    return KafkaSettings(secured.brokers, group=prefix + "group", topics=topics, reader=reader, client=client)


@pytest.mark.parametrize("reader", ["native", "portable"])
@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
async def test_every_client_gets_in(secured: Secured, tmp_path: Path, mechanism: str, reader: str) -> None:
    """Topics, a producer, a consumer and a member of the group work over TLS with a name and a password."""
    if reader == "native" and kernel.fetch is None:
        pytest.skip("without native code the portable consumer reads")
    settings = settings_of(secured, secured.client_file(tmp_path, sasl_mechanism=mechanism), reader)
    spans = settings.topic(SPANS)

    def start() -> dict[str, str]:
        topics = Topics(settings)
        topics.create(plan(settings, spans_partitions=2, replicas=1), replicas=1)
        assert topics.look().partition_count == 2
        return topics.group_protocol()

    protocol = await trio.to_thread.run_sync(start)
    with (
        trio.fail_after(SAID_S),
        closing(Publisher(settings.connection(), SourceUnavailable, linger_ms=0)) as publisher,
        closing(open_consumers(settings, 2)) as consumers,
        closing(open_member(settings, spans, protocol)) as member,
    ):
        await publisher.publish([(spans, 1, Message(b"key", b"span"))])
        reading = consumers.read(Place(spans, 1, 0))
        assert [record.value for record in await reading.receive()] == [b"span"]
        await reading.aclose()
        await member.join()
        change = await member.next_change()
        assert change == Assigned((0, 1))
        await member.acknowledge(change)
        await member.leave()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"sasl_password": WRONG}, "SASL authentication error"),
        ({"sasl_mechanism": "PLAIN", "sasl_password": WRONG}, "SASL authentication error"),
        ({"ssl_ca_location": "STRANGER"}, "certificate verify failed"),
        ({"security_protocol": "SASL_PLAINTEXT"}, "is `security.protocol` in kafka.client_file what they speak there?"),
    ],
    ids=["password", "plain password", "authority", "no TLS"],
)
def test_a_start_that_is_refused_names_the_cause(
    secured: Secured,
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    changes: dict[str, str],
    cause: str,
) -> None:
    """A wrong password, a certificate nobody vouches for, no TLS: exit 4 and one line that says which, no secret."""
    changes = {key: value.replace("STRANGER", str(secured.stranger)) for key, value in changes.items()}
    monkeypatch.setenv("SPANLOOM__KAFKA__CLIENT_FILE", str(secured.client_file(tmp_path, **changes)))

    refused = cluster.command("aggregator", f"--data={tmp_path / 'data'}", check=False)

    assert refused.returncode == 4
    assert cause in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert WRONG not in refused.stderr
    assert PASSWORD not in refused.stderr


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ssl_ca_location": "/nowhere/ca.pem"}, r"ssl\.ca\.location"),
        ({"security_protocol": "TLS"}, r"security\.protocol"),
        ({"sasl_passwort": WRONG}, r"sasl\.passwort"),
        ({"sasl_mechanism": "SCRAM-MD5"}, "SCRAM-MD5"),
    ],
    ids=["file", "value", "name", "mechanism"],
)
def test_a_property_that_cannot_be_is_named(tmp_path: Path, changes: dict[str, str], named: str) -> None:
    """What librdkafka refuses ends the start as a wrong configuration, which names the property and no secret."""
    nowhere = Secured(Kafka(), tmp_path / "ca.pem", tmp_path / "ca.pem")
    client = client_properties(str(nowhere.client_file(tmp_path, **changes)), {})
    with pytest.raises(ConfigError, match=named) as refused:
        Topics(KafkaSettings("127.0.0.1:1", client=client))
    assert WRONG not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_an_aggregator_works_behind_sasl_and_tls_and_tells_nobody_the_password(
    secured: Secured, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a name, a password and an authority in a file every span is resolved, and nothing prints the password."""
    monkeypatch.setenv("SPANLOOM__KAFKA__CLIENT_FILE", str(secured.client_file(tmp_path)))
    cluster.create_topics()
    record = tmp_path / "sent"
    with cluster.member(log__level="debug") as member:
        sent = cluster.command("loadgen", "--spans=500", f"--record={record}")
        member.settled(500)
        metrics = member.get("/metrics")[1].decode()
        assert member.terminate() == 0
    explained = cluster.command("explain-config")

    assert "client.properties" in explained.stdout
    assert 'spanloom_spans_received_total{partition="0"}' in metrics
    for told in (str(member.log), metrics, explained.stdout, explained.stderr, sent.stdout, sent.stderr):
        assert PASSWORD not in told
    assert replace(cluster, brokers=secured.server.brokers).judge(record)["received"] >= 500
