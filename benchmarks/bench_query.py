"""Measures GET /v1/traces/{id} against a real Elasticsearch and a real Redis: hits, misses, and what the cache saves.

    python -m benchmarks.bench_query [--spans=320000] [--ids=20000] [--zipf=1.0] [--requests=100000] [--connections=8]

Starts the servers and one `spanloom aggregator` that keeps everything, sends it seeded traffic with `spanloom loadgen`,
and then asks the aggregator's own query port. What Elasticsearch was asked is its own count (`_stats`), what Redis
answered is Redis's (`INFO`). All of it, this client too, shares the cores: the load average stands beside the times.
"""

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import NamedTuple

import yaml

from benchmarks.collector_clients import percentile_ms, received
from spanloom.core.kernel import KERNEL
from spanloom.core.query import KEPT
from spanloom.load.record import read_record
from tests.cluster.members import Cluster, wait_for_share
from tests.cluster.outage import LIFE, POLICIES
from tests.integration.process import Process
from tests.servers.elasticsearch import BASELINE, ElasticsearchServer
from tests.servers.kafka import kafka
from tests.servers.processes import cpu_s, rss_bytes
from tests.servers.redis import RedisServer

PARTITIONS = 8
LOAD_SPANS_PER_S = 5_000  # so that storing everything keeps up on two cores
TIMEOUT_S = 30
SINGLE_SHARE = 1 / 4  # of the ids are read one after another, each a miss and then, within the time to live, a hit
WARM_SHARE = 1 / 20  # others, before, that are not measured: the servers compile what they run often
QUARTERS = 4
say = partial(print, flush=True)


class Counts(NamedTuple):
    """What the servers have counted so far."""

    searches: int  # of Elasticsearch, over all indices
    gets: int
    hits: int  # of Redis
    misses: int
    cpu_s: float  # of the query process

    def since(self, then: "Counts") -> "Counts":
        """What came between."""
        return Counts(
            self.searches - then.searches,
            self.gets - then.gets,
            self.hits - then.hits,
            self.misses - then.misses,
            self.cpu_s - then.cpu_s,
        )


@dataclass(slots=True)
class Answers:
    """What came of a few requests."""

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    partial: set[str] = field(default_factory=set)  # of the ids: these are not cached
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Scene:
    """What is measured."""

    member: Process
    elasticsearch: ElasticsearchServer
    redis: RedisServer
    index_prefix: str

    def counts(self) -> Counts:
        """Now."""
        told = json.loads(self.elasticsearch.request("GET", f"/{self.index_prefix}*/_stats/search,get"))["_all"][
            "total"
        ]
        lines = self.redis.say("INFO stats").decode().split("\r\n")
        stats = dict(line.split(":", 1) for line in lines if ":" in line)
        hits, misses = int(stats["keyspace_hits"]), int(stats["keyspace_misses"])
        used = cpu_s(self.member.popen.pid)
        return Counts(told["search"]["query_total"], told["get"]["total"], hits, misses, used)

    def wipe(self) -> None:
        """Empty Redis."""
        assert self.redis.say("FLUSHALL") == b"+OK\r\n"


# The client.


def ask(connection: socket.socket, trace_id: str, answers: Answers) -> None:
    """One GET; its time, and what it said."""
    began = time.perf_counter()
    connection.sendall(f"GET /v1/traces/{trace_id} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += received(connection)
    head, _, rest = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:"))
    body = [rest]
    missing = length - len(rest)
    while missing > 0:
        body.append(received(connection))
        missing -= len(body[-1])
    answers.latencies_s.append(time.perf_counter() - began)
    start = b"".join(body)[:80].decode()
    assert lines[0].split()[1] == b"200", (trace_id, head, start)
    assert start.startswith(f'{{"trace_id":"{trace_id}","status":"'), start
    status = start.split('"')[7]
    answers.statuses[status] += 1
    if status != KEPT:
        answers.partial.add(trace_id)
    answers.bytes += length


def ask_all(port: int, trace_ids: Sequence[str], connections: int = 1) -> Answers:
    """Every id, over that many connections, one after another on each."""
    answers = [Answers() for _ in range(connections)]

    def work(number: int) -> None:
        with closing(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for trace_id in trace_ids[number::connections]:
                ask(connection, trace_id, answers[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Answers()
    for one in answers:
        whole.latencies_s += one.latencies_s
        whole.statuses += one.statuses
        whole.partial |= one.partial
        whole.bytes += one.bytes
    assert len(whole.latencies_s) == len(trace_ids), "a connection has ended early"
    return whole


# The servers and what they hold.


@contextmanager
def scene(folder: Path, record: Path, spans: int) -> Iterator[Scene]:
    """Servers and an aggregator that has stored that many spans; *record* says which."""
    with ExitStack() as stack:
        servers = stack.enter_context(kafka(folder))
        elasticsearch = stack.enter_context(closing(ElasticsearchServer(BASELINE)))
        redis = stack.enter_context(closing(RedisServer()))
        cluster = Cluster(servers.brokers, folder, partitions=PARTITIONS)
        cluster.make_topics()
        config = folder / "spanloom.yaml"
        config.write_text(yaml.safe_dump({"sampling": {"policies": POLICIES}}))
        settings = {key.replace(".", "__"): value for key, value in LIFE.items()} | {
            "elasticsearch__urls": elasticsearch.url,
            "elasticsearch__prefix": cluster.index_prefix,
            "elasticsearch__replicas": "0",
            "redis__url": redis.url,
        }
        member = stack.enter_context(cluster.member(config=str(config), **settings))
        wait_for_share([member], PARTITIONS)
        line = [sys.executable, "-m", "spanloom", "loadgen", f"--spans={spans}", f"--rate={LOAD_SPANS_PER_S}"]
        line += [f"--record={record}", *cluster.flags()]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own program
        member.settled(spans, within_s=300)
        elasticsearch.request("POST", f"/{cluster.index_prefix}*/_refresh")
        yield Scene(member, elasticsearch, redis, cluster.index_prefix)
        assert member.terminate() == 0


def stored_ids(record: Path, count: int) -> list[str]:
    """Traces of the load, in order of sending."""
    found: dict[str, None] = {}
    for entry in read_record(record):
        for span in entry.spans:
            found.setdefault(span.trace_id.hex())
    assert len(found) >= count, f"{len(found)} traces: give more --spans"
    return list(found)[:count]


# What is measured.


HEAD = """
| | requests | p50 ms | p99 ms | requests/s | searches of Elasticsearch | Redis hits | CPU us a request |
|---|---|---|---|---|---|---|---|"""


def measure(scene: Scene, what: str, trace_ids: Sequence[str], connections: int = 1) -> tuple[Counts, Answers]:
    """A row; what the servers counted meanwhile."""
    port = int(scene.member.query.rpartition(":")[2])
    before, began = scene.counts(), time.monotonic()
    answers = ask_all(port, trace_ids, connections)
    took_s = time.monotonic() - began
    counted = scene.counts().since(before)
    p50, p99 = (percentile_ms(answers.latencies_s, share) for share in (0.5, 0.99))
    requests = len(trace_ids)
    say(f"| {what} | {requests} | {p50:.2f} | {p99:.2f} | {requests / took_s:.0f} ", end="")
    say(f"| {counted.searches} | {counted.hits} | {counted.cpu_s / requests * 1e6:.0f} |")
    assert counted.gets == 0, "reads go by search: a get is somebody else's"
    return counted, answers


def single(scene: Scene, trace_ids: Sequence[str]) -> None:
    """One reader: every id as a miss, then, if it is whole and so was cached, as a hit."""
    count, warm = round(len(trace_ids) * SINGLE_SHARE), round(len(trace_ids) * WARM_SHARE)
    ask_all(int(scene.member.query.rpartition(":")[2]), trace_ids[-warm:])
    say(f"\nOne connection, one request after another; load average {os.getloadavg()[0]:.1f}\n{HEAD.strip()}")
    scene.wipe()
    _, answers = measure(scene, "misses", trace_ids[:count])
    whole = [trace_id for trace_id in trace_ids[:count] if trace_id not in answers.partial]
    measure(scene, "hits", whole)
    say(f"\n{dict(answers.statuses)}, {answers.bytes / count:.0f} bytes an answer; ", end="")
    say(f"load average {os.getloadavg()[0]:.1f}, {rss_bytes(scene.member.popen.pid) / 1e6:.0f} MB RSS")


def zipf(scene: Scene, trace_ids: Sequence[str], arguments: argparse.Namespace) -> None:
    """Many readers of whom most want the same few traces, beginning with an empty cache."""
    random = Random(7)
    ranked = random.sample(trace_ids, len(trace_ids))
    weights = list(accumulate(1 / rank**arguments.zipf for rank in range(1, len(ranked) + 1)))
    wanted = random.choices(ranked, cum_weights=weights, k=arguments.requests)
    say(
        f"\nZipf, s = {arguments.zipf:g} over {len(ranked)} ids, {arguments.connections} connections, Redis empty at ",
        end="",
    )
    say(f"first; load average {os.getloadavg()[0]:.1f}\n{HEAD.strip()}")
    scene.wipe()
    length = len(wanted) // QUARTERS
    searches, seen = 0, set[str]()
    shares = []
    for quarter in range(QUARTERS):
        part = wanted[quarter * length : (quarter + 1) * length]
        counted, answers = measure(scene, f"quarter {quarter + 1}", part, arguments.connections)
        searches += counted.searches
        shares.append(f"{1 - counted.searches / len(part):.1%} of {1 - len(set(part) - seen) / len(part):.1%}")
        seen |= set(part)
    total = length * QUARTERS
    say(f"\n{dict(answers.statuses)} in the last quarter; load average {os.getloadavg()[0]:.1f}")
    say(f"{total} requests for {len(seen)} different ids: Elasticsearch was asked {searches} times")
    say(f"taken off Elasticsearch: {1 - searches / total:.1%}; {1 - len(seen) / total:.1%} if each id were read once")
    say(f"by quarter, and if each id were read once: {', '.join(shares)}")
    away = [str(line["why"]) for line in list(scene.member.log) if line["event"] == "redis is away"]
    say(f"the cache's breaker opened {len(away)} times {away or ''}")


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_query", description=__doc__)
    parser.add_argument("--spans", type=int, default=320_000, help="stored")
    parser.add_argument("--ids", type=int, default=20_000, help="that are asked for")
    parser.add_argument("--zipf", type=float, default=1.0, help="the exponent")
    parser.add_argument("--requests", type=int, default=100_000, help="of the Zipf load")
    parser.add_argument("--connections", type=int, default=8, help="of the Zipf load")
    arguments = parser.parse_args()
    say(f"Python {platform.python_version()}, {os.cpu_count()} cores, kernel {KERNEL}, Elasticsearch {BASELINE}")
    with tempfile.TemporaryDirectory(prefix="spanloom-query-", ignore_cleanup_errors=True) as name:
        record = Path(name) / "record"
        with scene(Path(name), record, arguments.spans) as found:
            trace_ids = stored_ids(record, arguments.ids)
            count = json.loads(found.elasticsearch.request("GET", f"/{found.index_prefix}*/_count"))["count"]
            say(f"{arguments.spans} spans sent, {count} documents stored, {len(trace_ids)} traces asked for")
            single(found, trace_ids)
            zipf(found, trace_ids, arguments)


if __name__ == "__main__":
    main()
