/*
 * Rates of a sampler: token buckets, and the shares of an EMA throughput policy. The twin of
 * src/spanloom/core/_pure/rates.py, which tells the rules; in integers, wide where a product needs it.
 *
 *   bucket   i64 level, i64 filled_us
 *   shares   u32 operations, i64 generation, then each, in order: u64 operation, u64 average, u64 spans of this
 *            interval, u64 threshold
 */
#ifndef SPANLOOM_RATES_H
#define SPANLOOM_RATES_H

#include "decision.h"

#define SL_US_PER_S 1000000
#define SL_POOLED 0 /* the operation under which those beyond `operations_max` are counted */
#define SL_LEVEL_MAX ((int64_t)1 << 62)
#define SL_LEVEL_MIN (-((int64_t)1 << 62))
#define SL_ONE_BITS 16 /* below one span in an average */
#define SL_QUIET_MAX 64
#define SL_RANDOMNESS_END ((uint64_t)1 << 56)
#define SL_SHARE_BYTES 32

__extension__ typedef __int128 sl_wide;

/* One bucket of one partition; a token is `unit` of its level. */
typedef struct {
    int64_t unit, full, enough, per_second, burst;
    bool by_bytes;
    int64_t level, filled_us;
} sl_token_bucket;

static inline uint32_t sl_isqrt(uint32_t number) {
    uint32_t root = 0;
    while ((uint64_t)(root + 1) * (root + 1) <= number) root++;
    return root;
}

/* A new one; per_second and burst are the fleet's. */
static inline sl_token_bucket sl_token_bucket_new(int64_t per_second, int64_t burst, bool by_bytes,
                                                  uint32_t partition_count) {
    int64_t unit = (int64_t)SL_US_PER_S * partition_count, part = burst * SL_US_PER_S;
    if (burst && part < unit) part = unit;
    sl_wide full = (sl_wide)burst * SL_US_PER_S * sl_isqrt(partition_count);
    if (full < part) full = part;
    if (full > SL_LEVEL_MAX) full = SL_LEVEL_MAX;
    return (sl_token_bucket){.unit = unit, .full = (int64_t)full, .enough = part / partition_count,
                             .per_second = per_second, .burst = burst, .by_bytes = by_bytes, .level = part};
}

static inline uint64_t sl_tokens_of(const sl_token_bucket *bucket, const sl_decision *decision) {
    return bucket->by_bytes ? decision->size_bytes : decision->span_count;
}

static inline int64_t sl_tokens_level(const sl_token_bucket *bucket, int64_t now_us) {
    bool is_new = !bucket->filled_us; /* before the first trace no time passes */
    int64_t elapsed_us = !is_new && now_us > bucket->filled_us ? now_us - bucket->filled_us : 0;
    sl_wide level = bucket->level + (sl_wide)elapsed_us * bucket->per_second;
    return level < bucket->full ? (int64_t)level : bucket->full;
}

/* Charge a trace that is known to have passed. */
static inline void sl_tokens_charge(sl_token_bucket *bucket, const sl_decision *decision) {
    int64_t now_us = decision->stream_ns / 1000;
    sl_wide level = sl_tokens_level(bucket, now_us) - (sl_wide)sl_tokens_of(bucket, decision) * bucket->unit;
    bucket->level = level < SL_LEVEL_MIN ? SL_LEVEL_MIN : (int64_t)level;
    if (now_us > bucket->filled_us) bucket->filled_us = now_us;
}

/* Charge a trace if it may pass; whether it does. */
static inline bool sl_tokens_take(sl_token_bucket *bucket, const sl_decision *decision) {
    uint64_t tokens = sl_tokens_of(bucket, decision);
    if (tokens > (uint64_t)bucket->burst) return false;
    int64_t level = sl_tokens_level(bucket, decision->stream_ns / 1000);
    if (level < bucket->enough && level < (sl_wide)tokens * bucket->unit) return false;
    sl_tokens_charge(bucket, decision);
    return true;
}

/* Shares. */

typedef struct {
    uint64_t operation;
    uint64_t average;   /* spans an interval, SL_ONE_BITS below the point; 0: it has none */
    uint64_t spans;     /* of this interval... */
    uint64_t threshold; /* of those with an average */
    bool is_seen;       /* ...in which it was counted, be it with none */
    bool is_held;       /* the slot is not empty */
} sl_share;

typedef struct {
    uint64_t goal; /* spans an interval, SL_ONE_BITS below the point */
    int64_t interval_ns;
    uint32_t weight;
    uint64_t operations_max;
    int64_t generation;
    sl_share *slots; /* owned: capacity of them, a power of two, half of them empty */
    size_t capacity, count;
} sl_shares;

static inline void sl_shares_free(sl_shares *shares) {
    free(shares->slots);
    shares->slots = NULL;
    shares->capacity = shares->count = 0;
}

static inline sl_share *sl_share_slot(sl_share *slots, size_t capacity, const sl_key *key, uint64_t operation) {
    for (uint64_t at = sl_siphash_words(key, &operation, 1);; at++) {
        sl_share *slot = &slots[at & (capacity - 1)];
        if (!slot->is_held || slot->operation == operation) return slot;
    }
}

/* The operation, or NULL where nothing is known of it. */
static inline sl_share *sl_share_find(const sl_shares *shares, const sl_key *key, uint64_t operation) {
    sl_share *slot = shares->count ? sl_share_slot(shares->slots, shares->capacity, key, operation) : NULL;
    return slot && slot->is_held ? slot : NULL;
}

/* Hold those that are still worth it in *capacity* slots. */
static inline int sl_shares_move(sl_shares *shares, const sl_key *key, size_t capacity) {
    sl_share *slots = sl_alloc_zeroed(capacity, sizeof *slots);
    if (!slots) return SL_NO_MEMORY;
    shares->count = 0;
    for (size_t i = 0; i < shares->capacity; i++) {
        const sl_share *share = &shares->slots[i];
        if (!share->is_held || (!share->average && !share->is_seen)) continue;
        *sl_share_slot(slots, capacity, key, share->operation) = *share;
        shares->count++;
    }
    free(shares->slots);
    shares->slots = slots;
    shares->capacity = capacity;
    return SL_OK;
}

/* The operation, made where it was not there; NULL: no memory. */
static inline sl_share *sl_share_make(sl_shares *shares, const sl_key *key, uint64_t operation) {
    if (2 * (shares->count + 1) > shares->capacity) {
        if (sl_shares_move(shares, key, shares->capacity ? 2 * shares->capacity : 64)) return NULL;
    }
    sl_share *slot = sl_share_slot(shares->slots, shares->capacity, key, operation);
    if (!slot->is_held) {
        *slot = (sl_share){.operation = operation, .is_held = true};
        shares->count++;
    }
    return slot;
}

/* Average the interval's spans in, and begin the next one. */
static inline void sl_shares_average(sl_shares *shares) {
    for (size_t i = 0; i < shares->capacity; i++) {
        sl_share *share = &shares->slots[i];
        sl_wide newest = (sl_wide)share->spans << SL_ONE_BITS;
        sl_wide mixed = (share->average * (sl_wide)(256 - shares->weight) + newest * shares->weight) >> 8;
        share->average = (uint64_t)(share->average ? mixed : newest);
        share->spans = 0;
        share->is_seen = false;
    }
}

static inline int sl_compare_operations_of(const void *left, const void *right) {
    const sl_share *a = *(sl_share *const *)left, *b = *(sl_share *const *)right;
    return (a->operation > b->operation) - (a->operation < b->operation);
}

static inline int sl_compare_averages(const void *left, const void *right) {
    const sl_share *a = *(sl_share *const *)left, *b = *(sl_share *const *)right;
    if (a->average != b->average) return a->average < b->average ? -1 : 1;
    return sl_compare_operations_of(left, right);
}

/* Those held, in order; the caller frees them. NULL: no memory. */
static inline sl_share **sl_shares_sorted(const sl_shares *shares, int (*compare)(const void *, const void *)) {
    sl_share **sorted = sl_alloc((shares->count + 1) * sizeof *sorted);
    size_t count = 0;
    for (size_t i = 0; sorted && i < shares->capacity; i++) {
        if (shares->slots[i].is_held) sorted[count++] = &shares->slots[i];
    }
    if (sorted) qsort(sorted, count, sizeof *sorted, compare);
    return sorted;
}

/* About 64 times the binary logarithm, plus 64. */
static inline uint64_t sl_share_weight(uint64_t average) {
    uint64_t exponent = 63 - (uint64_t)__builtin_clzll(average);
    return (exponent + 1) * 64 + (uint64_t)(((sl_wide)average << 6) >> exponent) - 64;
}

/* Give each operation its part of the goal, the smallest first. All that are held have an average. */
static inline int sl_shares_share_out(sl_shares *shares) {
    sl_share **rising = sl_shares_sorted(shares, sl_compare_averages);
    if (!rising) return SL_NO_MEMORY;
    uint64_t left = shares->goal, weights = 0;
    for (size_t i = 0; i < shares->count; i++) weights += sl_share_weight(rising[i]->average);
    for (size_t i = 0; i < shares->count; i++) {
        uint64_t weight = sl_share_weight(rising[i]->average), average = rising[i]->average;
        uint64_t part = (uint64_t)((sl_wide)left * weight / weights);
        if (part > average) part = average;
        left -= part;
        weights -= weight;
        rising[i]->threshold = SL_RANDOMNESS_END - (uint64_t)((sl_wide)SL_RANDOMNESS_END * part / average);
    }
    free(rising);
    return SL_OK;
}

/* Close the intervals that are over. */
static inline int sl_shares_turn(sl_shares *shares, const sl_key *key, int64_t stream_ns) {
    int64_t generation = stream_ns / shares->interval_ns, passed = generation - shares->generation;
    if (passed <= 0) return SL_OK;
    bool was_quiet = !shares->generation || passed > SL_QUIET_MAX;
    shares->generation = generation;
    if (was_quiet) sl_shares_free(shares);
    for (; !was_quiet && passed; passed--) sl_shares_average(shares);
    if (!shares->count) return SL_OK;
    return sl_shares_move(shares, key, shares->capacity) ? SL_NO_MEMORY : sl_shares_share_out(shares);
}

static inline bool sl_shares_full(const sl_shares *shares) { return shares->count >= shares->operations_max; }

/* The rejection threshold of a trace. */
static inline int sl_shares_threshold(sl_shares *shares, const sl_key *key, const sl_decision *decision,
                                      uint64_t *threshold) {
    if (sl_shares_turn(shares, key, decision->stream_ns)) return SL_NO_MEMORY;
    const sl_share *share = sl_share_find(shares, key, decision->operation);
    if (!(share && share->average) && sl_shares_full(shares)) share = sl_share_find(shares, key, SL_POOLED);
    *threshold = share && share->average ? share->threshold : 0;
    return SL_OK;
}

/* Count a decided trace. */
static inline int sl_shares_fold(sl_shares *shares, const sl_key *key, const sl_decision *decision) {
    if (sl_shares_turn(shares, key, decision->stream_ns)) return SL_NO_MEMORY;
    sl_share *share = sl_share_find(shares, key, decision->operation);
    if (!share) share = sl_share_make(shares, key, sl_shares_full(shares) ? SL_POOLED : decision->operation);
    if (!share) return SL_NO_MEMORY;
    share->spans += decision->span_count;
    share->is_seen = true;
    return SL_OK;
}

static inline size_t sl_shares_state_size(const sl_shares *shares) { return 12 + shares->count * SL_SHARE_BYTES; }

/* Write the state, sl_shares_state_size of it. */
static inline int sl_shares_store(const sl_shares *shares, uint8_t *to) {
    sl_share **sorted = sl_shares_sorted(shares, sl_compare_operations_of);
    if (!sorted) return SL_NO_MEMORY;
    to = sl_store64(sl_store32(to, (uint32_t)shares->count), (uint64_t)shares->generation);
    for (size_t i = 0; i < shares->count; i++) {
        to = sl_store64(sl_store64(to, sorted[i]->operation), sorted[i]->average);
        to = sl_store64(sl_store64(to, sorted[i]->spans), sorted[i]->threshold);
    }
    free(sorted);
    return SL_OK;
}

/* Put back one operation. */
static inline int sl_shares_put(sl_shares *shares, const sl_key *key, sl_share share) {
    sl_share *made = sl_share_make(shares, key, share.operation);
    if (!made) return SL_NO_MEMORY;
    share.is_seen = share.spans > 0;
    share.is_held = true;
    *made = share;
    return SL_OK;
}

#endif
