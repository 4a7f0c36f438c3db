"""A failpoint goes off at the n-th time the process gets there, and a wrong setting is refused."""

import pytest

from spanloom.adapters.failpoints import ArmedFailpoint, HalvingStore, failpoint_from
from spanloom.adapters.memory import MemoryStore
from spanloom.core.failpoints import Failpoint
from spanloom.errors import ConfigError
from tests.conformance.test_store import document


def test_it_goes_off_once_at_the_nth_pass() -> None:
    """Other instants do not count, and it goes off once."""
    deaths: list[str] = []
    failpoint = ArmedFailpoint(Failpoint.BEFORE_DECIDE, 2, then=lambda: deaths.append("dead"))
    told = []
    for name in (Failpoint.BEFORE_DECIDE, Failpoint.BEFORE_STORE, Failpoint.BEFORE_DECIDE, Failpoint.BEFORE_DECIDE):
        failpoint(name)
        told.append(len(deaths))
    assert told == [0, 0, 1, 1]


def test_the_environment_says_which() -> None:
    """`name:n` arms one; nothing arms none."""
    armed = failpoint_from("before-store:3")
    assert armed
    assert armed.name is Failpoint.BEFORE_STORE
    assert failpoint_from("") is None


@pytest.mark.parametrize("setting", ["before-store", "before-store:0", "before-store:x", "no-such-place:1", ":1"])
def test_a_wrong_setting_is_refused(setting: str) -> None:
    """The message names the places there are."""
    with pytest.raises(ConfigError, match="before-fence"):
        failpoint_from(setting)


async def test_a_bulk_is_cut_in_half() -> None:
    """When the failpoint is passed, the first half of the documents is stored and the second is not."""
    store = MemoryStore()
    seen: list[int] = []
    halving = HalvingStore(store, lambda _: seen.append(len(store._documents)))
    assert await halving.write([document("a"), document("b"), document("c")]) == []
    assert (seen, len(store._documents)) == ([1], 3)
