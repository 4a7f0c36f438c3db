"""The decision log's records: their bytes, and which of them count.

Every record, little endian (format version 2):

    0  u8   format version     4  u32  partition     16  u32  CRC-32 of the record with this field zero
    1  u8   kind               8  u64  epoch         20  body
    2  u16  zero

    FENCE       16 B owner, u64 committed offset
    DECIDE      u32 count, then that many entries (below)
    TICK        u64 spans offset, u64 stream time in ns
    CONFIG      u64 spans offset, u32 version, policies as canonical JSON
    RATE        u64 spans offset, f64 rate, u8 cause
    SKIP        u64 spans offset, reason as UTF-8
    CHECKPOINT  u64 spans offset, u32 length, tally as u64 each, sampler state
    PROBE       u64 spans offset, 2^64 - 1 for none

A DECIDE entry: u8 verdict, u8 trigger, u8 policy, u8 flags, u32 policy version, u64 votes, u64 threshold,
16 B trace id, u64 first offset, u64 cut, u64 stream time, u64 origin, u64 operation, u64 duration, u64 bytes,
u32 spans, u32 identities, then each identity: 8 B span id, u8 kind, u64 content hash.

A record counts while its epoch is the highest that a FENCE before it has opened; the first FENCE of an epoch wins
(design, section 6). CONFIG, RATE and CHECKPOINT hold for every decision after them in ledger order, because an owner
appends what it has decided before it appends one of them.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from spanloom.core.assembly import TALLY_FIELDS, Tally
from spanloom.errors import DecodeError
from spanloom.model import LEDGER, Decision, Identity, Trigger, Verdict

FORMAT_VERSION = 2
NO_OFFSET = (1 << 64) - 1
_HEADER = struct.Struct("<BBHIQI")
_FENCE = struct.Struct("<16sQ")
_TICK = struct.Struct("<QQ")
_CONFIG = struct.Struct("<QI")
_RATE = struct.Struct("<QdB")
_SKIP = struct.Struct("<Q")
_PROBE = struct.Struct("<Q")
_CHECKPOINT = struct.Struct(f"<QI{len(TALLY_FIELDS)}Q")
COUNT = struct.Struct("<I")
ENTRY = struct.Struct("<BBBBIQQ16sQQQQQQQII")
IDENTITY = struct.Struct("<8sBQ")


@dataclass(frozen=True, slots=True)
class Fence:
    """A new owner's first word."""

    owner: bytes  # 8 bytes of the process, 8 of the assignment
    committed: int


@dataclass(frozen=True, slots=True)
class Decide:
    """A batch of verdicts; `entries` is the body as it stands, decoded only where somebody needs to look."""

    entries: bytes

    @property
    def count(self) -> int:
        """Decisions in it."""
        return int(COUNT.unpack_from(self.entries)[0])


@dataclass(frozen=True, slots=True)
class Tick:
    """Stream time of an idle partition, to be applied at a spans offset."""

    offset: int
    stream_ns: int


@dataclass(frozen=True, slots=True)
class Config:
    """The policies from here on."""

    offset: int
    version: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Rate:
    """The factor by which load bends the probabilities from here on."""

    offset: int
    rate: float
    cause: int


@dataclass(frozen=True, slots=True)
class Skip:
    """A spans record that is in the dead-letter topic."""

    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The fold up to here, so that a reader may start here."""

    offset: int
    tally: Tally
    sampler: bytes


@dataclass(frozen=True, slots=True)
class Probe:
    """The spans record that is fed next, by an owner that fears it dies of it; NO_OFFSET: the last one was survived."""

    offset: int


Entry = Fence | Decide | Tick | Config | Rate | Skip | Checkpoint | Probe
_KINDS: dict[type, int] = {Fence: 1, Decide: 2, Tick: 3, Config: 4, Rate: 5, Skip: 6, Checkpoint: 7, Probe: 8}


def encode(partition: int, epoch: int, entry: Entry) -> bytes:
    """The ledger record of *entry*."""
    match entry:
        case Fence(owner, committed):
            body = _FENCE.pack(owner, committed)
        case Decide(entries):
            body = entries
        case Tick(offset, stream_ns):
            body = _TICK.pack(offset, stream_ns)
        case Config(offset, version, policies):
            body = _CONFIG.pack(offset, version) + policies
        case Rate(offset, rate, cause):
            body = _RATE.pack(offset, rate, cause)
        case Skip(offset, reason):
            body = _SKIP.pack(offset) + reason.encode()
        case Checkpoint(offset, tally, sampler):
            body = _CHECKPOINT.pack(offset, len(sampler), *tally.values()) + sampler
        case Probe(offset):
            body = _PROBE.pack(offset)
    head = (FORMAT_VERSION, _KINDS[type(entry)], 0, partition, epoch)
    crc = zlib.crc32(body, zlib.crc32(_HEADER.pack(*head, 0)))
    return _HEADER.pack(*head, crc) + body


def decode(body: bytes, *, partition: int, position: int) -> tuple[int, Entry]:
    """Epoch and entry of a ledger record. Raises DecodeError: a ledger that cannot be read must not be guessed at."""

    def fault(reason: str, expected: str, found: str) -> DecodeError:
        return DecodeError(reason, expected, found, topic=LEDGER, partition=partition, offset=position)

    if len(body) < _HEADER.size:
        raise fault("truncated", f"at least {_HEADER.size} bytes", str(len(body)))
    version, kind, zero, written_partition, epoch, crc = _HEADER.unpack_from(body)
    if version != FORMAT_VERSION:
        raise fault("version", f"format version {FORMAT_VERSION}", str(version))
    rest = body[_HEADER.size :]
    actual = zlib.crc32(rest, zlib.crc32(_HEADER.pack(version, kind, zero, written_partition, epoch, 0)))
    if actual != crc:
        raise fault("checksum", f"{crc:08x}", f"{actual:08x}")
    if written_partition != partition:
        raise fault("partition", str(partition), str(written_partition))
    try:
        return epoch, _decode_entry(kind, rest)
    except (struct.error, UnicodeDecodeError, KeyError) as exc:
        raise fault("body", f"a body of kind {kind}", str(exc)) from exc


def _decode_entry(kind: int, body: bytes) -> Entry:
    match kind:
        case 1:
            return Fence(*_FENCE.unpack(body))
        case 2:
            return Decide(body)
        case 3:
            return Tick(*_TICK.unpack(body))
        case 4:
            offset, version = _CONFIG.unpack_from(body)
            return Config(offset, version, body[_CONFIG.size :])
        case 5:
            return Rate(*_RATE.unpack(body))
        case 6:
            (offset,) = _SKIP.unpack_from(body)
            return Skip(offset, body[_SKIP.size :].decode())
        case 7:
            offset, size, *counts = _CHECKPOINT.unpack_from(body)
            sampler = body[_CHECKPOINT.size :]
            if len(sampler) != size:
                raise struct.error(f"{size} bytes of sampler state expected, {len(sampler)} found")
            return Checkpoint(offset, Tally(*counts), sampler)
        case 8:
            return Probe(*_PROBE.unpack(body))
    raise KeyError(f"kind {kind}")


def encode_decision(decision: Decision) -> bytes:
    """One entry of a DECIDE record."""
    d = decision
    head = ENTRY.pack(
        d.verdict, d.trigger, d.policy, d.flags, d.policy_version, d.votes, d.threshold, d.trace_id, d.first, d.cut,
        d.stream_ns, d.origin_ns, d.operation, d.duration_ns, d.size_bytes, d.span_count, len(d.identities),
    )  # fmt: skip
    return head + b"".join(IDENTITY.pack(*identity) for identity in d.identities)


def decode_decisions(entries: bytes) -> Iterator[Decision]:
    """The decisions of a DECIDE body, in order. Raises struct.error where it is cut short."""
    (count,) = COUNT.unpack_from(entries)
    at = COUNT.size
    for _ in range(count):
        *head, spans, identities = ENTRY.unpack_from(entries, at)
        verdict, trigger, policy, flags, version, votes, threshold, trace_id = head[:8]
        first, cut, stream_ns, origin_ns, operation, duration_ns, size_bytes = head[8:]
        at += ENTRY.size
        end = at + identities * IDENTITY.size
        yield Decision(
            trace_id=trace_id,
            verdict=Verdict(verdict),
            trigger=Trigger(trigger),
            policy=policy,
            policy_version=version,
            votes=votes,
            threshold=threshold,
            flags=flags,
            first=first,
            cut=cut,
            stream_ns=stream_ns,
            origin_ns=origin_ns,
            operation=operation,
            duration_ns=duration_ns,
            span_count=spans,
            size_bytes=size_bytes,
            identities=tuple(Identity(*fields) for fields in IDENTITY.iter_unpack(entries[at:end])),
        )
        at = end


def chunk_decisions(encoded: list[bytes], bytes_max: int) -> tuple[bytes, ...]:
    """DECIDE bodies of about *bytes_max* each, in order; an entry larger than that has one to itself."""
    chunks, chunk, size = [], [b""], 0
    for entry in encoded:
        if size and size + len(entry) > bytes_max:
            chunk[0] = COUNT.pack(len(chunk) - 1)
            chunks.append(b"".join(chunk))
            chunk, size = [b""], 0
        chunk.append(entry)
        size += len(entry)
    if size:
        chunk[0] = COUNT.pack(len(chunk) - 1)
        chunks.append(b"".join(chunk))
    return tuple(chunks)
