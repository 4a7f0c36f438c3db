"""The committed offsets of a group, whichever client carries them: only of what is ours, never back, many at once."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from spanloom.adapters.coalescer import Coalescer
from spanloom.adapters.kafka.handle import Place
from spanloom.errors import DecodeError, Fenced, SourceUnavailable
from spanloom.model import Committed

# The broker's default limit is 4096 (`offset.metadata.max.bytes`); ours is in Base64, and ends with a zero byte:
# the Python client adds one, and reads as far as the next one.
METADATA_BYTES_MAX = (4096 - 1) // 4 * 3
END = b"\0"
COMMIT_S = 5.0  # then the commit's fate is not known


@dataclass(frozen=True, slots=True)
class _Commit:
    partition: int
    committed: Committed


class Commits:
    """Asks and sends through its owner's client; both raise SourceUnavailable."""

    def __init__(
        self,
        topic: str,
        *,
        ask: Callable[[int], Awaitable[Place]],
        send: Callable[[Sequence[Place]], Awaitable[None]],
    ) -> None:
        self.is_joined = False  # else nobody shares the partitions with us
        self.mine: set[int] = set()
        self._topic = topic
        self._ask = ask
        self._send = send
        self._last: dict[int, int] = {}  # the highest offset known to be committed
        self._waiting: Coalescer[_Commit] = Coalescer(self._flush, SourceUnavailable)

    def took(self, partitions: Iterable[int]) -> None:
        """They are ours; others may have committed since they were."""
        for number in partitions:
            self._last.pop(number, None)
            self.mine.add(number)

    def gave(self, partitions: Iterable[int]) -> None:
        """They are ours no longer."""
        self.mine -= set(partitions)

    async def committed(self, partition: int) -> Committed | None:
        """The last commit, or None. Raises SourceUnavailable."""
        found = await self._ask(partition)
        if found.offset < 0:
            return None
        self._last[partition] = max(self._last.get(partition, 0), found.offset)
        try:
            return Committed(found.offset, base64.b64decode(found.metadata.rstrip(END), validate=True))
        except binascii.Error as exc:
            raise DecodeError(
                "metadata",
                "commit metadata in Base64",
                repr(found.metadata),
                topic=self._topic,
                partition=partition,
                offset=found.offset,
            ) from exc

    async def commit(self, partition: int, committed: Committed) -> None:
        """Commit, together with who else does. Raises SourceUnavailable, Fenced."""
        assert len(committed.metadata) <= METADATA_BYTES_MAX, len(committed.metadata)
        self._check_mine(partition)
        if partition not in self._last:
            await self.committed(partition)
        await self._waiting.submit(_Commit(partition, committed), size_bytes=len(committed.metadata))
        self._check_mine(partition)

    def _check_mine(self, partition: int) -> None:
        if self.is_joined and partition not in self.mine:
            raise Fenced(f"partition {partition} is no longer ours: the group gave it away")

    async def _flush(self, commits: Sequence[_Commit]) -> None:
        """Commit each partition's furthest offset; not of those that went away meanwhile."""
        furthest = self._furthest(commits)
        if furthest:
            await self._send(
                [
                    Place(self._topic, partition, one.offset, base64.b64encode(one.metadata) + END)
                    for partition, one in furthest.items()
                ]
            )
            self._last |= {partition: one.offset for partition, one in furthest.items()}

    def _furthest(self, commits: Sequence[_Commit]) -> dict[int, Committed]:
        furthest: dict[int, Committed] = {}
        for partition, committed in ((commit.partition, commit.committed) for commit in commits):
            known = furthest[partition].offset if partition in furthest else self._last.get(partition, 0)
            is_ours = partition in self.mine or not self.is_joined
            if is_ours and committed.offset >= known:
                furthest[partition] = committed
        return furthest
