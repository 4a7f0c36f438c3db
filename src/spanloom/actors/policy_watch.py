"""The policies of this process: read before anything is judged, then followed as versions come.

The log of versions is the one source. Where it is empty, a start writes its own policies as version 1; of several that
start at once the first in the log counts, and everybody follows it. From then on what a process has in its own
configuration counts for nothing; `spanloom sampling apply` writes the next version.
"""

from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from spanloom.actors.context import Orders
from spanloom.actors.patience import patiently
from spanloom.errors import ConfigError, PoliciesUnavailable
from spanloom.interfaces import PolicyLog
from spanloom.model import PolicyVersion

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

LOOK_S = 1.0  # how soon a version that only a ledger knows is looked into
TRIES_MAX = 100  # of a write that others overtake each time


@dataclass(frozen=True, slots=True)
class Author:
    """Who writes versions from here, and with what clock and dice."""

    name: str
    unix_s: Callable[[], float]
    uuid: Callable[[], bytes]

    def write(self, version: int, body: bytes, comment: str) -> PolicyVersion:
        """A version to be appended."""
        return PolicyVersion(version, body, self.name, round(self.unix_s() * 1000), comment, self.uuid().hex())


async def write_version(policy_log: PolicyLog, body: bytes, comment: str, *, author: Author, above: int = 0) -> int:
    """Write *body* as the next version, whoever else writes meanwhile; which it became. Raises PoliciesUnavailable."""
    for _ in range(TRIES_MAX):
        versions = await policy_log.read()
        ours = author.write(max([above, *(one.version for one in versions)]) + 1, body, comment)
        await policy_log.append(ours)
        if any(one.mark == ours.mark for one in await policy_log.read()):
            return ours.version
    raise PoliciesUnavailable(f"others were faster {TRIES_MAX} times")


async def settle_policies(policy_log: PolicyLog, orders: Orders, author: Author) -> None:
    """Let *orders* have the highest version; theirs becomes the first if there is none.

    Raises PoliciesUnavailable; ConfigError for a version that cannot be read.
    """
    versions = await policy_log.read()
    own = orders.policies.body
    if not versions:
        await policy_log.append(author.write(1, own, "the configuration of a first start"))
        versions = await policy_log.read()
    for written in versions:
        orders.versions[written.version] = written
    orders.adopt(versions[-1])
    if orders.policies.body != own:
        hint = "`spanloom sampling apply` makes a file the next version"
        log.warning("policies differ from the configuration", version=orders.policies.version, hint=hint)


async def watch_policies(
    policy_log: PolicyLog,
    orders: Orders,
    author: Author,
    *,
    draw: Callable[[], float],
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Follow the versions for ever. One that cannot be read is not followed: an operator must look."""
    task_status.started()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_mend, policy_log, orders, author)
        while True:
            versions = await patiently(
                lambda: policy_log.next_after(max([orders.policies.version, *orders.versions])),
                draw=draw,
                partition=-1,
                what="policies",
            )
            for written in versions:
                _follow(orders, written)


def _follow(orders: Orders, written: PolicyVersion) -> None:
    orders.versions[written.version] = written
    try:
        orders.adopt(written)
    except ConfigError as exc:
        log.error("policies cannot be followed", version=written.version, why=str(exc))
    else:
        log.info("policies", version=written.version, author=written.author, comment=written.comment)


async def _mend(policy_log: PolicyLog, orders: Orders, author: Author) -> None:
    """Lift the versions above one that a ledger has and they have not: they were lost, or begun anew."""
    while True:
        await trio.sleep(LOOK_S)
        strange, orders.strange = orders.strange, None
        if strange is None:
            continue
        try:
            versions = {one.version: one.body for one in await policy_log.read()}
            highest = max(versions, default=0)
            if highest <= strange.version and versions.get(strange.version) != strange.body:
                comment = f"version {strange.version} stands in a ledger, with other policies"
                body = versions.get(highest, orders.policies.body)
                await write_version(policy_log, body, comment, author=author, above=strange.version)
        except PoliciesUnavailable as exc:
            log.warning("policies cannot be mended now", why=str(exc))
