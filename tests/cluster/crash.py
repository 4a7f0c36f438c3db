"""What the tests of the crash table share: one group on topics of its own, small traffic, deaths, and the recount."""

import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import trio
from confluent_kafka import Producer

from spanloom.core.failpoints import Failpoint
from tests.cluster.books import Books, read_books
from tests.cluster.dump import StoredDocument, dump_topics, stored_documents
from tests.cluster.members import Cluster, Recount
from tests.integration.process import Process, eventually
from tests.oracle_files import decide_entries
from tests.servers.elasticsearch import ElasticsearchServer
from tests.spans import Sp, traces_data

SESSION = {"kafka__session_s": "2s"}  # the shortest that is not a trial of the machine's own patience
DECIDE, TICK, SKIP = 2, 3, 6
WITHIN_S = 60.0  # a loaded machine's worst


@dataclass(frozen=True, slots=True)
class Wreck:
    """What a death left behind."""

    entries: Counter[int]  # of the ledger, by kind
    kept: int  # decisions in it
    stored: int  # documents
    committed: int  # offsets, of all partitions together


@dataclass(slots=True)
class Scene:
    """A group whose members die and come back."""

    cluster: Cluster
    elasticsearch: ElasticsearchServer
    settings: dict[str, str] = field(default_factory=dict)  # of every member
    sent: int = 0  # spans
    _deaths: int = 0

    def topic(self, name: str) -> str:
        """What the topic is called here."""
        return f"{self.cluster.prefix}{name}"

    # Traffic.

    def send(self, first: int, count: int = 40, *, at_ms: int = 0) -> None:
        """Traces *first* and following: two spans each in a record each, every third an error, every fifth repeated."""
        traces = range(first, first + count)
        spans = [Sp(trace, 1, error=trace % 3 == 0, service="shop") for trace in traces]
        spans += [Sp(trace, 2, parent=1, service="pay") for trace in traces]
        spans += [Sp(trace, 2, parent=1, service="pay") for trace in traces if trace % 5 == 0]
        self.send_records([(span.trace_id.hex().encode(), traces_data([span])) for span in spans], at_ms=at_ms)
        self.sent += len(spans)

    def send_records(self, records: Sequence[tuple[bytes, bytes]], *, partition: int = -1, at_ms: int = 0) -> None:
        """Keys and values straight into `spans`, where the key says or where it is said; 0 ms is now."""
        settings = {"bootstrap.servers": self.cluster.brokers, "partitioner": "murmur2_random", "log_level": 0}
        producer = Producer(settings)
        failed: list[object] = []
        for key, value in records:
            producer.produce(
                self.topic("spans"),
                value,
                key,
                partition=partition,
                timestamp=at_ms,
                on_delivery=lambda error, _: failed.append(error) if error else None,
            )
        assert producer.flush(30) == 0
        assert failed == []

    # Members.

    @contextmanager
    def member(
        self, armed: str = "", *, program: Sequence[str] = ("-m", "spanloom"), **settings: str
    ) -> Iterator[Process]:
        """A process of the group, armed with a failpoint or not."""
        with self.cluster.member(armed=armed, program=program, **{**SESSION, **self.settings, **settings}) as member:
            yield member

    def die_at(self, failpoint: Failpoint, passes: int = 1) -> Wreck:
        """A member lives until it gets there for so manieth time; gives what it left behind."""
        with self.member(f"{failpoint}:{passes}") as doomed:
            assert doomed.popen.wait(WITHIN_S) == -signal.SIGKILL
        return self.wreck()

    def wreck(self) -> Wreck:
        """Look at what is there now."""
        self._deaths += 1
        folder = self.cluster.folder / f"wreck-{self._deaths}"
        folder.mkdir()
        dump_topics(self.cluster.brokers, spans=self.topic("spans"), ledger=self.topic("ledger"), into=folder)
        with closing(sqlite3.connect(folder / "ledger.db")) as database:
            bodies = [body for (body,) in database.execute("SELECT body FROM entry ORDER BY partition, position")]
        decisions = [decision for body in bodies if body[1] == DECIDE for decision in decide_entries(body[20:])]
        return Wreck(
            entries=Counter(body[1] for body in bodies),
            kept=sum(decision.verdict != 0 for decision in decisions),
            stored=len(self.documents()),
            committed=sum(held.committed for held in self.books().values()),
        )

    def books(self) -> dict[int, Books]:
        """What is committed."""
        return read_books(
            self.cluster.brokers,
            group=f"{self.cluster.prefix}group",
            topic=self.topic("spans"),
            partitions=self.cluster.partitions,
        )

    def documents(self) -> list[StoredDocument]:
        """Everything that is stored."""
        return list(stored_documents(self.elasticsearch, self.cluster.index_prefix))

    def is_settled(self) -> bool:
        """Everything in the log is committed."""
        books = self.books()
        return bool(books) and all(held.committed == held.end for held in books.values())

    def finish(self, *members: Process) -> None:
        """Wait until all is committed, and end the members as an operator does."""
        eventually(self.is_settled, WITHIN_S)
        for member in members:
            assert member.terminate() == 0

    def recount(self) -> Recount:
        """The oracle's word on what came of everything."""
        recount = self.cluster.recount(self.elasticsearch, None, into=self.cluster.folder / "dump")
        self.elasticsearch.forget(self.cluster.index_prefix)
        return recount

    def assert_nothing_lost_or_twice(self) -> Counter[str]:
        """The recount finds no difference, and all that was sent was received; gives the balance sheet."""
        recount = self.recount()
        assert {name: found for name, found in recount.differences.items() if found} == {}
        tally = Counter(recount.tally())
        assert tally["received"] == self.sent if not tally["moved"] else tally["received"] > self.sent
        assert tally["stored"] > 0
        return tally


@contextmanager
def served(run: Callable[..., Awaitable[None]], *args: object) -> Iterator[None]:
    """A proxy in a thread of its own, until the block ends."""
    is_up = threading.Event()
    held: list[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = []

    async def main() -> None:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(run, *args)
                held.append((trio.lowlevel.current_trio_token(), scope))
                is_up.set()

    thread = threading.Thread(target=trio.run, args=(main,), daemon=True)
    thread.start()
    assert is_up.wait(WITHIN_S)
    try:
        yield
    finally:
        ((token, scope),) = held
        token.run_sync_soon(scope.cancel)
        thread.join(WITHIN_S)
