/*
 * The traces that were dropped by their first decision: most of what is remembered, so an entry is 20 bytes.
 *
 *   entry   16 B trace id, u32 moment: of its decision, the low half of stream time in ms
 *   page    u16 count, u16 capacity, entries
 *
 * Linear hashing (Litwin, VLDB 1980): as many pages as make about SL_PAGE_FILL entries each, grown and shrunk one page
 * at a time, so that no insertion stops to move the rest. Nothing is removed when its time is over: an entry whose
 * moment is forgotten counts for nothing, and goes when its page is next full or swept.
 */
#ifndef SPANLOOM_DROPPED_H
#define SPANLOOM_DROPPED_H

#include "siphash.h"
#include "traces.h"

#define SL_PAGE_FILL 32
#define SL_PAGE_STEP 2 /* pages grow by this many entries */

typedef struct {
    uint32_t id[4]; /* high and low as they lie in memory */
    uint32_t moment;
} sl_dropped_entry;

typedef struct {
    uint16_t count, capacity;
    sl_dropped_entry entries[];
} sl_page;

typedef struct {
    sl_page **pages; /* owned: page_count pages, NULL where empty; room for page_capacity */
    size_t page_count, page_capacity;
    size_t stored; /* entries, forgotten ones included */
    size_t swept;  /* the page to be swept next */
} sl_dropped;

/* The moments that are remembered: from head, below tail. */
typedef struct {
    uint64_t head, tail;
} sl_moments;

static inline bool sl_is_remembered(const sl_moments *moments, uint32_t moment) {
    return (uint32_t)(moment - (uint32_t)moments->head) < moments->tail - moments->head;
}

static inline sl_id sl_entry_id(const sl_dropped_entry *entry) {
    sl_id id;
    memcpy(&id, entry->id, sizeof id);
    return id;
}

/* The least power of two that is not less than the number of pages. */
static inline size_t sl_page_span(const sl_dropped *dropped) {
    return dropped->page_count > 1 ? (size_t)1 << (64 - __builtin_clzll(dropped->page_count - 1)) : 1;
}

static inline size_t sl_page_of(const sl_dropped *dropped, uint64_t hash) {
    size_t span = sl_page_span(dropped);
    size_t page = hash & (span - 1);
    return page < dropped->page_count ? page : page - span / 2;
}

static inline void sl_dropped_free(sl_dropped *dropped) {
    for (size_t i = 0; i < dropped->page_count; i++) free(dropped->pages[i]);
    free(dropped->pages);
    *dropped = (sl_dropped){0};
}

/* The remembered entry of a trace: its moment in *moment. */
static inline bool sl_dropped_find(const sl_dropped *dropped, const sl_moments *moments, sl_id id, uint64_t hash,
                                   uint32_t *moment) {
    if (!dropped->page_count) return false;
    const sl_page *page = dropped->pages[sl_page_of(dropped, hash)];
    for (size_t i = 0; page && i < page->count; i++) {
        const sl_dropped_entry *entry = &page->entries[i];
        if (sl_same_id(sl_entry_id(entry), id) && sl_is_remembered(moments, entry->moment)) {
            *moment = entry->moment;
            return true;
        }
    }
    return false;
}

/* Give the page room for *capacity* entries. */
static inline int sl_page_fit(sl_page **page, size_t capacity) {
    if (capacity > UINT16_MAX || sl_allocation_fails()) return SL_NO_MEMORY;
    sl_page *fitted = realloc(*page, sizeof **page + capacity * sizeof(sl_dropped_entry));
    if (!fitted) return SL_NO_MEMORY;
    if (!*page) fitted->count = 0;
    fitted->capacity = (uint16_t)capacity;
    *page = fitted;
    return SL_OK;
}

static inline int sl_page_append(sl_page **page, sl_dropped_entry entry) {
    if (!*page || (*page)->count == (*page)->capacity) {
        if (sl_page_fit(page, (*page ? (*page)->capacity : 0) + SL_PAGE_STEP)) return SL_NO_MEMORY;
    }
    (*page)->entries[(*page)->count++] = entry;
    return SL_OK;
}

/* Let the page go, or the memory it does not need. */
static inline void sl_page_trim(sl_page **page) {
    if (!(*page)->count) {
        free(*page);
        *page = NULL;
    } else if ((*page)->capacity - (*page)->count >= 2 * SL_PAGE_STEP) {
        (void)sl_page_fit(page, ((*page)->count + SL_PAGE_STEP - 1u) / SL_PAGE_STEP * SL_PAGE_STEP);
    }
}

/* Remove what is forgotten from a page; keeps its memory. */
static inline void sl_page_sweep(sl_dropped *dropped, sl_page *page, const sl_moments *moments) {
    size_t kept = 0;
    for (size_t i = 0; i < page->count; i++) {
        if (sl_is_remembered(moments, page->entries[i].moment)) page->entries[kept++] = page->entries[i];
    }
    dropped->stored -= page->count - kept;
    page->count = (uint16_t)kept;
}

/* One page more: the entries of one old page that now belong to it move. */
static inline int sl_dropped_split(sl_dropped *dropped, const sl_key *key) {
    if (dropped->page_count == dropped->page_capacity) {
        size_t capacity = dropped->page_capacity + dropped->page_capacity / 4 + 16;
        sl_page **pages = sl_resize(dropped->pages, capacity, sizeof *pages);
        if (!pages) return SL_NO_MEMORY;
        dropped->pages = pages;
        dropped->page_capacity = capacity;
    }
    dropped->pages[dropped->page_count++] = NULL;
    if (dropped->page_count == 1) return SL_OK;
    size_t added = dropped->page_count - 1;
    sl_page **from = &dropped->pages[added - sl_page_span(dropped) / 2], **to = &dropped->pages[added];
    size_t kept = 0;
    for (size_t i = 0; *from && i < (*from)->count; i++) {
        sl_dropped_entry entry = (*from)->entries[i];
        if (sl_page_of(dropped, sl_hash_id(key, sl_entry_id(&entry))) != added) {
            (*from)->entries[kept++] = entry;
        } else if (sl_page_append(to, entry)) {
            return SL_NO_MEMORY;
        }
    }
    if (*from) {
        (*from)->count = (uint16_t)kept;
        sl_page_trim(from);
    }
    return SL_OK;
}

/* One page less: its entries go back to the page they were split from. */
static inline int sl_dropped_merge(sl_dropped *dropped) {
    size_t gone = dropped->page_count - 1;
    sl_page *from = dropped->pages[gone], **to = &dropped->pages[gone - sl_page_span(dropped) / 2];
    for (size_t i = 0; from && i < from->count; i++) {
        if (sl_page_append(to, from->entries[i])) return SL_NO_MEMORY;
    }
    free(from);
    dropped->page_count--;
    return SL_OK;
}

/* Sweep the next page, and shrink by one page where there are too many. */
static inline int sl_dropped_sweep(sl_dropped *dropped, const sl_moments *moments) {
    if (!dropped->page_count) return SL_OK;
    if (dropped->swept >= dropped->page_count) dropped->swept = 0;
    sl_page **page = &dropped->pages[dropped->swept++];
    if (*page) {
        sl_page_sweep(dropped, *page, moments);
        sl_page_trim(page);
    }
    if (dropped->page_count > 1 && dropped->stored < dropped->page_count * (SL_PAGE_FILL / 2)) {
        return sl_dropped_merge(dropped);
    }
    return SL_OK;
}

/* Remember a trace that has no remembered entry. */
static inline int sl_dropped_put(sl_dropped *dropped, const sl_moments *moments, const sl_key *key, sl_id id,
                                 uint64_t hash, uint32_t moment) {
    if (dropped->stored >= dropped->page_count * SL_PAGE_FILL && sl_dropped_split(dropped, key)) return SL_NO_MEMORY;
    sl_page **page = &dropped->pages[sl_page_of(dropped, hash)];
    bool is_full = *page && (*page)->count == (*page)->capacity;
    if (is_full) sl_page_sweep(dropped, *page, moments);
    sl_dropped_entry entry = {.moment = moment};
    memcpy(entry.id, &id, sizeof id);
    if (sl_page_append(page, entry)) return SL_NO_MEMORY;
    dropped->stored++;
    if (is_full) sl_page_trim(page);
    return SL_OK;
}

#endif
