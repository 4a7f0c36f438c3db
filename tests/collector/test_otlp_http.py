"""OTLP/HTTP: what is taken, and how each outcome is said."""

import json

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from spanloom.collector.otlp_http import otlp_routes
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.http_routes import Router
from spanloom.errors import Overloaded, SourceUnavailable, SpanloomError
from spanloom.model import HttpRequest, HttpResponse
from tests.collector.doors import FakeDoor
from tests.spans import Sp, span_id, trace_id, traces_data

PROTOBUF = "application/x-protobuf"
GOOD, CHILD = Sp(1, 1, name="root"), Sp(1, 2, parent=1, error=True)


async def post(door: FakeDoor, body: bytes, content_type: str | None = PROTOBUF) -> HttpResponse:
    headers = {} if content_type is None else {"content-type": content_type}
    return await Router(otlp_routes(door)).handle(HttpRequest("POST", "/v1/traces", {}, headers, body))


def type_of(response: HttpResponse) -> str:
    return dict(response.headers)["Content-Type"]


def json_request(*ids: tuple[str, str]) -> bytes:
    spans = [{"traceId": trace, "spanId": span, "name": "op"} for trace, span in ids]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


async def test_protobuf_is_handed_over_as_it_came() -> None:
    """A protobuf request reaches the door unchanged and is answered with an empty response in protobuf."""
    door = FakeDoor()
    response = await post(door, traces_data([GOOD, CHILD]))
    assert (response.status, type_of(response)) == (200, PROTOBUF)
    assert ExportTraceServiceResponse.FromString(response.body) == ExportTraceServiceResponse()
    assert door.requests == [traces_data([GOOD, CHILD])]


async def test_json_arrives_as_protobuf() -> None:
    """A JSON request reaches the door as protobuf and is answered in JSON."""
    door = FakeDoor()
    body = json_request((trace_id(1).hex(), span_id(1).hex()))
    response = await post(door, body, "application/json; charset=UTF-8")
    assert (response.status, type_of(response), response.body) == (200, "application/json", b"{}")
    (span,) = decode_spans(door.requests[0])
    assert (span.trace_id, span.span_id, span.name) == (trace_id(1), span_id(1), "op")


async def test_a_request_of_no_spans_is_accepted() -> None:
    """An empty request is a good one."""
    assert (await post(FakeDoor(), b"")).status == 200
    assert (await post(FakeDoor(), b"{}", "application/json")).status == 200


async def test_rejected_spans_are_a_partial_success_in_protobuf() -> None:
    """A span with a bad id is named in the response; the others went in."""
    door = FakeDoor()
    request = ExportTraceServiceRequest.FromString(traces_data([GOOD, CHILD]))
    request.resource_spans[0].scope_spans[0].spans[1].span_id = b"short"
    response = await post(door, request.SerializeToString())
    partial = ExportTraceServiceResponse.FromString(response.body).partial_success
    assert (response.status, partial.rejected_spans) == (200, 1)
    assert partial.error_message.startswith("span_id of the span at byte ")
    assert len(decode_spans(door.requests[0])) == 1


async def test_rejected_spans_are_a_partial_success_in_json() -> None:
    """The same in JSON, the count as a string as 64-bit integers are."""
    response = await post(
        FakeDoor(),
        json_request((trace_id(1).hex(), span_id(1).hex()), (trace_id(1).hex(), "00" * 8)),
        "application/json",
    )
    partial = json.loads(response.body)["partialSuccess"]
    assert (response.status, partial["rejectedSpans"]) == (200, "1")
    assert partial["errorMessage"].startswith("span_id of the span at byte ")


@pytest.mark.parametrize("body", [b"junk", b"\x0a\x05abc", b"\x0b", traces_data([GOOD])[:-1]])
async def test_malformed_protobuf_is_400_with_a_status(body: bytes) -> None:
    """What is no OTLP is refused with a google.rpc.Status in protobuf: code 3, INVALID_ARGUMENT."""
    door = FakeDoor()
    response = await post(door, body)
    assert (response.status, type_of(response)) == (400, PROTOBUF)
    status = ExportTracePartialSuccess.FromString(response.body)  # the same bytes as google.rpc.Status
    assert status.rejected_spans == 3
    assert "expected" in status.error_message
    assert door.requests == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"resourceSpans": 7}', b"\xff", json_request(("xyz", "1"))])
async def test_malformed_json_is_400_with_a_status(body: bytes) -> None:
    """What is no OTLP/JSON is refused with a google.rpc.Status in JSON."""
    response = await post(FakeDoor(), body, "application/json")
    assert (response.status, type_of(response)) == (400, "application/json")
    assert json.loads(response.body)["code"] == 3
    assert "expected" in json.loads(response.body)["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-thrift", "", None])
async def test_another_content_type_is_415(content_type: str | None) -> None:
    """The answer lists what is accepted."""
    response = await post(FakeDoor(), b"x", content_type)
    assert response.status == 415
    assert dict(response.headers)["Accept"] == "application/x-protobuf, application/json"
    assert "application/x-protobuf, application/json" in json.loads(response.body)["message"]


@pytest.mark.parametrize("failure", [Overloaded("the intake is full"), SourceUnavailable("the disk is full")])
async def test_what_cannot_be_taken_now_is_503(failure: SpanloomError) -> None:
    """The sender is asked to come back, in its own encoding: code 14, UNAVAILABLE."""
    response = await post(FakeDoor(failure), traces_data([GOOD]))
    assert (response.status, dict(response.headers)["Retry-After"]) == (503, "1")
    status = ExportTracePartialSuccess.FromString(response.body)
    assert (status.rejected_spans, status.error_message) == (14, str(failure))
    in_json = await post(FakeDoor(failure), b"{}", "application/json")
    assert (in_json.status, json.loads(in_json.body)) == (503, {"code": 14, "message": str(failure)})


@given(
    body=st.binary() | st.binary().map(lambda tail: traces_data([GOOD]) + tail),
    content_type=st.sampled_from([PROTOBUF, "application/json"]),
)
def test_no_body_crashes_the_collector(body: bytes, content_type: str) -> None:
    """Whatever is sent is accepted or refused as malformed."""
    assert trio.run(post, FakeDoor(), body, content_type).status in (200, 400)


async def test_only_post_is_allowed() -> None:
    """A browser that looks here is told what to do."""
    response = await Router(otlp_routes(FakeDoor())).handle(HttpRequest("GET", "/v1/traces", {}, {}, b""))
    assert (response.status, dict(response.headers)["Allow"]) == (405, "POST")
