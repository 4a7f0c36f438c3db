"""OTLP over gRPC: TraceService/Export. An answer of OK means that the spans are in the log.

Source: opentelemetry.io, OTLP specification 1.x, "OTLP/gRPC".
"""

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from spanloom.core.rpc import RpcAnswer, RpcMethod, rpc_status
from spanloom.errors import DecodeError, Unavailable
from spanloom.interfaces import IntakeDoor

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def otlp_methods(door: IntakeDoor) -> dict[str, RpcMethod]:
    """The one method of OTLP/gRPC traces."""

    async def export(traces_data: bytes) -> RpcAnswer:
        try:
            accepted = await door.accept(traces_data, size_bytes=len(traces_data))
        except (DecodeError, Unavailable) as error:
            return RpcAnswer(status=rpc_status(error))
        if not accepted.rejected:
            return RpcAnswer()  # an ExportTraceServiceResponse without fields is no byte
        partial = ExportTracePartialSuccess(rejected_spans=accepted.rejected, error_message=accepted.reason)
        return RpcAnswer(ExportTraceServiceResponse(partial_success=partial).SerializeToString())

    return {EXPORT: export}
