"""spanloom beside the OpenTelemetry Collector: same topic, same policies, same machine, in turns, in one command.

    python -m benchmarks.compare [--quick]              everything; results into .benchmarks/, the table printed
    python -m benchmarks.compare --only "2.5 spans a record" --stores none --rounds 3 --skip latency held everything
    python -m benchmarks.compare --against A.json B.json                 two commits beside each other

Starts its own Kafka and Elasticsearch, builds the collector where it is not built yet (that needs Go). Each traffic is
made and put into a topic first. Then every side takes its turn, in another order each round: a warm-up that does not
count, then the rounds. compare_measure.py says how CPU and wall time are counted, compare_latency.py what the latency
is, compare_report.py when two sides are comparable. The full run takes most of an hour, --quick about 10 minutes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import cast

from confluent_kafka import libversion

from benchmarks.compare_latency import latency
from benchmarks.compare_measure import measure
from benchmarks.compare_report import Key, Paced, Results, Run, against, gathered, load, markdown, plot
from benchmarks.compare_sides import (
    FOREVER_S,
    OURS,
    ROOT,
    STORES,
    THEIRS,
    Running,
    Task,
    drop_topics,
    make_topic,
    our_policies,
    run_ours,
    run_theirs,
)
from benchmarks.compare_traffic import SHAPES, TRACE_SPANS, Traffic, fill, mixed, shaped
from spanloom.core.kernel import KERNEL
from tests.servers import elasticsearch, otelcol
from tests.servers import kafka as brokers
from tests.servers.go import go

MIX = "mix"
WAIT_S = {MIX: (6.0, 10.0)}  # ours, theirs: SDKs batch for 5 s, which the collector's wait must outlast
SHAPED_WAIT_S = (5.0, 5.0)
LATENCY_TRAFFIC = "2.5 spans a record"
EVERYTHING_SPANS_A_SECOND = 10_000  # slow in stream time: what the end of the topic leaves undecided stays small
PARTS = ("latency", "held", "everything")
RUNNERS: dict[str, Callable[[Task], AbstractContextManager[Running]]] = {OURS: run_ours, THEIRS: run_theirs}
say = partial(print, flush=True)


@dataclass(slots=True)
class Bench:
    """A comparison under way."""

    args: argparse.Namespace
    brokers: str
    has_peer: bool
    results: Results
    began_s: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """A line of progress."""
        say(f"[{time.monotonic() - self.began_s:5.0f} s] {text}")

    def sides(self) -> list[tuple[str, str]]:
        """(side, store) of everybody who takes turns."""
        theirs = [(THEIRS, "")] if self.has_peer else []
        return [*theirs, *((OURS, store) for store in self.args.stores)]


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.against:
        say(against(*map(load, args.against)))
        return 0
    results = run(args)
    name = f"{results['stamp']['commit'][:12]}-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    args.out.mkdir(parents=True, exist_ok=True)
    for suffix, text in (("json", json.dumps(results, indent=1)), ("md", markdown(results)), ("svg", plot(results))):
        (args.out / f"{name}.{suffix}").write_text(text)
    say(markdown(results))
    say(f"written: {args.out}/{name}.json, .md, .svg")
    return 1 if results["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare")
    traffics = [*SHAPES, MIX]
    parser.add_argument("--quick", action="store_true", help="one round, no warm-up, and half the time at half load")
    parser.add_argument("--traces", type=int, help="of ten spans each; the mix has as many spans (60,000)")
    parser.add_argument("--rounds", type=int, help="that count (5)")
    parser.add_argument("--only", nargs="+", choices=traffics, default=traffics, help="these traffics", metavar="NAME")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--skip", nargs="+", choices=PARTS, default=[])
    parser.add_argument("--consumer", choices=("auto", "native", "portable"), default="auto", help="of ours")
    parser.add_argument("--out", type=Path, default=ROOT / ".benchmarks")
    parser.add_argument("--against", nargs=2, type=Path, metavar=("BEFORE", "AFTER"), help="compare two results")
    return parser


def run(args: argparse.Namespace) -> Results:
    """Everything that was asked for."""
    args.traces = args.traces or 60_000  # far fewer, and the collector never gets to collecting garbage
    args.rounds = args.rounds or (1 if args.quick else 5)
    has_peer = go() is not None
    if not has_peer:
        say(f"the collector is left out: {otelcol.NO_GO}")
        assert os.environ.get("CI") != "true", otelcol.NO_GO
    results: Results = {"stamp": _stamp(args), "runs": [], "held": [], "latency": [], "everything": [], "failed": []}
    with TemporaryDirectory(prefix="spanloom-bench-kafka-") as folder, brokers.kafka(Path(folder)) as cluster:
        bench = Bench(args, cluster.brokers, has_peer, results)
        if has_peer:
            bench.say(f"collector: {otelcol.binary()}")
        for name in args.only:
            _compare(bench, name)
        if "latency" not in args.skip and LATENCY_TRAFFIC in args.only:
            _latency(bench)
        if "everything" not in args.skip:
            _everything(bench)
    results["stamp"]["load average, after"] = _load_average()
    return results


# The parts.


def _compare(bench: Bench, name: str) -> None:
    """Turns on one traffic, then how much memory each side needs for all of it undecided."""
    traffic = mixed(bench.args.traces * TRACE_SPANS) if name == MIX else shaped(name, bench.args.traces)
    bench.say(
        f"{name}: {traffic.spans:,} spans, {traffic.traces:,} traces, {traffic.spans_a_record:.2f} spans a record, "
        f"{traffic.record_bytes:.0f} bytes a record"
    )
    with _topic(bench, traffic) as topic:
        for number in range(0 if bench.args.rounds > 1 else 1, bench.args.rounds + 1):
            sides = bench.sides()
            for side, store in sides[number % len(sides) :] + sides[: number % len(sides)]:
                _turn(bench, traffic, topic, side, store=store, number=number)
        if "held" not in bench.args.skip:
            for side in [side for side, store in bench.sides() if store in ("", bench.args.stores[0])]:
                _hold(bench, traffic, topic, side)


@contextmanager
def _topic(bench: Bench, traffic: Traffic) -> Iterator[str]:
    """A topic with that traffic in it."""
    topic = f"spans-{time.monotonic_ns()}"
    make_topic(bench.brokers, topic, "CreateTime")
    fill(bench.brokers, topic, traffic)
    yield topic
    drop_topics(bench.brokers, [topic])


def _turn(bench: Bench, traffic: Traffic, topic: str, side: str, *, store: str, number: int) -> None:
    ours_s, theirs_s = WAIT_S.get(traffic.name, SHAPED_WAIT_S)
    wait_s = ours_s if side == OURS else theirs_s
    task = Task(bench.brokers, topic, wait_s, traffic.traces, slow_ms=traffic.slow_ms, store=store or "none")
    task = replace(task, consumer=bench.args.consumer)
    found = _measured(bench, task, traffic, side, number=number)
    if found:
        bench.results["runs"].append(found)
        bench.say(
            f"  {'warm-up' if number == 0 else f'round {number}'}: {side:9} {store:13} {found['cpu_us']:6.2f} µs CPU a "
            f"span, {found['spans_s']:9,.0f} spans/s, {found['peak_rss_bytes'] / 1e6:5,.0f} MB, {found['kept']} kept"
        )


def _hold(bench: Bench, traffic: Traffic, topic: str, side: str) -> None:
    task = Task(bench.brokers, topic, FOREVER_S, traffic.traces, slow_ms=traffic.slow_ms)
    found = _measured(bench, task, traffic, side, number=1, may_hold=True)
    if found:
        bench.results["held"].append(found)
        grown = (found["peak_rss_bytes"] - found["rss_before_bytes"]) / found["spans"]
        bench.say(f"  all undecided: {side:9} {found['peak_rss_bytes'] / 1e6:,.0f} MB, {grown:,.0f} bytes a span")


def _latency(bench: Bench) -> None:
    """Each side at half of what it took before."""
    groups = gathered(bench.results["runs"])
    for side in (THEIRS, OURS) if bench.has_peer else (OURS,):
        runs = groups.get(Key(LATENCY_TRAFFIC, side, "" if side == THEIRS else bench.args.stores[0]))
        if not runs:
            continue
        half = median(run["spans_s"] for run in runs) / 2
        traffic = shaped(LATENCY_TRAFFIC, 100)  # the producer makes its own; this names it
        try:
            one = latency(side, bench.brokers, traffic, spans_s=half, lasts_s=14 if bench.args.quick else 30)
        except AssertionError as error:
            _failed(bench, f"latency: {side}: {error}")
            continue
        bench.results["latency"].append(cast(Paced, asdict(one)))
        bench.say(
            f"half load: {side:9} {one.offered_spans_s:,.0f} spans/s, p50 {one.p50_ms:.0f}, p99 {one.p99_ms:.0f} ms"
        )


def _everything(bench: Bench) -> None:
    """Every trace kept, after a warm-up: half a million spans long Elasticsearch's JVM mostly compiles itself.

    Jaeger's own figure for the same is in the notes: it cannot be built from the registries.
    """
    name = LATENCY_TRAFFIC
    traffic = shaped(name, bench.args.traces, spans_a_second=EVERYTHING_SPANS_A_SECOND)
    with _topic(bench, traffic) as topic:
        task = Task(bench.brokers, topic, SHAPED_WAIT_S[0], traffic.traces, store="elasticsearch", keeps_all=True)
        for number in range(min(3, bench.args.rounds) + 1):
            found = _measured(bench, task, traffic, OURS, number=number)
            if found:
                bench.results["everything"] += [found] if number else []
                bench.say(
                    f"everything kept{'' if number else ', warm-up'}: {found['stored_spans_s']:,.0f} spans/s stored, "
                    f"{found['cpu_us']:.1f} µs a span, {found['store_cpu_us']:.1f} in Elasticsearch, "
                    f"{found['kept']} documents"
                )


def _measured(
    bench: Bench, task: Task, traffic: Traffic, side: str, *, number: int, may_hold: bool = False
) -> Run | None:
    """One run; None, and a note, where it failed."""
    try:
        with RUNNERS[side](task) as running:
            found = measure(running, traffic.spans, may_hold=may_hold)
    except (AssertionError, OSError) as error:
        _failed(bench, f"{traffic.name}: {side} {task.store}, round {number}: {error}")
        return None
    wire = sum(len(record.value) for record in traffic.records)
    exact = traffic.exact and our_policies(traffic.slow_ms, keeps_all=task.keeps_all)[1]
    about = {
        "traffic": traffic.name, "side": side, "store": task.store if side == OURS else "", "round": number,
        "traces": traffic.traces, "exact": exact, "wire_bytes": wire,
    }  # fmt: skip
    return cast(Run, asdict(found) | about)


def _failed(bench: Bench, text: str) -> None:
    line = " ".join(text.split())[:1000]
    bench.results["failed"].append(line)
    bench.say(f"FAILED: {line}")


# The stamp.


def _stamp(args: argparse.Namespace) -> dict[str, str]:
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory_kb = next(int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal"))
    changed = len(_git("status", "--porcelain").splitlines())
    return {
        "commit": _git("rev-parse", "HEAD") + (f" and {changed} changed files" if changed else ""),
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "command": f"python -m benchmarks.compare {' '.join(sys.argv[1:])}".strip(),
        "machine": f"{os.cpu_count()} cores, {cpu}, {memory_kb / 1e6:.0f} GB, Linux {platform.release()}",
        "versions": (
            f"Python {platform.python_version()}, {KERNEL} kernel, librdkafka {libversion()[0]}, "
            f"Kafka {brokers.VERSION}, collector {otelcol.version()}, Elasticsearch {elasticsearch.BASELINE}"
        ),
        "policies": "the same" if our_policies(500)[1] else "as many kept by chance, but not the same ones",
        "rounds": f"{args.rounds}{', after a warm-up' if args.rounds > 1 else ', no warm-up'}",
        "load average, before": _load_average(),
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT).stdout.strip()  # noqa: S603, S607, PLW1510


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _load_average() -> str:
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


if __name__ == "__main__":
    sys.exit(main())
