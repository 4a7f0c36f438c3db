/*
 * The assembler of one partition: what it holds, how a trace is decided, and time. The twin of
 * src/spanloom/core/_pure/assembler.py, which spells the rules out; reading records is in reading.h.
 *
 *   open      table and list (in order of creation) of gatherings; timers say when each is looked at
 *   memory    what was decided and is not forgotten (past.h)
 *   awaiting  decided, the ledger not read back: a dropped one keeps only its pieces' counts, a kept one its bytes too
 *   books     a line for every record not wholly resolved
 *
 * Any function may fail for want of memory. Then the call is half done: the owner must not use the assembler again.
 */
#ifndef SPANLOOM_ASSEMBLER_H
#define SPANLOOM_ASSEMBLER_H

#include "books.h"
#include "past.h"
#include "sampler.h"
#include "timers.h"

typedef struct {
    int64_t quiet_ns, idle_ns, age_max_ns, remember_ns, skew_max_ns;
    uint64_t spans_max, bytes_max, decide_bytes;
} sl_limits;

typedef struct {
    sl_decision decision;
    sl_gathering *gathering; /* owned */
} sl_verdict;

SL_QUEUE(sl_verdict_queue, sl_verdict)
SL_VECTOR(sl_verdicts, sl_verdict)

/* A record that cannot be read. */
typedef struct {
    size_t record; /* index in the batch */
    uint64_t offset, line;
    sl_fault fault; /* borrows from the record */
} sl_reject;

SL_VECTOR(sl_rejects, sl_reject)

typedef struct {
    sl_id id;
    sl_chunk *chunk; /* owned */
} sl_part;

/* A trace's spans that belong to another partition; parts with one line are of one record. */
typedef struct {
    uint64_t offset, line;
    uint32_t spans; /* of the record, in all its parts */
    sl_part part;
} sl_move;

SL_VECTOR(sl_moves, sl_move)

/* An open trace found due. */
typedef struct {
    int64_t deadline_ns;
    sl_gathering *gathering; /* borrowed */
    uint8_t trigger;
} sl_due;

SL_VECTOR(sl_dues, sl_due)

/* A decided fragment whose spans are read again. */
typedef struct {
    uint64_t cut, order;
    sl_verdict verdict;
} sl_rebuild;

SL_VECTOR(sl_rebuilds, sl_rebuild)

/* A record that was scanned, before anything of it is applied. */
typedef struct {
    int status; /* SL_MALFORMED: *fault* says why it cannot be used */
    sl_fault fault;
    sl_scan scan;
    sl_traces traces;
} sl_examined;

#define SL_AHEAD 4 /* records scanned ahead of the one applied, it included: see feed.h; a power of two */

typedef struct {
    sl_limits limits;
    uint32_t partition, partition_count;
    sl_key key;
    sl_sampler sampler;

    uint64_t start, offset; /* where reading began, and the next record */
    int64_t stream_ns, last_timestamp_ns;
    sl_books books;

    sl_table open;
    sl_gathering *oldest, *youngest; /* of the open ones */
    sl_timers timers;
    sl_memory memory;
    sl_blocks blocks;
    sl_verdict_queue awaiting;
    sl_rebuilds rebuilding; /* a heap by cut */

    uint64_t created, undecided_bytes, storing_bytes, replayed;
    uint64_t triggers[SL_TRIGGERS];

    sl_decided decided; /* the harvest */
    sl_verdicts rebuilt;
    sl_rejects rejects;
    sl_moves moves;

    sl_examined examined[SL_AHEAD]; /* scratch: the records being read, by their number in the batch */
    sl_examined *record;            /* the one that is applied */
    sl_dues due;                    /* scratch */
} sl_assembler;

static inline void sl_assembler_free(sl_assembler *a) {
    for (sl_gathering *gathering = a->oldest, *next; gathering; gathering = next) {
        next = gathering->younger;
        sl_gathering_end(gathering, NULL);
    }
    for (uint64_t i = a->awaiting.head; i < a->awaiting.tail; i++) {
        sl_gathering_end(sl_verdict_queue_at(&a->awaiting, i)->gathering, NULL);
    }
    for (size_t i = 0; i < a->rebuilding.count; i++) {
        sl_gathering *gathering = a->rebuilding.items[i].verdict.gathering;
        if (gathering->rebuilds) gathering->rebuilds->rebuilding = NULL;
        sl_gathering_end(gathering, NULL);
    }
    for (size_t i = 0; i < a->rebuilt.count; i++) sl_gathering_end(a->rebuilt.items[i].gathering, NULL);
    for (size_t i = 0; i < a->moves.count; i++) free(a->moves.items[i].part.chunk);
    sl_timers_end(&a->timers);
    sl_table_free(&a->open);
    sl_memory_free(&a->memory);
    sl_sampler_free(&a->sampler);
    sl_lines_free(&a->books.lines);
    sl_verdict_queue_free(&a->awaiting);
    sl_rebuilds_free(&a->rebuilding);
    sl_decided_free(&a->decided);
    sl_verdicts_free(&a->rebuilt);
    sl_rejects_free(&a->rejects);
    sl_moves_free(&a->moves);
    for (int i = 0; i < SL_AHEAD; i++) {
        sl_scan_free(&a->examined[i].scan);
        sl_traces_free(&a->examined[i].traces);
    }
    sl_dues_free(&a->due);
    sl_blocks_free(&a->blocks);
}

/* Open traces. */

static inline int sl_open_put(sl_assembler *a, sl_gathering *gathering) {
    if (sl_table_put(&a->open, &gathering->keyed)) return SL_NO_MEMORY;
    gathering->is_open = true;
    gathering->older = a->youngest;
    *(a->youngest ? &a->youngest->younger : &a->oldest) = gathering;
    a->youngest = gathering;
    return SL_OK;
}

static inline void sl_open_remove(sl_assembler *a, sl_gathering *gathering) {
    sl_table_remove(&a->open, &gathering->keyed);
    gathering->is_open = false;
    gathering->due_ns = SL_NEVER;
    *(gathering->older ? &gathering->older->younger : &a->oldest) = gathering->younger;
    *(gathering->younger ? &gathering->younger->older : &a->youngest) = gathering->older;
    gathering->older = gathering->younger = NULL;
}

/* Look at it no later than it can be due: a span may have made it complete, so `quiet` counts. */
static inline int sl_schedule(sl_assembler *a, sl_gathering *gathering) {
    int64_t quiet = gathering->last_ns + a->limits.quiet_ns, age = gathering->born_ns + a->limits.age_max_ns;
    int64_t earliest = quiet < age ? quiet : age;
    if (gathering->due_ns && earliest >= gathering->due_ns) return SL_OK;
    return sl_look_at(&a->timers, gathering, earliest);
}

/* When it is due as it stands, and what for. */
static inline int64_t sl_deadline(sl_assembler *a, sl_gathering *gathering, uint8_t *trigger) {
    int64_t age = gathering->born_ns + a->limits.age_max_ns, quiet;
    if (sl_gathering_is_complete(gathering, &a->key)) {
        quiet = gathering->last_ns + a->limits.quiet_ns;
        *trigger = SL_COMPLETE;
    } else {
        quiet = gathering->last_ns + a->limits.idle_ns;
        *trigger = SL_IDLE;
    }
    if (quiet <= age) return quiet;
    *trigger = SL_AGE;
    return age;
}

/* Verdicts. */

static inline int sl_inherit(const sl_inherited *inherited, sl_decision *decision) {
    bool kept = inherited->verdict == SL_KEEP;
    decision->verdict = kept ? SL_KEEP : SL_LATE_ERROR;
    decision->version = inherited->version;
    decision->origin_ns = inherited->origin_ns;
    decision->votes = kept ? inherited->votes : 0;
    decision->policy = kept ? inherited->policy : SL_NO_POLICY;
    decision->threshold = kept ? inherited->threshold : 0;
    return SL_OK;
}

static inline bool sl_has_past(const sl_assembler *a, sl_id id, uint64_t hash) {
    int64_t stream_ns;
    return sl_table_get(&a->memory.known, id, hash) || sl_memory_dropped(&a->memory, id, hash, &stream_ns);
}

/* Know the decision until `remember` has passed; forget those whose time is over. */
static inline int sl_remember(sl_assembler *a, const sl_gathering *gathering, const sl_decision *decision) {
    sl_id id = decision->trace_id;
    uint64_t hash = gathering->keyed.hash;
    bool dropped = decision->verdict == SL_DROP;
    int64_t horizon_ns = a->stream_ns - a->limits.remember_ns;
    sl_memory_forget(&a->memory, horizon_ns, a->offset); /* first, so that no run bridges a time that is forgotten */
    bool alone = dropped && sl_memory_is_plain(&a->memory, decision) &&
                 !(gathering->asks_past && sl_has_past(a, id, hash));
    int status = alone ? sl_memory_put_dropped(&a->memory, &a->key, decision, hash)
                       : sl_memory_put_past(&a->memory, decision, hash, dropped ? NULL : gathering->set);
    sl_memory_forget(&a->memory, horizon_ns, a->offset); /* and this one, where its own time is over */
    return status;
}

/* Decide an open trace: its verdict goes to the harvest and is remembered. */
static inline int sl_decide(sl_assembler *a, sl_gathering *gathering, uint8_t trigger, int64_t stream_ns) {
    sl_verdict *verdict = sl_verdict_queue_add(&a->awaiting);
    if (!verdict) return SL_NO_MEMORY;
    sl_open_remove(a, gathering);
    a->undecided_bytes -= gathering->span_bytes;
    a->triggers[trigger]++;
    *verdict = (sl_verdict){.gathering = gathering};
    sl_decision decision = {
        .trigger = trigger,
        .flags = sl_gathering_flags(gathering, &a->key),
        .trace_id = gathering->keyed.id,
        .first = gathering->first,
        .cut = gathering->cut,
        .stream_ns = stream_ns,
        .origin_ns = stream_ns,
        .operation = gathering->head.operation,
        .duration_ns = sl_gathering_duration(gathering),
        .size_bytes = gathering->chunk_bytes,
        .span_count = gathering->set->count,
    };
    int status = gathering->inherited.is_set ? sl_inherit(&gathering->inherited, &decision)
                                             : sl_judge(&a->sampler, &a->key, gathering, &decision);
    if (status) return status;
    verdict->decision = decision;
    if (!gathering->inherited.is_set && sl_fold(&a->sampler, &a->key, &decision, true)) return SL_NO_MEMORY;
    sl_spanset *set = decision.verdict == SL_DROP ? NULL : gathering->set;
    if (sl_remember(a, gathering, &decision)) return SL_NO_MEMORY;
    if (sl_decided_add(&a->decided, &decision, set, a->limits.decide_bytes)) return SL_NO_MEMORY;
    if (!set) sl_gathering_strip(gathering, &a->blocks);
    return SL_OK;
}

static inline int sl_compare_due(const void *left, const void *right) {
    const sl_due *a = left, *b = right;
    if (a->deadline_ns != b->deadline_ns) return a->deadline_ns < b->deadline_ns ? -1 : 1;
    return a->gathering->order < b->gathering->order ? -1 : 1;
}

/* Take every gathering that is to be looked at by now off the timers. */
static inline int sl_take_due(sl_assembler *a) {
    sl_gathering *gathering;
    int status;
    a->due.count = 0;
    while ((gathering = sl_timers_due(&a->timers, a->stream_ns, &a->blocks, &status))) {
        sl_due *due = sl_dues_add(&a->due);
        if (!due) return SL_NO_MEMORY;
        *due = (sl_due){0, gathering, 0};
        gathering->due_ns = SL_NEVER;
        sl_prefetch(gathering->set, sizeof(sl_spanset) + gathering->row_count * sizeof(sl_row));
    }
    return status;
}

/* Decide every trace due at stream time, in order of deadline, then of creation. */
static inline int sl_expire(sl_assembler *a) {
    size_t count = 0;
    if (sl_take_due(a)) return SL_NO_MEMORY;
    for (size_t i = 0; i < a->due.count; i++) {
        sl_due due = a->due.items[i];
        due.deadline_ns = sl_deadline(a, due.gathering, &due.trigger);
        if (due.deadline_ns <= a->stream_ns) {
            a->due.items[count++] = due;
        } else if (sl_look_at(&a->timers, due.gathering, due.deadline_ns)) {
            return SL_NO_MEMORY;
        }
    }
    a->due.count = count;
    if (count > 1) qsort(a->due.items, count, sizeof *a->due.items, sl_compare_due);
    for (size_t i = 0; i < count; i++) {
        const sl_due *due = &a->due.items[i];
        if (i + 1 < count) sl_prefetch_pieces(a->due.items[i + 1].gathering);
        if (sl_decide(a, due->gathering, due->trigger, due->deadline_ns)) return SL_NO_MEMORY;
    }
    sl_dues_reset(&a->due, SL_SCRATCH_BYTES_MAX);
    return SL_OK;
}

/* A TICK takes effect. */
static inline int sl_advance(sl_assembler *a, int64_t stream_ns) {
    if (stream_ns > a->stream_ns) a->stream_ns = stream_ns;
    if (stream_ns > a->last_timestamp_ns) a->last_timestamp_ns = stream_ns;
    return sl_expire(a);
}

/* Decide the oldest open traces until at most *undecided_bytes* are left. */
static inline int sl_shed(sl_assembler *a, int64_t undecided_bytes) {
    while (a->oldest && (undecided_bytes < 0 || a->undecided_bytes > (uint64_t)undecided_bytes)) {
        if (sl_decide(a, a->oldest, SL_PRESSURE, a->stream_ns)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

/* Effects. */

/* It is settled what became of the fragment's spans. */
static inline void sl_resolve(sl_assembler *a, const sl_gathering *gathering, sl_count outcome) {
    for (uint32_t i = 0; i < gathering->piece_count; i++) {
        const sl_piece *piece = &gathering->pieces[i];
        sl_books_resolve(&a->books, sl_books_number(&a->books, piece->line), outcome, piece->count);
    }
}

static inline sl_count sl_drop_outcome(const sl_decision *decision) {
    return decision->trigger == SL_PRESSURE ? SL_PRESSURE_DROPPED : SL_NOT_SAMPLED;
}

/* The oldest decision is read back: a dropped one is resolved and gone; a kept one is handed to the caller. */
static inline sl_verdict sl_confirm(sl_assembler *a) {
    sl_verdict verdict = *sl_verdict_queue_at(&a->awaiting, a->awaiting.head);
    if (sl_verdict_queue_count(&a->awaiting) > 2) {
        sl_prefetch(sl_verdict_queue_at(&a->awaiting, a->awaiting.head + 2)->gathering, sizeof(sl_gathering));
    }
    sl_verdict_queue_drop(&a->awaiting);
    if (verdict.decision.verdict == SL_DROP) {
        sl_resolve(a, verdict.gathering, sl_drop_outcome(&verdict.decision));
        sl_gathering_end(verdict.gathering, &a->blocks);
        verdict.gathering = NULL;
    } else {
        a->storing_bytes += verdict.gathering->span_bytes;
    }
    return verdict;
}

/* Questions. */

/* The earliest stream time at which a trace may be due; -1 where none is open. */
static inline int64_t sl_next_deadline(sl_assembler *a) {
    int64_t first = sl_timers_first(&a->timers, &a->blocks);
    return first < INT64_MAX ? first : -1;
}

typedef enum { SL_UNKNOWN, SL_PENDING, SL_DROPPED, SL_KEPT } sl_standing_kind;

/* Where the trace stands; of a kept one whether the ledger was read back too. */
static inline sl_standing_kind sl_standing(const sl_assembler *a, sl_id id) {
    uint64_t hash = sl_hash_id(&a->key, id);
    if (sl_table_get(&a->open, id, hash)) return SL_PENDING;
    const sl_known *known = sl_table_get(&a->memory.known, id, hash);
    if (!known) return sl_has_past(a, id, hash) ? SL_DROPPED : SL_UNKNOWN;
    if (known->newest->decision.verdict == SL_DROP) return SL_DROPPED;
    for (uint64_t i = a->awaiting.head; i < a->awaiting.tail; i++) {
        if (sl_same_id(sl_verdict_queue_at(&a->awaiting, i)->decision.trace_id, id)) return SL_PENDING;
    }
    return SL_KEPT;
}

#endif
