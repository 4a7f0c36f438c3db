"""`python -m tests.cluster.outage`: Elasticsearch is away for an hour of stream time; exit status 1 for a difference.

An hour of traffic, all of it kept, goes into Kafka as fast as it can be made while Elasticsearch is stopped. What one
aggregator then holds is measured, then Elasticsearch goes on, the backlog is processed, and the oracle recounts: it
knows nothing of the outage, so its verdicts are those of a run without one.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio
import yaml

from spanloom.load.workload import Workload
from tests.cluster.books import read_books
from tests.cluster.members import Cluster
from tests.cluster.timed import Sender, in_slices, timed
from tests.integration.process import Process, eventually
from tests.oracle import Limits
from tests.servers.elasticsearch import BASELINE, ElasticsearchServer
from tests.servers.kafka import kafka

HOUR_S = 3600.0
STILL_S = 15.0  # nothing more received for so long: it is held back, or has everything
END_S = 1800.0
POLICIES: list[dict[str, object]] = [
    {"name": "all", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 100}}
]
LIFE = {"assembly.quiet_s": "6s", "assembly.idle_s": "15s", "assembly.age_max_s": "60s", "commit_interval_s": "1s"}


@dataclass(slots=True)
class Watch:
    """Looks at a process once a second."""

    member: Process
    peak_mib: float = 0.0
    lines: list[str] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def look(self, what: str) -> float:
        """Note the memory, and give what was received so far."""
        mib = resident_mib(self.member.popen.pid)
        self.peak_mib = max(self.peak_mib, mib)
        received = self.member.metric("spanloom_spans_received_total")
        self.lines.append(f"{time.monotonic() - self.began:6.0f} s  {mib:7.1f} MiB  {received:9.0f} received  {what}")
        return received

    def until(self, done: Callable[[float], bool], what: str) -> None:
        """Look until *done* says so of what was received."""
        ends = time.monotonic() + END_S
        while not done(self.look(what)):
            assert time.monotonic() < ends, f"{what}: not within {END_S:g} s"
            time.sleep(1)


def resident_mib(pid: int) -> float:
    """Of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


class Still:
    """Whether a number has not changed for a while."""

    def __init__(self) -> None:
        self._last, self._since = -1.0, time.monotonic()

    def __call__(self, value: float) -> bool:
        if value != self._last:
            self._last, self._since = value, time.monotonic()
        return time.monotonic() - self._since >= STILL_S


def is_committed(cluster: Cluster) -> bool:
    """Everything in the log is."""
    group, spans = f"{cluster.prefix}group", f"{cluster.prefix}spans"
    books = read_books(cluster.brokers, group=group, topic=spans, partitions=cluster.partitions)
    return bool(books) and all(each.committed == each.end for each in books.values())


def run(folder: Path, spans: int, partitions: int) -> bool:
    """Whether nothing differs."""
    limits = Limits()
    workload = Workload(seed=5, spans=spans, spans_per_s=spans / HOUR_S)
    with kafka(folder) as servers, closing(ElasticsearchServer(BASELINE)) as store:
        cluster = Cluster(servers.brokers, folder, partitions=partitions, policies=POLICIES, limits=limits)
        cluster.make_topics(spans={"message.timestamp.type": "CreateTime"})
        config = folder / "spanloom.yaml"
        config.write_text(yaml.safe_dump({"sampling": {"policies": POLICIES}}))
        settings = {
            "elasticsearch__urls": store.url,
            "elasticsearch__prefix": cluster.index_prefix,
            "elasticsearch__replicas": "0",
            **{key.replace(".", "__"): value for key, value in LIFE.items()},
        }
        with cluster.member(config=str(config), **settings) as member:
            eventually(lambda: len([line for line in member.log if line["event"] == "assigned"]) == partitions, 60)
            watch = Watch(member)
            watch.look("idle")
            store.signal(signal.SIGSTOP)
            try:
                epoch_unix_ns = time.time_ns() - int(HOUR_S * 1e9)
                sent = trio.run(partial(timed, workload, epoch_unix_ns=epoch_unix_ns, partitions=partitions))
                sender = Sender(cluster.brokers, f"{cluster.prefix}spans")
                for group in in_slices(sent, spans // 20):
                    sender.send(group)
                    watch.look("Elasticsearch away, traffic goes in")
                sender.finish()
                size_mib = sum(len(record.message.value) for record in sent) / 2**20
                watch.until(Still(), "Elasticsearch away, all traffic is in Kafka")
            finally:
                store.signal(signal.SIGCONT)
            back = time.monotonic()
            watch.until(lambda _: is_committed(cluster), "Elasticsearch back")
            took_s = time.monotonic() - back
            assert member.terminate() == 0
        stream_s = (sent[-1].at_ms - sent[0].at_ms) / 1000
        print("\n".join(watch.lines[:: max(1, len(watch.lines) // 60)]))
        print(f"{spans} spans, {len(sent)} records, {size_mib:.0f} MiB of spans, {stream_s:.0f} s of stream time")
        print(f"memory at most {watch.peak_mib:.0f} MiB; all committed {took_s:.0f} s after Elasticsearch was back")
        recount = cluster.recount(store, None, into=folder / "dump")
    print(f"oracle: {dict(sorted(recount.tally().items()))}")
    for name, found in recount.differences.items():
        print("\n    ".join([f"{name}: {len(found)} differences", *found[:10]]))
    return recount.is_clean


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.outage", description=__doc__)
    parser.add_argument("--spans", type=int, default=900_000)
    parser.add_argument("--partitions", type=int, default=4, help="each holds 64 MiB of kept traces at most")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spanloom-outage-", ignore_cleanup_errors=True) as folder:
        return 0 if run(Path(folder), args.spans, args.partitions) else 1


if __name__ == "__main__":
    sys.exit(main())
