"""The query API: GET /v1/traces/{id}, /v1/traces/{id}/decision, /v1/traces, /v1/services.

Ids in URLs are read as `core/codec/ids.py` says, so whatever a sender called a trace finds it again.
"""

from collections.abc import Mapping

from spanloom.core.codec.ids import trace_id_from_text
from spanloom.core.explain import time_ns_of, time_text
from spanloom.core.http_routes import JSON_TYPE, Route, json_response
from spanloom.core.query import summaries_json
from spanloom.errors import DecodeError
from spanloom.interfaces import TraceStore
from spanloom.model import HttpRequest, HttpResponse
from spanloom.query.decisions import DecisionReader, Unknown
from spanloom.query.traces import TraceReader

LIMIT_DEFAULT = 20
LIMIT_MAX = 1000  # TraceStore.search takes no more


def query_routes(store: TraceStore, reader: TraceReader, decisions: DecisionReader) -> list[Route]:
    """The routes of the v1 query API."""

    async def get_trace(_: HttpRequest, places: Mapping[str, str]) -> HttpResponse:
        trace_id = trace_id_from_text(places["id"])
        body = await reader.read(trace_id)
        if body is None:
            error = "no such trace: nothing of it is stored and nothing of it is known here"
            return json_response(404, {"error": error, "trace_id": trace_id.hex()})
        return HttpResponse(200, (("Content-Type", JSON_TYPE),), body)

    async def list_traces(request: HttpRequest, _: Mapping[str, str]) -> HttpResponse:
        documents = await store.search(service=request.query.get("service", ""), limit=_limit(request))
        return json_response(200, {"traces": summaries_json(documents)})

    async def list_services(_: HttpRequest, __: Mapping[str, str]) -> HttpResponse:
        return json_response(200, {"services": [*await store.services()]})

    async def get_decision(request: HttpRequest, places: Mapping[str, str]) -> HttpResponse:
        trace_id = trace_id_from_text(places["id"])
        near = request.query.get("near")
        found = await decisions.explain(trace_id, near_ns=time_ns_of(near) if near else None)
        if isinstance(found, Unknown):
            return json_response(404, {"error": _unknown(found, near), "trace_id": trace_id.hex()})
        return json_response(200, found)

    return [
        Route("GET", "/v1/traces/{id*}/decision", get_decision),
        Route("GET", "/v1/traces/{id*}", get_trace),
        Route("GET", "/v1/traces", list_traces),
        Route("GET", "/v1/services", list_services),
    ]


def _unknown(unknown: Unknown, near: str | None) -> str:
    if unknown.looked_from_ns is None:
        return "no such trace: nothing has been decided in its partition"
    if near:
        return f"no such trace: nothing was decided of it within minutes of {near}"
    return (
        f"no such trace: nothing was decided of it since {time_text(unknown.looked_from_ns)}; near=TIME looks elsewhere"
    )


def _limit(request: HttpRequest) -> int:
    text = request.query.get("limit") or str(LIMIT_DEFAULT)
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= LIMIT_MAX):
        raise DecodeError("limit", f"a number from 1 to {LIMIT_MAX}", text[:40])
    return int(text)
