/*
 * When open traces are looked at next: a heap of (stream time, gathering), four children a node. An entry whose
 * gathering is decided, or is to be looked at at another time, is stale: it is passed over when it comes to the top.
 */
#ifndef SPANLOOM_TIMERS_H
#define SPANLOOM_TIMERS_H

#include "gathering.h"

typedef struct {
    int64_t due_ns;
    sl_gathering *gathering; /* counts this entry in its `timers` */
} sl_timer;

SL_VECTOR(sl_timers, sl_timer)

/* Look at the gathering at *due_ns*, and not at another time set before. */
static inline int sl_look_at(sl_timers *heap, sl_gathering *gathering, int64_t due_ns) {
    if (!sl_timers_add(heap)) return SL_NO_MEMORY;
    size_t at = heap->count - 1;
    while (at) {
        size_t parent = (at - 1) / 4;
        if (heap->items[parent].due_ns <= due_ns) break;
        heap->items[at] = heap->items[parent];
        at = parent;
    }
    heap->items[at] = (sl_timer){due_ns, gathering};
    gathering->due_ns = due_ns;
    gathering->timers++;
    return SL_OK;
}

/* Take the top entry off; its gathering may be freed by that. */
static inline void sl_timers_drop(sl_timers *heap) {
    sl_gathering_unwatch(heap->items[0].gathering);
    sl_timer moved = heap->items[--heap->count];
    size_t at = 0;
    for (size_t child; (child = 4 * at + 1) < heap->count; at = child) {
        size_t end = child + 4 < heap->count ? child + 4 : heap->count;
        for (size_t other = child + 1; other < end; other++) {
            if (heap->items[other].due_ns < heap->items[child].due_ns) child = other;
        }
        if (heap->items[child].due_ns >= moved.due_ns) break;
        heap->items[at] = heap->items[child];
    }
    if (heap->count) heap->items[at] = moved;
    for (size_t next = 0; next < 5 && next < heap->count; next++) { /* one of these comes to the top next */
        sl_prefetch(heap->items[next].gathering, 3 * SL_LINE_BYTES);
    }
}

/* The gathering to be looked at first, or NULL. */
static inline sl_gathering *sl_timers_first(sl_timers *heap) {
    while (heap->count) {
        const sl_timer *first = &heap->items[0];
        if (first->gathering->is_open && first->gathering->due_ns == first->due_ns) return first->gathering;
        sl_timers_drop(heap);
    }
    return NULL;
}

/* Let every gathering go, then the heap. */
static inline void sl_timers_end(sl_timers *heap) {
    for (size_t i = 0; i < heap->count; i++) sl_gathering_unwatch(heap->items[i].gathering);
    sl_timers_free(heap);
}

#endif
