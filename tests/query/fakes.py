"""A store, a cache and standings, for tests of the query API."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from spanloom.core.document import build_document
from spanloom.errors import CacheUnavailable, StoreRejected, StoreUnavailable
from spanloom.model import FLAG_ROOT, Decision, Document, Fragment, Trigger, Verdict
from tests.spans import T0_MS, S, Sp, trace_id, traces_data


def fragment(*spans: Sp, trigger: Trigger = Trigger.COMPLETE, first: int = 0) -> Document:
    """The document of a kept fragment."""
    stream_ns = T0_MS * 1_000_000 + first * S
    decision = Decision(
        trace_id=trace_id(spans[0].trace),
        verdict=Verdict.KEEP,
        trigger=trigger,
        policy=0,
        policy_version=1,
        votes=1,
        threshold=0,
        flags=FLAG_ROOT,
        first=first,
        cut=first,
        stream_ns=stream_ns,
        origin_ns=stream_ns,
        operation=0,
        duration_ns=10_000_000,
        span_count=len(spans),
    )
    return build_document(
        Fragment(decision, traces_data(spans)), incarnation="i", partition=0, policy_names=("errors",)
    )


@dataclass
class FakeStore:
    """Documents in a list, newest last; counts its reads; away while `away`."""

    documents: list[Document] = field(default_factory=list)
    reads: int = 0
    delay_s: float = 0
    away: bool = False

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        self.documents += documents
        return []

    async def read(self, trace_id: str) -> Sequence[Document]:
        self.reads += 1
        await trio.sleep(self.delay_s)
        if self.away:
            raise StoreUnavailable("the store is away")
        return [document for document in self.documents if document.trace_id == trace_id]

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        found = [document for document in self.documents if not service or service in document.services]
        return found[::-1][:limit]

    async def services(self) -> Sequence[str]:
        return sorted({service for document in self.documents for service in document.services})


@dataclass
class FakeCache:
    """Keeps for ever what it is given, with the time it was given; raises while `away`."""

    entries: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    away: bool = False

    async def get(self, key: str) -> bytes | None:
        if self.away:
            raise CacheUnavailable("the cache is away")
        return self.entries[key][0] if key in self.entries else None

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        if self.away:
            raise CacheUnavailable("the cache is away")
        self.entries[key] = (value, ttl_s)

    async def delete(self, key: str) -> None:
        self.entries.pop(key, None)


@dataclass
class FakeStandings:
    """Says what it is told to."""

    known: dict[bytes, str] = field(default_factory=dict)

    def standing(self, trace_id: bytes) -> str | None:
        return self.known.get(trace_id)
