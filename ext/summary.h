/*
 * What can be searched of a fragment, from its scanned spans: the twin of src/spanloom/core/_pure/summary.py. Texts are
 * left as bytes, and distinct, for Python to make strings of.
 */
#ifndef SPANLOOM_SUMMARY_H
#define SPANLOOM_SUMMARY_H

#include "plain.h"
#include "scan.h"
#include "siphash.h"
#include "tracestate.h"

typedef struct {
    sl_slice service, name;
    uint64_t hash;
} sl_named;

SL_VECTOR(sl_nameds, sl_named)
SL_VECTOR(sl_places, uint32_t)

typedef struct {
    sl_nameds operations; /* distinct ones, in order of appearance */
    sl_places places;         /* scratch: a hash table of indices into it, plus 1; 0 is empty */
    sl_pairs pairs;           /* of the head, then of its resource; empty where those are not plain */
    uint64_t start_unix_ns, root_duration_ns, error_count, threshold;
    uint32_t head;            /* the root, or the earliest span; SL_NONE: no span is there */
    size_t own_pairs;         /* the head's */
    bool is_plain;            /* its attributes are in `pairs` */
} sl_summary;

static inline void sl_summary_free(sl_summary *summary) {
    sl_nameds_free(&summary->operations);
    sl_places_free(&summary->places);
    sl_pairs_free(&summary->pairs);
}

/* Service and name. */

/* Empty, with room for *count*, at most half full. */
static inline int sl_places_start(sl_places *places, size_t count) {
    size_t capacity = 8;
    while (capacity < 2 * count) capacity *= 2;
    if (sl_places_reserve(places, capacity)) return SL_NO_MEMORY;
    places->count = capacity;
    memset(places->items, 0, capacity * sizeof *places->items);
    return SL_OK;
}

static inline int sl_note_operation(sl_summary *summary, sl_named operation) {
    size_t mask = summary->places.count - 1, at = operation.hash & mask;
    for (; summary->places.items[at]; at = (at + 1) & mask) {
        const sl_named *other = &summary->operations.items[summary->places.items[at] - 1];
        bool same = other->hash == operation.hash && sl_same_slice(other->name, operation.name);
        if (same && sl_same_slice(other->service, operation.service)) return SL_OK;
    }
    sl_named *added = sl_nameds_add(&summary->operations);
    if (!added) return SL_NO_MEMORY;
    *added = operation;
    summary->places.items[at] = (uint32_t)summary->operations.count;
    return SL_OK;
}

static inline int sl_note_operations(sl_summary *summary, const sl_scan *scan, const sl_key *key) {
    uint32_t resource = SL_NONE;
    sl_key own = *key; /* of the names of one resource */
    if (sl_places_start(&summary->places, scan->spans.count)) return SL_NO_MEMORY;
    for (size_t i = 0; i < scan->spans.count; i++) {
        const sl_span *span = &scan->spans.items[i];
        sl_slice service = scan->resources.items[span->resource].service;
        if (span->resource != resource) {
            resource = span->resource;
            own.k0 = key->k0 ^ sl_siphash_bytes(key, service.at, service.size);
        }
        sl_named operation = {service, span->name, sl_siphash_bytes(&own, span->name.at, span->name.size)};
        if (sl_note_operation(summary, operation)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

/* Numbers, and the head. */

static inline bool sl_is_earlier(const sl_span *one, const sl_span *other) {
    if (one->start_unix_ns != other->start_unix_ns) return one->start_unix_ns < other->start_unix_ns;
    return one->span_id < other->span_id;
}

/* The highest `th` that a span came with. */
static inline void sl_note_threshold(sl_summary *summary, const sl_span *span) {
    sl_members members;
    uint64_t th;
    if (!span->trace_state.size || !sl_read_members(span->trace_state, &members)) return;
    if (!sl_read_hex(sl_ot_field(sl_ot_of(&members), "th"), 1, &th)) return;
    if (th > summary->threshold) summary->threshold = th;
}

static inline void sl_note_numbers(sl_summary *summary, const sl_scan *scan) {
    const sl_span *spans = scan->spans.items;
    uint32_t root = SL_NONE, earliest = SL_NONE;
    for (uint32_t i = 0; i < scan->spans.count; i++) {
        const sl_span *span = &spans[i];
        uint64_t start = span->start_unix_ns;
        if (start && (!summary->start_unix_ns || start < summary->start_unix_ns)) summary->start_unix_ns = start;
        summary->error_count += span->error;
        sl_note_threshold(summary, span);
        if (earliest == SL_NONE || sl_is_earlier(span, &spans[earliest])) earliest = i;
        if (!span->parent && (root == SL_NONE || sl_is_earlier(span, &spans[root]))) root = i;
    }
    summary->head = root == SL_NONE ? earliest : root;
    if (root == SL_NONE || !spans[root].start_unix_ns) return;
    if (spans[root].end_unix_ns > spans[root].start_unix_ns) {
        summary->root_duration_ns = spans[root].end_unix_ns - spans[root].start_unix_ns;
    }
}

static inline int sl_summarise(sl_summary *summary, const sl_scan *scan, const sl_key *key) {
    sl_note_numbers(summary, scan);
    return sl_note_operations(summary, scan, key);
}

/* The attributes of the head, a Span message, and of its Resource. */
static inline int sl_summarise_head(sl_summary *summary, sl_slice span, sl_slice resource) {
    summary->own_pairs = 0;
    summary->is_plain = sl_is_plain(SL_A_SPAN, span, SL_PLAIN_DEPTH_MAX) &&
                        sl_is_plain(SL_A_RESOURCE, resource, SL_PLAIN_DEPTH_MAX);
    if (!summary->is_plain) return SL_OK;
    if (sl_collect_pairs(&summary->pairs, span, 9)) return SL_NO_MEMORY;
    summary->own_pairs = summary->pairs.count;
    return sl_collect_pairs(&summary->pairs, resource, 1);
}

#endif
