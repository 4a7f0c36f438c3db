"""Feeds many spans through one native assembler and tells what memory that takes: it must stand still.

    python -m benchmarks.bench_kernel_leak [MILLIONS]      10 where none is said

The records are those of bench_kernel.py, every trace under an id of its own, a thousand begun a second of stream time;
1 % is kept. A dropped trace is remembered for 60 s, so that memory is full before the first million is through. Told
are the resident memory of the process and what malloc has given out (glibc), after each million.
"""

import sys
from pathlib import Path
from random import Random
from resource import getpagesize

from benchmarks.bench_kernel import POLICIES, T0_MS, Trace, follow, make_trace
from spanloom._native import kernel as native
from spanloom.core.assembly import Limits
from spanloom.core.sampling.written import parse_policies
from spanloom.model import Record
from tests.core.memory import heap_bytes

MILLION = 1_000_000
TEMPLATES = 1000
TRACES_A_TURN = 125  # their 500 records are one feed
MIB = 1 << 20


def rss_mib() -> float:
    """What is resident now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() / MIB


def renamed(trace: Trace, trace_id: bytes) -> list[bytes]:
    """Its records under another id; the root's span id, the first half of the id, goes with it."""
    old = trace.trace_id
    return [
        record.replace(old[8:], trace_id[8:]).replace(old[:8], trace_id[:8]) for record in trace.records
    ]  # fmt: skip


def main(arguments: list[str]) -> None:
    millions = int(arguments[0]) if arguments else 10
    random = Random(1)
    templates = [make_trace(random, T0_MS) for _ in range(TEMPLATES)]
    one = native.Assembler(Limits(remember_ns=60_000_000_000), partition=0, partition_count=1)
    one.configure(parse_policies(POLICIES[""], version=1))
    offset = spans = number = told = 0
    while spans < millions * MILLION:
        records = []
        for _ in range(TRACES_A_TURN):
            trace = templates[number % TEMPLATES]
            for value in renamed(trace, random.randbytes(16)):
                records.append(Record(offset, T0_MS + number, None, value))
                offset += 1
            number += 1
            spans += trace.span_count
        follow(one, one.feed(records))  # type: ignore[arg-type]
        if spans // MILLION > told:
            told = spans // MILLION
            seen = one.statistics()
            sys.stdout.write(
                f"{told:3} M spans  RSS {rss_mib():6.1f} MiB  heap {heap_bytes() / MIB:6.1f} MiB  "
                f"{seen.open_traces} open, {seen.remembered} remembered, {seen.tally.stored} spans stored\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
