/*
 * Records into librdkafka's producer, and the reports on them out of it: a count for each call, no object a record.
 *
 * The library is not linked: it lies inside another extension module, whose symbols are handed over as addresses. The
 * layouts are those of rdkafka.h, which promises to keep them; they are checked at start (adapters/kafka/selftest.py).
 *
 * A report comes on another thread than its record went, so counts are atomic. Whoever takes a count to 0 owns it.
 */
#ifndef SPANLOOM_PRODUCE_H
#define SPANLOOM_PRODUCE_H

#include "fetch.h"

/* rd_kafka_vtype_t */
enum {
    SL_SEND_TOPIC = 2, /* by its handle */
    SL_SEND_PARTITION = 3,
    SL_SEND_VALUE = 4,
    SL_SEND_KEY = 5,
    SL_SEND_OWNER = 6,
    SL_SEND_FLAGS = 7,
    SL_SEND_TIMESTAMP = 8,
    SL_SEND_HEADER = 9,
};

#define SL_SEND_COPIES 0x2  /* RD_KAFKA_MSG_F_COPY: the bytes are ours again when the call returns */
#define SL_SEND_ARGUMENTS 7 /* of a record, beside its headers */

/* rd_kafka_vu_t */
typedef struct {
    int32_t type;
    union {
        void *pointer;
        int32_t number;
        int64_t wide;
        struct {
            const void *at;
            size_t size;
        } bytes;
        struct {
            const char *name;
            const void *at;
            ssize_t size;
        } header;
        char padding[64];
    } of;
} sl_argument;

typedef struct {
    void *(*produce)(void *producer, const sl_argument *arguments, size_t count); /* NULL, or an error */
    int32_t (*error_code)(const void *error);
    void (*error_destroy)(void *error);
    void *(*poll)(void *queue, int timeout_ms);
    const sl_message *(*next)(void *event); /* NULL: no more, or the event is of another kind */
    void (*event_destroy)(void *event);
} sl_producing;

/* What is still to be heard of one call's records. */
typedef struct sl_pending {
    void *owner;  /* borrowed by C; whoever ends the count gives it back */
    int64_t left; /* atomic */
    int32_t error; /* atomic: the first one's code; 0 is none */
    struct sl_pending *next; /* in a list of those that have ended */
} sl_pending;

/* One record at a time, in the same memory. */
typedef struct {
    sl_argument *of; /* owned: room for that many */
    size_t count, room;
} sl_record_out;

static inline sl_argument *sl_send_add(sl_record_out *record, int32_t type) {
    sl_argument *argument = &record->of[record->count++];
    argument->type = type;
    return argument;
}

/* Begin anew, for a record with so many headers; false: no memory. */
static inline bool sl_send_room(sl_record_out *record, size_t headers) {
    size_t room = SL_SEND_ARGUMENTS + headers;
    record->count = 0;
    if (room <= record->room) return true;
    sl_argument *grown = realloc(record->of, room * sizeof *grown);
    if (!grown) return false;
    record->of = grown;
    record->room = room;
    return true;
}

static inline void sl_send_to(sl_record_out *record, void *topic, int32_t partition, sl_pending *pending) {
    sl_send_add(record, SL_SEND_TOPIC)->of.pointer = topic;
    sl_send_add(record, SL_SEND_PARTITION)->of.number = partition;
    sl_send_add(record, SL_SEND_FLAGS)->of.number = SL_SEND_COPIES;
    sl_send_add(record, SL_SEND_OWNER)->of.pointer = pending;
}

/* A part of the record: SL_SEND_VALUE or SL_SEND_KEY. */
static inline void sl_send_bytes(sl_record_out *record, int32_t type, const void *at, size_t size) {
    sl_argument *argument = sl_send_add(record, type);
    argument->of.bytes.at = at;
    argument->of.bytes.size = size;
}

static inline void sl_send_timestamp(sl_record_out *record, int64_t timestamp_ms) {
    sl_send_add(record, SL_SEND_TIMESTAMP)->of.wide = timestamp_ms;
}

static inline void sl_send_header(sl_record_out *record, const char *name, const void *at, size_t size) {
    sl_argument *argument = sl_send_add(record, SL_SEND_HEADER);
    argument->of.header.name = name;
    argument->of.header.at = at;
    argument->of.header.size = (ssize_t)size;
}

/* Hand the record over; 0 or an error's code, and then there will be no report on it. */
static inline int32_t sl_send(const sl_producing *kafka, void *producer, const sl_record_out *record) {
    void *error = kafka->produce(producer, record->of, record->count);
    if (!error) return 0;
    int32_t code = kafka->error_code(error);
    kafka->error_destroy(error);
    return code;
}

/* So many records less will be reported on; true where none is left. */
static inline bool sl_pending_less(sl_pending *pending, int64_t count) {
    return !__atomic_sub_fetch(&pending->left, count, __ATOMIC_ACQ_REL);
}

static inline void sl_pending_report(sl_pending *pending, int32_t error, sl_pending **ended) {
    int32_t none = 0;
    if (error) {
        __atomic_compare_exchange_n(&pending->error, &none, error, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    if (!sl_pending_less(pending, 1)) return;
    pending->next = *ended;
    *ended = pending;
}

/* Wait for reports, at most so long, then take all there are; the counts that ended, linked. */
static inline sl_pending *sl_settle(const sl_producing *kafka, void *queue, int timeout_ms) {
    sl_pending *ended = NULL;
    for (void *event = kafka->poll(queue, timeout_ms); event; event = kafka->poll(queue, 0)) {
        for (const sl_message *message; (message = kafka->next(event));) {
            sl_pending_report(message->owner, message->error, &ended);
        }
        kafka->event_destroy(event);
    }
    return ended;
}

#endif
