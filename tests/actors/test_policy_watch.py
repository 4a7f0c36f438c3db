"""Policies have one source: who starts with what, who follows whom, and that no trace is judged by two versions."""

from contextlib import AsyncExitStack

import pytest
import trio
import trio.testing

from spanloom.actors.context import Orders
from spanloom.actors.policy_watch import Author, settle_policies, watch_policies, write_version
from spanloom.adapters.memory import MemoryPolicyLog
from spanloom.core.ledger import Decide, Rate, decode, decode_decisions
from spanloom.core.sampling.policies import PolicySet
from spanloom.core.sampling.written import parse_policies
from spanloom.errors import ConfigError, PoliciesUnavailable
from spanloom.model import FLAG_LATE, Decision, PolicyVersion
from tests.actors.test_partition import Faults, Town, eventually
from tests.judged import judged
from tests.spans import Sp


def policies(*names: str, version: int = 1) -> PolicySet:
    written = [{"name": name, "type": "latency", "latency": {"threshold_ms": 0}} for name in names]
    return parse_policies(written, version=version)


def author(name: str = "me") -> Author:
    marks = iter(range(1, 1000))

    def mark() -> bytes:
        return f"{name}{next(marks)}".encode()

    return Author(name, lambda: 1_700_000_000.0, mark)


def names(orders: Orders) -> list[str]:
    return [policy.name for policy in orders.policies.policies]


async def test_what_a_first_start_brings_is_version_1(autojump_clock: trio.testing.MockClock) -> None:
    """An empty log gets the process's own policies, and says who brought them."""
    versions, orders = MemoryPolicyLog(), Orders(policies("mine"))
    await settle_policies(versions, orders, author())
    (first,) = await versions.read()
    assert (first.version, first.body, first.author) == (1, policies("mine").body, "me")
    assert (orders.policies.version, names(orders)) == (1, ["mine"])


async def test_the_highest_version_wins_over_a_process_s_own(autojump_clock: trio.testing.MockClock) -> None:
    """Whatever a later start brings, it judges by what is in force and changes nothing."""
    versions, orders = MemoryPolicyLog(), Orders(policies("mine"))
    await write_version(versions, policies("first").body, "", author=author())
    await write_version(versions, policies("second").body, "", author=author())
    await settle_policies(versions, orders, author())
    assert (orders.policies.version, names(orders)) == (2, ["second"])
    assert len(await versions.read()) == 2


async def test_first_starts_at_once_end_on_one_version(autojump_clock: trio.testing.MockClock) -> None:
    """Several that find the log empty all write version 1: the first in the log counts, for every one of them."""
    versions = MemoryPolicyLog()
    fleet = [Orders(policies(f"of {number}")) for number in range(5)]
    async with trio.open_nursery() as nursery:
        for number, orders in enumerate(fleet):
            nursery.start_soon(settle_policies, versions, orders, author(f"{number}"))
    assert len(versions._records) == 5  # they did race
    assert len({(orders.policies.version, orders.policies.body) for orders in fleet}) == 1


async def test_writers_at_once_each_get_a_version_of_their_own(autojump_clock: trio.testing.MockClock) -> None:
    """`apply` is never lost to a race: who was overtaken writes again, above the one that was faster."""
    versions, got = MemoryPolicyLog(), list[int]()

    async def write(number: int) -> None:
        body = policies(f"of {number}").body
        got.append(await write_version(versions, body, "", author=author(f"{number}")))

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(write, number)
    assert sorted(got) == [1, 2, 3, 4, 5]
    assert [one.version for one in await versions.read()] == [1, 2, 3, 4, 5]


async def test_a_running_process_follows(autojump_clock: trio.testing.MockClock) -> None:
    """A version that is written is in force a moment later; an outage of the log only delays that."""
    faults = Faults()
    versions, orders = MemoryPolicyLog(faults=faults), Orders(policies("mine"))
    await settle_policies(versions, orders, author())
    faults.planned["next_after:before"] = [PoliciesUnavailable("away")] * 3
    async with trio.open_nursery() as nursery:
        await nursery.start(follow, versions, orders)
        await write_version(versions, policies("next").body, "", author=author("other"))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert (orders.policies.version, names(orders), sorted(orders.versions)) == (2, ["next"], [1, 2])


async def follow(
    versions: MemoryPolicyLog, orders: Orders, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    await watch_policies(versions, orders, author("watch"), draw=lambda: 0.5, task_status=task_status)


async def test_a_version_that_cannot_be_read_is_not_followed(autojump_clock: trio.testing.MockClock) -> None:
    """What a later release wrote leaves the policies as they are while running, and is refused at a start."""
    versions, orders = MemoryPolicyLog(), Orders(policies("mine"))
    await settle_policies(versions, orders, author())
    async with trio.open_nursery() as nursery:
        await nursery.start(follow, versions, orders)
        await versions.append(PolicyVersion(2, b'[{"name":"new","type":"of_tomorrow"}]', "", 0, "", "x"))
        await trio.sleep(10)
        assert (orders.policies.version, names(orders)) == (1, ["mine"])
        with pytest.raises(ConfigError, match="of_tomorrow"):
            await settle_policies(versions, Orders(policies("mine")), author())
        await versions.append(author().write(3, policies("third").body, ""))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert (orders.policies.version, names(orders)) == (3, ["third"])


@pytest.mark.parametrize(
    ("in_ledger", "expected"),
    [
        (policies("old", version=4), (5, ["mine"])),  # the log was lost, or is new and the ledger is not
        (policies("other", version=1), (2, ["mine"])),
        (policies("mine", version=1), (1, ["mine"])),
    ],
)
async def test_versions_rise_above_what_only_a_ledger_has(
    autojump_clock: trio.testing.MockClock, in_ledger: PolicySet, expected: tuple[int, list[str]]
) -> None:
    """One number never means two sets: where a ledger knows more than the log, the log begins above it."""
    versions, orders = MemoryPolicyLog(), Orders(policies("mine"))
    await settle_policies(versions, orders, author())
    async with trio.open_nursery() as nursery:
        await nursery.start(follow, versions, orders)
        orders.report(in_ledger)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert (orders.policies.version, names(orders)) == expected


# Partitions.


def threshold(percentage: float, version: int) -> PolicySet:
    written = {
        "name": f"v{version}",
        "type": "consistent_probability",
        "consistent_probability": {"sampling_percentage": percentage},
    }
    return parse_policies([written], version=version)


def judgements(town: Town, partition: int = 0) -> tuple[list[int], list[Decision]]:
    return judged([record.body for record in town.ledger._entries[partition]], partition)


async def test_policies_switched_under_load_judge_no_trace_twice(autojump_clock: trio.testing.MockClock) -> None:
    """While spans come in, versions change; each trace is judged by one of them, and its late spans follow."""
    town = Town(2)
    town.settings.orders.policies = threshold(100, 1)
    async with town.at_work():
        for number in range(1, 121):
            await town.send(Sp(number, 1), Sp(number, 2, parent=1))
            if number > 20:
                await town.send(Sp(number - 20, 3, parent=1))  # late: its trace was decided ten seconds before
            if number % 30 == 0:
                town.settings.orders.policies = threshold(100 - number / 2, 1 + number // 30)
            await trio.sleep(1)
        await trio.sleep(60)
    outcome = [judgements(town, partition) for partition in (0, 1)]
    assert [versions for versions, _ in outcome] == [[1, 2, 3, 4, 5]] * 2
    decisions = [decision for _, of_partition in outcome for decision in of_partition]
    assert {decision.policy_version for decision in decisions} == {1, 2, 3, 4, 5}
    assert any(decision.flags & FLAG_LATE for decision in decisions)
    assert len({decision.trace_id for decision in decisions}) == 120


async def test_a_successor_that_knows_less_keeps_the_ledger_s_version(autojump_clock: trio.testing.MockClock) -> None:
    """An owner takes over with the higher version that stands in the ledger, and has its own switch with the next."""
    town = Town()
    town.settings.orders.policies = threshold(100, 7)
    async with town.at_work():
        await town.send(Sp(1, 1))
        await eventually(lambda: _is_stored(town, 1))
    town.settings.orders.policies = threshold(0, 6)
    async with town.at_work():
        await town.send(Sp(2, 1))
        await eventually(lambda: _is_stored(town, 2))
        town.settings.orders.policies = threshold(0, 8)
        await trio.sleep(5)
        await town.send(Sp(3, 1))
        await trio.sleep(60)
    versions, decisions = judgements(town)
    assert versions == [7, 8]
    assert [decision.policy_version for decision in decisions] == [7, 7, 8]
    assert not await town.stored(3)


async def _is_stored(town: Town, trace: int) -> bool:
    return await town.stored(trace) > 0


async def test_two_processes_with_other_files_judge_alike(autojump_clock: trio.testing.MockClock) -> None:
    """Both end on the version that was first in the log, and follow the next one together."""
    versions = MemoryPolicyLog()
    towns = [Town(), Town()]
    for number, town in enumerate(towns):
        town.settings.orders.policies = threshold(100, 1) if number else policies("other")
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        for town in towns:
            await settle_policies(versions, town.settings.orders, author())
            await nursery.start(follow, versions, town.settings.orders)
            await stack.enter_async_context(town.at_work())
            await town.send(Sp(1, 1))
        await trio.sleep(30)
        await write_version(versions, threshold(0, 1).body, "", author=author("operator"))
        await trio.sleep(5)
        for town in towns:
            await town.send(Sp(2, 1))
        await trio.sleep(30)
        nursery.cancel_scope.cancel()
    first, second = ([decision.policy_version for decision in judgements(town)[1]] for town in towns)
    assert first == second == [1, 2]


# The rate.


def rates(town: Town) -> list[float | int]:
    """RATE records and the thresholds of decisions, in the order of the ledger."""
    found: list[float | int] = []
    for record in town.ledger._entries[0]:
        match decode(record.body, partition=0, position=record.position)[1]:
            case Rate(_, rate):
                found.append(rate)
            case Decide(entries):
                found += [decision.threshold for decision in decode_decisions(entries)]
    return found


async def test_load_bends_the_probabilities_from_a_place_in_the_ledger_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A RATE stands before the first decision it holds for, whose threshold says so; a successor goes on with it."""
    town = Town()
    town.settings.orders.policies = threshold(100, 1)
    keeps_all, keeps_half = 0, 1 << 55
    kept = [number for number in range(1, 30) if Sp(number, 1).trace_id[-7] >= 0x80][:3]
    async with town.at_work():
        await town.send(Sp(kept[0], 1))
        await eventually(lambda: _is_stored(town, kept[0]))
        town.settings.orders.rate = 0.5
        await trio.sleep(5)
        await town.send(Sp(kept[1], 1))
        await eventually(lambda: _is_stored(town, kept[1]))
        assert [statistics.rate for statistics in town.board.statistics()] == [0.5]
    async with town.at_work():
        await town.send(Sp(kept[2], 1))
        await eventually(lambda: _is_stored(town, kept[2]))
    assert rates(town) == [keeps_all, 0.5, keeps_half, keeps_half]
    (document,) = await town.store.read(Sp(kept[1], 1).trace_id.hex())
    assert document.verdict["adjusted_count"] == 2


async def test_a_successor_that_is_not_busy_lifts_the_rate(autojump_clock: trio.testing.MockClock) -> None:
    """The rate is the owner's: one with another load says so in the ledger before it decides anything."""
    town = Town()
    town.settings.orders.rate = 0.25
    async with town.at_work():
        await trio.sleep(5)
    town.settings.orders.rate = 1.0
    async with town.at_work():
        await trio.sleep(5)
        assert [statistics.rate for statistics in town.board.statistics()] == [1.0]
    assert rates(town) == [0.25, 1.0]
