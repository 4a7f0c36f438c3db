"""What /metrics says of the cache: how many look-ups it answered, and so took off the trace store."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from spanloom.actors.head_decisions import HeadDecisions
from spanloom.adapters.memory import MemoryCache
from spanloom.core.cache_lookups import CacheLookups
from spanloom.errors import CacheUnavailable
from spanloom.model import Trigger
from spanloom.query.traces import TraceReader
from tests.integration.process import QUICK, Process, eventually, running
from tests.query.fakes import FakeCache, FakeStandings, FakeStore, fragment
from tests.spans import Sp, trace_id, traces_data

WHOLE = fragment(Sp(1, 1), Sp(1, 2, parent=1))
PARTIAL = fragment(Sp(2, 1), trigger=Trigger.IDLE)


@dataclass
class Scene:
    """A reader and its counters."""

    store: FakeStore
    cache: FakeCache
    lookups: CacheLookups

    async def read(self, *traces: int) -> None:
        reader = TraceReader(self.store, self.cache, FakeStandings(), random=lambda: 0.5, lookups=self.lookups)
        for trace in traces:
            await reader.read(trace_id(trace))


@pytest.fixture
def scene() -> Scene:
    """A whole trace 1 and a partial trace 2 in the store, nothing cached."""
    return Scene(FakeStore([WHOLE, PARTIAL]), FakeCache(), CacheLookups())


async def test_every_look_up_is_a_hit_a_miss_or_a_failure(scene: Scene) -> None:
    """Hits are the reads that the store was spared; misses and failures are those that it served."""
    await scene.read(1, 1, 1, 2, 2, 3)
    assert scene.lookups == CacheLookups(hits=2, misses=4)
    scene.cache.away = True
    await scene.read(1, 2)
    assert scene.lookups == CacheLookups(hits=2, misses=4, failures=2)
    assert scene.store.reads == 6


async def test_a_lie_is_no_hit(scene: Scene) -> None:
    """An answer that is not the trace asked for took nothing off the store."""
    await scene.cache.put(f"trace:{trace_id(1).hex()}", b"something else", 60)
    await scene.read(1)
    assert scene.lookups == CacheLookups(misses=1)


async def test_readers_who_share_a_read_count_once(scene: Scene, autojump_clock: trio.testing.MockClock) -> None:
    """Who waits for another's read asked neither the cache nor the store."""
    scene.store.delay_s = 1
    reader = TraceReader(scene.store, scene.cache, FakeStandings(), random=lambda: 0.5, lookups=scene.lookups)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(reader.read, trace_id(2))
    assert scene.lookups == CacheLookups(misses=1)


async def test_the_intakes_look_ups_count_by_the_trace() -> None:
    """One question about many traces is as many look-ups, whatever comes of it."""
    is_away = False

    async def faults(_: str) -> None:
        if is_away:
            raise CacheUnavailable("gone")

    lookups = CacheLookups()
    decisions = HeadDecisions(MemoryCache(faults=faults), random=lambda: 0.5, lookups=lookups)
    await decisions.remember({trace_id(1): True, trace_id(2): False})
    await decisions.known([trace_id(number) for number in (1, 2, 3)])
    assert lookups == CacheLookups(hits=2, misses=1)
    is_away = True
    await decisions.known([trace_id(1), trace_id(2)])
    assert lookups == CacheLookups(hits=2, misses=1, failures=2)


def looked_up(node: Process) -> dict[tuple[str, str], int]:
    """By cache and result, as /metrics has it."""
    pattern = r'^spanloom_cache_lookups_total\{cache="(\w+)",result="(\w+)"\} (\d+)$'
    found: Sequence[tuple[str, str, str]] = re.findall(pattern, node.get("/metrics")[1].decode(), re.MULTILINE)
    return {(cache, result): int(count) for cache, result, count in found}


def test_a_nodes_metrics_have_them_by_cache(tmp_path: Path) -> None:
    """All that can happen is there from the start at zero; a trace that is asked for twice is a miss and a hit."""
    with running(tmp_path / "data", QUICK, "--set=sampling.mode=head") as node:
        nothing = {(cache, result): 0 for cache in ("trace", "sampled") for result in ("hit", "miss", "failure")}
        assert looked_up(node) == nothing
        body = traces_data([Sp(1, 1, error=True)])
        assert node.post("/v1/traces", body, "application/x-protobuf")[0] == 200
        eventually(lambda: node.metric("spanloom_spans_stored_total") == 1, within_s=60)
        for _ in range(3):
            assert node.get(f"/v1/traces/{trace_id(1).hex()}")[0] == 200
        assert looked_up(node) == nothing | {("trace", "miss"): 1, ("trace", "hit"): 2, ("sampled", "miss"): 1}
        assert node.terminate() == 0
