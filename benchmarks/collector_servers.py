"""The servers' side of bench_collector.py: our doors before a log of our choice, our collector, and the peer."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio
from confluent_kafka.admin import AdminClient, NewTopic

from spanloom.actors.intake import Intake
from spanloom.adapters.grpc import GrpcDoor, GrpcLimits, serve_grpc
from spanloom.adapters.http import HttpLimits, open_listeners, serve_http
from spanloom.adapters.sqlite import DataFolder, Durability, SqliteLedger, SqliteLog
from spanloom.collector.otlp_grpc import otlp_methods
from spanloom.collector.otlp_http import otlp_routes
from spanloom.core.http_routes import Router
from spanloom.interfaces import SpanLog
from spanloom.model import Message
from tests.cluster.members import Cluster
from tests.integration.process import eventually
from tests.servers.kafka import Kafka
from tests.servers.otelcol import running_otelcol

PARTITIONS = 8
CONNECTIONS_MAX = 2000  # above what the benchmark opens
WAITING_BYTES_MAX = 64 << 20  # the default of intake.waiting_bytes_max
PEER = Path(__file__).with_name("otelcol-ingest.yaml")


class Server(NamedTuple):
    """A process that takes spans."""

    pid: int
    ports: dict[str, int]  # http, grpc
    settle: Callable[[int], None]  # wait until so many spans are in Kafka since it was made


class NullLog:
    """Takes everything and keeps nothing. Implements interfaces.SpanLog."""

    partition_count = PARTITIONS

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:  # noqa: ARG002 - the interface's
        await trio.lowlevel.checkpoint()


class SlowLog:
    """Takes so many bytes a second, one batch after another, and keeps nothing. Implements interfaces.SpanLog."""

    partition_count = PARTITIONS

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        size = sum(len(message.value) for _, message in batch)
        self._free_at_s = max(self._free_at_s, trio.current_time()) + size / self._bytes_per_s
        await trio.sleep_until(self._free_at_s)


async def serve(protocol: str, log: str) -> None:
    """Our doors alone; prints the port. *log* is null, sqlite, or bytes a second `/` bytes that wait."""
    log, _, waiting_bytes = log.partition("/")
    with tempfile.TemporaryDirectory() as name, _opened(log, Path(name)) as span_log:
        intake = Intake(span_log, waiting_bytes_max=int(waiting_bytes or WAITING_BYTES_MAX))
        if protocol == "grpc":
            limits = GrpcLimits(connections_max=CONNECTIONS_MAX)
            async with trio.open_nursery() as nursery:
                door = partial(serve_grpc, GrpcDoor("127.0.0.1", 0), otlp_methods(intake), limits=limits)
                print(await nursery.start(door), flush=True)
        else:
            listeners = await open_listeners("127.0.0.1", 0)
            print(listeners[0].socket.getsockname()[1], flush=True)
            http = HttpLimits(connections_max=CONNECTIONS_MAX)
            await serve_http(listeners, Router(otlp_routes(intake)).handle, limits=http)


@contextmanager
def _opened(log: str, path: Path) -> Iterator[SpanLog]:
    if log == "null":
        yield NullLog()
        return
    if log != "sqlite":
        yield SlowLog(float(log))
        return
    folder = DataFolder.open(path / "data", partition_count=PARTITIONS, durability=Durability.PROCESS)
    try:
        yield SqliteLog(folder, SqliteLedger(folder), log_bytes_max=1 << 40)
    finally:
        folder.close()


@contextmanager
def doors(protocol: str, log: str) -> Iterator[Server]:
    """One of our doors in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.bench_collector", "serve", protocol, log]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as popen:  # noqa: S603 - this file
        assert popen.stdout is not None
        try:
            yield Server(popen.pid, {protocol: int(popen.stdout.readline())}, lambda _: None)
        finally:
            popen.kill()


@contextmanager
def ours(servers: Kafka, folder: Path) -> Iterator[Server]:
    """`spanloom collector`: what it answers is in Kafka already."""
    cluster = Cluster(servers.brokers, folder, partitions=PARTITIONS)
    cluster.create_topics()
    most = str(CONNECTIONS_MAX)
    with cluster.member("collector", http__connections_max=most, grpc__connections_max=most) as member:
        ports = {"http": int(member.intake.rpartition(":")[2]), "grpc": int(member.grpc.rpartition(":")[2])}
        yield Server(member.popen.pid, ports, lambda _: None)
        assert member.terminate() == 0


@contextmanager
def theirs(servers: Kafka, folder: Path) -> Iterator[Server]:  # noqa: ARG001 - as `ours`
    """The OpenTelemetry Collector: it answers first, so its work is not over when the last answer is here."""
    topic = f"peer-{time.monotonic_ns()}"
    admin = AdminClient({"bootstrap.servers": servers.brokers})
    for made in admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values():
        made.result(30)
    with running_otelcol(PEER.read_text(), BROKER=servers.brokers, TOPIC=topic) as collector:
        ports = {"http": collector.ports["HTTP_PORT"], "grpc": collector.ports["GRPC_PORT"]}

        def settle(spans: int) -> None:
            eventually(lambda: collector.metric("otelcol_exporter_sent_spans") >= spans, within_s=120)

        yield Server(collector.pid, ports, settle)
