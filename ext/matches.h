/*
 * Which patterns a text matches. Patterns and globs are Python's to match (RE2, fnmatch): what it said is remembered,
 * in sets of SL_MATCHES_WAYS by a keyed hash, where the text asked for longest ago makes room. A group of patterns is
 * asked about together: those on one attribute, or all service globs.
 */
#ifndef SPANLOOM_MATCHES_H
#define SPANLOOM_MATCHES_H

#include "answers.h"
#include "siphash.h"
#include "wire.h"

#define SL_MATCHES_WAYS 4
#define SL_MATCHES_SETS 1024   /* a power of two; with the ways some thousand texts, more than a fleet has services */
#define SL_MATCH_BYTES_MAX 256 /* a longer text is asked about every time */

/* Answers which predicates of a group match a text; SL_OK, or SL_NO_MEMORY where it cannot. May take the GIL. */
typedef int (*sl_matcher)(void *context, uint32_t group, const uint8_t *text, size_t size, sl_bits *matches);

typedef struct {
    uint64_t hash;
    sl_bits bits;
    uint32_t group, size;
    uint8_t text[];
} sl_match;

typedef struct {
    sl_match **slots; /* owned, and what they point to: of each set the latest first; NULL before the first text */
    sl_matcher matcher;
    void *context; /* borrowed */
} sl_matches;

static inline void sl_matches_free(sl_matches *matches) {
    for (size_t i = 0; matches->slots && i < SL_MATCHES_SETS * SL_MATCHES_WAYS; i++) free(matches->slots[i]);
    free(matches->slots);
    matches->slots = NULL;
}

static inline bool sl_is_match_of(const sl_match *match, uint64_t hash, uint32_t group, sl_slice text) {
    if (!match || match->hash != hash || match->group != group || match->size != text.size) return false;
    return !text.size || !memcmp(match->text, text.at, text.size);
}

/* Ask, and remember in place of *old*. */
static inline sl_match *sl_match_new(const sl_matches *matches, uint64_t hash, uint32_t group, sl_slice text) {
    sl_match *match = sl_alloc(sizeof *match + text.size);
    if (!match) return NULL;
    *match = (sl_match){.hash = hash, .group = group, .size = (uint32_t)text.size};
    if (text.size) memcpy(match->text, text.at, text.size);
    if (!matches->matcher(matches->context, group, text.at, text.size, &match->bits)) return match;
    free(match);
    return NULL;
}

/* The predicates of *group* that match *text*. */
static inline int sl_matches_of(sl_matches *matches, const sl_key *key, uint32_t group, sl_slice text, sl_bits *bits) {
    if (text.size > SL_MATCH_BYTES_MAX) return matches->matcher(matches->context, group, text.at, text.size, bits);
    if (!matches->slots) matches->slots = sl_alloc_zeroed(SL_MATCHES_SETS * SL_MATCHES_WAYS, sizeof *matches->slots);
    if (!matches->slots) return SL_NO_MEMORY;
    sl_key own = {key->k0 ^ group, key->k1};
    uint64_t hash = sl_siphash_bytes(&own, text.at, text.size);
    sl_match **set = &matches->slots[(hash & (SL_MATCHES_SETS - 1)) * SL_MATCHES_WAYS];
    int way = 0;
    while (way < SL_MATCHES_WAYS && !sl_is_match_of(set[way], hash, group, text)) way++;
    sl_match *match = way < SL_MATCHES_WAYS ? set[way] : sl_match_new(matches, hash, group, text);
    if (!match) return SL_NO_MEMORY;
    if (way == SL_MATCHES_WAYS) free(set[--way]);
    for (; way; way--) set[way] = set[way - 1];
    set[0] = match;
    *bits = match->bits;
    return SL_OK;
}

#endif
