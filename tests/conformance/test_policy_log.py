"""What every log of policy versions promises."""

import trio

from spanloom.core.sampling.written import parse_policies
from spanloom.model import PolicyVersion
from tests.conformance.rigs import Rig

BODY = parse_policies([{"name": "errors", "type": "error"}], version=1).body


def written(version: int, mark: str) -> PolicyVersion:
    return PolicyVersion(version, BODY, "me@here", 1_700_000_000_000, "why", mark)


async def test_versions_come_back_in_order(rig: Rig) -> None:
    """An empty log has none; what was acknowledged is there, whole."""
    versions = await rig.policies()
    assert list(await versions.read()) == []
    for number in (1, 2, 3):
        await versions.append(written(number, f"m{number}"))
    assert list(await versions.read()) == [written(number, f"m{number}") for number in (1, 2, 3)]


async def test_of_one_version_written_twice_the_first_counts(rig: Rig) -> None:
    """Whoever reads, and whenever, follows the same one: of a race one writer wins for everybody."""
    versions = await rig.policies()
    async with trio.open_nursery() as nursery:
        for mark in "abcd":
            nursery.start_soon(versions.append, written(1, mark))
    (winner,) = await versions.read()
    await versions.append(written(1, "late"))
    assert list(await versions.read()) == [winner]
    assert list(await versions.next_after(0)) == [winner]


async def test_a_follower_is_woken_by_the_next_version(rig: Rig) -> None:
    """It gets what counts above what it has, once, and nothing for what does not."""
    versions = await rig.policies()
    await versions.append(written(1, "a"))
    found: list[PolicyVersion] = []

    async def follow() -> None:
        found.extend(await versions.next_after(1))

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow)
            await versions.append(written(1, "b"))
            await versions.append(written(2, "c"))
    assert found == [written(2, "c")]


async def test_a_follower_that_gives_up_misses_nothing(rig: Rig) -> None:
    """A wait that was cancelled can be begun again, before or after a version came."""
    versions = await rig.policies()
    with trio.move_on_after(0.2):
        await versions.next_after(0)
    await versions.append(written(1, "a"))
    with trio.fail_after(30):
        assert list(await versions.next_after(0)) == [written(1, "a")]
    with trio.move_on_after(0.2):
        await versions.next_after(1)
    await versions.append(written(4, "b"))
    with trio.fail_after(30):
        assert list(await versions.next_after(1)) == [written(4, "b")]


async def test_versions_outlive_the_process(durable_rig: Rig) -> None:
    """What was acknowledged is there when the log is opened again, and another process sees it."""
    await (await durable_rig.policies()).append(written(1, "a"))
    again = await durable_rig.policies()
    assert list(await again.read()) == [written(1, "a")]
    assert list(await again.next_after(0)) == [written(1, "a")]
