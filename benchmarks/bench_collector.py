"""CPU a span of the collector's doors, by spans a request: `python benchmarks/bench_collector.py [--log null|sqlite]`.

The server is a process of its own whose utime + stime is read from /proc before and after; the client sends prebuilt
requests over a few connections, one after another on each. Spans are about 330 B, 2.5 to a trace. `null` is a log that
throws everything away: what is left is transport, splitting and keying. `sqlite` is the embedded deployment's.
"""

import argparse
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import cycle
from pathlib import Path
from random import Random

import grpc
import trio
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from spanloom.actors.intake import Intake
from spanloom.adapters.grpc import GrpcDoor, serve_grpc
from spanloom.adapters.http import open_listeners, serve_http
from spanloom.adapters.sqlite import DataFolder, Durability, SqliteLedger, SqliteLog
from spanloom.collector.otlp_grpc import EXPORT, otlp_methods
from spanloom.collector.otlp_http import otlp_routes
from spanloom.core.http_routes import Router
from spanloom.core.kernel import KERNEL
from spanloom.model import Message

SPANS_PER_TRACE = 2.5
PARTITIONS = 8
SIZES = (1, 10, 100, 1000)
DISTINCT = 16  # requests of one size
say = partial(print, flush=True)


class NullLog:
    """Takes everything and keeps nothing. Implements interfaces.SpanLog."""

    partition_count = PARTITIONS

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:  # noqa: ARG002 - the interface's
        await trio.lowlevel.checkpoint()


def body_of(span_count: int, random: Random) -> bytes:
    """One request."""
    data = TracesData()
    resource = data.resource_spans.add()
    for key, value in (("service.name", "checkout"), ("service.version", "1.2.3"), ("host.name", "node-17")):
        resource.resource.attributes.add(key=key).value.string_value = value
    scope = resource.scope_spans.add()
    scope.scope.name = "bench"
    traces = [random.randbytes(16) for _ in range(max(1, round(span_count / SPANS_PER_TRACE)))]
    for number in range(span_count):
        start = 1_790_000_000_000_000_000 + random.randrange(10**9)
        span = Span(
            trace_id=traces[number % len(traces)],
            span_id=random.randbytes(8),
            parent_span_id=random.randbytes(8),
            name="GET /orders/{id}",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=start,
            end_time_unix_nano=start + random.randrange(10**8),
        )
        for key, value in (("http.route", "/orders/{id}"), ("url.path", "/orders/12345"), ("http.method", "GET")):
            span.attributes.add(key=key).value.string_value = value
        span.attributes.add(key="user_agent.original").value.string_value = "Mozilla/5.0 (X11; Linux) Firefox/140"
        span.attributes.add(key="net.peer.name").value.string_value = "orders.shop.svc.cluster.local"
        span.attributes.add(key="http.status_code").value.int_value = 200
        scope.spans.append(span)
    return data.SerializeToString()


# The server's side.


async def serve(protocol: str, log: str) -> None:
    with tempfile.TemporaryDirectory() as name, opened(log, Path(name)) as span_log:
        intake = Intake(span_log, waiting_bytes_max=256 << 20)
        if protocol == "grpc":
            methods = otlp_methods(intake)
            async with trio.open_nursery() as nursery:
                say(await nursery.start(partial(serve_grpc, GrpcDoor("127.0.0.1", 0), methods)))
        else:
            listeners = await open_listeners("127.0.0.1", 0)
            say(listeners[0].socket.getsockname()[1])
            await serve_http(listeners, Router(otlp_routes(intake)).handle)


@contextmanager
def opened(log: str, path: Path) -> Iterator[NullLog | SqliteLog]:
    if log == "null":
        yield NullLog()
        return
    folder = DataFolder.open(path / "data", partition_count=PARTITIONS, durability=Durability.PROCESS)
    try:
        yield SqliteLog(folder, SqliteLedger(folder), log_bytes_max=1 << 40)
    finally:
        folder.close()


# The client's side.


def http_sender(port: int) -> Callable[[bytes], None]:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = "POST /v1/traces HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1\r\nAccept: */*\r\n"
    head += "Content-Type: application/x-protobuf\r\nContent-Length: "

    def send(body: bytes) -> None:
        connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b"ontent-length: 0\r\n" in answer.lower().replace(b"content", b"ontent"), answer

    return send


def grpc_sender(port: int) -> Callable[[bytes], None]:
    options = [("grpc.use_local_subchannel_pool", 1)]
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = grpc.insecure_channel(
        f"127.0.0.1:{port}", options
    ).unary_unary(EXPORT)

    def send(body: bytes) -> None:
        assert method(body, timeout=60) == b""

    return send


def send_for(seconds: float, sender: Callable[[bytes], None], bodies: Sequence[bytes], latencies: list[float]) -> None:
    ends = time.monotonic() + seconds
    for body in cycle(bodies):
        began = time.monotonic()
        if began > ends:
            return
        sender(body)
        latencies.append(time.monotonic() - began)


def cpu_s(pid: int) -> float:
    """utime + stime of the process, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """The process' resident memory at its highest."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


@contextmanager
def server(protocol: str, log: str) -> Iterator[tuple[int, int]]:
    line = [sys.executable, __file__, "--serve", protocol, "--log", log]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as popen:  # noqa: S603 - this file
        assert popen.stdout is not None
        try:
            yield popen.pid, int(popen.stdout.readline())
        finally:
            popen.kill()


def measure(protocol: str, log: str, spans: int, *, connections: int, seconds: float) -> None:
    bodies = [body_of(spans, Random(seed)) for seed in range(DISTINCT)]
    connect = grpc_sender if protocol == "grpc" else http_sender
    with server(protocol, log) as (pid, port):
        senders = [connect(port) for _ in range(connections)]
        for sender in senders:
            sender(bodies[0])
        latencies: list[float] = []
        before, began = cpu_s(pid), time.monotonic()
        threads = [threading.Thread(target=send_for, args=(seconds, each, bodies, latencies)) for each in senders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took, used, peak_mb = time.monotonic() - began, cpu_s(pid) - before, peak_bytes(pid) / 1e6
    requests = len(latencies)
    latencies.sort()
    p99_ms = latencies[int(requests * 0.99)] * 1000
    used_us = used / requests * 1e6
    say(f"| {protocol} | {spans} | {len(bodies[0])} | {used_us:.0f} | {used_us / spans:.2f} ", end="")
    say(f"| {requests * spans / took:.0f} | {p99_ms:.1f} | {peak_mb:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=["http", "grpc"])
    parser.add_argument("--protocol", nargs="*", default=["http", "grpc"])
    parser.add_argument("--log", default="null", choices=["null", "sqlite"])
    parser.add_argument("--spans", type=int, nargs="*", default=SIZES)
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    if args.serve:
        trio.run(serve, args.serve, args.log)
        return
    say(f"Python {platform.python_version()}, {os.cpu_count()} cores, kernel {KERNEL}, log {args.log}, ", end="")
    say(f"{args.connections} connections\n")
    say("| | spans a request | bytes | CPU µs a request | CPU µs a span | spans/s | p99 ms | peak RSS MB |")
    say("|---|---|---|---|---|---|---|---|")
    for protocol in args.protocol:
        for spans in args.spans:
            measure(protocol, args.log, spans, connections=args.connections, seconds=args.seconds)


if __name__ == "__main__":
    main()
