"""Every error spanloom raises on purpose. The class says what the handler does next; the fields carry the facts."""

from dataclasses import dataclass


class SpanloomError(Exception):
    """Root of the tree; never raised itself."""


class ConfigError(SpanloomError):
    """The operator must act: the message names the key, the value given and the values accepted. Exit status 2."""


class PolicyRefused(ConfigError):
    """A sampling policy that cannot be run. `path` leads to it: its index in the list, then keys and indices."""

    def __init__(self, message: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


@dataclass(slots=True)
class DecodeError(SpanloomError):
    """Bytes that are not what they claim to be: counted, dead-lettered or answered with 400, never fatal.

    `position` counts bytes from the start of the record (or characters of a JSON text, -1 where it has none).
    `topic`, `partition` and `offset` say where the record lay, where it lay anywhere.
    """

    reason: str  # one word, for counting: `truncated`, `trace_id`, ...
    expected: str
    found: str
    position: int = -1
    topic: str = ""
    partition: int = -1
    offset: int = -1

    def __str__(self) -> str:
        where = f" at byte {self.position}" if self.position >= 0 else ""
        record = f" in {self.topic}/{self.partition}@{self.offset}" if self.topic else ""
        return f"{self.reason}{record}{where}: expected {self.expected}, found {self.found}"


class Unavailable(SpanloomError):
    """Something outside is away. Wait and retry; whether the last write was applied is not known."""


class SourceUnavailable(Unavailable):
    """The partition log cannot be read, appended to or committed to now."""


class LedgerUnavailable(Unavailable):
    """The ledger cannot be read or appended to now; an append may have been applied (design, section 6)."""


class PoliciesUnavailable(Unavailable):
    """The versions of the policies cannot be read or appended to now; an append may have been applied."""


class StoreUnavailable(Unavailable):
    """The trace store refuses or does not answer now."""


class OutletUnavailable(Unavailable):
    """`traces-complete`, `sampling-decisions` or the dead letters cannot be appended to now."""


class CacheUnavailable(Unavailable):
    """The cache is away: go on without it."""


class Overloaded(Unavailable):
    """Our own bound is reached: the caller is asked to come back later (HTTP 503, Retry-After)."""


@dataclass(slots=True)
class StoreRejected(SpanloomError):
    """A document the store will never accept, however often it is sent: dead-letter it."""

    document_id: str
    reason: str

    def __str__(self) -> str:
        return f"the store rejected {self.document_id}: {self.reason}"


@dataclass(slots=True)
class RecordsDeleted(SpanloomError):
    """Retention deleted the records between `wanted` and `earliest`: account the gap, go on from `earliest`."""

    partition: int
    wanted: int
    earliest: int

    def __str__(self) -> str:
        return f"partition {self.partition}: offset {self.wanted} is gone, the earliest is {self.earliest}"


@dataclass(slots=True)
class DataCorrupted(SpanloomError):
    """A file of the data folder holds what was never written there: no retry mends it, an operator must look."""

    file: str
    what: str  # where in the file, what was expected and what was found

    def __str__(self) -> str:
        return f"{self.file} is damaged: {self.what}"


class Fenced(SpanloomError):
    """A newer owner has fenced this partition off: stop at once, no further effect."""


class RestartIntensityExceeded(SpanloomError):
    """A supervisor's restart budget is spent: its parent decides."""
