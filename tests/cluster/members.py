"""Processes of one consumer group on a real Kafka, each with a store of its own; topics that nobody else has."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.dump import dump
from tests.integration.process import QUICK, Process, eventually
from tests.oracle import Limits, expect, total
from tests.oracle_checks import check_ledger, check_loadgen_record, check_store

NS = 1_000_000_000
ORACLE_LIMITS = Limits(quiet_ns=NS // 2, idle_ns=NS, age_max_ns=10 * NS)  # as QUICK has them
POLICIES: list[dict[str, object]] = [
    {"name": "errors", "type": "error"},
    {
        "name": "p95",
        "type": "latency_percentile",
        "latency_percentile": {"percentile": 95, "min_count": 100, "window_s": 600},
    },
    {"name": "baseline", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 1}},
]
TOPICS = ("spans", "ledger", "traces_complete", "sampling_decisions", "dead_letters", "policies")
_runs = itertools.count()


@dataclass(slots=True)
class Cluster:
    """One group and its topics."""

    brokers: str
    folder: Path
    partitions: int = 8
    prefix: str = field(default_factory=lambda: f"cluster-{os.getpid()}-{next(_runs)}-")
    folders: list[Path] = field(default_factory=list)

    def flags(self, settings: dict[str, str] | None = None) -> list[str]:
        """What every command of this cluster is given."""
        keys = {"kafka.brokers": self.brokers, "kafka.group": f"{self.prefix}group", "log.format": "json"}
        keys |= {f"kafka.{name}": f"{self.prefix}{name}" for name in TOPICS} | QUICK | (settings or {})
        return [f"--set={key}={value}" for key, value in keys.items()]

    def command(self, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        line = [sys.executable, "-m", "spanloom", *words, *self.flags()]
        ran = subprocess.run(line, capture_output=True, text=True, timeout=120)
        assert ran.returncode == 0 or not check, f"{words}: {ran.returncode}\n{ran.stdout}{ran.stderr}"
        return ran

    def create_topics(self) -> None:
        """`spanloom topics create`."""
        self.command("topics", "create", f"--spans-partitions={self.partitions}")

    @contextmanager
    def member(self, command: str = "aggregator", **settings: str) -> Iterator[Process]:
        """A process of the group until the block ends; killed if it is still there then."""
        folder = self.folder / f"member-{len(self.folders)}"
        self.folders.append(folder)
        flags = self.flags({key.replace("__", "."): value for key, value in settings.items()})
        ports = [f"--set={key}=0" for key in ("http.port", "http.query_port", "http.zipkin_port", "grpc.port")]
        line = [sys.executable, "-m", "spanloom", command, f"--data={folder}", *ports, *flags]
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environ) as popen:
            try:
                yield Process(popen)
            finally:
                if popen.poll() is None:
                    popen.kill()

    def judge(self, record: Path) -> dict[str, int]:
        """What the oracle says of topics and stores together; gives its balance sheet."""
        topics = {name: f"{self.prefix}{name}" for name in ("spans", "ledger")}
        held = dump(self.brokers, **topics, stores=self.folders, into=self.folder / "dump")
        expected = expect(held, POLICIES, partition_count=self.partitions, limits=ORACLE_LIMITS)
        assert check_ledger(held, expected) == []
        assert check_store(held, expected) == []
        assert check_loadgen_record(record, held) == []
        return dict(total(expected))


def owned(member: Process) -> set[object]:
    """The partitions that the process has taken over since it started, and not handed on."""
    found: set[object] = set()
    for line in list(member.log):
        if line["event"] == "assigned":
            found.add(line["partition"])
        elif line["event"] in ("partitions revoked", "partitions lost"):
            partitions = line["partitions"]
            assert isinstance(partitions, list)
            found -= set(partitions)
    return found


def wait_for_share(members: list[Process], partitions: int, within_s: float = 60) -> None:
    """Wait until every partition is owned, by one of them, and each has some."""

    def settled() -> bool:
        shares = [owned(member) for member in members]
        return all(shares) and sum(map(len, shares)) == partitions == len(set().union(*shares))

    eventually(settled, within_s)


def load(member: Process, record: Path, *flags: str) -> "subprocess.Popen[bytes]":
    """Begin to send; the caller waits."""
    line = [sys.executable, "-m", "spanloom", "loadgen", f"--url={member.intake}/v1/traces", f"--record={record}"]
    return subprocess.Popen([*line, *flags], stdout=subprocess.DEVNULL)
