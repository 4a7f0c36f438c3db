/*
 * Framing: a chain of spans of one record, as TracesData bytes of their own, with their resources and scopes.
 *
 *   for each ResourceSpans with a span of the chain:
 *       0a, length, [its fields but 2, raw], for each of its ScopeSpans with one:
 *           12, length, [its fields but 2, raw], for each span: 12, length, Span
 *
 * A chain runs through sl_span.next in the order of the record, so what belongs to one scope stands together.
 */
#ifndef SPANLOOM_FRAME_H
#define SPANLOOM_FRAME_H

#include "scan.h"

static inline size_t sl_varint_size(uint64_t value) {
    size_t size = 1;
    for (; value >= 0x80; value >>= 7) size++;
    return size;
}

static inline uint8_t *sl_write_varint(uint8_t *to, uint64_t value) {
    for (; value >= 0x80; value >>= 7) *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

static inline size_t sl_nested_size(size_t body) { return 1 + sl_varint_size(body) + body; }

static inline uint8_t *sl_write_bytes(uint8_t *to, sl_slice from) {
    if (from.size) memcpy(to, from.at, from.size);
    return to + from.size;
}

/* How many bytes sl_write_chain will write; leaves the lengths it needs in the scan's scratch. */
static inline size_t sl_measure_chain(sl_scan *scan, uint32_t first) {
    size_t total = 0;
    for (uint32_t at = first; at != SL_NONE;) {
        uint32_t in_resource = scan->spans.items[at].resource;
        sl_resource *resource = &scan->resources.items[in_resource];
        resource->body_bytes = resource->frame_bytes;
        while (at != SL_NONE && scan->spans.items[at].resource == in_resource) {
            uint32_t in_scope = scan->spans.items[at].scope;
            sl_scope *scope = &scan->scopes.items[in_scope];
            scope->body_bytes = scope->frame_bytes;
            for (; at != SL_NONE && scan->spans.items[at].scope == in_scope; at = scan->spans.items[at].next) {
                scope->body_bytes += sl_nested_size(scan->spans.items[at].body.size);
            }
            resource->body_bytes += sl_nested_size(scope->body_bytes);
        }
        total += sl_nested_size(resource->body_bytes);
    }
    return total;
}

static inline uint8_t *sl_write_runs(const sl_scan *scan, uint32_t first, uint32_t count, uint8_t *to) {
    for (uint32_t i = 0; i < count; i++) to = sl_write_bytes(to, scan->runs.items[first + i]);
    return to;
}

/* The resource's own fields; notes where its service name went. */
static inline uint8_t *sl_write_resource(const sl_scan *scan, sl_resource *resource, uint8_t *to) {
    resource->service_copy = NULL;
    for (uint32_t i = 0; i < resource->run_count; i++) {
        sl_slice run = scan->runs.items[resource->run_first + i];
        const uint8_t *service = resource->service.at;
        if (service && service >= run.at && service < run.at + run.size) {
            resource->service_copy = to + (service - run.at);
        }
        to = sl_write_bytes(to, run);
    }
    return to;
}

/* Write a chain that was just measured; notes where each span's body went. Returns where the writing ended. */
static inline uint8_t *sl_write_chain(sl_scan *scan, uint32_t first, uint8_t *to) {
    for (uint32_t at = first; at != SL_NONE;) {
        uint32_t in_resource = scan->spans.items[at].resource;
        sl_resource *resource = &scan->resources.items[in_resource];
        *to++ = 0x0a;
        to = sl_write_resource(scan, resource, sl_write_varint(to, resource->body_bytes));
        while (at != SL_NONE && scan->spans.items[at].resource == in_resource) {
            uint32_t in_scope = scan->spans.items[at].scope;
            const sl_scope *scope = &scan->scopes.items[in_scope];
            *to++ = 0x12;
            to = sl_write_varint(to, scope->body_bytes);
            to = sl_write_runs(scan, scope->run_first, scope->run_count, to);
            for (; at != SL_NONE && scan->spans.items[at].scope == in_scope; at = scan->spans.items[at].next) {
                sl_span *span = &scan->spans.items[at];
                *to++ = 0x12;
                to = sl_write_varint(to, span->body.size);
                span->copy = to;
                to = sl_write_bytes(to, span->body);
            }
        }
    }
    return to;
}

#endif
