"""What can be searched of a kept fragment, taken from its spans' bytes.

The specification of the native twin. Only one span is looked into: the root, or else the earliest. Its attributes are
what protobuf's own decoder says; a message that it refuses has none (a span) or says so (a resource).
"""

import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError as ProtobufError
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from spanloom.core._pure.stamping import trace_state_of
from spanloom.core._pure.wire import ScannedSpan, scan
from spanloom.core.codec.attributes import attributes_of, resource_attributes
from spanloom.core.sampling.threshold import randomness_of
from spanloom.core.timed import earliest_span, extent, root_span
from spanloom.model import AttributeValue

ATTRIBUTES_MAX = 128  # OpenTelemetry's default limit of attributes a span
ATTRIBUTE_CHARS_MAX = 1024  # Elasticsearch keywords end at 32,766 bytes; nobody searches by a longer exact value
NAMES_MAX = 1000  # services, and operations, of one document: far above real traces, below what an index chokes on
NAME_CHARS_MAX = 256  # of a service or operation in the summary; the span keeps all of it


class Summary(NamedTuple):
    """What a fragment's spans say of it, together."""

    root_service: str
    root_operation: str
    services: tuple[str, ...]
    operations: tuple[str, ...]  # service, 0x1f, span name
    start_unix_ns: int
    root_duration_ns: int  # 0 where no root is among them
    error_count: int
    threshold: int  # the highest that a span's tracestate has come with, 0 if none
    attributes: dict[str, str]  # flattened, bounded


def summarise(traces_data: bytes) -> Summary:
    """The summary of a fragment. Raises DecodeError as `scan` does."""
    spans = scan(traces_data)
    root = root_span(spans)
    head = root or earliest_span(spans)
    return Summary(
        root_service=shortened(head.service) if head else "",
        root_operation=shortened(head.name) if head else "",
        services=names({text_of(service) for service in {span.service for span in spans}}),
        operations=names(
            {
                f"{shortened(service)}\x1f{shortened(name)}"
                for service, name in {(one.service, one.name) for one in spans}
            }
        ),
        start_unix_ns=extent(spans)[0],
        root_duration_ns=extent([root])[1] if root else 0,
        error_count=sum(span.error for span in spans),
        threshold=_threshold_before(spans),
        attributes=searchable(head.span, head.resource) if head else {},
    )


def _threshold_before(spans: Sequence[ScannedSpan]) -> int:
    stamped = (span.span for span in spans if b"th:" in span.span)
    return max((randomness_of(trace_state_of(span)).th or 0 for span in stamped), default=0)


def text_of(name: bytes) -> str:
    """A name as text, whatever it is."""
    return name.decode("utf-8", "replace")


def shortened(name: bytes) -> str:
    """The start of a name."""
    return text_of(name)[:NAME_CHARS_MAX]


def names(distinct: set[str]) -> tuple[str, ...]:
    """The non-empty ones in order, the first NAMES_MAX of them."""
    distinct.discard("")
    return tuple(sorted(distinct)[:NAMES_MAX])


def searchable(span: bytes, resource: bytes) -> dict[str, str]:
    """The attributes of a Span message, then of its Resource, flattened to text; the first ATTRIBUTES_MAX of them."""
    try:
        own = attributes_of(Span.FromString(span).attributes)
    except ProtobufError:
        own = {}
    return flattened(own, resource_attributes(resource))


def flattened(*some: dict[str, AttributeValue]) -> dict[str, str]:
    """All of them as text by dotted names: of a name that repeats the first, the first ATTRIBUTES_MAX of all."""
    flat: dict[str, str] = {}
    for attributes in some:
        for key, text in _flatten(attributes, ""):
            if len(flat) < ATTRIBUTES_MAX:
                flat.setdefault(key, text[:ATTRIBUTE_CHARS_MAX])
    return flat


def _flatten(attributes: dict[str, AttributeValue], prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in attributes.items():
        name = f"{prefix}{key}"[:NAME_CHARS_MAX]
        if isinstance(value, dict):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, attribute_text(value)


def attribute_text(value: AttributeValue) -> str:
    """What a search compares."""
    match value:
        case str():
            return value
        case bytes():
            return value.hex()
        case None:
            return ""
    return json.dumps(value, default=bytes.hex)  # true, 1.5, ["a","b"]
