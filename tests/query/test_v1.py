"""The v1 query API, /live, /ready, /metrics and the page, through their routes."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from spanloom.adapters.memory import MemoryLedger, MemoryLog
from spanloom.core.codec.ids import trace_id_from_text
from spanloom.core.http_routes import Route, Router
from spanloom.model import HttpRequest, HttpResponse, Trigger
from spanloom.query.decisions import DecisionReader
from spanloom.query.health import health_routes
from spanloom.query.traces import TraceReader
from spanloom.query.ui import ui_routes
from spanloom.query.v1 import query_routes
from tests.query.fakes import FakeCache, FakeStandings, FakeStore, fragment
from tests.spans import Sp, trace_id

CHECKOUT = fragment(Sp(1, 1, name="checkout"), Sp(1, 2, parent=1, service="pay", error=True))
REPORT = fragment(Sp(2, 1, service="reports", name="nightly"), trigger=Trigger.AGE, first=9)


async def get(store: FakeStore, path: str, known: dict[bytes, str] | None = None, **query: str) -> HttpResponse:
    reader = TraceReader(store, FakeCache(), FakeStandings(known or {}), random=lambda: 0.5)
    standings = FakeStandings(known or {})
    decisions = DecisionReader(MemoryLedger(1), MemoryLog(1), standings, partition_count=1, remember_ns=1)
    return await ask(query_routes(store, reader, decisions), path, **query)


async def ask(routes: list[Route], path: str, **query: str) -> HttpResponse:
    return await Router(routes).handle(HttpRequest("GET", path, query, {}, b""))


@pytest.mark.parametrize("spelling", [trace_id(1).hex(), trace_id(1).hex().upper()])
async def test_a_trace_is_shown_whole(spelling: str) -> None:
    """GET /v1/traces/{id} gives the trace in the seed's field names, however its id is spelt."""
    response = await get(FakeStore([CHECKOUT, REPORT]), f"/v1/traces/{spelling}")
    trace = json.loads(response.body)
    assert (response.status, dict(response.headers)["Content-Type"]) == (200, "application/json")
    assert (trace["trace_id"], trace["status"], trace["verdict"]["policy"]) == (trace_id(1).hex(), "kept", "errors")
    assert [span["operation_name"] for span in trace["spans"]] == ["checkout", "op"]


async def test_an_id_of_any_text_is_found_again() -> None:
    """Text that is no hex is hashed in URLs as it is at the intake, slashes and all."""
    stored = replace(CHECKOUT, trace_id=trace_id_from_text("order 17/b").hex())
    assert (await get(FakeStore([stored]), "/v1/traces/order 17/b")).status == 200


async def test_an_unknown_trace_is_404() -> None:
    """The answer names the id that was looked for."""
    response = await get(FakeStore([CHECKOUT]), "/v1/traces/abc123")
    assert response.status == 404
    assert json.loads(response.body)["trace_id"] == "00000000000000000000000000abc123"
    assert "no such trace" in json.loads(response.body)["error"]


@pytest.mark.parametrize("standing", ["pending", "dropped"])
async def test_a_trace_not_stored_but_known_says_so(standing: str) -> None:
    """Pending and dropped are answers, not absences."""
    response = await get(FakeStore(), f"/v1/traces/{trace_id(3).hex()}", {trace_id(3): standing})
    assert (response.status, json.loads(response.body)["status"]) == (200, standing)


@pytest.mark.parametrize("path", ["/v1/traces/", "/v1/traces/" + "x" * 257])
async def test_what_is_no_id_is_400(path: str) -> None:
    """Nothing, and too much, is no id."""
    response = await get(FakeStore(), path)
    assert response.status == 400
    assert "expected 1 to 256 characters" in json.loads(response.body)["error"]


async def test_a_store_that_is_away_is_503() -> None:
    """The reader is asked to come back."""
    response = await get(FakeStore(away=True), "/v1/traces/1")
    assert (response.status, dict(response.headers)["Retry-After"]) == (503, "1")


async def test_recent_traces_are_listed_newest_first() -> None:
    """Each with what a list needs to show."""
    response = await get(FakeStore([CHECKOUT, REPORT]), "/v1/traces")
    traces = json.loads(response.body)["traces"]
    assert [(t["root_service"], t["root_operation"], t["status"]) for t in traces] == [
        ("reports", "nightly", "partial"),
        ("shop", "checkout", "kept"),
    ]
    assert (traces[1]["span_count"], traces[1]["error_count"], traces[1]["services"]) == (2, 1, ["pay", "shop"])


async def test_the_list_can_be_narrowed() -> None:
    """By service and by number."""
    store = FakeStore([CHECKOUT, REPORT])
    by_service = json.loads((await get(store, "/v1/traces", service="pay")).body)["traces"]
    assert [trace["trace_id"] for trace in by_service] == [trace_id(1).hex()]
    assert len(json.loads((await get(store, "/v1/traces", limit="1")).body)["traces"]) == 1


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "ten", "1e3", "٣", "9" * 5000])
async def test_a_limit_that_is_none_is_400(limit: str) -> None:
    """The answer says what a limit may be."""
    response = await get(FakeStore(), "/v1/traces", limit=limit)
    assert response.status == 400
    assert "a number from 1 to 1000" in json.loads(response.body)["error"]


async def test_services_are_listed() -> None:
    """Every service of a stored trace, in order."""
    response = await get(FakeStore([CHECKOUT, REPORT]), "/v1/services")
    assert json.loads(response.body) == {"services": ["pay", "reports", "shop"]}


@pytest.mark.parametrize(("missing", "status"), [("", 200), ("partition 3 is recovering", 503)])
async def test_ready_says_what_is_missing(missing: str, status: int) -> None:
    """/ready is 200 when all is there, else 503 and the reason; /live is 200 either way."""
    routes = health_routes(unready=lambda: missing, metrics=lambda: "")
    ready = await ask(routes, "/ready")
    assert ready.status == status
    assert json.loads(ready.body).get("reason", "") == missing
    assert (await ask(routes, "/live")).status == 200


async def test_metrics_are_given_as_text() -> None:
    """/metrics is what it is given, in Prometheus' content type."""
    response = await ask(health_routes(unready=lambda: "", metrics=lambda: "x 1\n"), "/metrics")
    assert (response.status, response.body) == (200, b"x 1\n")
    assert dict(response.headers)["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"


class Links(HTMLParser):
    """Collects what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]


@pytest.mark.parametrize("path", ["/", "/ui", "/ui/"])
async def test_the_page_loads_nothing_from_elsewhere(path: str) -> None:
    """The page is one file: what it names is inline, and its policy forbids the rest."""
    response = await ask(ui_routes(), path)
    assert response.status == 200
    headers = dict(response.headers)
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    links = Links()
    links.feed(response.body.decode())
    assert links.loaded
    assert all(link.startswith(("data:", "#")) for link in links.loaded)
    assert b"innerHTML" not in response.body  # what strangers sent is only ever set as text
