"""`python -m tests.cluster.recovery`: how long until a record is read again; exit status 1 for a difference.

Two aggregators, a steady load, nothing else wrong: one is killed, again and again, and each time the other reads on. In
every life one partition's actor crashes as well, by an exception, and is restarted alone.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from random import Random

import trio
import yaml

from spanloom.core.failpoints import Failpoint
from tests.cluster.chaos.account import spread, takeovers
from tests.cluster.chaos.fleet import Fleet, Life
from tests.cluster.chaos.run import (
    LIMITS,
    PARTITIONS,
    POLICIES,
    Plan,
    finish,
    settings_of,
    start_servers,
    steady_load,
)
from tests.cluster.members import Cluster
from tests.servers.http_proxy import HttpProxy

CRASHING = "tests.cluster.crashing"
CRASH_AT = f"{Failpoint.BEFORE_COMMIT}:60"  # a second or two after the first records
WORK_S = 6.0  # between two kills, with all partitions owned
SETTLE_S = 90.0


async def run(plan: Plan, kills: int) -> bool:
    """Whether the recount is clean; the figures are printed."""
    with ExitStack() as stop:
        servers = stop.enter_context(start_servers(plan))
        cluster = Cluster(servers.kafka.brokers, plan.folder, PARTITIONS, policies=POLICIES, limits=LIMITS)
        cluster.make_topics()
        (plan.folder / "spanloom.yaml").write_text(yaml.safe_dump({"sampling": {"policies": POLICIES}}))
        async with trio.open_nursery() as nursery:
            proxy = HttpProxy(servers.elasticsearch.port)
            await nursery.start(proxy.run)
            settings, draw = settings_of(cluster, proxy, servers), Random(plan.seed).random
            fleet = stop.enter_context(
                Fleet(cluster, plan.folder, settings, draw, wanted=2, program=CRASHING, armed=CRASH_AT)
            )
            nursery.start_soon(fleet.run)
            await _settled(fleet)
            sending = stop.enter_context(steady_load(plan, cluster))
            for number in range(kills):
                await trio.sleep(WORK_S)
                fleet.kill(fleet.able[number % 2])
                await trio.sleep(1)
                await _settled(fleet)
            violations = await finish(cluster, sending)
            fleet.wanted = 0
            await fleet.end()
            nursery.cancel_scope.cancel()
        recount = cluster.recount(servers.elasticsearch, plan.folder / "sent", into=plan.folder / "dump")
        taken = takeovers(recount.dumped, fleet.lives)
    print(f"{kills} kills; takeovers of a partition: {len(taken)}")
    print(f"kill -9 to the first record, s: {spread(each.recovery_s for each in taken if each.recovery_s is not None)}")
    print(f"replay distance, spans a partition: {spread(each.spans for each in taken)}")
    print(f"crashed actor to its first record, ms: {spread(_crashes(fleet.lives))}")
    for name, found in [*recount.differences.items(), ("violations", violations)]:
        print("\n    ".join([f"{name}: {len(found)} differences", *found[:10]]))
    return recount.is_clean and not violations


async def _settled(fleet: Fleet) -> None:
    """Both live and own their half."""
    with trio.fail_after(SETTLE_S):
        while [len(life.partitions) for life in fleet.able] != [PARTITIONS // 2] * 2:  # noqa: ASYNC110 - others
            await trio.sleep(0.2)


def _crashes(lives: Sequence[Life]) -> Iterator[float]:
    """From each crash of an actor to its first records after, in ms."""
    for life in lives:
        crashed: dict[str, float] = {}
        for line in life.log:
            unix = datetime.fromisoformat(str(line.get("timestamp", "1970-01-01"))).timestamp()
            if line["event"] == "child crashed":
                crashed[str(line["child"])] = unix
            elif line["event"] == "first records":
                began = crashed.pop(f"partition-{line['partition']}", None)
                if began is not None:
                    yield 1000 * (unix - began)


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spanloom-recovery-", ignore_cleanup_errors=True) as folder:
        plan = Plan(minutes=args.kills / 3, seed=1, folder=Path(folder), brokers=1)
        return 0 if trio.run(run, plan, args.kills) else 1


if __name__ == "__main__":
    sys.exit(main())
