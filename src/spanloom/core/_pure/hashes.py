"""The public hashes: bytes in, an unsigned integer out; the specification of `ext/hashes.h`.

None is keyed, and each has one job: murmur2 (and, for foreign topics, fnv1a_32 and murmur3_x86_32) places a key in a
partition, fnv1a_64 is the OpenTelemetry Collector's salted sampling hash, content_hash tells a span's content.
"""

import xxhash

_MASK_32 = 0xFFFF_FFFF
_MASK_64 = 0xFFFF_FFFF_FFFF_FFFF


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Apache Kafka's Java client has it (`org.apache.kafka.common.utils.Utils.murmur2`): 32 bits."""
    m = 0x5BD1_E995
    h = 0x9747_B28C ^ len(data)
    words = len(data) & ~3
    for at in range(0, words, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & _MASK_32
        k ^= k >> 24
        h = (h * m ^ k * m) & _MASK_32
    if words < len(data):
        h = (h ^ int.from_bytes(data[words:], "little")) * m & _MASK_32
    h ^= h >> 13
    h = h * m & _MASK_32
    return h ^ h >> 15


def murmur3_x86_32(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0 (Austin Appleby's smhasher; the `mmh3` package agrees): 32 bits."""
    h = 0
    words = len(data) & ~3
    for at in range(0, words, 4):
        h ^= _murmur3_word(data[at : at + 4])
        h = ((h << 13 | h >> 19) * 5 + 0xE654_6B64) & _MASK_32
    h ^= _murmur3_word(data[words:]) ^ len(data)
    h = (h ^ h >> 16) * 0x85EB_CA6B & _MASK_32
    h = (h ^ h >> 13) * 0xC2B2_AE35 & _MASK_32
    return h ^ h >> 16


def _murmur3_word(data: bytes) -> int:
    """Scramble up to four bytes; none give 0."""
    k = int.from_bytes(data, "little") * 0xCC9E_2D51 & _MASK_32
    return (k << 15 | k >> 17) * 0x1B87_3593 & _MASK_32


def fnv1a_32(data: bytes) -> int:
    """FNV-1a, 32 bits (RFC 9923; Go's `hash/fnv`, which Sarama's partitioner uses)."""
    h = 0x811C_9DC5
    for byte in data:
        h = (h ^ byte) * 0x0100_0193 & _MASK_32
    return h


def fnv1a_64(data: bytes) -> int:
    """FNV-1a, 64 bits (RFC 9923; Go's `hash/fnv`, which the OpenTelemetry Collector's tail sampling uses)."""
    h = 0xCBF2_9CE4_8422_2325
    for byte in data:
        h = (h ^ byte) * 0x0000_0100_0000_01B3 & _MASK_64
    return h


def content_hash(data: bytes) -> int:
    """XXH64 with seed 0 (the xxHash specification): 64 bits; the hash of a span's bytes that the ledger carries."""
    return xxhash.xxh64_intdigest(data)
