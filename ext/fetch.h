/*
 * Records out of librdkafka's queues, read where they lie: a batch owns its messages, and destroys them at its end.
 * Until then it holds on to their fetch buffers, so it is made just before it is fed; rd_kafka_destroy() would wait for
 * it for ever (fetch.pyx, Memory.release).
 *
 * The library is not linked: it lies inside another extension module, whose symbols are handed over as addresses.
 * rd_kafka_message_t is public and never changes; the layout is checked at start (fetch.pyx).
 */
#ifndef SPANLOOM_FETCH_H
#define SPANLOOM_FETCH_H

#include <sys/types.h> /* ssize_t */

#include "reading.h"

typedef struct {
    int32_t error;
    void *topic;
    int32_t partition;
    void *payload;
    size_t payload_bytes;
    void *key;
    size_t key_bytes;
    int64_t offset;
    void *owner;
} sl_message; /* rd_kafka_message_t */

typedef struct sl_headers sl_headers; /* rd_kafka_headers_t */

typedef struct {
    ssize_t (*consume_batch)(void *queue, int timeout_ms, sl_message **messages, size_t count);
    int64_t (*timestamp)(const sl_message *message, int *kind);
    int (*headers)(const sl_message *message, sl_headers **headers);
    int (*header)(const sl_headers *headers, size_t index, const char **name, const void **value, size_t *size);
    const char *(*error_text)(const sl_message *message);
    void (*destroy)(sl_message *message);
} sl_kafka;

typedef struct {
    sl_kafka kafka;
    const char *moved_name; /* of the header that a moved record has */
    int64_t ms_max;
} sl_fetch_rules;

/* The message of a record. */
typedef struct {
    sl_message *message; /* owned */
    int64_t timestamp_ms;
    const sl_fetch_rules *rules;
} sl_held;

typedef struct {
    sl_record *records; /* owned: the start of the one allocation */
    sl_held *held;      /* in it too: a record's is_moved is asked about its own */
    size_t count;
} sl_fetched;

#define SL_ERROR_TEXT_BYTES 256

/* An error in the queue, in place of a record. */
typedef struct {
    int32_t code; /* 0: none */
    char text[SL_ERROR_TEXT_BYTES];
} sl_problem;

/* A header of the message; false: it has no more. */
static inline bool sl_header_at(const sl_kafka *kafka, const sl_headers *headers, size_t index, const char **name,
                                sl_slice *value) {
    const void *at;
    if (kafka->header(headers, index, name, &at, &value->size)) return false;
    *value = (sl_slice){at, at ? value->size : 0};
    return true;
}

/* Its headers are parsed when they are first asked for; few are ever asked for. */
static inline const sl_headers *sl_headers_of(const sl_held *held) {
    sl_headers *headers;
    return held->rules->kafka.headers(held->message, &headers) ? NULL : headers;
}

/* See sl_record. */
static bool sl_held_is_moved(const void *about) {
    const sl_held *held = about;
    const sl_headers *headers = sl_headers_of(held);
    const char *name;
    sl_slice value;
    for (size_t i = 0; headers && sl_header_at(&held->rules->kafka, headers, i, &name, &value); i++) {
        if (!strcmp(name, held->rules->moved_name)) return true;
    }
    return false;
}

/* In ns; what no clock says is brought into the range that 63 bits hold. */
static inline int64_t sl_fetch_ns(int64_t ms, int64_t ms_max) {
    if (ms > ms_max) ms = ms_max;
    if (ms < -ms_max) ms = -ms_max;
    return ms * 1000000;
}

static inline void sl_fetch_record(sl_fetched *to, sl_message *message, const sl_fetch_rules *rules) {
    sl_held *held = &to->held[to->count];
    *held = (sl_held){message, rules->kafka.timestamp(message, NULL), rules};
    to->records[to->count++] = (sl_record){
        .value = {message->payload, message->payload ? message->payload_bytes : 0},
        .offset = (uint64_t)message->offset,
        .timestamp_ns = sl_fetch_ns(held->timestamp_ms, rules->ms_max),
        .is_moved = sl_held_is_moved,
        .about = held,
    };
}

/* How many messages from the first on are records: what comes after an error would leave a gap. */
static inline size_t sl_fetch_sound(const sl_kafka *kafka, sl_message **messages, size_t count, sl_problem *problem) {
    for (size_t i = 0; i < count; i++) {
        if (!messages[i]->error) continue;
        const char *text = kafka->error_text(messages[i]);
        problem->code = messages[i]->error;
        strncpy(problem->text, text ? text : "", SL_ERROR_TEXT_BYTES - 1);
        problem->text[SL_ERROR_TEXT_BYTES - 1] = '\0';
        return i;
    }
    return count;
}

static inline int sl_fetch_messages(sl_message **messages, size_t count, int64_t from, const sl_fetch_rules *rules,
                                    sl_fetched *to) {
    to->records = sl_alloc(count * (sizeof(sl_record) + sizeof(sl_held)));
    if (!to->records) return SL_NO_MEMORY;
    to->held = (sl_held *)(to->records + count);
    for (size_t i = 0; i < count; i++) {
        if (i + 1 < count) sl_prefetch(messages[i + 1], sizeof(sl_message));
        if (messages[i]->offset < from) continue;
        from = messages[i]->offset + 1;
        sl_fetch_record(to, messages[i], rules);
        messages[i] = NULL;
    }
    return SL_OK;
}

/*
 * Take at most *most* messages from a queue without waiting, and those from offset *from* on for records, up to an
 * error. *slots* has room for *most*. On SL_NO_MEMORY what was taken is gone: the partition must be fetched anew.
 */
static inline int sl_fetch(void *queue, sl_message **slots, size_t most, int64_t from, const sl_fetch_rules *rules,
                           sl_fetched *to, sl_problem *problem) {
    *to = (sl_fetched){0};
    problem->code = 0;
    ssize_t taken = rules->kafka.consume_batch(queue, 0, slots, most);
    if (taken <= 0) return SL_OK;
    size_t sound = sl_fetch_sound(&rules->kafka, slots, (size_t)taken, problem);
    int status = sound ? sl_fetch_messages(slots, sound, from, rules, to) : SL_OK;
    for (ssize_t i = 0; i < taken; i++) {
        if (slots[i]) rules->kafka.destroy(slots[i]);
    }
    return status;
}

/* Give the messages back to librdkafka. */
static inline void sl_fetched_release(sl_fetched *fetched) {
    for (size_t i = 0; i < fetched->count; i++) fetched->held[i].rules->kafka.destroy(fetched->held[i].message);
    free(fetched->records);
    *fetched = (sl_fetched){0};
}

#endif
