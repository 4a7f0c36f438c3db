"""Apache Kafka in KRaft mode, one node or a few, on free loopback ports, in a folder the caller gives.

A node that does not start raises, with the end of its log. Nodes are ended by their pid.
"""

import atexit
import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.servers.jars import jars, java
from tests.servers.ports import free_ports

VERSION = "4.4.0"
ARTIFACTS = (f"org.apache.kafka:kafka_2.13:{VERSION}", "org.slf4j:slf4j-simple:1.7.36")
READY = "Kafka Server started"
START_S = 60  # about 3 s on an idle machine
HEAP = "-Xmx512m"
USER, PASSWORD = "spanloom", "hunter2"  # on the listeners that ask for them
_JAAS = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
_SCRAM_JAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_SCRAM = "SCRAM-SHA-512"
_SCRAM_USER = f"{_SCRAM}=[name={USER},password={PASSWORD}]"
CLUSTER_ID = "c3Bhbmxvb20tdGVzdHMtMQ"


@dataclass(slots=True)
class Node:
    """One broker and controller."""

    number: int
    folder: Path
    port: int
    sasl_port: int  # the same broker, for those who name themselves
    behind_port: int  # the same broker, for those who come through a proxy at `proxy_port`: it says that it is there
    proxy_port: int
    process: "subprocess.Popen[bytes] | None" = None
    secure_port: int = 0  # the same broker, for those who name themselves and speak TLS; 0: it has no certificate

    @property
    def log(self) -> str:
        """What it said since it was made."""
        file = self.folder / "server.log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Start it, again if need be; `wait` says when it is there."""
        line = [*_java(), HEAP, "-cp", _classpath(), "kafka.Kafka", str(self.folder / "server.properties")]
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(line, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder)

    def wait(self) -> None:
        """Wait until it takes requests."""
        assert self.process is not None
        ends = time.monotonic() + START_S
        while READY not in self.log:
            died = self.process.poll()
            assert died is None, f"Kafka node {self.number} ended with {died}:\n{self.log[-4000:]}"
            assert time.monotonic() < ends, f"Kafka node {self.number} not up in {START_S} s:\n{self.log[-4000:]}"
            time.sleep(0.05)

    def send(self, number: signal.Signals) -> None:
        """Send the node a signal: SIGKILL, SIGSTOP, SIGCONT."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """`kill -9`; may be called again."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@dataclass(slots=True)
class Kafka:
    """A running cluster."""

    nodes: list[Node] = field(default_factory=list)

    @property
    def brokers(self) -> str:
        """What a client is given."""
        return ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)


@contextmanager
def kafka(
    folder: Path, *, nodes: int = 1, settings: Mapping[str, str] | None = None, keystore: Path | None = None
) -> Iterator[Kafka]:
    """A cluster of that many nodes until the block ends; *settings* go into server.properties.

    With a *keystore*, key and certificate in PEM, each has a SASL_SSL listener too, for PLAIN and SCRAM-SHA-512.
    """
    ports = iter(free_ports(6 * nodes))
    brokers, controllers, sasl, behind, proxies, secure = (list(islice(ports, nodes)) for _ in range(6))
    cluster = Kafka()
    with contextlib.ExitStack() as stop:
        for number in range(nodes):
            node = Node(
                number + 1,
                folder / f"kafka-{number + 1}",
                brokers[number],
                sasl[number],
                behind_port=behind[number],
                proxy_port=proxies[number],
                secure_port=secure[number] if keystore else 0,
            )
            node.folder.mkdir(parents=True)
            security = _security(keystore) if keystore else {}
            properties = _properties(node, controllers, {**security, **(settings or {})})
            (node.folder / "server.properties").write_text(properties)
            _format(node, controllers)
            cluster.nodes.append(node)
            stop.callback(node.kill)
            node.start()
        for node in cluster.nodes:
            node.wait()
        yield cluster


@cache
def running() -> Kafka:
    """One node that all tests of this process share; it ends with the process."""
    stop = contextlib.ExitStack()
    atexit.register(stop.close)
    folder = stop.enter_context(TemporaryDirectory(prefix="spanloom-kafka-", ignore_cleanup_errors=True))
    return stop.enter_context(kafka(Path(folder)))


def _properties(node: Node, controllers: list[int], settings: Mapping[str, str]) -> str:
    replicas = min(3, len(controllers))
    listener = f"PLAINTEXT://127.0.0.1:{node.port},SASL_PLAINTEXT://127.0.0.1:{node.sasl_port}"
    if node.secure_port:
        listener += f",SASL_SSL://127.0.0.1:{node.secure_port}"
    controller = f"CONTROLLER://127.0.0.1:{controllers[node.number - 1]}"
    protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT", "BEHIND": "PLAINTEXT"}
    protocols |= {"SASL_PLAINTEXT": "", "SASL_SSL": ""}  # each its own
    own = {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.bootstrap.servers": ",".join(f"127.0.0.1:{port}" for port in controllers),
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{listener},{controller},BEHIND://127.0.0.1:{node.behind_port}",
        "advertised.listeners": f"{listener},{controller},BEHIND://127.0.0.1:{node.proxy_port}",
        "listener.security.protocol.map": ",".join(f"{name}:{kind or name}" for name, kind in protocols.items()),
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": _JAAS,
        "log.dirs": str(node.folder / "data"),
        "offsets.topic.replication.factor": str(replicas),
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",  # for tests that wait for one to run out
        "auto.create.topics.enable": "false",
    }
    return "".join(f"{key}={value}\n" for key, value in {**own, **settings}.items())


def _security(keystore: Path) -> dict[str, str]:
    listener = "listener.name.sasl_ssl"
    return {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
        f"{listener}.sasl.enabled.mechanisms": f"PLAIN,{_SCRAM}",
        f"{listener}.plain.sasl.jaas.config": _JAAS,
        f"{listener}.{_SCRAM.lower()}.sasl.jaas.config": _SCRAM_JAAS,
    }


def _format(node: Node, controllers: list[int]) -> None:
    quorum = ["--standalone"] if len(controllers) == 1 else ["--initial-controllers", _voters(controllers)]
    properties = str(node.folder / "server.properties")
    line = [*_java(), "-cp", _classpath(), "kafka.tools.StorageTool", "format", *quorum]
    if node.secure_port:
        line += ["--add-scram", _SCRAM_USER]
    ran = subprocess.run([*line, "-t", CLUSTER_ID, "-c", properties], capture_output=True, text=True, timeout=START_S)
    assert ran.returncode == 0, f"Kafka's storage cannot be formatted:\n{ran.stdout}{ran.stderr}"


def _voters(controllers: list[int]) -> str:
    """node@host:port:directory id; the ids are ours to choose."""
    return ",".join(
        f"{number}@127.0.0.1:{port}:{number:02}AAAAAAAAAAAAAAAAAAAA" for number, port in enumerate(controllers, 1)
    )


def _java() -> list[str]:
    program = java()
    assert program, "no Java for Kafka: apt-get install openjdk-17-jdk-headless"
    return [program, "-Dorg.slf4j.simpleLogger.defaultLogLevel=info"]


def _classpath() -> str:
    return f"{jars('kafka', ARTIFACTS)}/*"
