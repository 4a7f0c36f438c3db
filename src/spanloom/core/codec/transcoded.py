"""What comes of another encoding: OTLP for the spans that could be read, a count and a first reason for the others."""

from typing import NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from spanloom.errors import DecodeError


class Transcoded(NamedTuple):
    """A body or record as OTLP."""

    traces_data: bytes
    rejected: int = 0  # spans that are not in it
    reason: str = ""  # the first of them's fault; empty if none


class Grouped:
    """Gathers spans into a TracesData, a ResourceSpans for each service."""

    def __init__(self) -> None:
        self._data = TracesData()
        self._scopes: dict[str, ScopeSpans] = {}
        self._faults = list[DecodeError]()

    def add(self, service: str, span: Span) -> None:
        """A span that could be read, of a service; empty where nobody says which."""
        if service not in self._scopes:
            resource_spans: ResourceSpans = self._data.resource_spans.add()
            if service:
                resource_spans.resource.attributes.add(key="service.name").value.string_value = service
            self._scopes[service] = resource_spans.scope_spans.add()
        self._scopes[service].spans.append(span)

    def reject(self, fault: DecodeError) -> None:
        """A span that could not."""
        self._faults.append(fault)

    def result(self) -> Transcoded:
        """All of it. Raises the first fault if no span could be read."""
        if self._faults and not self._scopes:
            raise self._faults[0]
        reason = str(self._faults[0]) if self._faults else ""
        return Transcoded(self._data.SerializeToString(), len(self._faults), reason)
