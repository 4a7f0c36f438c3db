/*
 * The scanner: a record's resources, scopes and spans, in order, into scratch vectors that are used again.
 * A span with a bad id is counted and left out; the caller decides whether the record can still be used.
 */
#ifndef SPANLOOM_SCAN_H
#define SPANLOOM_SCAN_H

#include "answers.h"
#include "wire.h"

#define SL_NONE UINT32_MAX
#define SL_NS_PER_MS 1000000
#define SL_SCRATCH_BYTES_MAX (1u << 20) /* scratch above this is given back after the record that needed it */

typedef struct {
    sl_slice message; /* the ResourceSpans */
    uint32_t run_first, run_count;
    size_t frame_bytes; /* of its runs */
    sl_slice service;
    size_t body_bytes;          /* scratch of frame.h */
    const uint8_t *service_copy; /* scratch of frame.h */
    sl_bits answers;            /* scratch of predicates.h: its attributes' and its service's... */
    bool is_asked;              /* ...once it was asked */
} sl_resource;

typedef struct {
    uint32_t run_first, run_count;
    size_t frame_bytes;
    size_t body_bytes; /* scratch of frame.h */
} sl_scope;

typedef struct {
    sl_slice body; /* the Span message */
    sl_slice name;
    sl_id trace_id;
    uint64_t span_id; /* big-endian number, never 0 */
    uint64_t parent;  /* likewise; 0: a root */
    uint64_t start_unix_ns, end_unix_ns;
    uint32_t resource, scope; /* indices */
    uint32_t trace;           /* index of its trace in the record; traces.h */
    uint32_t next;            /* the next span of a chain, or SL_NONE */
    const uint8_t *copy;      /* scratch of frame.h: where its body went */
    const uint8_t *attributes; /* where the first of them begins in the body; NULL: it has none */
    sl_slice trace_state;
    uint8_t kind;
    uint8_t status; /* its code, or SL_STATUS_CODES for one beyond */
    bool error;
    bool is_flagged; /* W3C's flag `sampled` */
} sl_span;

SL_VECTOR(sl_resources, sl_resource)
SL_VECTOR(sl_scopes, sl_scope)
SL_VECTOR(sl_spans, sl_span)
SL_VECTOR(sl_runs, sl_slice)

typedef struct {
    const uint8_t *base;
    sl_resources resources; /* those with a span */
    sl_scopes scopes;       /* likewise */
    sl_spans spans;         /* those with good ids */
    sl_runs runs;           /* stretches of fields to be carried along */
    size_t rejected;        /* spans with a bad id */
    sl_fault rejection;     /* why the first of them was */
} sl_scan;

static inline void sl_scan_reset(sl_scan *scan) {
    sl_resources_reset(&scan->resources, SL_SCRATCH_BYTES_MAX);
    sl_scopes_reset(&scan->scopes, SL_SCRATCH_BYTES_MAX);
    sl_spans_reset(&scan->spans, SL_SCRATCH_BYTES_MAX);
    sl_runs_reset(&scan->runs, SL_SCRATCH_BYTES_MAX);
    scan->rejected = 0;
}

static inline void sl_scan_free(sl_scan *scan) {
    sl_resources_free(&scan->resources);
    sl_scopes_free(&scan->scopes);
    sl_spans_free(&scan->spans);
    sl_runs_free(&scan->runs);
}

/* Carry a field along, as part of the run that ends where it starts or as a new one. */
static inline int sl_carry(sl_scan *scan, uint32_t run_first, const sl_field *field) {
    size_t size = (size_t)(field->stop - field->start);
    if (scan->runs.count > run_first) {
        sl_slice *last = &scan->runs.items[scan->runs.count - 1];
        if (last->at + last->size == field->start) {
            last->size += size;
            return SL_OK;
        }
    }
    sl_slice *run = sl_runs_add(&scan->runs);
    if (!run) return SL_NO_MEMORY;
    *run = (sl_slice){field->start, size};
    return SL_OK;
}

/* Check the framing of the message; carry all its fields but number 2. */
static inline int sl_scan_frame(sl_scan *scan, sl_reader reader, size_t *frame_bytes, sl_fault *fault) {
    uint32_t run_first = (uint32_t)scan->runs.count;
    sl_field field;
    *frame_bytes = 0;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number == 2) continue;
        if (sl_carry(scan, run_first, &field)) return SL_NO_MEMORY;
        *frame_bytes += (size_t)(field.stop - field.start);
    }
    return SL_OK;
}

/* The status code, where the Status says one. */
static inline int sl_scan_status(sl_reader reader, uint64_t *code, sl_fault *fault) {
    sl_field field;
    if (sl_check_framing(reader, fault)) return SL_MALFORMED;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number != 3) continue;
        if (sl_check_type(&reader, &field, SL_VARINT, fault)) return SL_MALFORMED;
        *code = field.varint;
    }
    return SL_OK;
}

typedef struct {
    sl_slice trace_id, span_id, parent, name, trace_state;
    uint64_t kind, start_unix_ns, end_unix_ns, code;
    const uint8_t *attributes;
    uint32_t flags;
} sl_span_fields;

/* Take in a field above 8 that only predicates look at; one of another wire type than it must have says nothing. */
static inline void sl_note_span_field(const sl_field *field, sl_span_fields *to) {
    if (field->number == 9) {
        if (!to->attributes && field->type == SL_LENGTH) to->attributes = field->start;
    } else if (field->number == 16 && field->type == SL_FIXED32) {
        to->flags = sl_load32(field->value);
    }
}

#define SL_ANY_TYPE 7 /* no wire type: a field that is never a fault */

/* Take in one field of a span, of number 1 to 8 or 15. */
static inline int sl_scan_span_field(const sl_reader *reader, const sl_field *field, sl_span_fields *to,
                                     sl_fault *fault) {
    static const uint8_t types[16] = {
        [1] = SL_LENGTH, [2] = SL_LENGTH, [3] = SL_ANY_TYPE, [4] = SL_LENGTH, [5] = SL_LENGTH, [6] = SL_VARINT,
        [7] = SL_FIXED64, [8] = SL_FIXED64, [15] = SL_LENGTH,
    };
    uint8_t type = types[field->number];
    if (type != SL_ANY_TYPE && sl_check_type(reader, field, type, fault)) return SL_MALFORMED;
    switch (field->number) {
    case 1: to->trace_id = sl_payload(field); break;
    case 2: to->span_id = sl_payload(field); break;
    case 3:
        if (field->type == SL_LENGTH) to->trace_state = sl_payload(field);
        break;
    case 4: to->parent = sl_payload(field); break;
    case 5: to->name = sl_payload(field); break;
    case 6: to->kind = field->varint; break;
    case 7: to->start_unix_ns = sl_load64(field->value); break;
    case 8: to->end_unix_ns = sl_load64(field->value); break;
    default: return sl_scan_status(sl_inside(reader, field), &to->code, fault);
    }
    return SL_OK;
}

/* Every field of a span. A fault below its level counts only once its own framing is known to be whole. */
static inline int sl_scan_span_fields(sl_reader reader, sl_span_fields *to, sl_fault *fault) {
    sl_field field;
    sl_fault below;
    below.kind = SL_FAULT_NONE;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number > 8 && field.number != 15) {
            sl_note_span_field(&field, to);
            continue;
        }
        if (below.kind == SL_FAULT_NONE) (void)sl_scan_span_field(&reader, &field, to, &below);
    }
    if (below.kind == SL_FAULT_NONE) return SL_OK;
    *fault = below;
    return SL_MALFORMED;
}

static inline bool sl_is_zero(sl_slice slice) {
    for (size_t i = 0; i < slice.size; i++) {
        if (slice.at[i]) return false;
    }
    return true;
}

/* Why a span's ids cannot be used, and the id at fault. */
static inline sl_fault_kind sl_id_fault(const sl_span_fields *fields, sl_slice *found) {
    *found = fields->trace_id;
    if (fields->trace_id.size != 16 || sl_is_zero(fields->trace_id)) return SL_FAULT_TRACE_ID;
    *found = fields->span_id;
    if (fields->span_id.size != 8 || sl_is_zero(fields->span_id)) return SL_FAULT_SPAN_ID;
    *found = sl_is_zero(fields->parent) ? (sl_slice){NULL, 0} : fields->parent;
    if (fields->parent.size != 0 && fields->parent.size != 8) return SL_FAULT_PARENT_SPAN_ID;
    return SL_FAULT_NONE;
}

static inline int sl_scan_span(sl_scan *scan, sl_reader reader, sl_fault *fault) {
    sl_span_fields fields = {0};
    if (sl_scan_span_fields(reader, &fields, fault)) return SL_MALFORMED;
    sl_slice found;
    sl_fault_kind bad = sl_id_fault(&fields, &found);
    if (bad != SL_FAULT_NONE) {
        if (!scan->rejected++) {
            scan->rejection = (sl_fault){.kind = bad, .position = (size_t)(reader.at - scan->base), .id = found};
        }
        return SL_OK;
    }
    sl_span *span = sl_spans_add(&scan->spans);
    if (!span) return SL_NO_MEMORY;
    span->body = (sl_slice){reader.at, (size_t)(reader.end - reader.at)};
    span->name = fields.name;
    span->trace_id = sl_load_id(fields.trace_id.at);
    span->span_id = sl_load_be64(fields.span_id.at);
    span->parent = fields.parent.size ? sl_load_be64(fields.parent.at) : 0;
    span->start_unix_ns = fields.start_unix_ns;
    span->end_unix_ns = fields.end_unix_ns;
    span->resource = (uint32_t)scan->resources.count - 1;
    span->scope = (uint32_t)scan->scopes.count - 1;
    span->next = SL_NONE;
    span->attributes = fields.attributes;
    span->trace_state = fields.trace_state;
    span->kind = fields.kind & 0xff;
    span->status = fields.code < SL_STATUS_CODES ? (uint8_t)fields.code : SL_STATUS_CODES;
    span->error = fields.code == SL_STATUS_ERROR;
    span->is_flagged = fields.flags & 1;
    return SL_OK;
}

static inline int sl_scan_scope(sl_scan *scan, sl_reader reader, sl_fault *fault) {
    size_t spans = scan->spans.count;
    uint32_t run_first = (uint32_t)scan->runs.count;
    size_t frame_bytes;
    int status = sl_scan_frame(scan, reader, &frame_bytes, fault);
    if (status) return status;
    sl_scope *scope = sl_scopes_add(&scan->scopes);
    if (!scope) return SL_NO_MEMORY;
    *scope = (sl_scope){run_first, (uint32_t)scan->runs.count - run_first, frame_bytes, 0};
    sl_field field;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number != 2) continue;
        if (sl_check_type(&reader, &field, SL_LENGTH, fault)) return SL_MALFORMED;
        if ((status = sl_scan_span(scan, sl_inside(&reader, &field), fault))) return status;
    }
    if (scan->spans.count == spans) { /* nobody will ask for it */
        scan->scopes.count--;
        scan->runs.count = run_first;
    }
    return SL_OK;
}

/* The first non-empty string in the AnyValue; positions count from its start. */
static inline int sl_scan_text(sl_slice value, sl_slice *text, sl_fault *fault) {
    sl_reader reader = {value.at, value.at, value.at + value.size};
    sl_field field;
    if (!value.size) return SL_OK;
    if (sl_check_framing(reader, fault)) return SL_MALFORMED;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number == 1 && field.type == SL_LENGTH && field.stop > field.value) {
            *text = sl_payload(&field);
            return SL_OK;
        }
    }
    return SL_OK;
}

/* The attribute's text, where its key is `service.name`. */
static inline int sl_scan_attribute(sl_reader reader, sl_slice *service, sl_fault *fault) {
    static const char name[] = "service.name";
    sl_slice key = {NULL, 0}, value = {NULL, 0};
    sl_field field;
    if (sl_check_framing(reader, fault)) return SL_MALFORMED;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number != 1 && field.number != 2) continue;
        if (sl_check_type(&reader, &field, SL_LENGTH, fault)) return SL_MALFORMED;
        *(field.number == 1 ? &key : &value) = sl_payload(&field);
    }
    if (key.size != sizeof name - 1 || memcmp(key.at, name, key.size)) return SL_OK;
    return sl_scan_text(value, service, fault);
}

/* The Resource's service name, empty if none. */
static inline int sl_scan_service(sl_reader reader, sl_slice *service, sl_fault *fault) {
    sl_field field;
    if (sl_check_framing(reader, fault)) return SL_MALFORMED;
    while (reader.at < reader.end && !service->size) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number != 1) continue;
        if (sl_check_type(&reader, &field, SL_LENGTH, fault)) return SL_MALFORMED;
        if (sl_scan_attribute(sl_inside(&reader, &field), service, fault)) return SL_MALFORMED;
    }
    return SL_OK;
}

/* The service name of a ResourceSpans whose framing is whole. */
static inline int sl_scan_resource(sl_reader reader, sl_slice *service, sl_fault *fault) {
    sl_field field;
    *service = (sl_slice){NULL, 0};
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number != 1) continue;
        if (sl_check_type(&reader, &field, SL_LENGTH, fault)) return SL_MALFORMED;
        if (!service->size && sl_scan_service(sl_inside(&reader, &field), service, fault)) return SL_MALFORMED;
    }
    return SL_OK;
}

static inline int sl_scan_resource_spans(sl_scan *scan, sl_reader reader, sl_fault *fault) {
    size_t spans = scan->spans.count;
    uint32_t run_first = (uint32_t)scan->runs.count;
    size_t frame_bytes;
    sl_slice service, message = {reader.at, (size_t)(reader.end - reader.at)};
    int status = sl_scan_frame(scan, reader, &frame_bytes, fault);
    if (status) return status;
    if (sl_scan_resource(reader, &service, fault)) return SL_MALFORMED;
    sl_resource *resource = sl_resources_add(&scan->resources);
    if (!resource) return SL_NO_MEMORY;
    uint32_t run_count = (uint32_t)scan->runs.count - run_first;
    *resource = (sl_resource){
        .message = message, .run_first = run_first, .run_count = run_count, .frame_bytes = frame_bytes,
        .service = service,
    };
    sl_field field;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number != 2) continue;
        if (sl_check_type(&reader, &field, SL_LENGTH, fault)) return SL_MALFORMED;
        if ((status = sl_scan_scope(scan, sl_inside(&reader, &field), fault))) return status;
    }
    if (scan->spans.count == spans) {
        scan->resources.count--;
        scan->runs.count = run_first;
    }
    return SL_OK;
}

/* Scan a record. SL_MALFORMED: *fault says where its framing is; bad ids are in scan->rejected. */
static inline int sl_scan_record(sl_scan *scan, sl_slice record, sl_fault *fault) {
    sl_reader reader = {record.at, record.at, record.at + record.size};
    sl_field field;
    sl_scan_reset(scan);
    scan->base = record.at;
    if (sl_check_framing(reader, fault)) return SL_MALFORMED;
    while (reader.at < reader.end) {
        if (sl_read_field(&reader, &field, fault)) return SL_MALFORMED;
        if (field.number != 1) continue;
        if (sl_check_type(&reader, &field, SL_LENGTH, fault)) return SL_MALFORMED;
        int status = sl_scan_resource_spans(scan, sl_inside(&reader, &field), fault);
        if (status) return status;
    }
    return SL_OK;
}

#endif
