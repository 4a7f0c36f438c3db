"""What may kill this process is tried in another one first."""

import os
import signal
from collections.abc import Callable

import pytest

from spanloom.adapters import trial


async def test_a_death_is_seen_and_this_process_lives() -> None:
    """A signal that ends the copy is a death; what the copy did before is not to be seen here."""
    seen: list[int] = []

    def die() -> None:
        seen.append(1)
        os.kill(os.getpid(), signal.SIGKILL)

    assert not await trial.survives(die)
    assert seen == []


async def test_an_end_and_an_exception_are_no_deaths() -> None:
    """Only what no handler could have met is a death."""
    assert await trial.survives(lambda: None)
    assert await trial.survives(lambda: 1 // 0)


async def test_an_attempt_that_hangs_proves_nothing_and_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """No end within the time: not a death, and no process is left behind."""
    forked: list[int] = []

    def fork(fork: Callable[[], int] = os.fork) -> int:
        forked.append(fork())
        return forked[-1]

    monkeypatch.setattr(trial, "TRIAL_S", 0.05)
    monkeypatch.setattr(os, "fork", fork)
    assert await trial.survives(signal.pause)
    (child,) = forked
    with pytest.raises(ChildProcessError):
        os.waitpid(child, os.WNOHANG)  # noqa: ASYNC222 - it does not wait
