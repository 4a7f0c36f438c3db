/*
 * OTLP protobuf as the kernel reads it: find the spans of a TracesData, touch nothing else. The twin in
 * src/spanloom/core/_pure/wire.py is the specification; the first fault is the same, byte for byte.
 *
 *   TracesData     1 ResourceSpans ...
 *   ResourceSpans  1 Resource { 1 KeyValue { 1 key, 2 AnyValue { 1 string } } ... }, 2 ScopeSpans ...
 *   ScopeSpans     2 Span ...
 *   Span           1 trace id, 2 span id, 4 parent id, 5 name, 6 kind, 7 start, 8 end, 15 Status { 3 code };
 *                  for predicates alone, and never a fault: 3 tracestate, 9 KeyValue ..., 16 flags
 *
 * A field is a tag (varint: number << 3 | wire type) and a payload: 0 varint, 1 eight bytes, 2 varint length and that
 * many bytes, 5 four bytes. The framing of a level is checked as a whole before anything below it is looked at.
 * Everything found is borrowed from the record.
 */
#ifndef SPANLOOM_WIRE_H
#define SPANLOOM_WIRE_H

#include <stdbool.h>

#include "hashes.h"
#include "memory.h"

enum { SL_VARINT = 0, SL_FIXED64 = 1, SL_LENGTH = 2, SL_FIXED32 = 5 };

#define SL_FIELD_NUMBER_MAX ((1u << 29) - 1)
#define SL_STATUS_ERROR 2
#define SL_STATUS_CODES 32 /* that a predicate can ask for */

typedef struct {
    const uint8_t *at;
    size_t size;
} sl_slice;

/* A trace id: its 16 bytes as two big-endian numbers, so that their order is that of the bytes. */
typedef struct {
    uint64_t high, low;
} sl_id;

static inline bool sl_same_id(sl_id a, sl_id b) { return a.high == b.high && a.low == b.low; }

/* Written out, because compilers make one instruction of this, and of a loop none do at -O2. */
static inline uint64_t sl_load_be64(const uint8_t *at) {
    return (uint64_t)at[0] << 56 | (uint64_t)at[1] << 48 | (uint64_t)at[2] << 40 | (uint64_t)at[3] << 32 |
           (uint64_t)at[4] << 24 | (uint64_t)at[5] << 16 | (uint64_t)at[6] << 8 | at[7];
}

static inline sl_id sl_load_id(const uint8_t *at) { return (sl_id){sl_load_be64(at), sl_load_be64(at + 8)}; }

typedef enum {
    SL_FAULT_NONE,
    SL_FAULT_TRUNCATED,     /* a + b bytes expected, c there */
    SL_FAULT_OPEN_VARINT,   /* the message ends within a varint */
    SL_FAULT_LONG_VARINT,   /* more than 10 bytes */
    SL_FAULT_FIELD_NUMBER,  /* a found */
    SL_FAULT_WIRE_TYPE,     /* a found, which no field may have */
    SL_FAULT_OTHER_TYPE,    /* a found, b expected for field c */
    SL_FAULT_TRACE_ID,      /* `id` found; these three make a span unusable, not the framing */
    SL_FAULT_SPAN_ID,
    SL_FAULT_PARENT_SPAN_ID,
    SL_FAULT_MOVED_TWICE,   /* the assembler's: a and b are the least of the trace ids */
} sl_fault_kind;

typedef struct {
    sl_fault_kind kind;
    size_t position; /* bytes from the start of what is read */
    uint64_t a, b, c;
    sl_slice id;
} sl_fault;

typedef struct {
    const uint8_t *base, *at, *end; /* base: where positions count from */
} sl_reader;

typedef struct {
    uint32_t number;
    uint8_t type;
    const uint8_t *start, *value, *stop; /* the field is start .. stop, its payload value .. stop */
    uint64_t varint;
} sl_field;

static inline int sl_faulty(sl_fault *fault, sl_fault_kind kind, const sl_reader *reader, const uint8_t *start) {
    *fault = (sl_fault){.kind = kind, .position = (size_t)(start - reader->base)};
    return SL_MALFORMED;
}

static inline int sl_read_varint(sl_reader *reader, const uint8_t *start, uint64_t *value, sl_fault *fault) {
    uint64_t sum = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (reader->at >= reader->end) return sl_faulty(fault, SL_FAULT_OPEN_VARINT, reader, start);
        uint8_t byte = *reader->at++;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *value = sum;
            return SL_OK;
        }
    }
    return sl_faulty(fault, SL_FAULT_LONG_VARINT, reader, start);
}

/* Step over *size* bytes of payload. */
static inline int sl_take_payload(sl_reader *reader, sl_field *field, uint64_t size, sl_fault *fault) {
    field->value = reader->at;
    if (size > (uint64_t)(reader->end - reader->at)) {
        sl_faulty(fault, SL_FAULT_TRUNCATED, reader, field->start);
        fault->a = size;
        fault->b = (uint64_t)(reader->at - field->start);
        fault->c = (uint64_t)(reader->end - field->start);
        return SL_MALFORMED;
    }
    reader->at += size;
    field->stop = reader->at;
    return SL_OK;
}

/* Any field; see sl_read_field. */
static inline int sl_read_any_field(sl_reader *reader, sl_field *field, sl_fault *fault) {
    uint64_t tag, size;
    const uint8_t *start = reader->at;
    field->start = start;
    if (sl_read_varint(reader, start, &tag, fault)) return SL_MALFORMED;
    uint64_t number = tag >> 3;
    if (number == 0 || number > SL_FIELD_NUMBER_MAX) {
        sl_faulty(fault, SL_FAULT_FIELD_NUMBER, reader, start);
        fault->a = number;
        return SL_MALFORMED;
    }
    field->number = (uint32_t)number;
    field->type = tag & 7;
    switch (field->type) {
    case SL_LENGTH:
        if (sl_read_varint(reader, start, &size, fault)) return SL_MALFORMED;
        return sl_take_payload(reader, field, size, fault);
    case SL_VARINT:
        field->value = reader->at;
        if (sl_read_varint(reader, start, &field->varint, fault)) return SL_MALFORMED;
        field->stop = reader->at;
        return SL_OK;
    case SL_FIXED64:
        return sl_take_payload(reader, field, 8, fault);
    case SL_FIXED32:
        return sl_take_payload(reader, field, 4, fault);
    default:
        sl_faulty(fault, SL_FAULT_WIRE_TYPE, reader, start);
        fault->a = field->type;
        return SL_MALFORMED;
    }
}

/* The next field of a message that is not at its end. Here the usual ones: short tag, payload below 16 KiB. */
static inline int sl_read_field(sl_reader *reader, sl_field *field, sl_fault *fault) {
    const uint8_t *at = reader->at;
    ptrdiff_t left = reader->end - at;
    if (left < 3 || at[0] < 8 || at[0] >= 0x80) return sl_read_any_field(reader, field, fault);
    ptrdiff_t head = 1, size;
    field->type = at[0] & 7;
    switch (field->type) {
    case SL_LENGTH:
        size = at[1];
        head = 2;
        if (size >= 0x80) {
            if (at[2] >= 0x80) return sl_read_any_field(reader, field, fault);
            size = (size & 0x7f) | (ptrdiff_t)at[2] << 7;
            head = 3;
        }
        break;
    case SL_FIXED64:
        size = 8;
        break;
    case SL_VARINT:
        if (at[1] >= 0x80) return sl_read_any_field(reader, field, fault);
        field->varint = at[1];
        size = 1;
        break;
    default:
        return sl_read_any_field(reader, field, fault);
    }
    if (size > left - head) return sl_read_any_field(reader, field, fault);
    field->number = at[0] >> 3;
    field->start = at;
    field->value = at + head;
    reader->at = field->stop = at + head + size;
    return SL_OK;
}

/* Whether a known field has the wire type it must have. */
static inline int sl_check_type(const sl_reader *reader, const sl_field *field, uint8_t type, sl_fault *fault) {
    if (field->type == type) return SL_OK;
    sl_faulty(fault, SL_FAULT_OTHER_TYPE, reader, field->start);
    fault->a = field->type;
    fault->b = type;
    fault->c = field->number;
    return SL_MALFORMED;
}

/* Read the message to its end; SL_OK if its framing is whole. */
static inline int sl_check_framing(sl_reader reader, sl_fault *fault) {
    sl_field field;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
    }
    return SL_OK;
}

static inline sl_reader sl_inside(const sl_reader *reader, const sl_field *field) {
    return (sl_reader){reader->base, field->value, field->stop};
}

static inline sl_slice sl_payload(const sl_field *field) {
    return (sl_slice){field->value, (size_t)(field->stop - field->value)};
}

#endif
