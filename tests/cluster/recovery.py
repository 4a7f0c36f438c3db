"""`python -m tests.cluster.recovery`: how long until a record is read again; exit status 1 for a difference.

Two aggregators, a steady load, nothing else wrong: one is killed, again and again, and each time the other reads on. In
every life one partition's actor crashes as well, by an exception, and is restarted alone. With `--crashes` nobody is
killed, and actors crash one after another; what each step of their way back took is said.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from random import Random

import trio
import yaml

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
from tests.cluster.crash_steps import APART_S
from tests.cluster.members import Cluster
from tests.servers.http_proxy import HttpProxy

CRASHING = "tests.cluster.crash_steps"
ONE_CRASH = "1:1"  # a second after the first records
READING_S = 6  # that actors have read before they crash one after another: each time it is a first crash (supervisor)
WORK_S = 6.0  # between two kills, with all partitions owned
SETTLE_S = 90.0
RESTARTS_MAX = 10  # the default, beside the crashes asked for


async def run(plan: Plan, *, kills: int, crashes: int) -> bool:
    """Whether the recount is clean; the figures are printed."""
    armed = f"{crashes // 2}:{READING_S}" if crashes else ONE_CRASH
    with ExitStack() as stop:
        servers = stop.enter_context(start_servers(plan))
        cluster = Cluster(servers.kafka.brokers, plan.folder, PARTITIONS, policies=POLICIES, limits=LIMITS)
        cluster.make_topics()
        (plan.folder / "spanloom.yaml").write_text(yaml.safe_dump({"sampling": {"policies": POLICIES}}))
        async with trio.open_nursery() as nursery:
            proxy = HttpProxy(servers.elasticsearch.port)
            await nursery.start(proxy.run)
            settings, draw = settings_of(cluster, proxy, servers), Random(plan.seed).random
            settings["supervision.restarts_max"] = str(crashes + RESTARTS_MAX)
            fleet = stop.enter_context(
                Fleet(cluster, plan.folder, settings, draw, wanted=2, program=CRASHING, armed=armed)
            )
            nursery.start_soon(fleet.run)
            await _settled(fleet)
            sending = stop.enter_context(steady_load(plan, cluster))
            for number in range(kills):
                await trio.sleep(WORK_S)
                fleet.kill(fleet.able[number % 2])
                await trio.sleep(1)
                await _settled(fleet)
            await _crashed(fleet, crashes)
            violations = await finish(cluster, sending)
            fleet.wanted = 0
            await fleet.end()
            nursery.cancel_scope.cancel()
        recount = cluster.recount(servers.elasticsearch, plan.folder / "sent", into=plan.folder / "dump")
        taken = takeovers(recount.dumped, fleet.lives)
    print(f"{kills} kills; takeovers of a partition: {len(taken)}")
    print(f"kill -9 to the first record, s: {spread(each.recovery_s for each in taken if each.recovery_s is not None)}")
    print(f"replay distance, spans a partition: {spread(each.spans for each in taken)}")
    print(*_steps(list(_ways_back(fleet.lives))), sep="\n")
    for name, found in [*recount.differences.items(), ("violations", violations)]:
        print("\n    ".join([f"{name}: {len(found)} differences", *found[:10]]))
    return recount.is_clean and not violations


async def _settled(fleet: Fleet) -> None:
    """Both live and own their half."""
    with trio.fail_after(SETTLE_S):
        while [len(life.partitions) for life in fleet.able] != [PARTITIONS // 2] * 2:  # noqa: ASYNC110 - others
            await trio.sleep(0.2)


async def _crashed(fleet: Fleet, crashes: int) -> None:
    """So many crashes are over."""
    with trio.fail_after(SETTLE_S + crashes * READING_S):
        while sum(1 for _ in _ways_back(fleet.lives)) < crashes:  # noqa: ASYNC110 - others
            await trio.sleep(0.2)


def _ways_back(lives: Sequence[Life]) -> Iterator[dict[str, float]]:
    """From each crash of an actor to its first records after: each step, in ms."""
    for line in (line for life in lives for line in life.log if line["event"] == "way back"):
        took_ms = line["took_ms"]
        assert isinstance(took_ms, dict)
        yield took_ms


def _steps(ways: Sequence[dict[str, float]]) -> Iterator[str]:
    """A line for each step."""
    yield f"crashed actors on their way back to their first records, ms, at a load of {os.getloadavg()[0]:.1f}:"
    for step in ways[0] if ways else ():
        yield f"{step:>24}: {spread(way[step] for way in ways)}"


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.recovery", description=__doc__)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--crashes", type=int, default=0, help="an even number; of actors, and no kills")
    args = parser.parse_args()
    kills = 0 if args.crashes else args.kills
    minutes = kills / 3 + args.crashes * (APART_S + 1) / 60
    with tempfile.TemporaryDirectory(prefix="spanloom-recovery-", ignore_cleanup_errors=True) as folder:
        plan = Plan(minutes=minutes, seed=1, folder=Path(folder), brokers=1)
        return 0 if trio.run(partial(run, plan, kills=kills, crashes=args.crashes)) else 1


if __name__ == "__main__":
    sys.exit(main())
