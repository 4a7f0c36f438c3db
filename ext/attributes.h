/*
 * Attributes of a Resource or a Span, as predicates look at them: KeyValue { 1 key, 2 AnyValue }. One whose framing is
 * malformed counts as absent; of a field that stands twice the last counts.
 */
#ifndef SPANLOOM_ATTRIBUTES_H
#define SPANLOOM_ATTRIBUTES_H

#include "wire.h"

typedef enum { SL_VALUE_OTHER, SL_VALUE_TEXT, SL_VALUE_TRUTH, SL_VALUE_INTEGER } sl_value_kind;

typedef struct {
    sl_value_kind kind;
    sl_slice text;
    int64_t number; /* of a truth 0 or 1 */
} sl_value;

static inline sl_reader sl_reader_of(sl_slice message) {
    return (sl_reader){message.at, message.at, message.at + message.size};
}

/* Take in a field of an AnyValue; one of another wire type than it must have says nothing. */
static inline void sl_take_value(const sl_field *field, sl_value *to) {
    static const uint8_t types[8] = {[1] = SL_LENGTH, [2] = SL_VARINT, [3] = SL_VARINT, [4] = SL_FIXED64,
                                     [5] = SL_LENGTH, [6] = SL_LENGTH, [7] = SL_LENGTH};
    if (field->number > 7 || field->type != types[field->number]) return;
    *to = (sl_value){SL_VALUE_OTHER, {NULL, 0}, 0};
    switch (field->number) {
    case 1: *to = (sl_value){SL_VALUE_TEXT, sl_payload(field), 0}; break;
    case 2: *to = (sl_value){SL_VALUE_TRUTH, {NULL, 0}, field->varint != 0}; break;
    case 3: *to = (sl_value){SL_VALUE_INTEGER, {NULL, 0}, (int64_t)field->varint}; break;
    default: break;
    }
}

/* An AnyValue; false where its framing is malformed. */
static inline bool sl_read_value(sl_slice message, sl_value *to) {
    sl_reader reader = sl_reader_of(message);
    sl_field field;
    sl_fault unused;
    *to = (sl_value){SL_VALUE_OTHER, {NULL, 0}, 0};
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, &unused)) return false;
        sl_take_value(&field, to);
    }
    return true;
}

/* A KeyValue in two halves. */
typedef struct {
    sl_slice key;
    sl_slice value; /* the AnyValue, where is_usual; else the whole KeyValue */
    bool is_usual;
} sl_attribute;

/* As every sender writes it: a short key, then a value below 16 KiB, and nothing else. */
static inline bool sl_read_usual_attribute(sl_slice message, sl_attribute *to) {
    const uint8_t *at = message.at, *end = at + message.size;
    if (message.size < 4 || at[0] != 0x0a || at[1] >= 0x80 || message.size < 4 + (size_t)at[1]) return false;
    to->key = (sl_slice){at + 2, at[1]};
    at += 2 + at[1];
    if (at[0] != 0x12) return false;
    size_t size = at[1], head = 2;
    if (size >= 0x80) {
        if (end - at < 3 || at[2] >= 0x80) return false;
        size = (size & 0x7f) | (size_t)at[2] << 7;
        head = 3;
    }
    to->value = (sl_slice){at + head, size};
    return size == (size_t)(end - at) - head;
}

/* Find the key; false where the framing is malformed. */
static inline bool sl_read_attribute(sl_slice message, sl_attribute *to) {
    to->is_usual = sl_read_usual_attribute(message, to);
    if (to->is_usual) return true;
    sl_reader reader = sl_reader_of(message);
    sl_field field;
    sl_fault unused;
    *to = (sl_attribute){{NULL, 0}, message, false};
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, &unused)) return false;
        if (field.number == 1 && field.type == SL_LENGTH) to->key = sl_payload(&field);
    }
    return true;
}

/* Its value; false where the framing of a value in it is malformed. */
static inline bool sl_read_attribute_value(const sl_attribute *attribute, sl_value *to) {
    if (attribute->is_usual) return sl_read_value(attribute->value, to);
    sl_reader reader = sl_reader_of(attribute->value);
    sl_field field;
    sl_fault unused;
    *to = (sl_value){SL_VALUE_OTHER, {NULL, 0}, 0};
    while (reader.at < reader.end) {
        (void)sl_read_field(&reader, &field, &unused);
        if (field.number == 2 && field.type == SL_LENGTH && !sl_read_value(sl_payload(&field), to)) return false;
    }
    return true;
}

#endif
