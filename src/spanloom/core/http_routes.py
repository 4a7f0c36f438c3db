"""Which handler answers a request, and what an error is answered with: one table each, no IO.

Shared by the collector and the query API, so that 404, 405 and every error look the same on both. A pattern is a
path whose segments are literal, `{name}` (one segment, not empty) or, once, `{name*}` (as many as are left over,
slashes included, perhaps empty). Status codes follow RFC 9110.
"""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from spanloom.core.codec.json_text import JsonValue
from spanloom.errors import DecodeError, SpanloomError, Unavailable
from spanloom.model import HttpRequest, HttpResponse

JSON_TYPE = "application/json"
RETRY_AFTER_S = 1  # what is away or full is asked again soon; exporters back off by themselves after that
UNROUTED = "unrouted"  # one metric label for every path nobody answers: paths are the sender's to invent

RouteHandler = Callable[[HttpRequest, Mapping[str, str]], Awaitable[HttpResponse]]

_STATUS_OF_REASON = {  # DecodeError.reason; any other is 400
    "too_large": 413,
    "content_type": 415,
    "content_encoding": 415,
}
_ASKED_FOR = {"content_type": "Accept", "content_encoding": "Accept-Encoding"}  # the header that says what we read


class Route(NamedTuple):
    """A method, a path pattern and who answers. A GET route answers HEAD too: the server leaves the body out."""

    method: str
    pattern: str
    handler: RouteHandler


def json_response(status: int, value: JsonValue, headers: tuple[tuple[str, str], ...] = ()) -> HttpResponse:
    """A response whose body is *value*; NaN and infinities raise ValueError, they are not JSON."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return HttpResponse(status, (("Content-Type", JSON_TYPE), *headers), body.encode("utf-8", "backslashreplace"))


def text_response(status: int, text: str, content_type: str = "text/plain; charset=utf-8") -> HttpResponse:
    """A response whose body is *text*."""
    return HttpResponse(status, (("Content-Type", content_type),), text.encode())


def error_status(error: SpanloomError) -> tuple[int, tuple[tuple[str, str], ...]]:
    """The status *error* is answered with, and the headers that go with it. One nobody foresaw is raised again."""
    match error:
        case DecodeError(reason=reason):
            asked_for = _ASKED_FOR.get(reason)
            return _STATUS_OF_REASON.get(reason, 400), ((asked_for, error.expected),) if asked_for else ()
        case Unavailable():
            return 503, (("Retry-After", str(RETRY_AFTER_S)),)
    raise error


def error_response(error: SpanloomError) -> HttpResponse:
    """*error* as a JSON answer."""
    status, headers = error_status(error)
    return json_response(status, {"error": str(error)}, headers)


def media_type(request: HttpRequest) -> str:
    """The request's content type in lower case, parameters left out; empty if it names none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def match_path(pattern: str, path: str) -> dict[str, str] | None:
    """What *path* puts into the pattern's places, or None if it does not fit."""
    wanted, found = pattern.split("/"), path.split("/")
    cut = next((place for place, want in enumerate(wanted) if want.endswith("*}")), None)
    if cut is not None:
        if len(found) < len(wanted):
            return None
        rest = len(found) - (len(wanted) - cut - 1)
        found[cut:rest] = ["/".join(found[cut:rest])]
    if len(found) != len(wanted):
        return None
    places = {}
    for want, have in zip(wanted, found, strict=True):
        if not want.startswith("{"):
            if want != have:
                return None
        elif have or want.endswith("*}"):
            places[want.strip("{*}")] = have
        else:
            return None
    return places


class Router:
    """Dispatches requests over a table of routes, the first that fits, and counts the answers."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)
        self._answers: Counter[tuple[str, int]] = Counter()

    async def handle(self, request: HttpRequest) -> HttpResponse:
        """The route's answer, or 404, or 405. Errors of ours become answers; a bug passes through."""
        method = "GET" if request.method == "HEAD" else request.method
        matches = [(route, match_path(route.pattern, request.path)) for route in self._routes]
        fits = [(route, places) for route, places in matches if places is not None]
        if not fits:
            return self._counted(UNROUTED, json_response(404, {"error": f"no such path: {request.path}"}))
        for route, places in fits:
            if route.method == method:
                try:
                    response = await route.handler(request, places)
                except SpanloomError as error:
                    response = error_response(error)
                return self._counted(route.pattern, response)
        allowed = {route.method for route, _ in fits}
        allow = ", ".join(sorted(allowed | ({"HEAD"} if "GET" in allowed else set())))
        body: dict[str, JsonValue] = {"error": f"{request.method} is not allowed here, only {allow}"}
        return self._counted(fits[0][0].pattern, json_response(405, body, (("Allow", allow),)))

    def _counted(self, route: str, response: HttpResponse) -> HttpResponse:
        self._answers[route, response.status] += 1
        return response

    def statistics(self) -> Mapping[tuple[str, int], int]:
        """Answers so far, by (route pattern, status)."""
        return dict(self._answers)
