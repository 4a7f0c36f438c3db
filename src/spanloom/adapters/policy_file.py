"""The versions of the policies of one data folder: a file of JSON lines that commands append to while a node runs.

It has a lock of its own, since the folder's is the node's. A line is written whole and synced before it is
acknowledged; one that a death cut short has no end, is read by nobody, and is cut off by the next append.
"""

import fcntl
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from spanloom.core.sampling.versions import encode_version, those_that_count
from spanloom.errors import PoliciesUnavailable
from spanloom.model import PolicyVersion

Result = TypeVar("Result")

FILE = "policies.jsonl"
LOOK_S = 0.5  # how soon a version that another process wrote is seen


class FilePolicyLog:
    """Implements interfaces.PolicyLog."""

    def __init__(self, folder: Path) -> None:
        """The folder is made with the first version, if it is not there."""
        self._path = folder / FILE

    async def append(self, written: PolicyVersion) -> None:
        """See interfaces.PolicyLog."""
        await self._in_thread(partial(_append, self._path, encode_version(written) + b"\n"))

    async def read(self) -> Sequence[PolicyVersion]:
        """See interfaces.PolicyLog."""
        return those_that_count(await self._in_thread(partial(_lines, self._path)))

    async def next_after(self, version: int) -> Sequence[PolicyVersion]:
        """See interfaces.PolicyLog: looks now and then whether the file has grown."""
        seen = -1
        while True:
            size = await self._in_thread(partial(_size, self._path))
            if size != seen:
                seen = size
                newer = [one for one in await self.read() if one.version > version]
                if newer:
                    return newer
            await trio.sleep(LOOK_S)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        try:
            return await trio.to_thread.run_sync(work)
        except OSError as exc:
            raise PoliciesUnavailable(f"{self._path}: {exc.strerror}") from exc


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _lines(path: Path) -> list[bytes]:
    """Those that have an end."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _append(path: Path, line: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        whole = sum(len(line) + 1 for line in _lines(path))
        os.ftruncate(descriptor, whole)
        os.lseek(descriptor, whole, os.SEEK_SET)
        left = memoryview(line)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
        _sync_folder(path.parent)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
