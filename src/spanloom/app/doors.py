"""The ways in for spans: ports for OTLP and seed JSON over HTTP, OTLP over gRPC, Zipkin's JSON, and a topic of Kafka's.

One intake is behind them all; what bends it under load runs beside them.
"""

from functools import partial
from pathlib import Path

import trio

from spanloom.actors.context import World
from spanloom.actors.load_watch import watch_load
from spanloom.actors.supervisor import ChildSpec, Restart
from spanloom.adapters.grpc import GrpcDoor, GrpcLimits, serve_grpc
from spanloom.adapters.machine import LoadMeter
from spanloom.adapters.tls import TlsFiles
from spanloom.app.node import Entrance, Node, http_server
from spanloom.collector.otlp_grpc import otlp_methods
from spanloom.collector.otlp_http import otlp_routes
from spanloom.collector.seed_http import seed_routes
from spanloom.collector.zipkin_http import zipkin_routes
from spanloom.config import IntakeConfig
from spanloom.core.bearer import BearerGate
from spanloom.core.http_routes import Router
from spanloom.core.sampling.adaptive import BendRule, Cause
from spanloom.core.sampling.head import SamplingMode
from spanloom.errors import ConfigError
from spanloom.query.health import health_routes

# Above which share of CPU or memory something gives. A head probability bends early (design, section 8); shedding what
# the tail policies would have judged is for real overload, when the alternative is to take nothing from anybody.
HEAD_BENDS = (0.8, 0.6)
ALL_SHEDS = (0.95, 0.8)


def intake_servers(node: Node, world: World) -> list[ChildSpec]:
    """A server for each door. Raises ConfigError for a certificate or token file that is no good."""
    http, intake = node.config.http, node.config.intake
    tls, tokens = _tls_files(intake), _tokens(intake)
    entrance = Entrance(BearerGate(tokens), tls.context() if tls else None)
    health = health_routes(unready=node.unready, metrics=node.metrics)
    otlp = Router([*otlp_routes(node.intake), *seed_routes(node.intake), *health])
    zipkin = Router([*zipkin_routes(node.intake), *health])
    early = [ChildSpec("answer-early", node.intake.answer_early, Restart.TRANSIENT)]
    return [
        *(early if intake.acknowledge == "accepted" else []),
        http_server(node, "intake", http.port, otlp, entrance=entrance),
        http_server(node, "zipkin", http.zipkin_port, zipkin, entrance=entrance),
        ChildSpec("grpc", partial(_serve_grpc, node, tls, tokens), Restart.TRANSIENT),
        *_kafka_intake(node, world),
        *_load_watch(node),
    ]


def _kafka_intake(node: Node, world: World) -> list[ChildSpec]:
    if not node.config.kafka_intake.topic:
        return []
    from spanloom.app.kafka_intake import kafka_intake  # its client is an extra, like the cluster's

    return [kafka_intake(node, world)]


def _load_watch(node: Node) -> list[ChildSpec]:
    sampling = node.config.sampling
    if sampling.adaptive == "off":
        return []
    causes = tuple(Cause) if sampling.adaptive == "both" else (Cause(sampling.adaptive),)
    high, low = HEAD_BENDS if sampling.mode == SamplingMode.HEAD else ALL_SHEDS
    rule = BendRule(frozenset(causes), high=high, low=low)
    return [ChildSpec("load", partial(watch_load, rule, LoadMeter().measure, node.intake.bend))]


async def _serve_grpc(
    node: Node, tls: TlsFiles | None, tokens: tuple[str, ...], *, task_status: trio.TaskStatus[None]
) -> None:
    """A gRPC server that can be stopped alone; restarted, it listens where it did before."""
    grpc = node.config.grpc
    limits = GrpcLimits(
        message_bytes_max=grpc.message_bytes_max,
        calls_max=grpc.calls_max,
        waiting_max=grpc.waiting_max,
        connections_max=grpc.connections_max,
        idle_s=grpc.idle_s,
    )
    door = GrpcDoor(node.config.http.host, node.ports.get("grpc", grpc.port), tls, tokens)
    with trio.CancelScope() as node.servers["grpc"]:
        async with trio.open_nursery() as nursery:
            serve = partial(serve_grpc, door, otlp_methods(node.intake), limits=limits, counters=node.grpc_counters)
            node.ports["grpc"] = await nursery.start(serve)
            task_status.started()


def _tls_files(intake: IntakeConfig) -> TlsFiles | None:
    if bool(intake.tls_certificate) != bool(intake.tls_key):
        raise ConfigError("intake.tls_certificate, intake.tls_key: expected both or none, found one")
    if not intake.tls_certificate:
        if intake.tls_client_ca:
            raise ConfigError("intake.tls_client_ca: expected intake.tls_certificate beside it, found none")
        return None
    client_ca = Path(intake.tls_client_ca) if intake.tls_client_ca else None
    return TlsFiles(Path(intake.tls_certificate), Path(intake.tls_key), client_ca)


def _tokens(intake: IntakeConfig) -> tuple[str, ...]:
    """Those of the token file; none where there is no file, and then everybody gets in."""
    if not intake.token_file:
        return ()
    try:
        tokens = tuple(Path(intake.token_file).read_text().split())
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"intake.token_file: expected a file of tokens, found {intake.token_file}: {exc}") from exc
    if not tokens:
        raise ConfigError(f"intake.token_file: expected a token at least, found none in {intake.token_file}")
    return tokens
