"""The instants of the crash table (design, section 6) at which a test may let the process die.

Actors say where they are; who composes the node decides what happens then, and by default nothing does.
"""

from enum import StrEnum


class Failpoint(StrEnum):
    """One row of the crash table, or one side of it."""

    BEFORE_FENCE = "before-fence"  # assigned, nothing said yet
    FENCE_APPENDED = "fence-appended"  # not read back yet
    BEFORE_DECIDE = "before-decide"  # due, nothing appended
    DECIDE_APPENDED = "decide-appended"  # in the ledger, the actor does not know it
    BEFORE_STORE = "before-store"  # read back, nothing stored
    STORE_HALF_DONE = "store-half-done"  # some documents of a bulk are stored
    STORE_UNANSWERED = "store-unanswered"  # all are stored, the actor does not know it
    BEFORE_COMMIT = "before-commit"  # stored and told of, nothing committed
    COMMITTED = "committed"
    BEFORE_SKIP = "before-skip"  # a poison record is in the dead letters, the ledger does not say so
    MOVE_APPENDED = "move-appended"  # misplaced spans are where they belong, and here unresolved
    TICK_APPENDED = "tick-appended"  # in the ledger, not in effect
    INTAKE_APPENDED = "intake-appended"  # in the log, the sender has no answer
