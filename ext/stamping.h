/*
 * Stamps kept spans with the threshold they were sampled under. The twin of src/spanloom/core/_pure/stamping.py and of
 * with_threshold in core/sampling/threshold.py: what need not change stays as it is, byte for byte; a span that changes
 * keeps its other fields raw and in order, and its tracestate goes to the end.
 */
#ifndef SPANLOOM_STAMPING_H
#define SPANLOOM_STAMPING_H

#include "decision.h"
#include "frame.h"
#include "tracestate.h"

#define SL_MEMBER_VALUE_MAX 256
#define SL_HEAD_BYTES_MAX 11 /* of a field: a tag below 128 and a length */
#define SL_STATE_MORE_MAX (3 + SL_MEMBER_VALUE_MAX + 1) /* what a tracestate may grow by: "ot=", value, comma */

SL_VECTOR(sl_bytes, uint8_t)

static inline int sl_bytes_put(sl_bytes *to, sl_slice bytes) {
    if (sl_bytes_reserve(to, to->count + bytes.size)) return SL_NO_MEMORY;
    (void)sl_write_bytes(to->items + to->count, bytes);
    to->count += bytes.size;
    return SL_OK;
}

/* Put the tag and length of field *number* before the body that was written SL_HEAD_BYTES_MAX behind *start*. */
static inline void sl_bytes_close(sl_bytes *to, size_t start, uint32_t number) {
    const uint8_t *body = to->items + start + SL_HEAD_BYTES_MAX;
    size_t size = to->count - start - SL_HEAD_BYTES_MAX;
    uint8_t *at = to->items + start;
    *at++ = (uint8_t)(number << 3 | SL_LENGTH);
    at = sl_write_varint(at, size);
    memmove(at, body, size);
    to->count = start + (size_t)(at - (to->items + start)) + size;
}

/* The tracestate. */

/* Append to an `ot` value that is joined by semicolons, where it has room; *size beyond its end where it has not. */
static inline void sl_ot_append(uint8_t *ot, size_t *size, sl_slice field) {
    size_t at = *size + (*size > 0);
    if (at + field.size <= SL_MEMBER_VALUE_MAX) {
        if (*size) ot[*size] = ';';
        (void)sl_write_bytes(ot + at, field);
    }
    *size = at + field.size;
}

/* As `th` is written: SL_HEX_DIGITS hex digits less the zeros at the end, one at least. */
static inline size_t sl_write_th(uint8_t *to, uint64_t threshold) {
    static const char digits[] = "0123456789abcdef";
    size_t size = 3 + SL_HEX_DIGITS;
    memcpy(to, "th:", 3);
    for (int i = SL_HEX_DIGITS - 1; i >= 0; i--, threshold >>= 4) to[3 + i] = (uint8_t)digits[threshold & 15];
    while (size > 4 && to[size - 1] == '0') size--;
    return size;
}

/* The value of `ot` under *threshold* too, from what it was *before*; its size, 0 where there is nothing to say. */
static inline size_t sl_write_ot(uint8_t *ot, sl_slice before, uint64_t threshold) {
    uint64_t stricter;
    uint8_t th[3 + SL_HEX_DIGITS];
    size_t size = 0, kept;
    if (threshold < SL_THRESHOLD_UNKNOWN && sl_read_hex(sl_ot_field(before, "th"), 1, &stricter)) {
        if (stricter > threshold) threshold = stricter;
    }
    while (before.size) {
        sl_slice field;
        (void)sl_cut(before, ';', &field, &before);
        bool is_th = field.size >= 3 && !memcmp(field.at, "th:", 3);
        if (field.size && !is_th) sl_ot_append(ot, &size, field);
    }
    kept = size;
    while (kept && (ot[kept - 1] == ' ' || ot[kept - 1] == ';')) kept--; /* a value does not end with a blank */
    if (threshold >= SL_THRESHOLD_UNKNOWN) return kept;
    sl_ot_append(ot, &size, (sl_slice){th, sl_write_th(th, threshold)});
    return size > SL_MEMBER_VALUE_MAX ? kept : size;
}

/* Write *members* with this `ot` in front, if it says something; where the writing ended. */
static inline uint8_t *sl_write_state(const sl_members *members, sl_slice ot, uint8_t *to) {
    const uint8_t *start = to;
    uint32_t left = SL_MEMBERS_MAX;
    if (ot.size) {
        memcpy(to, "ot=", 3);
        to = sl_write_bytes(to + 3, ot);
        left--;
    }
    for (uint32_t i = 0; i < members->count && left; i++) {
        const sl_member *member = &members->items[i];
        if (sl_is_text(member->key, "ot")) continue;
        if (to > start) *to++ = ',';
        to = sl_write_bytes(to, member->key);
        *to++ = '=';
        to = sl_write_bytes(to, member->value);
        left--;
    }
    return to;
}

/* Spans, and what they stand in. */

/* A span but for its tracestate, and the new one at its end. */
static inline int sl_restate_span(sl_bytes *to, sl_reader reader, const sl_members *members, sl_slice ot, size_t size) {
    sl_field field;
    sl_fault unused;
    while (reader.at < reader.end) {
        (void)sl_read_field(&reader, &field, &unused);
        sl_slice part = {field.start, (size_t)(field.stop - field.start)};
        if ((field.number != 3 || field.type != SL_LENGTH) && sl_bytes_put(to, part)) return SL_NO_MEMORY;
    }
    size_t start = to->count;
    if (sl_bytes_reserve(to, start + SL_HEAD_BYTES_MAX + size + SL_STATE_MORE_MAX)) return SL_NO_MEMORY;
    uint8_t *body = to->items + start + SL_HEAD_BYTES_MAX, *end = sl_write_state(members, ot, body);
    to->count = (size_t)(end - to->items);
    if (end == body) {
        to->count = start;
    } else {
        sl_bytes_close(to, start, 3);
    }
    return SL_OK;
}

/* Append the span as it is stamped, and say whether that changes it. Its framing is whole. */
static inline int sl_stamp_span(sl_bytes *to, sl_reader reader, uint64_t threshold, bool *changed) {
    sl_reader rest = reader;
    sl_field field;
    sl_fault unused;
    sl_slice trace_state = {NULL, 0};
    sl_members members;
    uint8_t ot[SL_MEMBER_VALUE_MAX];
    while (rest.at < rest.end) {
        (void)sl_read_field(&rest, &field, &unused);
        if (field.number == 3 && field.type == SL_LENGTH) trace_state = sl_payload(&field);
    }
    *changed = false;
    if (!sl_read_members(trace_state, &members)) return SL_OK;
    sl_slice before = sl_ot_of(&members), after = {ot, sl_write_ot(ot, before, threshold)};
    *changed = !sl_same_slice(before, after);
    return *changed ? sl_restate_span(to, reader, &members, after, trace_state.size) : SL_OK;
}

/* Of TracesData, ResourceSpans, ScopeSpans: the field that leads to spans. */
static const uint8_t sl_path_to_spans[] = {1, 2, 2};

/*
 * Append the message, *depth* fields above its spans, as it is stamped, and say whether that changes it; where it does
 * not, nothing is appended. SL_MALFORMED: *fault says where in the message at fault.
 */
static int sl_stamp(sl_bytes *to, sl_reader reader, size_t depth, uint64_t threshold, bool *changed, sl_fault *fault) {
    sl_field field;
    if (sl_check_framing(reader, fault)) return SL_MALFORMED;
    if (!depth) return sl_stamp_span(to, reader, threshold, changed);
    uint32_t number = sl_path_to_spans[sizeof sl_path_to_spans - depth];
    size_t start = to->count;
    const uint8_t *written = reader.at; /* up to here */
    *changed = false;
    while (reader.at < reader.end) {
        (void)sl_read_field(&reader, &field, fault);
        if (field.number != number) continue;
        if (sl_check_type(&reader, &field, SL_LENGTH, fault)) return SL_MALFORMED;
        sl_slice before = {written, (size_t)(field.start - written)};
        size_t kept = to->count;
        if (sl_bytes_put(to, before)) return SL_NO_MEMORY;
        size_t head = to->count;
        if (sl_bytes_reserve(to, head + SL_HEAD_BYTES_MAX)) return SL_NO_MEMORY;
        to->count += SL_HEAD_BYTES_MAX;
        bool below;
        sl_reader inside = {field.value, field.value, field.stop};
        int status = sl_stamp(to, inside, depth - 1, threshold, &below, fault);
        if (status) return status;
        if (below) {
            sl_bytes_close(to, head, number);
            written = field.stop;
            *changed = true;
        } else {
            to->count = kept;
        }
    }
    if (!*changed) {
        to->count = start;
        return SL_OK;
    }
    return sl_bytes_put(to, (sl_slice){written, (size_t)(reader.end - written)});
}

/* All of a TracesData; *changed is an int for Cython's sake. */
static inline int sl_stamp_traces(sl_bytes *to, sl_reader reader, uint64_t threshold, int *changed, sl_fault *fault) {
    bool is_changed = false;
    size_t size = (size_t)(reader.end - reader.at);
    if (sl_bytes_reserve(to, size + size / 8 + SL_STATE_MORE_MAX)) return SL_NO_MEMORY; /* rarely more */
    int status = sl_stamp(to, reader, sizeof sl_path_to_spans, threshold, &is_changed, fault);
    *changed = is_changed;
    return status;
}

#endif
