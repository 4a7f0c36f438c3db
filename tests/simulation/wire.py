"""What lies between a process and the world: calls that are slow, refused, half done, unanswered or late.

An effect flies apart from who asked for it: a caller that is killed, or that was told nothing, may still have written.
Every draw comes from the scene's seed.
"""

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import trio

from spanloom.adapters.memory import MemoryLedger, MemoryLog, MemoryOutlet, MemoryStore
from spanloom.adapters.tails import TailReader
from spanloom.errors import (
    Fenced,
    LedgerUnavailable,
    OutletUnavailable,
    SourceUnavailable,
    SpanloomError,
    StoreRejected,
    StoreUnavailable,
    Unavailable,
)
from spanloom.model import Committed, Document, LedgerRecord, Message, Record

Item = TypeVar("Item")
Answer = TypeVar("Answer")
FENCE = 1  # a ledger record's kind, its second byte
LATE_S = (0.0, 0.2, 1.0, 5.0)  # how late an effect may come


class Crash(Exception):
    """An actor's crash, made on purpose."""


class Owner(Protocol):
    """Whose calls a link carries."""

    flights: list["Flight"]
    refused: set[int]  # the partitions that it may not commit to any more, and knows it

    async def passing(self) -> None:
        """Wait while the process is frozen."""

    def may_commit(self) -> bool:
        """Whether the group still has the process as the owner."""


@dataclass(slots=True)
class Weather:
    """How likely trouble is, and who is away; `fired` counts every fault that really happened."""

    rng: random.Random
    trouble: float = 0.0  # a call's chance of it
    away: dict[str, float] = field(default_factory=dict)  # role -> until when, trio's clock
    fired: Counter[str] = field(default_factory=Counter)

    def fate(self, role: str, fates: Sequence[str]) -> str:
        """What happens to a call of *role*: one of *fates*, or the empty string."""
        if trio.current_time() < self.away.get(role, 0.0):
            self.fired[f"{role} away"] += 1
            return "refused"
        if self.rng.random() >= self.trouble:
            return ""
        fate = self.rng.choice(fates)
        self.fired[f"{role} {fate}"] += 1
        return fate


@dataclass(slots=True, eq=False)
class Flight:
    """A write on its way."""

    what: str
    landed: trio.Event = field(default_factory=trio.Event)
    delay_s: float = 0.0
    dropped: bool = False
    error: SpanloomError | None = None
    value: object = None


READS = ("refused", "slow", "crash")
WRITES = ("refused", "slow", "crash", "unanswered", "unanswered", "part", "crash after")
AWAY: dict[str, type[Unavailable]] = {
    "log": SourceUnavailable,
    "source": SourceUnavailable,
    "ledger": LedgerUnavailable,
    "store": StoreUnavailable,
    "outlet": OutletUnavailable,
}


class Link:
    """One process's connection to everything."""

    def __init__(self, owner: Owner, weather: Weather, sky: trio.Nursery) -> None:
        self.owner = owner
        self.weather = weather
        self.sky = sky  # where flights are: it outlives every process

    async def ask(self, role: str, question: Callable[[], Awaitable[Answer]]) -> Answer:
        """A call that changes nothing."""
        await self.owner.passing()
        match self.weather.fate(role, READS):
            case "refused":
                raise AWAY[role]("refused")
            case "crash":
                raise Crash(f"{role} read")
            case "slow":
                await trio.sleep(self.weather.rng.choice((0.3, 1.5, 3.0)))
        return await question()  # last: a cancelled receive loses nothing

    async def tell(
        self, role: str, what: str, effect: Callable[[], Awaitable[object]], part: Callable[[], Awaitable[object]]
    ) -> object:
        """A call that changes something; *part* is the same half done."""
        await self.owner.passing()
        rng = self.weather.rng
        fate = self.weather.fate(role, WRITES)
        if fate == "refused":
            raise AWAY[role]("refused")
        if fate == "crash":
            raise Crash(f"{role} {what}")
        flight = Flight(what, delay_s=rng.choice(LATE_S) if fate in ("slow", "unanswered") else 0.0)
        self.owner.flights.append(flight)
        self.sky.start_soon(self._fly, flight, part if fate == "part" else effect)
        if fate == "unanswered":
            await trio.sleep(rng.choice(LATE_S))
            raise AWAY[role]("no answer")
        await flight.landed.wait()
        await self.owner.passing()
        if flight.error:
            raise flight.error
        if fate == "part":
            raise AWAY[role]("half done")
        if fate == "crash after":
            raise Crash(f"{role} {what}")
        return flight.value

    async def _fly(self, flight: Flight, effect: Callable[[], Awaitable[object]]) -> None:
        await trio.lowlevel.checkpoint()
        while flight.delay_s:
            delay_s, flight.delay_s = flight.delay_s, 0.0
            await trio.sleep(delay_s)
        if not flight.dropped:
            try:
                flight.value = await effect()
            except SpanloomError as error:
                flight.error = error
            if flight in self.owner.flights:
                self.owner.flights.remove(flight)
            flight.landed.set()


@dataclass(slots=True)
class LinkedReader(Generic[Item]):
    """A reader over a link: of records or of ledger records."""

    link: Link
    role: str
    reader: TailReader[Item]

    async def receive(self) -> Sequence[Item]:
        return await self.link.ask(self.role, self.reader.receive)

    async def aclose(self) -> None:
        await self.reader.aclose()


async def _nothing() -> None:
    await trio.lowlevel.checkpoint()


class LinkedLog:
    """SpanLog and SpanSource."""

    def __init__(self, link: Link, log: MemoryLog) -> None:
        self.link, self.log = link, log
        self.partition_count, self.incarnation = log.partition_count, log.incarnation

    async def append(self, batch: Sequence[tuple[int, Message]]) -> None:
        await self.link.tell(
            "log", "append", lambda: self.log.append(batch), lambda: self.log.append(batch[: len(batch) // 2])
        )

    async def committed(self, partition: int) -> Committed:
        return await self.link.ask("source", lambda: self.log.committed(partition))

    async def commit(self, partition: int, committed: Committed) -> None:
        async def effect() -> None:
            if not self.link.owner.may_commit():
                self.link.weather.fired["commit of one fenced off refused"] += 1
                raise Fenced("not a member of the group")
            await self.log.commit(partition, committed)

        try:
            await self.link.tell("source", "commit", effect, _nothing)
        except Fenced:
            self.link.owner.refused.add(partition)
            raise

    async def read(self, partition: int, offset: int) -> LinkedReader[Record]:
        return LinkedReader(self.link, "source", await self.log.read(partition, offset))

    async def end_offset(self, partition: int) -> int:
        return await self.log.end_offset(partition)

    async def reserve(self, partition: int, next_offset: int) -> None:
        raise AssertionError(f"this log never loses its end: {partition} to {next_offset}")


class LinkedLedger:
    """Ledger."""

    def __init__(self, link: Link, ledger: MemoryLedger) -> None:
        self.link, self.ledger = link, ledger

    async def append(self, partition: int, bodies: Sequence[bytes]) -> None:
        prefix = bodies[: len(bodies) // 2]
        if bodies[0][1] == FENCE:
            assert partition not in self.link.owner.refused, "fenced again before a commit of its own succeeded"
        await self.link.tell(
            "ledger",
            f"append {bodies[0][1]}",
            lambda: self.ledger.append(partition, bodies),
            lambda: self.ledger.append(partition, prefix),
        )

    async def read(self, partition: int, position: int) -> LinkedReader[LedgerRecord]:
        return LinkedReader(self.link, "ledger", await self.ledger.read(partition, position))

    async def end(self, partition: int) -> int:
        return await self.link.ask("ledger", lambda: self.ledger.end(partition))


class LinkedStore:
    """TraceStore; `refuses` says which documents it will never take, `seen` hears of every write that landed."""

    def __init__(self, link: Link, store: MemoryStore, refuses: Callable[[Document], bool], seen: list[Document]):
        self.link, self.store, self.refuses, self.seen = link, store, refuses, seen

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        async def effect(some: Sequence[Document]) -> Sequence[StoreRejected]:
            good = [one for one in some if not self.refuses(one)]
            await self.store.write(good)
            self.seen += good
            return [StoreRejected(one.id, "400") for one in some if one not in good]

        some = [one for one in documents if self.link.weather.rng.random() < 0.5]
        answer = await self.link.tell("store", "write", lambda: effect(documents), lambda: effect(some))
        assert isinstance(answer, list)
        self.link.weather.fired["document refused"] += len(answer)
        return answer

    async def read(self, trace_id: str) -> Sequence[Document]:
        return await self.store.read(trace_id)

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        return await self.store.search(service=service, limit=limit)

    async def services(self) -> Sequence[str]:
        return await self.store.services()


class LinkedOutlet:
    """Outlet."""

    def __init__(self, link: Link, outlet: MemoryOutlet) -> None:
        self.link, self.outlet = link, outlet

    async def publish(self, topic: str, messages: Sequence[Message]) -> None:
        half = messages[: len(messages) // 2]
        await self.link.tell(
            "outlet",
            topic,
            lambda: self.outlet.publish(topic, messages),
            lambda: self.outlet.publish(topic, half),
        )
