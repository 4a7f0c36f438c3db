"""Which route answers, and what errors look like."""

import json
from collections.abc import Mapping

import pytest

from spanloom.core.http_routes import Route, Router, error_response, json_response, match_path, media_type
from spanloom.errors import DecodeError, Fenced, Overloaded, SpanloomError, StoreUnavailable
from spanloom.model import HttpRequest, HttpResponse


def request(method: str = "GET", path: str = "/", headers: dict[str, str] | None = None) -> HttpRequest:
    return HttpRequest(method, path, {}, headers or {}, b"")


@pytest.mark.parametrize(
    ("pattern", "path", "places"),
    [
        ("/", "/", {}),
        ("/v1/traces", "/v1/traces", {}),
        ("/v1/traces", "/v1/traces/", None),
        ("/v1/traces/{id}", "/v1/traces/abc", {"id": "abc"}),
        ("/v1/traces/{id}", "/v1/traces/", None),
        ("/v1/traces/{id}", "/v1/traces/a/b", None),
        ("/v1/traces/{id*}", "/v1/traces", None),
        ("/v1/traces/{id*}", "/v1/traces/", {"id": ""}),
        ("/v1/traces/{id*}", "/v1/traces/a/b", {"id": "a/b"}),
        ("/{a}/x/{b}", "/1/x/2", {"a": "1", "b": "2"}),
        ("/{a}/x/{b}", "/1/y/2", None),
        ("/t/{id*}/why", "/t/a/b/why", {"id": "a/b"}),
        ("/t/{id*}/why", "/t/why/why", {"id": "why"}),
        ("/t/{id*}/why", "/t/a/b", None),
        ("/t/{id*}/why", "/t/why", None),
    ],
)
def test_patterns(pattern: str, path: str, places: dict[str, str] | None) -> None:
    """Literal segments, one-segment places and a place for the rest fit as documented."""
    assert match_path(pattern, path) == places


async def who(_: HttpRequest, places: Mapping[str, str]) -> HttpResponse:
    return json_response(200, {**places})


async def boom(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
    raise StoreUnavailable("the store is away")


async def bug(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
    raise ZeroDivisionError


ROUTES = [
    Route("GET", "/t/{id}", who),
    Route("GET", "/t", who),
    Route("POST", "/t", who),
    Route("GET", "/boom", boom),
    Route("GET", "/bug", bug),
]


async def test_a_route_answers_its_method_and_path() -> None:
    """The handler of the route that fits gets the places; HEAD is answered by GET's."""
    router = Router(ROUTES)
    assert (await router.handle(request("GET", "/t/7"))).body == b'{"id":"7"}'
    assert (await router.handle(request("HEAD", "/t/7"))).status == 200
    assert (await router.handle(request("POST", "/t"))).status == 200


async def test_an_unknown_path_is_404_and_a_wrong_method_405() -> None:
    """Both are JSON; 405 says what is allowed."""
    router = Router(ROUTES)
    missing = await router.handle(request("GET", "/nowhere"))
    assert (missing.status, json.loads(missing.body)) == (404, {"error": "no such path: /nowhere"})
    wrong = await router.handle(request("DELETE", "/t"))
    assert wrong.status == 405
    assert dict(wrong.headers)["Allow"] == "GET, HEAD, POST"


async def test_answers_are_counted_by_route_and_status() -> None:
    """Paths that fit no route share one name, so that senders cannot invent metrics."""
    router = Router(ROUTES)
    for path in ("/t/1", "/t/2", "/a", "/b", "/boom"):
        await router.handle(request("GET", path))
    assert router.statistics() == {("/t/{id}", 200): 2, ("unrouted", 404): 2, ("/boom", 503): 1}


async def test_our_errors_become_answers_and_bugs_do_not() -> None:
    """What is foreseen is answered; a bug is for the server to log."""
    router = Router(ROUTES)
    answer = await router.handle(request("GET", "/boom"))
    assert (answer.status, dict(answer.headers)["Retry-After"]) == (503, "1")
    with pytest.raises(ZeroDivisionError):
        await router.handle(request("GET", "/bug"))


@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (DecodeError("truncated", "3 bytes", "2"), 400, None),
        (DecodeError("too_large", "10", "more"), 413, None),
        (DecodeError("content_type", "application/json", "text/plain"), 415, ("Accept", "application/json")),
        (DecodeError("content_encoding", "gzip", "br"), 415, ("Accept-Encoding", "gzip")),
        (Overloaded("full"), 503, ("Retry-After", "1")),
        (StoreUnavailable("away"), 503, ("Retry-After", "1")),
    ],
)
def test_errors_have_a_status_each(error: SpanloomError, status: int, header: tuple[str, str] | None) -> None:
    """Malformed is 400, too large 413, unreadable 415, away or full 503 with the time to come back."""
    response = error_response(error)
    assert response.status == status
    assert header is None or header in response.headers
    assert json.loads(response.body) == {"error": str(error)}


def test_an_error_no_edge_expects_is_raised_again() -> None:
    """An error that says nothing to a sender is a bug here."""
    with pytest.raises(Fenced):
        error_response(Fenced("stop"))


def test_a_content_type_is_compared_without_its_parameters() -> None:
    """Case and charset do not matter."""
    assert media_type(request(headers={"content-type": "Application/JSON; charset=utf-8"})) == "application/json"
    assert media_type(request()) == ""


def test_lone_surrogates_do_not_break_an_answer() -> None:
    """Text that is no UTF-8 is escaped in JSON."""
    assert json.loads(json_response(200, {"x": "\ud800é"}).body) == {"x": "\ud800é"}
