"""Kills a real node again and again on one data folder, under load, and says what each kill hit.

A life: the node starts, requests go out, and it dies: by its armed failpoint, or by `kill -9` at a random instant.
Senders go on trying across all of it. While the node is dead the wreck is looked at, and somebody else appends to the
log: bytes that are no spans, spans in the wrong partition. At the end a node that nothing happens to finishes.
"""

import os
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Self

import trio

from spanloom.adapters.sqlite import DataFolder, SqliteLedger, SqliteLog
from spanloom.core.failpoints import Failpoint
from spanloom.load.client import LoadClient
from spanloom.load.record import LoadRecorder
from spanloom.load.workload import Request, Workload, requests
from spanloom.model import Message
from tests.killing.wreck import Wreck, inspect, is_settled
from tests.oracle import Limits
from tests.spans import Sp, traces_data

PARTITIONS = 2
POLICIES: list[dict[str, object]] = [
    {"name": "errors", "type": "error"},
    {
        "name": "p95",
        "type": "latency_percentile",
        "latency_percentile": {"percentile": 95, "min_count": 100, "window_s": 600},
    },
    {
        "name": "failed",
        "type": "numeric_attribute",
        "numeric_attribute": {"key": "http.response.status_code", "min_value": 500},
    },
    {"name": "budget", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 30}},
    {
        "name": "third",
        "type": "consistent_probability",
        "consistent_probability": {"sampling_percentage": 30},
    },
]
CONFIG = """
sampling:
  policies:
    - {name: errors, type: error}
    - {name: p95, type: latency_percentile, latency_percentile: {percentile: 95, min_count: 100, window_s: 600}}
    - {name: failed, type: numeric_attribute, numeric_attribute: {key: http.response.status_code, min_value: 500}}
    - {name: budget, type: rate_limiting, rate_limiting: {spans_per_second: 30}}
    - {name: third, type: consistent_probability, consistent_probability: {sampling_percentage: 30}}
"""
SETTINGS = {
    "data.partitions": str(PARTITIONS),
    "assembly.quiet_s": "0.5s",
    "assembly.idle_s": "1s",
    "assembly.age_max_s": "10s",
    "commit_interval_s": "0.2s",
    "log.level": "error",
    "http.query_port": "0",
    "http.zipkin_port": "0",
    "grpc.port": "0",
}
NS = 1_000_000_000
LIMITS = Limits(quiet_ns=NS // 2, idle_ns=NS, age_max_ns=10 * NS)
START_S = 30.0  # a loaded machine's worst
REACH_S = 10.0  # within which an armed failpoint is reached, or counts as not reached
REQUESTS_A_LIFE = 40
TRIES_MAX = 5  # of a kill that left nothing to recover, or of a failpoint that was not reached
CALM = ""

# The row of the crash table (design, section 6) that each failpoint lies in.
ROWS = {
    Failpoint.BEFORE_FENCE: "between assignment and FENCE",
    Failpoint.FENCE_APPENDED: "FENCE appended, not read back",
    Failpoint.BEFORE_DECIDE: "before DECIDE is appended",
    Failpoint.DECIDE_APPENDED: "DECIDE appended, acknowledgement unknown",
    Failpoint.BEFORE_STORE: "acknowledged, before the store",
    Failpoint.STORE_HALF_DONE: "bulk partial",
    Failpoint.STORE_UNANSWERED: "bulk sent, answer lost",
    Failpoint.BEFORE_COMMIT: "stored, before commit",
    Failpoint.COMMITTED: "committed, not known",
    Failpoint.BEFORE_SKIP: "poison dead-lettered, before SKIP",
    Failpoint.MOVE_APPENDED: "moved, before it is resolved",
    Failpoint.TICK_APPENDED: "TICK appended, not applied",
    Failpoint.INTAKE_APPENDED: "in the log, sender not answered",
}


@dataclass(slots=True)
class Toll:
    """What the kills were."""

    rows: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    clean: int = 0  # kills that left nothing to recover: not counted among the rows
    missed: Counter[str] = field(default_factory=Counter)  # failpoints that were not reached in their life
    wrecks: list[Wreck] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The histogram, for people."""
        widest = max(map(len, self.rows), default=0)
        lines = [f"{row:<{widest}}  {count:>4}  {'#' * count}" for row, count in sorted(self.rows.items())]
        return [
            *lines,
            f"{self.kills} kills; {self.clean} more left nothing to recover; not reached: {dict(self.missed)}",
            f"at the median kill: {_median([w.unresolved for w in self.wrecks])} records above the committed offset",
            f"kills with kept decisions not stored: {sum(w.unstored > 0 for w in self.wrecks)}",
            f"kills with documents stored and not committed: {sum(w.uncommitted > 0 for w in self.wrecks)}",
        ]


def _median(values: list[int]) -> int:
    return sorted(values)[len(values) // 2] if values else 0


def free_port() -> int:
    """A port nobody listens at, for a node that must come back where it was."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


PASSES: dict[str, int] = {  # in one life, where they are few
    Failpoint.BEFORE_FENCE: PARTITIONS,
    Failpoint.FENCE_APPENDED: PARTITIONS,
    Failpoint.BEFORE_SKIP: PARTITIONS,
    Failpoint.MOVE_APPENDED: PARTITIONS,
    Failpoint.TICK_APPENDED: 1,
}


class Killing:
    """One data folder and its many lives; a context manager."""

    def __init__(self, folder: Path, *, seed: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.data, self.record, self.config = folder / "data", folder / "sent", folder / "spanloom.yaml"
        self.config.write_text(CONFIG)
        self.log = folder / "node.log"
        self.rng = random.Random(seed)
        self.port = free_port()
        self.toll = Toll()
        self.nodes: list[trio.Process] = []
        self.client = LoadClient(f"http://127.0.0.1:{self.port}/v1/traces", connections=4, seed=seed)
        workload = Workload(
            seed=seed, spans=2_000_000, spans_per_s=2_000, batch_delay_s=0.5, batch_spans_max=40, late_delay_s=5
        )
        self.traffic = requests(workload, epoch_unix_ns=time.time_ns())
        self.foreign = 1_000_000  # numbers of traces that come by another way

    async def run(self, failpoints: list[str]) -> None:
        """A life for each of *failpoints* (empty: kill -9 at a random instant), then one that ends well."""
        with LoadRecorder(self.record) as recorder:
            async with trio.open_nursery() as nursery:
                while not await self.life(CALM, recorder, nursery):
                    pass  # so that whatever comes next has something to recover
                self.toll = Toll()
                for failpoint in failpoints:
                    for _ in range(TRIES_MAX):
                        self.append_foreign()
                        if await self.life(failpoint, recorder, nursery):
                            break
                node = await self.start(CALM)
                await self.ready(node)
                nursery.start_soon(self.send, recorder)
        await self.end_well(node)

    async def end_well(self, node: trio.Process) -> None:
        """See all that is in the log committed, then stop the node as an operator does."""
        with trio.fail_after(120):
            while not is_settled(self.data):  # noqa: ASYNC110 - another process's files
                await trio.sleep(0.5)
        node.send_signal(signal.SIGTERM)
        assert await node.wait() == 0

    async def life(self, failpoint: str, recorder: LoadRecorder, nursery: trio.Nursery) -> bool:
        """From start to death. Whether that left something to recover, where it was meant to."""
        armed = f"{failpoint}:{self.rng.randint(1, PASSES.get(failpoint, 4))}" if failpoint else CALM
        node = await self.start(armed)
        if await self.ready(node):
            nursery.start_soon(self.send, recorder)
            if failpoint:
                with trio.move_on_after(REACH_S):
                    await node.wait()
            else:
                await trio.sleep(self.rng.uniform(0.05, 2.5))
        missed = bool(failpoint) and node.poll() is None
        if node.poll() is None:
            node.kill()
        status = await node.wait()
        assert status == -signal.SIGKILL, f"the node ended with {status}, not by our kill"
        if missed:
            self.toll.missed[failpoint] += 1
            return False
        return self.note(failpoint)

    def note(self, failpoint: str) -> bool:
        """Look at what the kill left behind; whether that was anything."""
        wreck = inspect(self.data)
        if wreck.is_clean:
            self.toll.clean += 1
            return False
        self.toll.kills += 1
        self.toll.wrecks.append(wreck)
        self.toll.rows[ROWS[Failpoint(failpoint)] if failpoint else f"{wreck.row} (random instant)"] += 1
        return True

    async def start(self, armed: str) -> trio.Process:
        """A node, armed with a failpoint or not."""
        environment = os.environ | {"SPANLOOM_FAILPOINT": armed}
        with self.log.open("ab") as log:
            node = await trio.lowlevel.open_process(self.command(), env=environment, stdout=log, stderr=log)
        self.nodes.append(node)
        return node

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no process behind, however it ended."""
        for node in self.nodes:
            if node.poll() is None:
                node.kill()
                node._proc.wait()

    def command(self) -> list[str]:
        """The line that starts it."""
        settings = [f"--set={key}={value}" for key, value in self.settings().items()]
        program = [sys.executable, "-m", "spanloom", "run"]
        return [*program, f"--config={self.config}", f"--data={self.data}", f"--port={self.port}", *settings]

    def settings(self) -> Mapping[str, str]:
        """What the node is told beside folder and port."""
        return SETTINGS

    async def ready(self, node: trio.Process) -> bool:
        """Wait until the node takes spans; False: it has died before."""
        with trio.fail_after(START_S):
            while node.poll() is None:
                try:
                    stream = await trio.open_tcp_stream("127.0.0.1", self.port)
                except OSError:
                    await trio.sleep(0.05)
                else:
                    await stream.aclose()
                    return True
        return False

    async def send(self, recorder: LoadRecorder) -> None:
        """The next requests, tried until they are acknowledged, through however many lives that takes."""

        def report(request: Request, fate: object) -> None:
            recorder.append(request.number, fate, request.sent)  # type: ignore[arg-type]

        await self.client.send(islice(self.traffic, REQUESTS_A_LIFE), report, spans_per_s=2_000)

    def append_foreign(self) -> None:
        """Somebody else writes to the log: poison, and spans that belong to other partitions."""
        folder = DataFolder.open(self.data, partition_count=PARTITIONS)
        try:
            log = SqliteLog(folder, SqliteLedger(folder))
            self.foreign += 10
            spans = [Sp(self.foreign + n, 1, error=True) for n in range(6)]
            batch = [(p, Message(b"poison", b"\x0a\xff\xff\xff\xff\x0fpoison")) for p in range(PARTITIONS)]
            batch += [(p, Message(None, traces_data(spans[3 * p : 3 * p + 3]))) for p in range(PARTITIONS)]
            log._file.append([[(partition, pack(message)) for partition, message in batch]], {})
        finally:
            folder.close()


def pack(message: Message) -> bytes:
    """As the log packs it."""
    from spanloom.adapters.sqlite.chunks import pack_message

    return pack_message(message)
