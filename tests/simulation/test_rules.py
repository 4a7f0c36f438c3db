"""Owners that overlap, freeze and die change nothing: the core's own rules, seed by seed."""

import pytest

from spanloom.core.ownership import decode_metadata
from tests.simulation.rules import crash_free, differences, run

SEEDS = 300


@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_crash_changes_what_is_stored(seed: int) -> None:
    """Whoever dies, freezes or overlaps: the verdicts, the stored spans and their bytes are those of a calm run."""
    world = run(seed)
    assert differences(world) == []


@pytest.mark.parametrize("seed", range(0, SEEDS, 10))
def test_the_books_balance_after_any_crash(seed: int) -> None:
    """The tally that travels with the last commit counts every span once, and as the calm run counts it."""
    world = run(seed)
    tally = decode_metadata(world.committed, partition=0)[0].tally
    calm = decode_metadata(crash_free(world).committed, partition=0)[0].tally
    assert tally.pending == 0
    assert tally.received == calm.received
