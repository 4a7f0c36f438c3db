"""The two sides of `compare.py`: what each is started with, and what can be seen of it while it runs.

Both read the same topic with the same policies. Ours is the `aggregator` command as it is shipped, dedupe and ledger
on, telling `traces-complete` and `sampling-decisions` of what it kept; only the store `none` is none of its own. The
collector's kept traces go nowhere.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from benchmarks.compare_traffic import PARTITIONS, SLOW_MS
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import ConfigError
from tests.integration.process import Process
from tests.servers import elasticsearch
from tests.servers.otelcol import Otelcol, running_otelcol
from tests.servers.prometheus import scrape, total

OURS, THEIRS = "spanloom", "collector"
STORES = ("none", "sqlite", "elasticsearch")
CONFIG = Path(__file__).with_name("otelcol-tail-sampling.yaml")
ROOT = Path(__file__).parents[1]
TOPICS = ("ledger", "traces_complete", "sampling_decisions", "dead_letters", "policies")
FOREVER_S = 600
_ANSWER_S = 30
_DECIDED = "otelcol_processor_tail_sampling_global_count_traces_sampled"
_numbers = itertools.count()

Policies = Sequence[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Task:
    """What one process is to do."""

    brokers: str
    topic: str
    wait_s: float  # of quiet, with us; of waiting, with the collector
    traces: int  # different ones in the topic
    slow_ms: int = SLOW_MS
    store: str = "none"
    keeps_all: bool = False
    kept_topic: str = ""  # where the collector writes what it keeps
    consumer: str = "auto"  # ours: `kafka.consumer`


@dataclass(frozen=True, slots=True)
class Look:
    """What a side says of itself at one moment."""

    taken: int  # spans it has taken in
    undecided: int  # spans, or traces, that it has no verdict for, or has not finished with
    kept: int  # traces
    stored: int  # spans


class Running(Protocol):
    """A side at work."""

    @property
    def pid(self) -> int:
        """Its process."""

    @property
    def store_pid(self) -> int | None:
        """The process of its store, where that is another one."""

    def look(self) -> Look:
        """How far it is; costs it about a millisecond."""

    def has_committed(self) -> bool:
        """Whether it would begin at the end of the topic now; costs it nothing."""


def tail_policies(slow_ms: int, *, keeps_all: bool = False) -> Policies:
    """The collector's: errors, slow ones and one trace in a hundred; or every trace."""
    if keeps_all:
        return [{"name": "all", "type": "always_sample"}]
    return [
        {"name": "err", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "slow", "type": "latency", "latency": {"threshold_ms": slow_ms}},
        {"name": "base", "type": "probabilistic", "probabilistic": {"sampling_percentage": 1}},
    ]


def our_policies(slow_ms: int, *, keeps_all: bool = False) -> tuple[Policies, bool]:
    """The same where we have those types, else the nearest that we have; and whether they are the same.

    A consistent probability keeps as many traces as a salted one, but not the same ones.
    """
    same = tail_policies(slow_ms, keeps_all=keeps_all)
    try:
        parse_policies(same, version=1)
    except ConfigError:
        percentage = 100 if keeps_all else 1
        near = {"sampling_percentage": percentage}
        chance: dict[str, object] = {"name": "base", "type": "consistent_probability", "consistent_probability": near}
        others: list[dict[str, object]] = [
            {"name": "err", "type": "error"},
            {"name": "slow", "type": "latency", "latency": {"threshold_ms": slow_ms}},
        ]
        return ([chance] if keeps_all else [*others, chance]), keeps_all
    return same, True


# Ours.


class Ours:
    """A running `spanloom aggregator`."""

    def __init__(self, process: Process, task: Task, name: str) -> None:
        self._process = process
        self._task = task
        self.group = f"{name}-group"
        self.ledger = f"{name}-ledger"
        self._admin = admin_of(task.brokers)

    @property
    def pid(self) -> int:
        return self._process.popen.pid

    @property
    def store_pid(self) -> int | None:
        return elasticsearch.running().pid if self._task.store == "elasticsearch" else None

    def look(self) -> Look:
        samples = scrape(f"{self._process.query}/metrics")
        taken, pending, kept, stored = (
            int(total(samples, f"spanloom_{name}"))
            for name in ("spans_received_total", "spans_pending", "store_writes_total", "spans_stored_total")
        )
        return Look(taken, pending, kept, stored)

    def has_committed(self) -> bool:
        places = [TopicPartition(self._task.topic, number) for number in range(PARTITIONS)]
        (asked,) = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self.group, places)], request_timeout=_ANSWER_S
        ).values()
        found = asked.result(_ANSWER_S).topic_partitions or []
        committed = {place.partition: place.offset for place in found}
        return committed == ends_of(self._admin, self._task.topic)


@contextmanager
def run_ours(task: Task) -> Iterator[Ours]:
    """One member of a new group, with a ledger of its own, until the block ends."""
    name = f"bench-{os.getpid()}-{next(_numbers)}"
    topics = {one: f"{name}-{one}" for one in TOPICS}
    make_topic(task.brokers, topics["ledger"], "LogAppendTime")
    with TemporaryDirectory(prefix="spanloom-bench-") as folder:
        flags = [f"--set={key}={value}" for key, value in _settings(task, name, topics, Path(folder)).items()]
        create = [sys.executable, "-m", "spanloom", "topics", "create", f"--spans-partitions={PARTITIONS}", *flags]
        # It says that `spans` differs: our records carry times of their own.
        subprocess.run(create, check=True, capture_output=True, cwd=ROOT)  # noqa: S603
        program = "benchmarks.compare_no_store" if task.store == "none" else "spanloom"
        line = [sys.executable, "-m", program, "aggregator", *flags]
        try:
            yield from _run(line, task, name)
        finally:
            drop_topics(task.brokers, list(topics.values()))
            if task.store == "elasticsearch":
                elasticsearch.running().forget(f"{name}-")


def _run(line: Sequence[str], task: Task, name: str) -> Iterator[Ours]:
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(  # noqa: S603 - our own command line
        line, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environ, cwd=ROOT
    ) as popen:
        try:
            yield Ours(Process(popen), task, name)
        finally:
            if popen.poll() is None:
                popen.kill()


def _settings(task: Task, name: str, topics: dict[str, str], folder: Path) -> dict[str, str]:
    policies = folder / "policies.yaml"
    policies.write_text(json.dumps(our_policies(task.slow_ms, keeps_all=task.keeps_all)[0]))
    settings = {f"kafka.{key}": topic for key, topic in topics.items()}
    settings |= {"kafka.brokers": task.brokers, "kafka.group": f"{name}-group", "kafka.spans": task.topic}
    settings |= {"kafka.consumer": task.consumer}
    settings |= dict.fromkeys(("http.port", "http.query_port", "http.zipkin_port", "grpc.port"), "0")
    settings |= {"data.folder": str(folder / "data"), "sampling.policies": str(policies), "log.format": "json"}
    settings |= {"assembly.quiet_s": str(task.wait_s), "assembly.undecided_bytes_max": str(4 << 30)}
    if task.wait_s == FOREVER_S:
        settings |= dict.fromkeys(("assembly.idle_s", "assembly.age_max_s", "assembly.remember_s"), str(FOREVER_S))
    if task.store == "elasticsearch":
        settings |= {"elasticsearch.urls": elasticsearch.running().url, "elasticsearch.replicas": "0"}
        settings |= {"elasticsearch.prefix": f"{name}-"}
    return settings


# Theirs.


class Theirs:
    """A running collector."""

    store_pid: int | None = None

    def __init__(self, otelcol: Otelcol, task: Task) -> None:
        self._otelcol = otelcol
        self._task = task

    @property
    def pid(self) -> int:
        return self._otelcol.pid

    def look(self) -> Look:
        samples = self._otelcol.samples()
        taken = int(total(samples, "otelcol_receiver_accepted_spans"))
        decided = int(total(samples, _DECIDED))
        return Look(taken, self._task.traces - decided, int(total(samples, _DECIDED, sampled="true")), 0)

    def has_committed(self) -> bool:
        return True  # it commits what it has read, decided or not: nothing to wait for


@contextmanager
def run_theirs(task: Task) -> Iterator[Theirs]:
    """One collector in a new group, until the block ends."""
    env = {
        "BROKERS": task.brokers,
        "GROUP": f"bench-{os.getpid()}-{next(_numbers)}",
        "TOPIC": task.topic,
        "WAIT": f"{task.wait_s}s",
        "POLICIES": json.dumps(tail_policies(task.slow_ms, keeps_all=task.keeps_all)),
        "EXPORTER": "kafka" if task.kept_topic else "nop",
        "KEPT_TOPIC": task.kept_topic or "none",
    }
    with running_otelcol(CONFIG.read_text(), **env) as otelcol:
        yield Theirs(otelcol, task)
        otelcol.kill()  # nobody waits for what it holds


# Topics.


def admin_of(brokers: str) -> AdminClient:
    """A client that says nothing by itself."""
    settings: dict[str, str | int | float | bool] = {"bootstrap.servers": brokers, "log_level": 2}
    return AdminClient(settings)


def make_topic(brokers: str, name: str, timestamps: str, partitions: int = PARTITIONS) -> None:
    """A topic of one replica; *timestamps*: CreateTime or LogAppendTime."""
    config = {"message.timestamp.type": timestamps, "max.message.bytes": str(32 << 20), "retention.ms": "-1"}
    topic = NewTopic(name, partitions, 1, config=config)
    admin = admin_of(brokers)  # held: its end would end the request
    (made,) = admin.create_topics([topic], operation_timeout=_ANSWER_S).values()
    made.result(_ANSWER_S)


def drop_topics(brokers: str, names: list[str]) -> None:
    """Delete topics, and wait until that is done."""
    admin = admin_of(brokers)
    for future in admin.delete_topics(names, operation_timeout=_ANSWER_S).values():
        future.result(_ANSWER_S)


def ends_of(admin: AdminClient, topic: str) -> dict[int, int]:
    """The offset the next record of each partition will get."""
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    places = {TopicPartition(topic, number): latest for number in range(PARTITIONS)}
    asked = admin.list_offsets(places, request_timeout=_ANSWER_S)
    return {place.partition: future.result(_ANSWER_S).offset for place, future in asked.items()}
