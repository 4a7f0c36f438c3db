"""Native twin of spanloom.core._pure.hashes: the same functions, the same results."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "hashes.h" nogil:
    uint32_t sl_murmur2(const uint8_t *data, size_t length) noexcept
    uint32_t sl_murmur3_x86_32(const uint8_t *data, size_t length) noexcept
    uint32_t sl_fnv1a_32(const uint8_t *data, size_t length) noexcept
    uint64_t sl_fnv1a_64(const uint8_t *data, size_t length) noexcept
    uint64_t sl_xxh64(const uint8_t *data, size_t length) noexcept


def murmur2(bytes data not None):
    return sl_murmur2(<const uint8_t *><const char *>data, len(data))


def murmur3_x86_32(bytes data not None):
    return sl_murmur3_x86_32(<const uint8_t *><const char *>data, len(data))


def fnv1a_32(bytes data not None):
    return sl_fnv1a_32(<const uint8_t *><const char *>data, len(data))


def fnv1a_64(bytes data not None):
    return sl_fnv1a_64(<const uint8_t *><const char *>data, len(data))


def content_hash(bytes data not None):
    return sl_xxh64(<const uint8_t *><const char *>data, len(data))
