"""How long after its quiet period a trace's verdict comes, at half the load a side can take.

A process of its own produces at a steady rate while a side reads; the topic's times are the broker's. Ours: from the
deadline that the decision carries (last span and quiet) to the broker's time of the ledger record that makes the
verdict durable; every trace, kept or dropped. Theirs: from the trace's first record and `decision_wait` to the broker's
time of the record it exports; kept traces alone, as nothing tells of the dropped ones. The first and last seconds are
left out.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import quantiles
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, TopicPartition

from benchmarks.compare_sides import (
    OURS,
    ROOT,
    Running,
    Task,
    admin_of,
    drop_topics,
    ends_of,
    make_topic,
    run_ours,
    run_theirs,
)
from benchmarks.compare_traffic import PARTITIONS, Traffic
from spanloom.core.ledger import Decide, decode, decode_decisions
from tests.servers.processes import cpu_s

WAIT_S = 5
EDGE_S = 2.0  # left out at both ends
_READ = 10_000  # messages a call
_SILENT_S = 30


@dataclass(frozen=True, slots=True)
class Latency:
    """What came of one run."""

    side: str
    traffic: str
    asked_spans_s: float
    offered_spans_s: float  # what the producer managed
    cpu_cores: float  # of the side, while it lasted
    verdicts: int
    p50_ms: float
    p99_ms: float
    max_ms: float


class _Paced(NamedTuple):
    """What the producer did."""

    spans: int
    began_ms: int
    ended_ms: int
    cores: float  # of the side meanwhile

    @property
    def spans_s(self) -> float:
        return self.spans / (self.ended_ms - self.began_ms) * 1000

    def counts(self, due_ms: float) -> bool:
        """Whether there was load for a while before and after this moment."""
        edge_ms = EDGE_S * 1000
        return self.began_ms + WAIT_S * 1000 + edge_ms <= due_ms <= self.ended_ms - edge_ms


def latency(side: str, brokers: str, traffic: Traffic, *, spans_s: float, lasts_s: float) -> Latency:
    """Run one side at *spans_s* for *lasts_s*."""
    spans, kept = f"pace-{side}-{time.monotonic_ns()}", f"pace-kept-{time.monotonic_ns()}"
    make_topic(brokers, spans, "LogAppendTime")
    make_topic(brokers, kept, "LogAppendTime")
    task = Task(brokers, spans, WAIT_S, traffic.traces, slow_ms=traffic.slow_ms, kept_topic=kept)
    try:
        if side == OURS:
            with run_ours(task) as ours:
                paced = _pace(ours, task, traffic, spans_s=spans_s, lasts_s=lasts_s)
                waits = list(_ours_ms(task, ours.ledger, paced))
        else:
            with run_theirs(task) as theirs:
                paced = _pace(theirs, task, traffic, spans_s=spans_s, lasts_s=lasts_s)
                waits = list(_theirs_ms(task, paced))
    finally:
        drop_topics(brokers, [spans, kept])
    assert len(waits) > 100, f"{side}: only {len(waits)} verdicts to measure"
    cuts = quantiles(waits, n=100)
    measured = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(waits)}
    return Latency(side, traffic.name, spans_s, paced.spans_s, paced.cores, len(waits), **measured)


def _pace(running: Running, task: Task, traffic: Traffic, *, spans_s: float, lasts_s: float) -> _Paced:
    """Let the producer run, then the quiet period pass."""
    line = [sys.executable, "-m", "benchmarks.compare_pace", task.brokers, task.topic, traffic.name]
    with subprocess.Popen(  # noqa: S603 - our own command line
        [*line, str(spans_s), str(lasts_s)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, cwd=ROOT
    ) as popen:
        assert popen.stdout is not None
        assert popen.stdin is not None
        assert popen.stdout.readline() == "made\n", "the producer has failed"
        used_s, at_s = cpu_s(running.pid), time.monotonic()
        popen.stdin.write("go\n")
        popen.stdin.flush()
        spans, began_ms, ended_ms = map(int, popen.stdout.readline().split())
        cores = (cpu_s(running.pid) - used_s) / (time.monotonic() - at_s)
    _settle(running, spans)
    return _Paced(spans, began_ms, ended_ms, cores)


def _settle(running: Running, spans: int) -> None:
    """Wait until every span is taken in and its trace has had its time."""
    ends = time.monotonic() + 120
    while running.look().taken < spans:
        assert time.monotonic() < ends, f"behind: {running.look()} of {spans} spans"
        time.sleep(0.5)
    time.sleep(WAIT_S + 3)


def _ours_ms(task: Task, ledger: str, paced: _Paced) -> Iterator[float]:
    for message in everything(task.brokers, ledger):
        partition, offset, value = message.partition(), message.offset(), message.value()
        assert value is not None
        _, entry = decode(value, partition=partition or 0, position=offset or 0)
        if isinstance(entry, Decide):
            for decision in decode_decisions(entry.entries):
                due_ms = decision.stream_ns / 1e6
                if paced.counts(due_ms):
                    yield message.timestamp()[1] - due_ms


def _theirs_ms(task: Task, paced: _Paced) -> Iterator[float]:
    exported = {message.key(): message.timestamp()[1] for message in everything(task.brokers, task.kept_topic)}
    arrived: dict[str | bytes | None, int] = {}
    for message in everything(task.brokers, task.topic):
        key = message.key()
        if key in exported:
            arrived[key] = min(message.timestamp()[1], arrived.get(key, 1 << 62))
    for key, at_ms in exported.items():
        due_ms = arrived[key] + WAIT_S * 1000
        if paced.counts(due_ms):
            yield at_ms - due_ms


def everything(brokers: str, topic: str) -> Iterator[Message]:
    """Every record of the topic there is now."""
    settings: dict[str, str | int | bool] = {"bootstrap.servers": brokers, "group.id": "unused", "log_level": 2}
    ends = ends_of(admin_of(brokers), topic)
    consumer = Consumer(settings | {"enable.auto.commit": False, "enable.partition.eof": False})
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    unread = {number for number, end in ends.items() if end}
    while unread:
        messages = consumer.consume(_READ, timeout=_SILENT_S)
        assert messages, f"{topic}: nothing in {_SILENT_S} s"
        for message in messages:
            partition, offset = message.partition(), message.offset()
            assert message.error() is None, message.error()
            assert partition is not None
            assert offset is not None
            if offset + 1 >= ends[partition]:
                unread.discard(partition)
            yield message
    consumer.close()
