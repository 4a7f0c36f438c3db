"""OTLP/gRPC: what is taken, and how each outcome is said."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from spanloom.collector.otlp_grpc import EXPORT, otlp_methods
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.rpc import RpcAnswer, RpcCode
from spanloom.errors import Overloaded, SourceUnavailable, SpanloomError
from tests.collector.doors import FakeDoor
from tests.spans import Sp, traces_data

GOOD, CHILD = Sp(1, 1, name="root"), Sp(1, 2, parent=1, error=True)


async def export(door: FakeDoor, body: bytes) -> RpcAnswer:
    return await otlp_methods(door)[EXPORT](body)


async def test_a_request_is_handed_over_as_it_came() -> None:
    """The bytes reach the door unchanged, and the answer is an empty response."""
    door = FakeDoor()
    answer = await export(door, traces_data([GOOD, CHILD]))
    assert (answer.status.code, answer.body) == (RpcCode.OK, b"")
    assert door.requests == [traces_data([GOOD, CHILD])]


async def test_a_request_of_no_spans_is_accepted() -> None:
    """An empty request is a good one."""
    assert (await export(FakeDoor(), b"")).status.code is RpcCode.OK


async def test_rejected_spans_are_a_partial_success() -> None:
    """A span with a bad id is counted and named in the response; the others went in."""
    door = FakeDoor()
    request = ExportTraceServiceRequest.FromString(traces_data([GOOD, CHILD]))
    request.resource_spans[0].scope_spans[0].spans[1].span_id = b"short"
    answer = await export(door, request.SerializeToString())
    partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert (answer.status.code, partial.rejected_spans) == (RpcCode.OK, 1)
    assert partial.error_message.startswith("span_id of the span at byte ")
    assert len(decode_spans(door.requests[0])) == 1


@pytest.mark.parametrize("body", [b"junk", b"\x0a\x05abc", b"\x0b", traces_data([GOOD])[:-1]])
async def test_malformed_bytes_are_an_invalid_argument(body: bytes) -> None:
    """What is no OTLP is refused for good: no sender sends it again."""
    door = FakeDoor()
    answer = await export(door, body)
    assert (answer.status.code, answer.status.retry_after_s) == (RpcCode.INVALID_ARGUMENT, 0)
    assert "expected" in answer.status.message
    assert door.requests == []


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (Overloaded("the intake is full"), RpcCode.RESOURCE_EXHAUSTED),
        (SourceUnavailable("the disk is full"), RpcCode.UNAVAILABLE),
    ],
)
async def test_what_cannot_be_taken_now_is_asked_for_again(failure: SpanloomError, code: RpcCode) -> None:
    """Overloaded or away: the sender is told when to come back."""
    answer = await export(FakeDoor(failure), traces_data([GOOD]))
    assert (answer.status.code, answer.status.message) == (code, str(failure))
    assert answer.status.retry_after_s > 0


@given(body=st.binary() | st.binary().map(lambda tail: traces_data([GOOD]) + tail))
def test_no_message_crashes_the_collector(body: bytes) -> None:
    """Whatever is sent is accepted or refused as malformed."""
    assert trio.run(export, FakeDoor(), body).status.code in (RpcCode.OK, RpcCode.INVALID_ARGUMENT)
