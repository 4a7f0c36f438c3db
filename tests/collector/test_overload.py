"""What a stock exporter does when it is told to come back: it comes back, and nothing is dropped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from spanloom.adapters.grpc import GrpcDoor, serve_grpc
from spanloom.adapters.http import open_listeners, serve_http
from spanloom.collector.otlp_grpc import otlp_methods
from spanloom.collector.otlp_http import otlp_routes
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.codec.transcode import OTLP_PROTO
from spanloom.core.http_routes import Router
from spanloom.errors import Overloaded, SourceUnavailable, SpanloomError
from tests.collector.doors import FakeDoor, Taken


class DoorThatOpensLater(FakeDoor):
    """Turns the first request away."""

    async def accept(self, body: bytes, *, size_bytes: int, encoding: str = OTLP_PROTO) -> Taken:
        failure, self.failure = self.failure, None
        if failure:
            raise failure
        return await super().accept(body, size_bytes=size_bytes, encoding=encoding)


def some_spans() -> list[ReadableSpan]:
    tracer = TracerProvider().get_tracer("tests")
    spans = [tracer.start_span(f"span {number}") for number in range(3)]
    for span in spans:
        span.end()
    return [span for span in spans if isinstance(span, ReadableSpan)]


@asynccontextmanager
async def exporter_to(door: FakeDoor, protocol: str) -> AsyncIterator[SpanExporter]:
    """A stock exporter whose server hands over to *door*."""
    async with trio.open_nursery() as nursery:
        if protocol == "grpc":
            serve = partial(serve_grpc, GrpcDoor("127.0.0.1", 0), otlp_methods(door))
            port = await nursery.start(serve)
            exporter: SpanExporter = GrpcExporter(endpoint=f"http://127.0.0.1:{port}", insecure=True, timeout=20)
        else:
            listeners = await open_listeners("127.0.0.1", 0)
            port = listeners[0].socket.getsockname()[1]
            nursery.start_soon(serve_http, listeners, Router(otlp_routes(door)).handle)
            exporter = HttpExporter(endpoint=f"http://127.0.0.1:{port}/v1/traces", timeout=20)
        yield exporter
        await trio.to_thread.run_sync(exporter.shutdown)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("failure", [Overloaded("full"), SourceUnavailable("away")])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_stock_exporter_that_is_turned_away_delivers_later(protocol: str, failure: SpanloomError) -> None:
    """Refused once for overload or an outage, the exporter tries again by itself and reports success."""
    door = DoorThatOpensLater(failure)
    with trio.fail_after(30):
        async with exporter_to(door, protocol) as exporter:
            result = await trio.to_thread.run_sync(exporter.export, some_spans())
    assert (result, door.failure) == (SpanExportResult.SUCCESS, None)
    (body,) = door.requests
    assert len(decode_spans(body)) == 3
