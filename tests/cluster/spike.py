"""`python -m tests.cluster.spike`: ten times the load for a minute; exit status 1 for a difference.

First one aggregator works off a backlog, which says how many spans a second it can do here. Then comes a steady load
of a seventh of that, for a minute ten times as much, then the steady load again. What cannot be done at once waits in
Kafka; how long it takes to be worked off is reported beside what follows from the numbers. Everything is kept, so that
Elasticsearch is a part of what is measured.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
import yaml

from spanloom.load.workload import Workload
from tests.cluster.books import read_books
from tests.cluster.members import ORACLE_LIMITS, Cluster
from tests.cluster.outage import POLICIES, is_committed
from tests.cluster.timed import Sender, Sent, timed
from tests.integration.process import eventually
from tests.servers.elasticsearch import BASELINE, ElasticsearchServer
from tests.servers.kafka import kafka

PARTITIONS = 8
SPIKE, SPIKE_S = 10, 60.0
CALM_S = 20.0  # before
TAIL_S = 600.0  # after, at most
STEADY_SHARE = 1 / 7  # of what can be done: the spike is beyond it, the steady load far below
BACKLOG = 50_000  # spans
SLICE_S = 0.1


@dataclass(slots=True)
class Pace:
    """Sends records at a rate and looks at how far the group is."""

    cluster: Cluster
    sender: Sender
    left: list[Sent]  # in reverse
    lines: list[str] = field(default_factory=list)
    lags: list[int] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def send(self, spans: float) -> int:
        """The next so many spans."""
        group: list[Sent] = []
        held = 0
        while held < spans:
            group.append(self.left.pop())
            held += group[-1].spans
        return self.sender.send(group, keeping_times=False)

    def keep(self, spans_per_s: float, seconds: float, what: str, *, until_lag: int = -1) -> float:
        """Send at that rate for that long, or until the lag is as small as that; how long it was."""
        began = looked = time.monotonic()
        sent = 0
        while (now := time.monotonic()) - began < seconds:
            sent += self.send(spans_per_s * (now - began) - sent)
            if now - looked >= 1:
                looked = now
                lag = self.look(what)
                if lag <= until_lag:
                    break
            time.sleep(SLICE_S)
        return time.monotonic() - began

    def look(self, what: str) -> int:
        """Records that are not committed."""
        lag = self.lag()
        self.lags.append(lag)
        self.lines.append(f"{time.monotonic() - self.began:6.0f} s  {lag:8} records not committed  {what}")
        return lag

    def lag(self) -> int:
        """Of all partitions."""
        group, spans = f"{self.cluster.prefix}group", f"{self.cluster.prefix}spans"
        books = read_books(self.cluster.brokers, group=group, topic=spans, partitions=PARTITIONS)
        return sum(each.end - each.committed for each in books.values())


def traffic(spans: int) -> list[Sent]:
    """That many, made beforehand."""
    workload = Workload(seed=9, spans=spans, spans_per_s=20_000, batch_delay_s=0.2, late_delay_s=1)
    return trio.run(partial(timed, workload, epoch_unix_ns=time.time_ns(), partitions=PARTITIONS))


def measure(pace: Pace, settings: dict[str, str], config: Path) -> bool:
    """Backlog, steady load, spike, steady load; whether the steady load got through."""
    cluster = pace.cluster
    backlog = pace.send(BACKLOG)
    pace.sender.finish()
    with cluster.member(config=str(config), **settings) as member:
        eventually(lambda: member.said("first records"), 60)
        began = time.monotonic()
        eventually(lambda: is_committed(cluster), 600)
        capacity = backlog / (time.monotonic() - began)
        steady = capacity * STEADY_SHARE
        print(f"capacity: {backlog} spans of backlog committed at {capacity:.0f} spans/s")
        print(f"steady {steady:.0f} spans/s, for {SPIKE_S:g} s {SPIKE * steady:.0f} spans/s")
        if steady * (CALM_S + SPIKE * SPIKE_S) > sum(record.spans for record in pace.left):
            print("too fast for what was made beforehand: give --spans")
            return False
        pace.keep(steady, CALM_S, "steady")
        calm_lag = max(pace.lags)
        pace.keep(SPIKE * steady, SPIKE_S, "ten times that")
        queued = pace.look("the spike ends")
        took_s = pace.keep(steady, TAIL_S, "steady again", until_lag=calm_lag)
        predicted_s = (SPIKE * steady - capacity) * SPIKE_S / (capacity - steady)
        pace.sender.finish()
        eventually(lambda: is_committed(cluster), 600)
        assert member.terminate() == 0
    print("\n".join(pace.lines[:: max(1, len(pace.lines) // 40)]))
    print(f"{queued} records were queued in Kafka when the spike ended, at most {calm_lag} before it")
    print(f"drained {took_s:.0f} s after the spike; predicted from the capacity {predicted_s:.0f} s")
    return took_s < TAIL_S


def run(folder: Path, spans: int) -> bool:
    """Whether nothing differs and the lag was worked off."""
    left: Sequence[Sent] = traffic(spans)
    with kafka(folder) as servers, closing(ElasticsearchServer(BASELINE)) as store:
        cluster = Cluster(servers.brokers, folder, partitions=PARTITIONS, policies=POLICIES, limits=ORACLE_LIMITS)
        cluster.make_topics()
        config = folder / "spanloom.yaml"
        config.write_text(yaml.safe_dump({"sampling": {"policies": POLICIES}}))
        settings = {
            "elasticsearch__urls": store.url,
            "elasticsearch__prefix": cluster.index_prefix,
            "elasticsearch__replicas": "0",
            "commit_interval_s": "1s",
        }
        pace = Pace(cluster, Sender(cluster.brokers, f"{cluster.prefix}spans"), list(left)[::-1])
        is_drained = measure(pace, settings, config)
        recount = cluster.recount(store, None, into=folder / "dump")
    print(f"oracle: {dict(sorted(recount.tally().items()))}")
    for name, found in recount.differences.items():
        print("\n    ".join([f"{name}: {len(found)} differences", *found[:10]]))
    return is_drained and recount.is_clean


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.spike", description=__doc__)
    parser.add_argument("--spans", type=int, default=1_000_000, help="made beforehand")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spanloom-spike-", ignore_cleanup_errors=True) as folder:
        return 0 if run(Path(folder), args.spans) else 1


if __name__ == "__main__":
    sys.exit(main())
