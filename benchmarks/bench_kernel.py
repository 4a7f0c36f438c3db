"""Measures the kernel: nanoseconds of CPU a span, native against pure.

    pytest benchmarks/bench_kernel.py            with pytest-benchmark's statistics
    python benchmarks/bench_kernel.py [SPANS]    one table; instructions a span too, where valgrind is there

The input is seeded: records of two or three spans, four records a trace, near 400 bytes a span, eight thousand traces
open at a time. `feed` is all a partition does with them before it stores: scan, dedupe, assemble, decide, encode the
decisions, and the books; 1 % is kept. `hostile` has trace ids that share their low bits, as one would choose them
against a table without a key. The other policies are: `plain`, which look at no attribute, so that no span is read for
them; `attributes`, five that look at one each, two of them at one that every span has; `pattern`, one that Python is
asked about, on an attribute that never is the same twice.
"""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from random import Random
from shutil import which
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from pytest_benchmark.fixture import BenchmarkFixture

from spanloom._native import kernel as native
from spanloom.core._pure import wire
from spanloom.core._pure.assembler import Assembler as PureAssembler
from spanloom.core.assembly import Harvest, Limits
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Record

Written = dict[str, object]
T0_MS = 1_700_000_000_000
TRACES_A_SECOND = 1000
ATTRIBUTES = (
    ("http.request.method", "GET"),
    ("http.response.status_code", "200"),
    ("network.protocol.version", "1.1"),
    ("server.address", "shop.example.com"),
    ("user_agent.original", "Mozilla/5.0 (X11; Linux x86_64)"),
)
SLOW: Written = {"name": "slow", "type": "latency_percentile", "latency_percentile": {"percentile": 99.9}}
BASE: Written = {
    "name": "base", "type": "consistent_probability", "consistent_probability": {"sampling_percentage": 1}
}  # fmt: skip


def _attribute(kind: str, key: str, **settings: object) -> Written:
    kind = f"{kind}_attribute"
    return {"name": key, "type": kind, kind: {"key": key, **settings}}


POLICIES: dict[str, list[Written]] = {
    "": [
        {"name": "errors", "type": "error"},
        SLOW,
        {"name": "payment", "type": "service_pattern", "service_pattern": {"services": ["pay*"]}},
        BASE,
    ],
    "plain": [
        {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
        {"name": "long", "type": "latency", "latency": {"threshold_ms": 5000}},
        BASE,
    ],
    "attributes": [
        _attribute("string", "http.request.method", values=["TRACE", "CONNECT"]),
        _attribute("string", "http.response.status_code", values=["500", "503"]),
        _attribute("numeric", "retries", min_value=3, max_value=9),
        _attribute("boolean", "cache.hit", value=True),
        _attribute("string", "tenant", values=["acme"]),
        BASE,
    ],
    "pattern": [_attribute("string", "url.full", values=["sort=none$"], enabled_regex_matching=True), BASE],
}
BATCH = 500  # records a feed, about what a fetch brings
IDLE_MS = 3_600_000
PURE_SHARE = 20  # the pure kernel gets a twentieth of the input


class Input(NamedTuple):
    """Records in the order of the log, and how many spans are in them."""

    records: list[Record]
    span_count: int


class Trace(NamedTuple):
    """A trace's records, and how many spans are in them."""

    trace_id: bytes
    records: list[bytes]
    span_count: int


def _trace_id(random: Random, *, hostile: bool) -> bytes:
    return random.randbytes(8) + (bytes(8) if hostile else random.randbytes(8))


def _traces_data(random: Random, trace_id: bytes, spans: Sequence[bytes], at_ns: int) -> bytes:
    data = TracesData()
    resource = data.resource_spans.add()
    name = resource.resource.attributes.add(key="service.name")
    name.value.string_value = f"service-{random.randrange(30)}"
    scope = resource.scope_spans.add()
    scope.scope.name = "bench"
    for span_id in spans:
        start = at_ns + random.randrange(100_000_000)
        span = Span(trace_id=trace_id, span_id=span_id, name="GET /api/v1/things/{id}", kind=Span.SPAN_KIND_SERVER)
        span.parent_span_id = b"" if span_id == trace_id[:8] else trace_id[:8]
        span.start_time_unix_nano, span.end_time_unix_nano = start, start + random.randrange(100_000_000)
        url = f"https://shop.example.com/api/v1/things/{random.randrange(10**9)}?sort=price&page={random.randrange(99)}"
        for key, value in (*ATTRIBUTES, ("url.full", url)):
            span.attributes.add(key=key).value.string_value = value
        scope.spans.append(span)
    return data.SerializeToString()


def make_trace(random: Random, at_ms: int, *, hostile: bool = False) -> Trace:
    """Four records of two or three spans."""
    trace_id = _trace_id(random, hostile=hostile)
    records = []
    count = 0
    for part in range(4):
        ids = [trace_id[:8]] if part == 0 else []
        ids += [random.randbytes(8) for _ in range(random.choice((2, 3)) - len(ids))]
        count += len(ids)
        records.append(_traces_data(random, trace_id, ids, at_ms * 1_000_000))
    return Trace(trace_id, records, count)


@cache
def make_input(spans: int, *, hostile: bool = False, traces_a_second: int = TRACES_A_SECOND) -> Input:
    """About *spans* spans."""
    random = Random(1)
    arrivals: list[tuple[float, bytes]] = []
    count = 0
    for number in range(spans // 10):
        born_ms = number * 1000 / traces_a_second
        trace = make_trace(random, T0_MS + int(born_ms), hostile=hostile)
        count += trace.span_count
        arrivals += [(born_ms + random.random() * 2000, data) for data in trace.records]
    arrivals.sort()
    return Input([Record(i, T0_MS + int(at), None, data) for i, (at, data) in enumerate(arrivals)], count)


def feed(assembler: type[PureAssembler], records: list[Record], policies: str = "") -> None:
    """A partition's life without waiting, to the end of all its traces."""
    one = assembler(Limits(), partition=0, partition_count=1)
    one.configure(parse_policies(POLICIES[policies], version=1))
    for at in range(0, len(records), BATCH):
        follow(one, one.feed(records[at : at + BATCH]))
    follow(one, one.advance((records[-1].timestamp_ms + IDLE_MS) * 1_000_000))  # every trace is decided


def follow(one: PureAssembler, harvest: Harvest) -> None:
    """Read back at once what was decided, store at once what is kept."""
    count = sum(int.from_bytes(body[:4], "little") for body in harvest.decisions)
    for fragment in one.confirm(count):
        one.resolve(fragment.decision, "stored")
    one.safe_position()


def scan(scanner: Callable[[bytes], object], records: list[Record]) -> None:
    """Only the scanner, and only through split_by_trace: of all calls it makes the fewest objects a span."""
    for record in records:
        scanner(record.value)


def cases(spans: int) -> dict[str, tuple[Callable[[], None], int]]:
    """What is measured, by name: a call, and the spans in it."""
    plain, hostile = make_input(spans), make_input(spans, hostile=True)
    some = make_input(spans // PURE_SHARE)
    # The native class is no subclass of the pure one; it has the same methods.
    native_class: type[PureAssembler] = native.Assembler  # type: ignore[assignment]
    return {
        "split, native": (partial(scan, native.split_by_trace, plain.records), plain.span_count),
        "split, pure": (partial(scan, wire.split_by_trace, some.records), some.span_count),
        "feed, native": (partial(feed, native_class, plain.records), plain.span_count),
        "feed, native, hostile": (partial(feed, native_class, hostile.records), hostile.span_count),
        **{
            f"feed, native, {name}": (partial(feed, native_class, plain.records, name), plain.span_count)
            for name in POLICIES
            if name
        },
        "feed, pure": (partial(feed, PureAssembler, some.records), some.span_count),
    }


@pytest.mark.parametrize(
    "name",
    [
        "split, native",
        "split, pure",
        "feed, native",
        "feed, native, hostile",
        *(f"feed, native, {name}" for name in POLICIES if name),
        "feed, pure",
    ],
)
def test_cpu_per_span(benchmark: BenchmarkFixture, name: str) -> None:
    """Time of one call over the whole input; `extra_info` says how many spans that is."""
    run, spans = cases(100_000)[name]
    benchmark.extra_info["spans"] = spans
    benchmark.pedantic(run, rounds=3, warmup_rounds=1)  # type: ignore[no-untyped-call]


def cpu_ns_a_span(run: Callable[[], None], spans: int, rounds: int = 5) -> float:
    """The least of some rounds, on the process's CPU clock."""
    best = float("inf")
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        began = time.process_time_ns()
        run()
        best = min(best, (time.process_time_ns() - began) / spans)
    gc.enable()
    return best


def instructed(spans: int) -> Input:
    """Spread over so much stream time that most traces are decided while they are fed."""
    return make_input(spans, traces_a_second=TRACES_A_SECOND // 10)


def instructions_a_span(spans: int, policies: str) -> float | None:
    """Instructions within Assembler.feed, by callgrind; None where valgrind is not there."""
    valgrind = which("valgrind")
    if valgrind is None:
        return None
    with TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", "--toggle-collect=*Assembler__feed*",
            sys.executable, __file__, "--feed-once", str(spans), policies,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        totals = next(line for line in out.read_text().splitlines() if line.startswith(("totals:", "summary:")))
    return int(totals.split()[1]) / instructed(spans).span_count


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--feed-once"]:
        feed(native.Assembler, instructed(int(arguments[1])).records, arguments[2])  # type: ignore[arg-type]
        return
    spans = int(arguments[0]) if arguments else 200_000
    data = make_input(spans)
    size = sum(len(record.value) for record in data.records)
    shape = f"{len(data.records)} records, {data.span_count / len(data.records):.2f} spans a record"
    sys.stdout.write(f"{data.span_count} spans in {shape}, {size / data.span_count:.0f} bytes a span\n")
    for name, (run, count) in cases(spans).items():
        sys.stdout.write(f"{name:24} {cpu_ns_a_span(run, count):8.0f} ns CPU a span\n")
    for policies in POLICIES:
        name = f"feed, native, {policies}" if policies else "feed, native"
        instructions = instructions_a_span(20_000, policies)
        if instructions is not None:
            sys.stdout.write(f"{name:24} {instructions:8.0f} instructions a span\n")


if __name__ == "__main__":
    main(sys.argv[1:])
