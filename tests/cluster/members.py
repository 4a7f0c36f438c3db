"""Processes of one consumer group on a real Kafka, each with a store of its own; topics that nobody else has."""

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from confluent_kafka.admin import AdminClient, NewTopic

from tests.cluster.books import Books, check_books, read_books, recounted_duplicates
from tests.cluster.dump import dump, dump_documents, dump_topics, everything, stored_documents
from tests.integration.process import QUICK, Process, eventually
from tests.oracle import Expected, Limits, expect, total
from tests.oracle_checks import check_ledger, check_loadgen_record, check_store, stored_fragments
from tests.servers.elasticsearch import ElasticsearchServer

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
    policies: list[dict[str, object]] = field(default_factory=lambda: POLICIES)  # as the members have them
    limits: Limits = ORACLE_LIMITS  # as the members have them

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

    def make_topics(self, **configs: Mapping[str, str]) -> None:
        """The topics at once, one replica each, by no command; *configs* are settings of some."""
        admin = AdminClient({"bootstrap.servers": self.brokers, "log_level": 0})
        counts = {"spans": self.partitions, "ledger": self.partitions}
        configs = {"spans": {"message.timestamp.type": "LogAppendTime"}, **configs}
        topics = [
            NewTopic(f"{self.prefix}{name}", counts.get(name, 1), 1, config=dict(configs.get(name, {})))
            for name in TOPICS
        ]
        for future in admin.create_topics(topics).values():
            future.result(30)

    @contextmanager
    def member(
        self,
        command: str = "aggregator",
        *,
        armed: str = "",  # a failpoint, see adapters/failpoints.py
        program: Sequence[str] = ("-m", "spanloom"),
        config: str = "",  # a file's path
        **settings: str,
    ) -> Iterator[Process]:
        """A process of the group until the block ends; killed if it is still there then."""
        folder = self.folder / f"member-{len(self.folders)}"
        self.folders.append(folder)
        flags = self.flags({key.replace("__", "."): value for key, value in settings.items()})
        ports = [f"--set={key}=0" for key in ("http.port", "http.query_port", "http.zipkin_port", "grpc.port")]
        flags += [f"--config={config}"] if config else []
        line = [sys.executable, *program, command, f"--data={folder}", *ports, *flags]
        environ = {**os.environ, "PYTHONUNBUFFERED": "1", "SPANLOOM_FAILPOINT": armed}
        with subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environ) as popen:
            try:
                yield Process(popen)
            finally:
                if popen.poll() is None:
                    popen.kill()

    def judge(self, record: Path) -> dict[str, int]:
        """What the oracle says of topics, stores and commits, once everything is committed; gives its balance sheet."""
        topics = {name: f"{self.prefix}{name}" for name in ("spans", "ledger")}
        held = dump(self.brokers, **topics, stores=self.folders, into=self.folder / "dump")
        expected = expect(held, POLICIES, partition_count=self.partitions, limits=ORACLE_LIMITS)
        assert check_ledger(held, expected) == []
        assert check_store(held, expected) == []
        assert check_loadgen_record(record, held) == []
        assert check_books(self.books(), expected) == []
        return dict(total(expected))

    def books(self) -> dict[int, Books]:
        """Of every partition, as the last commits say."""
        group, spans = f"{self.prefix}group", f"{self.prefix}spans"
        return read_books(self.brokers, group=group, topic=spans, partitions=self.partitions)

    def recount(self, server: ElasticsearchServer, record: Path | None, *, into: Path) -> "Recount":
        """What the oracle says of topics, commits and Elasticsearch, once everything is committed.

        Without a *record* of what was sent, who sent it holds the log against it.
        """
        spans = f"{self.prefix}spans"
        into.mkdir(parents=True, exist_ok=True)
        dump_topics(self.brokers, spans=spans, ledger=f"{self.prefix}ledger", into=into)
        dump_documents(stored_documents(server, self.index_prefix), into)
        expected = expect(into, self.policies, partition_count=self.partitions, limits=self.limits)
        books = self.books()
        differences = {
            "verdicts": check_ledger(into, expected),
            "store": check_store(into, expected),
            "lost or twice": check_loadgen_record(record, into) if record else [],
            "books": check_books(books, expected),
            "traces-complete": self.check_told(into),
        }
        return Recount(into, expected, differences, recounted_duplicates(books, expected))

    def check_told(self, dumped: Path) -> list[str]:
        """`traces-complete` against the store: every kept fragment is told of, and a repeat has the same bytes."""
        stored = {fragment.id: fragment.spans for fragment in stored_fragments(dumped)}
        told: set[str] = set()
        differences = []
        for message in everything(self.brokers, f"{self.prefix}traces_complete"):
            fragment = dict(message.headers() or [])["fragment"]
            assert isinstance(fragment, bytes)
            name = fragment.decode()
            told.add(name)
            if stored.get(name) != message.value():
                differences.append(f"{name}: other bytes are told than stored")
        differences += [f"{name}: stored and not told" for name in stored.keys() - told]
        return differences

    @property
    def index_prefix(self) -> str:
        """Of this cluster's indices."""
        return self.prefix.lower()


@dataclass(frozen=True, slots=True)
class Recount:
    """What came of everything; `differences` has a list for each thing that was looked at."""

    dumped: Path
    expected: Expected
    differences: dict[str, list[str]]
    recounted: int  # duplicates that the books name after their fragment: see books.check_books

    @property
    def is_clean(self) -> bool:
        """Nothing differs anywhere."""
        return not any(self.differences.values())

    def tally(self) -> dict[str, int]:
        """The oracle's balance sheet of all partitions."""
        return dict(total(self.expected))


class Logged(Protocol):
    """A process whose log is there to be looked at."""

    log: list[dict[str, object]]


def owned(member: Logged) -> set[object]:
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
