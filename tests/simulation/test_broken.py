"""The simulation would notice: each rule, broken on purpose, is caught within a stated number of seeds."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.simulation import rules
from tests.simulation.broken import (
    CORE,
    bends_without_a_record,
    conflicts_as_failures,
    forgets_the_rate,
)
from tests.simulation.oracles import differences
from tests.simulation.rules import Node
from tests.simulation.scene import play

CONFLICT_SEEDS = 5
RATE_SEEDS = 60  # a fifth of the runs bends


def is_caught(node_type: type[Node], seed: int) -> bool:
    """Whether the run differs from what it should be, or breaks down."""
    try:
        return bool(rules.differences(rules.run(seed, node_type=node_type)))
    except (AssertionError, IndexError, KeyError):
        return True


@pytest.mark.parametrize("node_type", CORE, ids=lambda node_type: node_type.__name__)
def test_a_broken_rule_is_caught(node_type: type[Node]) -> None:
    """A world of owners that break this one rule shows a difference within that many seeds."""
    assert any(is_caught(node_type, seed) for seed in range(CORE[node_type])), "not caught"


def test_a_conflict_taken_for_a_failure_is_caught() -> None:
    """Where a document that is there already counts as refused, something good ends in the dead letters."""
    with conflicts_as_failures():
        assert any(differences(play(seed)) for seed in range(CONFLICT_SEEDS)), "not caught"


@pytest.mark.parametrize("broken", [forgets_the_rate, bends_without_a_record])
def test_a_broken_rule_of_the_rate_is_caught(broken: Callable[[], AbstractContextManager[None]]) -> None:
    """A rate that holds from elsewhere than its place in the ledger on shows within that many seeds."""
    with broken():
        assert any(differs(seed) for seed in range(RATE_SEEDS)), "not caught"


def differs(seed: int) -> bool:
    try:
        return bool(differences(play(seed)))
    except (AssertionError, KeyError):
        return True
