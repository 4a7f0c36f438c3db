"""Jaeger's span, protobuf or JSON, as OTLP: what Jaeger's collector and agent put into Kafka, one span a record.

The fields of jaeger.api_v2 (model.proto of jaeger-idl) are declared below by name, number and type, which is all that
protobuf's decoders need; unknown fields are ignored. In JSON ids are base64 and times text, as protobuf's own JSON
mapping has it. A tag `span.kind` is the kind, `error` true is status ERROR, the first CHILD_OF reference into the same
trace is the parent. Source: the OpenTelemetry specification, "Jaeger", read backwards.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Protocol, cast

from google.protobuf import descriptor_pb2, descriptor_pool, duration_pb2, json_format, message_factory, timestamp_pb2
from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from spanloom.core.codec.ids import TEXT_MAX
from spanloom.core.codec.json_text import parse_json, wrong_json
from spanloom.errors import DecodeError

NESTING_MAX = 32  # objects inside objects of JSON; a span has five
_NS_MAX = (1 << 64) - 1
_FieldType = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bool": _FieldType.TYPE_BOOL,
    "bytes": _FieldType.TYPE_BYTES,
    "double": _FieldType.TYPE_DOUBLE,
    "int64": _FieldType.TYPE_INT64,
    "string": _FieldType.TYPE_STRING,
    "uint32": _FieldType.TYPE_UINT32,
}


class _ValueType(IntEnum):
    STRING = 0
    BOOL = 1
    INT64 = 2
    FLOAT64 = 3
    BINARY = 4


class _SpanRefType(IntEnum):
    CHILD_OF = 0
    FOLLOWS_FROM = 1


_ENUMS: dict[str, type[IntEnum]] = {"ValueType": _ValueType, "SpanRefType": _SpanRefType}
_TIMESTAMP, _DURATION = ".google.protobuf.Timestamp", ".google.protobuf.Duration"
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {  # field -> number, type; `*` repeats
    "KeyValue": {
        "key": (1, "string"),
        "v_type": (2, "ValueType"),
        "v_str": (3, "string"),
        "v_bool": (4, "bool"),
        "v_int64": (5, "int64"),
        "v_float64": (6, "double"),
        "v_binary": (7, "bytes"),
    },
    "Log": {"timestamp": (1, _TIMESTAMP), "fields": (2, "*KeyValue")},
    "SpanRef": {"trace_id": (1, "bytes"), "span_id": (2, "bytes"), "ref_type": (3, "SpanRefType")},
    "Process": {"service_name": (1, "string"), "tags": (2, "*KeyValue")},
    "Span": {
        "trace_id": (1, "bytes"),
        "span_id": (2, "bytes"),
        "operation_name": (3, "string"),
        "references": (4, "*SpanRef"),
        "flags": (5, "uint32"),
        "start_time": (6, _TIMESTAMP),
        "duration": (7, _DURATION),
        "tags": (8, "*KeyValue"),
        "logs": (9, "*Log"),
        "process": (10, "Process"),
        "warnings": (12, "*string"),
    },
}


class _Tag(Protocol):
    key: str
    v_type: int
    v_str: str
    v_bool: bool
    v_int64: int
    v_float64: float
    v_binary: bytes


class _Log(Protocol):
    timestamp: timestamp_pb2.Timestamp
    fields: Sequence[_Tag]


class _Reference(Protocol):
    trace_id: bytes
    span_id: bytes
    ref_type: int


class _Process(Protocol):
    service_name: str
    tags: Sequence[_Tag]


class _Span(Protocol):
    trace_id: bytes
    span_id: bytes
    operation_name: str
    references: Sequence[_Reference]
    start_time: timestamp_pb2.Timestamp
    duration: duration_pb2.Duration
    tags: Sequence[_Tag]
    logs: Sequence[_Log]
    process: _Process
    warnings: Sequence[str]


def _declared() -> type[Message]:
    """The class of jaeger.api_v2.Span."""
    package = "jaeger.api_v2"
    file = descriptor_pb2.FileDescriptorProto(name="model.proto", package=package, syntax="proto3")
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, duration_pb2):
        known_file = descriptor_pb2.FileDescriptorProto()
        known.DESCRIPTOR.CopyToProto(known_file)
        pool.Add(known_file)
        file.dependency.append(known_file.name)
    for name, members in _ENUMS.items():
        enum = file.enum_type.add(name=name)
        for member in members:
            enum.value.add(name=member.name, number=member.value)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, written) in fields.items():
            field = message.field.add(name=field_name, number=number)
            field.label = _FieldType.LABEL_REPEATED if written.startswith("*") else _FieldType.LABEL_OPTIONAL
            kind = written.lstrip("*")
            if kind in _SCALARS:
                field.type = _SCALARS[kind]
            else:
                field.type = _FieldType.TYPE_ENUM if kind in _ENUMS else _FieldType.TYPE_MESSAGE
                field.type_name = kind if kind.startswith(".") else f".{package}.{kind}"
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Span"))


_SPAN_CLASS = _declared()


def traces_data_from_jaeger_proto(value: bytes) -> bytes:
    """OTLP of one span. Raises DecodeError; an id of the wrong length is left to who splits the spans."""
    message = _SPAN_CLASS()
    try:
        message.ParseFromString(value)
    except ProtobufError as exc:
        raise DecodeError("jaeger", "a jaeger.api_v2.Span", str(exc)) from exc
    return _traces_data(cast(_Span, message))


def traces_data_from_jaeger_json(text: bytes) -> bytes:
    """OTLP of one span. Raises DecodeError."""
    value = parse_json(text)
    if not isinstance(value, dict):
        raise wrong_json("$", "a span object", value)
    message = _SPAN_CLASS()
    try:
        json_format.ParseDict(value, message, ignore_unknown_fields=True, max_recursion_depth=NESTING_MAX)
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as exc:  # the last two: it is lax with types
        raise DecodeError("jaeger", "a jaeger.api_v2.Span in JSON", str(exc)[:TEXT_MAX]) from exc
    return _traces_data(cast(_Span, message))


def _traces_data(jaeger: _Span) -> bytes:
    start_ns = _nanoseconds(jaeger.start_time, "start_time")
    span = trace_pb2.Span(
        trace_id=_padded(jaeger.trace_id, 16),
        span_id=_padded(jaeger.span_id, 8),
        name=jaeger.operation_name,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=min(start_ns + _nanoseconds(jaeger.duration, "duration"), _NS_MAX),
    )
    _set_references(span, jaeger.references)
    _set_tags(span, jaeger.tags)
    for log in jaeger.logs:
        event = span.events.add(time_unix_nano=_nanoseconds(log.timestamp, "logs.timestamp"))
        for field in log.fields:
            if field.key == "event" and field.v_type == _ValueType.STRING and not event.name:
                event.name = field.v_str
            else:
                _set_attribute(event.attributes.add(), field)
    for warning in jaeger.warnings:
        span.attributes.add(key="jaeger.warning").value.string_value = warning
    data = trace_pb2.TracesData()
    resource_spans = data.resource_spans.add()
    if jaeger.process.service_name:
        attribute = resource_spans.resource.attributes.add(key="service.name")
        attribute.value.string_value = jaeger.process.service_name
    for tag in jaeger.process.tags:
        _set_attribute(resource_spans.resource.attributes.add(), tag)
    resource_spans.scope_spans.add().spans.append(span)
    return data.SerializeToString()


def _padded(number: bytes, size: int) -> bytes:
    """Older senders leave a trace id's upper half out."""
    return number.rjust(size, b"\0") if number else b""


def _nanoseconds(time: timestamp_pb2.Timestamp | duration_pb2.Duration, path: str) -> int:
    total = time.seconds * 1_000_000_000 + time.nanos
    if not 0 <= total <= _NS_MAX:
        raise DecodeError("jaeger", f"{path} between 1970 and 2554", f"{total} ns")
    return total


def _set_references(span: trace_pb2.Span, references: Sequence[_Reference]) -> None:
    """The parent is the first CHILD_OF of the same trace, else the first reference into it; the others are links."""
    own = [each for each in references if _padded(each.trace_id, 16) == span.trace_id]
    parent = next((each for each in own if each.ref_type == _SpanRefType.CHILD_OF), own[0] if own else None)
    for each in references:
        if each is parent:
            span.parent_span_id = _padded(each.span_id, 8)
        else:
            span.links.add(trace_id=_padded(each.trace_id, 16), span_id=_padded(each.span_id, 8))


def _set_tags(span: trace_pb2.Span, tags: Iterable[_Tag]) -> None:
    for tag in tags:
        text = tag.v_str if tag.v_type == _ValueType.STRING else ""
        match tag.key:
            case "span.kind" if f"SPAN_KIND_{text.upper()}" in trace_pb2.Span.SpanKind.keys():  # noqa: SIM118 - no dict
                span.kind = trace_pb2.Span.SpanKind.Value(f"SPAN_KIND_{text.upper()}")
            case "error" if text in ("true", "false") or tag.v_type == _ValueType.BOOL:
                if tag.v_bool or text == "true":
                    span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
            case "otel.status_code" if text in ("ERROR", "OK"):
                span.status.code = trace_pb2.Status.StatusCode.Value(f"STATUS_CODE_{text}")
            case "otel.status_description":
                span.status.message = text
            case "w3c.tracestate":
                span.trace_state = text
            case _:
                _set_attribute(span.attributes.add(), tag)


def _set_attribute(target: KeyValue, tag: _Tag) -> None:
    target.key = tag.key
    match tag.v_type:
        case _ValueType.BOOL:
            target.value.bool_value = tag.v_bool
        case _ValueType.INT64:
            target.value.int_value = tag.v_int64
        case _ValueType.FLOAT64:
            target.value.double_value = tag.v_float64
        case _ValueType.BINARY:
            target.value.bytes_value = tag.v_binary
        case _:
            target.value.string_value = tag.v_str
