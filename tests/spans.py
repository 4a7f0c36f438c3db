"""Small spans and records, said in one line each."""

from collections.abc import Iterable
from dataclasses import dataclass

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from spanloom.model import Record

S = 1_000_000_000  # ns
T0_MS = 1_700_000_000_000  # where stream time starts in tests


@dataclass(frozen=True, slots=True)
class Sp:
    """A span of trace number `trace`; `parent` 0 is a root; times in ms after T0_MS."""

    trace: int
    span: int
    parent: int = 0
    start: int = 0
    ms: int = 10
    error: bool = False
    kind: int = 2
    name: str = "op"
    service: str = "shop"

    @property
    def trace_id(self) -> bytes:
        return trace_id(self.trace)


def trace_id(number: int) -> bytes:
    """The id of trace *number*: spread over partitions and sampling, since murmur2 and R see its digits."""
    return (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % (1 << 128) or 1).to_bytes(16, "big")


def span_id(number: int) -> bytes:
    """The id of span *number*."""
    return number.to_bytes(8, "big")


def traces_data(spans: Iterable[Sp]) -> bytes:
    """OTLP bytes: a ResourceSpans for each run of one service."""
    data = TracesData()
    service = None
    for sp in spans:
        if sp.service != service:
            service = sp.service
            resource: ResourceSpans = data.resource_spans.add()
            attribute = resource.resource.attributes.add(key="service.name")
            attribute.value.string_value = sp.service
            scope: ScopeSpans = resource.scope_spans.add()
            scope.scope.name = "tests"
        start = (T0_MS + sp.start) * 1_000_000
        scope.spans.append(
            Span(
                trace_id=sp.trace_id,
                span_id=span_id(sp.span),
                parent_span_id=span_id(sp.parent) if sp.parent else b"",
                name=sp.name,
                kind=sp.kind,  # type: ignore[arg-type]
                start_time_unix_nano=start,
                end_time_unix_nano=start + sp.ms * 1_000_000,
                status=Status(code=Status.STATUS_CODE_ERROR) if sp.error else None,
            )
        )
    return data.SerializeToString()


def record(offset: int, at_s: float, *spans: Sp) -> Record:
    """The record at *offset*, appended *at_s* seconds after T0."""
    return Record(offset, T0_MS + int(at_s * 1000), None, traces_data(spans))
