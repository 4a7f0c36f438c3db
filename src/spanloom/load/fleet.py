"""The shop whose traffic is generated: services, their processes, and what each operation looks like and calls.

Attributes follow OpenTelemetry's semantic conventions (HTTP, RPC, database, messaging), so that a span is as large and
as repetitive as a real one. Everything is drawn from one seeded generator, in a fixed order: same seed, same fleet.
"""

from dataclasses import dataclass, field
from itertools import accumulate
from random import Random
from statistics import NormalDist

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from spanloom.load.span_template import INSTANCE, SpanTemplate, length_delimited
from spanloom.model import SpanKind

_NAMES = (
    "frontend", "api-gateway", "cart", "product-catalog", "checkout", "payment", "user-profile", "session", "search",
    "inventory", "recommendation", "shipping", "pricing", "currency", "email", "ad", "fraud-detection", "tax", "review",
    "image-resizer", "order-history", "loyalty", "coupon", "notification", "address-book", "warehouse", "supplier",
    "returns", "invoice", "ledger-book", "geo", "feature-flags", "quote", "audit", "media-library", "wishlist", "chat",
    "ticketing", "identity", "token", "rate-card", "carrier-gateway", "export", "reporting", "webhook-sender",
    "scheduler", "translation", "consent", "content", "availability",
)  # fmt: skip
_NOUNS = ("items", "orders", "users", "prices", "sessions", "offers", "labels", "stocks", "events", "documents")
_LANGUAGES = (("java", "2.11.0"), ("go", "1.34.0"), ("python", "1.39.1"), ("nodejs", "2.2.0"))
_SCOPES = ("http", "grpc", "database", "messaging", "internal")  # one instrumentation library each
_AGENT = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0 Safari/537.36"
_STATEMENTS = {
    "SELECT": "SELECT id, name, state, updated_at FROM {table} WHERE id = $1 AND deleted_at IS NULL",
    "UPDATE": "UPDATE {table} SET state = $2, updated_at = now() WHERE id = $1",
}

SERVICE_EXPONENT = 1.1  # Zipf over services: the first of 30 takes about a quarter of the calls
_ENTRY_EXPONENT = 0.5  # and over the ways in
_EDGE_SERVICES = 3  # where requests from outside arrive
_CALLS = 64  # draws in an operation's table of callees
_LATENCIES = 256  # draws in an operation's table of latencies; a power of two
_SLOW = 3  # of those, how many are the slow tail: about 1 %
_VARIANTS = 4  # templates an operation has of each sort; a power of two


@dataclass(frozen=True, slots=True)
class Process:
    """One instance of a service: what batches its spans, under one resource."""

    number: int
    service: str
    resource: bytes  # field 1 of ResourceSpans
    skew_ns: int  # how far its clock is off
    phase: float  # where in the batch delay its exporter's timer stands, in [0, 1)


@dataclass(slots=True, eq=False)
class Operation:
    """One kind of span of one service: how long it takes, what it calls, what its spans look like."""

    service: "Service"
    name: str
    kind: SpanKind
    scope: int  # index into _SCOPES
    latencies_ns: list[int]
    attributes: list[dict[str, str | int]]  # one a variant
    calls: list["Operation"] = field(default_factory=list)  # drawn evenly; empty for a leaf
    other_side: "Operation | None" = None  # the SERVER of a CLIENT, the CONSUMER of a PRODUCER
    _templates: dict[tuple[bool, bool], list[SpanTemplate]] = field(default_factory=dict)

    def templates(self, *, root: bool, error: bool) -> list[SpanTemplate]:
        """The variants of such a span; made when first asked for."""
        found = self._templates.get((root, error))
        if found is None:
            found = [SpanTemplate(_span(self, attributes, root=root, error=error)) for attributes in self.attributes]
            self._templates[root, error] = found
        return found


@dataclass(slots=True, eq=False)
class Service:
    """One service: its processes and its operations by their part in a trace."""

    name: str
    grpc: bool
    processes: list[Process] = field(default_factory=list)
    servers: list[Operation] = field(default_factory=list)
    consumers: list[Operation] = field(default_factory=list)
    internals: list[Operation] = field(default_factory=list)
    queries: list[Operation] = field(default_factory=list)
    clients: dict[int, Operation] = field(default_factory=dict)  # by id() of the operation called


@dataclass(frozen=True, slots=True)
class Fleet:
    """All services, the scopes they share and where requests enter."""

    services: list[Service]
    entries: list[Operation]  # drawn evenly
    scopes: list[bytes]  # field 1 of ScopeSpans, by Operation.scope


def build_fleet(random: Random, service_count: int) -> Fleet:
    """Draw a fleet of *service_count* services."""
    services = [_service(random, index) for index in range(service_count)]
    _place_processes(random, services)
    for service in services:
        for operation in [*service.servers, *service.consumers, *service.internals]:
            operation.calls = [_callee(random, service, services) for _ in range(_CALLS)]
    edge = [operation for service in services[:_EDGE_SERVICES] for operation in service.servers]
    entries = random.choices(edge, cum_weights=zipf(len(edge), _ENTRY_EXPONENT), k=_CALLS)
    return Fleet(services, entries, [_scope(name) for name in _SCOPES])


def zipf(count: int, exponent: float = SERVICE_EXPONENT) -> list[float]:
    """Cumulative weights: the n-th of *count* weighs n^-exponent."""
    return list(accumulate((rank + 1) ** -exponent for rank in range(count)))


def _service(random: Random, index: int) -> Service:
    name = _NAMES[index] if index < len(_NAMES) else f"{_NAMES[index % len(_NAMES)]}-{index // len(_NAMES)}"
    service = Service(name, grpc=index >= _EDGE_SERVICES and random.random() < 0.4)
    nouns = random.sample(_NOUNS, k=random.randint(2, 5))
    for noun in nouns:
        service.servers += _servers(random, service, noun)
        service.queries += [_query(random, service, noun, verb) for verb in ("SELECT", "UPDATE")]
    service.queries.append(_cache_get(random, service))
    service.internals = [_internal(random, service, noun) for noun in nouns]
    service.consumers = [_consumer(random, service, nouns[0])]
    return service


def _place_processes(random: Random, services: list[Service]) -> None:
    """Popular services run in more processes."""
    number = 0
    for rank, service in enumerate(services):
        version = f"{random.randint(1, 9)}.{random.randint(0, 30)}.{random.randint(0, 9)}"
        language = random.choice(_LANGUAGES)
        for _ in range(max(1, round(8 / (rank + 1))) + random.randint(0, 1)):
            host = f"{service.name}-{random.getrandbits(40):010x}-{random.getrandbits(20):05x}"
            resource = _resource(service.name, version, host, language)
            skew_ns = round(random.gauss(0, 1_000_000))  # NTP keeps hosts within some milliseconds
            service.processes.append(Process(number, service.name, resource, skew_ns, random.random()))
            number += 1


def _callee(random: Random, service: Service, services: list[Service]) -> Operation:
    """What an operation of *service* does next: mostly queries and calls, now and then its own work or a message."""
    draw = random.random()
    if draw < 0.45:
        return random.choice(service.queries)
    if draw < 0.65:
        return random.choice(service.internals)
    target = random.choices(services, cum_weights=zipf(len(services)))[0]
    if target is service:
        target = random.choice(services)  # seldom itself
    if draw < 0.95:
        called = random.choices(target.servers, cum_weights=zipf(len(target.servers)))[0]
    else:
        called = random.choice(target.consumers)
    client = service.clients.get(id(called))
    if client is None:
        client = _client(random, service, called)
        service.clients[id(called)] = client
    return client


def _latencies(random: Random, median_ms: float) -> list[int]:
    """Equally likely latencies in ns: log-normal, with a slow tail ten to forty times the median."""
    normal = NormalDist(0, 1)
    body = [median_ms * 2.0 ** (0.9 * normal.inv_cdf((rank + 0.5) / _LATENCIES)) for rank in range(_LATENCIES - _SLOW)]
    tail = [median_ms * random.uniform(10, 40) for _ in range(_SLOW)]
    return [round(1_000_000 * latency_ms) for latency_ms in [*body, *tail]]


def _operation(
    random: Random,
    service: Service,
    name: str,
    kind: SpanKind,
    *,
    scope: str,
    median_ms: float,
    attributes: dict[str, str | int],
) -> Operation:
    """*attributes* are what its spans share; each variant adds a peer and a thread."""
    variants = [
        {**attributes, "network.peer.address": _address(random), "thread.id": random.randint(20, 250)}
        for _ in range(_VARIANTS)
    ]  # fmt: skip
    return Operation(service, name, kind, _SCOPES.index(scope), _latencies(random, median_ms), variants)


def _address(random: Random) -> str:
    return f"10.{random.randint(0, 31)}.{random.randint(0, 255)}.{random.randint(1, 254)}"


def _servers(random: Random, service: Service, noun: str) -> list[Operation]:
    median_ms = 2 ** random.uniform(0, 4)
    if service.grpc:
        rpc = f"shop.{service.name.replace('-', '')}.v1.{noun.title()}Service"
        attributes: dict[str, str | int] = {
            "rpc.system.name": "grpc", "rpc.service": rpc, "rpc.method": f"Get{noun.title()}",
            "rpc.response.status_code": "OK", "server.address": f"{service.name}.shop.svc.cluster.local",
            "server.port": 50051, "app.request.id": INSTANCE,
        }  # fmt: skip
        return [
            _operation(
                random, service, f"{rpc}/Get{noun.title()}", SpanKind.SERVER, scope="grpc", median_ms=median_ms,
                attributes=attributes,
            )
        ]  # fmt: skip
    return [
        _operation(
            random, service, f"{method} {route}", SpanKind.SERVER, scope="http", median_ms=median_ms,
            attributes={
                "http.request.method": method, "http.route": route, "url.scheme": "https",
                "url.path": route.replace("{id}", INSTANCE), "http.response.status_code": status,
                "server.address": f"{service.name}.shop.svc.cluster.local", "server.port": 8080,
                "user_agent.original": _AGENT, "network.protocol.version": "1.1",
            },
        )
        for method, route, status in (("GET", f"/api/v1/{noun}/{{id}}", 200), ("POST", f"/api/v1/{noun}/{{id}}", 201))
    ]  # fmt: skip


def _client(random: Random, service: Service, called: Operation) -> Operation:
    """The near side of a call or a message to *called*."""
    target = called.service.name
    if called.kind is SpanKind.CONSUMER:
        topic = called.name.removesuffix(" process")
        near = _operation(
            random, service, f"{topic} publish", SpanKind.PRODUCER, scope="messaging", median_ms=1.0,
            attributes=_messaging(topic, "send", f"{service.name}-producer"),
        )  # fmt: skip
    elif called.service.grpc:
        attributes = {**called.attributes[0], "server.address": f"{target}.shop.svc.cluster.local"}
        near = _operation(
            random, service, called.name, SpanKind.CLIENT, scope="grpc", median_ms=1.0, attributes=attributes
        )
    else:
        method, route = called.name.split(" ", 1)
        host = f"{target}.shop.svc.cluster.local"
        near = _operation(
            random, service, method, SpanKind.CLIENT, scope="http", median_ms=1.0,
            attributes={
                "http.request.method": method, "url.full": f"http://{host}:8080{route.replace('{id}', INSTANCE)}",
                "server.address": host, "server.port": 8080, "http.response.status_code": 200,
                "network.protocol.version": "1.1", "http.request.resend_count": 0,
            },
        )  # fmt: skip
    near.other_side = called
    return near


def _query(random: Random, service: Service, noun: str, verb: str) -> Operation:
    table = f"{service.name.replace('-', '_')}_{noun}"
    text = _STATEMENTS[verb].format(table=table)
    return _operation(
        random, service, f"{verb} {table}", SpanKind.CLIENT, scope="database", median_ms=2 ** random.uniform(-1, 3),
        attributes={
            "db.system.name": "postgresql", "db.namespace": service.name, "db.operation.name": verb,
            "db.collection.name": table, "db.query.text": f"{text} /*request_id='{INSTANCE}'*/",
            "server.address": f"pg-{service.name}.shop.internal", "server.port": 5432,
        },
    )  # fmt: skip


def _cache_get(random: Random, service: Service) -> Operation:
    return _operation(
        random, service, "GET", SpanKind.CLIENT, scope="database", median_ms=0.4,
        attributes={
            "db.system.name": "redis", "db.operation.name": "GET", "db.query.text": f"GET {service.name}:{INSTANCE}",
            "server.address": f"redis-{service.name}.shop.internal", "server.port": 6379, "db.namespace": "0",
        },
    )  # fmt: skip


def _internal(random: Random, service: Service, noun: str) -> Operation:
    return _operation(
        random, service, f"render {noun}", SpanKind.INTERNAL, scope="internal", median_ms=2 ** random.uniform(-2, 2),
        attributes={
            "code.function.name": f"shop.{service.name}.views.{noun}.Renderer.render", "app.request.id": INSTANCE,
            "code.file.path": f"/srv/app/shop/{service.name}/views/{noun}.py", "code.line.number": 217,
            "app.feature_flags": "new-layout,fast-path,ab-test-b", "app.tenant": "shop-eu-west",
        },
    )  # fmt: skip


def _consumer(random: Random, service: Service, noun: str) -> Operation:
    topic = f"{service.name}.{noun}"
    return _operation(
        random, service, f"{topic} process", SpanKind.CONSUMER, scope="messaging", median_ms=2 ** random.uniform(1, 5),
        attributes=_messaging(topic, "process", f"{service.name}-consumer"),
    )  # fmt: skip


def _messaging(topic: str, operation: str, client: str) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka", "messaging.destination.name": topic, "messaging.operation.type": operation,
        "messaging.message.id": INSTANCE, "messaging.client.id": client, "messaging.destination.partition.id": "7",
        "messaging.message.body.size": 1834, "server.address": "kafka.shop.internal", "server.port": 9092,
    }  # fmt: skip


def _span(operation: Operation, attributes: dict[str, str | int], *, root: bool, error: bool) -> Span:
    """What a span of *operation* says; ids and times are slots."""
    span = Span(name=operation.name, kind=Span.SpanKind.ValueType(operation.kind), flags=0x101)
    if not root:
        span.parent_span_id = bytes(8)
    if error:
        attributes = _failed(attributes)
        span.status.code = Status.STATUS_CODE_ERROR
        span.status.message = "deadline exceeded while waiting for the upstream answer"
        event = span.events.add(name="exception")
        event.attributes.extend([
            _key_value("exception.type", "UpstreamTimeout"),
            _key_value("exception.message", "deadline exceeded while waiting for the upstream answer"),
            _key_value("exception.stacktrace", "".join(f"  at {operation.name} (frame {n})\n" for n in range(8))),
        ])  # fmt: skip
    span.attributes.extend(_key_value(key, value) for key, value in attributes.items())
    return span


def _failed(attributes: dict[str, str | int]) -> dict[str, str | int]:
    failed = {**attributes, "error.type": "UpstreamTimeout"}
    if "http.response.status_code" in failed:
        failed["http.response.status_code"] = 504
    if "rpc.response.status_code" in failed:
        failed["rpc.response.status_code"] = "DEADLINE_EXCEEDED"
    return failed


def _key_value(key: str, value: str | int) -> KeyValue:
    entry = KeyValue(key=key)
    if isinstance(value, str):
        entry.value.string_value = value
    else:
        entry.value.int_value = value
    return entry


def _resource(service: str, version: str, host: str, language: tuple[str, str]) -> bytes:
    attributes: dict[str, str | int] = {
        "service.name": service, "service.namespace": "shop", "service.version": version, "host.name": host,
        "service.instance.id": f"{host}.shop", "telemetry.sdk.name": "opentelemetry",
        "telemetry.sdk.language": language[0], "telemetry.sdk.version": language[1],
        "deployment.environment.name": "production", "os.type": "linux",
    }  # fmt: skip
    resource = Resource(attributes=[_key_value(key, value) for key, value in attributes.items()])
    return length_delimited(1, resource.SerializeToString())


def _scope(name: str) -> bytes:
    scope = InstrumentationScope(name=f"io.opentelemetry.shop.{name}", version="2.11.0")
    return length_delimited(1, scope.SerializeToString())
