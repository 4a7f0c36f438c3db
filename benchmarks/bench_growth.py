"""Whether the kernel's cost grows with the work alone, and what hostile shapes cost: CPU a span beside the usual one.

    python -m benchmarks.bench_growth [PART ...]       all of them where none is named, each in a process of its own

    input        1x, 4x and 16x as many spans: in a longer stream, and in one as long with more traces open
    partitions   one stream split over 8, 24 and 100 assemblers
    ids          trace ids chosen to collide in a table without a key
    span-ids     one trace of 50,000 spans, its span ids chosen so
    million-kept, million-dropped, million-wide
                 one trace of a million spans: kept, dropped, and kept without limits of its own, in 512 MiB
    lone         ten million traces of one span
    node         one trace of a million spans through `spanloom run` with undecided_bytes_max at 512 MiB

Timed is the CPU of the process (`time.process_time_ns`) in feed, confirm, resolve and safe_position, over records made
beforehand (bench_kernel.py's and its policies; growth_traffic.py changes their ids); the cases of a part take turns,
garbage collection off. Told are the least and the median of the rounds and what the least is to the first case's.
Every run's books are held against what was sent. The whole takes 10 minutes and 7 GB.
"""

import ctypes
import gc
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.bench_kernel import BATCH, IDLE_MS, POLICIES, T0_MS, follow
from benchmarks.bench_kernel_leak import MIB, renamed, rss_mib
from benchmarks.growth_traffic import (
    CROWDED,
    IDS,
    ONE_TRACE,
    SPAN_IDS,
    Fed,
    Load,
    Made,
    Part,
    by_partition,
    lone,
    one_partition,
    one_trace,
    single,
    spans_in,
    stream,
    usual,
)
from spanloom._native import kernel as native
from spanloom.core._pure.assembler import Assembler
from spanloom.core.assembly import Harvest, Limits, Tally
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Record, Trigger
from tests.core.memory import heap_bytes
from tests.integration.process import running
from tests.servers.processes import cpu_s, peak_rss_bytes

ROUNDS = 5
MILLION = 1_000_000
BUDGET = 512 * MIB
REMEMBER_S = 300
WIDE = Limits(spans_max=10 * MILLION, bytes_max=1 << 30)
LONE_A_SECOND = 40_000
CHUNK = 100_000


class Case(NamedTuple):
    """Something that is fed, again in each round."""

    name: str
    feeds: list[Fed]
    spans: int
    partitions: int = 1  # of which there is an assembler each
    partition_count: int = 1  # as they are told; more than there are: the others are somebody else's
    limits: Limits = Limits()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def assembler(limits: Limits, partition: int = 0, partition_count: int = 1) -> Assembler:
    """A native one, with bench_kernel.py's policies."""
    one: Assembler = native.Assembler(limits, partition=partition, partition_count=partition_count)  # type: ignore[assignment]
    one.configure(parse_policies(POLICIES[""], version=1))
    return one


def heap_mib() -> float:
    """What malloc has given out."""
    return heap_bytes() / MIB


def timed_ns(run: Callable[[], None]) -> int:
    """CPU time of the process."""
    gc.collect()
    gc.disable()
    began = time.process_time_ns()
    run()
    took = time.process_time_ns() - began
    gc.enable()
    return took


def feed(assemblers: Sequence[Assembler], feeds: Iterable[Fed]) -> None:
    """A partition's life, of several."""
    for partition, records in feeds:
        one = assemblers[partition]
        follow(one, one.feed(records))


def finish(assemblers: Iterable[Assembler]) -> None:
    """Decide every trace."""
    for one in assemblers:
        follow(one, one.advance(one.stream_ns + IDLE_MS * 1_000_000))


def round_ns(case: Case) -> float:
    """A round, whose books must hold: CPU a span."""
    count = max(case.partitions, case.partition_count)
    assemblers = [assembler(case.limits, number, count) for number in range(case.partitions)]

    def live() -> None:
        feed(assemblers, case.feeds)
        finish(assemblers)

    took = timed_ns(live)
    whole = Tally()
    for one in assemblers:
        whole.add(one.statistics().tally)
    assert whole.received == case.spans, (case.name, whole)
    assert whole.pending == 0, (case.name, whole)
    assert whole.stored + whole.not_sampled + whole.late == case.spans, (case.name, whole)
    return took / case.spans


def take_turns(title: str, cases: Sequence[Case]) -> None:
    """Rounds of all cases; the table."""
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    for number in range(ROUNDS):
        for case in cases[number % len(cases) :] + cases[: number % len(cases)]:  # type: ignore[operator]
            found[case.name].append(round_ns(case))
    least = min(found[cases[0].name])
    say(f"{title}  (load {os.getloadavg()[0]:.1f})")
    for case in cases:
        took = found[case.name]
        name = f"{case.name}, {case.spans:,} spans"
        say(f"  {name:56} {min(took):6.0f} ns  median {median(took):6.0f}  x {min(took) / least:.2f}")


# Grows with the work alone.


def part_input() -> None:
    """1x, 4x, 16x."""
    load = stream(usual(), 320_000, 1000)
    share = len(load.made) // 16
    cases = []
    for times in (1, 4, 16):
        made = load.made[: times * share]
        cases.append(Case(f"{times:2}x, 1,000 traces a second", one_partition(made), spans_in(made)))
    take_turns("as long a stream, 7,600 traces open", cases)
    del load, cases
    cases = []
    for times in (1, 4, 16):
        load = stream(usual(), 20_000 * times, 1000 * times)
        cases.append(Case(f"{times:2}x, {1000 * times:,} traces a second", one_partition(load.made), load.spans))
    take_turns("20 s of stream time, 7,600 to 120,000 traces open", cases)


def part_partitions() -> None:
    """8, 24, 100."""
    load = stream(usual(), 80_000, 4000)
    counts = (8, 24, 100)
    for title, fetched in (
        (f"{BATCH} records a call", None),
        (f"{8 * BATCH} records fetched, a call a partition", 8 * BATCH),
    ):
        take_turns(
            f"one stream of 30,000 open traces, {title}",
            [Case(f"{n:3} partitions", by_partition(load.made, n, fetched), load.spans, n, n) for n in counts],
        )


# Hostile shapes.


def part_ids() -> None:
    """Trace ids."""
    for title, templates in (("2.5 spans a record, ten a trace", usual()), ("traces of one span", lone())):
        cases = []
        for name, ids in IDS.items():
            load = stream(templates, 30_000, 3000, ids)
            count = CROWDED if "partition" in name else 1
            cases.append(Case(name, one_partition(load.made), load.spans, partition_count=count))
        take_turns(title, cases)


def part_span_ids() -> None:
    """Span ids of one trace, which no limit cuts."""
    cases = [_usual_case(stream(usual(), 5_000, 1000))]
    for name, ids in SPAN_IDS.items():
        parts = list(one_trace(50_000, error=False, ids=ids))
        made = [Made(number, ONE_TRACE, part.value) for number, part in enumerate(parts)]
        cases.append(
            Case(f"one trace, span ids: {name}", one_partition(made), sum(p.spans for p in parts), limits=WIDE)
        )
    take_turns("span ids", cases)


def _usual_case(load: Load) -> Case:
    return Case("usual traces", one_partition(load.made), load.spans)


class Books:
    """What one assembler was fed and gave, its CPU apart from what makes the records."""

    def __init__(self, limits: Limits, undecided_bytes_max: int = BUDGET) -> None:
        self.one = assembler(limits)
        self.most = undecided_bytes_max
        self.cpu_ns = 0
        self.fragments: list[tuple[int, int]] = []  # spans, trigger

    def feed(self, records: list[Record]) -> None:
        """As a partition does, memory kept as `_shed_if_full` keeps it."""
        for at in range(0, len(records), BATCH):
            began = time.process_time_ns()
            harvest = self.one.feed(records[at : at + BATCH])
            if self.one.undecided_bytes > self.most:
                harvest += self.one.shed(self.most * 3 // 4)
            self._settle(harvest, began)

    def end(self) -> None:
        """Decide every trace."""
        began = time.process_time_ns()
        self._settle(self.one.advance(self.one.stream_ns + IDLE_MS * 1_000_000), began)

    def _settle(self, harvest: Harvest, began: int) -> None:
        kept = self.one.confirm(sum(int.from_bytes(body[:4], "little") for body in harvest.decisions))
        for fragment in kept:
            self.one.resolve(fragment.decision, "stored")
        self.one.safe_position()
        self.cpu_ns += time.process_time_ns() - began
        for fragment in kept:
            count = fragment.spans.count(fragment.decision.trace_id)
            assert count == fragment.decision.span_count, fragment.decision
            self.fragments.append((count, fragment.decision.trigger))


def expected_fragments(parts: Iterable[Part], limits: Limits) -> list[int]:
    """Spans of each fragment of a kept trace, by the limits' own words: decided once a record takes it above one."""
    fragments, spans, size = [], 0, 0
    for part in parts:
        spans, size = spans + part.spans, size + part.span_bytes
        if spans > limits.spans_max or size > limits.bytes_max:
            fragments.append(spans)
            spans = size = 0
    return [*fragments, spans] if spans else fragments


def million(title: str, limits: Limits, *, error: bool, undecided_bytes_max: int = BUDGET) -> None:
    """One trace of a million spans; peak memory is this process's."""
    books = Books(limits, undecided_bytes_max)
    list(one_trace(100, error=error))  # templates are made
    before, offset, sizes = rss_mib(), 0, []
    parts = one_trace(MILLION, error=error)
    while some := list(islice(parts, 10 * BATCH)):
        books.feed([Record(offset + n, T0_MS + (offset + n) // 40, None, part.value) for n, part in enumerate(some)])
        sizes += [part._replace(value=b"") for part in some]
        offset += len(some)
    books.end()
    seen = books.one.statistics()
    spans = sum(part.spans for part in sizes)
    tally = seen.tally
    assert (tally.received, tally.pending) == (spans, 0), tally
    assert tally.stored + tally.not_sampled + tally.late + tally.pressure == spans, tally
    assert sum(count for count, _ in books.fragments) == tally.stored, tally
    if limits != WIDE:
        wanted = expected_fragments(sizes, limits)
        assert [count for count, _ in books.fragments] == (wanted if error else []), books.fragments
        assert (tally.stored if error else tally.not_sampled) == (spans if error else wanted[0]), tally
    triggers = {trigger.name: count for trigger, count in zip(Trigger, seen.triggers, strict=True) if count}
    say(f"{title}: {spans:,} spans, {sum(p.span_bytes for p in sizes) / MIB:.0f} MiB of them; decided {triggers}")
    say(f"  stored {tally.stored:,}, not sampled {tally.not_sampled:,}, late {tally.late:,}, pressure {tally.pressure}")
    cost, peak = books.cpu_ns / spans, peak_rss_bytes(os.getpid()) / MIB
    say(f"  {cost:.0f} ns a span; RSS {before:.0f} MiB before, {peak:.0f} at most")
    normal = _usual_case(stream(usual(), 100_000, 1000))
    least = min(round_ns(normal) for _ in range(3))
    say(f"  usual traces, as many spans: {least:.0f} ns a span; x {cost / least:.2f}")


def part_million_kept() -> None:
    """Kept, the default limits."""
    million("kept", Limits(), error=True)


def part_million_dropped() -> None:
    """Dropped, the default limits: all after the first fragment is late."""
    million("dropped", Limits(), error=False)


def part_million_wide() -> None:
    """No limit of its own: a quarter of 512 MiB for what is undecided, as `auto` takes it, decides early."""
    million("kept, no limits", WIDE, error=True, undecided_bytes_max=BUDGET // 4)


def part_lone() -> None:
    """Ten million one-span traces beside usual traffic of as many spans a second."""
    say(f"{LONE_A_SECOND:,} spans a second of stream time in all of them")
    costs = _usual_costs()
    gc.collect()
    before = heap_mib()
    books, random, number = Books(Limits()), Random(1), 0
    took = []
    for each in range(1, 11):
        began = books.cpu_ns
        for _ in range(MILLION // CHUNK):
            books.feed(_lone_records(random, number, CHUNK, per_ms=LONE_A_SECOND // 1000))
            number += CHUNK
        took.append((books.cpu_ns - began) / MILLION)
        seen = books.one.statistics()
        say(
            f"  {each:2} M: {took[-1]:4.0f} ns a span, heap {heap_mib() - before:5.0f} MiB, RSS {rss_mib():5.0f} MiB, "
            f"{seen.open_traces:,} open, {seen.remembered:,} remembered"
        )
    books.end()
    tally = books.one.statistics().tally
    assert (tally.received, tally.pending) == (10 * MILLION, 0), tally
    assert tally.stored + tally.not_sampled == tally.received, tally
    assert sum(count for count, _ in books.fragments) == tally.stored, tally
    say(f"  stored {tally.stored:,}, not sampled {tally.not_sampled:,}")
    _give_back(books, random, number, before)
    for name, least in _usual_costs().items():
        least = min(least, costs[name])
        for which, at in (("first", 0), ("last", -1)):
            say(f"  {name}: {least:.0f} ns a span; the {which} million {took[at]:.0f}, x {took[at] / least:.2f}")


def _usual_costs() -> dict[str, float]:
    """The least of some rounds, nothing of it kept."""
    cases = [_usual_case(stream(usual(), 50_000, LONE_A_SECOND / 10)), _single_case()]
    return {case.name: min(round_ns(case) for _ in range(3)) for case in cases}


def _single_case() -> Case:
    load = stream(single(), 50_000, LONE_A_SECOND / 10)
    return Case("usual traces, a record a span", one_partition(load.made), load.spans)


def _lone_records(random: Random, first: int, count: int, *, per_ms: int, from_ms: int = T0_MS) -> list[Record]:
    traces = lone()
    return [
        Record(n, from_ms + n // per_ms, None, renamed(traces[n % len(traces)], random.randbytes(16))[0])
        for n in range(first, first + count)
    ]


def _give_back(books: Books, random: Random, number: int, before: float) -> None:
    """Twice `remember` of a thousand such traces a second: what the ten million took is free."""
    from_ms = books.one.stream_ns // 1_000_000 - number
    for _ in range(2 * REMEMBER_S * 1000 // CHUNK):
        books.feed(_lone_records(random, number, CHUNK, per_ms=1, from_ms=from_ms))
        number += CHUNK
    seen = books.one.statistics()
    heap, resident = heap_mib() - before, rss_mib()
    ctypes.CDLL(None).malloc_trim(0)
    say(
        f"  {2 * REMEMBER_S} s later: heap {heap:.0f} MiB, RSS {resident:.0f} MiB, {rss_mib():.0f} after malloc_trim, "
        f"{seen.open_traces:,} open, {seen.remembered:,} remembered"
    )


# The whole process.


def part_node() -> None:
    """A million spans of one trace by HTTP, and as many of usual traces."""
    usual_us = _through_node("usual traces", (one.value for one in stream(usual(), 100_000, 1000).made), MILLION)
    one_us = _through_node("one trace", (part.value for part in one_trace(MILLION, error=True)), MILLION)
    say(f"  x {one_us / usual_us:.2f}")


def _through_node(title: str, records: Iterator[bytes], spans: int) -> float:
    """CPU of the process a span, in us."""
    settings = {"assembly.undecided_bytes_max": "512MiB", "http.body_bytes_max": "16MiB"}
    with TemporaryDirectory(prefix="spanloom-bench-") as folder, running(Path(folder), settings) as node:
        used_s, sent = cpu_s(node.popen.pid), 0
        while some := list(islice(records, 1000)):  # several TracesData in a row are one
            status, answer = node.post("/v1/traces", b"".join(some), "application/x-protobuf")
            assert status == 200, answer
            sent += len(some)
        node.settled(spans - 1000, within_s=300)
        used_s = cpu_s(node.popen.pid) - used_s
        received, stored = (node.metric(f"spanloom_spans_{name}_total") for name in ("received", "stored"))
        peak = peak_rss_bytes(node.popen.pid) / MIB
        early = sum(1 for line in node.log if line["event"] == "deciding early")
        say(
            f"{title}: {sent:,} records, {received:,.0f} spans received, {stored:,.0f} stored, "
            f"{used_s * 1e6 / received:.2f} us of its CPU a span, RSS at most {peak:.0f} MiB, {early} decided early"
        )
        assert node.terminate() == 0
    return used_s * 1e6 / received


PARTS = {
    name.removeprefix("part_").replace("_", "-"): part for name, part in list(globals().items()) if name[:5] == "part_"
}


def main(arguments: Sequence[str]) -> None:
    names = arguments or list(PARTS)
    assert set(names) <= set(PARTS), f"parts: {', '.join(PARTS)}"
    if len(names) == 1:
        PARTS[names[0]]()
        return
    for name in names:
        say(f"== {name}")
        subprocess.run([sys.executable, "-m", "benchmarks.bench_growth", name], check=True)  # noqa: S603


if __name__ == "__main__":
    main(sys.argv[1:])
