"""The Kafka door on a real broker: any key, every encoding, poison, kill -9, and the Collector's own exporter."""

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from spanloom.core.codec.transcode import ENCODINGS, transcode
from spanloom.core.kernel import scan
from spanloom.core.partitioning import partition_of
from tests.cluster.dump import everything
from tests.cluster.members import Cluster
from tests.core.codec.test_transcode import VALUES
from tests.integration.process import Process, eventually
from tests.servers import need_servers
from tests.servers.kafka import running
from tests.servers.otelcol import need_otelcol, running_otelcol
from tests.spans import Sp, traces_data

FOREIGN_PARTITIONS = 3
Ids = tuple[bytes, bytes]

# The defaults of the exporter: no key, otlp_proto, topic otlp_spans.
KEYLESS = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:${env:HTTP_PORT}"}}}}
exporters: {kafka: {brokers: ["${env:BROKER}"], traces: {topic: "${env:TOPIC}"}}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: "${env:METRICS_PORT}"}}}}]}}
  pipelines: {traces: {receivers: [otlp], exporters: [kafka]}}
"""


class Foreign:
    """A cluster of ours and a topic that is not."""

    _numbers = itertools.count()

    def __init__(self, folder: Path, encoding: str = "otlp_proto") -> None:
        self.cluster = Cluster(running().brokers, folder)
        self.cluster.create_topics()
        self.topic = f"{self.cluster.prefix}orders-{next(self._numbers)}"
        self.encoding = encoding
        admin = AdminClient({"bootstrap.servers": self.cluster.brokers})
        (made,) = admin.create_topics([NewTopic(self.topic, FOREIGN_PARTITIONS, 1)]).values()
        made.result(30)

    def fill(self, values: Sequence[bytes], *, key: bytes | None = None) -> None:
        """As its producers do."""
        producer = Producer({"bootstrap.servers": self.cluster.brokers, "compression.type": "zstd"})
        for value in values:
            producer.produce(self.topic, value, key)
        assert producer.flush(30) == 0

    def collector(self, armed: str = "") -> AbstractContextManager[Process]:
        settings = {"topic": self.topic, "encoding": self.encoding, "group": f"{self.topic}-group"}
        door = {f"kafka_intake__{key}": value for key, value in settings.items()}
        return self.cluster.member("collector", armed=armed, **door)

    def spans(self) -> Counter[Ids]:
        """What is in `spans`, each in the partition and under the key of its trace."""
        found: Counter[Ids] = Counter()
        for record in everything(self.cluster.brokers, f"{self.cluster.prefix}spans"):
            value, key = record.value(), record.key()
            assert isinstance(value, bytes)
            assert isinstance(key, bytes)
            for span in scan(value):
                assert span.trace_id.hex().encode() == key
                found[span.trace_id, span.span_id] += 1
            assert record.partition() == partition_of(key, self.cluster.partitions)
        return found


@pytest.fixture
def foreign(tmp_path: Path) -> Foreign:
    """Topics of the test's own."""
    need_servers()
    return Foreign(tmp_path)


def ids_of(traces: Sequence[bytes]) -> set[Ids]:
    return {(span.trace_id, span.span_id) for value in traces for span in scan(value)}


def taken(member: Process, records: int) -> None:
    """Wait until the door has done with so many records."""
    eventually(lambda: member.metric("spanloom_feed_records_total") >= records, within_s=60)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_comes_in_by_kafka(encoding: str, tmp_path: Path) -> None:
    """Records of each encoding, under a key that means nothing to us, are in `spans` under their traces' ids."""
    need_servers()
    foreign = Foreign(tmp_path, encoding)
    foreign.fill([VALUES[encoding]], key=b"customer-17")
    with foreign.collector() as member:
        taken(member, 1)
        assert member.terminate() == 0
    assert set(foreign.spans()) == ids_of([transcode(encoding, VALUES[encoding]).traces_data])


def test_a_poison_record_is_listed_with_reason_and_place_and_sent_again_as_it_was_written(tmp_path: Path) -> None:
    """Its neighbours go in; `dead-letters list` names it, `replay` tries its own encoding and keeps it if in vain."""
    need_servers()
    foreign = Foreign(tmp_path, "seed_json")
    span = json.loads(VALUES["seed_json"])
    half = json.dumps([{**span, "span_id": "2"}, {**span, "span_id": "3", "duration": -1}]).encode()
    foreign.fill([b"{nothing", VALUES["seed_json"], half], key=b"k")
    with foreign.collector() as member:
        taken(member, 3)
        assert member.metric("spanloom_intake_spans_total") == 2 + 1  # produced, rejected
        assert member.terminate() == 0
    assert len(foreign.spans()) == 2
    listed = foreign.cluster.command("dead-letters", "list").stdout
    assert listed.count(f"{foreign.topic}/") == 2
    assert "json" in listed
    assert "$[1].duration" in listed
    assert "2 dead letters sent again" in foreign.cluster.command("dead-letters", "replay").stdout
    assert len(foreign.spans()) == 2
    assert "2 dead letters not sent again" in foreign.cluster.command("dead-letters", "list").stdout


def test_what_was_in_the_log_and_not_committed_is_read_again(foreign: Foreign) -> None:
    """kill -9 between append and commit, three times: nothing is missing, and what came twice shows that it died."""
    values = [traces_data([Sp(number, each) for each in range(1, 6)]) for number in range(1, 200)]
    foreign.fill(values)
    for _ in range(3):
        # It may die before it says that it is ready.
        with suppress(AssertionError), foreign.collector(armed="intake-appended:1") as member:
            member.popen.wait(120)
    with foreign.collector() as member:
        taken(member, len(values))
        assert member.terminate() == 0
    found = foreign.spans()
    assert set(found) == ids_of(values)
    assert max(found.values()) > 1


def test_a_collector_that_stops_commits_and_its_successor_reads_nothing_again(foreign: Foreign) -> None:
    """After SIGTERM the next member of the group takes what is new alone."""
    first, second = ([traces_data([Sp(number, 1)]) for number in numbers] for numbers in (range(1, 50), range(50, 60)))
    foreign.fill(first)
    with foreign.collector() as member:
        taken(member, len(first))
        assert member.terminate() == 0
    foreign.fill(second)
    with foreign.collector() as member:
        taken(member, len(second))
        assert member.terminate() == 0
    assert foreign.spans() == Counter(dict.fromkeys(ids_of([*first, *second]), 1))


def test_two_collectors_share_a_topic(foreign: Foreign) -> None:
    """Members of one group take each record once while nobody dies, and each takes some."""
    values = [traces_data([Sp(number, 1)]) for number in range(1, 400)]
    with foreign.collector() as first, foreign.collector() as second:
        for member in (first, second):
            eventually(lambda: member.said("partitions assigned"), within_s=60)  # noqa: B023
        for number in range(30):
            foreign.fill(values[number::30], key=b"%d" % number)
        eventually(
            lambda: sum(each.metric("spanloom_feed_records_total") for each in (first, second)) >= len(values),
            within_s=60,
        )
        shares = [member.metric("spanloom_feed_records_total") for member in (first, second)]
        assert [member.terminate() for member in (first, second)] == [0, 0]
    assert set(foreign.spans()) == ids_of(values)
    assert min(shares) > 0


def test_the_collector_s_keyless_exporter_is_understood(foreign: Foreign) -> None:
    """The OpenTelemetry Collector's kafka exporter by its defaults, batches without a key: every span is there."""
    need_otelcol()
    values = [traces_data([Sp(number, each) for each in range(1, 4)]) for number in range(1, 40)]
    with running_otelcol(KEYLESS, BROKER=foreign.cluster.brokers, TOPIC=foreign.topic) as otelcol:
        url = f"http://127.0.0.1:{otelcol.ports['HTTP_PORT']}/v1/traces"
        for value in values:
            with urlopen(Request(url, value, {"Content-Type": "application/x-protobuf"}), timeout=30) as answer:
                assert answer.status == 200
    assert {record.key() for record in everything(foreign.cluster.brokers, foreign.topic)} == {None}
    with foreign.collector() as member:
        eventually(lambda: member.metric("spanloom_intake_spans_accepted_total") >= 3 * len(values), within_s=60)
        assert member.terminate() == 0
    assert set(foreign.spans()) == ids_of(values)


def test_a_topic_of_ours_is_refused(foreign: Foreign) -> None:
    """A door that would feed itself, and a topic that is not there: exit 2, one line."""
    ours, nowhere = f"{foreign.cluster.prefix}spans", f"{foreign.topic}-nowhere"
    for topic, said in ((ours, "expected a topic that is not spanloom's own"), (nowhere, "found no")):
        ran = foreign.cluster.command("collector", f"--set=kafka_intake.topic={topic}", "--port=0", check=False)
        assert (ran.returncode, said in ran.stderr) == (2, True), ran.stderr
