/*
 * Records out of librdkafka's queues, copied into memory of ours: its messages would hold on to their fetch buffers.
 *
 * The library is not linked: it lies inside another extension module, whose symbols are handed over as addresses.
 * rd_kafka_message_t is public and never changes; the layout is checked at start (fetch.pyx).
 *
 * One allocation a batch: records, what else a model.Record has, then the bytes. A record's headers lie in those as
 *
 *   u32 name size | name | u32 value size | value     for each, in the machine's byte order
 */
#ifndef SPANLOOM_FETCH_H
#define SPANLOOM_FETCH_H

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

/* What a record has that the assembler does not ask for. */
typedef struct {
    sl_slice key, headers; /* in the batch's memory; a key at NULL is none */
    int64_t timestamp_ms;
} sl_extra;

typedef struct {
    sl_record *records; /* owned: the start of the one allocation; room for what was asked for */
    sl_extra *extras;
    uint8_t *free; /* where the next byte goes */
    size_t count;
    uint64_t bytes; /* of values */
} sl_fetched;

#define SL_ERROR_TEXT_BYTES 256

/* An error in the queue, in place of a record. */
typedef struct {
    int32_t code; /* 0: none */
    char text[SL_ERROR_TEXT_BYTES];
} sl_problem;

/* A message that was taken, and its headers, NULL where it has none: to ask for them is to parse them, once. */
typedef struct {
    sl_message *message;
    sl_headers *headers;
} sl_taken;

static inline size_t sl_fetch_bytes(const sl_kafka *kafka, sl_taken *taken) {
    const char *name;
    const void *value;
    size_t size, bytes = taken->message->payload_bytes + taken->message->key_bytes;
    if (kafka->headers(taken->message, &taken->headers)) taken->headers = NULL;
    for (size_t i = 0; taken->headers && !kafka->header(taken->headers, i, &name, &value, &size); i++) {
        bytes += 2 * sizeof(uint32_t) + strlen(name) + (value ? size : 0);
    }
    return bytes;
}

static inline sl_slice sl_fetch_copy(sl_fetched *to, const void *from, size_t size) {
    sl_slice copied = {to->free, size};
    if (size) memcpy(to->free, from, size);
    to->free += size;
    return copied;
}

static inline void sl_fetch_sized(sl_fetched *to, const void *from, size_t size) {
    uint32_t size_32 = (uint32_t)size;
    sl_fetch_copy(to, &size_32, sizeof size_32);
    sl_fetch_copy(to, from, size);
}

/* Copy the headers; whether one of them is *moved_name*. */
static inline bool sl_fetch_headers(const sl_kafka *kafka, sl_fetched *to, const sl_headers *headers,
                                    const char *moved_name) {
    const char *name;
    const void *value;
    size_t size;
    bool moved = false;
    for (size_t i = 0; headers && !kafka->header(headers, i, &name, &value, &size); i++) {
        moved |= !strcmp(name, moved_name);
        sl_fetch_sized(to, name, strlen(name));
        sl_fetch_sized(to, value, value ? size : 0);
    }
    return moved;
}

/* In ns; what no clock says is brought into the range that 63 bits hold. */
static inline int64_t sl_fetch_ns(int64_t ms, int64_t ms_max) {
    if (ms > ms_max) ms = ms_max;
    if (ms < -ms_max) ms = -ms_max;
    return ms * 1000000;
}

typedef struct {
    const char *moved_name;
    int64_t ms_max;
} sl_fetch_rules;

static inline void sl_fetch_record(const sl_kafka *kafka, sl_fetched *to, const sl_taken *taken,
                                   const sl_fetch_rules *rules) {
    const sl_message *message = taken->message;
    sl_record *record = &to->records[to->count];
    sl_extra *extra = &to->extras[to->count++];
    extra->timestamp_ms = kafka->timestamp(message, NULL);
    extra->key = message->key ? sl_fetch_copy(to, message->key, message->key_bytes) : (sl_slice){NULL, 0};
    extra->headers.at = to->free;
    record->moved = sl_fetch_headers(kafka, to, taken->headers, rules->moved_name);
    extra->headers.size = (size_t)(to->free - extra->headers.at);
    record->value = sl_fetch_copy(to, message->payload, message->payload ? message->payload_bytes : 0);
    record->offset = (uint64_t)message->offset;
    record->timestamp_ns = sl_fetch_ns(extra->timestamp_ms, rules->ms_max);
    to->bytes += record->value.size;
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

/* Copy *count* records from offset *from* on. */
static inline int sl_fetch_copy_all(const sl_kafka *kafka, sl_taken *taken, size_t count, int64_t from,
                                    const sl_fetch_rules *rules, sl_fetched *to) {
    size_t bytes = count * (sizeof(sl_record) + sizeof(sl_extra));
    for (size_t i = 0; i < count; i++) {
        if (i + 1 < count) sl_prefetch(taken[i + 1].message, sizeof(sl_message));
        bytes += sl_fetch_bytes(kafka, &taken[i]);
    }
    to->records = sl_alloc(bytes);
    if (!to->records) return SL_NO_MEMORY;
    to->extras = (sl_extra *)(to->records + count);
    to->free = (uint8_t *)(to->extras + count);
    for (size_t i = 0; i < count; i++) {
        if (taken[i].message->offset < from) continue;
        sl_fetch_record(kafka, to, &taken[i], rules);
        from = taken[i].message->offset + 1;
    }
    return SL_OK;
}

/* Copy the *count* records of *messages*. */
static inline int sl_fetch_messages(const sl_kafka *kafka, sl_message **messages, size_t count, int64_t from,
                                    const sl_fetch_rules *rules, sl_fetched *to) {
    sl_taken *taken = sl_alloc(count * sizeof *taken);
    if (!taken) return SL_NO_MEMORY;
    for (size_t i = 0; i < count; i++) taken[i] = (sl_taken){messages[i], NULL};
    int status = sl_fetch_copy_all(kafka, taken, count, from, rules, to);
    free(taken);
    return status;
}

/*
 * Take at most *most* messages from a queue without waiting, and copy those from offset *from* on, up to an error.
 * *slots* has room for *most*. On SL_NO_MEMORY what was taken is gone: the partition must be fetched anew.
 */
static inline int sl_fetch(const sl_kafka *kafka, void *queue, sl_message **slots, size_t most, int64_t from,
                           const sl_fetch_rules *rules, sl_fetched *to, sl_problem *problem) {
    *to = (sl_fetched){0};
    problem->code = 0;
    ssize_t taken = kafka->consume_batch(queue, 0, slots, most);
    if (taken <= 0) return SL_OK;
    size_t sound = sl_fetch_sound(kafka, slots, (size_t)taken, problem);
    int status = sound ? sl_fetch_messages(kafka, slots, sound, from, rules, to) : SL_OK;
    for (ssize_t i = 0; i < taken; i++) kafka->destroy(slots[i]);
    return status;
}

#endif
