"""Measures the default layout on one broker: 100 / 20 / 10 partitions, and one process that owns all 100.

    python -m benchmarks.bench_layout [--rate=5000] [--seconds=60] [--records=3000]

`spanloom topics create` with its defaults on a one-node Kafka, then one `spanloom aggregator` before Elasticsearch:
time until it owns everything, memory, CPU at rest and a span under a steady load. The load goes through an intake as
the collector has it, in this process, so that what its appends take is seen from inside. Broker, store, aggregator and
this process share the cores: CPU is the aggregator's own (/proc), and the load average stands beside the times.
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
from confluent_kafka.admin import AdminClient

from benchmarks.collector_clients import percentile_ms
from spanloom.actors.intake import Intake
from spanloom.adapters.kafka.log import KafkaLog
from spanloom.adapters.kafka.publisher import Publisher
from spanloom.app.cluster import LINGER_MS
from spanloom.core.kernel import KERNEL
from spanloom.errors import SourceUnavailable
from spanloom.load.door import DoorClient
from spanloom.load.run import run_load
from spanloom.load.workload import Workload
from spanloom.model import Message
from tests.cluster.members import TOPICS, Cluster, owned
from tests.cluster.outage import LIFE
from tests.integration.process import Process, eventually
from tests.servers.elasticsearch import BASELINE, ElasticsearchServer
from tests.servers.kafka import VERSION, kafka
from tests.servers.processes import cpu_s, peak_rss_bytes, rss_bytes

PARTITIONS = 100  # of `spans`, by default
REST_S = 15.0
WARM_S = 10.0
RECORD_BYTES = 1000  # about two spans
SETTLED_S = 300.0
say = partial(print, flush=True)


@dataclass(slots=True)
class TimedLog:
    """Times each append of the intake's. Implements interfaces.SpanLog."""

    log: KafkaLog
    latencies_s: list[float] = field(default_factory=list)
    records: int = 0

    @property
    def partition_count(self) -> int:
        return self.log.partition_count

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        began = time.perf_counter()
        await self.log.append(batch)
        self.latencies_s.append(time.perf_counter() - began)
        self.records += len(batch)


@contextmanager
def span_log(cluster: Cluster, linger_ms: int) -> Iterator[KafkaLog]:
    """The append side of `spans`, as the processes have it."""
    publisher = Publisher({"bootstrap.servers": cluster.brokers}, SourceUnavailable, linger_ms=linger_ms)
    try:
        yield KafkaLog(publisher, f"{cluster.prefix}spans", PARTITIONS)
    finally:
        publisher.close()


def times(latencies_s: list[float]) -> str:
    """p50 and p99."""
    return f"p50 {percentile_ms(latencies_s, 0.5):.2f} ms, p99 {percentile_ms(latencies_s, 0.99):.2f} ms"


# Topics and ownership.


def create_topics(cluster: Cluster) -> None:
    """With the command's defaults; say what is there."""
    began = time.monotonic()
    cluster.command("topics", "create")
    took_s = time.monotonic() - began
    listed = AdminClient({"bootstrap.servers": cluster.brokers}).list_topics(timeout=10).topics
    counts = {name: len(listed[f"{cluster.prefix}{name}"].partitions) for name in TOPICS}
    assert counts["spans"] == PARTITIONS, counts
    checked = cluster.command("topics", "check").stdout.strip()
    say(f"`topics create` took {took_s:.1f} s: {counts}; `topics check`: {checked}")


def own_all(member: Process, began: float, what: str) -> None:
    """Wait until it owns every partition; say how long that took since *began*."""
    eventually(lambda: len(owned(member)) == PARTITIONS, within_s=120)
    owned_s = time.monotonic() - began
    eventually(lambda: member.get("/ready")[0] == 200, within_s=120)
    say(
        f"{what}: all {PARTITIONS} partitions owned after {owned_s:.1f} s, ready after {time.monotonic() - began:.1f} s"
    )


def at_rest(member: Process) -> None:
    """What owning costs where nothing comes."""
    time.sleep(WARM_S)
    used, began = cpu_s(member.popen.pid), time.monotonic()
    time.sleep(REST_S)
    share = (cpu_s(member.popen.pid) - used) / (time.monotonic() - began)
    say(f"at rest: {rss_bytes(member.popen.pid) / 1e6:.0f} MB RSS, {share:.1%} of a core", end="")
    say(f" (load average {os.getloadavg()[0]:.1f})")


# Producing.


async def produce_singly(log: KafkaLog, records: int) -> list[float]:
    """One record at a time, each acknowledged before the next, over all partitions; the first few are not timed."""
    value = os.urandom(RECORD_BYTES)
    latencies_s = []
    for number in range(records + PARTITIONS):
        message = Message(b"%032x" % number, value)
        began = time.perf_counter()
        await log.append([(number % PARTITIONS, message)])
        latencies_s.append(time.perf_counter() - began)
    return latencies_s[PARTITIONS:]


def singles(cluster: Cluster, records: int) -> None:
    """Last of all, when nobody reads any more: these records are no spans."""
    for linger_ms in (0, LINGER_MS):
        with span_log(cluster, linger_ms) as log:
            latencies_s = trio.run(produce_singly, log, records)
        say(f"single records of {RECORD_BYTES} B, acks=all, linger {linger_ms} ms: {times(latencies_s)}", end="")
        say(f" ({records} of them; load average {os.getloadavg()[0]:.1f})")


async def send(log: TimedLog, rate: float, seconds: float, seed: int) -> int:
    """A steady load through an intake; spans sent, repeats included."""
    intake = Intake(log, waiting_bytes_max=64 << 20)
    workload = Workload(seed=seed, spans=round(rate * seconds), late_share=0)
    client = DoorClient(intake, connections=16)
    sent = await run_load(client, workload, epoch_unix_ns=time.time_ns(), spans_per_s=rate)
    assert sent.requests_acknowledged == sent.requests_sent, sent
    return sent.spans_sent


def loaded(cluster: Cluster, member: Process, rate: float, seconds: float) -> None:
    """A steady load until everything of it is resolved."""
    pid = member.popen.pid
    with span_log(cluster, LINGER_MS) as log:
        warm = trio.run(send, TimedLog(log), rate, WARM_S, 1)
        member.settled(warm, within_s=SETTLED_S)
        timed, used, began = TimedLog(log), cpu_s(pid), time.monotonic()
        spans = trio.run(send, timed, rate, seconds, 2)
        sent_s, busy = time.monotonic() - began, os.getloadavg()[0]
        member.settled(warm + spans, within_s=SETTLED_S)
    used, took_s = cpu_s(pid) - used, time.monotonic() - began
    say(
        f"steady load: {spans} spans in {sent_s:.0f} s, {spans / sent_s:.0f} a second (load average {busy:.1f}), ",
        end="",
    )
    say(f"all resolved {took_s - sent_s:.1f} s after the last was sent")
    say(f"the aggregator: {used / spans * 1e6:.1f} us CPU a span, {used / took_s:.1%} of a core, ", end="")
    say(f"{rss_bytes(pid) / 1e6:.0f} MB RSS, {peak_rss_bytes(pid) / 1e6:.0f} MB at most")
    records, batches = timed.records, len(timed.latencies_s)
    say(f"the collector's batches, linger {LINGER_MS} ms: {times(timed.latencies_s)} ", end="")
    say(f"({batches} batches of {records / batches:.0f} records of {spans / records:.1f} spans, over the partitions)")
    say(f"sent {warm + spans}; {books(member)}")


def books(member: Process) -> str:
    """The balance sheet of all partitions, which must be one."""
    names = ("received", "stored", "dropped", "duplicate", "moved", "dead_lettered")
    counted = {name: round(member.metric(f"spanloom_spans_{name}_total")) for name in names}
    assert counted["received"] * 2 == sum(counted.values()), counted
    return f"{counted}, lag {member.metric('spanloom_lag_records'):.0f} records"


def run(folder: Path, arguments: argparse.Namespace) -> None:
    """Everything."""
    with ExitStack() as stack:
        servers = stack.enter_context(kafka(folder))
        store = stack.enter_context(closing(ElasticsearchServer(BASELINE)))
        cluster = Cluster(servers.brokers, folder, partitions=PARTITIONS)
        create_topics(cluster)
        settings = {key.replace(".", "__"): value for key, value in LIFE.items()} | {
            "elasticsearch__urls": store.url,
            "elasticsearch__prefix": cluster.index_prefix,
            "elasticsearch__replicas": "0",
        }
        began = time.monotonic()
        with cluster.member(**settings) as member:
            own_all(member, began, "first start, empty topics")
            at_rest(member)
            loaded(cluster, member, arguments.rate, arguments.seconds)
            began = time.monotonic()
            assert member.terminate() == 0
            say(f"SIGTERM to its end: {time.monotonic() - began:.1f} s")
        began = time.monotonic()
        with cluster.member(**settings) as member:
            own_all(member, began, "second start, ledgers to read")
            assert member.terminate() == 0
        singles(cluster, arguments.records)


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_layout", description=__doc__)
    parser.add_argument("--rate", type=float, default=5000, help="spans a second")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--records", type=int, default=3000, help="produced singly")
    arguments = parser.parse_args()
    say(f"Python {platform.python_version()}, {os.cpu_count()} cores, kernel {KERNEL}, Kafka {VERSION}, one node")
    with tempfile.TemporaryDirectory(prefix="spanloom-layout-", ignore_cleanup_errors=True) as name:
        run(Path(name), arguments)


if __name__ == "__main__":
    main()
