/*
 * The public hashes of spanloom, over borrowed bytes. None is keyed: never use one for a hash table whose keys a
 * sender chooses. The twin in src/spanloom/core/_pure/hashes.py is the specification.
 *
 * Every function reads exactly data[0 .. length) and is defined for length 0 (data may then be NULL).
 */
#ifndef SPANLOOM_HASHES_H
#define SPANLOOM_HASHES_H

#include <stddef.h>
#include <stdint.h>

/* Little-endian loads byte by byte: right on any alignment and byte order; compilers make one load of it. */
static inline uint32_t sl_load32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static inline uint64_t sl_load64(const uint8_t *at) {
    return (uint64_t)sl_load32(at) | (uint64_t)sl_load32(at + 4) << 32;
}

static inline uint32_t sl_rotl32(uint32_t x, int bits) { return x << bits | x >> (32 - bits); }

static inline uint64_t sl_rotl64(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }

/* The one to three bytes after the last whole word, as a little-endian number. */
static inline uint32_t sl_tail32(const uint8_t *at, size_t count) {
    uint32_t tail = 0;
    for (size_t i = 0; i < count; i++) tail |= (uint32_t)at[i] << (8 * i);
    return tail;
}

/*
 * MurmurHash2, 32 bits, little-endian, with the seed of Apache Kafka's Java client
 * (org.apache.kafka.common.utils.Utils.murmur2), the hash of its default partitioner.
 */
static inline uint32_t sl_murmur2(const uint8_t *data, size_t length) {
    const uint32_t m = 0x5bd1e995u;
    uint32_t h = 0x9747b28cu ^ (uint32_t)length;
    size_t words = length / 4;
    for (size_t i = 0; i < words; i++) {
        uint32_t k = sl_load32(data + 4 * i) * m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    if (length % 4) h = (h ^ sl_tail32(data + 4 * words, length % 4)) * m;
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}

/* MurmurHash3_x86_32, seed 0 (Austin Appleby, smhasher). */
static inline uint32_t sl_murmur3_x86_32(const uint8_t *data, size_t length) {
    const uint32_t c1 = 0xcc9e2d51u, c2 = 0x1b873593u;
    uint32_t h = 0;
    size_t words = length / 4;
    for (size_t i = 0; i < words; i++) {
        h ^= sl_rotl32(sl_load32(data + 4 * i) * c1, 15) * c2;
        h = sl_rotl32(h, 13) * 5 + 0xe6546b64u;
    }
    if (length % 4) h ^= sl_rotl32(sl_tail32(data + 4 * words, length % 4) * c1, 15) * c2;
    h ^= (uint32_t)length;
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

/* FNV-1a (Fowler, Noll, Vo; RFC 9923), 32 and 64 bits. */
static inline uint32_t sl_fnv1a_32(const uint8_t *data, size_t length) {
    uint32_t h = 0x811c9dc5u;
    for (size_t i = 0; i < length; i++) h = (h ^ data[i]) * 0x01000193u;
    return h;
}

#define SL_FNV1A_64_PRIME 0x00000100000001b3u

static inline uint64_t sl_fnv1a_64(const uint8_t *data, size_t length) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++) h = (h ^ data[i]) * SL_FNV1A_64_PRIME;
    return h;
}

/*
 * XXH64, seed 0 (xxHash fast digest algorithm, section "XXH64 algorithm description"): the hash of a span's content.
 *
 *   length >= 32:  stripes of 32 bytes, one 8-byte lane for each of four accumulators, then merged
 *   the rest:      8-byte lanes, then one 4-byte lane, then single bytes, then the avalanche
 */
#define SL_XXH64_PRIME1 0x9e3779b185ebca87u
#define SL_XXH64_PRIME2 0xc2b2ae3d27d4eb4fu
#define SL_XXH64_PRIME3 0x165667b19e3779f9u
#define SL_XXH64_PRIME4 0x85ebca77c2b2ae63u
#define SL_XXH64_PRIME5 0x27d4eb2f165667c5u

static inline uint64_t sl_xxh64_round(uint64_t accumulator, uint64_t lane) {
    return sl_rotl64(accumulator + lane * SL_XXH64_PRIME2, 31) * SL_XXH64_PRIME1;
}

static inline uint64_t sl_xxh64_merge(uint64_t h, uint64_t accumulator) {
    return (h ^ sl_xxh64_round(0, accumulator)) * SL_XXH64_PRIME1 + SL_XXH64_PRIME4;
}

static inline uint64_t sl_xxh64_stripes(const uint8_t *data, size_t stripes) {
    uint64_t a = SL_XXH64_PRIME1 + SL_XXH64_PRIME2, b = SL_XXH64_PRIME2, c = 0, d = 0 - SL_XXH64_PRIME1;
    for (; stripes; stripes--, data += 32) {
        a = sl_xxh64_round(a, sl_load64(data));
        b = sl_xxh64_round(b, sl_load64(data + 8));
        c = sl_xxh64_round(c, sl_load64(data + 16));
        d = sl_xxh64_round(d, sl_load64(data + 24));
    }
    uint64_t h = sl_rotl64(a, 1) + sl_rotl64(b, 7) + sl_rotl64(c, 12) + sl_rotl64(d, 18);
    return sl_xxh64_merge(sl_xxh64_merge(sl_xxh64_merge(sl_xxh64_merge(h, a), b), c), d);
}

static inline uint64_t sl_xxh64(const uint8_t *data, size_t length) {
    size_t stripes = length / 32, left = length % 32;
    uint64_t h = stripes ? sl_xxh64_stripes(data, stripes) : SL_XXH64_PRIME5;
    if (left) data += 32 * stripes;
    h += length;
    for (; left >= 8; left -= 8, data += 8) {
        h = sl_rotl64(h ^ sl_xxh64_round(0, sl_load64(data)), 27) * SL_XXH64_PRIME1 + SL_XXH64_PRIME4;
    }
    if (left >= 4) {
        h = sl_rotl64(h ^ sl_load32(data) * SL_XXH64_PRIME1, 23) * SL_XXH64_PRIME2 + SL_XXH64_PRIME3;
        left -= 4;
        data += 4;
    }
    for (; left; left--, data++) h = sl_rotl64(h ^ *data * SL_XXH64_PRIME5, 11) * SL_XXH64_PRIME1;
    h = (h ^ h >> 33) * SL_XXH64_PRIME2;
    h = (h ^ h >> 29) * SL_XXH64_PRIME3;
    return h ^ h >> 32;
}

#endif
