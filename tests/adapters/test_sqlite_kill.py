"""`kill -9` of a process in the middle of its writes: what it acknowledged is there."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from spanloom.adapters.sqlite import SqliteLedger, SqliteLog, SqliteStore
from tests.adapters.test_data_folder import open_folder
from tests.conformance.test_span_log import everything

WRITER = Path(__file__).parent / "acknowledging_writer.py"
EVERYONE = 4 + 3  # appending tasks; ledger, store and commits
SOURCE = Path(__file__).parents[2] / "src"


def run_and_kill(path: Path, *, first: int, after_lines: int) -> dict[tuple[str, int], int]:
    """Let the writer write, kill it; returns the last number acknowledged to each role and writer."""
    acknowledged: dict[tuple[str, int], int] = {}
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, str(WRITER), str(path), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for count, line in enumerate(process.stdout):
            if count >= after_lines and len(acknowledged) == EVERYONE:
                process.kill()
            if line.endswith("\n"):  # the last line may be torn
                role, writer, number = line.split()
                acknowledged[role, int(writer)] = int(number)
    assert process.returncode == -9
    return acknowledged


async def test_a_killed_process_keeps_all_it_acknowledged(tmp_path: Path) -> None:
    """Killed three times: every acknowledged record, ledger entry, document and commit is there, in order, once."""
    last: dict[tuple[str, int], int] = {}
    for turn in range(3):
        # Numbers of one turn do not reach those of the next.
        last = run_and_kill(tmp_path, first=turn * 1_000_000, after_lines=100 + 77 * turn)

        folder = open_folder(tmp_path)
        ledger = SqliteLedger(folder)
        log = SqliteLog(folder, ledger)
        written: dict[bytes | None, list[int]] = defaultdict(list)
        for partition in range(2):
            records = await everything(log, partition)
            assert [record.offset for record in records] == list(range(len(records)))
            for record in records:
                written[record.key].append(int(record.value))
        for writer in range(4):
            numbers = written[b"%d" % writer]
            assert len(numbers) == len(set(numbers))
            assert set(range(turn * 1_000_000, last["log", writer] + 1)) <= set(numbers)

        end = await ledger.end(3)
        reader = await ledger.read(3, 0)
        bodies: list[bytes] = []
        while len(bodies) < end:
            bodies += [entry.body for entry in await reader.receive()]
        assert [int(body) for body in bodies][-1] >= last["ledger", 0]
        committed = await log.committed(3)
        assert committed.offset >= last["commit", 0]
        assert committed.metadata == b"%d" % committed.offset
        store = SqliteStore(folder)
        for number in range(turn * 1_000_000, last["store", 0] + 1):
            assert len(await store.read(str(number))) == 1
        folder.close()
