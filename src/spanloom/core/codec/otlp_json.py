"""An OTLP/JSON request as TracesData protobuf bytes.

The mapping is protobuf's JSON mapping with OTLP's exceptions (opentelemetry.io, OTLP specification, "JSON Protobuf
Encoding"): ids are hex of any case. It walks protobuf's own descriptors, so it knows every field OTLP has. Tolerated
as the specification asks: unknown fields; 64-bit integers as strings or numbers; enums as names or numbers; original
field names beside lowerCamelCase. Errors name the JSON path.
"""

import base64
import binascii
import re
from functools import cache

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from spanloom.core.codec.json_text import JsonValue, parse_json, wrong_json
from spanloom.errors import DecodeError

NESTING_MAX = 64  # messages inside messages; protobuf's decoders stop at 100, and what we write must be readable

_HEX_FIELDS = {"trace_id", "span_id", "parent_span_id"}
_INTEGER = re.compile(r"-?[0-9]{1,20}")  # 20 digits hold any 64-bit integer
_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED64: (0, (1 << 64) - 1),
}


def traces_data_from_json(text: bytes) -> bytes:
    """TracesData protobuf bytes. Raises DecodeError; an id of the wrong length is left to who splits the spans."""
    request = parse_json(text)
    if not isinstance(request, dict):
        raise wrong_json("$", "an object", request)
    traces_data = TracesData()
    _fill(traces_data, request, "$", 1)
    return traces_data.SerializeToString()


@cache  # one entry a message type
def _fields(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


def _fill(message: Message, value: dict[str, JsonValue], path: str, depth: int) -> None:
    """Set the fields of *message* that *value* names."""
    if depth > NESTING_MAX:
        raise DecodeError("json", f"at most {NESTING_MAX} levels", f"more at {path[:200]}")
    fields = _fields(message.DESCRIPTOR)
    for name, item in value.items():
        field = fields.get(name)
        if field is None or item is None:
            continue
        place = f"{path}.{name}"
        if not field.is_repeated:
            _set(message, field, item, (place, depth))
            continue
        if not isinstance(item, list):
            raise wrong_json(place, "an array", item)
        repeated = getattr(message, field.name)
        for index, element in enumerate(item):
            where = f"{place}[{index}]"
            if field.message_type is None:
                repeated.append(_scalar(field, element, where))
            else:
                _fill(repeated.add(), _object(element, where), where, depth + 1)


def _set(message: Message, field: FieldDescriptor, item: JsonValue, where: tuple[str, int]) -> None:
    path, depth = where
    if field.message_type is None:
        setattr(message, field.name, _scalar(field, item, path))
    else:
        child = getattr(message, field.name)
        child.SetInParent()
        _fill(child, _object(item, path), path, depth + 1)


def _object(value: JsonValue, path: str) -> dict[str, JsonValue]:
    if value is None:  # in an array: an empty message
        return {}
    if not isinstance(value, dict):
        raise wrong_json(path, "an object", value)
    return value


def _scalar(field: FieldDescriptor, value: JsonValue, path: str) -> str | bytes | bool | int | float:
    kind = field.type
    if kind == FieldDescriptor.TYPE_STRING:
        if not isinstance(value, str):
            raise wrong_json(path, "a string", value)
        return value.encode("utf-8", "replace").decode()  # lone surrogates are no text; the rest of the span is
    if kind == FieldDescriptor.TYPE_BOOL:
        if not isinstance(value, bool):
            raise wrong_json(path, "true or false", value)
        return value
    if kind == FieldDescriptor.TYPE_BYTES:
        return _hex(value, path) if field.name in _HEX_FIELDS else _base64(value, path)
    if kind == FieldDescriptor.TYPE_DOUBLE:
        return _double(value, path)
    if kind == FieldDescriptor.TYPE_ENUM:
        return _enum(field.enum_type, value, path)
    return _integer(value, path, _RANGES[kind])


def _hex(value: JsonValue, path: str) -> bytes:
    try:
        if isinstance(value, str):
            return binascii.unhexlify(value)
    except ValueError:
        pass
    raise wrong_json(path, "pairs of hex digits", value)


def _base64(value: JsonValue, path: str) -> bytes:
    try:
        if isinstance(value, str):
            digits = value.rstrip("=").replace("-", "+").replace("_", "/")  # the JSON mapping allows either alphabet
            return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        pass
    raise wrong_json(path, "base64", value)


def _double(value: JsonValue, path: str) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float | str):
        try:
            return float(value)  # "NaN", "Infinity" and "-Infinity" are the mapping's names for them
        except (ValueError, OverflowError):
            pass
    raise wrong_json(path, "a number", value)


def _enum(enum: EnumDescriptor | None, value: JsonValue, path: str) -> int:
    assert enum is not None
    if isinstance(value, str) and value in enum.values_by_name:
        return enum.values_by_name[value].number
    return _integer(value, path, _RANGES[FieldDescriptor.TYPE_INT32])


def _integer(value: JsonValue, path: str, limits: tuple[int, int]) -> int:
    number: int | None = None
    if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None or not limits[0] <= number <= limits[1]:
        raise wrong_json(path, f"an integer from {limits[0]} to {limits[1]}", value)
    return number
