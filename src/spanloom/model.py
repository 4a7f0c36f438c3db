"""The nouns of spanloom, each defined once: records, spans, decisions, fragments, documents.

Ids are bytes inside (16 for a trace, 8 for a span) and lower-case hex at every edge. Times end in their unit.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

SPANS = "spans"
TRACES_COMPLETE = "traces-complete"
SAMPLING_DECISIONS = "sampling-decisions"
DEAD_LETTERS = "spans-dead-letter"
LEDGER = "spanloom-ledger"
POLICIES = "spanloom-policies"

MOVED_HEADER = "moved"  # on a span produced again to the partition its trace id names

AttributeValue = str | bool | int | float | bytes | list["AttributeValue"] | dict[str, "AttributeValue"] | None


class Record(NamedTuple):
    """One record as a partition log gives it back."""

    offset: int
    timestamp_ms: int  # the log's append time
    key: bytes | None
    value: bytes  # OTLP protobuf TracesData
    headers: tuple[tuple[str, bytes], ...] = ()


class Message(NamedTuple):
    """A record on its way to a topic that has no offset yet."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


class Committed(NamedTuple):
    """Where a partition goes on after a restart: the offset and, in the same write, what recovery needs."""

    offset: int
    metadata: bytes


class LedgerRecord(NamedTuple):
    """One ledger record as it is read back; `position` is its offset in the ledger partition."""

    position: int
    body: bytes


class PolicyVersion(NamedTuple):
    """One version of the sampling policies, as the log of versions has it."""

    version: int
    body: bytes  # canonical JSON: PolicySet.body
    author: str
    written_unix_ms: int
    comment: str
    mark: str  # of this record alone: two that write one version are told apart by it


@dataclass(frozen=True, slots=True)
class Assigned:
    """The group gives us these partitions, beside those we have."""

    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Revoked:
    """The group wants these back; nobody else has them before we acknowledge."""

    partitions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """These are others' already: we were away for too long."""

    partitions: tuple[int, ...]


PartitionChange = Assigned | Revoked | Lost


class Verdict(IntEnum):
    """What was decided of a fragment. LATE_ERROR: its trace was dropped, but these late spans are errors: kept."""

    DROP = 0
    KEEP = 1
    LATE_ERROR = 2


class Trigger(IntEnum):
    """Why a trace was decided when it was (design, section 5)."""

    COMPLETE = 0
    IDLE = 1
    AGE = 2
    SIZE = 3
    PRESSURE = 4


class SpanKind(IntEnum):
    """OTLP's span kinds."""

    UNSPECIFIED = 0
    INTERNAL = 1
    SERVER = 2
    CLIENT = 3
    PRODUCER = 4
    CONSUMER = 5


class Identity(NamedTuple):
    """What makes two spans of one trace the same span (design, section 4)."""

    span_id: bytes
    kind: int
    content: int  # XXH64, seed 0, of the span's protobuf bytes


THRESHOLD_UNKNOWN = 1 << 56  # one above the highest sampling threshold: the adjusted count is not known


@dataclass(frozen=True, slots=True)
class Decision:
    """One entry of a DECIDE record: a fragment's verdict and all that explains it."""

    trace_id: bytes
    verdict: Verdict
    trigger: Trigger
    policy: int  # index of the deciding policy in its version's list, NO_POLICY if none voted
    policy_version: int
    votes: int  # bit i: policy i spoke; those above the policies say which inner rates were charged (program.py)
    threshold: int  # 0 .. 2^56 - 1 (OpenTelemetry consistent sampling), or THRESHOLD_UNKNOWN
    flags: int  # FLAG_*
    first: int  # offset of the fragment's first span
    cut: int  # offset of its last span, duplicates included
    stream_ns: int  # stream time of the decision
    origin_ns: int  # stream time of the first decision of this life of the trace: names the day it is stored under
    operation: int  # XXH64 of service, 0x1f, span name: of the root, else of the earliest span
    duration_ns: int  # max end - min start over the fragment's spans
    span_count: int
    size_bytes: int = 0  # of its TracesData, as it is stored
    identities: tuple[Identity, ...] = ()  # of kept fragments only


NO_POLICY = 255
FLAG_LATE = 1  # a further fragment of a trace already decided
FLAG_ROOT = 2  # holds a root span
FLAG_ERROR = 4  # holds a span whose status is ERROR
FLAG_CONFLICTING = 8  # holds two spans of one id and kind with different content
FLAG_ORPHANS = 16  # a span's parent is not among the fragment's spans


@dataclass(frozen=True, slots=True)
class Fragment:
    """A kept fragment on its way to the store. `spans` is OTLP TracesData, the same bytes whoever builds it.

    Its decision is without the identities: the ledger has them, and the spans say them.
    """

    decision: Decision
    spans: bytes


@dataclass(frozen=True, slots=True)
class Span:
    """One decoded span, as queries and the JSON codecs see it; the hot path never makes one."""

    trace_id: bytes
    span_id: bytes
    parent_span_id: bytes  # empty for a root
    service: str
    name: str
    kind: int
    start_unix_ns: int
    end_unix_ns: int
    error: bool
    attributes: dict[str, AttributeValue] = field(default_factory=dict)
    resource: dict[str, AttributeValue] = field(default_factory=dict)
    status_message: str = ""
    events: tuple[dict[str, AttributeValue], ...] = ()
    content: int = 0  # a hash, the same whatever `th` it was stored with
    undecodable: str = ""  # why the span's body could not be read; ids and times are still right
    trace_state: str = ""  # W3C's, as it is stored


@dataclass(frozen=True, slots=True)
class Document:
    """What the store keeps of one fragment: summary fields that can be searched, and the span bytes as they are.

    `id` names the bytes: trace id, log incarnation, partition and first offset, joined by dots. A store that already
    has the id has the document.
    """

    id: str
    trace_id: str  # 32 lower-case hex digits
    day: str  # YYYY.MM.DD, UTC, of the life's first decision
    root_service: str
    root_operation: str
    services: tuple[str, ...]
    operations: tuple[str, ...]  # service, 0x1f, span name
    start_unix_ns: int
    duration_ns: int
    root_duration_ns: int
    span_count: int
    error_count: int
    attributes: dict[str, str]  # flattened, bounded
    verdict: dict[str, AttributeValue]  # policy, version, trigger, threshold, votes, offsets, flags
    spans: bytes  # OTLP TracesData


class HttpRequest(NamedTuple):
    """A whole request; `headers` names are lower case, `path` is percent-decoded, `query` keeps the last of a name."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class HttpResponse(NamedTuple):
    """A whole response; the server adds Content-Length and Date."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
