"""What this process may use of CPU and memory, and how much of it is in use.

From the control group where it has a limit (version 2, else 1), else from the whole machine; all of it is read from
/proc and /sys/fs/cgroup, and what cannot be read there is not guessed. Sources: Linux, admin-guide/cgroup-v2.rst and
cgroup-v1/memory.rst; proc(5).
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from spanloom.core.sampling.adaptive import LoadSample

ROOT = Path("/")
_CGROUPS = "sys/fs/cgroup"
_NO_LIMIT_BYTES = 1 << 60  # version 1 says "none" with a number about 2^63
_NS_PER_S = 1_000_000_000


def memory_limit_bytes(root: Path = ROOT) -> int:
    """The most memory this process may have: its control group's limit, else all there is.

    Raises OSError where neither can be read: there is no /proc.
    """
    total = _memory_info(root)["MemTotal"]
    return min([total, *(limit.limit_bytes for limit in _memory_limits(root))])


class LoadMeter:
    """Measures from one call to the next."""

    def __init__(
        self,
        root: Path = ROOT,
        *,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        thread_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """The thread that makes it is the one that does the work: one thread can be busy where the machine is not."""
        self._root = root
        self._monotonic_ns = monotonic_ns
        self._thread_ns = thread_ns
        self._last = self._read()

    def measure(self) -> LoadSample:
        """CPU since the last call, memory now."""
        last, now = self._last, self._read()
        self._last = now
        if now.at_ns <= last.at_ns:
            return LoadSample(None, _memory_in_use(self._root))
        thread = (now.thread_ns - last.thread_ns) / (now.at_ns - last.at_ns)
        shares = [thread, *_quota_in_use(last, now), *_machine_in_use(last, now)]
        return LoadSample(max(shares), _memory_in_use(self._root))

    def _read(self) -> "_Reading":
        busy, total = _machine_ticks(self._root)
        quotas = {quota.folder: quota for quota in _cpu_quotas(self._root)}
        return _Reading(self._monotonic_ns(), self._thread_ns(), quotas, busy, total)


class _Quota(NamedTuple):
    """CPUs that a control group may use, and what it has used."""

    folder: Path
    cpus: float
    used_ns: int


class _Reading(NamedTuple):
    at_ns: int
    thread_ns: int
    quotas: dict[Path, _Quota]
    busy_ticks: int
    total_ticks: int


class _MemoryLimit(NamedTuple):
    limit_bytes: int
    used_bytes: int


def _quota_in_use(last: _Reading, now: _Reading) -> Iterator[float]:
    for folder, quota in now.quotas.items():
        if folder in last.quotas:
            yield (quota.used_ns - last.quotas[folder].used_ns) / (now.at_ns - last.at_ns) / quota.cpus


def _machine_in_use(last: _Reading, now: _Reading) -> Iterator[float]:
    """Of the whole machine; with a quota of our own, that alone counts."""
    ticks = now.total_ticks - last.total_ticks
    if ticks > 0 and not now.quotas:
        yield (now.busy_ticks - last.busy_ticks) / ticks


def _memory_in_use(root: Path) -> float | None:
    """Of the tightest limit."""
    try:
        info = _memory_info(root)
    except OSError:
        return None
    total = info["MemTotal"]
    shares = [limit.used_bytes / limit.limit_bytes for limit in _memory_limits(root) if limit.limit_bytes <= total]
    if shares:
        return max(shares)
    return 1 - info["MemAvailable"] / total


# What is read.


def _memory_info(root: Path) -> dict[str, int]:
    """/proc/meminfo in bytes."""
    lines = (root / "proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def _machine_ticks(root: Path) -> tuple[int, int]:
    """Busy and all, of all CPUs together; zeros where /proc does not say."""
    try:
        line = (root / "proc/stat").read_text().partition("\n")[0]
    except OSError:
        return 0, 0
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, line.split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy, busy + idle + iowait


def _memory_limits(root: Path) -> Iterator[_MemoryLimit]:
    """Of our control group and those around it; what the kernel can take back at once is not in use."""
    for folder in _folders(root, ""):
        limit, used = _number(folder / "memory.max"), _number(folder / "memory.current")
        if limit and used is not None:
            yield _MemoryLimit(limit, max(0, used - _field(folder / "memory.stat", "inactive_file")))
    for folder in _folders(root, "memory"):
        limit, used = _number(folder / "memory.limit_in_bytes"), _number(folder / "memory.usage_in_bytes")
        if limit and limit < _NO_LIMIT_BYTES and used is not None:
            yield _MemoryLimit(limit, max(0, used - _field(folder / "memory.stat", "total_inactive_file")))


def _cpu_quotas(root: Path) -> Iterator[_Quota]:
    for folder in _folders(root, ""):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdecimal() and period.isdecimal():
            yield _Quota(folder, int(quota) / int(period), _field(folder / "cpu.stat", "usage_usec") * 1000)
    for folder in _folders(root, "cpu"):
        # `cpu` and `cpuacct` are one hierarchy under two names, or two of their own in which we have the same path.
        twin = root / _CGROUPS / "cpuacct" / folder.relative_to(root / _CGROUPS / "cpu")
        used_ns = _number(twin / "cpuacct.usage")
        quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if quota_us and period_us and used_ns is not None:
            yield _Quota(folder, quota_us / period_us, used_ns)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Our control group's folder and all above it; version 2 has no controller. Inside a container the path may be
    one of the host's that is not there: then the mount point is ours.
    """
    path = _group(root, controller)
    if path is None:
        return
    top = root / _CGROUPS / controller if controller else root / _CGROUPS
    folder = Path(os.path.normpath(top / path.lstrip("/")))
    folder = folder if folder.is_relative_to(top) else top
    while folder != top:
        yield folder
        folder = folder.parent
    yield top


def _group(root: Path, controller: str) -> str | None:
    """Our group's path, as /proc/self/cgroup has it: number:controllers:path."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            return path
    return None


def _text(file: Path) -> str:
    """Empty where there is no such file."""
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _number(file: Path) -> int | None:
    """None where there is no such file, or no number in it (`max`, -1)."""
    text = _text(file)
    return int(text) if text.isdecimal() else None


def _field(file: Path, name: str) -> int:
    """`name number` in a file of such lines; 0 where it is not."""
    for line in _text(file).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdecimal():
            return int(value)
    return 0
