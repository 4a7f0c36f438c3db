/* What the spans of a trace answer to the predicates of a program (predicates.h). */
#ifndef SPANLOOM_ANSWERS_H
#define SPANLOOM_ANSWERS_H

#include <stdbool.h>
#include <stdint.h>

#define SL_PREDICATES_MAX 256
#define SL_BITS_WORDS (SL_PREDICATES_MAX / 64)

/* A set of predicates. */
typedef struct {
    uint64_t words[SL_BITS_WORDS];
} sl_bits;

static inline void sl_bits_add(sl_bits *to, const sl_bits *more) {
    for (int i = 0; i < SL_BITS_WORDS; i++) to->words[i] |= more->words[i];
}

static inline void sl_bits_set(sl_bits *to, uint32_t bit) { to->words[bit >> 6] |= (uint64_t)1 << (bit & 63); }

static inline bool sl_bits_has(const sl_bits *bits, uint32_t bit) { return bits->words[bit >> 6] >> (bit & 63) & 1; }

/* Whether *all* has each of *some*. */
static inline bool sl_bits_within(const sl_bits *some, const sl_bits *all) {
    uint64_t missing = 0;
    for (int i = 0; i < SL_BITS_WORDS; i++) missing |= some->words[i] & ~all->words[i];
    return !missing;
}

/* So far, of the spans in order of arrival. */
typedef struct {
    sl_bits matched;           /* held for a span */
    uint64_t start_ns, end_ns; /* how long it lasts by the Collector's rule: 0 gives way to whatever comes next */
    uint64_t rv;               /* the first well-formed `rv` of a tracestate... */
    bool has_rv;               /* ...where there was one and somebody asks */
} sl_answers;

#endif
