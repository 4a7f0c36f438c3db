"""What an operator's machinery asks: /live, /ready, /metrics."""

from collections.abc import Callable, Mapping

from spanloom.core.http_routes import Route, json_response, text_response
from spanloom.metrics import CONTENT_TYPE
from spanloom.model import HttpRequest, HttpResponse


def health_routes(*, unready: Callable[[], str], metrics: Callable[[], str]) -> list[Route]:
    """`unready` says what is missing, or nothing when all is there; `metrics` gives Prometheus' text."""

    async def live(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
        return json_response(200, {"status": "live"})

    async def ready(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
        missing = unready()
        if missing:
            return json_response(503, {"status": "not ready", "reason": missing})
        return json_response(200, {"status": "ready"})

    async def get_metrics(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
        return text_response(200, metrics(), CONTENT_TYPE)

    return [
        Route("GET", "/live", live),
        Route("GET", "/ready", ready),
        Route("GET", "/metrics", get_metrics),
    ]
