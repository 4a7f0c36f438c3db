"""What stands behind the aggregators of a cluster: the trace store and the cache, as the configuration has them.

Elasticsearch and Redis where their URLs are given. Without them a process keeps its traces in its own data folder,
where only it finds them, and caches for itself.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog
import trio

from spanloom.actors.context import World
from spanloom.adapters.elasticsearch import ElasticsearchOptions, ElasticsearchStore
from spanloom.adapters.memory import MemoryCache
from spanloom.adapters.redis import RedisCache, RedisOptions
from spanloom.adapters.sqlite import DataFolder, Durability, SqliteStore
from spanloom.config import Config, ElasticsearchConfig, RedisConfig
from spanloom.config.secrets import secret_of
from spanloom.errors import Unavailable
from spanloom.interfaces import Cache, TraceStore

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

RETENTION_INTERVAL_S = 3600.0  # whole days are deleted: an hour late is soon enough


@contextmanager
def open_store(config: Config, partition_count: int) -> Iterator[TraceStore]:
    """Elasticsearch, or the data folder. Raises ConfigError."""
    if config.elasticsearch.urls:
        elasticsearch = ElasticsearchStore(_elasticsearch_options(config.elasticsearch), random=random.random)
        try:
            yield elasticsearch
        finally:
            elasticsearch.close()
        return
    data = config.data
    folder = DataFolder.open(data.folder, partition_count=partition_count, durability=Durability(data.durability))
    try:
        yield SqliteStore(folder)
    finally:
        folder.close()


@contextmanager
def open_cache(config: RedisConfig) -> Iterator[Cache]:
    """Redis, or this process's memory. Raises ConfigError."""
    if not config.url:
        yield MemoryCache()
        return
    password = secret_of("redis.password", config.password, config.password_file)
    redis = RedisCache(RedisOptions(config.url, password=password, ca_file=_file(config.ca_file)))
    try:
        yield redis
    finally:
        redis.close()


async def drop_old_days(
    store: TraceStore,
    world: World,
    retention_s: float,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Delete old days where Elasticsearch does not by itself; every process may, deleting twice is deleting once."""
    task_status.started()
    while isinstance(store, ElasticsearchStore):
        try:
            if not store.has_lifecycles:
                day = datetime.fromtimestamp(world.unix_s() - retention_s, UTC).strftime("%Y.%m.%d")
                await store.drop_days_before(day)
        except Unavailable as exc:
            log.warning("retention not applied", why=str(exc))
        await trio.sleep(RETENTION_INTERVAL_S)
    await trio.sleep_forever()


def _elasticsearch_options(config: ElasticsearchConfig) -> ElasticsearchOptions:
    return ElasticsearchOptions(
        urls=tuple(url.strip() for url in config.urls.split(",")),
        api_key=secret_of("elasticsearch.api_key", config.api_key, config.api_key_file),
        ca_file=_file(config.ca_file),
        prefix=config.prefix,
        shards=config.shards,
        replicas=config.replicas,
        retention_s=config.retention_s,
    )


def _file(text: str) -> Path | None:
    return Path(text) if text else None
