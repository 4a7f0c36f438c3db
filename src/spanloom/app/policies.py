"""The policies of a node: what is in force, what follows it, and what bends it under load."""

import getpass
import os
import random
import socket
import time
import uuid
from functools import partial

from spanloom.actors.context import Orders
from spanloom.actors.policy_watch import Author, settle_policies, watch_policies
from spanloom.actors.rate_watch import watch_rate
from spanloom.actors.supervisor import ChildSpec
from spanloom.adapters.machine import LoadMeter
from spanloom.config import Config
from spanloom.core.sampling.adaptive import BendRule, Cause
from spanloom.interfaces import PolicyLog


def this_author() -> Author:
    """Whoever runs this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user that no table names
        user = str(os.getuid())
    return Author(f"{user}@{socket.gethostname()}", time.time, lambda: uuid.uuid4().bytes)


async def start_policies(policy_log: PolicyLog, orders: Orders) -> ChildSpec:
    """Let *orders* have what is in force; what follows it from then on. Raises PoliciesUnavailable, ConfigError."""
    author = this_author()
    await settle_policies(policy_log, orders, author)
    return ChildSpec("policies", partial(watch_policies, policy_log, orders, author, draw=random.random))


def rate_watch(config: Config, orders: Orders) -> list[ChildSpec]:
    """What bends the policies under load, where that is wanted."""
    adaptive = config.sampling.adaptive
    if adaptive == "off":
        return []
    causes = frozenset(Cause) if adaptive == "both" else frozenset({Cause(adaptive)})
    return [ChildSpec("rate", partial(watch_rate, BendRule(causes), LoadMeter().measure, orders))]
