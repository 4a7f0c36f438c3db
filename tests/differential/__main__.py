"""Every policy file, on a corpus as large as asked for: a table, and exit status 1 where verdicts differ.

python -m tests.differential --traces 50000
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.core.kernels import BOTH, assembler_class
from tests.differential.corpus import Corpus, corpus
from tests.differential.ours import our_verdicts
from tests.differential.theirs import their_verdicts
from tests.differential.verdicts import (
    RATES,
    PolicyFile,
    Verdicts,
    differences,
    policy_files,
    rate_differences,
    splits,
)

TRACES_PER_S = 200  # of the corpus; the rates in the policy files are made for it
TOGETHER = 9  # pipelines in one collector: each holds every span of some seconds


def main() -> int:
    """Compare, print, say whether all is equal."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("--traces", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kernel", choices=BOTH, action="append", help="may be given twice; else pure")
    parser.add_argument("--file", action="append", help="of the folder `policies`, without its ending; else all")
    given = parser.parse_args()
    kernels = given.kernel or ["pure"]
    files = policy_files(*(given.file or ()))
    whole = corpus(given.seed, given.traces, traces_per_s=TRACES_PER_S)
    print(f"seed {given.seed}: {given.traces} traces, {whole.span_count} spans, {len(whole.records)} records")
    print(f"{'file':20} {'kernel':6} {'kept':>7} {'there':>7} {'spans':>7} {'there':>7}  differences")
    exact = [file for file in files if file.name not in RATES]
    groups = [exact[at : at + TOGETHER] for at in range(0, len(exact), TOGETHER)]
    failed = sum(_compare(whole, group, kernels, is_paced=False) for group in groups)
    failed += _compare(whole, [file for file in files if file.name in RATES], kernels, is_paced=True)
    print(f"{len(files)} files, {len(kernels)} kernels: {failed} comparisons differ")
    return 1 if failed else 0


def _compare(whole: Corpus, files: Sequence[PolicyFile], kernels: Sequence[str], *, is_paced: bool) -> int:
    """How many of them differ."""
    if not files:
        return 0
    with TemporaryDirectory(prefix="spanloom-differential-") as folder:
        started = time.monotonic()
        theirs = their_verdicts(whole, files, Path(folder), is_paced=is_paced)
        print(f"-- the collector, {len(files)} pipelines: {time.monotonic() - started:.0f} s", flush=True)
    return sum(_row(whole, file, kernel, theirs[file.name]) for file in files for kernel in kernels)


def _row(whole: Corpus, file: PolicyFile, kernel: str, theirs: Verdicts) -> bool:
    """Print it; whether it differs."""
    assembler, trace_count = assembler_class(kernel), len(whole.span_counts)
    ours = our_verdicts(assembler, whole, file)
    if file.name in RATES:
        found = rate_differences(ours, our_verdicts(assembler, whole.in_whole_seconds(), file), theirs)
    else:
        found = differences(ours, theirs)
    if not splits(theirs, trace_count) and file.name != "always_sample":
        found.append(f"{len(theirs.kept)} of {trace_count} traces kept split nothing")
    shares = [len(ours.kept) / trace_count, len(theirs.kept) / trace_count]
    shares += [ours.span_count / whole.span_count, theirs.span_count / whole.span_count]
    line = " ".join(f"{share:7.2%}" for share in shares)
    print(f"{file.name:20} {kernel:6} {line}  {'; '.join(found) or 'none'}", flush=True)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
