"""Composition root: it alone knows both actors and adapters. The deployments share all from the actors inward."""

import trio

from spanloom.app.embedded import run_embedded
from spanloom.app.node import Node, NodeStatistics, Role, partition_settings
from spanloom.config import Config

__all__ = ["EVERY_ROLE", "Node", "NodeStatistics", "Role", "partition_settings", "run_node"]

EVERY_ROLE = frozenset(Role)


async def run_node(
    config: Config,
    roles: frozenset[Role] = EVERY_ROLE,
    *,
    task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run the roles until `Node.stop` is called or this is cancelled. Reports itself started when it is ready.

    Raises ConfigError, DataCorrupted, Unavailable and RestartIntensityExceeded, inside exception groups.
    """
    if config.kafka.brokers:
        from spanloom.app.cluster import run_cluster  # its clients are an extra: the embedded deployment needs none

        await run_cluster(config, roles, task_status=task_status)
    else:
        await run_embedded(config, task_status=task_status)
