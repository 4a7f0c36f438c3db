/*
 * The traces of one record: its spans grouped by trace id, in order of first appearance, so that each trace is looked
 * up once a record however many spans it has there.
 */
#ifndef SPANLOOM_TRACES_H
#define SPANLOOM_TRACES_H

#include "scan.h"
#include "siphash.h"

struct sl_gathering;
struct sl_known;
struct sl_past;

typedef struct {
    sl_id id;
    uint64_t hash;
    uint32_t first, last, count; /* the chain of its spans that go on: into a fragment or to another partition */
    bool elsewhere;              /* it belongs to another partition */
    bool is_known;               /* some decision is not forgotten, whether it counts here or not */
    bool is_dropped;             /* it has a compact entry that counts here */
    const void *guess;           /* what is prefetched for it; may be gone */
    struct sl_gathering *open, *into; /* borrowed: its open fragment; what takes its spans in */
    struct sl_known *known;      /* borrowed: its remembered decisions, NULL if none */
    struct sl_past *replayed;    /* borrowed: the decision that covers this offset */
    struct sl_past *newest;      /* borrowed: the last decision that counts at this offset */
    int64_t dropped_ns;          /* of the compact entry */
    uint32_t dropped_version;
} sl_trace;

typedef struct {
    uint32_t stamp, trace;
} sl_trace_slot;

SL_VECTOR(sl_trace_list, sl_trace)
SL_VECTOR(sl_trace_slots, sl_trace_slot)

typedef struct {
    sl_trace_list list;
    sl_trace_slots slots; /* a hash table, capacity a power of two; only slots with the current stamp are filled */
    uint32_t stamp;
} sl_traces;

static inline void sl_traces_free(sl_traces *traces) {
    sl_trace_list_free(&traces->list);
    sl_trace_slots_free(&traces->slots);
}

static inline uint64_t sl_hash_id(const sl_key *key, sl_id id) {
    const uint64_t words[2] = {id.high, id.low};
    return sl_siphash_words(key, words, 2);
}

static inline uint32_t *sl_trace_slot_of(sl_traces *traces, sl_id id, uint64_t hash, bool *found) {
    size_t mask = traces->slots.capacity - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        sl_trace_slot *slot = &traces->slots.items[at];
        *found = slot->stamp == traces->stamp;
        if (!*found) {
            slot->stamp = traces->stamp;
            return &slot->trace;
        }
        if (sl_same_id(traces->list.items[slot->trace].id, id)) return &slot->trace;
    }
}

/* Forget the last record's traces; make room for those of *spans* spans. */
static inline int sl_traces_start(sl_traces *traces, size_t spans) {
    sl_trace_list_reset(&traces->list, SL_SCRATCH_BYTES_MAX);
    size_t capacity = 16;
    while (capacity < 2 * spans) capacity *= 2;
    if (traces->slots.capacity * sizeof(sl_trace_slot) > SL_SCRATCH_BYTES_MAX) sl_trace_slots_free(&traces->slots);
    if (capacity > traces->slots.capacity || traces->stamp == UINT32_MAX) {
        sl_trace_slot *slots = sl_alloc_zeroed(capacity, sizeof *slots);
        if (!slots) return SL_NO_MEMORY;
        free(traces->slots.items);
        traces->slots.items = slots;
        traces->slots.capacity = capacity;
        traces->stamp = 0;
    }
    traces->stamp++;
    return SL_OK;
}

/* Group the scanned spans: sets sl_span.trace. No chain holds any yet. */
static inline int sl_group(sl_traces *traces, sl_scan *scan, const sl_key *key) {
    if (sl_traces_start(traces, scan->spans.count)) return SL_NO_MEMORY;
    uint32_t last = SL_NONE;
    for (size_t i = 0; i < scan->spans.count; i++) {
        sl_span *span = &scan->spans.items[i];
        if (last == SL_NONE || !sl_same_id(traces->list.items[last].id, span->trace_id)) {
            uint64_t hash = sl_hash_id(key, span->trace_id);
            bool found;
            uint32_t *slot = sl_trace_slot_of(traces, span->trace_id, hash, &found);
            if (!found) {
                sl_trace *trace = sl_trace_list_add(&traces->list);
                if (!trace) return SL_NO_MEMORY;
                *trace = (sl_trace){.id = span->trace_id, .hash = hash, .first = SL_NONE, .last = SL_NONE};
                *slot = (uint32_t)traces->list.count - 1;
            }
            last = *slot;
        }
        span->trace = last;
    }
    return SL_OK;
}

/* Append a span to its trace's chain. */
static inline void sl_chain(sl_trace *trace, sl_scan *scan, uint32_t index) {
    sl_span *span = &scan->spans.items[index];
    span->next = SL_NONE;
    if (trace->first == SL_NONE) {
        trace->first = index;
    } else {
        scan->spans.items[trace->last].next = index;
    }
    trace->last = index;
    trace->count++;
}

#endif
