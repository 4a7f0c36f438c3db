"""POST /v1/spans: the seed's JSON."""

import json

import pytest

from spanloom.collector.seed_http import seed_routes
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.http_routes import Router
from spanloom.errors import Overloaded
from spanloom.model import HttpRequest, HttpResponse
from tests.collector.doors import FakeDoor

SPAN = {
    "trace_id": "abc123",
    "span_id": "1",
    "service_name": "order-service",
    "operation_name": "getOrder",
    "start_time": 1705312245000000,
    "duration": 350000000,
    "tags": {},
}


async def post(door: FakeDoor, body: bytes) -> HttpResponse:
    return await Router(seed_routes(door)).handle(HttpRequest("POST", "/v1/spans", {}, {}, body))


async def test_a_span_of_the_seed_is_accepted() -> None:
    """The seed's own example goes in, whatever its content type."""
    door = FakeDoor()
    response = await post(door, json.dumps(SPAN).encode())
    assert (response.status, json.loads(response.body)) == (200, {"accepted": 1, "rejected": 0, "reason": ""})
    assert decode_spans(door.requests[0])[0].name == "getOrder"


async def test_a_bad_span_among_good_ones_is_counted() -> None:
    """The others are taken and the first fault is named."""
    response = await post(FakeDoor(), json.dumps([SPAN, {**SPAN, "duration": -1}, SPAN]).encode())
    answer = json.loads(response.body)
    assert (response.status, answer["accepted"], answer["rejected"]) == (200, 2, 1)
    assert "$[1].duration" in answer["reason"]


@pytest.mark.parametrize("body", [b"", b"{}", b"nothing", json.dumps([{**SPAN, "span_id": ""}]).encode()])
async def test_a_body_of_no_good_span_is_400(body: bytes) -> None:
    """Nothing went in, and the answer says why."""
    door = FakeDoor()
    response = await post(door, body)
    assert response.status == 400
    assert "expected" in json.loads(response.body)["error"]
    assert door.requests == []


async def test_an_overloaded_intake_is_503() -> None:
    """The sender is asked to come back."""
    response = await post(FakeDoor(Overloaded("full")), json.dumps(SPAN).encode())
    assert (response.status, dict(response.headers)["Retry-After"]) == (503, "1")
