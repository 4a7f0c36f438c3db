"""Measures reading: CPU of our process a span, from what the broker sends to verdicts that are durable in the ledger.

    python -m benchmarks.bench_consume [SPANS] [--consumer=native] [--partitions=8] [--runs=3]

Starts a broker and fills `spans` (lz4) with records of 2.5 spans, then another with records of one; for each, processes
of their own, one a run, work as the cluster deployment does, but for a store that throws away. The CPU is all of the
process: librdkafka's threads, the actors, the ledger's producer. The broker is on the same cores: that shows in the
wall time alone. Medians of the runs.
"""

import argparse
import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

import trio
from confluent_kafka import Producer
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from spanloom.actors.context import Board
from spanloom.actors.partition import run_partition
from spanloom.adapters.kafka.topics import TopicPlan, Topics, plan
from spanloom.app.cluster import kafka_settings, open_cluster
from spanloom.app.node import partition_settings
from spanloom.config import Config, load
from spanloom.core import kernel
from spanloom.core.partitioning import partition_of
from spanloom.errors import StoreRejected
from spanloom.model import SPANS, Document
from tests.servers.kafka import kafka

RECORDS_A_TRACE = 4
SPANS_A_SECOND = 100_000  # of stream time: 80,000 traces are open at a time
T0_MS = 1_700_000_000_000
TRACE, FIRST, PARENT, TIME = b"TRACETRACETRACE!", b"SPAN-%03d", b"PARENTID", 0x1122334455667788
POLICIES = """
policies:
  - {name: errors, type: error}
  - {name: slow, type: latency_percentile, latency_percentile: {percentile: 99.5}}
  - {name: base, type: consistent_probability, consistent_probability: {sampling_percentage: 1}}
"""
ATTRIBUTES = {
    "http.request.method": "GET",
    "http.response.status_code": "200",
    "network.protocol.version": "1.1",
    "server.address": "shop.example.com",
    "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
    "url.full": "https://shop.example.com/api/v1/things/123456789?sort=price&page=7",
}


# The load.


def template(spans: int, *, rooted: bool) -> bytes:
    """A record of that many spans, with marks where ids and times go."""
    data = TracesData()
    resource = data.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "checkout"
    resource.resource.attributes.add(key="host.name").value.string_value = "checkout-7c9d8f6b5-x2x7q"
    scope = resource.scope_spans.add()
    scope.scope.name = "bench"
    for number in range(spans):
        span = Span(trace_id=TRACE, span_id=FIRST % number, name="GET /api/v1/things/{id}", kind=Span.SPAN_KIND_SERVER)
        span.parent_span_id = b"" if rooted and number == 0 else PARENT
        span.start_time_unix_nano = span.end_time_unix_nano = TIME
        for key, value in ATTRIBUTES.items():
            span.attributes.add(key=key).value.string_value = value
        scope.spans.append(span)
    return data.SerializeToString()


def records_of(spans: int, sizes: Sequence[int]) -> Iterator[tuple[int, bytes, bytes, int]]:
    """Timestamp in ms, trace id, value, spans; four records a trace, over two seconds."""
    random = Random(1)
    templates = {(size, rooted): template(size, rooted=rooted) for size in sizes for rooted in (False, True)}
    mean = RECORDS_A_TRACE * sum(sizes) / len(sizes)
    arrivals = []
    for number in range(int(spans / mean)):
        born_ms = number * mean * 1000 / SPANS_A_SECOND
        trace_id = random.randbytes(16)
        arrivals += [(born_ms + random.random() * 2000, trace_id, part) for part in range(RECORDS_A_TRACE)]
    arrivals.sort()
    for at_ms, trace_id, part in arrivals:
        size = random.choice(sizes)
        value = templates[size, part == 0].replace(TRACE, trace_id).replace(PARENT, trace_id[:8])
        for number in range(size):
            own = trace_id[:8] if part == number == 0 else random.randbytes(8)
            value = value.replace(FIRST % number, own)
        start = struct.pack("<Q", (T0_MS + int(at_ms)) * 1_000_000)
        yield T0_MS + int(at_ms), trace_id, value.replace(struct.pack("<Q", TIME), start), size


def create_topics(config: Config, partitions: int) -> None:
    """Those that are not there: a ledger a run."""
    settings = kafka_settings(config.kafka, {})
    plans = plan(settings, spans_partitions=partitions, replicas=1)
    Topics(settings).create([as_created(each) for each in plans], replicas=1)


def fill(config: Config, spans: int, sizes: Sequence[int], partitions: int) -> None:
    """Make `spans`, and put the load into it."""
    settings = kafka_settings(config.kafka, {})
    create_topics(config, partitions)
    producer = Producer(
        {"bootstrap.servers": settings.brokers, "compression.type": "lz4", "linger.ms": "100", "batch.size": "1000000"}
    )
    count = size = records = 0
    for at_ms, trace_id, value, held in records_of(spans, sizes):
        key = trace_id.hex().encode()
        number = partition_of(key, partitions, hashes=kernel.hashes)
        while True:
            try:
                producer.produce(settings.topic(SPANS), value, key, number, timestamp=at_ms)
            except BufferError:
                producer.poll(0.1)
            else:
                break
        count, size, records = count + held, size + len(value), records + 1
    assert producer.flush(120) == 0, "the load is not in the broker"
    say = partial(print, flush=True)
    say(f"{count} spans in {records} records of {count / records:.2f}, {size / records:.0f} B a record")


def as_created(topic: TopicPlan) -> TopicPlan:
    """With the time we give its records, long past as it is: stream time is the load's."""
    times = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
    return replace(topic, config={**topic.config, **times})


# What is measured.


class Nowhere:
    """A trace store that throws away."""

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return ()

    async def read(self, trace_id: str) -> Sequence[Document]:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return ()

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return ()

    async def services(self) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return ()


async def consume(config: Config, threads: int) -> dict[str, float]:
    """Read all that is there, from the first partition's start to the last one's end."""
    settings = kafka_settings(config.kafka, {})
    facts = Topics(settings).look()
    board = Board(facts.partition_count)
    with open_cluster(config, settings, facts, {}) as parts:
        limiter = trio.CapacityLimiter(threads) if threads else None
        world = replace(parts.world, store=Nowhere(), threads=limiter)
        async with trio.open_nursery() as nursery:
            for number in range(facts.partition_count):
                nursery.start_soon(run_partition, number, world, partition_settings(config), board)
            await board.ready.wait()
            cpu_s, wall_s = time.process_time(), time.perf_counter()
            while not all(p.assembler.offset >= p.end > 0 for p in board.statistics()):  # noqa: ASYNC110
                await trio.sleep(0.05)
            cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
            looks = board.statistics()
            nursery.cancel_scope.cancel()
    assert not sum(p.assembler.tally.lost_to_retention for p in looks), "the broker deleted some of the load"
    return {
        "spans": sum(p.assembler.tally.received for p in looks),
        "kept": sum(p.documents_stored for p in looks),
        "decided": sum(sum(p.assembler.triggers) for p in looks),
        "cpu_s": cpu_s,
        "wall_s": wall_s,
    }


def configuration(arguments: argparse.Namespace, brokers: str, prefix: str, data: str) -> Config:
    """What the group is told."""
    topics = ("ledger", "traces_complete", "sampling_decisions", "dead_letters", "policies")
    policies = Path(data) / "policies.yaml"
    policies.write_text(POLICIES)
    keys = {f"kafka.{name}": f"{prefix}{arguments.run}-{name}" for name in topics} | {
        "kafka.spans": f"{prefix}spans",
        "kafka.brokers": brokers,
        "kafka.group": f"{prefix}{arguments.run}",
        "data.folder": data,
        "assembly.undecided_bytes_max": "4GiB",
        "sampling.policies": str(policies),
    }
    if arguments.consumer:
        keys["kafka.consumer"] = arguments.consumer
    return load(None, {}, keys)


def measure(arguments: argparse.Namespace, brokers: str, prefix: str) -> None:
    """One run a process; print the medians."""
    line = [sys.executable, "-m", "benchmarks.bench_consume", "--brokers", brokers, "--prefix", prefix]
    for name in ("consumer", "partitions", "threads"):
        line += [f"--{name}={getattr(arguments, name)}"]
    found = []
    for run in range(arguments.runs):
        ran = subprocess.run([*line, f"--run={run}"], check=True, stdout=subprocess.PIPE)  # noqa: S603
        one = json.loads(ran.stdout.splitlines()[-1])  # what is above it is log
        found.append(one)
        cpu_us, rate = one["cpu_s"] * 1e6 / one["spans"], one["spans"] / one["wall_s"]
        print(f"  run {run}: {cpu_us:.3f} us CPU a span, {rate:,.0f} spans/s, {one}", flush=True)
    cpu_us = median(one["cpu_s"] * 1e6 / one["spans"] for one in found)
    rate = median(one["spans"] / one["wall_s"] for one in found)
    print(f"{prefix[:-1]:12} {cpu_us:8.3f} us CPU a span {rate:12,.0f} spans/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("spans", nargs="?", type=int, default=2_000_000)
    parser.add_argument("--consumer", default="")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2, help="0: fed in trio's own")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--shapes", default="2.5,1")
    parser.add_argument("--brokers", help="(of a run)")
    parser.add_argument("--prefix", help="(of a run)")
    parser.add_argument("--run", default=0, help="(of a run)")
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="spanloom-bench-") as folder:
        if arguments.brokers:
            create_topics(configuration(arguments, arguments.brokers, arguments.prefix, folder), arguments.partitions)
            result = trio.run(
                consume, configuration(arguments, arguments.brokers, arguments.prefix, folder), arguments.threads
            )
            print(json.dumps(result))
            return
        with kafka(Path(folder)) as cluster:
            for shape in arguments.shapes.split(","):
                prefix = f"of-{shape}-"
                config = configuration(arguments, cluster.brokers, prefix, folder)
                fill(config, arguments.spans, (2, 3) if shape == "2.5" else (1,), arguments.partitions)
                measure(arguments, cluster.brokers, prefix)


if __name__ == "__main__":
    main()
