"""`python -m tests.integration.million [SPANS]`: generated spans through a real node, held against the oracle.

Prints what was measured; exits 1 where anything differs. The evidence of a whole million is in docs/evidence/.
"""

import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.integration.process import running
from tests.integration.test_run import PARTITIONS, POLICIES
from tests.oracle import expect, total
from tests.oracle_checks import check_ledger, check_loadgen_record, check_store


def main(spans: int) -> int:
    """Run it; the exit code."""
    print(f"{spans} spans, Python {platform.python_version()}, {platform.machine()}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder, record = Path(name) / "data", Path(name) / "sent"
        began = time.monotonic()
        with running(folder, {}) as node:
            line = [sys.executable, "-m", "spanloom", "loadgen", f"--url={node.intake}/v1/traces"]
            subprocess.run([*line, f"--spans={spans}", f"--record={record}"], check=True, timeout=3600)
            print(f"sent after {time.monotonic() - began:.0f} s", flush=True)
            node.settled(spans, within_s=3600)
            print(f"settled after {time.monotonic() - began:.0f} s, exit {node.terminate()}", flush=True)
        began = time.monotonic()
        expected = expect(folder, POLICIES, partition_count=PARTITIONS)
        print(f"oracle: {dict(sorted(total(expected).items()))}, {time.monotonic() - began:.0f} s", flush=True)
        checks = {
            "ledger": check_ledger(folder, expected),
            "store": check_store(folder, expected),
            "lost or twice": check_loadgen_record(record, folder),
        }
    for check, differences in checks.items():
        print(f"{check}: {len(differences)} differences {differences[:5]}")
    return int(any(checks.values()))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
