"""OTLP attributes to Python values, by protobuf's own decoder, which has bounded their nesting (100 messages)."""

from collections.abc import Iterable

from google.protobuf.message import DecodeError as ProtobufError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from spanloom.model import AttributeValue


def resource_attributes(resource: bytes) -> dict[str, AttributeValue]:
    """Those of a Resource message; one that cannot be read says so."""
    try:
        return attributes_of(Resource.FromString(resource).attributes)
    except ProtobufError as exc:
        return {"undecodable": str(exc)}


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, AttributeValue]:
    """Attributes as a dict; of a key that repeats the last value stands."""
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: AnyValue) -> AttributeValue:
    """The Python value of an AnyValue; None if it holds none."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "bytes_value":
            return value.bytes_value
        case "array_value":
            return [value_of(item) for item in value.array_value.values]
        case "kvlist_value":
            return attributes_of(value.kvlist_value.values)
    return None
