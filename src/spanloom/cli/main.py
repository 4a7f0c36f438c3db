"""The `spanloom` command: flags in, exit codes out.

0  done
1  something failed that nobody foresaw, or a crash that restarts did not mend
2  the operator must act: a flag, a key, a port, a folder (one line says which)
3  the data folder is damaged
4  what was asked for is not there: no such trace, nobody answers at the URL
"""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from spanloom.cli import cluster, commands, explain, policies, versions
from spanloom.errors import ConfigError, DataCorrupted, SpanloomError, Unavailable

EXIT_FAILED, EXIT_CONFIG, EXIT_DAMAGED, EXIT_INTERRUPTED = 1, 2, 3, 130
QUERY_URL = "http://127.0.0.1:16686"
INTAKE_URL = "http://127.0.0.1:4318/v1/traces"

CLUSTER_PACKAGES = ("confluent_kafka", "elasticsearch", "redis")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; gives the exit code."""
    args = _parser().parse_args(argv)
    try:
        return int(args.run(args))
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as exc:  # the outermost line: whatever arrives here ends the process
        return _complain(exc)


def _complain(exc: Exception) -> int:
    """One clear line for what was foreseen, a traceback for what was not."""
    leaf = _leaf(exc)
    if isinstance(leaf, ModuleNotFoundError) and leaf.name and leaf.name.partition(".")[0] in CLUSTER_PACKAGES:
        leaf = ConfigError(f"the cluster deployment: expected `pip install spanloom[cluster]`, found no {leaf.name}")
    match leaf:
        case ConfigError():
            code = EXIT_CONFIG
        case DataCorrupted():
            code = EXIT_DAMAGED
        case Unavailable():
            code = commands.EXIT_ABSENT
        case _:
            code = EXIT_FAILED
    if not isinstance(leaf, SpanloomError):
        traceback.print_exception(exc)
    print(f"spanloom: {str(leaf) or type(leaf).__name__}", file=sys.stderr)
    return code


def _leaf(exc: BaseException) -> BaseException:
    """What really happened, inside nested groups and behind an escalation; one of ours if there is one."""
    if isinstance(exc, BaseExceptionGroup):
        leaves = [_leaf(inner) for inner in exc.exceptions]
        ours = [leaf for leaf in leaves if isinstance(leaf, SpanloomError)]
        return (ours or leaves)[0]
    if isinstance(exc, SpanloomError) and exc.__cause__ is not None:
        cause = _leaf(exc.__cause__)
        if isinstance(cause, DataCorrupted | ConfigError):
            return cause
    return exc


Run = Callable[[argparse.Namespace], int]
if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - its only name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="spanloom",
        description="Reads spans, assembles traces, keeps those worth keeping and answers queries.",
        epilog="exit codes: 0 done, 1 failed, 2 configuration, 3 damaged data folder, 4 not there",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"spanloom {version('spanloom')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    run = _command(subparsers, "run", commands.run, "all roles in one process, on one data folder")
    commands.add_config_flags(run)

    _add_cluster(subparsers)
    _add_sampling(subparsers)

    demo = _command(subparsers, "demo", commands.demo, "run, with seeded traffic and a live table")
    demo.add_argument("--spans", type=int, default=60_000, help="different spans to send (default %(default)s)")
    demo.add_argument("--rate", type=float, default=3_000, help="spans a second (default %(default)s)")
    demo.add_argument("--seed", type=int, default=1, help="of the traffic (default %(default)s)")
    demo.add_argument("--exit", action="store_true", help="end when the traces are there, instead of serving on")
    commands.add_config_flags(demo)

    text = "send seeded, realistic spans over OTLP/HTTP, or into Kafka where kafka.brokers is set"
    load = _command(subparsers, "loadgen", commands.loadgen, text)
    load.add_argument("--url", default=INTAKE_URL, help="where to (default %(default)s)")
    load.add_argument("--spans", type=int, default=100_000, help="different spans (default %(default)s)")
    load.add_argument("--rate", type=float, help="spans a second (default: as fast as it goes)")
    load.add_argument("--seed", type=int, default=1, help="same seed, same spans (default %(default)s)")
    load.add_argument("--services", type=int, default=30, help="default %(default)s")
    load.add_argument("--connections", type=int, default=4, help="default %(default)s")
    load.add_argument("--gzip", action="store_true", help="compress requests")
    load.add_argument("--record", type=Path, help="write down what was sent and acknowledged: a new file")
    commands.add_config_flags(load)  # with kafka.brokers set, spans go straight into Kafka

    trace = _command(subparsers, "trace", commands.trace, "show a trace as a waterfall")
    trace.add_argument("id", help="trace id: hex digits, or any text a sender used")
    trace.add_argument("--url", default=QUERY_URL, help="of the query service (default %(default)s)")

    _add_explain(subparsers)

    for name, function, text in (
        ("check-config", commands.check_config, "say whether the configuration is good"),
        ("explain-config", commands.explain_config, "every value, and where it came from"),
    ):
        commands.add_config_flags(_command(subparsers, name, function, text))
    return parser


def _add_explain(subparsers: "Subparsers") -> None:
    """The commands that explain verdicts."""
    told = _command(subparsers, "explain", explain.explain, "say what was decided of a trace, and why")
    told.add_argument("id", help="trace id: hex digits, or any text a sender used")
    told.add_argument("--near", metavar="TIME", help="about when it was, as 2026-01-31T12:00:00Z: finds old ones soon")
    told.add_argument("--url", default=QUERY_URL, help="of the query service (default %(default)s)")
    told.add_argument("--timeout", type=float, default=120, help="seconds to look for it (default %(default)s)")
    told.add_argument("--json", action="store_true", help="all of it, as JSON")

    text = "judge the traces of a file, OTLP protobuf or JSON, and say what each policy saw; needs no server"
    tried = _command(subparsers, "explain-trace", explain.explain_trace, text)
    tried.add_argument("file", type=Path, help="- is standard input")
    tried.add_argument("--policies", type=Path, metavar="FILE", help="YAML (default: the configuration's policies)")
    tried.add_argument("--json", action="store_true", help="all of it, a JSON object a line")
    commands.add_config_flags(tried)


def _add_cluster(subparsers: "Subparsers") -> None:
    """The commands of the cluster deployment."""
    text = "take spans in by every door, and put them into Kafka"
    commands.add_config_flags(_command(subparsers, "collector", commands.collector, text))

    text = "a member of the group that shares Kafka's partitions"
    commands.add_config_flags(_command(subparsers, "aggregator", commands.aggregator, text))

    topics = subparsers.add_parser("topics", help="make or check Kafka's topics", allow_abbrev=False)
    actions = topics.add_subparsers(required=True, metavar="ACTION")
    for name, function, text in (
        ("create", cluster.topics_create, "make the topics that are not there"),
        ("check", cluster.topics_check, "say what differs from how they should be; exit 2 if anything does"),
    ):
        action = _command(actions, name, function, text)
        action.add_argument("--spans-partitions", type=int, default=100, help="of the spans (default %(default)s)")
        action.add_argument("--replicas", type=int, help="default: 3, or the number of brokers if that is less")
        commands.add_config_flags(action)

    letters = subparsers.add_parser(
        "dead-letters", help="look at what was refused, or send it again", allow_abbrev=False
    )
    actions = letters.add_subparsers(required=True, metavar="ACTION")
    listing = _command(actions, "list", cluster.dead_letters_list, "a line a letter that was not sent again yet")
    listing.add_argument("--all", action="store_true", help="also those that were sent again")
    commands.add_config_flags(listing)
    text = "send the letters again that were not yet"
    commands.add_config_flags(_command(actions, "replay", cluster.dead_letters_replay, text))

    drain = _command(
        subparsers, "drain", cluster.drain, "wait until all of Kafka's spans are resolved; stop senders first"
    )
    drain.add_argument("--timeout", type=float, default=300, help="seconds, then exit 4 (default %(default)s)")
    commands.add_config_flags(drain)


def _add_sampling(subparsers: "Subparsers") -> None:
    """The commands about sampling policies."""
    sampling = subparsers.add_parser(
        "sampling", help="check, import, apply and roll back sampling policies", allow_abbrev=False
    )
    actions = sampling.add_subparsers(required=True, metavar="ACTION")
    text = "say whether a file of policies is good"
    check = _command(actions, "check", policies.sampling_check, text)
    check.add_argument("file", type=Path, help="YAML: a list of policies, or a mapping with policies")

    text = "print the policies of a Collector's configuration as a file of ours; what is lost goes to standard error"
    carry = _command(actions, "import", policies.sampling_import, text)
    carry.add_argument("file", type=Path, metavar="COLLECTOR_CONFIG", help="the Collector's whole configuration, YAML")
    carry.add_argument("--processor", help="which one, as tail_sampling/name, where there are several")
    _add_versions(actions)


def _add_versions(actions: "Subparsers") -> None:
    """The commands about versions of the policies; nodes that run follow them."""
    apply = _command(actions, "apply", versions.sampling_apply, "make a file of policies the next version")
    apply.add_argument("file", type=Path, help="YAML: a list of policies, or a mapping with policies")
    history = _command(actions, "history", versions.sampling_history, "list the versions, the newest last")
    text = "make an earlier version's policies the next version"
    rollback = _command(actions, "rollback", versions.sampling_rollback, text)
    rollback.add_argument("version", type=int)
    for writing in (apply, rollback):
        writing.add_argument("--comment", default="", help="why; the history shows it")
    for action in (apply, history, rollback):
        commands.add_config_flags(action)


def _command(subparsers: "Subparsers", name: str, run: Run, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser
