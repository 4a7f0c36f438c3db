/*
 * Messages as protobuf's decoder surely reads them, and their attributes. A message is plain if it is written as every
 * sender writes it: known fields of the right wire type, shortest varints, strings of UTF-8, little nesting, and no
 * part twice that would be merged. Of any other this file says nothing: Python reads it.
 *
 *   KeyValue { 1 key, 2 AnyValue };  AnyValue { 1 string | 2 bool | 3 int | 4 double | 5 ArrayValue | 6 KeyValueList |
 *   7 bytes };  ArrayValue { 1 AnyValue ... };  KeyValueList { 1 KeyValue ... };  Resource { 1 KeyValue ... };
 *   Span, Event, Link, Status: opentelemetry/proto/trace/v1/trace.proto
 */
#ifndef SPANLOOM_PLAIN_H
#define SPANLOOM_PLAIN_H

#include "attributes.h"
#include "frame.h"

#define SL_PLAIN_DEPTH_MAX 24 /* of messages; protobuf's own limit is 100 */
#define SL_PLAIN_BYTES_MAX INT32_MAX

/* What a field must be; from SL_IS_MESSAGE on a message of the kind that is left. */
enum { SL_IS_UNKNOWN, SL_IS_BYTES, SL_IS_TEXT, SL_IS_VARINT, SL_IS_FIXED64, SL_IS_FIXED32, SL_IS_MESSAGE };

typedef enum {
    SL_A_KEY_VALUE, SL_A_ANY_VALUE, SL_A_ARRAY, SL_A_KEY_VALUES, SL_A_RESOURCE, SL_A_SPAN, SL_A_EVENT, SL_A_LINK, SL_A_STATUS,
    SL_MESSAGE_KINDS,
} sl_message_kind;

#define SL_PLAIN_FIELDS 17 /* numbers 0 to 16 */
#define SL_IS(kind) (SL_IS_MESSAGE + (kind))

static const uint8_t sl_shapes[SL_MESSAGE_KINDS][SL_PLAIN_FIELDS] = {
    [SL_A_KEY_VALUE] = {[1] = SL_IS_TEXT, [2] = SL_IS(SL_A_ANY_VALUE)},
    [SL_A_ANY_VALUE] = {[1] = SL_IS_TEXT, [2] = SL_IS_VARINT, [3] = SL_IS_VARINT, [4] = SL_IS_FIXED64,
                      [5] = SL_IS(SL_A_ARRAY), [6] = SL_IS(SL_A_KEY_VALUES), [7] = SL_IS_BYTES},
    [SL_A_ARRAY] = {[1] = SL_IS(SL_A_ANY_VALUE)},
    [SL_A_KEY_VALUES] = {[1] = SL_IS(SL_A_KEY_VALUE)},
    [SL_A_RESOURCE] = {[1] = SL_IS(SL_A_KEY_VALUE), [2] = SL_IS_VARINT},
    [SL_A_SPAN] = {[1] = SL_IS_BYTES, [2] = SL_IS_BYTES, [3] = SL_IS_TEXT, [4] = SL_IS_BYTES, [5] = SL_IS_TEXT,
                 [6] = SL_IS_VARINT, [7] = SL_IS_FIXED64, [8] = SL_IS_FIXED64, [9] = SL_IS(SL_A_KEY_VALUE),
                 [10] = SL_IS_VARINT, [11] = SL_IS(SL_A_EVENT), [12] = SL_IS_VARINT, [13] = SL_IS(SL_A_LINK),
                 [14] = SL_IS_VARINT, [15] = SL_IS(SL_A_STATUS), [16] = SL_IS_FIXED32},
    [SL_A_EVENT] = {[1] = SL_IS_FIXED64, [2] = SL_IS_TEXT, [3] = SL_IS(SL_A_KEY_VALUE), [4] = SL_IS_VARINT},
    [SL_A_LINK] = {[1] = SL_IS_BYTES, [2] = SL_IS_BYTES, [3] = SL_IS_TEXT, [4] = SL_IS(SL_A_KEY_VALUE),
                 [5] = SL_IS_VARINT, [6] = SL_IS_FIXED32},
    [SL_A_STATUS] = {[2] = SL_IS_TEXT, [3] = SL_IS_VARINT},
};

/* How many bytes the character at *at* has, 0 where it is none: overlong, a surrogate, beyond 10ffff, cut off. */
static inline size_t sl_utf8_size(const uint8_t *at, const uint8_t *end) {
    uint8_t lead = at[0], low = 0x80, high = 0xbf; /* of the second byte */
    size_t size = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (size > (size_t)(end - at)) return 0;
    if (size < 2) return size;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    if (at[1] < low || at[1] > high) return 0;
    for (size_t i = 2; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) return 0;
    }
    return size;
}

static inline bool sl_is_utf8(sl_slice text) {
    const uint8_t *at = text.at, *end = at + text.size;
    while (at < end) {
        uint64_t eight;
        if (end - at >= 8) {
            memcpy(&eight, at, 8);
            if (!(eight & 0x8080808080808080)) {
                at += 8;
                continue;
            }
        }
        size_t size = sl_utf8_size(at, end);
        if (!size) return false;
        at += size;
    }
    return true;
}

/* Whether tag, length and value are written as short as can be. */
static inline bool sl_is_short(const sl_field *field) {
    size_t head = (size_t)(field->value - field->start), body = (size_t)(field->stop - field->value);
    size_t tag = sl_varint_size((uint64_t)field->number << 3 | field->type);
    if (field->type == SL_LENGTH) return body <= SL_PLAIN_BYTES_MAX && head == tag + sl_varint_size(body);
    if (head != tag) return false;
    if (field->type != SL_VARINT) return true;
    return body == sl_varint_size(field->varint) && (body < 10 || field->stop[-1] == 1);
}

static bool sl_is_plain(sl_message_kind kind, sl_slice message, int depth);

static inline bool sl_is_plain_field(sl_message_kind kind, const sl_field *field, int depth) {
    static const uint8_t types[] = {[SL_IS_BYTES] = SL_LENGTH, [SL_IS_TEXT] = SL_LENGTH, [SL_IS_VARINT] = SL_VARINT,
                                    [SL_IS_FIXED64] = SL_FIXED64, [SL_IS_FIXED32] = SL_FIXED32};
    uint8_t shape = field->number < SL_PLAIN_FIELDS ? sl_shapes[kind][field->number] : SL_IS_UNKNOWN;
    if (shape == SL_IS_UNKNOWN || !sl_is_short(field)) return false;
    if (field->type != (shape < SL_IS_MESSAGE ? types[shape] : SL_LENGTH)) return false;
    if (shape == SL_IS_TEXT) return sl_is_utf8(sl_payload(field));
    return shape < SL_IS_MESSAGE || sl_is_plain(shape - SL_IS_MESSAGE, sl_payload(field), depth - 1);
}

/* Whether the message is plain, and all that is in it. */
static bool sl_is_plain(sl_message_kind kind, sl_slice message, int depth) {
    sl_reader reader = sl_reader_of(message);
    sl_field field;
    sl_fault unused;
    uint32_t seen = 0;
    if (depth < 0) return false;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, &unused) || !sl_is_plain_field(kind, &field, depth)) return false;
        if (kind == SL_A_ANY_VALUE && seen) return false;
        if (kind == SL_A_KEY_VALUE && seen >> field.number & 1) return false;
        seen |= 1u << field.number;
    }
    return true;
}

/* Attributes of a plain message. */

typedef struct {
    sl_slice key;
    sl_slice any;      /* the AnyValue */
    sl_field value;    /* its only field; of number 0 where it has none */
} sl_pair;

SL_VECTOR(sl_pairs, sl_pair)

/* A plain KeyValue. */
static inline sl_pair sl_read_pair(sl_slice message) {
    sl_reader reader = sl_reader_of(message);
    sl_field field;
    sl_fault unused;
    sl_pair pair = {.any = {message.at, 0}};
    while (reader.at < reader.end) {
        (void)sl_read_field(&reader, &field, &unused);
        *(field.number == 1 ? &pair.key : &pair.any) = sl_payload(&field);
    }
    reader = sl_reader_of(pair.any);
    if (reader.at < reader.end) (void)sl_read_field(&reader, &pair.value, &unused);
    return pair;
}

/* Append the attributes of a plain message, its fields *number*. */
static inline int sl_collect_pairs(sl_pairs *pairs, sl_slice message, uint32_t number) {
    sl_reader reader = sl_reader_of(message);
    sl_field field;
    sl_fault unused;
    while (reader.at < reader.end) {
        (void)sl_read_field(&reader, &field, &unused);
        if (field.number != number) continue;
        sl_pair *pair = sl_pairs_add(pairs);
        if (!pair) return SL_NO_MEMORY;
        *pair = sl_read_pair(sl_payload(&field));
    }
    return SL_OK;
}

#endif
