"""What goes wrong in a chaos run, and how often; every choice is drawn from a seed, every event written down."""

import json
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import trio

from tests.cluster.chaos.fleet import Fleet, Life
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.http_proxy import Fault, HttpProxy, Reply, Request
from tests.servers.kafka import Kafka
from tests.servers.redis import RedisServer

KILL_EVERY_S = 5.0  # on average; a kill may wait for an owner as well
KILL_OWNER_SHARE = 0.7  # of the kills, one that owns partitions: the others prove less
OWNER_WITHIN_S = 15.0  # then any will do
FREEZE_S = (5.0, 60.0)
STORM_S = (5.0, 20.0)
AWAY_S = 60.0
BROKER_AWAY_S = (8.0, 20.0)
BROKER_FROZEN_S = (1.0, 8.0)  # where there is only one
GUEST_S = (10.0, 40.0)
ANSWER_LOST_SHARE = 0.01  # of bulks in fair weather: done, and the answer never arrives
_BUSY = Reply(429, b'{"error":{"type":"es_rejected_execution_exception","reason":"storm"},"status":429}')


class Journal:
    """Every event with its time, kept in memory and as lines of JSON."""

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._file = path.open("a", buffering=1)

    def note(self, event: str, **facts: object) -> None:
        """Write an event down."""
        self.counts[event] += 1
        self._file.write(json.dumps({"unix": round(time.time(), 3), "event": event, **facts}) + "\n")

    def close(self) -> None:
        """No more events."""
        self._file.close()


@dataclass(frozen=True, slots=True)
class Servers:
    """What the aggregators stand on."""

    kafka: Kafka
    elasticsearch: ElasticsearchServer
    redis: RedisServer


@dataclass(slots=True)
class Sky:
    """Everything that weather can happen to."""

    fleet: Fleet
    servers: Servers
    proxy: HttpProxy
    journal: Journal
    seed: int
    scale: float  # of the long events' lengths: below 1 in short runs
    is_storming: bool = False

    async def blow(self) -> None:
        """Let it happen, until cancelled."""
        self.proxy.script = Script(self, Random(f"{self.seed}/proxy"))
        async with trio.open_nursery() as nursery:
            for name, (every_s, happen) in self._kinds().items():
                nursery.start_soon(self._repeat, Random(f"{self.seed}/{name}"), every_s, happen)

    def _kinds(self) -> dict[str, tuple[float, Callable[[Random], Awaitable[None]]]]:
        """What happens, and the mean time between the end of one and the next."""
        return {
            "kill": (KILL_EVERY_S, self.kill),
            "freeze": (20 + 20 * self.scale, self.freeze),
            "leave": (30 + 30 * self.scale, self.leave),
            "guest": (40 + 60 * self.scale, self.guest),
            "away": (30 + 210 * self.scale, self.away),
            "storm": (30 + 30 * self.scale, self.storm),
            "redis": (30 + 30 * self.scale, self.wipe),
            "broker": (30 + 70 * self.scale, self.break_broker),
        }

    async def _repeat(self, random: Random, every_s: float, happen: Callable[[Random], Awaitable[None]]) -> None:
        while True:
            await trio.sleep(random.uniform(0.5, 1.5) * every_s)
            await happen(random)

    def clear(self) -> None:
        """Fair weather: whatever is stopped goes on."""
        self.is_storming = False
        self.servers.elasticsearch.signal(signal.SIGCONT)
        for life in self.fleet.living:
            life.signal(signal.SIGCONT)
            life.is_frozen = False
        for node in self.servers.kafka.nodes:
            if node.process is None:
                node.start()
            else:
                node.send(signal.SIGCONT)

    # What happens. Whatever is begun is ended by `clear` if the run ends first.

    async def kill(self, random: Random) -> None:
        """kill -9 of a process, preferably of one that owns something."""
        if random.random() < KILL_OWNER_SHARE:
            with trio.move_on_after(OWNER_WITHIN_S):
                while not self.owners:  # noqa: ASYNC110 - other processes
                    await trio.sleep(0.1)
        able = self.owners or self.fleet.able
        if able:
            life = random.choice(able)
            self.journal.note("kill -9", life=life.number, owned=len(life.partitions))
            self.fleet.kill(life)

    @property
    def owners(self) -> list[Life]:
        """Those that own partitions, as far as they have said."""
        return [life for life in self.fleet.able if life.partitions]

    async def freeze(self, random: Random) -> None:
        """SIGSTOP, and after a while SIGCONT."""
        duration_s = random.uniform(FREEZE_S[0], max(FREEZE_S[0] + 5, FREEZE_S[1] * self.scale))
        if len(self.fleet.able) < 2:
            return
        life = random.choice(self.fleet.able)
        life.is_frozen = True
        self.journal.note("freeze", life=life.number, seconds=round(duration_s, 1), owned=len(life.partitions))
        life.signal(signal.SIGSTOP)
        await trio.sleep(duration_s)
        life.signal(signal.SIGCONT)
        life.is_frozen = False
        self.journal.note("thaw", life=life.number)

    async def leave(self, random: Random) -> None:
        """SIGTERM; another takes its place."""
        await trio.lowlevel.checkpoint()
        if self.fleet.able:
            life = random.choice(self.fleet.able)
            self.journal.note("leave", life=life.number, owned=len(life.partitions))
            self.fleet.leave(life)

    async def guest(self, random: Random) -> None:
        """One more joins for a while."""
        self.journal.note("join")
        self.fleet.wanted += 1
        await trio.sleep(random.uniform(*GUEST_S) * max(0.5, self.scale))
        self.fleet.wanted -= 1
        await self.leave(random)

    async def away(self, _: Random) -> None:
        """Elasticsearch stops answering."""
        duration_s = AWAY_S * self.scale
        self.journal.note("elasticsearch away", seconds=duration_s)
        self.servers.elasticsearch.signal(signal.SIGSTOP)
        await trio.sleep(duration_s)
        self.servers.elasticsearch.signal(signal.SIGCONT)
        self.journal.note("elasticsearch back")

    async def storm(self, random: Random) -> None:
        """Bulks are refused, whole or in part, or done without an answer."""
        duration_s = random.uniform(*STORM_S)
        self.journal.note("429 storm", seconds=round(duration_s, 1))
        self.is_storming = True
        await trio.sleep(duration_s)
        self.is_storming = False

    async def wipe(self, random: Random) -> None:
        """Redis is emptied, or dies and comes back empty."""
        if random.random() < 0.5:
            self.journal.note("redis wiped")
            await trio.to_thread.run_sync(self.servers.redis.say, "FLUSHALL")
        else:
            self.journal.note("redis killed")
            self.servers.redis.kill()
            await trio.sleep(random.uniform(1, 5))
            await trio.to_thread.run_sync(self.servers.redis.start)

    async def break_broker(self, random: Random) -> None:
        """One of three brokers dies and comes back; where there is only one, it is frozen."""
        node = random.choice(self.servers.kafka.nodes)
        if len(self.servers.kafka.nodes) == 1:
            duration_s = random.uniform(*BROKER_FROZEN_S)
            self.journal.note("broker frozen", seconds=round(duration_s, 1))
            node.send(signal.SIGSTOP)
            await trio.sleep(duration_s)
            node.send(signal.SIGCONT)
            return
        duration_s = random.uniform(*BROKER_AWAY_S)
        self.journal.note("broker killed", node=node.number, seconds=round(duration_s, 1))
        node.kill()
        await trio.sleep(duration_s)
        node.start()
        await trio.to_thread.run_sync(node.wait)
        self.journal.note("broker back", node=node.number)


class Script:
    """What the proxy before Elasticsearch does to each request."""

    def __init__(self, sky: Sky, random: Random) -> None:
        self._sky = sky
        self._random = random

    def __call__(self, request: Request) -> Fault:
        """See http_proxy.Script."""
        self._sky.proxy.requests.clear()  # half an hour of them
        if not request.is_bulk:
            return Fault()
        drawn, counts = self._random.random(), self._sky.journal.counts
        if not self._sky.is_storming:
            if drawn < ANSWER_LOST_SHARE:
                counts["bulks: answer lost"] += 1
                return Fault(cut=True)
            return Fault()
        if drawn < 0.4:
            counts["bulks: 429"] += 1
            return Fault(reply=_BUSY)
        if drawn < 0.7:
            counts["bulks: some items 429 or 503"] += 1
            places = [place for place in range(len(request.ids)) if self._random.random() < 0.5]
            kinds = [(429, "es_rejected_execution_exception"), (503, "unavailable_shards_exception")]
            return Fault(items={place: self._random.choice(kinds) for place in places})
        if drawn < 0.8:
            counts["bulks: answer lost"] += 1
            return Fault(cut=True)
        if drawn < 0.9:
            counts["bulks: request lost"] += 1
            return Fault(cut=True, unseen=True)
        return Fault()
