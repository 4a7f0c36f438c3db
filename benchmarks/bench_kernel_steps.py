"""Measures the kernel's steps apart: CPU and instructions a span of scan, dedupe, assemble, decide; native and pure.

    python -m benchmarks.bench_kernel_steps [OPEN_TRACES ...]     tables; 1000, 8000 and 600000 where none is named
    pytest benchmarks/bench_kernel_steps.py                       pytest-benchmark's statistics, 8000 open traces

A step is run together with those before it, over the same records; its own cost is the difference. The native ones are
called in C (kernel_steps.c, built with -O2 for each run, says what a step is), the pure ones in Python, by a
PureAssembler that goes on no further. Rounds of all steps take turns and the least of each counts, on the thread's CPU
clock. Only records that come when as many traces are open as named are timed. The records are those of bench_kernel.py:
two or three spans each, four a trace within two seconds. The most open traces want 12 GB of memory.
"""

import ctypes
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from os import getloadavg
from pathlib import Path
from random import Random
from shutil import which
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.bench_kernel import BATCH, POLICIES, T0_MS, follow, make_trace
from spanloom.core._pure.assembler import Assembler
from spanloom.core._pure.gathering import Gathering
from spanloom.core._pure.wire import Placed, Resource, raise_fault, read_traces_data, spans_of
from spanloom.core.assembly import Limits
from spanloom.core.offsets import Line
from spanloom.core.sampling.policies import LatencyPercentilePolicy
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Record

STEPS = ("scan", "dedupe", "assemble", "decide")
SOURCE = Path(__file__).with_name("kernel_steps.c")
TEMPLATES = 2000  # different traces; a longer stream has them again under other ids
OPEN_S = 7.6  # how long one of these traces is open: until it has been quiet for 6 s
PURE_OPEN = 1000  # the pure kernel takes too long to fill more
ROUNDS = 5
FEW = 100_000  # open traces; more get fewer rounds


class Slow(ctypes.Structure):
    """`slow_settings` of kernel_steps.c."""

    _fields_ = (
        ("percentile_bp", ctypes.c_uint32),
        ("min_count", ctypes.c_uint32),
        ("operations_max", ctypes.c_uint32),
        ("half_ns", ctypes.c_int64),
    )


def slow_settings() -> Slow:
    """The percentile policy of bench_kernel.py."""
    policies = parse_policies(POLICIES[""], version=1).policies
    slow = next(policy for policy in policies if isinstance(policy, LatencyPercentilePolicy))
    return Slow(slow.percentile_bp, slow.min_count, slow.operations_max, slow.window_ns // 2)


class Load(NamedTuple):
    """How many traces, how fast they begin, and between which records so many are open as wanted."""

    open_traces: int
    traces: int
    per_second: float
    timed_from: int
    timed_to: int  # before no new ones come

    @classmethod
    def of(cls, open_traces: int, timed_traces: int) -> "Load":
        per_second = open_traces / OPEN_S
        traces = open_traces + timed_traces
        return cls(open_traces, traces, per_second, 4 * open_traces, int(4 * (traces - per_second)))


def write_traces(path: Path) -> None:
    """The file that kernel_steps.c reads."""
    random = Random(1)
    with path.open("wb") as file:
        for _ in range(TEMPLATES):
            trace = make_trace(random, T0_MS)
            file.write(trace.trace_id)
            for record in trace.records:
                file.write(len(record).to_bytes(4, sys.byteorder) + record)


def compile_steps(target: Path, *flags: str) -> None:
    """Build kernel_steps.c as the kernel is built."""
    command = [
        "cc",
        "-std=c11",
        "-O2",
        "-g",
        f"-I{SOURCE.parent.parent / 'ext'}",
        *flags,
        str(SOURCE),
        "-o",
        str(target),
    ]
    subprocess.run(command, check=True)  # noqa: S603


class Native:
    """kernel_steps.c, loaded."""

    def __init__(self, folder: Path) -> None:
        compile_steps(folder / "steps.so", "-shared", "-fPIC")
        write_traces(folder / "traces")
        self._path = str(folder / "traces").encode()
        self._slow = slow_settings()
        self.library = ctypes.CDLL(str(folder / "steps.so"))
        for name in ("steps_stream", "steps_begin"):
            getattr(self.library, name).restype = ctypes.c_void_p
        for name in ("steps_records", "steps_spans", "steps_open"):
            getattr(self.library, name).restype = ctypes.c_size_t

    @contextmanager
    def stream(self, load: Load) -> Iterator[ctypes.c_void_p]:
        """The records of a load."""
        made = ctypes.c_void_p(
            self.library.steps_stream(self._path, ctypes.c_size_t(load.traces), ctypes.c_double(load.per_second))
        )
        yield made
        self.library.steps_stream_free(made)

    @contextmanager
    def run(self, stream: ctypes.c_void_p, step: int, open_max: int) -> Iterator[ctypes.c_void_p]:
        """A run as far as a step, at its beginning."""
        open_traces = ctypes.c_size_t(open_max)
        begun = ctypes.c_void_p(self.library.steps_begin(stream, step, open_traces, ctypes.byref(self._slow)))
        yield begun
        self.library.steps_end(begun)

    def go(self, run: ctypes.c_void_p, to: int) -> None:
        """Go on to record number *to*."""
        status = self.library.steps_go(run, ctypes.c_size_t(to))
        assert status == 0, f"status {status}"


class Timed(NamedTuple):
    """CPU ns a span of a run as far as each step, in order of STEPS; open traces at the end of the whole."""

    ns: tuple[float, ...]
    open_traces: int


def time_native(native: Native, load: Load, rounds: int) -> Timed:
    """The least of some rounds."""
    best = [float("inf")] * len(STEPS)
    open_traces = 0
    with native.stream(load) as stream:
        spans = native.library.steps_spans(stream, ctypes.c_size_t(load.timed_from), ctypes.c_size_t(load.timed_to))
        for step in list(range(len(STEPS))) * rounds:
            with native.run(stream, step, load.open_traces) as run:
                native.go(run, load.timed_from)
                began = time.thread_time_ns()
                native.go(run, load.timed_to)
                best[step] = min(best[step], (time.thread_time_ns() - began) / spans)
                open_traces = native.library.steps_open(run)
    return Timed(tuple(best), open_traces)


class Assembling(Assembler):
    """Goes on as far as `assemble`: the oldest trace is let go when too many are open."""

    open_max: int

    def _expire(self) -> None:
        while len(self._open) > self.open_max:
            oldest = self._open.pop(next(iter(self._open)))
            for line in oldest.lines:
                self._books.resolve(line, "not_sampled")

    def _schedule(self, gathering: Gathering) -> None:
        pass


class Deduping(Assembling):
    """Goes on as far as `dedupe`: identities are kept, no bytes."""

    def _apply(self, line: Line, resources: list[Resource], misplaced: frozenset[bytes]) -> None:
        del misplaced
        for span in spans_of(resources):
            self._books.receive(line, 1)
            self._take(line, span, Placed(0, 0, b""))


def scan(records: Sequence[Record]) -> None:
    """Goes on as far as `scan`."""
    for record in records:
        for span in spans_of(read_traces_data(record.value)):
            if span.fault:
                raise_fault(span)


class PureRun:
    """A run of the pure kernel as far as a step."""

    def __init__(self, step: int, open_max: int) -> None:
        self._step = step
        limits = Limits()
        kinds = (None, Deduping, Assembling, Assembler)
        kind = kinds[step]
        self._assembler = kind(limits, partition=0, partition_count=1) if kind else None
        if isinstance(self._assembler, Assembling):
            self._assembler.open_max = open_max
        if self._assembler:
            self._assembler.configure(parse_policies(POLICIES[""], version=1))

    def go(self, records: Sequence[Record]) -> None:
        """Read records, and back what is decided."""
        one = self._assembler
        if one is None:
            return scan(records)
        for at in range(0, len(records), BATCH):
            follow(one, one.feed(records[at : at + BATCH]))
        return None


def make_records(load: Load) -> list[Record]:
    """The same load for the pure kernel."""
    random = Random(2)
    arrivals: list[tuple[float, bytes]] = []
    for number in range(load.traces):
        born_ms = number * 1000 / load.per_second
        trace = make_trace(random, T0_MS + int(born_ms))
        arrivals += [(born_ms + random.random() * 2000, value) for value in trace.records]
    arrivals.sort()
    return [Record(i, T0_MS + int(at), None, value) for i, (at, value) in enumerate(arrivals)]


def time_pure(rounds: int) -> Timed:
    """The least of some rounds."""
    load = Load.of(PURE_OPEN, PURE_OPEN)
    records = make_records(load)
    timed = records[load.timed_from : load.timed_to]
    spans = sum(len(list(spans_of(read_traces_data(record.value)))) for record in timed)
    best = [float("inf")] * len(STEPS)
    for step in list(range(len(STEPS))) * rounds:
        run = PureRun(step, load.open_traces)
        run.go(records[: load.timed_from])
        began = time.thread_time_ns()
        run.go(timed)
        best[step] = min(best[step], (time.thread_time_ns() - began) / spans)
    return Timed(tuple(best), load.open_traces)


def count_instructions(folder: Path, load: Load) -> tuple[float, ...] | None:
    """Instructions a span of a run as far as each step, by callgrind; None where valgrind is not there."""
    valgrind = which("valgrind")
    if valgrind is None:
        return None
    program, out = folder / "steps", folder / "callgrind"
    compile_steps(program)
    counts = []
    for step in range(len(STEPS)):
        command = [
            valgrind, "--tool=callgrind", f"--callgrind-out-file={out}", "--toggle-collect=steps_go",
            str(program), str(folder / "traces"), str(step), str(load.traces), str(load.per_second),
            str(load.open_traces),
        ]  # fmt: skip
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
        totals = next(line for line in out.read_text().splitlines() if line.startswith(("totals:", "summary:")))
        counts.append(int(totals.split()[1]) / int(done.stdout))
    return tuple(counts)


def own_costs(sums: tuple[float, ...]) -> list[float]:
    """Of each step alone; then of the first three together, and of all."""
    own = [sums[0], *(after - before for before, after in pairwise(sums))]
    return [*own, sums[2], sums[3]]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return Native(tmp_path_factory.mktemp("steps"))


@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
def test_native_as_far_as(benchmark: BenchmarkFixture, native: Native, step: int) -> None:
    """Time of one run over all spans (`extra_info`) as far as a step."""
    load = Load.of(8000, 8000)
    with native.stream(load) as stream:
        end = native.library.steps_records(stream)
        benchmark.extra_info["spans"] = native.library.steps_spans(stream, ctypes.c_size_t(0), ctypes.c_size_t(end))

        def go() -> None:
            with native.run(stream, step, load.open_traces) as run:
                native.go(run, end)

        benchmark.pedantic(go, rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
def test_pure_as_far_as(benchmark: BenchmarkFixture, step: int) -> None:
    """Time of one run over all spans (`extra_info`) as far as a step."""
    records = make_records(Load.of(PURE_OPEN, PURE_OPEN))
    benchmark.extra_info["spans"] = sum(len(list(spans_of(read_traces_data(record.value)))) for record in records)
    benchmark.pedantic(lambda: PureRun(step, PURE_OPEN).go(records), rounds=3)  # type: ignore[no-untyped-call]


def say(name: str, cells: Sequence[str]) -> None:
    """One row of the table."""
    sys.stdout.write(f"{name:36}" + "".join(f"{cell:>13}" for cell in cells) + "\n")
    sys.stdout.flush()


def say_costs(name: str, costs: Sequence[float], digits: int = 0) -> None:
    say(name, [f"{cost:,.{digits}f}" for cost in costs])


def say_load() -> None:
    """The machine's load, which the figures depend on."""
    say(f"load {getloadavg()[0]:.1f}", [*STEPS, "first three", "all"])


def main(arguments: list[str]) -> None:
    say_load()
    with TemporaryDirectory() as name:
        folder = Path(name)
        native = Native(folder)
        for open_traces in map(int, arguments or ("1000", "8000", "600000")):
            load = Load.of(open_traces, max(20_000, open_traces // 2))
            timed = time_native(native, load, ROUNDS if open_traces < FEW else 3)
            say_costs(f"native, ns, {timed.open_traces:,} open", own_costs(timed.ns))
        beside = own_costs(time_native(native, Load.of(PURE_OPEN, 20_000), ROUNDS).ns)
        pure = own_costs(time_pure(3).ns)
        say_costs(f"pure, ns, {PURE_OPEN:,} open", pure)
        say_costs(
            f"pure / native, {PURE_OPEN:,} open", [slow / fast for slow, fast in zip(pure, beside, strict=True)], 1
        )
        counts = count_instructions(folder, Load.of(1000, 2000))
        if counts:
            say_costs("native, instructions, 1,000 open", own_costs(counts))
    say_load()


if __name__ == "__main__":
    main(sys.argv[1:])
