"""What this process holds of memory, measured so that it can be told under AddressSanitizer too.

AddressSanitizer keeps what was freed for a while and lays a margin round every block, so resident memory says nothing
of the kernel there, and malloc's own counts are of a malloc that nobody calls. But it counts the bytes that were asked
for and not given back: those are what is measured under it.
"""

import ctypes
import os

from tests.servers.processes import rss_bytes

_LOADED = ctypes.CDLL(None)
UNDER_ASAN = hasattr(_LOADED, "__sanitizer_get_current_allocated_bytes")
TELLS_HEAP = UNDER_ASAN or hasattr(_LOADED, "mallinfo2")  # else it is not glibc's malloc


class _HeapCounts(ctypes.Structure):
    """glibc's struct mallinfo2: of its ten counts those that are read are named."""

    _fields_ = (
        ("before", ctypes.c_size_t * 4),
        ("hblkhd", ctypes.c_size_t),
        ("between", ctypes.c_size_t * 2),
        ("uordblks", ctypes.c_size_t),
        ("after", ctypes.c_size_t * 2),
    )


def resident_bytes() -> int:
    """Resident memory; under AddressSanitizer what was asked of malloc."""
    return _asked_bytes() if UNDER_ASAN else rss_bytes(os.getpid())


def heap_bytes() -> int:
    """What malloc has given out, its own part included; under AddressSanitizer what was asked of it, without that."""
    if UNDER_ASAN:
        return _asked_bytes()
    mallinfo2 = _LOADED.mallinfo2
    mallinfo2.restype = _HeapCounts
    counts = mallinfo2()
    return int(counts.uordblks + counts.hblkhd)


def _asked_bytes() -> int:
    asked = _LOADED.__sanitizer_get_current_allocated_bytes
    asked.restype = ctypes.c_size_t
    return int(asked())
