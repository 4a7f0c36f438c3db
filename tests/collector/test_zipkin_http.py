"""POST /api/v2/spans: Zipkin's JSON."""

import json

import pytest

from spanloom.collector.zipkin_http import zipkin_routes
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.http_routes import Router
from spanloom.errors import Overloaded
from spanloom.model import HttpRequest, HttpResponse
from tests.collector.doors import FakeDoor

SPAN = {"traceId": "5af7183fb1d4cf5f", "id": "352bff9a74ca9ad2", "name": "get", "timestamp": 1556604172355737}


async def post(door: FakeDoor, body: bytes, content_type: str = "application/json") -> HttpResponse:
    request = HttpRequest("POST", "/api/v2/spans", {}, {"content-type": content_type}, body)
    return await Router(zipkin_routes(door)).handle(request)


async def test_spans_are_accepted_as_zipkin_accepts_them() -> None:
    """202 with an empty body."""
    door = FakeDoor()
    response = await post(door, json.dumps([SPAN]).encode())
    assert (response.status, response.body) == (202, b"")
    assert decode_spans(door.requests[0])[0].name == "get"


async def test_a_bad_span_among_good_ones_is_counted() -> None:
    """The others are taken; the answer says how many were not, and why."""
    response = await post(FakeDoor(), json.dumps([SPAN, {**SPAN, "id": ""}]).encode())
    answer = json.loads(response.body)
    assert (response.status, answer["rejected"]) == (202, 1)
    assert answer["reason"].startswith("span_id")


@pytest.mark.parametrize("body", [b"", b"{}", b"nothing", json.dumps([{**SPAN, "traceId": ""}]).encode()])
async def test_a_body_of_no_good_span_is_400(body: bytes) -> None:
    """Nothing went in, and the answer says why."""
    door = FakeDoor()
    assert (await post(door, body)).status == 400
    assert door.requests == []


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/x-thrift"])
async def test_zipkin_s_other_encodings_are_415(content_type: str) -> None:
    """The answer names the one that is read."""
    response = await post(FakeDoor(), b"\x0a\x00", content_type)
    assert (response.status, dict(response.headers)["Accept"]) == (415, "application/json")


async def test_an_overloaded_intake_is_503() -> None:
    """The reporter is asked to come back."""
    response = await post(FakeDoor(Overloaded("full")), json.dumps([SPAN]).encode())
    assert (response.status, dict(response.headers)["Retry-After"]) == (503, "1")
