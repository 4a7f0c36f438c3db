"""A run of the real actors in a world that goes wrong by seed: processes that die, freeze, overlap and come back.

A process is what `app.py` composes: a supervisor, its partition actors, a board; its memory dies with it. The log, the
ledger, the store and the topics outlive it. All is on trio's mock clock, and trio's scheduler draws from the seed too.
"""

import random
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial

import trio
import trio.testing

from spanloom.actors.context import Board, Orders, PartitionSettings, World
from spanloom.actors.intake import Intake
from spanloom.actors.partition import run_partition
from spanloom.actors.policy_watch import Author, settle_policies, watch_policies, write_version
from spanloom.actors.supervisor import ChildSpec, Restart, supervise
from spanloom.adapters.memory import (
    MemoryCache,
    MemoryLedger,
    MemoryLog,
    MemoryOutlet,
    MemoryPolicyLog,
    MemoryStore,
)
from spanloom.core import kernel
from spanloom.core.assembly import Harvest, Limits
from spanloom.core.partitioning import partition_of
from spanloom.core.restart import RestartBudget
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import RestartIntensityExceeded, Unavailable
from spanloom.model import MOVED_HEADER, Document, Message, Record
from tests.simulation.traffic import Traffic
from tests.simulation.wire import Crash, Flight, Link, LinkedLedger, LinkedLog, LinkedOutlet, LinkedStore, Weather
from tests.spans import T0_MS, S, Sp, traces_data

LIMITS = Limits(quiet_ns=2 * S, idle_ns=4 * S, age_max_ns=12 * S, remember_ns=25 * S, skew_max_ns=30 * S, spans_max=6)
DEADLY = b"deadly"  # the key of a record that kills who feeds it
SKEWED_MS = 1_000_000  # a clock that is wrong by more than skew_max


def percentage(name: str, percent: float) -> dict[str, object]:
    return {
        "name": name,
        "type": "consistent_probability",
        "consistent_probability": {"sampling_percentage": percent},
    }


ERRORS: dict[str, object] = {"name": "errors", "type": "error"}
SLOW: dict[str, object] = {
    "name": "slow",
    "type": "latency_percentile",
    "latency_percentile": {"percentile": 60, "min_count": 2, "window_s": 40},
}
BANKS: dict[str, object] = {"name": "banks", "type": "service_pattern", "service_pattern": {"services": ["ba*"]}}
RATE: dict[str, object] = {
    "name": "rate",
    "type": "and",
    "and": {
        "and_sub_policy": [
            {"type": "string_attribute", "string_attribute": {"key": "service.name", "values": ["shop"]}},
            {"type": "bytes_limiting", "bytes_limiting": {"bytes_per_second": 20, "burst_capacity": 1200}},
        ]
    },
}
FOLDING = (ERRORS, SLOW, RATE, percentage("base", 30))
SWITCHED = ((ERRORS, percentage("half", 50)), (percentage("tenth", 10), BANKS), (ERRORS, percentage("none", 0)))


@dataclass(slots=True)
class Plan:
    """What kind of run a seed is."""

    partitions: int
    trouble: float
    grouped: bool  # a process that lost its partition may not commit
    switching: bool  # policies change, and processes come with other ones in their configuration
    bending: bool  # load changes the rate
    pressure: bool  # memory forces verdicts
    retention: bool  # the log is cut off below what is read
    refusing: bool  # the store never takes some documents
    deadly: bool  # some records kill the process that reads them

    @classmethod
    def draw(cls, rng: random.Random) -> "Plan":
        kind = rng.choice(["", "", "", "", "switching", "bending", "pressure", "retention", "refusing", "deadly"])
        return cls(
            partitions=rng.choice([1, 1, 2, 3]),
            trouble=rng.choice([0.0, 0.005, 0.02, 0.05]),
            grouped=rng.random() < 0.5,
            switching=kind == "switching",
            bending=kind in ("bending", "switching"),
            pressure=kind == "pressure",
            retention=kind == "retention",
            refusing=kind == "refusing",
            deadly=kind == "deadly",
        )


class Process:
    """One life of a node."""

    def __init__(self, scene: "Scene", number: int) -> None:
        self.scene = scene
        self.name = number.to_bytes(8, "big")
        self.board = Board(scene.plan.partitions)
        self.scope = trio.CancelScope()
        self.is_over = False
        self.flights: list[Flight] = []
        self.refused: set[int] = set()
        self.orders = Orders(parse_policies(scene.policies, version=1))
        self.settings = replace(scene.settings, orders=self.orders)
        self.author = Author(f"process {number}", lambda: T0_MS / 1000, lambda: scene.rng.randbytes(16))
        self._thawed = trio.Event()
        self._thawed.set()
        link = Link(self, scene.weather, scene.sky)
        log = LinkedLog(link, scene.log)
        draw = scene.rng.random
        self.world = World(
            log=log,
            source=log,
            ledger=LinkedLedger(link, scene.ledger),
            store=LinkedStore(link, scene.store, scene.refuses, scene.written),
            outlet=LinkedOutlet(link, scene.outlet),
            cache=MemoryCache(),
            uuid=lambda: self.name + scene.rng.randbytes(8),
            random=draw,
            unix_s=lambda: T0_MS / 1000,
            failpoint=self._at,
        )

    def _at(self, name: str) -> None:
        self.scene.weather.fired[f"at {name}"] += 1
        if not self.scene.is_calm and self.scene.rng.random() < self.scene.plan.trouble / 2:
            self.scene.weather.fired[f"died at {name}"] += 1
            self.die()

    async def run(self) -> None:
        """Live until killed, drained, or the restarts are spent."""
        draw, versions = self.scene.rng.random, self.scene.versions
        children = [
            ChildSpec("policies", partial(watch_policies, versions, self.orders, self.author, draw=draw)),
            *(
                ChildSpec(f"partition-{number}", partial(self._own, number), Restart.TRANSIENT)
                for number in range(self.scene.plan.partitions)
            ),
        ]
        try:
            with self.scope:
                await settle_policies(versions, self.orders, self.author)
                await supervise(children, RestartBudget(10, 60), draw=draw)
        except* RestartIntensityExceeded:
            self.scene.weather.fired["restarts spent"] += 1
        except* Crash:
            self.scene.weather.fired["crashed while it was killed"] += 1
        finally:
            self.is_over = True

    async def _own(self, number: int, *, task_status: trio.TaskStatus[None]) -> None:
        at_work.set(self)
        try:
            await run_partition(number, self.world, self.settings, self.board, task_status=task_status)
        except* Crash:
            self.scene.weather.fired["actor crashed"] += 1
            raise
        except* Exception as group:
            self.scene.bugs.append("".join(traceback.format_exception(group)))
            raise

    async def passing(self) -> None:
        while not self._thawed.is_set():
            await self._thawed.wait()
        if self.is_over:
            await trio.sleep_forever()

    def may_commit(self) -> bool:
        return not self.scene.plan.grouped or self.scene.assigned is self

    def freeze(self) -> None:
        self._thawed = trio.Event()

    def thaw(self) -> None:
        self._thawed.set()

    def die(self) -> None:
        """As kill -9: nothing is said any more; what was on its way lands, now or later, or does not."""
        self.scope.cancel()
        self.is_over = True
        rng = self.scene.rng
        for flight in self.flights:
            if flight.landed.is_set():
                continue
            self.scene.weather.fired[f"killed during {flight.what}"] += 1
            flight.dropped = rng.random() < 0.5
            flight.delay_s = rng.choice((0.0, 1.0, 8.0))
            self.scene.weather.fired["zombie's write"] += not flight.dropped and flight.delay_s > 0
        self.flights.clear()


at_work: ContextVar[Process] = ContextVar("at_work")


class MortalAssembler(kernel.Assembler):
    """An assembler that some records kill, as a fault in native code would: with all of its process."""

    def feed(self, records: Sequence[Record]) -> Harvest:
        if any(record.key == DEADLY for record in records):
            process = at_work.get()
            process.scene.weather.fired["killed by a record"] += not process.is_over
            process.die()
        return super().feed(records)


@contextmanager
def mortal_assemblers() -> Iterator[None]:
    before = kernel.Assembler
    kernel.Assembler = MortalAssembler  # type: ignore[misc]
    try:
        yield
    finally:
        kernel.Assembler = before  # type: ignore[misc]


@dataclass
class Collector:
    """The intake's process: it is not what is tested, so it does not die; its calls go wrong like any."""

    flights: list[Flight] = field(default_factory=list)
    refused: set[int] = field(default_factory=set)

    async def passing(self) -> None:
        pass

    def may_commit(self) -> bool:
        return False


class Scene:
    """Everything that outlives a process, and the script."""

    def __init__(self, seed: int, sky: trio.Nursery) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.sky = sky
        self.plan = Plan.draw(self.rng)
        self.weather = Weather(self.rng, self.plan.trouble)
        self.is_calm = False
        self.clock_ms = 0  # how wrong the log's clock is
        self.log = MemoryLog(
            self.plan.partitions, wall_ms=self._wall_ms, batch_bytes=self.rng.choice([1, 600, 1 << 20])
        )
        self.ledger = MemoryLedger(self.plan.partitions)
        self.store = MemoryStore()
        self.outlet = MemoryOutlet()
        self.history: list[list[Record]] = [[] for _ in range(self.plan.partitions)]
        self.written: list[Document] = []  # every write that landed
        self.bugs: list[str] = []
        self.acknowledged: list[Sp] = []
        self.replayed = 0
        self.policies: tuple[dict[str, object], ...] = FOLDING
        self.versions = MemoryPolicyLog()
        self.settings = PartitionSettings(
            limits=LIMITS,
            orders=Orders(parse_policies(FOLDING, version=1)),  # each process has its own
            commit_interval_s=self.rng.choice([1.0, 3.0]),
            checkpoint_interval_s=self.rng.choice([5.0, 20.0]),
            undecided_bytes_max=400 if self.plan.pressure else 1 << 20,
            unsettled_max=self.rng.choice([1, 64]),
            storing_bytes_max=self.rng.choice([1, 1 << 20]),
            bulk_bytes=self.rng.choice([1, 1000, 1 << 20]),
            store_queue_max=self.rng.choice([1, 4096]),
        )
        self.processes: list[Process] = []
        self.assigned: Process | None = None
        self.sending = 0
        self.intake = Intake(
            LinkedLog(Link(Collector(), self.weather, sky), self.log),
            waiting_bytes_max=1 << 20,
        )

    def _wall_ms(self) -> int:
        return T0_MS + int(trio.current_time() * 1000) + self.clock_ms

    def refuses(self, document: Document) -> bool:
        return self.plan.refusing and document.trace_id[0] in "048"

    # What happens.

    async def play(self) -> None:
        """The whole run: trouble, then calm until all that came in is resolved."""
        traffic = Traffic(self.rng)
        self.start()
        for _ in range(self.rng.randint(30, 70)):
            self.step(traffic)
            await trio.sleep(self.rng.choice([0.0, 0.1, 0.5, 1.0, 1.0, 2.0]))
            if not self.living() or (self.assigned and self.assigned.is_over and self.rng.random() < 0.3):
                self.start()
        await self.finish()

    def living(self) -> list[Process]:
        return [process for process in self.processes if not process.is_over]

    def start(self) -> None:
        """A new process; the group gives it the partitions."""
        if self.plan.switching:
            self.policies = self.rng.choice(SWITCHED)
        process = Process(self, len(self.processes))
        self.processes.append(process)
        self.assigned = process
        self.sky.start_soon(process.run)

    def step(self, traffic: Traffic) -> None:
        """One thing happens."""
        rng, fired = self.rng, self.weather.fired
        dice = rng.random()
        living = self.living()
        if dice < 0.55:
            self.send(traffic)
        elif dice < 0.62 and living:
            fired["killed"] += 1
            rng.choice(living).die()
        elif dice < 0.67 and living:
            fired["frozen"] += 1
            self.sky.start_soon(self._freeze, rng.choice(living), rng.choice([0.5, 3.0, 20.0]))
        elif dice < 0.71 and len(living) < 2:
            fired["two owners at once"] += len(living)
            self.start()
        elif dice < 0.75 and living:
            fired["drained"] += 1
            rng.choice(living).board.drain(range(self.plan.partitions))
        elif dice < 0.80:
            role = rng.choice(["store", "outlet", "ledger", "log", "source"])
            self.weather.away[role] = trio.current_time() + rng.choice([2.0, 5.0, 40.0 if role == "store" else 8.0])
        elif dice < 0.82:
            fired["clock jumped"] += 1
            self.clock_ms += rng.choice([-5000, -1500, 3000, 20_000])
        elif dice < 0.84 and self.clock_ms < SKEWED_MS:
            fired["clock wrong once"] += 1
            self.clock_ms += SKEWED_MS
            self.send(traffic)
        elif dice < 0.86 and self.plan.retention:
            self.sky.start_soon(self._trim, rng.choice([0, 3000]))
        elif 0.88 <= dice < 0.94 and self.plan.switching:
            self.sky.start_soon(self._apply, rng.choice(SWITCHED))
        elif dice >= 0.94 and self.plan.bending and living:
            fired["load changed"] += 1
            rng.choice(living).orders.rate = rng.choice((1.0, 0.5, 0.25, 0.125))
        if self.clock_ms >= SKEWED_MS and dice >= 0.84:
            self.clock_ms -= SKEWED_MS

    async def _apply(self, policies: tuple[dict[str, object], ...]) -> None:
        """As the operator's command does."""
        self.weather.fired["policies applied"] += 1
        author = Author("operator", lambda: T0_MS / 1000, lambda: self.rng.randbytes(16))
        await write_version(self.versions, parse_policies(policies, version=1).body, "", author=author)

    async def _freeze(self, process: Process, for_s: float) -> None:
        process.freeze()
        await trio.sleep(for_s)
        process.thaw()

    async def _trim(self, keep_ms: int) -> None:
        self.remember_history()
        deleted = await self.log.trim(older_than_ms=self._wall_ms() - keep_ms, below={})
        self.weather.fired["records deleted"] += deleted

    def remember_history(self) -> None:
        """Keep what the log holds, whatever retention does to it."""
        for number, held in enumerate(self.log._partitions):
            known = self.history[number][-1].offset if self.history[number] else -1
            self.history[number] += [record for record in held.records if record.offset > known]

    # Traffic.

    def send(self, traffic: Traffic) -> None:
        rng = self.rng
        spans = traffic.request()
        dice = rng.random()
        self.sending += 1
        if dice < 0.03:
            self.sky.start_soon(self._append, [(0, Message(b"key", b"\x0a\xff\xff\xff\xff\x0fpoison"))], "poison")
        elif dice < 0.06 and self.plan.deadly:
            self.sky.start_soon(self._append, [(0, Message(DEADLY, traces_data(spans)))], "deadly record")
        elif dice < 0.10:
            where = rng.randrange(self.plan.partitions)
            self.sky.start_soon(self._append, [(where, Message(None, traces_data(spans)))], "foreign key")
        elif dice < 0.12:
            where = rng.randrange(self.plan.partitions)
            home = {partition_of(span.trace_id.hex().encode(), self.plan.partitions) for span in spans}
            wrong = "moved twice" if home != {where} else "moved once"
            message = Message(None, traces_data(spans), ((MOVED_HEADER, b"1"),))
            self.sky.start_soon(self._append, [(where, message)], wrong)
        else:
            self.sky.start_soon(self._post, spans, rng.choice([0, 0, 0, 2.0, 6.0]))

    async def _append(self, batch: Sequence[tuple[int, Message]], what: str) -> None:
        self.weather.fired[what] += 1
        await self.log.append(batch)
        self.sending -= 1

    async def _post(self, spans: list[Sp], delay_s: float) -> None:
        """Through the intake, tried again until it is acknowledged, as OTLP senders do."""
        self.weather.fired["request delayed"] += delay_s > 0
        await trio.sleep(delay_s)
        body = traces_data(spans)
        while True:
            try:
                await self.intake.accept(body, size_bytes=len(body))
            except (Unavailable, Crash):
                self.weather.fired["request repeated"] += 1
                await trio.sleep(0.5)
            else:
                break
        self.acknowledged += spans
        self.sending -= 1

    # The end.

    async def finish(self) -> None:
        """No more trouble; a clean process brings everything to its end."""
        self.is_calm = True
        self.weather.trouble = 0.0
        self.weather.away.clear()
        for process in self.living():
            process.die()
        while self.sending:  # noqa: ASYNC110 - on a mock clock nothing is polled
            await trio.sleep(0.5)
        self.start()
        final = self.processes[-1]
        with trio.move_on_after(3600) as patience:
            while not self._is_done(final):
                await trio.sleep(1)
                if final.is_over:
                    self.start()
                    final = self.processes[-1]
        if patience.cancelled_caught:
            self.bugs.append(f"STUCK {final.board.statistics()}")
        await trio.sleep(10)  # zombies' writes
        self.replayed = max(s.assembler.replayed for s in final.board.statistics())
        final.scope.cancel()
        self.remember_history()

    def _is_done(self, final: Process) -> bool:
        statistics = final.board.statistics()
        return len(statistics) == self.plan.partitions and all(
            s.committed == self.log._partitions[s.partition].end and not s.assembler.tally.pending for s in statistics
        )


@contextmanager
def seeded_scheduler(seed: int) -> Iterator[None]:
    """Let trio's scheduler draw from *seed*, as trio's own tests do."""
    run = trio._core._run
    before = run._ALLOW_DETERMINISTIC_SCHEDULING
    run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    run._r.seed(seed)
    try:
        yield
    finally:
        run._ALLOW_DETERMINISTIC_SCHEDULING = before  # type: ignore[misc]


def play(seed: int) -> Scene:
    """Run a seed."""

    async def main() -> Scene:
        async with trio.open_nursery() as sky:
            scene = Scene(seed, sky)
            await scene.play()
            sky.cancel_scope.cancel()
        return scene

    with seeded_scheduler(seed), mortal_assemblers():
        return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
