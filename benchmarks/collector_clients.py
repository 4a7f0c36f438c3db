"""The senders' side of bench_collector.py: prebuilt requests of about 330 B a span, 2.5 spans to a trace."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import NamedTuple

import grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from spanloom.collector.otlp_grpc import EXPORT

SPANS_PER_TRACE = 2.5
DISTINCT = 16  # requests of one size
TIMEOUT_S = 60
RETRY_S = 0.05  # after a "come back later"; an OTLP client would wait longer, and send less

Send = Callable[[bytes], str]  # TAKEN, or in which words it was told to come back later
TAKEN = ""


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


def bodies_of(span_count: int, distinct: int = DISTINCT) -> list[bytes]:
    """Some requests of one size."""
    return [body_of(span_count, Random(seed)) for seed in range(distinct)]


def http_sender(port: int) -> Send:
    """A connection of its own, kept alive."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = "POST /v1/traces HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1\r\nAccept: */*\r\n"
    head += "Content-Type: application/x-protobuf\r\nContent-Length: "

    def send(body: bytes) -> str:
        connection.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += received(connection)
        headers, _, rest = answer.partition(b"\r\n\r\n")
        lines = headers.lower().split(b"\r\n")
        length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
        while len(rest) < length:
            rest += received(connection)
        status = int(lines[0].split()[1])
        assert status in (200, 429, 503), answer
        return TAKEN if status == 200 else str(status)

    return send


def received(connection: socket.socket) -> bytes:
    """What came next."""
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the server has closed the connection")
    return data


def grpc_sender(port: int) -> Send:
    """A channel of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options)
    method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)

    def send(body: bytes) -> str:
        try:
            method(body, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
                raise
            return str(error.code().name)
        return TAKEN

    return send


CONNECT: dict[str, Callable[[int], Send]] = {"http": http_sender, "grpc": grpc_sender}


@dataclass
class Sent:
    """What a run of senders came to."""

    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter)  # in which words
    latencies_s: list[float] = field(default_factory=list)  # of the answers to what was taken
    refusals_s: list[float] = field(default_factory=list)  # of the others
    took_s: float = 0.0


class Load(NamedTuple):
    """How to send."""

    bodies: Sequence[bytes]
    seconds: float
    every_s: float = 0.0  # of all connections together: 0 is as fast as answers come


def send_all(senders: Sequence[Send], load: Load) -> Sent:
    """Each sender in a thread of its own, one request after another, until the time is over."""
    sent, lock = Sent(), threading.Lock()
    numbers = count()  # shared: whoever is free sends the next one
    began = time.monotonic()

    def work(send: Send) -> None:
        mine = Sent()
        for number in numbers:
            if load.every_s:
                time.sleep(max(0.0, began + number * load.every_s - time.monotonic()))
            asked = time.monotonic()
            if asked - began > load.seconds:
                break
            words = send(load.bodies[number % len(load.bodies)])
            if words == TAKEN:
                mine.taken += 1
                mine.latencies_s.append(time.monotonic() - asked)
            else:
                mine.refused[words] += 1
                mine.refusals_s.append(time.monotonic() - asked)
                if not load.every_s:
                    time.sleep(RETRY_S)
        with lock:
            sent.taken += mine.taken
            sent.refused += mine.refused
            sent.latencies_s += mine.latencies_s
            sent.refusals_s += mine.refusals_s

    threads = [threading.Thread(target=work, args=(send,)) for send in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sent.took_s = time.monotonic() - began
    return sent


def percentile_ms(times_s: Sequence[float], share: float) -> float:
    """In milliseconds; 0 where there is none."""
    return sorted(times_s)[min(len(times_s) - 1, int(len(times_s) * share))] * 1000 if times_s else 0.0
