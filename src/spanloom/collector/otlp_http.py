"""OTLP over HTTP: POST /v1/traces, protobuf or JSON, each answered in its own encoding.

An answer of 200 means that the spans are in the log. Source: opentelemetry.io, OTLP specification 1.x, "OTLP/HTTP".
"""

from collections.abc import Mapping

from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from spanloom.core.codec.json_text import JsonValue
from spanloom.core.http_routes import JSON_TYPE, Route, error_status, json_response, media_type
from spanloom.errors import DecodeError, Unavailable
from spanloom.interfaces import Accepted, IntakeDoor
from spanloom.model import HttpRequest, HttpResponse

PROTOBUF_TYPE = "application/x-protobuf"
_ENCODINGS = {PROTOBUF_TYPE: "otlp_proto", JSON_TYPE: "otlp_json"}
_RPC_CODES = {400: 3, 415: 3, 503: 14}  # HTTP status -> google.rpc.Code: INVALID_ARGUMENT, UNAVAILABLE


def otlp_routes(door: IntakeDoor) -> list[Route]:
    """The one route of OTLP/HTTP traces."""

    async def export(request: HttpRequest, _: Mapping[str, str]) -> HttpResponse:
        encoding = media_type(request)
        try:
            if encoding not in _ENCODINGS:
                raise DecodeError("content_type", f"{PROTOBUF_TYPE}, {JSON_TYPE}", encoding[:80] or "none")
            accepted = await door.accept(request.body, size_bytes=len(request.body), encoding=_ENCODINGS[encoding])
        except (DecodeError, Unavailable) as error:
            return _failure(error, encoding)
        return _success(accepted, encoding)

    return [Route("POST", "/v1/traces", export)]


def _success(accepted: Accepted, encoding: str) -> HttpResponse:
    """The answer to spans of which all or some went in; the sender must not send the others again."""
    if encoding == PROTOBUF_TYPE:
        message = ExportTraceServiceResponse()
        if accepted.rejected:
            message.partial_success.rejected_spans = accepted.rejected
            message.partial_success.error_message = accepted.reason
        return _protobuf(200, message, ())
    partial: dict[str, JsonValue] = {"rejectedSpans": str(accepted.rejected), "errorMessage": accepted.reason}
    return json_response(200, {"partialSuccess": partial} if accepted.rejected else {})


def _failure(error: DecodeError | Unavailable, encoding: str) -> HttpResponse:
    """A google.rpc.Status, as the specification asks."""
    status, headers = error_status(error)
    code, message = _RPC_CODES.get(status, 2), str(error)
    if encoding == PROTOBUF_TYPE:
        # Not a mistake: Status{int32 code = 1; string message = 2} has the same bytes as this message of OTLP's own,
        # which spares us a package for two fields.
        return _protobuf(status, ExportTracePartialSuccess(rejected_spans=code, error_message=message), headers)
    return json_response(status, {"code": code, "message": message}, headers)


def _protobuf(status: int, message: Message, headers: tuple[tuple[str, str], ...]) -> HttpResponse:
    return HttpResponse(status, (("Content-Type", PROTOBUF_TYPE), *headers), message.SerializeToString())
