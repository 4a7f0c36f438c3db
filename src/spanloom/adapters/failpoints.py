"""Dies at a named instant, as `kill -9` would: how tests put a crash exactly where the crash table has a row.

Armed by `SPANLOOM_FAILPOINT=name:n` in the environment: the process dies the n-th time it gets there.
"""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spanloom.core.failpoints import Failpoint
from spanloom.errors import ConfigError, StoreRejected
from spanloom.interfaces import TraceStore
from spanloom.model import Document

VARIABLE = "SPANLOOM_FAILPOINT"


def die() -> None:
    """End this process as nothing can be done about."""
    os.kill(os.getpid(), signal.SIGKILL)


class ArmedFailpoint:
    """Counts how often the process gets to `name`, and calls *then* at the `passes`-th time."""

    def __init__(self, name: Failpoint, passes: int, then: Callable[[], None] = die) -> None:
        self.name = name
        self._left = passes
        self._then = then

    def __call__(self, name: str) -> None:
        """The process is at *name*."""
        if name == self.name:
            self._left -= 1
            if self._left == 0:
                self._then()


def failpoint_from(setting: str) -> ArmedFailpoint | None:
    """What `name:n` arms; None where the setting is empty. Raises ConfigError."""
    if not setting:
        return None
    name, _, passes = setting.partition(":")
    if name not in set(Failpoint) or not passes.isdecimal() or passes == "0":
        names = ", ".join(Failpoint)
        raise ConfigError(f"{VARIABLE}: expected name:n with n from 1 and a name of {names}, found {setting!r}")
    return ArmedFailpoint(Failpoint(name), int(passes))


@dataclass(frozen=True, slots=True)
class HalvingStore:
    """The store it is given, with a failpoint between the halves of a bulk."""

    store: TraceStore
    failpoint: Callable[[str], None]

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        """See interfaces.TraceStore."""
        half = len(documents) // 2
        rejected = list(await self.store.write(documents[:half])) if half else []
        self.failpoint(Failpoint.STORE_HALF_DONE)
        return rejected + list(await self.store.write(documents[half:]))

    async def read(self, trace_id: str) -> Sequence[Document]:
        """See interfaces.TraceStore."""
        return await self.store.read(trace_id)

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        """See interfaces.TraceStore."""
        return await self.store.search(service=service, limit=limit)

    async def services(self) -> Sequence[str]:
        """See interfaces.TraceStore."""
        return await self.store.services()
