"""The seed's own way in: POST /v1/spans with JSON spans, one, an array or one a line.

The content type is not looked at, so that `curl -d` works. An answer of 200 means that the accepted spans are in the
log; those that cannot be read are counted and the first one's fault is named.
"""

from collections.abc import Mapping

from spanloom.core.http_routes import Route, json_response
from spanloom.interfaces import IntakeDoor
from spanloom.model import HttpRequest, HttpResponse


def seed_routes(door: IntakeDoor) -> list[Route]:
    """The one route of the seed's JSON spans."""

    async def post_spans(request: HttpRequest, _: Mapping[str, str]) -> HttpResponse:
        taken = await door.accept(request.body, size_bytes=len(request.body), encoding="seed_json")
        return json_response(200, {"accepted": taken.accepted, "rejected": taken.rejected, "reason": taken.reason})

    return [Route("POST", "/v1/spans", post_spans)]
