"""Picks the kernel, once: native where it was built; pure where it was not, or where SPANLOOM_PURE=1 asks for it."""

import importlib.util
import os

from spanloom.core._pure import hashes as pure_hashes
from spanloom.core._pure.assembler import Assembler
from spanloom.core._pure.stamping import stamp
from spanloom.core._pure.wire import ScannedSpan, Split, scan, split_by_trace
from spanloom.core.partitioning import PartitionHashes

__all__ = ["KERNEL", "Assembler", "ScannedSpan", "Split", "hashes", "scan", "split_by_trace", "stamp"]

KERNEL = "pure"
hashes: PartitionHashes = pure_hashes
if os.environ.get("SPANLOOM_PURE") != "1" and importlib.util.find_spec("spanloom._native.kernel"):
    from spanloom._native import hashes as native_hashes
    from spanloom._native import kernel as native

    KERNEL = "native"
    hashes = native_hashes
    Assembler = native.Assembler  # type: ignore[misc, assignment]
    scan = native.scan
    split_by_trace = native.split_by_trace
    stamp = native.stamp
