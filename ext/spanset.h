/*
 * The spans of one fragment as far as later spans ask for them: identities, in order, and parents.
 *
 * Small sets are searched from end to end. From SL_INDEXED_FROM spans on two hash tables of ordinals (plus one; 0 is
 * empty) find an identity, and a span id with each of its kinds once: keyed, so that no choice of ids makes it slow.
 * A set is shared, and no longer written to, once its fragment is decided.
 */
#ifndef SPANLOOM_SPANSET_H
#define SPANLOOM_SPANSET_H

#include "blocks.h"
#include "siphash.h"
#include "wire.h"

#define SL_INDEXED_FROM 24
#define SL_SPANSET_NEAR 4 /* rows that a new set has room for */

/* Packed: of what an undecided span takes beside its bytes, a row is the most. */
typedef struct __attribute__((packed)) {
    uint64_t span_id, parent; /* big-endian numbers; parent 0: a root */
    uint64_t content;
    uint8_t kind;
} sl_row;

typedef struct {
    uint32_t count, capacity;
    uint32_t owners;
    uint32_t mask;   /* slots - 1 of both tables */
    uint32_t *exact; /* owned: by span id, kind and content; NULL while small */
    uint32_t *named; /* owned: by span id, the first of each kind; NULL while small */
    sl_row rows[];
} sl_spanset;

typedef enum { SL_NEW, SL_CONFLICT, SL_KNOWN } sl_membership;

static inline size_t sl_spanset_bytes(uint32_t capacity) {
    return sizeof(sl_spanset) + (size_t)capacity * sizeof(sl_row);
}

static inline sl_spanset *sl_spanset_new(sl_blocks *blocks, uint32_t capacity) {
    sl_spanset *set = sl_block_take(blocks, sl_spanset_bytes(capacity));
    if (set) *set = (sl_spanset){.capacity = capacity, .owners = 1};
    return set;
}

/* One owner less; the last one gives it back. */
static inline void sl_spanset_release(sl_spanset *set, sl_blocks *blocks) {
    if (!set || --set->owners) return;
    free(set->exact);
    free(set->named);
    sl_block_give(blocks, set, sl_spanset_bytes(set->capacity));
}

static inline uint64_t sl_hash_row(const sl_key *key, uint64_t span_id, uint8_t kind, uint64_t content) {
    const uint64_t words[3] = {span_id, kind, content};
    return sl_siphash_words(key, words, 3);
}

static inline uint32_t *sl_exact_slot(const sl_spanset *set, const sl_key *key, const sl_row *row) {
    for (uint64_t at = sl_hash_row(key, row->span_id, row->kind, row->content);; at++) {
        uint32_t *slot = &set->exact[at & set->mask];
        if (!*slot) return slot;
        const sl_row *other = &set->rows[*slot - 1];
        if (other->span_id == row->span_id && other->kind == row->kind && other->content == row->content) return slot;
    }
}

/* The slot of the span id with that kind, or with any where *kind* is negative; an empty one if there is none. */
static inline uint32_t *sl_named_slot(const sl_spanset *set, const sl_key *key, uint64_t span_id, int kind) {
    for (uint64_t at = sl_siphash_words(key, &span_id, 1);; at++) {
        uint32_t *slot = &set->named[at & set->mask];
        if (!*slot) return slot;
        const sl_row *other = &set->rows[*slot - 1];
        if (other->span_id == span_id && (kind < 0 || other->kind == kind)) return slot;
    }
}

static inline void sl_spanset_enter(sl_spanset *set, const sl_key *key, uint32_t ordinal) {
    const sl_row *row = &set->rows[ordinal];
    uint32_t *slot = sl_exact_slot(set, key, row);
    if (!*slot) *slot = ordinal + 1;
    slot = sl_named_slot(set, key, row->span_id, row->kind);
    if (!*slot) *slot = ordinal + 1;
}

/* Build tables at most half full for up to twice the rows there are. */
static inline int sl_spanset_index(sl_spanset *set, const sl_key *key) {
    uint32_t slots = 128;
    while (slots < 4 * (uint64_t)set->count) slots *= 2;
    uint32_t *exact = sl_alloc_zeroed(slots, sizeof *exact);
    uint32_t *named = sl_alloc_zeroed(slots, sizeof *named);
    if (!exact || !named) {
        free(exact);
        free(named);
        return SL_NO_MEMORY;
    }
    free(set->exact);
    free(set->named);
    set->exact = exact;
    set->named = named;
    set->mask = slots - 1;
    for (uint32_t i = 0; i < set->count; i++) sl_spanset_enter(set, key, i);
    return SL_OK;
}

/* How a span stands to those in the set. */
static inline sl_membership sl_spanset_find(const sl_spanset *set, const sl_key *key, const sl_row *row) {
    if (set->exact) {
        if (*sl_exact_slot(set, key, row)) return SL_KNOWN;
        return *sl_named_slot(set, key, row->span_id, row->kind) ? SL_CONFLICT : SL_NEW;
    }
    sl_membership found = SL_NEW;
    for (uint32_t i = 0; i < set->count; i++) {
        const sl_row *other = &set->rows[i];
        if (other->span_id != row->span_id || other->kind != row->kind) continue;
        if (other->content == row->content) return SL_KNOWN;
        found = SL_CONFLICT;
    }
    return found;
}

/* Room for half as many rows more; moves the set. */
static inline int sl_spanset_grow(sl_spanset **set, sl_blocks *blocks) {
    uint32_t capacity = (*set)->capacity + (*set)->capacity / 2 + 1;
    sl_spanset *grown;
    if (sl_spanset_bytes(capacity) > SL_BLOCK_BYTES_MAX) {
        grown = sl_resize(*set, sl_spanset_bytes(capacity), 1);
        if (!grown) return SL_NO_MEMORY;
    } else {
        grown = sl_block_take(blocks, sl_spanset_bytes(capacity));
        if (!grown) return SL_NO_MEMORY;
        memcpy(grown, *set, sl_spanset_bytes((*set)->count));
        sl_block_give(blocks, *set, sl_spanset_bytes((*set)->capacity));
    }
    grown->capacity = capacity;
    *set = grown;
    return SL_OK;
}

/* Append a row; moves the set, which must have one owner. */
static inline int sl_spanset_add(sl_spanset **set, sl_blocks *blocks, const sl_key *key, sl_row row) {
    if ((*set)->count == (*set)->capacity && sl_spanset_grow(set, blocks)) return SL_NO_MEMORY;
    sl_spanset *grown = *set;
    grown->rows[grown->count++] = row;
    if (grown->exact && 2 * (uint64_t)grown->count <= (uint64_t)grown->mask + 1) {
        sl_spanset_enter(grown, key, grown->count - 1);
        return SL_OK;
    }
    return grown->count < SL_INDEXED_FROM ? SL_OK : sl_spanset_index(grown, key);
}

static inline bool sl_spanset_has_id(const sl_spanset *set, const sl_key *key, uint64_t span_id) {
    if (set->named) return *sl_named_slot(set, key, span_id, -1) != 0;
    for (uint32_t i = 0; i < set->count; i++) {
        if (set->rows[i].span_id == span_id) return true;
    }
    return false;
}

/* Whether some span's parent is not among them. */
static inline bool sl_spanset_has_orphans(const sl_spanset *set, const sl_key *key) {
    for (uint32_t i = 0; i < set->count; i++) {
        uint64_t parent = set->rows[i].parent;
        if (parent && !sl_spanset_has_id(set, key, parent)) return true;
    }
    return false;
}

#endif
