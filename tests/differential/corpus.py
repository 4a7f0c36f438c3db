"""Traces with everything that policies look at, drawn by the dice of one seed.

What is drawn lies near the edges on purpose: numbers where strings are asked for, keys that are missing or stand
twice, empty strings, durations on both sides of a millisecond, times of 0, tracestates that are not well-formed. A
trace comes in several parts, each part with spans of several resources; a record carries parts of several traces. Of
attributes that policies ask for, a trace has two in five, each on few spans: else any trace of many spans would match.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

from spanloom.model import Record

T0_MS = 1_700_000_000_000
WINDOW = 16  # traces whose parts are mixed
MS = 1_000_000  # ns
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Corpus:
    """The records in order, and how many spans each trace has in all of them."""

    seed: int
    records: tuple[Record, ...]
    span_counts: dict[bytes, int]

    @property
    def span_count(self) -> int:
        """Spans in all."""
        return sum(self.span_counts.values())

    def in_whole_seconds(self) -> "Corpus":
        """The same, each record stamped with the beginning of its second."""
        records = (record._replace(timestamp_ms=record.timestamp_ms // 1000 * 1000) for record in self.records)
        return replace(self, records=tuple(records))


def corpus(seed: int, trace_count: int, *, traces_per_s: float) -> Corpus:
    """*trace_count* traces; their records are stamped as if so many traces began each second."""
    random = Random(seed)
    resources = [_resource(random) for _ in range(300)]
    records: list[Record] = []
    span_counts: dict[bytes, int] = {}
    for first in range(0, trace_count, WINDOW):
        traces = [_trace(random) for _ in range(min(WINDOW, trace_count - first))]
        span_counts |= {trace[0].trace_id: len(trace) for trace in traces}
        for body in _records(random, traces, resources):
            at_ms = T0_MS + int(1000 * first / traces_per_s)
            records.append(Record(len(records), at_ms, None, body))
    return Corpus(seed, tuple(records), span_counts)


# Values. A drawer of an attribute's values gives mostly the kind that policies ask for, sometimes another.


def _value(of: str | bool | int | float | bytes | None) -> AnyValue:
    match of:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=of)
        case int():
            return AnyValue(int_value=of)
        case float():
            return AnyValue(double_value=of)
        case bytes():
            return AnyValue(bytes_value=of)
        case str():
            return AnyValue(string_value=of)


_ARRAY = AnyValue(array_value=ArrayValue(values=[_value("gold"), _value(500)]))
_LIST = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="user.tier", value=_value("gold"))]))
_ODD = (
    *map(_value, ("", "500", "true", "gold", 1, 0, 500, 500.0, 0.5, True, False, b"gold", b"", None)),
    _ARRAY,
    _LIST,
)
_STATUS_CODES = (200, 200, 204, 301, 404, 499, 500, 503, -1, 0, 1, INT64_MIN, INT64_MAX)
_TIERS = (
    "gold",
    "silver",
    "bronze",
    "free",
    "",
    "Gold",
    "gold ",
    "golden-1",
    "größe",
    "line\nbreak",
    "g" * 300,
    "in\x7f\x7fvalid",
)
_ROUTES = ("/cart", "/cart/42", "/cart/", "/api/v1/users/7", "/api/v2/users/seven", "/healthz", "", "/")
_ENVIRONMENTS = ("prod", "prod", "staging", "dev", "")

Drawer = Callable[[Random], AnyValue]


def _mostly(values: Sequence[str | bool | int]) -> Drawer:
    usual = tuple(map(_value, values))
    return lambda random: random.choice(_ODD) if random.randrange(7) == 0 else random.choice(usual)


SPAN_ATTRIBUTES: dict[str, Drawer] = {
    "http.status_code": _mostly(_STATUS_CODES),
    "cart.total": _mostly(range(-1000, 1001)),
    "user.tier": _mostly(_TIERS),
    "http.route": _mostly(_ROUTES),
    "cache.hit": _mostly((True, False)),
    "region": _mostly(("eu-1", "eu-2", "us-1", "")),
    "größe": _mostly(("klein", "groß")),
}
RESOURCE_ATTRIBUTES: dict[str, Drawer] = {
    "deployment.environment": _mostly(_ENVIRONMENTS),
    "host.cores": _mostly((0, 2, 4, 8, 96)),
    "service.canary": _mostly((True, False)),
    "region": _mostly(("eu-1", "us-1", "")),
}


def _resource(random: Random) -> list[KeyValue]:
    attributes = [KeyValue(key="service.name", value=_value(f"service-{random.randrange(12)}"))]
    for key, draw in RESOURCE_ATTRIBUTES.items():
        if random.randrange(5) < 2:
            attributes += _attribute(random, key, draw)
    random.shuffle(attributes)
    return [] if random.randrange(15) == 0 else attributes


def _attribute(random: Random, key: str, draw: Drawer) -> list[KeyValue]:
    """It, now and then twice: only the first counts."""
    return [KeyValue(key=key, value=draw(random)) for _ in range(2 if random.randrange(12) == 0 else 1)]


# Tracestates.

_GOOD = (
    "vendor=blue", "vendor=red", "other=x,vendor=blue", "vendor= blue", "vendor=blue ", " vendor=blue",
    "\tvendor=blue\t,other=1", "other=1,,vendor=blue,", "tenant@vendor=blue", "vendor=b l u e", "0a=1,vendor=green",
    "ot=rv:0123456789abcd,vendor=red", "ot=th:8;rv:ffffffffffffff", "ot=th:8", "rojo=00f067aa0ba902b7",
    ",".join(f"k{i}=v" for i in range(31)) + ",vendor=blue", "vendor=" + "v" * 256, "a-b_c*d/e=1,vendor=blue",
)  # fmt: skip
_BAD = (
    "vendor=blue,vendor=blue", "vendor", "vendor=", "=blue", "Vendor=blue", "vendor=blue,BAD=1", "vendor=blue,a=b=c",
    "vendor=blü", "vendor =blue", ",".join(f"k{i}=v" for i in range(32)) + ",vendor=blue", "vendor=blue;x,é=1",
    "vendor=blue,@x=1", "vendor=blue,0=\x7f", "vendor=" + "v" * 257, "vendor=blue\n", "vendor=blue, ", "tenant@=1",
    "a@" + "b" * 15 + "=1,vendor=blue", "k" * 257 + "=1,vendor=blue", "1" * 242 + "@v=1,vendor=blue",
    "vendor=blue,1x@y",
)  # fmt: skip


def _states(random: Random) -> list[str]:
    """What the spans of a trace draw from."""
    kind = random.randrange(10)
    if kind < 4:
        return [""]
    if kind < 7:
        return [random.choice(_GOOD)]
    if kind < 8:
        return [random.choice(_BAD)]
    return ["", random.choice(_GOOD), random.choice(_BAD)]


# A trace.

_DURATIONS_MS = (0, 1, 2, 49, 50, 51, 99, 100, 101, 200, 250, 400, 499, 500, 501, 700, 1000, 1500, 2999, 3000, 3001)
_NUDGES_NS = (0, 0, 1, -1, MS - 1, 1 - MS, MS // 2)
_FLAGS = (0, 0, 0, 1, 0x100, 0x101, 0x300, 0x301, 2, 3, 0xFFFFFFFF, 0xFFFFFFFE)


def _span_count(random: Random) -> int:
    low, high = random.choice(((1, 1), (1, 2), (2, 5), (2, 5), (3, 9), (6, 15), (6, 15), (16, 60)))
    return random.randint(low, high)


def _trace(random: Random) -> list[Span]:
    trace_id = random.randbytes(16)
    count = _span_count(random)
    begin = T0_MS * MS + random.randrange(1_000_000) * 1000
    lasting = max(0, random.choice(_DURATIONS_MS) * MS + random.choice(_NUDGES_NS))
    spans = [_span(random, trace_id, number, begin, lasting) for number in range(count)]
    _mark(random, spans)
    _spoil_times(random, spans)
    if random.randrange(2):
        random.shuffle(spans)
    return spans


def _span(random: Random, trace_id: bytes, number: int, begin: int, lasting: int) -> Span:
    start = begin + (random.randint(0, lasting) if number else 0)
    end = random.randint(start, begin + lasting) if number else begin + lasting
    return Span(
        trace_id=trace_id,
        span_id=(number + 1).to_bytes(8, "big"),
        parent_span_id=random.randint(1, number).to_bytes(8, "big") if number else b"",
        name=f"op-{random.randrange(20)}",
        kind=random.randrange(6),  # type: ignore[arg-type]
        start_time_unix_nano=start,
        end_time_unix_nano=end,
    )


def _some(random: Random, spans: Sequence[Span]) -> list[Span]:
    return random.sample(spans, min(len(spans), random.choice((1, 1, 2, 3))))


def _mark(random: Random, spans: Sequence[Span]) -> None:
    """Attributes, statuses, tracestates, flags."""
    for key, draw in SPAN_ATTRIBUTES.items():
        if random.randrange(5) < 2:
            for span in _some(random, spans):
                span.attributes.extend(_attribute(random, key, draw))
    for code, chance in ((1, 5), (2, 3), (3, 1), (7, 1)):
        if random.randrange(12) < chance:
            for span in _some(random, spans):
                span.status.CopyFrom(Status(code=code, message="why"))  # type: ignore[arg-type]
    states, flags = _states(random), random.sample(_FLAGS, 2 if random.randrange(3) else 1)
    for span in spans:
        span.trace_state = random.choice(states)
    for span in _some(random, spans):
        span.flags = random.choice(flags)


def _spoil_times(random: Random, spans: Sequence[Span]) -> None:
    """Clocks and exporters that are wrong."""
    span = random.choice(spans)
    match random.randrange(40):
        case 0:
            span.start_time_unix_nano = 0
        case 1:
            span.end_time_unix_nano = 0
        case 2:
            span.start_time_unix_nano = span.end_time_unix_nano = 0
        case 3:
            span.start_time_unix_nano, span.end_time_unix_nano = span.end_time_unix_nano, span.start_time_unix_nano
        case 4:
            for each in spans:
                each.start_time_unix_nano = 0
        case 5:
            span.end_time_unix_nano = random.choice((1, INT64_MAX, INT64_MAX + 1, (1 << 64) - 1))
        case 6:
            span.start_time_unix_nano = random.choice((1, INT64_MAX, INT64_MAX + 1, (1 << 64) - 1))


# Records.


def _records(random: Random, traces: list[list[Span]], resources: Sequence[list[KeyValue]]) -> Iterator[bytes]:
    """The traces' parts, mixed, a few a record; of one trace they stay in order."""
    waiting = [_parts(random, trace) for trace in traces]
    own = {trace[0].trace_id: random.sample(resources, random.choice((1, 1, 2, 3))) for trace in traces}
    while waiting:
        together: list[Span] = []
        for _ in range(random.choice((1, 1, 2, 4))):
            if waiting:
                parts = random.choice(waiting)
                together += parts.pop(0)
                if not parts:
                    waiting.remove(parts)
        yield _body(random, together, own)


def _parts(random: Random, spans: list[Span]) -> list[list[Span]]:
    cuts = sorted(random.sample(range(1, len(spans)), min(len(spans) - 1, random.choice((0, 1, 1, 2, 4)))))
    return [spans[low:high] for low, high in zip([0, *cuts], [*cuts, len(spans)], strict=True)]


def _body(random: Random, spans: list[Span], own: dict[bytes, list[list[KeyValue]]]) -> bytes:
    """TracesData: a resource and its scopes stand once, or anew whenever they change."""
    data = TracesData()
    is_gathered = random.randrange(2) == 0
    resources: dict[int, ResourceSpans] = {}
    scopes: dict[tuple[int, str], ScopeSpans] = {}
    before: tuple[int, str] | None = None
    for span in spans:
        resource, scope = random.choice(own[span.trace_id]), random.choice(("", "", "", "http"))
        place = id(resource), scope
        if place != before and not is_gathered:
            resources, scopes = {}, {}
        if id(resource) not in resources:
            resources[id(resource)] = data.resource_spans.add()
            resources[id(resource)].resource.attributes.extend(resource)
        if place not in scopes:
            scopes[place] = resources[id(resource)].scope_spans.add()
            scopes[place].scope.name = scope
        scopes[place].spans.append(span)
        before = place
    return data.SerializeToString().replace(b"\x7f\x7f", b"\xe2\x82")  # a character cut short, which protobuf refuses
