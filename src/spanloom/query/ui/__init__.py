"""The web page: one static file that reads the v1 API. It loads nothing from anywhere else, and may not."""

from collections.abc import Mapping
from importlib.resources import files

from spanloom.core.http_routes import Route
from spanloom.model import HttpRequest, HttpResponse

_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-cache"),  # a new version of spanloom is a new page
    ("Content-Security-Policy", _POLICY),
    ("X-Content-Type-Options", "nosniff"),
)


def ui_routes() -> list[Route]:
    """The page, at / and /ui/."""
    page = (files(__name__) / "index.html").read_bytes()

    async def index(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
        return HttpResponse(200, _HEADERS, page)

    return [Route("GET", pattern, index) for pattern in ("/", "/ui", "/ui/")]
