"""A broker, our collector on fixed ports, and what is done to them while a client sends; then the recount."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

from tests.cluster.dump import everything
from tests.cluster.members import Cluster
from tests.integration.process import Process, eventually
from tests.oracle_checks import stored_fragments
from tests.oracle_files import parse_record, parse_spans
from tests.servers.kafka import Kafka
from tests.servers.ports import free_ports

FROZEN_S = 0.4  # before a kill -9, so that requests are in flight
BROKER_AWAY_S = 3.0
FOREIGN_PARTITIONS = 4
EVERYTHING = (
    "policies: [{name: all, type: consistent_probability, consistent_probability: {sampling_percentage: 100}}]\n"
)
Ids = Counter[str]  # `TRACE_ID SPAN_ID`


@dataclass
class Scene:
    """What a client sends to."""

    servers: Kafka
    folder: Path
    foreign: bool = False  # by the Kafka door, from a topic of others
    cluster: Cluster = field(init=False)
    collector: Process = field(init=False)
    said: list[str] = field(default_factory=list)  # what was done, and when
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.servers.brokers, self.folder)
        self.cluster.create_topics()
        self.http, self.grpc, self.zipkin = free_ports(3)
        self.topic = f"{self.cluster.prefix}otlp_spans"
        if self.foreign:
            admin = AdminClient({"bootstrap.servers": self.servers.brokers})
            for made in admin.create_topics([NewTopic(self.topic, FOREIGN_PARTITIONS, 1)]).values():
                made.result(30)
        self.start_collector()

    def note(self, what: str) -> None:
        """Something was done."""
        self.said.append(f"{time.monotonic() - self.began:6.1f} s  {what}")
        print(self.said[-1], flush=True)

    # Our collector.

    def start_collector(self) -> None:
        """On the same ports as before."""
        ports = {"http.port": self.http, "grpc.port": self.grpc, "http.zipkin_port": self.zipkin, "http.query_port": 0}
        door = {"kafka_intake.topic": self.topic, "kafka_intake.group": f"{self.topic}-group"} if self.foreign else {}
        flags = self.cluster.flags({**{key: str(port) for key, port in ports.items()}, **door})
        line = [sys.executable, "-m", "spanloom", "collector", *flags]
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        popen = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environ)
        try:
            self.collector = Process(popen)
        except AssertionError:
            popen.kill()
            raise

    def restart_collector(self) -> None:
        """SIGTERM, and the next."""
        code = self.collector.terminate(60)
        self.start_collector()
        self.note(f"collector ended by SIGTERM with exit code {code}, started again")

    def kill_collector(self) -> None:
        """kill -9 while requests are in flight, and the next."""
        self.collector.popen.send_signal(signal.SIGSTOP)
        time.sleep(FROZEN_S)
        self.collector.popen.kill()
        self.collector.popen.wait()
        self.start_collector()
        self.note("collector killed by SIGKILL, started again")

    def end(self) -> None:
        """Nothing of ours runs any more."""
        with suppress(AttributeError):
            if self.collector.popen.poll() is None:
                self.collector.popen.kill()
                self.collector.popen.wait()

    # The broker.

    def restart_broker(self, number: signal.Signals) -> None:
        """End it, leave it away for a while, start it again."""
        (node,) = self.servers.nodes
        node.send(number)
        assert node.process is not None
        node.process.wait(60)
        time.sleep(BROKER_AWAY_S)
        node.start()
        node.wait()
        self.note(f"broker ended by {number.name}, away for {BROKER_AWAY_S:g} s, started again")

    # The recount.

    def in_spans(self) -> Ids:
        """Every span in `spans`, as often as it is there."""
        found: list[Ids] = []

        def look() -> bool:
            """A broker that has just come back may not lead all partitions yet."""
            with suppress(KafkaException):
                records = everything(self.servers.brokers, f"{self.cluster.prefix}spans")
                found.append(Counter(ids for record in records for ids in _ids_of(record.value())))
            return bool(found)

        eventually(look, within_s=60)
        return found[0]

    def stored(self, received: int) -> Ids:
        """What an aggregator that keeps everything stores of them."""
        policies = self.folder / "policies.yaml"
        policies.write_text(EVERYTHING)
        with self.cluster.member("aggregator", sampling__policies=str(policies)) as member:
            eventually(
                lambda: (
                    member.metric("spanloom_spans_received_total") >= received
                    and member.metric("spanloom_spans_pending") == 0
                ),
                within_s=600,
            )
            assert member.terminate(120) == 0
        return Counter(
            ids for fragment in stored_fragments(self.cluster.folders[-1]) for ids in _ids_of(fragment.spans)
        )


def _ids_of(value: object) -> Iterator[str]:
    assert isinstance(value, bytes)
    for span in parse_spans(parse_record(value)):
        yield f"{span.trace_id.hex()} {span.span_id.hex()}"


@contextmanager
def scene(servers: Kafka, folder: Path, *, foreign: bool) -> Iterator[Scene]:
    """A collector and its topics until the block ends."""
    made = Scene(servers, folder, foreign)
    try:
        yield made
    finally:
        made.end()
