"""An aggregator whose partition actors crash, one after another, and which says what each step of the way back took.

`SPANLOOM_FAILPOINT` is here `n:s`: so many crashes, each of an actor that has been reading for so many seconds. A crash
is an exception out of a commit. The steps are read off the adapters' calls; one log line for each crash has them all.
"""

import functools
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from spanloom.adapters.failpoints import VARIABLE
from spanloom.adapters.kafka.ledger import KafkaLedger
from spanloom.adapters.kafka.reader import KafkaReader
from spanloom.adapters.kafka.source import KafkaSource
from spanloom.cli.main import main
from spanloom.model import Record

APART_S = 0.3  # a crash and the next: one recovers while the others work
NOTED = ((KafkaSource, ("committed", "commit", "end_offset")), (KafkaLedger, ("end", "append")))
PHASES = (  # in their order, and the call whose begin ("?") or end ends each
    ("spans no longer read", "closed"),
    ("ledger no longer read", "closed"),
    ("restarted", "committed?"),
    ("commit known", "committed"),
    ("committed again", "commit"),
    ("commit known again", "committed"),
    ("ledger's end known", "end"),
    ("ledger read", "append?"),
    ("FENCE appended", "append"),
    ("FENCE read back", "end_offset?"),
    ("log's end known", "append?"),
    ("CHECKPOINT appended", "append"),
    ("first records", "first records"),
)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Way:
    """What one actor does from its crash to its next records."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._done: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        """It is done."""
        self._done.append((what, 1000 * (time.perf_counter() - self._began)))

    def took_ms(self) -> dict[str, float]:
        """Each phase, and all of them together."""
        took: dict[str, float] = {}
        done, last = iter(self._done), 0.0
        for phase, ends_with in PHASES:
            at = next((at for what, at in done if what == ends_with), last)
            took[phase], last = round(at - last, 2), at
        return {**took, "all": round(self._done[-1][1], 2)}


class Crashes:
    """Who is on the way back, who has been reading since when, and who crashes next."""

    def __init__(self, left: int, reading_s: float) -> None:
        self._left = left
        self._reading_s = reading_s
        self._reading: dict[int, float] = {}
        self._ways: dict[int, Way] = {}
        self._last = time.perf_counter()

    def at_commit(self, partition: int) -> None:
        """Crash the actor that calls, if it is its turn."""
        now = time.perf_counter()
        has_read_s = now - self._reading.get(partition, now)
        if self._left and now - self._last > APART_S and has_read_s > self._reading_s:
            self._left, self._last = self._left - 1, now
            del self._reading[partition]
            self._ways[partition] = Way()
            raise RuntimeError("the test says so")

    def note(self, partition: int, what: str) -> None:
        """A call began or ended."""
        if partition in self._ways:
            self._ways[partition].note(what)

    def has_read(self, partition: int) -> None:
        """Records are there: the way back, if it was one, is at its end."""
        self._reading.setdefault(partition, time.perf_counter())
        self.note(partition, "first records")
        way = self._ways.pop(partition, None)
        if way:
            log.info("way back", partition=partition, took_ms=way.took_ms())


def watch(crashes: Crashes) -> None:
    """Note what the adapters are asked."""
    for owner, names in NOTED:
        for name in names:
            setattr(owner, name, _noted(getattr(owner, name), crashes))
    receive, aclose = KafkaReader.receive, KafkaReader.aclose

    async def noted_receive(self: KafkaReader) -> Sequence[Record]:
        """See KafkaReader."""
        records = await receive(self)
        if self._topic.endswith("spans"):
            crashes.has_read(self._partition)
        return records

    async def noted_aclose(self: KafkaReader) -> None:
        """See KafkaReader."""
        await aclose(self)
        crashes.note(self._partition, "closed")

    KafkaReader.receive = noted_receive  # type: ignore[method-assign]
    KafkaReader.aclose = noted_aclose  # type: ignore[method-assign]


def _noted(call: Callable[..., Awaitable[object]], crashes: Crashes) -> Callable[..., Awaitable[object]]:
    @functools.wraps(call)
    async def noted(self: object, partition: int, *rest: object) -> object:
        if call.__name__ == "commit":
            crashes.at_commit(partition)
        crashes.note(partition, f"{call.__name__}?")
        given = await call(self, partition, *rest)
        crashes.note(partition, call.__name__)
        return given

    return noted


if __name__ == "__main__":
    count, _, seconds = os.environ.pop(VARIABLE, "0:0").partition(":")
    watch(Crashes(int(count), float(seconds)))
    sys.exit(main(sys.argv[1:]))
