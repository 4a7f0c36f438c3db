"""`python -m tests.cluster.chaos --minutes 30 --seed 1`: exit status 1 if anything was lost, twice or changed.

Three aggregators share 24 partitions of a real Kafka, Elasticsearch and Redis behind them, a steady load before them,
and for that long everything goes wrong (weather.py). Then nothing goes wrong any more, all is let finish, and the
oracle recounts. What happened is written to the folder.
"""

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import trio

from tests.cluster.chaos.account import Takeover, spread
from tests.cluster.chaos.run import Outcome, Plan, run

SHOWN = 10  # differences of a kind


def report(outcome: Outcome) -> Iterator[str]:
    """For people."""
    counts = outcome.journal.counts
    widest = max(map(len, counts), default=0)
    for event, count in sorted(counts.items(), key=lambda item: -item[1]):
        yield f"{event:<{widest}}  {count:>5}  {'#' * min(count, 60)}"
    yield from _report_kills(outcome)
    yield f"oracle: {dict(sorted(outcome.recount.tally().items()))}"
    yield f"duplicates that the books count as what their fragment came to: {outcome.recount.recounted}"
    for name, found in outcome.recount.differences.items():
        yield "\n    ".join([f"{name}: {len(found)} differences", *found[:SHOWN]])
    for violation in outcome.violations:
        yield f"violation: {violation}"


def _report_kills(outcome: Outcome) -> Iterator[str]:
    by_kill: defaultdict[int, list[Takeover]] = defaultdict(list)
    for takeover in outcome.takeovers:
        by_kill[takeover.life].append(takeover)
    uncommitted = [kill for kill, taken in by_kill.items() if any(each.records for each in taken)]
    decided = [kill for kill, taken in by_kill.items() if any(each.decided for each in taken)]
    yield f"lives: {outcome.lives}; kills: {outcome.kills}; kills after which another took over: {len(by_kill)}"
    yield f"kills that caused a takeover with uncommitted work: {len(uncommitted)}"
    yield f"    of them with decisions in the ledger above the committed offset: {len(decided)}"
    yield f"takeovers of a partition after a kill: {len(outcome.takeovers)}"
    recovered = [each.recovery_s for each in outcome.takeovers if each.recovery_s is not None]
    yield f"kill to the new owner's first record, s: {spread(recovered)}"
    yield f"replay distance, spans a partition: {spread([each.spans for each in outcome.takeovers])}"
    yield f"replay distance, spans a kill: {spread(sum(each.spans for each in taken) for taken in by_kill.values())}"


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=3)
    parser.add_argument("--rate", type=int, default=400, help="spans a second")
    parser.add_argument("--folder", type=Path, help="where everything is written; default: a new temporary one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="spanloom-chaos-"))
    print(f"seed {args.seed}, {args.minutes:g} minutes, {args.brokers} brokers, {args.rate} spans/s; in {folder}")
    began = time.monotonic()
    outcome = trio.run(run, Plan(args.minutes, args.seed, folder, args.brokers, args.rate))
    for line in report(outcome):
        print(line)
    clean = outcome.recount.is_clean and not outcome.violations
    print(f"{'clean' if clean else 'VIOLATIONS'}, {time.monotonic() - began:.0f} s")
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
