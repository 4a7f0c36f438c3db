"""A program that exports with a stock OpenTelemetry exporter for a while and writes down what was acknowledged.

Usage: exporter_program.py grpc|http ENDPOINT none|gzip SPANS SPANS_PER_S

Prints a line `TRACE_ID SPAN_ID` for every span whose export succeeded. The exporter says on stderr when it tries again.
"""

import logging
import sys
import time
from collections.abc import Sequence

import grpc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

TIMEOUT_S = 60  # of an export with all its tries: longer than a restart takes on a loaded machine
BATCH_SPANS = 100


class Witness(SpanExporter):
    """Hands everything to the stock exporter and notes what it says."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            contexts = [span.get_span_context() for span in spans]
            lines = [f"{context.trace_id:032x} {context.span_id:016x}\n" for context in contexts if context]
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def exporter(protocol: str, endpoint: str, compression: str) -> SpanExporter:
    if protocol == "grpc":
        packed = {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}[compression]
        return GrpcExporter(endpoint=endpoint, insecure=True, compression=packed, timeout=TIMEOUT_S)
    return HttpExporter(endpoint=endpoint, compression=Compression(compression), timeout=TIMEOUT_S)


def main() -> None:
    protocol, endpoint, compression, spans, spans_per_s = sys.argv[1:]
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    provider = TracerProvider(resource=Resource.create({"service.name": f"{protocol}-{compression}"}))
    witness = Witness(exporter(protocol, endpoint, compression))
    # A queue that holds everything: what it dropped would be the SDK's doing.
    processor = BatchSpanProcessor(
        witness, max_queue_size=int(spans) + 1, schedule_delay_millis=100, max_export_batch_size=BATCH_SPANS
    )
    provider.add_span_processor(processor)
    tracer = trace.get_tracer("exporter_program", tracer_provider=provider)
    began = time.monotonic()
    for number in range(int(spans) // 2):
        with tracer.start_as_current_span("root"), tracer.start_as_current_span("child"):
            pass
        time.sleep(max(0.0, began + 2 * number / float(spans_per_s) - time.monotonic()))
    processor.force_flush(TIMEOUT_S * 1000)
    provider.shutdown()


if __name__ == "__main__":
    main()
