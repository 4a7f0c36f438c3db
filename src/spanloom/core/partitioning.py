"""Key -> partition, exactly as the producers of other programs do it: a span must land where its trace is owned.

murmur2 is spanloom's own and Java's default; the others read topics that foreign producers fill.
Sources: Kafka `BuiltInPartitioner.partitionForKey`, librdkafka `rd_kafka_msg_partitioner_murmur2` and `_fnv1a`,
Sarama `hashPartitioner.Partition`.
"""

from enum import StrEnum
from typing import Protocol

from spanloom.core._pure import hashes as pure_hashes


class Partitioner(StrEnum):
    """The hash that places a key."""

    MURMUR2 = "murmur2"  # Java clients; librdkafka `murmur2_random`
    FNV1A = "fnv1a"  # the OpenTelemetry Collector's default (Sarama); librdkafka `fnv1a_random`
    MURMUR3 = "murmur3"  # clients built on mmh3


class PartitionHashes(Protocol):
    """What of a kernel's hashes places keys; the native and the pure module both fit."""

    def murmur2(self, data: bytes, /) -> int: ...
    def fnv1a_32(self, data: bytes, /) -> int: ...
    def murmur3_x86_32(self, data: bytes, /) -> int: ...


def partition_of(
    key: bytes,
    partition_count: int,
    partitioner: Partitioner = Partitioner.MURMUR2,
    *,
    hashes: PartitionHashes = pure_hashes,
) -> int:
    """The partition of *key*, 0 <= partition < partition_count."""
    assert partition_count > 0, f"partition_count must be positive, not {partition_count}"
    match partitioner:
        case Partitioner.MURMUR2:
            return (hashes.murmur2(key) & 0x7FFF_FFFF) % partition_count
        case Partitioner.MURMUR3:
            return (hashes.murmur3_x86_32(key) & 0x7FFF_FFFF) % partition_count
        case Partitioner.FNV1A:
            return _absolute_int32(hashes.fnv1a_32(key)) % partition_count


def _absolute_int32(h: int) -> int:
    """|int32(h)|. C's remainder takes its dividend's sign, so |int32(h) % n| is |int32(h)| % n, for -2^31 too."""
    return h if h < 0x8000_0000 else 0x1_0000_0000 - h
