/*
 * Memory of the kernel: allocations that may fail, and vectors over them. Nothing aborts: a function that allocates
 * returns SL_NO_MEMORY, and its caller passes that on until Python raises MemoryError.
 */
#ifndef SPANLOOM_MEMORY_H
#define SPANLOOM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SL_OK = 0, SL_MALFORMED = 1, SL_NO_MEMORY = -1 };

#define SL_LINE_BYTES 64 /* of a cache line; a wrong guess costs time only */

#define SL_PREFETCH_BYTES_MAX 1024 /* more would push out what was asked for before */

/* A hint that *bytes* from *at* on will be needed soon. Any address will do. */
static inline void sl_prefetch(const void *at, size_t bytes) {
    if (bytes > SL_PREFETCH_BYTES_MAX) bytes = SL_PREFETCH_BYTES_MAX;
    for (size_t i = 0; i < bytes; i += SL_LINE_BYTES) __builtin_prefetch((const uint8_t *)at + i);
}

#ifdef SL_FAIL_ALLOCATIONS /* the fuzzers': how many allocations still succeed; negative: all */
static long sl_allocations_left = -1;
static inline int sl_allocation_fails(void) {
    if (sl_allocations_left < 0) return 0;
    if (sl_allocations_left == 0) return 1;
    sl_allocations_left--;
    return 0;
}
#else
static inline int sl_allocation_fails(void) { return 0; }
#endif

static inline void *sl_alloc(size_t bytes) { return sl_allocation_fails() ? NULL : malloc(bytes); }

static inline void *sl_alloc_zeroed(size_t count, size_t item_bytes) {
    return sl_allocation_fails() ? NULL : calloc(count, item_bytes);
}

/* NULL leaves *memory* as it was. */
static inline void *sl_resize(void *memory, size_t count, size_t item_bytes) {
    if (count > SIZE_MAX / item_bytes || sl_allocation_fails()) return NULL;
    return realloc(memory, count * item_bytes);
}

/* Twice the room, or what is wanted. */
static inline size_t sl_next_capacity(size_t capacity, size_t wanted) {
    size_t doubled = capacity < 4 ? 4 : capacity * 2;
    return doubled < wanted ? wanted : doubled;
}

/* A vector of *type*: items is owned, room for `capacity`. */
#define SL_VECTOR(name, type)                                                  \
    typedef struct {                                                           \
        type *items;                                                           \
        size_t count, capacity;                                                \
    } name;                                                                    \
    static inline int name##_reserve(name *vector, size_t wanted) {            \
        if (wanted <= vector->capacity) return SL_OK;                          \
        size_t capacity = sl_next_capacity(vector->capacity, wanted);          \
        type *items = sl_resize(vector->items, capacity, sizeof(type));        \
        if (!items) return SL_NO_MEMORY;                                       \
        vector->items = items;                                                 \
        vector->capacity = capacity;                                           \
        return SL_OK;                                                          \
    }                                                                          \
    /* A new item to be filled in, or NULL. */                                 \
    static inline type *name##_add(name *vector) {                             \
        if (name##_reserve(vector, vector->count + 1)) return NULL;            \
        return &vector->items[vector->count++];                                \
    }                                                                          \
    static inline void name##_free(name *vector) {                             \
        free(vector->items);                                                   \
        *vector = (name){0};                                                   \
    }                                                                          \
    /* Empty it; keep the memory where it is at most *bytes_max*. */           \
    static inline void name##_reset(name *vector, size_t bytes_max) {          \
        if (vector->capacity * sizeof(type) > bytes_max) name##_free(vector);  \
        vector->count = 0;                                                     \
    }

/*
 * A first-in first-out queue of *type* in a ring: an item is named by its sequence number, from `head` on, which stays
 * when the ring grows. items is owned, room for `capacity` (a power of two, or 0).
 */
#define SL_QUEUE(name, type)                                                   \
    typedef struct {                                                           \
        type *items;                                                           \
        size_t capacity;                                                       \
        uint64_t head, tail;                                                   \
    } name;                                                                    \
    static inline type *name##_at(const name *queue, uint64_t sequence) {      \
        return &queue->items[sequence & (queue->capacity - 1)];                \
    }                                                                          \
    static inline size_t name##_count(const name *queue) {                     \
        return (size_t)(queue->tail - queue->head);                            \
    }                                                                          \
    static inline int name##_move(name *queue, size_t capacity) {              \
        type *items = sl_resize(NULL, capacity, sizeof(type));                 \
        if (!items) return SL_NO_MEMORY;                                       \
        for (uint64_t i = queue->head; i < queue->tail; i++) items[i & (capacity - 1)] = *name##_at(queue, i); \
        free(queue->items);                                                    \
        queue->items = items;                                                  \
        queue->capacity = capacity;                                            \
        return SL_OK;                                                          \
    }                                                                          \
    /* A new item at the tail to be filled in, or NULL. */                     \
    static inline type *name##_add(name *queue) {                              \
        if (name##_count(queue) == queue->capacity &&                          \
            name##_move(queue, queue->capacity ? queue->capacity * 2 : 16)) return NULL; \
        return name##_at(queue, queue->tail++);                                \
    }                                                                          \
    /* Drop the item at the head; give memory back where little of it is used. */ \
    static inline void name##_drop(name *queue) {                              \
        queue->head++;                                                         \
        if (queue->capacity > 1024 && name##_count(queue) < queue->capacity / 8) \
            (void)name##_move(queue, queue->capacity / 4);                     \
    }                                                                          \
    static inline void name##_free(name *queue) {                              \
        free(queue->items);                                                    \
        *queue = (name){0};                                                    \
    }

#define SL_SEGMENT_ITEMS 256

/*
 * As SL_QUEUE, for what there may be much of: in segments, so that it grows without a copy and without room for twice as
 * many, and gives memory back as it shrinks. Segments are owned; in a ring, room for `capacity`.
 */
#define SL_LONG_QUEUE(name, type)                                              \
    SL_QUEUE(name##_segments, type *)                                          \
    typedef struct {                                                           \
        name##_segments segments; /* of items number * SL_SEGMENT_ITEMS on */  \
        type *spare;              /* owned: a segment, or NULL */              \
        uint64_t head, tail;                                                   \
    } name;                                                                    \
    static inline type *name##_at(const name *queue, uint64_t sequence) {      \
        return &(*name##_segments_at(&queue->segments, sequence / SL_SEGMENT_ITEMS))[sequence % SL_SEGMENT_ITEMS]; \
    }                                                                          \
    static inline size_t name##_count(const name *queue) {                     \
        return (size_t)(queue->tail - queue->head);                            \
    }                                                                          \
    static inline int name##_grow(name *queue) {                               \
        type *segment = queue->spare ? queue->spare : sl_alloc(SL_SEGMENT_ITEMS * sizeof(type)); \
        type **put = segment ? name##_segments_add(&queue->segments) : NULL;   \
        queue->spare = put ? NULL : segment;                                   \
        if (!put) return SL_NO_MEMORY;                                         \
        *put = segment;                                                        \
        return SL_OK;                                                          \
    }                                                                          \
    /* A new item at the tail to be filled in, or NULL. */                     \
    static inline type *name##_add(name *queue) {                              \
        if (queue->tail / SL_SEGMENT_ITEMS == queue->segments.tail && name##_grow(queue)) return NULL; \
        return name##_at(queue, queue->tail++);                                \
    }                                                                          \
    /* Drop the item at the head. */                                           \
    static inline void name##_drop(name *queue) {                              \
        if (++queue->head % SL_SEGMENT_ITEMS) return;                          \
        free(queue->spare);                                                    \
        queue->spare = *name##_segments_at(&queue->segments, queue->segments.head); \
        name##_segments_drop(&queue->segments);                                \
    }                                                                          \
    static inline void name##_free(name *queue) {                              \
        for (uint64_t i = queue->segments.head; i < queue->segments.tail; i++) { \
            free(*name##_segments_at(&queue->segments, i));                    \
        }                                                                      \
        name##_segments_free(&queue->segments);                                \
        free(queue->spare);                                                    \
        *queue = (name){0};                                                    \
    }

#endif
