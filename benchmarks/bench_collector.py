"""Measures the collector: CPU a span by size of request and connections, beside the OpenTelemetry Collector; overload.

    python -m benchmarks.bench_collector transport   our doors before a log that throws away (or --log sqlite)
    python -m benchmarks.bench_collector kafka       into a real broker, ours and theirs in turn
    python -m benchmarks.bench_collector overload    ten times what the log takes: memory, goodput, the answers' times
    python -m benchmarks.bench_collector head        what head sampling costs, beside splitting alone

CPU is utime + stime of the server's process from /proc, all threads, until its work is done; the senders and the broker
are on the same cores, which shows in the wall times alone. We answer when a span is in Kafka (acks=all), they before.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import trio

from benchmarks.collector_clients import CONNECT, Load, Send, bodies_of, percentile_ms, send_all
from benchmarks.collector_servers import Server, doors, ours, relay, serve, slow_way, theirs
from spanloom.core import kernel
from spanloom.core.kernel import KERNEL
from spanloom.core.sampling.head import HeadSampler
from tests.servers.kafka import Kafka, kafka
from tests.servers.processes import cpu_s, peak_rss_bytes, rss_bytes

SIZES = (1, 10, 100, 1000)
ROLES: dict[str, Callable[..., Awaitable[None]]] = {
    "serve": serve,
    "relay": relay,
}  # of processes that this program starts
WARM_S = 1.0
say = partial(print, flush=True)


class Case(NamedTuple):
    """One row."""

    protocol: str
    spans: int
    connections: int
    seconds: float


class Measured(NamedTuple):
    """What a row says."""

    cpu_us_a_span: float
    spans_per_s: float
    p50_ms: float
    p99_ms: float
    peak_rss_mb: float


HEAD = "| CPU µs a span | spans/s | p50 ms | p99 ms | peak RSS MB |"


def measure(server: Server, case: Case, *, before: int = 0) -> tuple[Measured, int]:
    """One row on a server that has been sent *before* spans; and how many it has been sent then."""
    senders = [CONNECT[case.protocol](server.ports[case.protocol]) for _ in range(case.connections)]
    bodies = bodies_of(case.spans)
    warm = send_all(senders, Load(bodies, WARM_S))
    before += warm.taken * case.spans
    server.settle(before)
    used = cpu_s(server.pid)
    sent = send_all(senders, Load(bodies, case.seconds))
    spans = sent.taken * case.spans
    server.settle(before + spans)
    used = cpu_s(server.pid) - used
    row = Measured(
        used / spans * 1e6,
        spans / sent.took_s,
        percentile_ms(sent.latencies_s, 0.5),
        percentile_ms(sent.latencies_s, 0.99),
        peak_rss_bytes(server.pid) / 1e6,
    )
    return row, before + spans


def show(row: Measured) -> str:
    """As the heading has it."""
    answers = f"{row.p50_ms:.1f} | {row.p99_ms:.1f}"
    return f"{row.cpu_us_a_span:.2f} | {row.spans_per_s:.0f} | {answers} | {row.peak_rss_mb:.0f} |"


def transport(cases: Sequence[Case], log: str) -> None:
    """Our doors alone."""
    say(f"log {log}\n\n| | connections | spans a request {HEAD}\n|---|---|---|---|---|---|---|---|")
    for case in cases:
        with doors(case.protocol, log) as server:
            row, _ = measure(server, case)
        say(f"| {case.protocol} | {case.connections} | {case.spans} | {show(row)}")


Side = Callable[[Kafka, Path], AbstractContextManager[Server]]
SIDES: dict[str, Side] = {"ours": ours, "theirs": theirs}


def into_kafka(cases: Sequence[Case], sides: Sequence[str]) -> None:
    """Both sides in turn, a process of each for all rows; their CPU a span as a ratio."""
    say(f"| | connections | spans a request | {HEAD} ratio |\n|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="spanloom-bench-") as name, kafka(Path(name)) as servers:
        for case in cases:
            first = 0.0
            for side in sides:
                with SIDES[side](servers, Path(name)) as server:
                    row, _ = measure(server, case)
                first = first or row.cpu_us_a_span
                ratio = f"{first / row.cpu_us_a_span:.2f}"
                say(f"| {side} {case.protocol} | {case.connections} | {case.spans} | {show(row)} {ratio} |")


# Overload.

WAY_BYTES_PER_S = 300_000  # to the broker, compressed: a small share of what the senders can offer
WAITING_BYTES = 1 << 20  # intake.waiting_bytes_max: fewer requests than there are connections
OVERLOAD_CONNECTIONS = 64  # the same at every load, so that memory can be compared
OVERLOAD_BODIES = 256  # equal ones in one batch to the broker would be compressed to one
WITHIN_BOUND = 32  # connections whose requests may all wait at once
SHARES = (1.0, 3.0, 11.0, 1.0)  # the last one shows what is given back
PAUSE_S = 2.0


def overload(protocol: str, seconds: float) -> None:
    """`spanloom collector` whose way to the broker is slow: offered what it can take and over ten times that.

    What it can take is measured first, by senders that wait for their answers. One process, the same connections.
    """
    bodies = bodies_of(100, OVERLOAD_BODIES)
    with (
        tempfile.TemporaryDirectory(prefix="spanloom-bench-") as name,
        kafka(Path(name)) as servers,
        slow_way(servers, WAY_BYTES_PER_S) as brokers,
        ours(servers, Path(name), brokers=brokers, intake__waiting_bytes_max=str(WAITING_BYTES)) as server,
    ):
        some = [CONNECT[protocol](server.ports[protocol]) for _ in range(OVERLOAD_CONNECTIONS)]
        send_all(some, Load(bodies, WARM_S))
        sent = send_all(some[:WITHIN_BOUND], Load(bodies, seconds))
        takes = sent.taken * 100 / sent.took_s
        say(f"\n{protocol}: takes {takes:.0f} spans a second, p50 {percentile_ms(sent.latencies_s, 0.5):.0f} ms\n")
        say("| offered | spans/s offered | taken | of what it takes | refused | p50 ms | p99 ms ", end="")
        say("| refusal p50 ms | p99 ms | CPU cores | RSS MB | peak MB |\n" + "|---" * 12 + "|")
        for share in SHARES:
            time.sleep(PAUSE_S)
            say(offer(server, some, Load(bodies, seconds, 100 / (takes * share)), takes))


def offer(server: Server, some: Sequence[Send], load: Load, takes: float) -> str:
    """One row: requests of 100 spans at a fixed rate, whatever is answered."""
    used = cpu_s(server.pid)
    sent = send_all(some, load)
    used = (cpu_s(server.pid) - used) / sent.took_s
    offered, taken = (each * 100 / sent.took_s for each in (sent.taken + sent.refused.total(), sent.taken))
    refused = ", ".join(f"{count * 100 / sent.took_s:.0f} {words}" for words, count in sent.refused.items())
    times = [percentile_ms(each, at) for each in (sent.latencies_s, sent.refusals_s) for at in (0.5, 0.99)]
    return (
        f"| {offered / takes:.1f} x | {offered:.0f} | {taken:.0f} | {taken / takes:.0%} | {refused or 0} "
        f"| {' | '.join(f'{each:.0f}' for each in times)} | {used:.2f} "
        f"| {rss_bytes(server.pid) / 1e6:.0f} | {peak_rss_bytes(server.pid) / 1e6:.0f} |"
    )


# Head sampling.

PROBABILITIES = (0.0, 0.01, 0.1, 1.0)
TURNS_S = 0.5


def head(sizes: Sequence[int]) -> None:
    """CPU of this thread a span: a request split by trace, then sifted; no span is an error."""
    say(
        "| spans a request | split alone, µs a span | "
        + " | ".join(f"and sifted at {p:g}" for p in PROBABILITIES)
        + " |"
    )
    say("|---" * (len(PROBABILITIES) + 2) + "|")
    for spans in sizes:
        bodies = bodies_of(spans)
        cells = [cost_us(bodies, spans, None), *(cost_us(bodies, spans, HeadSampler(p)) for p in PROBABILITIES)]
        say(f"| {spans} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")


def cost_us(bodies: Sequence[bytes], spans: int, sampler: HeadSampler | None) -> float:
    """µs a span."""
    requests, began = 0, time.thread_time()
    while (used := time.thread_time() - began) < TURNS_S:
        for body in bodies:
            split = kernel.split_by_trace(body)
            if sampler:
                sampler.sift(split.parts, {})
        requests += len(bodies)
    return used / requests / spans * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_collector", description=__doc__)
    parser.add_argument("what", choices=["transport", "kafka", "overload", "head", *ROLES])
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--protocol", nargs="*", default=["http", "grpc"])
    parser.add_argument("--log", default="null", choices=["null", "sqlite"])
    parser.add_argument("--spans", type=int, nargs="*", default=SIZES)
    parser.add_argument("--connections", type=int, nargs="*", default=[32])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--sides", nargs="*", default=list(SIDES), choices=list(SIDES))
    args = parser.parse_args()
    if args.what in ROLES:
        trio.run(ROLES[args.what], *args.rest)
        return
    say(f"Python {platform.python_version()}, {os.cpu_count()} cores, kernel {KERNEL}\n")
    cases = [
        Case(protocol, spans, connections, args.seconds)
        for protocol in args.protocol
        for connections in args.connections
        for spans in args.spans
    ]
    if args.what == "transport":
        transport(cases, args.log)
    elif args.what == "head":
        head(args.spans)
    elif args.what == "kafka":
        into_kafka(cases, args.sides)
    else:
        for protocol in args.protocol:
            overload(protocol, args.seconds)


if __name__ == "__main__":
    main()
