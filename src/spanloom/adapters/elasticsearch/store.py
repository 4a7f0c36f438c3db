"""The trace store on Elasticsearch: see `interfaces.TraceStore` and design.md, section 7.

A document is written once, by `create` under its own id, so sending it again is always safe. A bulk is answered item
by item: what failed for now is sent again after a growing delay, alone; after failures in a row the breaker opens and
every write is refused at once until one gets through, which holds the readers of `spans` back. What was written is
found by a search after the index's next refresh, a second later by default.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

import msgspec
import structlog
import trio

from spanloom.adapters.elasticsearch.bulk import TARGET, Entry, Outcome, packed, read_answer
from spanloom.adapters.elasticsearch.client import LINES, ElasticsearchClient, ElasticsearchOptions, decoded
from spanloom.adapters.elasticsearch.documents import bulk_lines, day_of, document_of, refusal_of, template
from spanloom.core.backoff import Backoff
from spanloom.core.breaker import Breaker
from spanloom.errors import ConfigError, StoreRejected, StoreUnavailable
from spanloom.model import Document

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

SEARCH_MAX = 1000
PAGE = 50  # documents an answer: each may hold `bytes_max` of spans
SERVICES_MAX = 10_000  # far above any fleet we know, far below the 65,536 buckets an answer may have
RETRY_FIRST_S, RETRY_CAP_S = 0.1, 5.0
FAILURES_MAX = 5  # in a row, of all writers together, until the breaker opens: with the delays above about 2 s
OPEN_S = 2.0  # how late the end of an outage is noticed at most, beside the writers' own delays
DELETE_MAX = 50  # indices a request: a URL may have 4096 bytes
DAY_S = 86_400

_ORDER_OF_TRACE = [{"_index": "asc"}, {"id": "asc"}]
_NEWEST_FIRST = [{"_index": "desc"}, {"start_order": "desc"}, {"id": "desc"}]


@dataclass(frozen=True, slots=True)
class ElasticsearchStatistics:
    """What a store has done since it was made."""

    bulks: int
    stored: int  # items answered with 201 or 409
    sent_again: int  # items
    rejected: int
    breaker_opened: int
    breaker_open: bool


class _Hit(msgspec.Struct):
    index: str = msgspec.field(name="_index")
    source: msgspec.Raw = msgspec.field(name="_source")
    sort: msgspec.Raw


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Found(msgspec.Struct):
    hits: _Hits


class _Bucket(msgspec.Struct):
    key: str


class _Buckets(msgspec.Struct):
    buckets: list[_Bucket]


class _Terms(msgspec.Struct):
    services: _Buckets = msgspec.field(default_factory=lambda: _Buckets([]))


class _Aggregated(msgspec.Struct):
    aggregations: _Terms = msgspec.field(default_factory=_Terms)  # absent where there is no index yet


_found = msgspec.json.Decoder(_Found)
_aggregated = msgspec.json.Decoder(_Aggregated)
_indices = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encode = msgspec.json.encode


class ElasticsearchStore:
    """The documents of one cluster under one prefix. Use it from one trio run."""

    def __init__(self, options: ElasticsearchOptions, *, random: Callable[[], float]) -> None:
        """Connects nowhere yet. *random* gives numbers of [0, 1), for the delays. Raises ConfigError."""
        self._options = options
        self._client = ElasticsearchClient(options)
        self._random = random
        self._writes = Breaker(FAILURES_MAX, OPEN_S)
        self._preparing = trio.Lock()
        self._prepared = False
        self._lifecycles: bool | None = None  # whether the server manages them; None: not asked yet
        self._bulks = self._stored = self._sent_again = self._rejected = 0

    async def prepare(self) -> None:
        """Put the index template, and the lifecycle policy where the server has such. `write` does it where needed.

        Raises ConfigError: the server refuses us, StoreUnavailable: it is away.
        """
        policy = await self._lifecycle_policy()
        await self._put(
            f"/_index_template/{self._template}",
            template(self._options.prefix, shards=self._options.shards, replicas=self._options.replicas, policy=policy),
        )
        self._prepared = True

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        """Write as `TraceStore` says: bulk by bulk, each until nothing of it is left to send."""
        rejected: list[StoreRejected] = []
        storable: list[Document] = []
        for document in documents:
            refusal = refusal_of(document)
            if refusal is None:
                storable.append(document)
            else:
                rejected.append(refusal)
        await trio.lowlevel.checkpoint()
        if storable:
            await self._be_prepared()
            for bulk in await trio.to_thread.run_sync(_packed, storable, self._options.prefix):
                rejected += await self._write_bulk(bulk)
        self._rejected += len(rejected)
        return rejected

    async def read(self, trace_id: str) -> Sequence[Document]:
        """All fragments of the trace, in order of (day, id)."""
        return await self._documents({"term": {"trace_id": trace_id}}, _ORDER_OF_TRACE, None)

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        """The newest fragments by (day, start, id), newest first."""
        assert 0 < limit <= SEARCH_MAX
        query: dict[str, object] = {"term": {"services": service}} if service else {"match_all": {}}
        return await self._documents(query, _NEWEST_FIRST, limit)

    async def services(self) -> Sequence[str]:
        """Every service of the days kept, in order; at most SERVICES_MAX."""
        terms = {"field": "services", "size": SERVICES_MAX, "order": {"_key": "asc"}}
        body = {"size": 0, "track_total_hits": False, "aggs": {"services": {"terms": terms}}}
        answer = await self._client.read("POST", self._search_target, _encode(body))
        found = decoded(answer, _aggregated)
        return sorted(bucket.key for bucket in found.aggregations.services.buckets)

    async def drop_days_before(self, day: str) -> Sequence[str]:
        """Delete the indices of every day before *day* (YYYY.MM.DD), by name; returns those days."""
        answer = await self._client.read("GET", f"/{self._options.prefix}*/_alias")
        days = {found: index for index in decoded(answer, _indices) if (found := day_of(index, self._options.prefix))}
        old = sorted(found for found in days if found < day)
        for start in range(0, len(old), DELETE_MAX):
            names = ",".join(days[found] for found in old[start : start + DELETE_MAX])
            deleted = await self._client.write("DELETE", f"/{names}?ignore_unavailable=true")
            if deleted.status != 200:
                raise StoreUnavailable(f"deleting {names}: Elasticsearch answered {deleted.reason}")
        return old

    def statistics(self) -> ElasticsearchStatistics:
        """A snapshot."""
        breaker = self._writes.statistics()
        return ElasticsearchStatistics(
            self._bulks, self._stored, self._sent_again, self._rejected, breaker.opened, breaker.is_open
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    @property
    def has_lifecycles(self) -> bool:
        """Whether the servers delete old indices themselves, as far as `prepare` has found out."""
        return self._lifecycles is True

    @property
    def _template(self) -> str:
        return self._options.prefix.rstrip("-._")

    @property
    def _search_target(self) -> str:
        """A missing shard is an outage, not an answer with fewer documents."""
        return f"/{self._options.prefix}*/_search?allow_partial_search_results=false"

    # --- writing --------------------------------------------------------------------------------------------------

    async def _be_prepared(self) -> None:
        async with self._preparing:
            if self._prepared:
                return
            self._ask_breaker()
            try:
                await self.prepare()
            except (ConfigError, StoreUnavailable) as error:  # whatever it is: until it is mended the writers wait
                self._failed(str(error))
                raise StoreUnavailable(str(error)) from error
            self._writes.succeeded()

    async def _write_bulk(self, pending: list[Entry]) -> list[StoreRejected]:
        rejected: list[StoreRejected] = []
        backoff = Backoff(RETRY_FIRST_S, RETRY_CAP_S, self._random)
        while True:
            outcome = await self._try(pending)
            self._stored += outcome.stored
            rejected += outcome.rejected
            pending = outcome.again
            if not pending:
                return rejected
            if self._writes.is_open:
                raise StoreUnavailable(outcome.why)
            self._sent_again += len(pending)
            await trio.sleep(backoff.next_delay_s())

    async def _try(self, entries: list[Entry]) -> Outcome:
        """Send once. What is not resolved counts as a failure with the breaker, whose refusal is final."""
        self._ask_breaker()
        self._bulks += 1
        try:
            outcome = await self._send(entries)
        except StoreUnavailable as error:
            self._prepared = False  # who comes back may have lost the template
            outcome = Outcome(again=entries, why=str(error))
        if outcome.again and not outcome.stored:
            self._failed(outcome.why)
        else:
            self._writes.succeeded()
        return outcome

    async def _send(self, entries: list[Entry]) -> Outcome:
        answer = await self._client.write("POST", TARGET, b"".join(entry.lines for entry in entries), content=LINES)
        if answer.status == 413:
            return await self._send_halves(entries, answer.reason)
        if answer.status != 200:
            raise StoreUnavailable(f"Elasticsearch answered {answer.reason}")
        try:
            return read_answer(answer.body, entries)
        except ValueError as error:
            raise StoreUnavailable(f"Elasticsearch answered a bulk with what cannot be read: {error}") from error

    async def _send_halves(self, entries: list[Entry], reason: str) -> Outcome:
        """Something on the way takes smaller bodies only; a document alone that is too large will always be."""
        if len(entries) == 1:
            return Outcome(rejected=[StoreRejected(entries[0].document_id, reason)])
        half = len(entries) // 2
        first, second = await self._send(entries[:half]), await self._send(entries[half:])
        return Outcome(
            first.stored + second.stored,
            first.rejected + second.rejected,
            first.again + second.again,
            first.why or second.why,
        )

    def _ask_breaker(self) -> None:
        if not self._writes.allows(trio.current_time()):
            raise StoreUnavailable("Elasticsearch has been refusing writes: waiting for one to get through")

    def _failed(self, why: str) -> None:
        was_open = self._writes.is_open
        self._writes.failed(trio.current_time())
        if self._writes.is_open and not was_open:
            log.warning("elasticsearch refuses writes", why=why)

    # --- reading --------------------------------------------------------------------------------------------------

    async def _documents(
        self, query: dict[str, object], order: list[dict[str, str]], limit: int | None
    ) -> list[Document]:
        """Page by page, up to *limit* or the end."""
        found: list[Document] = []
        after: msgspec.Raw | None = None
        while limit is None or len(found) < limit:
            size = PAGE if limit is None else min(PAGE, limit - len(found))
            body = {"query": query, "sort": order, "size": size, "track_total_hits": False}
            if after is not None:
                body["search_after"] = after
            answer = await self._client.read("POST", self._search_target, _encode(body))
            hits = decoded(answer, _found).hits.hits
            found += await trio.to_thread.run_sync(_documents_of, hits, self._options.prefix)
            if len(hits) < size:
                break
            after = hits[-1].sort
        return found

    # --- template and lifecycle -----------------------------------------------------------------------------------

    async def _lifecycle_policy(self) -> str | None:
        """The name of our policy, put there; None where the server manages no lifecycles."""
        status = await self._client.read("GET", "/_ilm/status")
        if status.status in (400, 404, 405):
            if self._lifecycles is not False:
                log.warning("no lifecycle management", so="spanloom must delete old indices", said=status.reason)
            self._lifecycles = False
            return None
        if status.status != 200:
            self._refuse("/_ilm/status", status.status, status.reason)
        # From the index's creation, early on its day: a day more, so that its last document is kept as long.
        age = f"{int(self._options.retention_s) + DAY_S}s"
        phases = {"hot": {"actions": {}}, "delete": {"min_age": age, "actions": {"delete": {}}}}
        await self._put(f"/_ilm/policy/{self._template}", _encode({"policy": {"phases": phases}}))
        self._lifecycles = True
        return self._template

    async def _put(self, target: str, body: bytes) -> None:
        answer = await self._client.write("PUT", target, body)
        if answer.status != 200:
            self._refuse(target, answer.status, answer.reason)

    def _refuse(self, target: str, status: int, reason: str) -> NoReturn:
        message = f"elasticsearch: {target} was answered with {reason}"
        if status in (400, 401, 403):
            raise ConfigError(message)
        raise StoreUnavailable(message)


def _packed(documents: Sequence[Document], prefix: str) -> list[list[Entry]]:
    return list(packed([Entry(document.id, bulk_lines(document, prefix)) for document in documents]))


def _documents_of(hits: Sequence[_Hit], prefix: str) -> list[Document]:
    return [document_of(hit.index, hit.source, prefix) for hit in hits]
