"""Who may send: requests that carry one of our tokens (RFC 6750), compared in constant time. No IO."""

import hmac
from collections.abc import Mapping, Sequence

from spanloom.core.http_routes import json_response
from spanloom.model import HttpResponse

OPEN_PATHS = frozenset({"/live", "/ready", "/metrics"})  # what probes ask, and they carry no token


def is_admitted(authorization: str, tokens: Sequence[str]) -> bool:
    """Whether an Authorization header names one of *tokens*; where there are none, everybody is admitted."""
    scheme, _, given = authorization.partition(" ")
    found = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in tokens]  # all, for equal times
    return not tokens or (scheme.lower() == "bearer" and any(found))


class BearerGate:
    """Refuses an HTTP request by its head, before its body is read."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tuple(tokens)

    def __call__(self, path: str, headers: Mapping[str, str]) -> HttpResponse | None:
        """The refusal, or None: let it in."""
        if path in OPEN_PATHS or is_admitted(headers.get("authorization", ""), self._tokens):
            return None
        return json_response(401, {"error": "expected a bearer token we know"}, (("WWW-Authenticate", "Bearer"),))
