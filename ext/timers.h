/*
 * When open traces are looked at next: entries of (stream time, gathering).
 *
 *   near    a heap, four children a node, of what is due before `near_end`
 *   wheel   what is due after it: a slot for every SL_SLOT_NS, its entries in no order
 *   far     what is due after the wheel's end, in no order
 *
 * Most entries are stale when their slot comes near: their gathering is decided, or is to be looked at at another time.
 * Those never get into the heap, which stays small; one that gets stale there is passed over when it comes to the top.
 */
#ifndef SPANLOOM_TIMERS_H
#define SPANLOOM_TIMERS_H

#include "gathering.h"

#define SL_SLOT_BITS 27 /* 134 ms */
#define SL_SLOT_NS ((int64_t)1 << SL_SLOT_BITS)
#define SL_SLOTS 256 /* 34 s; a power of two */

typedef struct {
    int64_t due_ns;
    sl_gathering *gathering; /* counts this entry in its `timers` */
} sl_timer;

SL_VECTOR(sl_timer_list, sl_timer)

typedef struct {
    sl_timer_list near, far, wheel[SL_SLOTS];
    int64_t near_end; /* in slots since the epoch; the wheel has those from it on */
    size_t turning;   /* entries of the wheel */
} sl_timers;

/* Whether the entry still says when its gathering is looked at. */
static inline bool sl_timer_holds(const sl_timer *timer) { return timer->gathering->due_ns == timer->due_ns; }

static inline int sl_timers_put_near(sl_timers *timers, sl_timer timer) {
    sl_timer_list *heap = &timers->near;
    if (!sl_timer_list_add(heap)) return SL_NO_MEMORY;
    size_t at = heap->count - 1;
    while (at) {
        size_t parent = (at - 1) / 4;
        if (heap->items[parent].due_ns <= timer.due_ns) break;
        heap->items[at] = heap->items[parent];
        at = parent;
    }
    heap->items[at] = timer;
    return SL_OK;
}

static inline int sl_timers_put(sl_timers *timers, sl_timer timer) {
    int64_t slot = timer.due_ns >> SL_SLOT_BITS;
    if (slot < timers->near_end) return sl_timers_put_near(timers, timer);
    bool is_far = slot - timers->near_end >= SL_SLOTS;
    sl_timer *put = sl_timer_list_add(is_far ? &timers->far : &timers->wheel[slot & (SL_SLOTS - 1)]);
    if (!put) return SL_NO_MEMORY;
    *put = timer;
    timers->turning += !is_far;
    return SL_OK;
}

/* Look at the gathering at *due_ns*, and not at another time set before. */
static inline int sl_look_at(sl_timers *timers, sl_gathering *gathering, int64_t due_ns) {
    if (sl_timers_put(timers, (sl_timer){due_ns, gathering})) return SL_NO_MEMORY;
    gathering->due_ns = due_ns;
    gathering->timers++;
    return SL_OK;
}

/* Take the heap's top entry off; its gathering may be gone by that. */
static inline void sl_timers_drop(sl_timers *timers, sl_blocks *blocks) {
    sl_timer_list *heap = &timers->near;
    sl_gathering_unwatch(heap->items[0].gathering, blocks);
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

#define SL_TIMERS_AHEAD 8 /* entries whose gatherings are asked for ahead */

/* Put what still holds of the list where it belongs now, and empty the list. */
static inline int sl_timers_pour(sl_timers *timers, sl_timer_list *list, sl_blocks *blocks) {
    sl_timer_list from = *list;
    *list = (sl_timer_list){0};
    size_t done = 0;
    for (; done < from.count; done++) {
        if (done + SL_TIMERS_AHEAD < from.count) {
            sl_prefetch(from.items[done + SL_TIMERS_AHEAD].gathering, 1);
        }
        const sl_timer *timer = &from.items[done];
        if (!sl_timer_holds(timer)) {
            sl_gathering_unwatch(timer->gathering, blocks);
        } else if (sl_timers_put(timers, *timer)) {
            break;
        }
    }
    bool is_whole = done == from.count;
    for (; done < from.count; done++) sl_gathering_unwatch(from.items[done].gathering, blocks);
    sl_timer_list_free(&from);
    return is_whole ? SL_OK : SL_NO_MEMORY;
}

/* Let what is due up to *now_ns* be near. */
static inline int sl_timers_turn(sl_timers *timers, int64_t now_ns, sl_blocks *blocks) {
    int64_t wanted = (now_ns >> SL_SLOT_BITS) + 1;
    if (wanted <= timers->near_end) return SL_OK;
    int64_t before = timers->near_end, steps = wanted - before < SL_SLOTS ? wanted - before : SL_SLOTS;
    timers->near_end = wanted;
    for (int64_t slot = before; slot < before + steps && timers->turning; slot++) {
        sl_timer_list *list = &timers->wheel[slot & (SL_SLOTS - 1)];
        timers->turning -= list->count;
        if (sl_timers_pour(timers, list, blocks)) return SL_NO_MEMORY;
    }
    bool is_round = before / SL_SLOTS != wanted / SL_SLOTS;
    return is_round && timers->far.count ? sl_timers_pour(timers, &timers->far, blocks) : SL_OK;
}

/* The gathering to be looked at first of those due by *now_ns*, or NULL. A failure to turn is in *status. */
static inline sl_gathering *sl_timers_due(sl_timers *timers, int64_t now_ns, sl_blocks *blocks, int *status) {
    *status = sl_timers_turn(timers, now_ns, blocks);
    while (timers->near.count && timers->near.items[0].due_ns <= now_ns) {
        if (sl_timer_holds(&timers->near.items[0])) return timers->near.items[0].gathering;
        sl_timers_drop(timers, blocks);
    }
    return NULL;
}

static inline int64_t sl_timer_list_first(const sl_timer_list *list) {
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < list->count; i++) {
        const sl_timer *timer = &list->items[i];
        if (timer->due_ns < first && sl_timer_holds(timer)) first = timer->due_ns;
    }
    return first;
}

/* When the first is looked at; INT64_MAX: none is. */
static inline int64_t sl_timers_first(sl_timers *timers, sl_blocks *blocks) {
    while (timers->near.count && !sl_timer_holds(&timers->near.items[0])) sl_timers_drop(timers, blocks);
    if (timers->near.count) return timers->near.items[0].due_ns;
    for (int64_t slot = timers->near_end; timers->turning && slot < timers->near_end + SL_SLOTS; slot++) {
        int64_t first = sl_timer_list_first(&timers->wheel[slot & (SL_SLOTS - 1)]);
        if (first < INT64_MAX) return first;
    }
    return sl_timer_list_first(&timers->far);
}

static inline void sl_timer_list_end(sl_timer_list *list) {
    for (size_t i = 0; i < list->count; i++) sl_gathering_unwatch(list->items[i].gathering, NULL);
    sl_timer_list_free(list);
}

/* Let every gathering go, then the lists. */
static inline void sl_timers_end(sl_timers *timers) {
    sl_timer_list_end(&timers->near);
    sl_timer_list_end(&timers->far);
    for (size_t slot = 0; slot < SL_SLOTS; slot++) sl_timer_list_end(&timers->wheel[slot]);
}

#endif
