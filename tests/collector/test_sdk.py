"""The stock OpenTelemetry SDK against the real server."""

import sys
from pathlib import Path

import pytest
import trio

from spanloom.adapters.http import HttpCounters, open_listeners, serve_http
from spanloom.collector.otlp_http import otlp_routes
from spanloom.core.codec.otlp import decode_spans
from spanloom.core.http_routes import Router
from spanloom.model import Span
from tests.collector.doors import FakeDoor

PROGRAM = Path(__file__).with_name("sdk_program.py")


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_stock_sdk_program_sends_a_trace_that_arrives_whole(compression: str) -> None:
    """An unmodified exporter's nested trace with an error comes in span for span, attribute for attribute."""
    door, counters = FakeDoor(), HttpCounters()
    listeners = await open_listeners("127.0.0.1", 0)
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: serve_http(listeners, Router(otlp_routes(door)).handle, counters=counters))
        with trio.fail_after(60):
            command = [sys.executable, str(PROGRAM), f"http://127.0.0.1:{port}/v1/traces", compression]
            ran = await trio.run_process(command, capture_stdout=True, capture_stderr=True)
        nursery.cancel_scope.cancel()

    assert ran.stderr == b""
    spans = {span.name: span for body in door.requests for span in decode_spans(body)}
    assert set(spans) == {"checkout", "reserve", "charge"}
    assert {span.trace_id.hex() for span in spans.values()} == {ran.stdout.decode().strip()}
    assert {span.service for span in spans.values()} == {"shop"}
    root, reserve, charge = spans["checkout"], spans["reserve"], spans["charge"]
    assert root.parent_span_id == b""
    assert reserve.parent_span_id == charge.parent_span_id == root.span_id
    assert (root.kind, reserve.kind, charge.kind) == (2, 1, 3)
    assert (root.error, reserve.error, charge.error) == (False, False, True)
    assert charge.status_message == "ValueError: card declined"
    assert reserve.attributes == {"items": 3}
    assert root.resource["service.version"] == "1.2"
    assert exception_of(charge) == "card declined"
    assert root.start_unix_ns <= charge.start_unix_ns <= charge.end_unix_ns <= root.end_unix_ns
    assert (counters.refused, counters.crashes) == (0, 0)


def exception_of(span: Span) -> object:
    (event,) = span.events
    attributes = event["attributes"]
    assert isinstance(attributes, dict)
    return attributes["exception.message"]
