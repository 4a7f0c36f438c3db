"""Picks the kernel, once: native where it was built; pure where it was not, or where SPANLOOM_PURE=1 asks for it."""

import importlib.util
import os
from typing import TYPE_CHECKING, Protocol

from spanloom.core._pure import hashes as pure_hashes
from spanloom.core._pure.assembler import Assembler
from spanloom.core._pure.stamping import stamp
from spanloom.core._pure.summary import Summary, summarise
from spanloom.core._pure.wire import ScannedSpan, Split, scan, split_by_trace
from spanloom.core.partitioning import PartitionHashes

if TYPE_CHECKING:
    from spanloom._native.fetch import Taker
    from spanloom._native.produce import Pending, Sender

__all__ = [
    "KERNEL",
    "Assembler",
    "Fetch",
    "Produce",
    "ScannedSpan",
    "Split",
    "Summary",
    "fetch",
    "hashes",
    "produce",
    "scan",
    "split_by_trace",
    "stamp",
    "summarise",
]


class Fetch(Protocol):
    """Records straight out of librdkafka's queues; only native code can."""

    FUNCTIONS: tuple[str, ...]
    Taker: "type[Taker]"

    def fields_of(self, message: int) -> tuple[int, int, bytes, bytes, int]:
        """What C sees in a message: error, partition, payload, key, offset."""


class Produce(Protocol):
    """Records straight into librdkafka's producer; only native code can."""

    FUNCTIONS: tuple[str, ...]
    Pending: "type[Pending]"
    Sender: "type[Sender]"


KERNEL = "pure"
hashes: PartitionHashes = pure_hashes
fetch: Fetch | None = None
produce: Produce | None = None
if os.environ.get("SPANLOOM_PURE") != "1" and importlib.util.find_spec("spanloom._native.kernel"):
    from spanloom._native import fetch as native_fetch
    from spanloom._native import hashes as native_hashes
    from spanloom._native import kernel as native
    from spanloom._native import otlp as native_otlp
    from spanloom._native import produce as native_produce

    KERNEL = "native"
    hashes = native_hashes
    fetch = native_fetch
    Assembler = native.Assembler  # type: ignore[misc, assignment]
    scan = native.scan
    split_by_trace = native.split_by_trace
    stamp = native.stamp
    summarise = native_otlp.summarise
    produce = native_produce
