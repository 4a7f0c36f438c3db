"""Tries in a child process what may kill this one.

The child is a fork: it has the very state the attempt would meet here, and what it does to it is lost with it. It runs
nothing but the attempt, so that locks which other threads of this process held at the fork do not matter; an attempt
that hangs all the same proves nothing.
"""

import os
import signal
import warnings
from collections.abc import Callable
from typing import NoReturn

import trio

TRIAL_S = 10.0  # a record is fed in microseconds
LOOK_S = 0.005


async def survives(attempt: Callable[[], object]) -> bool:
    """Whether a copy of this process lives through *attempt*; an exception, or no end in time, is no death."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads: see above
        child = os.fork()
    if child == 0:
        _run(attempt)
    status: int | None = None
    try:
        with trio.move_on_after(TRIAL_S):
            while status is None:
                await trio.sleep(LOOK_S)
                status = _ended(child)
    finally:
        if status is None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)  # noqa: ASYNC222 - it is dead
    return status is None or not os.WIFSIGNALED(status)


def _run(attempt: Callable[[], object]) -> NoReturn:
    """The child's whole life: nothing of the parent's is closed, flushed or told of."""
    try:
        attempt()
    finally:
        os._exit(0)


def _ended(child: int) -> int | None:
    found, status = os.waitpid(child, os.WNOHANG)
    return status if found else None
