"""Rigs that have one role only, on a real server. See rigs.py."""

import itertools
import os
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from spanloom.adapters.elasticsearch import ElasticsearchOptions, ElasticsearchStore
from spanloom.errors import StoreRejected
from spanloom.model import Document
from tests.conformance.rigs import DailyStore
from tests.servers.elasticsearch import ElasticsearchServer

_runs = itertools.count()


class StoreRig(Protocol):
    """Opens a trace store; opening it again goes on with what is durable of it."""

    durable: bool

    @abstractmethod
    async def store(self) -> DailyStore:
        """The trace store."""

    @abstractmethod
    def close(self) -> None:
        """Release everything."""


class RefreshedStore:
    """A store whose reads see every write before them: Elasticsearch itself shows a write within a second."""

    def __init__(self, store: ElasticsearchStore, server: ElasticsearchServer, prefix: str) -> None:
        self._store = store
        self._server = server
        self._prefix = prefix

    async def write(self, documents: Sequence[Document]) -> Sequence[StoreRejected]:
        """See ElasticsearchStore."""
        return await self._store.write(documents)

    async def read(self, trace_id: str) -> Sequence[Document]:
        """See ElasticsearchStore."""
        self._refresh()
        return await self._store.read(trace_id)

    async def search(self, *, service: str = "", limit: int = 20) -> Sequence[Document]:
        """See ElasticsearchStore."""
        self._refresh()
        return await self._store.search(service=service, limit=limit)

    async def services(self) -> Sequence[str]:
        """See ElasticsearchStore."""
        self._refresh()
        return await self._store.services()

    async def drop_days_before(self, day: str) -> Sequence[str]:
        """See ElasticsearchStore."""
        return await self._store.drop_days_before(day)

    def _refresh(self) -> None:
        self._server.request("POST", f"/{self._prefix}*/_refresh")


class ElasticsearchRig(StoreRig):
    """Indices of one prefix, on a server that others use too."""

    durable = True

    def __init__(self, server: ElasticsearchServer) -> None:
        self._server = server
        self.prefix = fresh_prefix()
        self._open = ExitStack()

    async def store(self) -> DailyStore:
        """The prefix's store, opened again."""
        self._open.close()
        store = ElasticsearchStore(options(self._server.url, self.prefix), random=lambda: 0.5)
        self._open.callback(store.close)
        return RefreshedStore(store, self._server, self.prefix)

    def close(self) -> None:
        """Close it and delete its indices."""
        self._open.close()
        self._server.forget(self.prefix)


def fresh_prefix() -> str:
    """A prefix that no other test has."""
    return f"test-{os.getpid()}-{next(_runs)}-"


def options(url: str, prefix: str) -> ElasticsearchOptions:
    """Of a store on one node."""
    return ElasticsearchOptions(urls=(url,), prefix=prefix, replicas=0)
