"""A record that kills the process every time is found, dead-lettered and skipped, and the rest goes on."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import trio

from spanloom.core.deaths import ACCUSATIONS_MAX, DEATHS_MAX
from spanloom.load.client import LoadClient
from spanloom.load.workload import Request
from spanloom.model import DEAD_LETTERS
from tests.killing.deadly import MARKER
from tests.killing.harness import CALM, Killing
from tests.killing.wreck import skipped
from tests.oracle_checks import stored_fragments
from tests.spans import Sp, trace_id, traces_data

TRACES = range(1, 40)
DEADLY_TRACE = 20
SURVIVED_S = 5  # a node that lives for so long has got past the record


class Deadly(Killing):
    """Nodes of a kernel that some records kill."""

    def command(self) -> list[str]:
        spanloom, run = ["-m", "spanloom"], super().command()
        return [sys.executable, "-m", "tests.killing.deadly", *run[1 + len(spanloom) :]]


def traffic() -> list[Request]:
    """A request a trace; one of them kills."""
    names = {DEADLY_TRACE: MARKER.decode()}
    spans = [Sp(number, 1, error=True, name=names.get(number, "op")) for number in TRACES]
    return [Request(number, traces_data([span]), 1, b"", 0, -1) for number, span in enumerate(spans)]


async def test_a_record_that_kills_every_time_is_skipped_loudly(tmp_path: Path) -> None:
    """After a few deaths at one offset the record is dead-lettered; every other trace is stored, and nothing hangs."""
    with Deadly(tmp_path) as killing:
        deaths = await deaths_until_it_lives(killing)
    assert deaths >= DEATHS_MAX
    ((_, _, reason),) = skipped(killing.data)
    assert reason.startswith("deadly")
    with closing(sqlite3.connect(killing.data / "outlet.db")) as outlet:
        letters = outlet.execute(f'SELECT DISTINCT value FROM "{DEAD_LETTERS}"').fetchall()
    assert len(letters) == 1
    assert MARKER in letters[0][0]
    stored = {fragment.key[0] for fragment in stored_fragments(killing.data)}
    assert stored == {trace_id(number).hex() for number in TRACES if number != DEADLY_TRACE}
    assert b"deadly" in killing.log.read_bytes()


async def deaths_until_it_lives(killing: Killing) -> int:
    """Start it again and again while everything is sent; end it once it lives. How often it died."""
    client = LoadClient(f"http://127.0.0.1:{killing.port}/v1/traces", connections=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, traffic(), lambda request, fate: None)
        for _ in range(2 * (DEATHS_MAX + ACCUSATIONS_MAX)):
            node = await killing.start(CALM)
            if await killing.ready(node):
                with trio.move_on_after(SURVIVED_S):
                    await node.wait()
            if node.poll() is None:
                break
        else:
            raise AssertionError("it dies for ever")
    await killing.end_well(node)
    return len(killing.nodes) - 1
