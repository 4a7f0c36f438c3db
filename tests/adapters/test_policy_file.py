"""The file of policy versions: several processes at once, and lines that a death cut short."""

import multiprocessing
from functools import partial
from pathlib import Path

import pytest
import trio

from spanloom.adapters.policy_file import FILE, FilePolicyLog
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import PoliciesUnavailable
from spanloom.model import PolicyVersion

BODY = parse_policies([{"name": "errors", "type": "error"}], version=1).body
WRITERS, EACH = 4, 25


def written(version: int, mark: str) -> PolicyVersion:
    return PolicyVersion(version, BODY, "me@here", 1_700_000_000_000, "", mark)


async def test_a_line_without_an_end_counts_for_nothing(tmp_path: Path) -> None:
    """A writer that died in the middle leaves no version; the next append takes the place of what it left."""
    versions = FilePolicyLog(tmp_path)
    await versions.append(written(1, "a"))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole + whole.replace(b'"version":1', b'"version":2')[:-9])
    assert list(await versions.read()) == [written(1, "a")]
    await versions.append(written(2, "b"))
    assert list(await versions.read()) == [written(1, "a"), written(2, "b")]


def write_many(folder: Path, writer: int) -> None:
    versions = FilePolicyLog(folder)

    async def write() -> None:
        for number in range(EACH):
            await versions.append(written(1 + number, f"{writer}"))

    trio.run(write)


async def test_processes_that_write_at_once_keep_each_other_s_lines(tmp_path: Path) -> None:
    """Every append is whole, and one order holds for all readers."""
    with multiprocessing.get_context("spawn").Pool(WRITERS) as pool:
        await trio.to_thread.run_sync(pool.map, partial(write_many, tmp_path), range(WRITERS))
    assert len((tmp_path / FILE).read_bytes().splitlines()) == WRITERS * EACH
    assert [one.version for one in await FilePolicyLog(tmp_path).read()] == list(range(1, EACH + 1))


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    """An error of the disk is an outage like any: who waits tries again."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PoliciesUnavailable, match="file"):
        await FilePolicyLog(tmp_path / "file").append(written(1, "a"))
