"""Zipkin's v2 JSON, an array of spans, as OTLP.

A span has `traceId` (16 or 32 hex digits), `id`, perhaps `parentId`, `name`, `kind`, `timestamp` and `duration` (µs),
`localEndpoint`, `remoteEndpoint`, `annotations`, `tags`, `shared` and `debug`. The mapping is OpenTelemetry's for
Zipkin: the local service is the resource's, annotations are events, a tag `error` whose value is not `false` is status
ERROR. A shared span (a server's half of a client's span, under one id) stays a span of its own: its kind tells them
apart. Source: the Zipkin v2 API description, zipkin2-api.yaml; the OpenTelemetry specification, "Zipkin".
"""

from collections.abc import Iterator

from opentelemetry.proto.trace.v1 import trace_pb2

from spanloom.core.codec.ids import span_id_from_text, trace_id_from_text
from spanloom.core.codec.json_text import JsonValue, parse_json, wrong_json
from spanloom.core.codec.transcoded import Grouped, Transcoded
from spanloom.errors import DecodeError

_US_MAX = ((1 << 64) - 1) // 1_000  # of a time and a duration together: the year 2554
_KINDS = {
    None: trace_pb2.Span.SPAN_KIND_UNSPECIFIED,
    "CLIENT": trace_pb2.Span.SPAN_KIND_CLIENT,
    "SERVER": trace_pb2.Span.SPAN_KIND_SERVER,
    "PRODUCER": trace_pb2.Span.SPAN_KIND_PRODUCER,
    "CONSUMER": trace_pb2.Span.SPAN_KIND_CONSUMER,
}
_ENDPOINTS = {"localEndpoint": "network.local", "remoteEndpoint": "network.peer"}  # attributes `X.address`, `X.port`
_STATUS_TAGS = ("error", "otel.status_code", "otel.status_description")

JsonObject = dict[str, JsonValue]


def traces_data_from_zipkin(text: bytes) -> Transcoded:
    """Read a body span by span. Raises DecodeError if it is no JSON array, or if none of its spans can be read."""
    items = parse_json(text)
    if not isinstance(items, list):
        raise wrong_json("$", "an array of spans", items)
    grouped = Grouped()
    for index, item in enumerate(items):
        path = f"$[{index}]"
        try:
            span = _object(item, path)
            grouped.add(_service(span, path), _span(span, path))
        except DecodeError as fault:
            grouped.reject(fault)
    return grouped.result()


def _span(item: JsonObject, path: str) -> trace_pb2.Span:
    kind = item.get("kind")
    if kind is not None and (not isinstance(kind, str) or kind not in _KINDS):
        raise wrong_json(f"{path}.kind", "CLIENT, SERVER, PRODUCER or CONSUMER", kind)
    events = list(_events(item, path))
    start_us = _microseconds(item, "timestamp", path) or min((at_us for at_us, _ in events), default=0)
    end_us = start_us + _microseconds(item, "duration", path)
    if end_us > _US_MAX:
        raise DecodeError("json", f"timestamp and duration before the year 2554 at {path}", f"{end_us} µs")
    span = trace_pb2.Span(
        trace_id=trace_id_from_text(_text(item, "traceId", path)),
        span_id=span_id_from_text(_text(item, "id", path)),
        name=_text(item, "name", path) if item.get("name") is not None else "",
        kind=_KINDS[kind],
        start_time_unix_nano=start_us * 1_000,
        end_time_unix_nano=end_us * 1_000,
        events=[trace_pb2.Span.Event(time_unix_nano=at_us * 1_000, name=value) for at_us, value in events],
    )
    if item.get("parentId") not in (None, ""):
        span.parent_span_id = span_id_from_text(_text(item, "parentId", path))
    _set_tags(span, item, path)
    _set_endpoints(span, item, path)
    for name in ("shared", "debug"):
        if item.get(name) is True:
            span.attributes.add(key=f"zipkin.{name}").value.bool_value = True
    return span


def _set_tags(span: trace_pb2.Span, item: JsonObject, path: str) -> None:
    tags = _object(item["tags"], f"{path}.tags") if item.get("tags") is not None else {}
    for key, value in tags.items():
        if not isinstance(value, str):
            raise wrong_json(f"{path}.tags", "texts", value)
        if key not in _STATUS_TAGS:
            span.attributes.add(key=_clean(key)).value.string_value = _clean(value)
    error, code = tags.get("error"), tags.get("otel.status_code")
    if code == "ERROR" or (isinstance(error, str) and error != "false"):
        span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        described = tags.get("otel.status_description") or error
        if isinstance(described, str) and described != "true":
            span.status.message = _clean(described)
    elif code == "OK":
        span.status.code = trace_pb2.Status.STATUS_CODE_OK


def _set_endpoints(span: trace_pb2.Span, item: JsonObject, path: str) -> None:
    for name, prefix in _ENDPOINTS.items():
        if item.get(name) is None:
            continue
        where = f"{path}.{name}"
        endpoint = _object(item[name], where)
        for family in ("ipv4", "ipv6"):
            if endpoint.get(family):
                span.attributes.add(key=f"{prefix}.address").value.string_value = _text(endpoint, family, where)
                break
        if endpoint.get("port"):
            port = endpoint["port"]
            if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
                raise wrong_json(f"{where}.port", "a port", port)
            span.attributes.add(key=f"{prefix}.port").value.int_value = port
        if name == "remoteEndpoint" and endpoint.get("serviceName"):
            span.attributes.add(key="peer.service").value.string_value = _text(endpoint, "serviceName", where)


def _service(item: JsonObject, path: str) -> str:
    """The local endpoint's; empty if it names none."""
    if item.get("localEndpoint") is None:
        return ""
    endpoint = _object(item["localEndpoint"], f"{path}.localEndpoint")
    return _text(endpoint, "serviceName", f"{path}.localEndpoint") if endpoint.get("serviceName") else ""


def _events(item: JsonObject, path: str) -> Iterator[tuple[int, str]]:
    """Each annotation's time in µs and its value."""
    annotations = item.get("annotations")
    if annotations is None:
        return
    if not isinstance(annotations, list):
        raise wrong_json(f"{path}.annotations", "an array", annotations)
    for index, annotation in enumerate(annotations):
        where = f"{path}.annotations[{index}]"
        each = _object(annotation, where)
        yield _microseconds(each, "timestamp", where), _text(each, "value", where)


def _microseconds(item: JsonObject, name: str, path: str) -> int:
    """A whole number of µs; 0 if it is not there."""
    value = item.get(name)
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _US_MAX:
        raise wrong_json(f"{path}.{name}", "a time in µs", value)
    return round(value)


def _object(value: JsonValue, path: str) -> JsonObject:
    if not isinstance(value, dict):
        raise wrong_json(path, "an object", value)
    return value


def _text(item: JsonObject, name: str, path: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise wrong_json(f"{path}.{name}", "text", value)
    return _clean(value)


def _clean(text: str) -> str:
    """Lone surrogates are no text and protobuf refuses them."""
    return text.encode("utf-8", "replace").decode()
