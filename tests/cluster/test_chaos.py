"""The chaos command, three minutes of it; docs/evidence/chaos.md has thirty."""

from pathlib import Path

from tests.cluster.chaos.__main__ import report
from tests.cluster.chaos.run import Plan, run
from tests.servers import need_servers


async def test_three_minutes_of_everything_that_can_go_wrong_lose_nothing(tmp_path: Path) -> None:
    """Kills, freezes, joins, leaves and outages under load: lost 0, twice 0, no verdict changed, books balanced."""
    need_servers()
    outcome = await run(Plan(minutes=3, seed=1, folder=tmp_path, brokers=1))
    print("\n".join(report(outcome)))
    assert outcome.recount.is_clean
    assert outcome.violations == []
    assert outcome.kills >= 10
    assert sum(takeover.records > 0 for takeover in outcome.takeovers) >= 10
