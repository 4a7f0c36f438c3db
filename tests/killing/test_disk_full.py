"""A full disk under the real node: senders are told to come back, nothing acknowledged is lost, and it goes on."""

import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from spanloom.load.client import LoadClient
from spanloom.load.record import Fate, LoadRecorder
from spanloom.load.workload import Request, Workload, requests
from tests.killing.__main__ import check
from tests.killing.harness import CALM, Killing

DISK_BYTES = 48 << 20
FILE_BYTES = 256 << 10  # a write-ahead log soon grows beyond it
SPANS = 6000
Fill = Callable[[trio.Process], None]


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own for *folder*, with little room."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root can make a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def starve(killing: Killing, fill: Fill, empty: Fill) -> None:
    """Send under a full disk until the node has refused, make room, and see all of it through to the end."""
    node = await killing.start(CALM)
    assert await killing.ready(node)
    client = LoadClient(f"http://127.0.0.1:{killing.port}/v1/traces", connections=4)
    workload = Workload(spans=SPANS, spans_per_s=5_000, batch_delay_s=0.5, batch_spans_max=60)
    with LoadRecorder(killing.record) as recorder:

        def report(request: Request, fate: Fate) -> None:
            recorder.append(request.number, fate, request.sent)

        async with trio.open_nursery() as nursery:
            fill(node)
            nursery.start_soon(client.send, requests(workload, epoch_unix_ns=time.time_ns()), report)
            with trio.fail_after(60):
                while client.statistics().retries < 8:
                    assert node.poll() is None, "the node died of a full disk"
                    await trio.sleep(0.1)
            empty(node)
    statistics = client.statistics()
    assert statistics.connection_errors == 0, "a full disk is answered, not dropped"
    assert statistics.requests_acknowledged == statistics.requests_sent
    await killing.end_well(node)
    assert check(killing) == {"ledger": [], "store": [], "lost or twice": []}


async def test_a_full_file_system_is_waited_out(tmp_path: Path) -> None:
    """With no byte left on the disk the intake answers 503; with room again all acknowledged is accounted for."""
    with small_disk(tmp_path / "disk"), Killing(tmp_path) as killing:
        killing.data = tmp_path / "disk" / "data"
        ballast = tmp_path / "disk" / "ballast"

        def fill(_: trio.Process) -> None:
            with ballast.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(1 << 16)) == 1 << 16:
                        pass
                except OSError:
                    pass  # full

        await starve(killing, fill, lambda _: ballast.unlink())


async def test_a_limit_on_file_sizes_is_waited_out(tmp_path: Path) -> None:
    """As above, for who may not make file systems: every write beyond a file's first kilobytes fails."""

    def limit(size: int) -> Fill:
        def apply(node: trio.Process) -> None:
            _, hard = resource.prlimit(node.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(node.pid, resource.RLIMIT_FSIZE, (size, hard))

        return apply

    with Killing(tmp_path) as killing:
        await starve(killing, limit(FILE_BYTES), limit(resource.RLIM_INFINITY))
