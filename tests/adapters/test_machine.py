"""What a process may use and what is in use, from files laid out as Linux lays them."""

import os
from pathlib import Path

import pytest

from spanloom.adapters.machine import LoadMeter, memory_limit_bytes

MIB = 1 << 20
S = 1_000_000_000


class Tree:
    """A root with /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now_ns = self.thread_ns = 0
        self.write("proc/meminfo", "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable: 2097152 kB\n")
        self.write("proc/stat", "cpu 0 0 0 0 0 0 0 0 0 0\ncpu0 1 2 3\n")
        self.write("proc/self/cgroup", "")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def meter(self) -> LoadMeter:
        return LoadMeter(self.root, monotonic_ns=lambda: self.now_ns, thread_ns=lambda: self.thread_ns)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_without_a_control_group_the_machine_counts(tree: Tree) -> None:
    """All its memory, and the busy share of all its CPUs; waiting for a disk is not busy."""
    meter = tree.meter()
    tree.now_ns += S
    tree.write("proc/stat", "cpu 30 10 10 40 10 0 0 0 0 0\n")
    assert memory_limit_bytes(tree.root) == 8192 * MIB
    assert meter.measure() == (0.5, 0.75)


def test_one_busy_thread_is_a_load_on_an_idle_machine(tree: Tree) -> None:
    """All work is one thread's: where that has no time left, 15 idle CPUs are no help."""
    meter = tree.meter()
    tree.now_ns, tree.thread_ns = S, S * 9 // 10
    tree.write("proc/stat", "cpu 6 0 0 94 0 0 0 0 0 0\n")
    assert meter.measure().cpu == pytest.approx(0.9)


def test_version_2_gives_limit_and_quota(tree: Tree) -> None:
    """Less page cache that can go at once; half a CPU of quota, a quarter used, is half."""
    group = "sys/fs/cgroup/kubepods/pod1"
    tree.write("proc/self/cgroup", "0::/kubepods/pod1\n")
    tree.write(f"{group}/memory.max", f"{512 * MIB}\n")
    tree.write(f"{group}/memory.current", f"{400 * MIB}\n")
    tree.write(f"{group}/memory.stat", f"anon 5\ninactive_file {144 * MIB}\n")
    tree.write(f"{group}/cpu.max", "50000 100000\n")
    tree.write(f"{group}/cpu.stat", "usage_usec 1000000\nuser_usec 1\n")
    meter = tree.meter()
    tree.now_ns += S
    tree.write("proc/stat", "cpu 100 0 0 0 0 0 0 0 0 0\n")
    tree.write(f"{group}/cpu.stat", "usage_usec 1250000\n")
    assert memory_limit_bytes(tree.root) == 512 * MIB
    assert meter.measure() == (0.5, 0.5)


def test_the_tightest_limit_above_us_counts(tree: Tree) -> None:
    """A group without a limit lies in one that has."""
    tree.write("proc/self/cgroup", "0::/a/b\n")
    tree.write("sys/fs/cgroup/a/b/memory.max", "max\n")
    tree.write("sys/fs/cgroup/a/b/memory.current", f"{10 * MIB}\n")
    tree.write("sys/fs/cgroup/a/memory.max", f"{100 * MIB}\n")
    tree.write("sys/fs/cgroup/a/memory.current", f"{90 * MIB}\n")
    tree.write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n")
    assert memory_limit_bytes(tree.root) == 100 * MIB
    assert tree.meter().measure().memory == pytest.approx(0.9)


@pytest.mark.parametrize("path", ["/", "/docker/of/the/host", "/../../elsewhere"])
def test_in_a_container_the_mount_is_ours(path: str, tree: Tree) -> None:
    """A path that only the host knows leads to the limits where the container sees them."""
    tree.write("proc/self/cgroup", f"0::{path}\n")
    tree.write("sys/fs/cgroup/memory.max", f"{64 * MIB}\n")
    tree.write("sys/fs/cgroup/memory.current", f"{32 * MIB}\n")
    assert memory_limit_bytes(tree.root) == 64 * MIB
    assert tree.meter().measure().memory == 0.5


@pytest.mark.parametrize("accounts", ["cpu", "cpuacct"])
def test_version_1_gives_limit_and_quota(accounts: str, tree: Tree) -> None:
    """Controllers of their own, with `cpuacct` beside `cpu` or mounted together."""
    tree.write("proc/self/cgroup", "5:memory:/x\n3:cpu,cpuacct:/x\n1:name=systemd:/y\n")
    tree.write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", f"{256 * MIB}\n")
    tree.write("sys/fs/cgroup/memory/x/memory.usage_in_bytes", f"{192 * MIB}\n")
    tree.write("sys/fs/cgroup/memory/x/memory.stat", f"total_inactive_file {64 * MIB}\n")
    tree.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    tree.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "1\n")
    tree.write("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "200000\n")
    tree.write("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n")
    tree.write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
    if accounts == "cpu":
        (tree.root / "sys/fs/cgroup/cpuacct").symlink_to(tree.root / "sys/fs/cgroup/cpu")
    tree.write("sys/fs/cgroup/cpuacct/x/cpuacct.usage", f"{5 * S}\n")
    meter = tree.meter()
    tree.now_ns += 2 * S
    tree.write("sys/fs/cgroup/cpuacct/x/cpuacct.usage", f"{6 * S}\n")
    assert memory_limit_bytes(tree.root) == 256 * MIB
    assert meter.measure() == (0.25, 0.5)


def test_a_limit_above_the_machine_is_none(tree: Tree) -> None:
    """More than there is cannot be used."""
    tree.write("proc/self/cgroup", "0::/\n")
    tree.write("sys/fs/cgroup/memory.max", f"{1 << 50}\n")
    tree.write("sys/fs/cgroup/memory.current", "1\n")
    assert memory_limit_bytes(tree.root) == 8192 * MIB
    assert tree.meter().measure().memory == 0.75


def test_two_looks_at_one_instant_measure_no_cpu(tree: Tree) -> None:
    """There is nothing to divide by."""
    meter = tree.meter()
    assert meter.measure().cpu is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="no /proc here")
def test_this_machine_answers() -> None:
    """The real files are read: a limit, and shares between nothing and all, CPU a little more by rounding."""
    assert 0 < memory_limit_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meter = LoadMeter()
    sum(number * number for number in range(200_000))
    cpu, memory = meter.measure()
    assert cpu is not None
    assert memory is not None
    assert 0 < cpu < 2
    assert 0 < memory <= 1
