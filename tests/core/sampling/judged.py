"""Traces for policies to look at, each span with a resource of its own, and a sampler that looks at them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from spanloom.core._pure.sampler import Features, Sampler, Vote
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Decision, Trigger, Verdict

MS = 1_000_000
S = 1_000_000_000
START_MS = 1_700_000_000_000

Value = str | bool | int | float | None
Written = dict[str, object]


@dataclass(frozen=True, slots=True)
class Seen:
    """One span as policies see it; times in ms, from START_MS on."""

    attributes: Mapping[str, Value] = field(default_factory=dict)
    resource: Mapping[str, Value] = field(default_factory=dict)
    status: int = 0
    trace_state: str = ""
    flags: int = 0
    start_ms: float = 0
    end_ms: float = 10


def key_value(key: str, value: Value) -> KeyValue:
    """An attribute; None is one without a value."""
    made = AnyValue()
    match value:
        case bool():
            made.bool_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case str():
            made.string_value = value
    return KeyValue(key=key, value=made)


def traces_data(*spans: Seen, number: int = 1) -> bytes:
    """The spans of trace *number* as OTLP bytes."""
    data = TracesData()
    for index, seen in enumerate(spans, 1):
        span = Span(
            trace_id=number.to_bytes(16, "big"),
            span_id=index.to_bytes(8, "big"),
            trace_state=seen.trace_state,
            flags=seen.flags,
            start_time_unix_nano=round((START_MS + seen.start_ms) * MS),
            end_time_unix_nano=round((START_MS + seen.end_ms) * MS),
            attributes=[key_value(*pair) for pair in seen.attributes.items()],
            status=Status(code=seen.status),  # type: ignore[arg-type]
        )
        resource = Resource(attributes=[key_value(*pair) for pair in seen.resource.items()])
        data.resource_spans.append(ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=[span])]))
    return data.SerializeToString()


def sampler(*policies: Written, partition_count: int = 1) -> Sampler:
    made = Sampler(partition_count)
    made.configure(parse_policies(policies, version=1))
    return made


def features(
    *, number: int = 1, ms: int = 10, operation: int = 7, spans: int = 1, size_bytes: int = 100, at_s: float = 1000
) -> Features:
    return Features(number.to_bytes(16, "big"), ms * MS, operation, spans, size_bytes, round(at_s * S))


def judge(policies: list[Written], *spans: Seen, number: int = 1) -> Vote:
    """What *policies* say of a trace of *spans*."""
    chunk = traces_data(*spans, number=number)
    return sampler(*policies).judge(features(number=number, spans=len(spans), size_bytes=len(chunk)), [chunk])


def keeps(policy: Written, *spans: Seen, number: int = 1) -> bool:
    """Whether *policy* alone keeps a trace of *spans*."""
    return judge([policy], *spans, number=number).verdict is Verdict.KEEP


def of(kind: str, name: str = "", **settings: object) -> Written:
    """A policy as it is written."""
    return {"name": name or kind, "type": kind, kind: settings}


def decision(seen: Features, vote: Vote) -> Decision:
    """What the ledger holds of it."""
    return Decision(
        trace_id=seen.trace_id,
        verdict=vote.verdict,
        trigger=Trigger.COMPLETE,
        policy=vote.policy,
        policy_version=1,
        votes=vote.votes,
        threshold=vote.threshold,
        flags=0,
        first=0,
        cut=0,
        stream_ns=seen.stream_ns,
        origin_ns=seen.stream_ns,
        operation=seen.operation,
        duration_ns=seen.duration_ns,
        span_count=seen.span_count,
        size_bytes=seen.size_bytes,
    )
