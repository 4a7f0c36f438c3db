/*
 * Spans of one fragment while they come together: an open trace, or a decided one that is rebuilt in replay.
 *
 *   gathering -> spanset   its identities and parents, one block
 *             -> pieces    one a record with spans of it: the record's line in the books, how many spans, and
 *                          -> chunk  their bytes, framed when the record is read to its end, never moved
 *
 * An open trace is cold when its next record comes: what a record touches stands together, in the first lines.
 */
#ifndef SPANLOOM_GATHERING_H
#define SPANLOOM_GATHERING_H

#include "blocks.h"
#include "decision.h"
#include "frame.h"
#include "table.h"
#include "traces.h"

typedef struct {
    size_t size;
    uint8_t bytes[];
} sl_chunk;

typedef struct {
    sl_chunk *chunk; /* owned; NULL: not framed yet, or needed no more */
    uint32_t line;   /* the lower half of its number in the books */
    uint32_t count;  /* spans */
} sl_piece;

#define SL_PIECES_NEAR 4
#define SL_NEVER (-1)

/* The span whose service and name make the operation: the least by start, id, kind, service and name; a root first. */
typedef struct {
    uint64_t start_unix_ns, span_id;
    uint64_t operation;     /* XXH64 of service, 0x1f and name */
    sl_slice service, name; /* borrowed from a chunk */
    uint8_t kind;
    bool is_root, is_set;
} sl_head;

/* What a late fragment takes over from the decision it follows. */
typedef struct {
    bool is_set;
    uint8_t verdict, policy;
    uint32_t version;
    uint64_t votes, threshold;
    int64_t origin_ns;
} sl_inherited;

typedef enum { SL_ORPHANS_UNKNOWN, SL_ORPHANS_NONE, SL_ORPHANS_SOME } sl_orphans;

typedef struct sl_gathering {
    sl_keyed keyed; /* trace id and its hash; first, for sl_table */
    sl_spanset *set; /* owned, one owner while open */
    uint64_t seen;   /* a bit for every span id, see sl_seen_bit */
    int64_t last_ns;
    int64_t due_ns;  /* when it is looked at next; 0: not yet, SL_NEVER: taken to be decided, or not open any more */
    int64_t born_ns;
    uint64_t cut;
    uint64_t span_bytes;
    uint64_t start_min, end_max; /* UINT64_MAX and 0 where no span says */
    uint64_t chunk_bytes;        /* of its chunks: what it takes as TracesData */
    uint32_t asked;              /* the configuration that `answers` answer; of an older one they are asked anew */
    uint32_t piece_count, piece_capacity;
    uint32_t row_count; /* of the set; here too, to know where its end is without looking at it */
    uint32_t timers; /* entries of the timers that point here */
    bool has_root, has_error, is_conflicting, is_open;
    bool asks_past;  /* its trace may have remembered decisions */
    bool is_over;    /* freed as soon as no timer points here */
    uint8_t orphans; /* an sl_orphans */
    sl_answers answers;
    sl_head head;
    sl_piece *pieces; /* owned where not `near` */
    sl_piece near[SL_PIECES_NEAR];
    sl_inherited inherited;
    struct sl_gathering *older, *younger; /* of the open ones, in order of creation */
    uint64_t order, first;
    struct sl_past *rebuilds; /* borrowed: the decision it is rebuilt for, while that is remembered */
} sl_gathering;

static inline sl_gathering *sl_gathering_new(sl_blocks *blocks, sl_id id, uint64_t hash) {
    sl_gathering *gathering = sl_block_take(blocks, sizeof *gathering);
    if (!gathering) return NULL;
    *gathering = (sl_gathering){.keyed = {id, hash}, .start_min = UINT64_MAX, .piece_capacity = SL_PIECES_NEAR};
    gathering->pieces = gathering->near;
    gathering->set = sl_spanset_new(blocks, SL_SPANSET_NEAR);
    if (!gathering->set) {
        sl_block_give(blocks, gathering, sizeof *gathering);
        return NULL;
    }
    return gathering;
}

static inline void sl_give_chunks(sl_gathering *gathering, sl_blocks *blocks) {
    for (uint32_t i = 0; i < gathering->piece_count; i++) {
        sl_chunk *chunk = gathering->pieces[i].chunk;
        if (chunk) sl_block_give(blocks, chunk, sizeof *chunk + chunk->size);
        gathering->pieces[i].chunk = NULL;
    }
    gathering->head.is_set = false; /* what it borrowed is gone */
}

/* The fragment was dropped: of it only the books will be asked. */
static inline void sl_gathering_strip(sl_gathering *gathering, sl_blocks *blocks) {
    sl_give_chunks(gathering, blocks);
    sl_spanset_release(gathering->set, blocks);
    gathering->set = NULL;
}

/* It is about to be stripped: what that will look at. */
static inline void sl_prefetch_pieces(const sl_gathering *gathering) {
    for (uint32_t i = 0; i < gathering->piece_count; i++) {
        sl_prefetch(gathering->pieces[i].chunk, 1);
    }
}

/* It is needed no more. A timer may still point to it: then it goes when that is passed over. */
static inline void sl_gathering_end(sl_gathering *gathering, sl_blocks *blocks) {
    sl_gathering_strip(gathering, blocks);
    if (gathering->pieces != gathering->near) free(gathering->pieces);
    gathering->pieces = gathering->near;
    gathering->piece_count = 0;
    gathering->is_over = true;
    if (!gathering->timers) sl_block_give(blocks, gathering, sizeof *gathering);
}

/* A timer that pointed to it is gone. */
static inline void sl_gathering_unwatch(sl_gathering *gathering, sl_blocks *blocks) {
    if (!--gathering->timers && gathering->is_over) sl_block_give(blocks, gathering, sizeof *gathering);
}

/* The piece that came with the record whose line it is; NULL: no memory. */
static inline sl_piece *sl_gathering_piece(sl_gathering *gathering, uint64_t line) {
    if (gathering->piece_count && gathering->pieces[gathering->piece_count - 1].line == (uint32_t)line) {
        return &gathering->pieces[gathering->piece_count - 1];
    }
    if (gathering->piece_count == gathering->piece_capacity) {
        bool is_near = gathering->pieces == gathering->near;
        uint32_t capacity = gathering->piece_capacity + gathering->piece_capacity / 2 + 1;
        sl_piece *pieces = sl_resize(is_near ? NULL : gathering->pieces, capacity, sizeof *pieces);
        if (!pieces) return NULL;
        if (is_near) memcpy(pieces, gathering->near, sizeof gathering->near);
        gathering->pieces = pieces;
        gathering->piece_capacity = capacity;
    }
    sl_piece *piece = &gathering->pieces[gathering->piece_count++];
    *piece = (sl_piece){NULL, (uint32_t)line, 0};
    return piece;
}

/* The bit of `seen` for a span id: a bit that is not set tells, without a look at the set, that the id is not in it. */
static inline uint64_t sl_seen_bit(uint64_t span_id) { return (uint64_t)1 << (span_id * SL_XXH64_PRIME1 >> 58); }

/* How a span stands to those gathered. */
static inline sl_membership sl_gathering_find(const sl_gathering *gathering, const sl_key *key, const sl_row *row) {
    if (!(gathering->seen & sl_seen_bit(row->span_id))) return SL_NEW;
    return sl_spanset_find(gathering->set, key, row);
}

/* Take a span in; its bytes follow when the record is sealed. */
static inline int sl_gathering_add(sl_gathering *gathering, sl_blocks *blocks, const sl_key *key, const sl_span *span,
                                   sl_row row) {
    if (sl_spanset_add(&gathering->set, blocks, key, row)) return SL_NO_MEMORY;
    gathering->row_count++;
    gathering->seen |= sl_seen_bit(row.span_id);
    gathering->span_bytes += span->body.size;
    gathering->has_root |= !span->parent;
    gathering->has_error |= span->error;
    gathering->orphans = SL_ORPHANS_UNKNOWN;
    if (span->start_unix_ns && span->start_unix_ns < gathering->start_min) gathering->start_min = span->start_unix_ns;
    if (span->end_unix_ns > gathering->end_max) gathering->end_max = span->end_unix_ns;
    return SL_OK;
}

static inline int sl_compare_slices(sl_slice a, sl_slice b) {
    size_t common = a.size < b.size ? a.size : b.size;
    int order = common ? memcmp(a.at, b.at, common) : 0;
    return order ? order : (a.size > b.size) - (a.size < b.size);
}

/* Whether a span stands before the head. */
static inline bool sl_stands_before(const sl_head *head, const sl_span *span, sl_slice service) {
    if (!head->is_set) return true;
    if (head->is_root != !span->parent) return !span->parent;
    if (head->start_unix_ns != span->start_unix_ns) return span->start_unix_ns < head->start_unix_ns;
    if (head->span_id != span->span_id) return span->span_id < head->span_id;
    if (head->kind != span->kind) return span->kind < head->kind;
    int order = sl_compare_slices(service, head->service);
    return (order ? order : sl_compare_slices(span->name, head->name)) < 0;
}

/* XXH64 of service, 0x1f and name. */
static inline int sl_operation_of(sl_slice service, sl_slice name, uint64_t *operation) {
    size_t size = service.size + 1 + name.size;
    uint8_t near[512];
    uint8_t *text = size <= sizeof near ? near : sl_alloc(size);
    if (!text) return SL_NO_MEMORY;
    uint8_t *to = sl_write_bytes(text, service);
    *to++ = 0x1f;
    (void)sl_write_bytes(to, name);
    *operation = sl_xxh64(text, size);
    if (text != near) free(text);
    return SL_OK;
}

/* Let the span, whose bytes were just copied into a chunk, be the head where it comes first. */
static inline int sl_consider_head(sl_head *head, const sl_span *span, const sl_resource *resource) {
    if (!sl_stands_before(head, span, resource->service)) return SL_OK;
    *head = (sl_head){
        .start_unix_ns = span->start_unix_ns,
        .span_id = span->span_id,
        .service = {resource->service_copy, resource->service.size},
        .name = {span->name.size ? span->copy + (span->name.at - span->body.at) : NULL, span->name.size},
        .kind = span->kind,
        .is_root = !span->parent,
        .is_set = true,
    };
    return sl_operation_of(resource->service, span->name, &head->operation);
}

/* A chain of spans as a chunk of its own, not linked to anything; NULL: no memory. */
static inline sl_chunk *sl_chunk_new(sl_blocks *blocks, sl_scan *scan, uint32_t first) {
    size_t size = sl_measure_chain(scan, first);
    sl_chunk *chunk = sl_block_take(blocks, sizeof *chunk + size);
    if (!chunk) return NULL;
    chunk->size = size;
    (void)sl_write_chain(scan, first, chunk->bytes);
    return chunk;
}

/* The record is read to its end: frame the spans that came with it. */
static inline int sl_gathering_seal(sl_gathering *gathering, sl_blocks *blocks, sl_scan *scan, uint32_t first,
                                    uint64_t line) {
    sl_piece *piece = sl_gathering_piece(gathering, line);
    if (!piece || !(piece->chunk = sl_chunk_new(blocks, scan, first))) return SL_NO_MEMORY;
    gathering->chunk_bytes += piece->chunk->size;
    for (uint32_t at = first; at != SL_NONE; at = scan->spans.items[at].next) {
        const sl_span *span = &scan->spans.items[at];
        if (sl_consider_head(&gathering->head, span, &scan->resources.items[span->resource])) return SL_NO_MEMORY;
    }
    return SL_OK;
}

/* Write the fragment's bytes, chunk_bytes of them. */
static inline void sl_gathering_write(const sl_gathering *gathering, uint8_t *to) {
    for (uint32_t i = 0; i < gathering->piece_count; i++) {
        const sl_chunk *chunk = gathering->pieces[i].chunk;
        memcpy(to, chunk->bytes, chunk->size);
        to += chunk->size;
    }
}

static inline bool sl_gathering_has_orphans(sl_gathering *gathering, const sl_key *key) {
    if (gathering->orphans == SL_ORPHANS_UNKNOWN) {
        gathering->orphans = sl_spanset_has_orphans(gathering->set, key) ? SL_ORPHANS_SOME : SL_ORPHANS_NONE;
    }
    return gathering->orphans == SL_ORPHANS_SOME;
}

static inline bool sl_gathering_is_complete(sl_gathering *gathering, const sl_key *key) {
    return gathering->has_root && !sl_gathering_has_orphans(gathering, key);
}

static inline uint64_t sl_gathering_duration(const sl_gathering *gathering) {
    return gathering->end_max > gathering->start_min ? gathering->end_max - gathering->start_min : 0;
}

static inline uint8_t sl_gathering_flags(sl_gathering *gathering, const sl_key *key) {
    return (uint8_t)((gathering->inherited.is_set ? SL_FLAG_LATE : 0) | (gathering->has_root ? SL_FLAG_ROOT : 0) |
                     (gathering->has_error ? SL_FLAG_ERROR : 0) |
                     (gathering->is_conflicting ? SL_FLAG_CONFLICTING : 0) |
                     (sl_gathering_has_orphans(gathering, key) ? SL_FLAG_ORPHANS : 0));
}

#endif
