/*
 * Reading: a record becomes fragments, verdicts, books. The twin of the same parts of
 * src/spanloom/core/_pure/assembler.py; what an assembler holds is in assembler.h, the replay of decided traces here.
 *
 * A record is atomic: it is scanned as a whole, and its traces are placed, before anything of it is applied.
 */
#ifndef SPANLOOM_READING_H
#define SPANLOOM_READING_H

#include "replay.h"

#define SL_OUT_OF_ORDER 2 /* an offset below the one to be read next; nothing was done */

typedef bool (*sl_is_moved)(const void *about);

/* A record; whether it has the header of those that were moved is asked late, since to look may be dear. */
typedef struct {
    sl_slice value; /* borrowed */
    uint64_t offset;
    int64_t timestamp_ns;
    sl_is_moved is_moved; /* NULL: it was not */
    const void *about;    /* borrowed */
} sl_record;

/* Of one that is known to have been moved. */
static inline bool sl_was_moved(const void *about) {
    (void)about;
    return true;
}

/* Records that lie in somebody's memory. */
typedef struct {
    const sl_record *records;
    size_t count;
} sl_view;

static inline int sl_begin_line(sl_assembler *a, uint64_t offset, size_t spans, uint64_t *line) {
    const sl_line begun = {.offset = offset, .stream_ns = a->stream_ns, .last_timestamp_ns = a->last_timestamp_ns};
    return sl_books_begin(&a->books, &begun, spans, line);
}

/* Move stream time to the record of so many spans, decide what that makes due, open the record's line. */
static inline int sl_arrive(sl_assembler *a, uint64_t offset, int64_t timestamp_ns, size_t spans, uint64_t *line) {
    if (offset < a->offset) return SL_OUT_OF_ORDER;
    if (sl_begin_line(a, offset, spans, line)) return SL_NO_MEMORY;
    int64_t last = a->last_timestamp_ns;
    bool believed = last < 0 || timestamp_ns <= last + a->limits.skew_max_ns;
    if (believed && timestamp_ns > a->stream_ns) a->stream_ns = timestamp_ns;
    a->last_timestamp_ns = timestamp_ns;
    int status = sl_expire(a); /* before the record counts as read: decisions on its own spans are not forgotten yet */
    a->offset = offset + 1;
    return status;
}

/* Traces of the record. */

static inline bool sl_is_mine(const sl_assembler *a, sl_id id) {
    static const char digits[] = "0123456789abcdef";
    uint8_t key[32];
    for (int i = 0; i < 16; i++) {
        key[i] = (uint8_t)digits[id.high >> (60 - 4 * i) & 15];
        key[16 + i] = (uint8_t)digits[id.low >> (60 - 4 * i) & 15];
    }
    return (sl_murmur2(key, sizeof key) & 0x7fffffff) % a->partition_count == a->partition;
}

/*
 * Whether a decision counts at *offset*: not forgotten, not of spans yet to come in a replay. One whose own spans are
 * read again always does: where retention took records away, stream time in a replay may run ahead of what it was.
 */
static inline bool sl_counts(const sl_decision *decision, int64_t horizon_ns, uint64_t offset) {
    return decision->first <= offset && (decision->stream_ns >= horizon_ns || offset <= decision->cut);
}

/* Find the trace's decisions that count here. */
static inline void sl_look_up_past(sl_assembler *a, sl_trace *trace, uint64_t offset) {
    int64_t horizon = a->stream_ns - a->limits.remember_ns;
    int64_t dropped_ns;
    bool dropped = sl_memory_dropped(&a->memory, trace->id, trace->hash, &dropped_ns);
    trace->known = sl_table_get(&a->memory.known, trace->id, trace->hash);
    trace->is_known = dropped || trace->known;
    if (dropped && dropped_ns >= horizon) {
        trace->is_dropped = true;
        trace->dropped_ns = dropped_ns;
        trace->dropped_version = sl_memory_version(&a->memory, dropped_ns);
    }
    for (sl_past *past = trace->known ? trace->known->oldest : NULL; past; past = past->next) {
        if (!sl_counts(&past->decision, horizon, offset)) continue;
        if (!trace->replayed && offset <= past->decision.cut) trace->replayed = past;
        trace->newest = past;
    }
}

/* Find what is known of the trace, and whether it belongs to another partition. */
static inline void sl_look_up(sl_assembler *a, sl_trace *trace, uint64_t offset) {
    trace->open = sl_table_get(&a->open, trace->id, trace->hash);
    if (!trace->open || trace->open->asks_past) sl_look_up_past(a, trace, offset);
    trace->elsewhere = !trace->open && !trace->is_known && !sl_is_mine(a, trace->id);
}

/* Look up every trace. SL_MALFORMED: the record was moved here, and wrongly. */
static inline int sl_place(sl_assembler *a, const sl_record *record, sl_fault *fault) {
    const sl_trace *least = NULL;
    for (size_t i = 0; i < a->record->traces.list.count; i++) {
        sl_trace *trace = &a->record->traces.list.items[i];
        sl_look_up(a, trace, record->offset);
        if (!trace->elsewhere) continue;
        bool less = !least || trace->id.high < least->id.high ||
                    (trace->id.high == least->id.high && trace->id.low < least->id.low);
        if (less) least = trace;
    }
    if (!least || !record->is_moved || !record->is_moved(record->about)) return SL_OK;
    *fault = (sl_fault){.kind = SL_FAULT_MOVED_TWICE, .a = least->id.high, .b = least->id.low};
    return SL_MALFORMED;
}

/* Spans. */

static inline sl_row sl_row_of(const sl_span *span) {
    return (sl_row){span->span_id, span->parent, sl_xxh64(span->body.at, span->body.size), span->kind};
}

/* Whether a decision that counts, other than those from *before_offset* on, has the very same span. */
static inline bool sl_past_holds(const sl_assembler *a, const sl_trace *trace, const sl_row *row, uint64_t offset,
                                 uint64_t before_offset) {
    int64_t horizon = a->stream_ns - a->limits.remember_ns;
    for (const sl_past *past = trace->known ? trace->known->oldest : NULL; past; past = past->next) {
        const sl_decision *decision = &past->decision;
        if (!sl_counts(decision, horizon, offset) || decision->cut >= before_offset) continue;
        if (past->set && sl_spanset_find(past->set, &a->key, row) == SL_KNOWN) return true;
    }
    return false;
}

/* A new gathering, not open; NULL: no memory. */
static inline sl_gathering *sl_gather(sl_assembler *a, const sl_trace *trace, uint64_t offset) {
    sl_gathering *gathering = sl_gathering_new(&a->blocks, trace->id, trace->hash);
    if (!gathering) return NULL;
    gathering->order = ++a->created;
    gathering->first = gathering->cut = offset;
    gathering->born_ns = gathering->last_ns = a->stream_ns;
    return gathering;
}

/* What a fragment opened now would inherit. */
static inline sl_inherited sl_inheritance(const sl_trace *trace) {
    if (trace->newest) {
        const sl_decision *decision = &trace->newest->decision;
        return (sl_inherited){true, decision->verdict, decision->policy, decision->version, decision->votes,
                              decision->threshold, decision->origin_ns};
    }
    if (!trace->is_dropped) return (sl_inherited){0};
    return (sl_inherited){true, SL_DROP, SL_NO_POLICY, trace->dropped_version, 0, 0, trace->dropped_ns};
}

static inline int sl_open(sl_assembler *a, sl_trace *trace, uint64_t offset, sl_inherited inherited) {
    sl_gathering *gathering = sl_gather(a, trace, offset);
    if (!gathering) return SL_NO_MEMORY;
    gathering->inherited = inherited;
    gathering->asks_past = trace->is_known;
    if (sl_open_put(a, gathering)) {
        sl_gathering_end(gathering, &a->blocks);
        return SL_NO_MEMORY;
    }
    trace->open = gathering;
    return SL_OK;
}

/* Put the span into the gathering, and on the chain that is framed at the end of the record. */
static inline int sl_join(sl_assembler *a, sl_trace *trace, uint32_t index, sl_gathering *gathering, sl_row row,
                          uint64_t offset, uint64_t line) {
    sl_piece *piece = sl_gathering_piece(gathering, line);
    if (!piece) return SL_NO_MEMORY;
    piece->count++;
    const sl_span *span = &a->record->scan.spans.items[index];
    if (sl_gathering_add(gathering, &a->blocks, &a->key, span, row)) return SL_NO_MEMORY;
    gathering->cut = offset;
    sl_chain(trace, &a->record->scan, index);
    trace->into = gathering;
    return SL_OK;
}

/* A span that an earlier owner had decided. */
static inline int sl_replay(sl_assembler *a, uint64_t line, uint64_t offset, uint32_t index, sl_trace *trace) {
    sl_past *past = trace->replayed;
    const sl_decision *decision = &past->decision;
    const sl_span *span = &a->record->scan.spans.items[index];
    sl_count outcome = decision->verdict == SL_DROP ? sl_drop_outcome(decision) : SL_STORED;
    a->replayed++;
    if (decision->verdict == SL_LATE_ERROR && !span->error) {
        sl_books_resolve(&a->books, line, SL_LATE, 1);
        return SL_OK;
    }
    if (decision->first < a->start) { /* its fragment was done before the commit we start from */
        sl_books_resolve(&a->books, line, outcome, 1);
        return SL_OK;
    }
    sl_gathering *gathering = past->rebuilding;
    if (!gathering) {
        gathering = sl_gather(a, trace, decision->first);
        if (!gathering || sl_rebuild_start(a, past, gathering)) return SL_NO_MEMORY;
    }
    sl_row row = sl_row_of(span);
    sl_membership membership = sl_gathering_find(gathering, &a->key, &row);
    if (membership == SL_KNOWN || sl_past_holds(a, trace, &row, offset, decision->first)) {
        sl_books_resolve(&a->books, line, SL_DUPLICATE, 1);
        return SL_OK;
    }
    if (sl_join(a, trace, index, gathering, row, offset, line)) return SL_NO_MEMORY;
    if (membership == SL_CONFLICT) sl_books_note(&a->books, line, SL_CONFLICTING, 1);
    if (decision->verdict == SL_DROP) sl_books_resolve(&a->books, line, outcome, 1);
    return SL_OK;
}

/* Put a span where it belongs. */
static inline int sl_take(sl_assembler *a, uint64_t line, uint64_t offset, uint32_t index, sl_trace *trace) {
    if (trace->replayed) return sl_replay(a, line, offset, index, trace);
    const sl_span *span = &a->record->scan.spans.items[index];
    sl_inherited inherited = trace->open ? trace->open->inherited : sl_inheritance(trace);
    if (inherited.is_set && inherited.verdict != SL_KEEP && !span->error) {
        sl_books_resolve(&a->books, line, SL_LATE, 1);
        return SL_OK;
    }
    sl_row row = sl_row_of(span);
    sl_membership membership = trace->open ? sl_gathering_find(trace->open, &a->key, &row) : SL_NEW;
    if (membership == SL_KNOWN || (trace->newest && sl_past_holds(a, trace, &row, offset, UINT64_MAX))) {
        sl_books_resolve(&a->books, line, SL_DUPLICATE, 1);
        if (trace->open) trace->open->cut = offset;
        return SL_OK;
    }
    if (!trace->open && sl_open(a, trace, offset, inherited)) return SL_NO_MEMORY;
    sl_gathering *gathering = trace->open;
    if (sl_join(a, trace, index, gathering, row, offset, line)) return SL_NO_MEMORY;
    if (membership == SL_CONFLICT) {
        gathering->is_conflicting = true;
        sl_books_note(&a->books, line, SL_CONFLICTING, 1);
    }
    a->undecided_bytes += span->body.size;
    gathering->last_ns = a->stream_ns;
    return sl_schedule(a, gathering);
}

#endif
