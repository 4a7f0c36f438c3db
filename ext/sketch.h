/*
 * The percentiles of one latency_percentile policy: for each operation a sketch of durations in each half of a sliding
 * window. The twin of _Percentiles in src/spanloom/core/_pure/sampler.py and of core/sampling/sketch.py.
 *
 *   bucket   bit length of the duration and the six bits below its highest; exact below 128 ns; at most 3775
 *   state    i64 generation, u32 operations now, u32 operations before; for each, in order: u64 operation, u32 buckets,
 *            each u32 bucket, u32 count; then u32 cuts, each u64 operation, u64 count it was taken at, u32 bucket
 */
#ifndef SPANLOOM_SKETCH_H
#define SPANLOOM_SKETCH_H

#include "decision.h"

#define SL_SUB_BITS 6
#define SL_POOLED 0 /* the operation under which those beyond `operations_max` are counted */

typedef struct {
    uint32_t bucket, count;
} sl_bucket;

SL_VECTOR(sl_buckets, sl_bucket)

typedef struct {
    bool is_there;      /* the operation was seen in this half, be it with no bucket */
    uint64_t count;
    sl_buckets buckets; /* in order */
} sl_half;

enum { SL_CURRENT = 0, SL_EARLIER = 1 };

typedef struct {
    uint64_t operation;
    sl_half halves[2];
    bool has_cut;
    uint64_t cut_count;
    uint32_t cut_bucket;
} sl_operation;

typedef struct {
    uint32_t percentile_bp;
    uint64_t min_count;
    int64_t half_ns; /* of the window */
    uint64_t operations_max;
    int64_t generation;
    uint64_t current_count;   /* operations there in the current half */
    sl_operation **slots;     /* owned, and what they point to: capacity of them, a power of two; NULL: empty */
    size_t capacity, count;
} sl_percentiles;

static inline uint32_t sl_bucket_of(uint64_t duration_ns) {
    int length = duration_ns ? 64 - __builtin_clzll(duration_ns) : 0;
    int shift = length - 1 - SL_SUB_BITS;
    return shift <= 0 ? (uint32_t)duration_ns : ((uint32_t)shift << SL_SUB_BITS) + (uint32_t)(duration_ns >> shift);
}

static inline void sl_operation_free(sl_operation *operation) {
    sl_buckets_free(&operation->halves[SL_CURRENT].buckets);
    sl_buckets_free(&operation->halves[SL_EARLIER].buckets);
    free(operation);
}

static inline void sl_percentiles_free(sl_percentiles *sketches) {
    for (size_t i = 0; i < sketches->capacity; i++) {
        if (sketches->slots[i]) sl_operation_free(sketches->slots[i]);
    }
    free(sketches->slots);
    sketches->slots = NULL;
    sketches->capacity = sketches->count = 0;
    sketches->current_count = 0;
}

static inline sl_operation **sl_operation_slot(sl_operation **slots, size_t capacity, const sl_key *key,
                                               uint64_t operation) {
    for (uint64_t at = sl_siphash_words(key, &operation, 1);; at++) {
        sl_operation **slot = &slots[at & (capacity - 1)];
        if (!*slot || (*slot)->operation == operation) return slot;
    }
}

/* The operation, or NULL where nothing is known of it. */
static inline sl_operation *sl_operation_find(const sl_percentiles *sketches, const sl_key *key, uint64_t operation) {
    return sketches->count ? *sl_operation_slot(sketches->slots, sketches->capacity, key, operation) : NULL;
}

/* Hold the known operations that are still worth it in *capacity* slots. */
static inline int sl_operations_move(sl_percentiles *sketches, const sl_key *key, size_t capacity) {
    sl_operation **slots = sl_alloc_zeroed(capacity, sizeof *slots);
    if (!slots) return SL_NO_MEMORY;
    sketches->count = 0;
    for (size_t i = 0; i < sketches->capacity; i++) {
        sl_operation *operation = sketches->slots[i];
        if (!operation) continue;
        if (!operation->halves[SL_CURRENT].is_there && !operation->halves[SL_EARLIER].is_there && !operation->has_cut) {
            sl_operation_free(operation);
            continue;
        }
        *sl_operation_slot(slots, capacity, key, operation->operation) = operation;
        sketches->count++;
    }
    free(sketches->slots);
    sketches->slots = slots;
    sketches->capacity = capacity;
    return SL_OK;
}

/* The operation, made where it was not there; NULL: no memory. */
static inline sl_operation *sl_operation_make(sl_percentiles *sketches, const sl_key *key, uint64_t name) {
    if (4 * (sketches->count + 1) > 3 * sketches->capacity) {
        if (sl_operations_move(sketches, key, sketches->capacity ? 2 * sketches->capacity : 64)) return NULL;
    }
    sl_operation **slot = sl_operation_slot(sketches->slots, sketches->capacity, key, name);
    if (*slot) return *slot;
    sl_operation *operation = sl_alloc_zeroed(1, sizeof *operation);
    if (!operation) return NULL;
    operation->operation = name;
    sketches->count++;
    return *slot = operation;
}

/* Count into a bucket. */
static inline int sl_half_count(sl_half *half, uint32_t bucket, uint32_t count) {
    size_t low = 0, high = half->buckets.count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (half->buckets.items[middle].bucket < bucket) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == half->buckets.count || half->buckets.items[low].bucket != bucket) {
        if (!sl_buckets_add(&half->buckets)) return SL_NO_MEMORY;
        sl_bucket *at = &half->buckets.items[low];
        memmove(at + 1, at, (half->buckets.count - 1 - low) * sizeof *at);
        *at = (sl_bucket){bucket, 0};
    }
    half->buckets.items[low].count += count;
    half->count += count;
    half->is_there = true;
    return SL_OK;
}

/* Move on to the half window that *stream_ns* lies in, if it is a later one. */
static inline int sl_percentiles_turn(sl_percentiles *sketches, const sl_key *key, int64_t stream_ns) {
    int64_t generation = stream_ns / sketches->half_ns;
    if (generation <= sketches->generation) return SL_OK;
    bool is_next = generation == sketches->generation + 1;
    for (size_t i = 0; i < sketches->capacity; i++) {
        sl_operation *operation = sketches->slots[i];
        if (!operation) continue;
        sl_buckets_free(&operation->halves[SL_EARLIER].buckets);
        operation->halves[SL_EARLIER] = (sl_half){0};
        if (is_next) {
            operation->halves[SL_EARLIER] = operation->halves[SL_CURRENT];
        } else {
            sl_buckets_free(&operation->halves[SL_CURRENT].buckets);
        }
        operation->halves[SL_CURRENT] = (sl_half){0};
        operation->has_cut = false;
    }
    sketches->generation = generation;
    sketches->current_count = 0;
    return sketches->capacity ? sl_operations_move(sketches, key, sketches->capacity) : SL_OK;
}

/* The bucket of rank ceil(n * percentile_bp / 10,000) of both halves together; there is at least one. */
static inline uint32_t sl_operation_quantile(const sl_operation *operation, uint32_t percentile_bp) {
    const sl_buckets *a = &operation->halves[SL_CURRENT].buckets, *b = &operation->halves[SL_EARLIER].buckets;
    uint64_t total = operation->halves[SL_CURRENT].count + operation->halves[SL_EARLIER].count;
    uint64_t rank = (total * percentile_bp + 9999) / 10000, seen = 0;
    if (!rank) rank = 1;
    size_t i = 0, j = 0;
    uint32_t bucket = 0;
    while (seen < rank && (i < a->count || j < b->count)) {
        bool first = j == b->count || (i < a->count && a->items[i].bucket <= b->items[j].bucket);
        bucket = first ? a->items[i].bucket : b->items[j].bucket;
        seen += first ? a->items[i++].count : b->items[j++].count;
    }
    return bucket;
}

static inline uint64_t sl_operation_count(const sl_operation *operation) {
    return operation ? operation->halves[SL_CURRENT].count + operation->halves[SL_EARLIER].count : 0;
}

static inline bool sl_percentiles_full(const sl_percentiles *sketches) {
    return sketches->current_count >= sketches->operations_max;
}

/* Whether the duration lies above the operation's cut. */
static inline int sl_is_slow(sl_percentiles *sketches, const sl_key *key, const sl_decision *decision, bool *slow) {
    *slow = false;
    if (sl_percentiles_turn(sketches, key, decision->stream_ns)) return SL_NO_MEMORY;
    const sl_operation *operation = sl_operation_find(sketches, key, decision->operation);
    bool seen = operation && (operation->halves[SL_CURRENT].is_there || operation->halves[SL_EARLIER].is_there);
    if (!seen && sl_percentiles_full(sketches)) operation = sl_operation_find(sketches, key, SL_POOLED);
    if (!operation || sl_operation_count(operation) < sketches->min_count) return SL_OK;
    uint32_t cut = operation->has_cut ? operation->cut_bucket
                                      : sl_operation_quantile(operation, sketches->percentile_bp);
    *slow = sl_bucket_of(decision->duration_ns) > cut;
    return SL_OK;
}

/* Count a trace; take the cut anew once there is a sixteenth more to take it from. */
static inline int sl_percentiles_fold(sl_percentiles *sketches, const sl_key *key, const sl_decision *decision) {
    if (sl_percentiles_turn(sketches, key, decision->stream_ns)) return SL_NO_MEMORY;
    sl_operation *operation = sl_operation_find(sketches, key, decision->operation);
    if (!operation || !operation->halves[SL_CURRENT].is_there) {
        bool full = sl_percentiles_full(sketches);
        operation = sl_operation_make(sketches, key, full ? SL_POOLED : decision->operation);
        if (!operation) return SL_NO_MEMORY;
    }
    sl_half *current = &operation->halves[SL_CURRENT];
    sketches->current_count += !current->is_there;
    if (sl_half_count(current, sl_bucket_of(decision->duration_ns), 1)) return SL_NO_MEMORY;
    uint64_t count = sl_operation_count(operation), taken = operation->has_cut ? operation->cut_count : 0;
    uint64_t more = taken >> 4 ? taken >> 4 : 1;
    if (count >= sketches->min_count && (!taken || count >= taken + more)) {
        operation->cut_bucket = sl_operation_quantile(operation, sketches->percentile_bp);
        operation->cut_count = count;
        operation->has_cut = true;
    }
    return SL_OK;
}

#endif
