"""The store on a real Elasticsearch, with everything that may go wrong between us and it. See also conformance/."""

import base64
import dataclasses
import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from spanloom.adapters.elasticsearch import ElasticsearchOptions, ElasticsearchStore
from spanloom.adapters.elasticsearch.bulk import BULK_BYTES
from spanloom.adapters.elasticsearch.store import FAILURES_MAX, OPEN_S, PAGE
from spanloom.errors import ConfigError, DataCorrupted, StoreRejected, StoreUnavailable
from spanloom.model import AttributeValue, Document
from tests.conformance.server_rigs import fresh_prefix, options
from tests.servers import elasticsearch
from tests.servers.certificates import certificate
from tests.servers.elasticsearch import ElasticsearchServer
from tests.servers.http_proxy import Fault, HttpProxy, Reply, Request, nothing_wrong

TRACE = f"{1:032x}"
DAY = "2026.01.02"
BUSY = (429, "es_rejected_execution_exception")
AWAY = (503, "unavailable_shards_exception")
MALFORMED = (400, "document_parsing_exception")


def document(
    name: str, *, trace_id: str = TRACE, day: str = DAY, start: int = 5, spans: bytes = b"\x0a\x00"
) -> Document:
    """A small one."""
    return Document(
        id=name,
        trace_id=trace_id,
        day=day,
        root_service="shop",
        root_operation="GET /",
        services=("shop",),
        operations=("shop\x1fGET /",),
        start_unix_ns=start,
        duration_ns=7,
        root_duration_ns=6,
        span_count=2,
        error_count=1,
        attributes={"http.route": "/cart"},
        verdict={"policy": "error"},
        spans=spans,
    )


@pytest.fixture
def server() -> ElasticsearchServer:
    """The baseline, shared."""
    return elasticsearch.running()


@pytest.fixture
def prefix(server: ElasticsearchServer) -> Iterator[str]:
    """A prefix of this test's own; what it names is deleted afterwards."""
    prefix = fresh_prefix()
    yield prefix
    server.forget(prefix)


@pytest.fixture
async def proxy(server: ElasticsearchServer, nursery: trio.Nursery) -> HttpProxy:
    """A proxy before it."""
    proxy: HttpProxy = await nursery.start(HttpProxy(server.port).run)
    return proxy


@pytest.fixture
def store(proxy: HttpProxy, prefix: str) -> Iterator[ElasticsearchStore]:
    """The store, through the proxy; its delays are nothing."""
    store = ElasticsearchStore(options(proxy.url, prefix), random=lambda: 0.0)
    yield store
    store.close()


class Look:
    """What is really there, asked of the server itself."""

    def __init__(self, server: ElasticsearchServer, prefix: str) -> None:
        self._server = server
        self._prefix = prefix

    def refresh(self) -> None:
        self._server.request("POST", f"/{self._prefix}*/_refresh")

    def search(self, query: object) -> list[str]:
        """The ids that a query finds, in order."""
        self.refresh()
        body = json.dumps({"query": query, "size": 10_000}).encode()
        hits = json.loads(self._server.request("POST", f"/{self._prefix}*/_search", body))["hits"]["hits"]
        return sorted(hit["_id"] for hit in hits)

    def ids(self) -> list[str]:
        """All of them."""
        return self.search({"match_all": {}})


@pytest.fixture
def look(server: ElasticsearchServer, prefix: str) -> Look:
    """What is there."""
    return Look(server, prefix)


# --- bulks that go wrong ----------------------------------------------------------------------------------------------


async def test_only_what_failed_is_sent_again(proxy: HttpProxy, store: ElasticsearchStore, look: Look) -> None:
    """Stored and rejected items are done; those the server had no room for go out again, alone, until it takes them."""
    faults = [
        Fault(items={1: BUSY, 2: MALFORMED, 4: AWAY}),
        Fault(items={1: BUSY}),
        Fault(),
    ]
    proxy.script = lambda request: faults.pop(0) if request.is_bulk else Fault()

    rejected = await store.write([document(name) for name in "abcdef"])

    assert [(one.document_id, one.reason.split(":")[0]) for one in rejected] == [
        ("c", "400 document_parsing_exception")
    ]
    assert [bulk.ids for bulk in proxy.bulks] == [[*"abcdef"], [*"be"], ["e"]]
    assert look.ids() == [*"abdef"]
    statistics = store.statistics()
    assert (statistics.bulks, statistics.stored, statistics.sent_again, statistics.rejected) == (3, 5, 3, 1)


async def test_an_answer_lost_after_the_work_costs_a_second_bulk_and_nothing_else(
    proxy: HttpProxy, store: ElasticsearchStore, look: Look
) -> None:
    """The server stored everything and the connection broke: sent again, every item answers 409, which is success."""
    faults = [Fault(cut=True), Fault()]
    proxy.script = lambda request: faults.pop(0) if request.is_bulk else Fault()

    assert list(await store.write([document("a"), document("b")])) == []

    assert [bulk.ids for bulk in proxy.bulks] == [["a", "b"], ["a", "b"]]
    assert look.ids() == ["a", "b"]


class Storm:
    """Faults drawn from a seed, for every request, until it has passed."""

    def __init__(self, seed: int, poisoned: set[str]) -> None:
        self._draw = random.Random(seed)
        self._poisoned = poisoned
        self._left = 12

    def __call__(self, request: Request) -> Fault:
        if not request.is_bulk:
            return Fault(unseen=self._strikes(0.2))
        items = {place: MALFORMED for place, name in enumerate(request.ids) if name in self._poisoned}
        if not self._strikes(0.8):
            return Fault(items=items)
        match self._draw.randrange(6):
            case 0:
                return Fault(items=items, cut=True)
            case 1:
                return Fault(unseen=True)
            case 2:
                return Fault(reply=Reply(self._draw.choice([429, 502, 503, 504]), b'{"error":"busy"}'))
            case 3:
                return Fault(reply=Reply(200, self._draw.choice([b"", b"<html>", b'{"items":[]}', b'{"items":[{}]}'])))
            case _:
                share = self._draw.random()
                for place, name in enumerate(request.ids):
                    if name not in self._poisoned and self._draw.random() < share:
                        items[place] = self._draw.choice([BUSY, AWAY, (500, "node_closed_exception")])
                return Fault(items=items, cut=self._draw.random() < 0.2)

    def _strikes(self, probability: float) -> bool:
        struck = self._left > 0 and self._draw.random() < probability
        self._left -= struck
        return struck


@pytest.mark.parametrize("seed", range(25))
async def test_whatever_a_bulk_meets_every_document_is_stored_once_or_rejected(
    proxy: HttpProxy, store: ElasticsearchStore, look: Look, mock_clock: trio.testing.MockClock, seed: int
) -> None:
    """Any subset of items refused with 429, 503, 500 or 400, answers lost or false: the end is always the same."""
    documents = [document(f"{number:02}", day=f"2026.01.0{number % 3 + 1}") for number in range(30)]
    poisoned = {one.id for one in random.Random(seed).sample(documents, 3)}
    proxy.script = Storm(seed, poisoned)

    rejected: list[StoreRejected] | None = None
    while rejected is None:
        try:
            rejected = list(await store.write(documents))
        except StoreUnavailable:  # as an actor does: wait, and send the same again
            mock_clock.jump(OPEN_S)

    assert {one.document_id for one in rejected} == poisoned
    stored = [one for one in documents if one.id not in poisoned]
    assert look.ids() == [one.id for one in stored]
    assert sorted(await store.read(TRACE), key=lambda one: one.id) == stored


async def test_a_bulk_refused_as_a_whole_is_no_fault_of_its_documents(
    proxy: HttpProxy, store: ElasticsearchStore, mock_clock: trio.testing.MockClock
) -> None:
    """A 400 or 403 for the request says that we, or the cluster, are set up wrongly: wait, dead-letter nothing."""
    for status in (400, 401, 403, 404):
        proxy.script = lambda request, status=status: Fault(reply=Reply(status, b"{}")) if request.is_bulk else Fault()  # type: ignore[misc]
        with pytest.raises(StoreUnavailable, match=str(status)):
            await store.write([document("a")])
        mock_clock.jump(OPEN_S)


@pytest.mark.parametrize("kind", ["validation_exception", "index_closed_exception"])
async def test_a_cluster_without_room_for_an_index_rejects_no_document(
    proxy: HttpProxy, store: ElasticsearchStore, look: Look, kind: str
) -> None:
    """Elasticsearch answers 400 for some faults of its own, a full cluster's limit of shards for one."""
    faults = [Fault(items={0: (400, kind)}), Fault()]
    proxy.script = lambda request: faults.pop(0) if request.is_bulk else Fault()

    assert list(await store.write([document("a")])) == []
    assert look.ids() == ["a"]


async def test_a_body_too_large_for_something_on_the_way_is_halved(
    proxy: HttpProxy, store: ElasticsearchStore, look: Look
) -> None:
    """Halves, quarters and so on go through; a document that is too large by itself is rejected."""
    proxy.script = lambda request: (
        Fault(reply=Reply(413, b"too large")) if request.is_bulk and len(request.body) > 2000 else Fault()
    )

    rejected = await store.write([document("a"), document("b"), document("c", spans=bytes(3000)), document("d")])

    assert [one.document_id for one in rejected] == ["c"]
    assert look.ids() == ["a", "b", "d"]


async def test_bulks_stay_below_their_size(proxy: HttpProxy, store: ElasticsearchStore, look: Look) -> None:
    """Many documents make several bulks of up to 8 MB; one that is larger travels alone, and is stored."""
    largest = document("large", spans=random.Random(1).randbytes(17 << 20))
    small = [document(f"{number:02}", trace_id=f"{2:032x}", spans=bytes(1 << 19)) for number in range(20)]

    assert list(await store.write([*small, largest])) == []

    sizes = [len(bulk.body) for bulk in proxy.bulks]
    assert [len(bulk.ids) for bulk in proxy.bulks] == [11, 9, 1]
    assert max(sizes[:-1]) <= BULK_BYTES
    look.refresh()
    assert list(await store.read(TRACE)) == [largest]


async def test_an_id_elasticsearch_cannot_have_is_rejected_alone(
    proxy: HttpProxy, store: ElasticsearchStore, look: Look
) -> None:
    """It would refuse the whole bulk for it."""
    rejected = await store.write([document("a"), document(""), document("ä" * 257), document("b" * 512)])

    assert [one.document_id for one in rejected] == ["", "ä" * 257]
    assert look.ids() == ["a", "b" * 512]


# --- outages ----------------------------------------------------------------------------------------------------------


async def test_the_breaker_refuses_at_once_until_a_write_gets_through(
    proxy: HttpProxy, store: ElasticsearchStore, look: Look, mock_clock: trio.testing.MockClock
) -> None:
    """After failures in a row writes do not reach the server any more; then one tries, and the rest follow."""
    proxy.script = lambda request: Fault(reply=Reply(429, b"{}")) if request.is_bulk else Fault()
    with capture_logs() as logs, pytest.raises(StoreUnavailable, match="429"):
        await store.write([document("a")])
    assert len(proxy.bulks) == FAILURES_MAX
    assert [line["event"] for line in logs if line["log_level"] == "warning"][-1] == "elasticsearch refuses writes"

    asked = len(proxy.requests)
    for _ in range(10):
        with pytest.raises(StoreUnavailable):
            await store.write([document("a")])
    assert len(proxy.requests) == asked
    assert store.statistics().breaker_open

    mock_clock.jump(OPEN_S)
    with pytest.raises(StoreUnavailable):  # one try, in vain
        await store.write([document("a")])
    assert len(proxy.requests) > asked
    proxy.script = nothing_wrong
    mock_clock.jump(OPEN_S)

    assert list(await store.write([document("a")])) == []
    assert list(await store.write([document("b")])) == []
    assert look.ids() == ["a", "b"]
    assert not store.statistics().breaker_open


async def test_a_server_killed_and_started_again_has_everything_it_acknowledged(
    server: ElasticsearchServer, store: ElasticsearchStore, look: Look, mock_clock: trio.testing.MockClock
) -> None:
    """While it is away writes and reads say so; back, it takes the same write, and the earlier ones are there."""
    await store.write([document("a")])
    server.kill()
    try:
        with pytest.raises(StoreUnavailable):
            await store.write([document("b")])
        for ask in (partial(store.read, TRACE), store.search, store.services):
            with pytest.raises(StoreUnavailable):
                await ask()
    finally:
        server.start()
    mock_clock.jump(OPEN_S)

    assert list(await store.write([document("a"), document("b")])) == []
    assert look.ids() == ["a", "b"]


async def test_a_frozen_server_is_an_outage_and_a_cancelled_write_returns_at_once(
    server: ElasticsearchServer, store: ElasticsearchStore, look: Look, prefix: str
) -> None:
    """A write to a server that does not move times out; whoever stops waiting earlier is not held up."""
    assert list(await store.write([document("a")])) == []
    hasty = ElasticsearchStore(
        dataclasses.replace(options(server.url, prefix), write_timeout_s=0.3, read_timeout_s=0.3), random=lambda: 0.0
    )
    server.signal(signal.SIGSTOP)
    try:
        with trio.move_on_after(0.1) as given_up:
            await hasty.write([document("b")])
        assert given_up.cancelled_caught
        with pytest.raises(StoreUnavailable):
            await hasty.write([document("b")])
        with pytest.raises(StoreUnavailable):
            await hasty.read(TRACE)
    finally:
        server.signal(signal.SIGCONT)
    hasty.close()

    assert list(await store.write([document("a"), document("b")])) == []
    assert look.ids() == ["a", "b"]


async def test_a_server_that_lost_everything_gets_the_template_again(
    server: ElasticsearchServer,
    proxy: HttpProxy,
    store: ElasticsearchStore,
    mock_clock: trio.testing.MockClock,
    prefix: str,
) -> None:
    """After an outage the template is put anew before anything is written: no index grows without its mapping."""
    await store.write([document("a")])
    proxy.script = lambda request: Fault(unseen=True)
    with pytest.raises(StoreUnavailable):
        await store.write([document("b")])
    server.forget(prefix)
    proxy.script = nothing_wrong
    mock_clock.jump(OPEN_S)

    await store.write([document("b")])

    mapping = json.loads(server.request("GET", f"/{prefix}{DAY}/_mapping"))[f"{prefix}{DAY}"]["mappings"]
    assert mapping["dynamic"] == "false"


async def test_a_missing_shard_is_an_outage_and_not_a_missing_trace(
    proxy: HttpProxy, store: ElasticsearchStore
) -> None:
    """A search asks for all shards or none, so 503 never looks like a trace that is not there."""
    await store.write([document("a")])
    proxy.script = lambda request: Fault(reply=Reply(503, b'{"error":{"type":"search_phase_execution_exception"}}'))

    with pytest.raises(StoreUnavailable, match="503"):
        await store.read(TRACE)

    assert all("allow_partial_search_results=false" in one.target for one in proxy.requests if "_search" in one.target)


# --- what is kept, and how it is found --------------------------------------------------------------------------------

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
VALUE: st.SearchStrategy[AttributeValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
LONG = st.just("x" * 40_000)  # beyond what Lucene takes as one term
NAMES = st.lists(TEXT | LONG, max_size=4).map(tuple)
U64 = st.integers(0, (1 << 64) - 1)
COUNT = st.integers(-(1 << 63), (1 << 63) - 1)
DOCUMENTS = st.builds(
    Document,
    id=st.uuids().map(str),
    trace_id=st.just(TRACE),
    day=st.sampled_from(["2026.01.02", "2026.01.03"]),
    root_service=TEXT | LONG,
    root_operation=TEXT | LONG,
    services=NAMES,
    operations=NAMES,
    start_unix_ns=U64,
    duration_ns=U64,
    root_duration_ns=U64,
    span_count=COUNT,
    error_count=COUNT,
    attributes=st.dictionaries(
        TEXT | st.sampled_from(["a.b", "a", ".", "a..b", " ", "_id", "\x00"]), TEXT | LONG, max_size=4
    ),
    verdict=st.dictionaries(TEXT, VALUE, max_size=3),
    spans=st.binary(max_size=50),
)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(documents=st.lists(DOCUMENTS, min_size=10, max_size=30, unique_by=lambda one: one.id))
def test_every_lawful_document_comes_back_exactly(documents: list[Document], server: ElasticsearchServer) -> None:
    """Whatever text, number or key a document holds, Elasticsearch takes it and gives it back unchanged."""
    prefix = fresh_prefix()

    async def there_and_back() -> None:
        store = ElasticsearchStore(options(server.url, prefix), random=lambda: 0.0)
        assert list(await store.write(documents)) == []
        Look(server, prefix).refresh()
        assert list(await store.read(TRACE)) == sorted(documents, key=lambda one: (one.day, one.id))
        store.close()

    try:
        trio.run(there_and_back)
    finally:
        server.forget(prefix)


async def test_the_summary_can_be_searched_and_the_spans_can_be_read(
    server: ElasticsearchServer, store: ElasticsearchStore, look: Look, prefix: str
) -> None:
    """Operators find traces by what the template indexes; the spans are OTLP in base64, and nothing else is indexed."""
    await store.write([document("a", start=1_767_312_000_000_000_123), document("b")])

    for query, found in (
        ({"term": {"trace_id": TRACE}}, ["a", "b"]),
        ({"term": {"root_service": "shop"}}, ["a", "b"]),
        ({"term": {"operations": "shop\x1fGET /"}}, ["a", "b"]),
        ({"term": {"attributes.http.route": "/cart"}}, ["a", "b"]),
        ({"range": {"start": {"gte": "2026-01-02T00:00:00.000000123Z"}}}, ["a"]),
        ({"range": {"start": {"gt": "2026-01-02T00:00:00.000000123Z"}}}, []),
        ({"range": {"duration_ns": {"gte": 7}}}, ["a", "b"]),
        ({"term": {"verdict.policy": "error"}}, []),
    ):
        assert look.search(query) == found, query
    source = json.loads(server.request("GET", f"/{prefix}{DAY}/_doc/a"))["_source"]
    assert base64.b64decode(source["spans"]) == b"\x0a\x00"


async def test_long_answers_come_in_pages(store: ElasticsearchStore, look: Look) -> None:
    """More fragments than a page has are all read, in order; a search stops at its limit."""
    documents = [document(f"{number:03}", start=number // 2) for number in range(2 * PAGE + 7)]
    await store.write(documents)
    look.refresh()

    assert [one.id for one in await store.read(TRACE)] == [one.id for one in documents]
    newest = [one.id for one in reversed(documents)]
    for limit in (1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 1000):
        assert [one.id for one in await store.search(limit=limit)] == newest[:limit]


async def test_what_others_wrote_into_our_indices_is_reported(
    server: ElasticsearchServer, store: ElasticsearchStore, look: Look, prefix: str
) -> None:
    """A document that is not spanloom's is an operator's affair, not a trace with half its fields."""
    await store.write([document("a")])
    server.request("POST", f"/{prefix}{DAY}/_update/a", json.dumps({"doc": {"spans": "AA=="}}).encode())
    server.request("POST", f"/{prefix}{DAY}/_update/a", json.dumps({"doc": {"verdict": "none"}}).encode())
    look.refresh()

    with pytest.raises(DataCorrupted, match=f"{prefix}{DAY}"):
        await store.read(TRACE)


async def test_retention_deletes_the_indices_of_old_days_and_no_others(
    server: ElasticsearchServer, store: ElasticsearchStore, prefix: str
) -> None:
    """Only a name that is the prefix and a day is ever deleted, and it is deleted by name."""
    await store.write([document(day, day=day) for day in ("2025.12.31", "2026.01.01", DAY)])
    server.request("PUT", f"/{prefix}2025.12.31-copy")

    assert list(await store.drop_days_before("2026.01.02")) == ["2025.12.31", "2026.01.01"]
    assert list(await store.drop_days_before("2026.01.02")) == []

    left = json.loads(server.request("GET", f"/{prefix}*/_alias"))
    assert sorted(left) == [f"{prefix}2025.12.31-copy", f"{prefix}{DAY}"]


# --- what the test server lacks: recorded contracts, never run for real (docs/cluster.md) -----------------------------


async def test_without_lifecycle_management_spanloom_says_that_it_deletes_itself(store: ElasticsearchStore) -> None:
    """The log says so once, however often the store prepares."""
    with capture_logs() as logs:
        await store.prepare()
        await store.prepare()

    assert [line["event"] for line in logs] == ["no lifecycle management"]
    assert not store.has_lifecycles


async def test_with_lifecycle_management_the_policy_is_put_and_named_by_the_template(
    proxy: HttpProxy, prefix: str
) -> None:
    """As Elastic documents it: a delete phase, a day after the retention, counted from the index's creation."""
    acknowledged = Reply(200, b'{"acknowledged":true}')

    def recorded(request: Request) -> Fault:
        if request.target == "/_ilm/status":
            return Fault(reply=Reply(200, b'{"operation_mode":"RUNNING"}'))
        return Fault(reply=acknowledged if request.method == "PUT" else Reply(500, b"{}"))

    proxy.script = recorded
    store = ElasticsearchStore(
        dataclasses.replace(options(proxy.url, prefix), retention_s=3 * 86400.0), random=lambda: 0.0
    )
    with capture_logs() as logs:
        await store.prepare()
    store.close()

    name = prefix.rstrip("-")
    puts = {one.target: json.loads(one.body) for one in proxy.requests if one.method == "PUT"}
    assert list(puts) == [f"/_ilm/policy/{name}", f"/_index_template/{name}"]
    assert puts[f"/_ilm/policy/{name}"] == {
        "policy": {"phases": {"hot": {"actions": {}}, "delete": {"min_age": "345600s", "actions": {"delete": {}}}}}
    }
    assert puts[f"/_index_template/{name}"]["template"]["settings"]["index"]["lifecycle.name"] == name
    assert logs == []
    assert store.has_lifecycles


async def test_tls_and_the_api_key_are_used(
    server: ElasticsearchServer, nursery: trio.Nursery, prefix: str, tmp_path: Path
) -> None:
    """The server's certificate is checked against the CA file, and every request carries the key."""
    shown = certificate(tmp_path)

    def guarded(request: Request) -> Fault:
        known = request.headers.get("authorization") == "ApiKey c2VjcmV0"
        return Fault() if known else Fault(reply=Reply(401, b'{"error":{"type":"security_exception"}}'))

    proxy: HttpProxy = await nursery.start(HttpProxy(server.port, guarded, tls=shown.context).run)
    trusting = ElasticsearchOptions(
        (proxy.url,), api_key="c2VjcmV0", ca_file=shown.authority, prefix=prefix, replicas=0
    )
    store = ElasticsearchStore(trusting, random=lambda: 0.0)
    assert list(await store.write([document("a")])) == []
    store.close()

    keyless = ElasticsearchStore(dataclasses.replace(trusting, api_key=""), random=lambda: 0.0)
    with pytest.raises(ConfigError, match="401"):
        await keyless.prepare()
    with pytest.raises(StoreUnavailable, match="401"):  # in operation: the key has been revoked, so wait for another
        await keyless.write([document("a")])
    keyless.close()
    distrusting = ElasticsearchStore(dataclasses.replace(trusting, ca_file=None), random=lambda: 0.0)
    with pytest.raises(StoreUnavailable, match=r"(?i)certificate"):
        await distrusting.prepare()
    distrusting.close()


@pytest.mark.parametrize(
    "wrong",
    [
        ElasticsearchOptions(("localhost",)),
        ElasticsearchOptions(("http://localhost",)),
        ElasticsearchOptions(()),
        ElasticsearchOptions(("https://localhost:9200",), ca_file=Path("/nowhere/ca.pem")),
    ],
)
def test_wrong_settings_are_refused_at_once(wrong: ElasticsearchOptions) -> None:
    """A URL that is none and a CA file that is not there are the operator's to mend."""
    with pytest.raises(ConfigError, match=r"elasticsearch.*expected"):
        ElasticsearchStore(wrong, random=lambda: 0.0)


async def test_another_server_is_not_taken_for_elasticsearch(
    server: ElasticsearchServer, nursery: trio.Nursery
) -> None:
    """Whatever answers without Elasticsearch's mark is away, and nothing is written to it."""
    asked = Counter[bytes]()

    async def answer(stream: trio.SocketStream) -> None:
        asked[bytes(await stream.receive_some()).split()[0]] += 1
        await stream.send_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, answer, listeners)
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    store = ElasticsearchStore(options(url, "any-"), random=lambda: 0.0)

    with pytest.raises(StoreUnavailable, match="not Elasticsearch"):
        await store.write([document("a")])
    store.close()
    assert set(asked) == {b"GET"}
