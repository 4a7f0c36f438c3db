/* The state of a policy's percentiles as a CHECKPOINT carries it: drawn in sketch.h. */
#ifndef SPANLOOM_SKETCHSTATE_H
#define SPANLOOM_SKETCHSTATE_H

#include "sketch.h"

static inline int sl_compare_operations(const void *a, const void *b) {
    uint64_t left = (*(sl_operation *const *)a)->operation, right = (*(sl_operation *const *)b)->operation;
    return (left > right) - (left < right);
}

/* The known operations in order of their hash; the caller frees them. NULL: no memory. */
static inline sl_operation **sl_operations_sorted(const sl_percentiles *sketches) {
    sl_operation **sorted = sl_alloc((sketches->count + 1) * sizeof *sorted);
    size_t count = 0;
    for (size_t i = 0; sorted && i < sketches->capacity; i++) {
        if (sketches->slots[i]) sorted[count++] = sketches->slots[i];
    }
    if (sorted) qsort(sorted, count, sizeof *sorted, sl_compare_operations);
    return sorted;
}

static inline size_t sl_percentiles_state_size(const sl_percentiles *sketches) {
    size_t size = 16 + 4;
    for (size_t i = 0; i < sketches->capacity; i++) {
        const sl_operation *operation = sketches->slots[i];
        if (!operation) continue;
        for (int half = SL_CURRENT; half <= SL_EARLIER; half++) {
            if (operation->halves[half].is_there) size += 12 + 8 * operation->halves[half].buckets.count;
        }
        if (operation->has_cut) size += 20;
    }
    return size;
}

static inline uint8_t *sl_store_half(uint8_t *to, uint64_t operation, const sl_half *half) {
    to = sl_store64(to, operation);
    to = sl_store32(to, (uint32_t)half->buckets.count);
    for (size_t i = 0; i < half->buckets.count; i++) {
        to = sl_store32(to, half->buckets.items[i].bucket);
        to = sl_store32(to, half->buckets.items[i].count);
    }
    return to;
}

/* Write the state, sl_percentiles_state_size of it. */
static inline int sl_percentiles_store(const sl_percentiles *sketches, uint8_t *to) {
    sl_operation **sorted = sl_operations_sorted(sketches);
    if (!sorted) return SL_NO_MEMORY;
    uint32_t there[2] = {0, 0}, cuts = 0;
    for (size_t i = 0; i < sketches->count; i++) {
        there[SL_CURRENT] += sorted[i]->halves[SL_CURRENT].is_there;
        there[SL_EARLIER] += sorted[i]->halves[SL_EARLIER].is_there;
        cuts += sorted[i]->has_cut;
    }
    to = sl_store64(to, (uint64_t)sketches->generation);
    to = sl_store32(sl_store32(to, there[SL_CURRENT]), there[SL_EARLIER]);
    for (int half = SL_CURRENT; half <= SL_EARLIER; half++) {
        for (size_t i = 0; i < sketches->count; i++) {
            const sl_operation *operation = sorted[i];
            const sl_half *stored = &operation->halves[half];
            if (stored->is_there) to = sl_store_half(to, operation->operation, stored);
        }
    }
    to = sl_store32(to, cuts);
    for (size_t i = 0; i < sketches->count; i++) {
        if (!sorted[i]->has_cut) continue;
        to = sl_store64(to, sorted[i]->operation);
        to = sl_store64(to, sorted[i]->cut_count);
        to = sl_store32(to, sorted[i]->cut_bucket);
    }
    free(sorted);
    return SL_OK;
}

/* Put back one half of one operation: `count` zero makes it there without a bucket. */
static inline int sl_percentiles_put(sl_percentiles *sketches, const sl_key *key, int half, uint64_t operation) {
    sl_operation *made = sl_operation_make(sketches, key, operation);
    if (!made) return SL_NO_MEMORY;
    if (half == SL_CURRENT && !made->halves[half].is_there) sketches->current_count++;
    made->halves[half].is_there = true;
    return SL_OK;
}

static inline int sl_percentiles_put_bucket(sl_percentiles *sketches, const sl_key *key, int half, uint64_t operation,
                                            sl_bucket bucket) {
    sl_operation *made = sl_operation_find(sketches, key, operation);
    return sl_half_count(&made->halves[half], bucket.bucket, bucket.count);
}

static inline int sl_percentiles_put_cut(sl_percentiles *sketches, const sl_key *key, uint64_t operation,
                                         uint64_t count, uint32_t bucket) {
    sl_operation *made = sl_operation_make(sketches, key, operation);
    if (!made) return SL_NO_MEMORY;
    made->has_cut = true;
    made->cut_count = count;
    made->cut_bucket = bucket;
    return SL_OK;
}

#endif
