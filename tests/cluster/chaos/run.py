"""One chaos run from its servers' start to the recount."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import trio
import yaml

from spanloom.errors import SourceUnavailable
from tests.cluster.books import read_books
from tests.cluster.chaos.account import Takeover, count_skips, takeovers
from tests.cluster.chaos.fleet import Fleet
from tests.cluster.chaos.weather import Journal, Servers, Sky
from tests.cluster.members import Cluster, Recount
from tests.oracle import Limits
from tests.servers.elasticsearch import BASELINE, ElasticsearchServer
from tests.servers.http_proxy import HttpProxy
from tests.servers.kafka import kafka
from tests.servers.redis import RedisServer

PARTITIONS = 24
NS = 1_000_000_000
LIMITS = Limits(quiet_ns=3 * NS // 2, idle_ns=6 * NS, age_max_ns=20 * NS)
POLICIES: list[dict[str, object]] = [
    {"name": "errors", "type": "error"},
    {
        "name": "p95",
        "type": "latency_percentile",
        "latency_percentile": {"percentile": 95, "min_count": 100, "window_s": 600},
    },
    {"name": "fifth", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 20}},
]
START_S = 120.0
SETTLE_S = 900.0  # for all of it to be committed once nothing goes wrong any more
LOOK_S = 1.0
THREADS = 200  # requests that wait for an Elasticsearch which is away
FULL_MINUTES = 10.0  # of a run whose events have their full length


@dataclass(frozen=True, slots=True)
class Plan:
    """One run."""

    minutes: float
    seed: int
    folder: Path
    brokers: int = 3
    spans_per_s: int = 400

    @property
    def scale(self) -> float:
        """Of the long events' lengths."""
        return min(1.0, max(0.3, self.minutes / FULL_MINUTES))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    journal: Journal
    recount: Recount
    takeovers: list[Takeover]
    kills: int
    lives: int
    violations: list[str]  # beside the recount's


async def run(plan: Plan) -> Outcome:
    """The whole run; what happened lies in the plan's folder."""
    trio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    plan.folder.mkdir(parents=True, exist_ok=True)
    with start_servers(plan) as servers:
        journal = Journal(plan.folder / "journal.jsonl")
        cluster = Cluster(servers.kafka.brokers, plan.folder, partitions=PARTITIONS, policies=POLICIES, limits=LIMITS)
        (plan.folder / "spanloom.yaml").write_text(yaml.safe_dump({"sampling": {"policies": POLICIES}}))
        await trio.to_thread.run_sync(cluster.create_topics)
        async with trio.open_nursery() as nursery:
            proxy = HttpProxy(servers.elasticsearch.port)
            await nursery.start(proxy.run)
            with Fleet(cluster, plan.folder, settings_of(cluster, proxy, servers), Random(plan.seed).random) as fleet:
                sky = Sky(fleet, servers, proxy, journal, seed=plan.seed, scale=plan.scale)
                violations = await _storm(plan, cluster, sky)
            nursery.cancel_scope.cancel()
        journal.note("recount")
        recount = cluster.recount(servers.elasticsearch, plan.folder / "sent", into=plan.folder / "dump")
    journal.close()
    skips = count_skips(recount.dumped / "ledger.db")
    if skips:
        violations.append(f"{skips} records were skipped, and nobody sent a bad one")
    kills = sum(life.killed_unix > 0 for life in fleet.lives)
    return Outcome(journal, recount, takeovers(recount.dumped, fleet.lives), kills, len(fleet.lives), violations)


@contextmanager
def start_servers(plan: Plan) -> Iterator[Servers]:
    """Servers of the run's own: they are frozen and killed."""
    with ExitStack() as stop:
        brokers = stop.enter_context(kafka(plan.folder, nodes=plan.brokers))
        elasticsearch = stop.enter_context(closing(ElasticsearchServer(BASELINE)))
        redis = stop.enter_context(closing(RedisServer()))
        yield Servers(brokers, elasticsearch, redis)


def settings_of(cluster: Cluster, proxy: HttpProxy, servers: Servers) -> dict[str, str]:
    """What every member is told."""
    return {
        "elasticsearch.urls": proxy.url,
        "elasticsearch.prefix": cluster.index_prefix,
        "elasticsearch.replicas": "0",
        "redis.url": servers.redis.url,
        "assembly.quiet_s": "1500ms",
        "assembly.idle_s": "6s",
        "assembly.age_max_s": "20s",
        "commit_interval_s": "1s",  # the default: what is uncommitted is what it would be
    }


async def _storm(plan: Plan, cluster: Cluster, sky: Sky) -> list[str]:
    """The run between the servers' start and the recount; what went wrong beside what should."""
    fleet = sky.fleet
    async with trio.open_nursery() as keeping:
        keeping.start_soon(fleet.run)
        with trio.fail_after(START_S):
            while sum(len(life.partitions) for life in fleet.living) < PARTITIONS:  # noqa: ASYNC110 - other processes
                await trio.sleep(LOOK_S)
        with steady_load(plan, cluster) as sending:
            with trio.move_on_after(plan.minutes * 60):
                await sky.blow()
            sky.clear()
            sky.journal.note("calm")
            violations = await finish(cluster, sending)
        sky.journal.note("finished")
        keeping.cancel_scope.cancel()
    await fleet.end()
    violations += [f"life {life} ended by itself with {code}" for life, code in fleet.ended_by_themselves]
    if fleet.not_started:
        sky.journal.counts["no start: a broker was away"] = fleet.not_started
    return violations


@contextmanager
def steady_load(plan: Plan, cluster: Cluster) -> "Iterator[subprocess.Popen[bytes]]":
    """A steady load straight into Kafka, its record in the folder."""
    spans = int(plan.spans_per_s * plan.minutes * 60)
    flags = [
        f"--spans={spans}",
        f"--rate={plan.spans_per_s}",
        f"--seed={plan.seed}",
        f"--record={plan.folder / 'sent'}",
    ]
    line = [sys.executable, "-m", "spanloom", "loadgen", *flags, *cluster.flags()]
    with (plan.folder / "load.log").open("wb") as output, subprocess.Popen(line, stdout=output, stderr=output) as popen:
        try:
            yield popen
        finally:
            if popen.poll() is None:
                popen.send_signal(signal.SIGKILL)


async def finish(cluster: Cluster, sending: "subprocess.Popen[bytes]") -> list[str]:
    """Wait until all is sent, and all that is in the log is committed."""
    violations = []
    with trio.move_on_after(SETTLE_S) as settling:
        while sending.poll() is None:  # noqa: ASYNC110 - another process
            await trio.sleep(LOOK_S)
        while not await trio.to_thread.run_sync(_is_committed, cluster):  # noqa: ASYNC110 - other processes
            await trio.sleep(LOOK_S)
    if settling.cancelled_caught:
        violations.append(f"not all was committed {SETTLE_S:g} s after the last that went wrong")
    if sending.poll() != 0:
        violations.append(f"the load ended with {sending.poll()}")
    return violations


def _is_committed(cluster: Cluster) -> bool:
    group, spans = f"{cluster.prefix}group", f"{cluster.prefix}spans"
    try:
        books = read_books(cluster.brokers, group=group, topic=spans, partitions=cluster.partitions)
    except SourceUnavailable:
        return False
    return bool(books) and all(each.committed == each.end for each in books.values())
