/*
 * SipHash-1-3 (Aumasson, Bernstein: SipHash, a fast short-input PRF), for hash tables whose keys a sender chooses. The
 * key is drawn anew by every process and leaves it nowhere, so no result may reach a verdict, a record or a file.
 */
#ifndef SPANLOOM_SIPHASH_H
#define SPANLOOM_SIPHASH_H

#include "hashes.h"

typedef struct {
    uint64_t k0, k1;
} sl_key;

typedef struct {
    uint64_t v0, v1, v2, v3;
} sl_sip;

static inline sl_sip sl_sip_start(const sl_key *key) {
    return (sl_sip){key->k0 ^ 0x736f6d6570736575u, key->k1 ^ 0x646f72616e646f6du, key->k0 ^ 0x6c7967656e657261u,
                    key->k1 ^ 0x7465646279746573u};
}

static inline void sl_sip_round(sl_sip *s) {
    s->v0 += s->v1;
    s->v1 = sl_rotl64(s->v1, 13) ^ s->v0;
    s->v0 = sl_rotl64(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = sl_rotl64(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = sl_rotl64(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = sl_rotl64(s->v1, 17) ^ s->v2;
    s->v2 = sl_rotl64(s->v2, 32);
}

static inline void sl_sip_word(sl_sip *s, uint64_t word) {
    s->v3 ^= word;
    sl_sip_round(s);
    s->v0 ^= word;
}

static inline uint64_t sl_sip_end(sl_sip *s, uint64_t last) {
    sl_sip_word(s, last);
    s->v2 ^= 0xff;
    for (int i = 0; i < 3; i++) sl_sip_round(s);
    return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/* Of *count* 64-bit words. */
static inline uint64_t sl_siphash_words(const sl_key *key, const uint64_t *words, size_t count) {
    sl_sip s = sl_sip_start(key);
    for (size_t i = 0; i < count; i++) sl_sip_word(&s, words[i]);
    return sl_sip_end(&s, (uint64_t)(8 * count) << 56);
}

static inline uint64_t sl_siphash_bytes(const sl_key *key, const uint8_t *data, size_t size) {
    sl_sip s = sl_sip_start(key);
    size_t words = size / 8;
    for (size_t i = 0; i < words; i++) sl_sip_word(&s, sl_load64(data + 8 * i));
    uint64_t last = (uint64_t)size << 56;
    for (size_t i = 8 * words; i < size; i++) last |= (uint64_t)data[i] << (8 * (i & 7));
    return sl_sip_end(&s, last);
}

#endif
