/*
 * A hash table from trace id to a struct that begins with an sl_keyed; the table borrows what it holds.
 * Open addressing, linear probing, at most 3/4 full, holes closed by shifting back. The hash is keyed (siphash.h).
 */
#ifndef SPANLOOM_TABLE_H
#define SPANLOOM_TABLE_H

#include "wire.h"

typedef struct {
    sl_id id;
    uint64_t hash;
} sl_keyed;

typedef struct {
    uint64_t hash;
    sl_keyed *item; /* NULL: empty */
} sl_table_slot;

typedef struct {
    sl_table_slot *slots; /* owned: capacity of them, a power of two */
    size_t capacity, count;
} sl_table;

static inline size_t sl_table_find(const sl_table *table, sl_id id, uint64_t hash) {
    size_t mask = table->capacity - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        const sl_table_slot *slot = &table->slots[at];
        if (!slot->item || (slot->hash == hash && sl_same_id(slot->item->id, id))) return at;
    }
}

/* What is held under the id, or NULL. */
static inline void *sl_table_get(const sl_table *table, sl_id id, uint64_t hash) {
    return table->count ? table->slots[sl_table_find(table, id, hash)].item : NULL;
}

/* What is most likely held under the hash, or NULL: a hint, found without a look at any item. */
static inline const void *sl_table_guess(const sl_table *table, uint64_t hash) {
    size_t mask = table->capacity - 1;
    for (size_t at = hash & mask; table->count && table->slots[at].item; at = (at + 1) & mask) {
        if (table->slots[at].hash == hash) return table->slots[at].item;
    }
    return NULL;
}

static inline int sl_table_move(sl_table *table, size_t capacity) {
    sl_table_slot *slots = sl_alloc_zeroed(capacity, sizeof *slots);
    if (!slots) return SL_NO_MEMORY;
    for (size_t i = 0; i < table->capacity; i++) {
        if (!table->slots[i].item) continue;
        size_t at = table->slots[i].hash & (capacity - 1);
        while (slots[at].item) at = (at + 1) & (capacity - 1);
        slots[at] = table->slots[i];
    }
    free(table->slots);
    table->slots = slots;
    table->capacity = capacity;
    return SL_OK;
}

/* Hold an item whose id is not in the table yet. */
static inline int sl_table_put(sl_table *table, sl_keyed *item) {
    if (4 * (table->count + 1) > 3 * table->capacity) {
        if (sl_table_move(table, table->capacity ? 2 * table->capacity : 16)) return SL_NO_MEMORY;
    }
    table->slots[sl_table_find(table, item->id, item->hash)] = (sl_table_slot){item->hash, item};
    table->count++;
    return SL_OK;
}

/* Let go of an item that is in the table; gives memory back where little of it is used. */
static inline void sl_table_remove(sl_table *table, const sl_keyed *item) {
    size_t mask = table->capacity - 1;
    size_t hole = sl_table_find(table, item->id, item->hash);
    for (size_t at = (hole + 1) & mask; table->slots[at].item; at = (at + 1) & mask) {
        size_t home = table->slots[at].hash & mask;
        if (((at - home) & mask) < ((at - hole) & mask)) continue; /* it would move before its home */
        table->slots[hole] = table->slots[at];
        hole = at;
    }
    table->slots[hole].item = NULL;
    table->count--;
    if (table->capacity > 1024 && table->count < table->capacity / 8) (void)sl_table_move(table, table->capacity / 4);
}

static inline void sl_table_free(sl_table *table) {
    free(table->slots);
    *table = (sl_table){0};
}

#endif
