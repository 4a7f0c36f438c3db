/*
 * The calls of an assembler that read: feed, skip, jump. The twin of the methods of these names.
 */
#ifndef SPANLOOM_FEED_H
#define SPANLOOM_FEED_H

#include "reading.h"

/* A trace's spans of this record, framed for its own partition. */
static inline int sl_move_trace(sl_assembler *a, uint64_t line, uint64_t offset, const sl_trace *trace) {
    sl_move *move = sl_moves_add(&a->moves);
    if (!move) return SL_NO_MEMORY;
    *move = (sl_move){offset, line, trace->count, {trace->id, NULL}};
    move->part.chunk = sl_chunk_new(&a->blocks, &a->record->scan, trace->first);
    return move->part.chunk ? SL_OK : SL_NO_MEMORY;
}

static inline int sl_compare_due_order(const void *left, const void *right) {
    const sl_due *a = left, *b = right;
    return a->gathering->order < b->gathering->order ? -1 : 1;
}

/* Decide what the record made too large, in order of creation. */
static inline int sl_decide_large(sl_assembler *a) {
    a->due.count = 0;
    for (size_t i = 0; i < a->record->traces.list.count; i++) {
        sl_gathering *into = a->record->traces.list.items[i].into;
        if (!into || !into->is_open) continue;
        if (into->set->count <= a->limits.spans_max && into->span_bytes <= a->limits.bytes_max) continue;
        sl_due *due = sl_dues_add(&a->due);
        if (!due) return SL_NO_MEMORY;
        *due = (sl_due){a->stream_ns, into, SL_SIZE};
    }
    if (a->due.count > 1) qsort(a->due.items, a->due.count, sizeof *a->due.items, sl_compare_due_order);
    for (size_t i = 0; i < a->due.count; i++) {
        if (sl_decide(a, a->due.items[i].gathering, SL_SIZE, a->stream_ns)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

/* The record is read to its end: frame what came with it. */
static inline int sl_seal(sl_assembler *a, uint64_t line, uint64_t offset) {
    for (size_t i = 0; i < a->record->traces.list.count; i++) {
        sl_trace *trace = &a->record->traces.list.items[i];
        int status = SL_OK;
        if (trace->elsewhere) {
            status = sl_move_trace(a, line, offset, trace);
            sl_books_receive(&a->books, line, trace->count);
        } else if (trace->into) {
            status = sl_gathering_seal(trace->into, &a->blocks, &a->record->scan, trace->first, line);
            if (!status) status = sl_note_spans(&a->sampler, &a->key, trace->into, &a->record->scan, trace->first);
        }
        if (status) return status;
    }
    return SL_OK;
}

/* Take in a record that was scanned and placed. */
static inline int sl_apply(sl_assembler *a, uint64_t line, uint64_t offset) {
    for (size_t i = 0; i < a->record->scan.spans.count; i++) {
        sl_trace *trace = &a->record->traces.list.items[a->record->scan.spans.items[i].trace];
        if (trace->elsewhere) {
            sl_chain(trace, &a->record->scan, (uint32_t)i);
            continue;
        }
        sl_books_receive(&a->books, line, 1);
        if (sl_take(a, line, offset, (uint32_t)i, trace)) return SL_NO_MEMORY;
    }
    if (sl_seal(a, line, offset)) return SL_NO_MEMORY;
    return sl_decide_large(a);
}

/*
 * Traces are many and each comes back seldom: nearly all that a record touches is cold. So a batch is read in steps,
 * each of which asks for the memory that the next one needs, a few records ahead of the one that is applied:
 *
 *   record i + 4                            -> its bytes
 *   record i + 3   scan and group it        -> the tables' slots
 *   record i + 2   look into the slots      -> the gatherings, or the page that may know the trace
 *   record i + 1   look into the gatherings -> the end of their rows
 *   record i       apply it
 *
 * Scanning depends on nothing but the record; the other steps ahead are hints: what they find may have changed.
 */
static inline void sl_step_scan(sl_assembler *a, const sl_record *record, sl_examined *examined) {
    sl_scan *scan = &examined->scan;
    examined->status = sl_scan_record(scan, record->value, &examined->fault);
    if (examined->status) return;
    if (scan->rejected) {
        examined->fault = scan->rejection;
        examined->status = SL_MALFORMED;
        return;
    }
    examined->status = sl_group(&examined->traces, scan, &a->key);
    for (size_t i = 0; i < examined->traces.list.count; i++) {
        uint64_t hash = examined->traces.list.items[i].hash;
        if (a->open.capacity) sl_prefetch(&a->open.slots[hash & (a->open.capacity - 1)], 1);
        if (a->memory.dropped.page_count) {
            sl_prefetch(&a->memory.dropped.pages[sl_page_of(&a->memory.dropped, hash)], 1);
        }
    }
}

static inline void sl_step_slots(sl_assembler *a, sl_examined *examined) {
    for (size_t i = 0; !examined->status && i < examined->traces.list.count; i++) {
        sl_trace *trace = &examined->traces.list.items[i];
        trace->guess = sl_table_guess(&a->open, trace->hash);
        if (trace->guess) {
            sl_prefetch(trace->guess, offsetof(sl_gathering, near) + SL_LINE_BYTES);
        } else if (a->memory.dropped.page_count) {
            sl_prefetch(a->memory.dropped.pages[sl_page_of(&a->memory.dropped, trace->hash)],
                        SL_PAGE_FILL * sizeof(sl_dropped_entry));
        }
    }
}

static inline void sl_step_rows(sl_assembler *a, sl_examined *examined) {
    for (size_t i = 0; !examined->status && i < examined->traces.list.count; i++) {
        const sl_trace *trace = &examined->traces.list.items[i];
        if (!trace->guess || sl_table_guess(&a->open, trace->hash) != trace->guess) continue;
        const sl_gathering *open = trace->guess;
        sl_prefetch(open->set, 1);
        sl_prefetch(&open->set->rows[open->row_count], 2 * SL_LINE_BYTES);
    }
}

/* Apply one record, number *index* of its batch, that was scanned. */
static inline int sl_feed(sl_assembler *a, const sl_record *record, size_t index) {
    uint64_t line;
    sl_examined *examined = a->record = &a->examined[index & (SL_AHEAD - 1)];
    int status = sl_arrive(a, record->offset, record->timestamp_ns, examined->status ? 1 : examined->scan.spans.count, &line);
    if (status) return status;
    status = examined->status ? examined->status : sl_place(a, record, &examined->fault);
    if (status == SL_MALFORMED) {
        sl_reject *reject = sl_rejects_add(&a->rejects);
        if (!reject) return SL_NO_MEMORY;
        *reject = (sl_reject){index, record->offset, line, examined->fault};
        sl_books_receive(&a->books, line, 1);
    } else if (status || sl_apply(a, line, record->offset)) {
        return SL_NO_MEMORY;
    }
    return sl_finish_rebuilding(a);
}

/* Read records up to the first that fails: how many were read in *count*. */
static inline int sl_feed_batch(sl_assembler *a, const sl_record *records, size_t *count) {
    size_t wanted = *count;
    for (size_t i = 0; i < wanted + SL_AHEAD - 1; i++) {
        if (i + 1 < wanted) sl_prefetch(records[i + 1].value.at, records[i + 1].value.size);
        if (i < wanted) sl_step_scan(a, &records[i], &a->examined[i & (SL_AHEAD - 1)]);
        if (i >= 1 && i - 1 < wanted) sl_step_slots(a, &a->examined[(i - 1) & (SL_AHEAD - 1)]);
        if (i >= 2 && i - 2 < wanted) sl_step_rows(a, &a->examined[(i - 2) & (SL_AHEAD - 1)]);
        if (i < 3) continue;
        *count = i - 3;
        int status = sl_feed(a, &records[i - 3], i - 3);
        if (status) return status;
    }
    *count = wanted;
    sl_blocks_allow(&a->blocks, a->undecided_bytes);
    return SL_OK;
}

/* Pass over a record that the ledger says is dead-lettered. */
static inline int sl_skip(sl_assembler *a, uint64_t offset, int64_t timestamp_ns) {
    uint64_t line;
    int status = sl_arrive(a, offset, timestamp_ns, 1, &line);
    if (status) return status;
    sl_books_receive(&a->books, line, 1);
    sl_books_resolve(&a->books, line, SL_DEAD_LETTERED, 1);
    return sl_finish_rebuilding(a);
}

/* Go on from *offset*, above the next one: each offset between counts as one span that is gone. */
static inline int sl_jump(sl_assembler *a, uint64_t offset) {
    for (uint64_t gone = offset - a->offset; gone;) {
        uint64_t line;
        uint32_t some = gone < INT32_MAX ? (uint32_t)gone : INT32_MAX; /* what one line can count */
        if (sl_begin_line(a, a->offset, 1, &line)) return SL_NO_MEMORY;
        sl_books_receive(&a->books, line, some);
        sl_books_resolve(&a->books, line, SL_LOST, some);
        gone -= some;
    }
    a->offset = offset;
    return sl_finish_rebuilding(a);
}

#endif
