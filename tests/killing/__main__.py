"""`python -m tests.killing KILLS`: so many kills of a real node on one data folder; exit status 1 for a difference."""

import argparse
import random
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import trio

from spanloom.core.failpoints import Failpoint
from tests.killing.harness import LIMITS, PARTITIONS, POLICIES, Killing
from tests.oracle import expect, total
from tests.oracle_checks import check_ledger, check_loadgen_record, check_store


def plan(kills: int, seed: int) -> list[str]:
    """Random instants for a fifth of the kills, every failpoint equally often for the others; in random order."""
    random_instants = kills // 5
    lives = [""] * random_instants + [str(name) for name in islice(cycle(Failpoint), kills - random_instants)]
    random.Random(seed).shuffle(lives)
    return lives


def check(killing: Killing) -> dict[str, list[str]]:
    """All that the folder differs in from what the oracle and the senders' record say."""
    expected = expect(killing.data, POLICIES, partition_count=PARTITIONS, limits=LIMITS)
    print(f"oracle: {dict(sorted(total(expected).items()))}")
    return {
        "ledger": check_ledger(killing.data, expected),
        "store": check_store(killing.data, expected),
        "lost or twice": check_loadgen_record(killing.record, killing.data),
    }


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.killing", description=__doc__)
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        with Killing(Path(folder), seed=args.seed) as killing:
            trio.run(killing.run, plan(args.kills, args.seed))
        print("\n".join(killing.toll.lines()))
        print(f"senders: {killing.client.statistics()}")
        differences = check(killing)
    for name, found in differences.items():
        print("\n    ".join([f"{name}: {len(found)} differences", *found[:10]]))
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if any(differences.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
