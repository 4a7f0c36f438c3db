"""The load watch: what is measured bends the sampler, in time."""

from functools import partial

import trio

from spanloom.actors.load_watch import watch_load
from spanloom.core.sampling.adaptive import BendRule, Cause, LoadSample


async def test_a_lasting_load_bends_and_its_end_mends(autojump_clock: trio.testing.MockClock) -> None:
    """The sampler is told each new factor, and 1 at the start, whatever a watch before it had said."""
    told: list[float] = []
    load = 0.95
    watch = partial(watch_load, BendRule(frozenset({Cause.CPU})), lambda: LoadSample(load), told.append)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        assert told == [1.0]
        await trio.sleep(7.5)
        assert told == [1.0, 0.5, 0.25]
        load = 0.1
        await trio.sleep(65)
        nursery.cancel_scope.cancel()
    assert told == [1.0, 0.5, 0.25, 0.5, 1.0]
