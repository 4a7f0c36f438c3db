/*
 * Replay: what an earlier owner decided is recalled from the ledger; its spans, read again, rebuild the same fragments.
 */
#ifndef SPANLOOM_REPLAY_H
#define SPANLOOM_REPLAY_H

#include "assembler.h"

#define SL_BAD_ENTRY 3 /* a DECIDE body that cannot be read from some entry on */

/* Take in one decision of an earlier owner; *identities* are SL_IDENTITY_BYTES each. */
static inline int sl_recall(sl_assembler *a, const sl_decision *decision, const uint8_t *identities, uint32_t count) {
    uint64_t hash = sl_hash_id(&a->key, decision->trace_id);
    sl_spanset *set = NULL;
    if (count) {
        set = sl_spanset_new(&a->blocks, count);
        if (!set) return SL_NO_MEMORY;
        for (uint32_t i = 0; i < count; i++, identities += SL_IDENTITY_BYTES) {
            sl_row row = {sl_load_be64(identities), 0, sl_load64(identities + 9), identities[8]};
            if (!sl_spanset_add(&set, &a->blocks, &a->key, row)) continue;
            sl_spanset_release(set, &a->blocks);
            return SL_NO_MEMORY;
        }
    }
    sl_gathering *open = sl_table_get(&a->open, decision->trace_id, hash);
    if (open) open->asks_past = true;
    int status = sl_memory_put_past(&a->memory, decision, hash, set);
    sl_spanset_release(set, &a->blocks);
    if (status) return status;
    a->memory.recalled++;
    sl_memory_forget(&a->memory, a->stream_ns - a->limits.remember_ns, a->offset);
    return decision->flags & SL_FLAG_LATE ? SL_OK : sl_fold(&a->sampler, &a->key, decision, false);
}

/* Take in a DECIDE body. SL_BAD_ENTRY: up to *at, where an entry cannot be read; those before it are taken in. */
static inline int sl_recall_body(sl_assembler *a, sl_slice body, size_t *at) {
    *at = 0;
    if (body.size < 4) return SL_BAD_ENTRY;
    uint32_t count = sl_load32(body.at), identities;
    *at = 4;
    for (uint32_t i = 0; i < count; i++) {
        if (*at > body.size || body.size - *at < SL_ENTRY_BYTES) return SL_BAD_ENTRY;
        sl_decision decision = sl_load_decision(body.at + *at, &identities);
        size_t left = body.size - *at - SL_ENTRY_BYTES, size = (size_t)identities * SL_IDENTITY_BYTES;
        if (decision.verdict >= SL_VERDICTS || decision.trigger >= SL_TRIGGERS || left < size) return SL_BAD_ENTRY;
        if (decision.stream_ns < 0 || decision.origin_ns < 0) return SL_BAD_ENTRY;
        int status = sl_recall(a, &decision, body.at + *at + SL_ENTRY_BYTES, identities);
        if (status) return status;
        *at += SL_ENTRY_BYTES + size;
    }
    return SL_OK;
}

/* Rebuild a past decision's fragment in *gathering*, which is owned from here on, failing or not. */
static inline int sl_rebuild_start(sl_assembler *a, sl_past *past, sl_gathering *gathering) {
    sl_rebuilds *heap = &a->rebuilding;
    if (!sl_rebuilds_add(heap)) {
        sl_gathering_end(gathering, &a->blocks);
        return SL_NO_MEMORY;
    }
    size_t at = heap->count - 1;
    for (size_t parent; at && heap->items[parent = (at - 1) / 2].cut > past->decision.cut; at = parent) {
        heap->items[at] = heap->items[parent];
    }
    heap->items[at] = (sl_rebuild){past->decision.cut, gathering->order, {past->decision, gathering}};
    past->rebuilding = gathering;
    gathering->rebuilds = past;
    return SL_OK;
}

static inline sl_rebuild sl_rebuild_pop(sl_rebuilds *heap) {
    sl_rebuild first = heap->items[0], moved = heap->items[--heap->count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < heap->count; at = child) {
        if (child + 1 < heap->count && heap->items[child + 1].cut < heap->items[child].cut) child++;
        if (heap->items[child].cut >= moved.cut) break;
        heap->items[at] = heap->items[child];
    }
    if (heap->count) heap->items[at] = moved;
    return first;
}

static inline int sl_compare_rebuilt(const void *left, const void *right) {
    const sl_verdict *a = left, *b = right;
    return a->gathering->order < b->gathering->order ? -1 : 1;
}

/* Hand out every rebuilt fragment whose last span was read, in the order in which they were begun. */
static inline int sl_finish_rebuilding(sl_assembler *a) {
    size_t before = a->rebuilt.count;
    while (a->rebuilding.count && a->rebuilding.items[0].cut < a->offset) {
        if (sl_verdicts_reserve(&a->rebuilt, a->rebuilt.count + 1)) return SL_NO_MEMORY;
        sl_verdict done = sl_rebuild_pop(&a->rebuilding).verdict;
        if (done.gathering->rebuilds) done.gathering->rebuilds->rebuilding = NULL;
        done.gathering->rebuilds = NULL;
        if (done.decision.verdict == SL_DROP) {
            sl_gathering_end(done.gathering, &a->blocks);
            continue;
        }
        a->storing_bytes += done.gathering->span_bytes;
        a->rebuilt.items[a->rebuilt.count++] = done;
    }
    size_t added = a->rebuilt.count - before;
    if (added > 1) qsort(a->rebuilt.items + before, added, sizeof *a->rebuilt.items, sl_compare_rebuilt);
    return SL_OK;
}

#endif
