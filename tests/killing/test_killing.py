"""`kill -9` of the real process under load, at every instant of the crash table: nothing lost, twice or changed."""

from pathlib import Path

from spanloom.core.failpoints import Failpoint
from tests.killing.__main__ import check
from tests.killing.harness import CALM, ROWS, Killing


async def test_kills_at_every_crash_point_leave_no_difference(tmp_path: Path) -> None:
    """A node killed once at each crash point, and three times anywhere, under load, ends as if it had lived."""
    with Killing(tmp_path) as killing:
        await killing.run([*Failpoint, CALM, CALM, CALM])
    print("\n".join(killing.toll.lines()))
    assert set(ROWS.values()) <= set(killing.toll.rows)
    assert killing.toll.kills == len(Failpoint) + 3
    statistics = killing.client.statistics()
    assert statistics.requests_acknowledged == statistics.requests_sent > 500
    assert check(killing) == {"ledger": [], "store": [], "lost or twice": []}
