"""Zipkin's way in: POST /api/v2/spans with an array of spans in Zipkin's v2 JSON.

An answer of 202 means that the spans are in the log. A body of which some spans cannot be read is answered with 202
too, and the answer, which Zipkin leaves empty, counts them and names the first one's fault.
"""

from collections.abc import Mapping

from spanloom.core.http_routes import JSON_TYPE, Route, json_response, media_type
from spanloom.errors import DecodeError
from spanloom.interfaces import IntakeDoor
from spanloom.model import HttpRequest, HttpResponse

_OTHERS = (
    "application/x-protobuf",
    "application/x-thrift",
)  # Zipkin's others; no other type is looked at


def zipkin_routes(door: IntakeDoor) -> list[Route]:
    """The one route of Zipkin's spans."""

    async def post_spans(request: HttpRequest, _: Mapping[str, str]) -> HttpResponse:
        if media_type(request) in _OTHERS:
            raise DecodeError("content_type", JSON_TYPE, media_type(request))
        taken = await door.accept(request.body, size_bytes=len(request.body), encoding="zipkin_json")
        if taken.rejected:
            return json_response(202, {"rejected": taken.rejected, "reason": taken.reason})
        return HttpResponse(202, (), b"")

    return [Route("POST", "/api/v2/spans", post_spans)]
