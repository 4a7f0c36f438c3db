"""Stock clients through restarts of our collector and of the broker: `python -m tests.clients NAME... [--spans N]`.

Each sends its spans while our collector is restarted (SIGTERM) and killed (SIGKILL) and so is the broker; then every
acknowledged span is looked for in `spans`, and an aggregator that keeps everything must store each once. Exit code 1
where a span is missing, is not stored or twice, or where a client never had to try again.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.clients.programs import Client, Line, java_otlp, javascript, python, started, zipkin
from tests.clients.scene import Scene, scene
from tests.integration.process import eventually
from tests.servers.kafka import kafka
from tests.servers.otelcol import Otelcol, running_otelcol

FINISH_S = 900
RETRYING = ("Will retry the request", "retrying", "unable to dial", "failed to produce")  # how a Collector says so

_OTELCOL = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:${{env:GRPC_PORT}}"}}}}}}}}
exporters: {{{exporter}}}
service:
  telemetry:
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: "${{env:METRICS_PORT}}"}}}}}}}}]}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [{name}]}}}}
"""
_STAYS = "retry_on_failure: {max_elapsed_time: 0s}, sending_queue: {queue_size: 100000, block_on_overflow: true}"
_EXPORTERS = {
    "otlp": f'otlp: {{endpoint: "127.0.0.1:${{env:OURS}}", tls: {{insecure: true}}, {_STAYS}}}',
    "otlphttp": f'otlphttp: {{endpoint: "http://127.0.0.1:${{env:OURS}}", {_STAYS}}}',
    "kafka": f'kafka: {{brokers: ["${{env:BROKER}}"], traces: {{topic: "${{env:TOPIC}}"}}, {_STAYS}}}',  # no key
}


class Kind(NamedTuple):
    """One client."""

    line: Callable[[], Line]
    endpoint: Callable[[Scene], str]
    collector: str = ""  # the exporter of an OpenTelemetry Collector that stands between


def _http(scene: Scene) -> str:
    return f"http://127.0.0.1:{scene.http}/v1/traces"


def _grpc(scene: Scene) -> str:
    return f"http://127.0.0.1:{scene.grpc}"


def _zipkin(scene: Scene) -> str:
    return f"http://127.0.0.1:{scene.zipkin}/api/v2/spans"


KINDS = {
    "js-http": Kind(lambda: javascript("http"), _http),
    "js-proto": Kind(lambda: javascript("proto"), _http),
    "js-grpc": Kind(lambda: javascript("grpc"), _grpc),
    "java-http": Kind(lambda: java_otlp("http"), _http),
    "java-grpc": Kind(lambda: java_otlp("grpc"), _grpc),
    "zipkin-urlconnection": Kind(lambda: zipkin("urlconnection"), _zipkin),
    "zipkin-okhttp3": Kind(lambda: zipkin("okhttp3"), _zipkin),
    "otelcol-otlp": Kind(lambda: python("grpc"), _grpc, "otlp"),
    "otelcol-otlphttp": Kind(lambda: python("grpc"), _grpc, "otlphttp"),
    "otelcol-kafka": Kind(lambda: python("grpc"), _grpc, "kafka"),
}


class Outcome(NamedTuple):
    """What a run came to, in spans."""

    acknowledged: int
    failed: int
    retries: int
    missing: int  # acknowledged and not in `spans`
    twice: int  # more than once in `spans`
    not_stored: int  # in `spans`, and not in the store
    stored_twice: int

    @property
    def is_good(self) -> bool:
        return not (self.missing or self.not_stored or self.stored_twice) and self.retries > 0


def run(name: str, *, spans: int, spans_per_s: float) -> Outcome:
    """One client's whole story."""
    kind = KINDS[name]
    line = kind.line()
    with (
        tempfile.TemporaryDirectory(prefix="spanloom-clients-") as folder,
        kafka(Path(folder)) as servers,
        scene(servers, Path(folder), foreign=kind.collector == "kafka") as place,
        _between(kind, place) as collector,
    ):
        endpoint = f"http://127.0.0.1:{collector.ports['GRPC_PORT']}" if collector else kind.endpoint(place)
        with started(line, endpoint, spans=spans, spans_per_s=spans_per_s, environ=os.environ) as client:
            _disturb(place, client, spans)
            client.finish(FINISH_S)
        place.note(f"client ended: {len(client.acknowledged)} acknowledged, {client.failed} given up")
        for why in client.complaints:
            place.note(f"given up: {why}")
        return _recount(place, client, collector)


@contextmanager
def _between(kind: Kind, place: Scene) -> Iterator[Otelcol | None]:
    if not kind.collector:
        yield None
        return
    text = _OTELCOL.format(exporter=_EXPORTERS[kind.collector], name=kind.collector)
    ours = place.http if kind.collector == "otlphttp" else place.grpc
    with running_otelcol(text, OURS=str(ours), BROKER=place.servers.brokers, TOPIC=place.topic) as collector:
        yield collector


def _disturb(place: Scene, client: Client, spans: int) -> None:
    """Each time so many more are acknowledged."""
    steps: tuple[Callable[[], None], ...] = (
        place.restart_collector,
        place.kill_collector,
        lambda: place.restart_broker(signal.SIGTERM),
        place.kill_collector,
        lambda: place.restart_broker(signal.SIGKILL),
    )
    for number, step in enumerate(steps, 1):
        due = spans * number // (len(steps) + 1)
        eventually(lambda: len(client.acknowledged) >= due or client.popen.poll() is not None, within_s=600)  # noqa: B023
        if client.popen.poll() is not None:
            place.note(f"the client ended before step {number} of {len(steps)}")
            return
        step()


def _recount(place: Scene, client: Client, collector: Otelcol | None) -> Outcome:
    retries = client.retries
    acknowledged = set(client.acknowledged)
    if collector:
        eventually(lambda: not acknowledged - place.in_spans().keys(), within_s=180)  # it holds a queue of its own
        retries = sum(any(word in line for word in RETRYING) for line in collector.log.splitlines())
    found = place.in_spans()
    stored = place.stored(found.total())
    return Outcome(
        acknowledged=len(acknowledged),
        failed=client.failed,
        retries=retries,
        missing=len(acknowledged - found.keys()),
        twice=sum(count > 1 for count in found.values()),
        not_stored=len(found.keys() - stored.keys()),
        stored_twice=sum(count > 1 for count in stored.values()),
    )


def main() -> int:
    """Run those named; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*KINDS, []], help="default: all of them")
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--rate", type=float, default=2_000.0, help="spans a second")
    given = parser.parse_args()
    print(f"{given.spans} spans at {given.rate:g} a second, Python {platform.python_version()}, {os.cpu_count()} cores")
    rows = []
    for name in given.names or KINDS:
        print(f"\n{name}", flush=True)
        outcome = run(name, spans=given.spans, spans_per_s=given.rate)
        rows.append((name, outcome))
        print(outcome, flush=True)
    print("\n| client | " + " | ".join(Outcome._fields) + " |\n|" + "---|" * (len(Outcome._fields) + 1))
    for name, outcome in rows:
        print(f"| {name} | " + " | ".join(map(str, outcome)) + " |")
    return int(not all(outcome.is_good for _, outcome in rows))


if __name__ == "__main__":
    sys.exit(main())
