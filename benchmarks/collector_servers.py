"""The servers' side of bench_collector.py: our doors before a log of our choice, our collector, and the peer."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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


async def serve(protocol: str, log: str) -> None:
    """Our doors alone; prints the port. *log* is null or sqlite."""
    with tempfile.TemporaryDirectory() as name, _opened(log, Path(name)) as span_log:
        intake = Intake(span_log, waiting_bytes_max=WAITING_BYTES_MAX)
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
    folder = DataFolder.open(path / "data", partition_count=PARTITIONS, durability=Durability.PROCESS)
    try:
        yield SqliteLog(folder, SqliteLedger(folder), log_bytes_max=1 << 40)
    finally:
        folder.close()


@contextmanager
def doors(protocol: str, log: str) -> Iterator[Server]:
    """One of our doors in a process of its own."""
    with _own_process("serve", protocol, log) as (pid, first_line):
        yield Server(pid, {protocol: int(first_line)}, lambda _: None)


@contextmanager
def _own_process(*words: str) -> Iterator[tuple[int, str]]:
    """This program in another role until the block ends: its pid, and the first line that it printed."""
    line = [sys.executable, "-m", "benchmarks.bench_collector", *words]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as popen:  # noqa: S603 - this file
        assert popen.stdout is not None
        try:
            yield popen.pid, popen.stdout.readline()
        finally:
            popen.kill()


RELAY_BYTES = 16 << 10  # carried at once; the kernel's buffers on the way are as small as it lets them be


async def relay(port: str, target_port: str, bytes_per_s: str) -> None:
    """Carry what comes to *port* on to *target_port*, so many bytes a second of all connections; the answers freely."""
    free_at_s = 0.0

    async def slowly(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        nonlocal free_at_s
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some(RELAY_BYTES):
                free_at_s = max(free_at_s, trio.current_time()) + len(data) / float(bytes_per_s)
                await trio.sleep_until(free_at_s)
                await sink.send_all(data)
        await trio.aclose_forcefully(sink)

    async def freely(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                await sink.send_all(data)
        await trio.aclose_forcefully(sink)

    async def carry(client: trio.SocketStream) -> None:
        async with await trio.open_tcp_stream("127.0.0.1", int(target_port)) as server, trio.open_nursery() as nursery:
            nursery.start_soon(slowly, client, server)
            nursery.start_soon(freely, server, client)

    listeners = await trio.open_tcp_listeners(int(port), host="127.0.0.1")
    for listener in listeners:
        listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RELAY_BYTES)
    print("ready", flush=True)
    await trio.serve_listeners(carry, listeners)


@contextmanager
def slow_way(servers: Kafka, bytes_per_s: float) -> Iterator[str]:
    """Brokers to give to a client whose way to Kafka is so slow."""
    (node,) = servers.nodes
    with _own_process("relay", str(node.proxy_port), str(node.behind_port), str(bytes_per_s)) as (_, line):
        assert line == "ready\n", line
        yield f"127.0.0.1:{node.proxy_port}"


@contextmanager
def ours(servers: Kafka, folder: Path, *, brokers: str = "", **settings: str) -> Iterator[Server]:
    """`spanloom collector`: what it answers is in Kafka already. *brokers* are how it gets there, if not directly."""
    cluster = Cluster(servers.brokers, folder, partitions=PARTITIONS)
    cluster.create_topics()
    most = {"http__connections_max": str(CONNECTIONS_MAX), "grpc__connections_max": str(CONNECTIONS_MAX)}
    cluster.brokers = brokers or servers.brokers
    with cluster.member("collector", **most, **settings) as member:
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
