"""Measures the load generator alone: `python benchmarks/workload.py [SPANS]` prints its spans a second and their size.

Other benchmarks take their input from here or from `spanloom.load.workload` directly, so that all of them measure the
same traffic.
"""

import sys
import time
from functools import partial

from spanloom.load.workload import Request, Workload, requests

EPOCH_UNIX_NS = 1_790_000_000_000_000_000  # fixed: a benchmark's input is the same bytes on every run


def requests_of(spans: int, *, seed: int = 1) -> list[Request]:
    """The default traffic, generated beforehand so that making it is not measured."""
    return list(requests(Workload(seed=seed, spans=spans), epoch_unix_ns=EPOCH_UNIX_NS))


def main() -> None:
    spans = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    started = time.perf_counter()
    span_count = request_count = size_bytes = 0
    for request in requests(Workload(spans=spans), epoch_unix_ns=EPOCH_UNIX_NS):
        span_count += request.span_count
        request_count += 1
        size_bytes += len(request.body)
    took_s = time.perf_counter() - started
    say = partial(print, flush=True)
    say(f"{span_count} spans in {request_count} requests, {size_bytes / span_count:.0f} bytes a span")
    say(f"{span_count / took_s:.0f} spans/s generated on one core ({took_s:.2f} s)")


if __name__ == "__main__":
    main()
