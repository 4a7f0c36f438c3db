"""What each subcommand does. It imports what it needs when it runs: `spanloom --help` answers at once."""

import argparse
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spanloom.errors import ConfigError

if TYPE_CHECKING:
    from spanloom.app import Role
    from spanloom.config import Config
    from spanloom.load.run import Sender

EXIT_ABSENT = 4
COLLECT_AFTER = 50_000  # objects more than there were; what a kept trace is made of lives for some seconds, in no cycle

_SHORTCUTS = {  # flag -> key; every key can be set with --set
    "data": "data.folder",
    "partitions": "data.partitions",
    "host": "http.host",
    "port": "http.port",
    "query_port": "http.query_port",
    "brokers": "kafka.brokers",
    "log_level": "log.level",
}


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Give a subcommand the flags that `read_config` reads."""
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file (docs/configuration.md lists its keys)")
    for flag, key in _SHORTCUTS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", dest=flag, metavar="VALUE", help=f"sets {key}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="sets any key; may be repeated")


def read_config(args: argparse.Namespace, **defaults: str) -> "Config":
    """The configuration of a command line; *defaults* are keys, `__` for the dot, that flags and files go before."""
    from spanloom.config import load

    overrides = {key: getattr(args, flag) for flag, key in _SHORTCUTS.items() if getattr(args, flag) is not None}
    for pair in args.set:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set: expected KEY=VALUE, found {pair!r}")
        overrides[key] = value
    if args.config is None:
        overrides = {key.replace("__", "."): value for key, value in defaults.items()} | overrides
    return load(args.config, os.environ, overrides)


def check_config(args: argparse.Namespace) -> int:
    """Say whether the configuration is good."""
    from spanloom.app import partition_settings

    partition_settings(read_config(args))
    print("the configuration is good")
    return 0


def explain_config(args: argparse.Namespace) -> int:
    """Every value, and where it came from."""
    from spanloom.config import effective

    lines = effective(read_config(args))
    wide = max(len(line.key) for line in lines)
    for line in lines:
        print(f"{line.key:<{wide}}  {line.value}  ({line.where})")
    return 0


# Running.


def run(args: argparse.Namespace) -> int:
    """Run every role until SIGTERM or SIGINT."""
    from spanloom.app import EVERY_ROLE

    return _run(read_config(args), EVERY_ROLE)


def aggregator(args: argparse.Namespace) -> int:
    """Be a member of the consumer group until SIGTERM or SIGINT."""
    from spanloom.app import Role

    return _run(clustered(read_config(args)), frozenset({Role.AGGREGATOR, Role.QUERY}))


def collector(args: argparse.Namespace) -> int:
    """Take spans in, and put them into Kafka, until SIGTERM or SIGINT."""
    from spanloom.app import Role

    return _run(clustered(read_config(args)), frozenset({Role.INTAKE}))


def clustered(config: "Config") -> "Config":
    """The configuration, which must name a cluster. Raises ConfigError."""
    if not config.kafka.brokers:
        raise ConfigError("kafka.brokers: expected host:port of a Kafka cluster, found nothing (default)")
    return config


def _run(config: "Config", roles: "frozenset[Role]") -> int:
    import trio

    _set_up_log(config)
    trio.run(_serve, config, roles)
    return 0


def _rarely_collect_garbage() -> None:
    """With every trace kept Python's collector, as it is set, took a fourth of the CPU and found next to nothing."""
    gc.collect()
    gc.freeze()  # what there is now stays
    gc.set_threshold(COLLECT_AFTER)


async def _serve(config: "Config", roles: "frozenset[Role]") -> None:
    """Run a node until SIGTERM or SIGINT; one that comes before it is ready ends it at once."""
    import signal

    import trio

    from spanloom.app import Node, run_node

    ready: list[Node] = []
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def stop_on_signal() -> None:
                async for _ in signals:
                    if ready:
                        ready[0].stop()
                    else:
                        nursery.cancel_scope.cancel()

            nursery.start_soon(stop_on_signal)
            ready.append(await nursery.start(run_node, config, roles))
            _rarely_collect_garbage()
            await ready[0].stopped.wait()
            nursery.cancel_scope.cancel()


def _set_up_log(config: "Config") -> None:
    import logging

    import structlog

    level = getattr(logging, config.log.level.upper())
    console = config.log.format == "console"
    renderer = structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    exceptions = [] if console else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *exceptions,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def demo(args: argparse.Namespace) -> int:
    """Run a node with seeded traffic and a live table."""
    import tempfile

    import trio

    from spanloom.cli.demo import Show, show

    with tempfile.TemporaryDirectory(prefix="spanloom-demo-") as folder:
        ports = dict.fromkeys(("http__port", "http__query_port", "http__zipkin_port", "grpc__port"), "0")
        config = read_config(args, data__folder=folder, log__level="warning", **ports)
        _set_up_log(config)
        trio.run(show, config, Show(spans=args.spans, spans_per_s=args.rate, seed=args.seed, stays=not args.exit))
    return 0


def loadgen(args: argparse.Namespace) -> int:
    """Send seeded traffic; the exit code says whether all of it was acknowledged."""
    from spanloom.load.client import LoadClient

    config = read_config(args)
    if config.kafka.brokers:
        return _load_kafka(args, config)
    return _load(args, LoadClient(args.url, connections=args.connections, compress=args.gzip, seed=args.seed))


def _load_kafka(args: argparse.Namespace, config: "Config") -> int:
    from spanloom.app.cluster import kafka_settings
    from spanloom.app.kafka_door import open_kafka_door
    from spanloom.load.door import DoorClient

    settings = kafka_settings(config.kafka, os.environ)
    with open_kafka_door(settings, waiting_bytes_max=config.intake.waiting_bytes_max) as door:
        return _load(args, DoorClient(door, connections=args.connections, seed=args.seed))


def _load(args: argparse.Namespace, client: "Sender") -> int:
    import dataclasses
    import time

    import trio

    from spanloom.load.run import run_load
    from spanloom.load.workload import Workload

    workload = Workload(seed=args.seed, spans=args.spans, services=args.services)
    past_ns = 0 if args.rate else int(workload.length_s * 1e9)

    async def send() -> None:
        await run_load(
            client, workload, epoch_unix_ns=time.time_ns() - past_ns, record=args.record, spans_per_s=args.rate
        )

    trio.run(send)
    statistics = client.statistics()
    for name, value in dataclasses.asdict(statistics).items():
        print(f"{name:<22}{value:>14}")
    everything = statistics.requests_acknowledged == statistics.requests_sent
    return 0 if everything else EXIT_ABSENT


def trace(args: argparse.Namespace) -> int:
    """Show one trace as a waterfall."""
    import shutil
    import urllib.parse

    from spanloom.cli.fetching import fetch_json
    from spanloom.load.waterfall import render_waterfall

    found = fetch_json(f"{args.url.rstrip('/')}/v1/traces/{urllib.parse.quote(args.id, safe='')}")
    if found is None:
        return EXIT_ABSENT
    if "spans" not in found:
        print(f"{found['trace_id']}: {found['status']}")
        return 0
    print(render_waterfall(found, shutil.get_terminal_size().columns, color=sys.stdout.isatty()))
    return 0
