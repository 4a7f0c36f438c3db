"""The fakes' fault hook: told before and after every effect, and what it raises reaches the caller."""

from collections.abc import Awaitable, Callable

import pytest
import trio

from spanloom.adapters.memory import MemoryCache, MemoryLedger, MemoryLog, MemoryOutlet, MemoryStore
from spanloom.errors import LedgerUnavailable, SourceUnavailable
from spanloom.model import Committed, Message
from tests.conformance.test_store import document


def failing_at(name: str, error: Exception) -> Callable[[str], Awaitable[None]]:
    """Faults that raise *error* at one place, the first time it is reached."""
    left = [error]

    async def faults(call: str) -> None:
        if call == name and left:
            raise left.pop()

    return faults


@pytest.mark.parametrize(("place", "applied"), [("append:before", 0), ("append:after", 1)])
async def test_a_failed_append_was_applied_or_not(place: str, applied: int) -> None:
    """An error before the effect leaves nothing, one after it is the ambiguous answer: the record is there."""
    log = MemoryLog(1, faults=failing_at(place, SourceUnavailable("away")))

    with pytest.raises(SourceUnavailable, match="away"):
        await log.append([(0, Message(None, b"x"))])

    assert await log.end_offset(0) == applied


@pytest.mark.parametrize("place", ["receive:before", "receive:after"])
async def test_a_failed_receive_loses_nothing(place: str) -> None:
    """After an error the same records are given again."""
    ledger = MemoryLedger(1, faults=failing_at(place, LedgerUnavailable("away")))
    await ledger.append(0, [b"a", b"b"])
    reader = await ledger.read(0, 0)

    with pytest.raises(LedgerUnavailable):
        await reader.receive()

    assert [record.body for record in await reader.receive()] == [b"a", b"b"]


async def test_every_call_is_announced_before_and_after() -> None:
    """The hook sees each method's name around its effect."""
    calls: list[str] = []

    async def faults(call: str) -> None:
        calls.append(call)

    log = MemoryLog(1, faults=faults)
    await log.append([(0, Message(None, b"x"))])
    await log.commit(0, Committed(1, b""))
    await log.committed(0)
    await (await log.read(0, 0)).receive()
    await MemoryStore(faults=faults).write([document()])
    await MemoryOutlet(faults=faults).publish("traces-complete", [])
    await MemoryCache(faults=faults).get("key")

    names = ["append", "commit", "committed", "read", "receive", "write", "publish", "get"]
    assert calls == [f"{name}:{moment}" for name in names for moment in ("before", "after")]


async def test_a_hook_may_hold_a_call_back() -> None:
    """A call that is held is cancelled without having had an effect."""

    async def hold(call: str) -> None:
        if call == "append:before":
            await trio.sleep_forever()

    log = MemoryLog(1, faults=hold)

    with trio.move_on_after(0):
        await log.append([(0, Message(None, b"x"))])

    assert await log.end_offset(0) == 0
