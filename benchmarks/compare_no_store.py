"""The `spanloom` command with a store that throws away: what is left is everything up to the durable verdict.

For `compare.py` alone; no configuration leads here.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio

from spanloom.app import cluster
from spanloom.cli.main import main
from spanloom.config import Config
from spanloom.errors import StoreRejected
from spanloom.interfaces import TraceStore
from spanloom.model import Document


class NoStore:
    """Takes every document and keeps none. Implements interfaces.TraceStore."""

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:  # noqa: ARG002 - the interface's
        await trio.lowlevel.checkpoint()
        return []

    async def read(self, trace_id: str) -> Sequence[Document]:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return []

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:  # noqa: ARG002
        await trio.lowlevel.checkpoint()
        return []

    async def services(self) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        return []


@contextmanager
def open_no_store(config: Config, partition_count: int) -> Iterator[TraceStore]:  # noqa: ARG001 - open_store's
    """In place of the deployment's own."""
    yield NoStore()


if __name__ == "__main__":
    cluster.open_store = open_no_store  # type: ignore[attr-defined]
    sys.exit(main())
