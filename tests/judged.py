"""Which versions of the policies a ledger partition says were in force, and what was judged under them."""

from collections.abc import Sequence

from spanloom.core.ledger import Config, Decide, decode_decisions
from spanloom.model import FLAG_LATE, Decision
from tests.simulation.oracles import valid_entries


def judged(bodies: Sequence[bytes], partition: int) -> tuple[list[int], list[Decision]]:
    """The versions one after another, and the decisions.

    Every trace was judged by the version in force where it was decided, and its late spans follow that.
    """
    versions: list[int] = []
    decisions: list[Decision] = []
    lives: dict[bytes, int] = {}
    for entry in valid_entries(bodies, partition):
        match entry:
            case Config(_, version, _):
                assert not versions or version >= versions[-1], "a version gave way to a lower one"
                if versions[-1:] != [version]:
                    versions.append(version)
            case Decide(entries):
                for decision in decode_decisions(entries):
                    expected = lives.get(decision.trace_id) if decision.flags & FLAG_LATE else versions[-1]
                    assert decision.policy_version == expected, decision
                    lives[decision.trace_id] = decision.policy_version
                    decisions.append(decision)
    return versions, decisions
