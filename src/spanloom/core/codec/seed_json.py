"""The seed's JSON span, in and out.

A span is an object: `trace_id`, `span_id`, `service_name`, `operation_name` (text), `start_time` (µs since 1970),
`duration` (ns, or in `duration_unit`: ns, us, ms, s), and perhaps `parent_span_id`, `tags` (an object), `error` (bool,
as is a tag `error` of the OpenTracing convention) and `kind` (an OTLP kind by name or number). Other fields are
ignored. A body is one object, an array of them, or one a line. Ids are read as `core/codec/ids.py` says.
"""

import base64
import math
from collections.abc import Iterator

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from spanloom.core.codec.ids import span_id_from_text, trace_id_from_text
from spanloom.core.codec.json_text import JsonValue, parse_json, wrong_json
from spanloom.core.codec.transcoded import Grouped, Transcoded
from spanloom.errors import DecodeError
from spanloom.model import AttributeValue, Span, SpanKind

TAG_NESTING_MAX = 16  # values inside values; each costs up to three messages of the 100 protobuf's decoder takes
_NS_PER_UNIT = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_U64_MAX = (1 << 64) - 1
_I64_MIN, _I64_MAX = -(1 << 63), (1 << 63) - 1


def traces_data_from_seed(text: bytes) -> Transcoded:
    """Read a body span by span. Raises DecodeError if it is no JSON, or if none of its spans can be read."""
    grouped = Grouped()
    for path, item in _items(text):
        if isinstance(item, DecodeError):
            grouped.reject(item)
            continue
        try:
            grouped.add(*_span(item, path))
        except DecodeError as fault:
            grouped.reject(fault)
    return grouped.result()


def _items(text: bytes) -> Iterator[tuple[str, JsonValue | DecodeError]]:
    """Each would-be span and its JSON path; a line that is no JSON comes as the error it is."""
    try:
        whole = parse_json(text)
    except DecodeError:
        lines = [(number, line) for number, line in enumerate(text.split(b"\n"), 1) if line.strip()]
        if len(lines) < 2:
            raise
        for number, line in lines:
            try:
                yield f"line {number}: $", parse_json(line)
            except DecodeError as exc:
                yield "", DecodeError(exc.reason, f"{exc.expected} on line {number}", exc.found, exc.position)
        return
    if isinstance(whole, list):
        for index, item in enumerate(whole):
            yield f"$[{index}]", item
    else:
        yield "$", whole


def _span(item: JsonValue, path: str) -> tuple[str, trace_pb2.Span]:
    """One span and its service."""
    if not isinstance(item, dict):
        raise wrong_json(path, "a span object", item)
    start_ns = _integer(item, "start_time", path) * 1_000
    unit = item.get("duration_unit", "ns")
    if not isinstance(unit, str) or unit not in _NS_PER_UNIT:
        raise wrong_json(f"{path}.duration_unit", ", ".join(_NS_PER_UNIT), unit)
    end_ns = start_ns + round(_number(item, "duration", path) * _NS_PER_UNIT[unit])
    if end_ns > _U64_MAX:
        raise DecodeError("json", f"start_time and duration before the year 2554 at {path}", f"{end_ns} ns")
    span = trace_pb2.Span(
        trace_id=trace_id_from_text(_text(item, "trace_id", path)),
        span_id=span_id_from_text(_text(item, "span_id", path)),
        name=_text(item, "operation_name", path),
        kind=trace_pb2.Span.SpanKind.ValueType(_kind(item.get("kind"), path)),
        start_time_unix_nano=start_ns,
        end_time_unix_nano=end_ns,
    )
    if item.get("parent_span_id") not in (None, ""):
        span.parent_span_id = span_id_from_text(_text(item, "parent_span_id", path))
    tags = item.get("tags")
    if tags is not None and not isinstance(tags, dict):
        raise wrong_json(f"{path}.tags", "an object", tags)
    for key, value in (tags or {}).items():
        _set_value(span.attributes.add(key=_clean(key)).value, value, f"{path}.tags", 1)
    if _is_error(item, tags or {}, path):
        span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    return _text(item, "service_name", path), span


def _clean(text: str) -> str:
    """Lone surrogates are no text and protobuf refuses them."""
    return text.encode("utf-8", "replace").decode()


def _text(item: dict[str, JsonValue], name: str, path: str) -> str:
    value = item.get(name)
    if not isinstance(value, str) or not value:
        raise wrong_json(f"{path}.{name}", "text", value)
    return _clean(value)


def _number(item: dict[str, JsonValue], name: str, path: str) -> int | float:
    value = item.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _U64_MAX:
        raise wrong_json(f"{path}.{name}", "a number, not negative", value)
    return value


def _integer(item: dict[str, JsonValue], name: str, path: str) -> int:
    return round(_number(item, name, path))


def _kind(value: JsonValue, path: str) -> int:
    if value is None:
        return SpanKind.UNSPECIFIED
    if isinstance(value, str) and value.upper() in SpanKind.__members__:
        return SpanKind[value.upper()]
    if isinstance(value, int) and not isinstance(value, bool) and value in list(SpanKind):
        return value
    raise wrong_json(f"{path}.kind", f"one of {', '.join(kind.name.lower() for kind in SpanKind)}", value)


def _is_error(item: dict[str, JsonValue], tags: dict[str, JsonValue], path: str) -> bool:
    error = item.get("error")
    if error is None:
        return tags.get("error") in (True, "true")
    if not isinstance(error, bool):
        raise wrong_json(f"{path}.error", "true or false", error)
    return error


def _set_value(target: AnyValue, value: JsonValue, path: str, depth: int) -> None:
    if depth > TAG_NESTING_MAX:
        raise DecodeError("json", f"at most {TAG_NESTING_MAX} levels in {path}", "more")
    match value:
        case bool():
            target.bool_value = value
        case str():
            target.string_value = _clean(value)
        case int() if _I64_MIN <= value <= _I64_MAX:
            target.int_value = value
        case int():
            target.string_value = str(value)  # exact, where a double would round
        case float():
            target.double_value = value
        case list():
            target.array_value.SetInParent()
            for item in value:
                _set_value(target.array_value.values.add(), item, path, depth + 1)
        case dict():
            target.kvlist_value.SetInParent()
            for key, item in value.items():
                _set_value(target.kvlist_value.values.add(key=_clean(key)).value, item, path, depth + 1)


def span_to_seed_json(span: Span) -> dict[str, JsonValue]:
    """*span* in the seed's field names, and `kind`, `status` and what else is known of it. Duration is in ns."""
    duration = span.end_unix_ns - span.start_unix_ns if span.start_unix_ns and span.end_unix_ns else 0
    kind = SpanKind(span.kind).name.lower() if span.kind in list(SpanKind) else str(span.kind)
    seed: dict[str, JsonValue] = {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "service_name": span.service,
        "operation_name": span.name,
        "start_time": span.start_unix_ns // 1_000,
        "duration": max(duration, 0),
        "tags": json_object(span.attributes),
        "error": span.error,
        "kind": kind,
        "status": "error" if span.error else "ok",
        "resource": json_object(span.resource),
    }
    if span.status_message:
        seed["status_message"] = span.status_message
    if span.events:
        seed["events"] = [json_object(event) for event in span.events]
    if span.undecodable:
        seed["undecodable"] = span.undecodable
    return seed


def json_object(attributes: dict[str, AttributeValue]) -> dict[str, JsonValue]:
    """Attributes as JSON can say them."""
    return {key: _json_value(value) for key, value in attributes.items()}


def _json_value(value: AttributeValue) -> JsonValue:
    """JSON has neither bytes (base64, as in OTLP/JSON) nor NaN and infinities (their names)."""
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case list():
            return [_json_value(item) for item in value]
        case dict():
            return json_object(value)
    return value
