"""`python -m tests.simulation SEEDS [--from N] [--level LEVEL]`: many seeds by hand. Exit status 1 if any fails."""

import argparse
import sys
import time

from tests.simulation.campaign import LEVELS, campaign


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", type=int, help="on each level")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--level", choices=LEVELS, help="this level alone")
    parser.add_argument("--processes", type=int, default=0, help="default: one a processor; 1: this one")
    args = parser.parse_args()
    levels = [args.level] if args.level else list(LEVELS)
    began = time.monotonic()
    jobs = [(level, args.first + seed) for seed in range(args.seeds) for level in levels]
    report = campaign(jobs, processes=args.processes)
    for line in report.lines():
        print(line)
    print(f"{time.monotonic() - began:.0f} s")
    is_whole = args.seeds >= 1000 and args.level is None  # a few seeds need not go through everything
    return 1 if report.failures or (is_whole and report.missing) else 0


if __name__ == "__main__":
    sys.exit(main())
