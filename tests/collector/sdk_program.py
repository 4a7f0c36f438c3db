"""A program as its author would write it: the stock OpenTelemetry SDK and exporter, nothing of spanloom.

Usage: sdk_program.py URL COMPRESSION
"""

import sys

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind


def main() -> None:
    """Send one nested trace with an error in it, and print its id."""
    url, compression = sys.argv[1:]
    provider = TracerProvider(resource=Resource.create({"service.name": "shop", "service.version": "1.2"}))
    exporter = OTLPSpanExporter(endpoint=url, compression=Compression(compression), timeout=10)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = trace.get_tracer("sdk_program", tracer_provider=provider)
    with tracer.start_as_current_span("checkout", kind=SpanKind.SERVER) as root:
        with tracer.start_as_current_span("reserve", attributes={"items": 3}):
            pass
        try:
            with tracer.start_as_current_span("charge", kind=SpanKind.CLIENT):
                raise ValueError("card declined")
        except ValueError:
            pass
        trace_id = root.get_span_context().trace_id
    provider.shutdown()
    sys.stdout.write(f"{trace_id:032x}\n")


if __name__ == "__main__":
    main()
