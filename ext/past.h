/*
 * What was decided and is not forgotten yet, in the order in which it was decided:
 *
 *   pasts   decisions in full: kept ones, late ones, those recalled from the ledger; the pasts of a trace hang on one
 *           sl_known
 *   runs    traces dropped by their first decision, each a 20-byte entry of dropped.h; here only how many at which
 *           millisecond. A compact entry of a trace is older than all its pasts
 *
 * A run is a byte: milliseconds since the run before it (3 bits) and traces (4 bits), or, with the highest bit set, only
 * milliseconds (7 bits), to bridge a longer gap; one of 15 traces is followed by another of the same millisecond. The
 * times of our decisions rise, since config has `quiet` at most `idle`, and so do runs; a decision that does not fall on
 * a millisecond, or in that of a drop under other policies, is remembered in full.
 *
 * The oldest is forgotten once `remember` has passed, provided the offset of its last span was read. One that may not
 * be forgotten holds those behind it, as in the pure kernel. Only recalled ones can, and they come before all runs.
 */
#ifndef SPANLOOM_PAST_H
#define SPANLOOM_PAST_H

#include "dropped.h"
#include "gathering.h"

typedef struct sl_past {
    struct sl_past *next; /* the next younger of its trace */
    struct sl_known *known;
    sl_decision decision;
    sl_spanset *set;          /* shared: its identities; NULL: none */
    sl_gathering *rebuilding; /* borrowed: while its spans are read again */
} sl_past;

typedef struct sl_known {
    sl_keyed keyed; /* first, for sl_table */
    sl_past *oldest, *newest; /* owned */
} sl_known;

typedef uint8_t sl_run;

#define SL_RUN_GAP_MAX 7
#define SL_RUN_TRACES_MAX 15
#define SL_BRIDGE 0x80
#define SL_BRIDGE_GAP_MAX 127

/* The policies that dropped traces from a millisecond on. */
typedef struct {
    int64_t from_ms;
    uint32_t version;
} sl_era;

SL_QUEUE(sl_past_queue, sl_past *)
SL_QUEUE(sl_run_queue, sl_run)
SL_QUEUE(sl_era_queue, sl_era)

typedef struct {
    sl_past_queue pasts;
    sl_run_queue runs;
    sl_era_queue eras;
    int64_t first_ms, last_ms; /* of the runs, while there are any */
    sl_dropped dropped;
    sl_table known;
    uint64_t remembered; /* decisions */
    uint64_t recalled;   /* pasts that came from the ledger */
} sl_memory;

static inline uint8_t sl_run_gap_ms(sl_run run) { return run & SL_BRIDGE ? run & SL_BRIDGE_GAP_MAX : run >> 4; }

static inline uint8_t sl_run_traces(sl_run run) { return run & SL_BRIDGE ? 0 : run & SL_RUN_TRACES_MAX; }

/* The milliseconds whose dropped traces are remembered. */
static inline sl_moments sl_memory_moments(const sl_memory *memory) {
    bool none = !sl_run_queue_count(&memory->runs);
    return none ? (sl_moments){0, 0} : (sl_moments){(uint64_t)memory->first_ms, (uint64_t)memory->last_ms + 1};
}

/* Whether the trace has a compact entry: the stream time of its decision in *stream_ns*. */
static inline bool sl_memory_dropped(const sl_memory *memory, sl_id id, uint64_t hash, int64_t *stream_ns) {
    sl_moments moments = sl_memory_moments(memory);
    uint32_t low;
    if (!sl_dropped_find(&memory->dropped, &moments, id, hash, &low)) return false;
    *stream_ns = (memory->first_ms + (uint32_t)(low - (uint32_t)memory->first_ms)) * SL_NS_PER_MS;
    return true;
}

/* The version of the policies that dropped traces at *stream_ns*. */
static inline uint32_t sl_memory_version(const sl_memory *memory, int64_t stream_ns) {
    uint64_t at = memory->eras.tail - 1;
    while (at > memory->eras.head && sl_era_queue_at(&memory->eras, at)->from_ms > stream_ns / SL_NS_PER_MS) at--;
    return sl_era_queue_at(&memory->eras, at)->version;
}

/* Whether a dropped trace can be told by a compact entry. */
static inline bool sl_memory_is_plain(const sl_memory *memory, const sl_decision *decision) {
    int64_t ms = decision->stream_ns / SL_NS_PER_MS;
    if (decision->stream_ns % SL_NS_PER_MS) return false;
    if (!sl_run_queue_count(&memory->runs)) return true;
    if (ms < memory->last_ms || ms - memory->first_ms >= UINT32_MAX) return false;
    return ms > memory->last_ms || sl_era_queue_at(&memory->eras, memory->eras.tail - 1)->version == decision->version;
}

static inline int sl_memory_put_era(sl_memory *memory, int64_t ms, uint32_t version) {
    bool none = memory->eras.head == memory->eras.tail;
    if (!none && sl_era_queue_at(&memory->eras, memory->eras.tail - 1)->version == version) return SL_OK;
    sl_era *era = sl_era_queue_add(&memory->eras);
    if (!era) return SL_NO_MEMORY;
    *era = (sl_era){ms, version};
    return SL_OK;
}

/* Count a trace dropped at *ms*, which is not before the last run's. */
static inline int sl_memory_put_run(sl_memory *memory, int64_t ms) {
    bool none = !sl_run_queue_count(&memory->runs);
    sl_run *last = none ? NULL : sl_run_queue_at(&memory->runs, memory->runs.tail - 1);
    if (last && ms == memory->last_ms && !(*last & SL_BRIDGE) && sl_run_traces(*last) < SL_RUN_TRACES_MAX) {
        ++*last;
        return SL_OK;
    }
    if (none) {
        sl_dropped_free(&memory->dropped); /* forgotten, but not swept: 2^32 ms on they would count again */
        memory->first_ms = memory->last_ms = ms;
    }
    for (;;) {
        int64_t gap = ms - memory->last_ms;
        bool far = gap > SL_RUN_GAP_MAX;
        int64_t bridged = gap < SL_BRIDGE_GAP_MAX ? gap : SL_BRIDGE_GAP_MAX;
        last = sl_run_queue_add(&memory->runs);
        if (!last) return SL_NO_MEMORY;
        *last = (sl_run)(far ? SL_BRIDGE | bridged : gap << 4 | 1);
        memory->last_ms += sl_run_gap_ms(*last);
        sl_moments moments = sl_memory_moments(memory);
        if (sl_dropped_sweep(&memory->dropped, &moments)) return SL_NO_MEMORY;
        if (!far) return SL_OK;
    }
}

/* Remember a dropped trace by 20 bytes; it is plain, and its trace has no remembered decision. */
static inline int sl_memory_put_dropped(sl_memory *memory, const sl_key *key, const sl_decision *decision,
                                        uint64_t hash) {
    int64_t ms = decision->stream_ns / SL_NS_PER_MS;
    if (sl_memory_put_era(memory, ms, decision->version) || sl_memory_put_run(memory, ms)) return SL_NO_MEMORY;
    sl_moments moments = sl_memory_moments(memory);
    memory->remembered++;
    return sl_dropped_put(&memory->dropped, &moments, key, decision->trace_id, hash, (uint32_t)ms);
}

static inline sl_known *sl_memory_known(sl_memory *memory, sl_id id, uint64_t hash) {
    sl_known *known = sl_table_get(&memory->known, id, hash);
    if (known) return known;
    known = sl_alloc(sizeof *known);
    if (!known) return NULL;
    *known = (sl_known){.keyed = {id, hash}};
    if (sl_table_put(&memory->known, &known->keyed)) {
        free(known);
        return NULL;
    }
    return known;
}

/* Remember a decision in full; *set* gains an owner. */
static inline int sl_memory_put_past(sl_memory *memory, const sl_decision *decision, uint64_t hash, sl_spanset *set) {
    sl_past *past = sl_alloc(sizeof *past);
    if (!past) return SL_NO_MEMORY;
    sl_known *known = sl_memory_known(memory, decision->trace_id, hash);
    sl_past **queued = known ? sl_past_queue_add(&memory->pasts) : NULL;
    if (!queued) {
        free(past);
        return SL_NO_MEMORY;
    }
    *queued = past;
    *past = (sl_past){.known = known, .decision = *decision, .set = set};
    if (set) set->owners++;
    *(known->newest ? &known->newest->next : &known->oldest) = past;
    known->newest = past;
    memory->remembered++;
    return SL_OK;
}

static inline void sl_past_free(sl_past *past) {
    if (past->rebuilding) past->rebuilding->rebuilds = NULL;
    sl_spanset_release(past->set, NULL);
    free(past);
}

static inline void sl_memory_forget_past(sl_memory *memory, sl_past *past) {
    sl_known *known = past->known;
    sl_past **link = &known->oldest, *before = NULL;
    for (; *link != past; link = &(*link)->next) before = *link;
    *link = past->next;
    if (known->newest == past) known->newest = before;
    sl_past_free(past);
    if (!known->oldest) {
        sl_table_remove(&memory->known, &known->keyed);
        free(known);
    }
}

static inline void sl_memory_forget_runs(sl_memory *memory, int64_t horizon_ns) {
    while (sl_run_queue_count(&memory->runs) && memory->first_ms * SL_NS_PER_MS < horizon_ns) {
        memory->remembered -= sl_run_traces(*sl_run_queue_at(&memory->runs, memory->runs.head));
        sl_run_queue_drop(&memory->runs);
        if (!sl_run_queue_count(&memory->runs)) break;
        memory->first_ms += sl_run_gap_ms(*sl_run_queue_at(&memory->runs, memory->runs.head));
    }
    while (memory->eras.tail - memory->eras.head > 1 &&
           sl_era_queue_at(&memory->eras, memory->eras.head + 1)->from_ms <= memory->first_ms) {
        sl_era_queue_drop(&memory->eras);
    }
}

/* Forget the oldest: those before *horizon_ns* whose cut lies below *offset*. */
static inline void sl_memory_forget(sl_memory *memory, int64_t horizon_ns, uint64_t offset) {
    while (sl_past_queue_count(&memory->pasts)) {
        sl_past *past = *sl_past_queue_at(&memory->pasts, memory->pasts.head);
        if (past->decision.stream_ns >= horizon_ns || past->decision.cut >= offset) break;
        memory->recalled -= memory->recalled > 0; /* they are the oldest */
        memory->remembered--;
        sl_past_queue_drop(&memory->pasts);
        sl_memory_forget_past(memory, past);
    }
    if (!memory->recalled) sl_memory_forget_runs(memory, horizon_ns);
}

static inline void sl_memory_free(sl_memory *memory) {
    for (size_t i = 0; i < memory->known.capacity; i++) {
        sl_known *known = (sl_known *)memory->known.slots[i].item;
        if (!known) continue;
        for (sl_past *past = known->oldest, *next; past; past = next) {
            next = past->next;
            sl_past_free(past);
        }
        free(known);
    }
    sl_table_free(&memory->known);
    sl_dropped_free(&memory->dropped);
    sl_past_queue_free(&memory->pasts);
    sl_run_queue_free(&memory->runs);
    sl_era_queue_free(&memory->eras);
}

#endif
