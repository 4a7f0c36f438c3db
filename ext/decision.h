/*
 * Decisions, and the DECIDE bodies that carry them to the ledger (drawn in src/spanloom/core/ledger.py):
 *
 *   u32 count, then entries:
 *   0 u8 verdict   4 u32 policy version   24 16 B trace id   56 u64 stream time    80 u64 duration
 *   1 u8 trigger   8 u64 votes            40 u64 first       64 u64 origin         88 u64 bytes
 *   2 u8 policy   16 u64 threshold        48 u64 cut         72 u64 operation      96 u32 spans
 *   3 u8 flags                                                                    100 u32 identities, then these
 *   an identity: 8 B span id, u8 kind, u64 content. Little endian; ids as they are.
 */
#ifndef SPANLOOM_DECISION_H
#define SPANLOOM_DECISION_H

#include "spanset.h"

enum { SL_DROP = 0, SL_KEEP = 1, SL_LATE_ERROR = 2, SL_VERDICTS = 3 };
enum { SL_COMPLETE = 0, SL_IDLE = 1, SL_AGE = 2, SL_SIZE = 3, SL_PRESSURE = 4, SL_TRIGGERS = 5 };
enum { SL_FLAG_LATE = 1, SL_FLAG_ROOT = 2, SL_FLAG_ERROR = 4, SL_FLAG_CONFLICTING = 8, SL_FLAG_ORPHANS = 16 };

#define SL_NO_POLICY 255
#define SL_THRESHOLD_UNKNOWN ((uint64_t)1 << 56)
#define SL_ENTRY_BYTES 104
#define SL_IDENTITY_BYTES 17

typedef struct {
    uint8_t verdict, trigger, policy, flags;
    uint32_t version;
    uint64_t votes, threshold;
    sl_id trace_id;
    uint64_t first, cut;
    int64_t stream_ns, origin_ns;
    uint64_t operation, duration_ns, size_bytes;
    uint32_t span_count;
} sl_decision;

static inline uint8_t *sl_store32(uint8_t *to, uint32_t value) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (8 * i));
    return to + 4;
}

static inline uint8_t *sl_store64(uint8_t *to, uint64_t value) {
    for (int i = 0; i < 8; i++) to[i] = (uint8_t)(value >> (8 * i));
    return to + 8;
}

static inline uint8_t *sl_store_be64(uint8_t *to, uint64_t value) {
    for (int i = 0; i < 8; i++) to[i] = (uint8_t)(value >> (56 - 8 * i));
    return to + 8;
}

static inline uint8_t *sl_store_id(uint8_t *to, sl_id id) { return sl_store_be64(sl_store_be64(to, id.high), id.low); }

/* Write an entry's fixed part. */
static inline uint8_t *sl_store_decision(uint8_t *to, const sl_decision *decision, uint32_t identities) {
    *to++ = decision->verdict;
    *to++ = decision->trigger;
    *to++ = decision->policy;
    *to++ = decision->flags;
    to = sl_store32(to, decision->version);
    to = sl_store64(to, decision->votes);
    to = sl_store64(to, decision->threshold);
    to = sl_store_id(to, decision->trace_id);
    to = sl_store64(to, decision->first);
    to = sl_store64(to, decision->cut);
    to = sl_store64(to, (uint64_t)decision->stream_ns);
    to = sl_store64(to, (uint64_t)decision->origin_ns);
    to = sl_store64(to, decision->operation);
    to = sl_store64(to, decision->duration_ns);
    to = sl_store64(to, decision->size_bytes);
    to = sl_store32(to, decision->span_count);
    return sl_store32(to, identities);
}

static inline uint8_t *sl_store_identity(uint8_t *to, const sl_row *row) {
    to = sl_store_be64(to, row->span_id);
    *to++ = row->kind;
    return sl_store64(to, row->content);
}

/* Read an entry's fixed part, SL_ENTRY_BYTES of it. */
static inline sl_decision sl_load_decision(const uint8_t *at, uint32_t *identities) {
    *identities = sl_load32(at + 100);
    return (sl_decision){
        .verdict = at[0], .trigger = at[1], .policy = at[2], .flags = at[3], .version = sl_load32(at + 4),
        .votes = sl_load64(at + 8), .threshold = sl_load64(at + 16), .trace_id = sl_load_id(at + 24),
        .first = sl_load64(at + 40), .cut = sl_load64(at + 48), .stream_ns = (int64_t)sl_load64(at + 56),
        .origin_ns = (int64_t)sl_load64(at + 64), .operation = sl_load64(at + 72),
        .duration_ns = sl_load64(at + 80), .size_bytes = sl_load64(at + 88), .span_count = sl_load32(at + 96),
    };
}

typedef struct {
    size_t start, stop;
} sl_range;

SL_VECTOR(sl_ranges, sl_range)

/* DECIDE bodies, one after the other in `bytes`. */
typedef struct {
    uint8_t *bytes; /* owned: room for `capacity` */
    size_t capacity;
    sl_ranges bodies;
    uint32_t count; /* entries of the last body */
} sl_decided;

static inline void sl_decided_free(sl_decided *decided) {
    free(decided->bytes);
    sl_ranges_free(&decided->bodies);
    *decided = (sl_decided){0};
}

/* Nothing is held any more; a large buffer is given back. */
static inline void sl_decided_reset(sl_decided *decided) {
    if (decided->capacity > (1u << 20)) sl_decided_free(decided);
    decided->bodies.count = 0;
    decided->count = 0;
}

/* Room for an entry in the last body, or in a new one where it would grow beyond *bytes_max*; NULL: no memory. */
static inline uint8_t *sl_decided_room(sl_decided *decided, size_t size, size_t bytes_max) {
    sl_range *body = decided->bodies.count ? &decided->bodies.items[decided->bodies.count - 1] : NULL;
    size_t end = body ? body->stop : 0;
    if (end + size + 4 > decided->capacity) {
        size_t capacity = sl_next_capacity(decided->capacity, end + size + 4096);
        uint8_t *bytes = sl_resize(decided->bytes, capacity, 1);
        if (!bytes) return NULL;
        decided->bytes = bytes;
        decided->capacity = capacity;
    }
    if (!body || body->stop - body->start - 4 + size > bytes_max) {
        body = sl_ranges_add(&decided->bodies);
        if (!body) return NULL;
        *body = (sl_range){end, end + 4};
        decided->count = 0;
    }
    uint8_t *room = decided->bytes + body->stop;
    body->stop += size;
    sl_store32(decided->bytes + body->start, ++decided->count);
    return room;
}

/* Append an entry; *set* are its identities or NULL. */
static inline int sl_decided_add(sl_decided *decided, const sl_decision *decision, const sl_spanset *set,
                                 size_t bytes_max) {
    uint32_t identities = set ? set->count : 0;
    size_t size = SL_ENTRY_BYTES + (size_t)identities * SL_IDENTITY_BYTES;
    uint8_t *to = sl_decided_room(decided, size, bytes_max);
    if (!to) return SL_NO_MEMORY;
    to = sl_store_decision(to, decision, identities);
    for (uint32_t i = 0; i < identities; i++) to = sl_store_identity(to, &set->rows[i]);
    return SL_OK;
}

#endif
