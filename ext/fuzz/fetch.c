/*
 * Fuzzes the copying of records out of librdkafka's queues: fetch SEED ROUNDS, under the sanitizers, with a librdkafka
 * that frees a message's every byte when it is destroyed. In every third round some allocation fails. Beside memory it
 * holds: every message taken is destroyed once; up to the first error all from the wanted offset on are copied, whole,
 * each once, and their headers lie as fetch.pyx reads them.
 */
#define SL_FAIL_ALLOCATIONS
#include <assert.h>
#include <sys/types.h> /* ssize_t, which fetch.h takes from Python.h elsewhere */

#include "fetch.h"
#include "mutation.h"

#define MOST 24
#define HEADERS_MAX 3
#define MOVED "moved"

typedef struct {
    char *name;    /* owned, as is *value*; that may be NULL */
    uint8_t *value;
    size_t size;
} sl_header;

struct sl_headers {
    sl_header items[HEADERS_MAX];
    size_t count;
};

typedef struct {
    sl_message message; /* first, for a message is cast to this */
    sl_headers headers;
    int64_t timestamp_ms;
    const char *error_text;
} sl_fake;

/* What is known of a message after it was destroyed. */
typedef struct {
    int64_t offset;
    size_t payload_bytes, key_bytes, headers;
    bool has_key, moved, is_error;
} sl_known_message;

static sl_fake *queued[MOST]; /* owned until they are taken, then the taker's */
static sl_known_message known[MOST];
static size_t queued_count, destroyed;
static bool queue_fails;

static ssize_t consume_batch(void *queue, int timeout_ms, sl_message **messages, size_t count) {
    assert(queue == queued && !timeout_ms);
    if (queue_fails) return -1;
    if (count > queued_count) count = queued_count;
    for (size_t i = 0; i < count; i++) messages[i] = &queued[i]->message;
    queued_count = count;
    return (ssize_t)count;
}

static int64_t timestamp_of(const sl_message *message, int *kind) {
    assert(!kind);
    return ((const sl_fake *)message)->timestamp_ms;
}

static int headers_of(const sl_message *message, sl_headers **headers) {
    sl_fake *fake = (sl_fake *)message;
    if (!fake->headers.count) return -156; /* RD_KAFKA_RESP_ERR__NOENT */
    *headers = &fake->headers;
    return 0;
}

static int header_at(const sl_headers *headers, size_t index, const char **name, const void **value, size_t *size) {
    if (index >= headers->count) return -156;
    *name = headers->items[index].name;
    *value = headers->items[index].value;
    *size = headers->items[index].size;
    return 0;
}

static const char *error_text_of(const sl_message *message) { return ((const sl_fake *)message)->error_text; }

static void destroy(sl_message *message) {
    sl_fake *fake = (sl_fake *)message;
    for (size_t i = 0; i < fake->headers.count; i++) {
        free(fake->headers.items[i].name);
        free(fake->headers.items[i].value);
    }
    free(message->payload);
    free(message->key);
    free(fake);
    destroyed++;
}

static const sl_kafka kafka = {consume_batch, timestamp_of, headers_of, header_at, error_text_of, destroy};

/* Bytes that tell by the offset whose they are. */
static uint8_t *bytes_of(int64_t offset, size_t size) {
    uint8_t *bytes = malloc(size ? size : 1);
    assert(bytes);
    memset(bytes, (int)(offset & 0xff), size);
    return bytes;
}

static bool are_bytes_of(int64_t offset, sl_slice bytes) {
    for (size_t i = 0; i < bytes.size; i++) {
        if (bytes.at[i] != (offset & 0xff)) return false;
    }
    return true;
}

static void add_headers(sl_dice *dice, sl_fake *fake, sl_known_message *of) {
    static const char *const names[] = {MOVED, "", "traceparent", "move", "movedx"};
    fake->headers.count = of->headers = sl_choose(dice, 3) ? 0 : sl_choose(dice, HEADERS_MAX + 1);
    for (size_t i = 0; i < fake->headers.count; i++) {
        const char *name = names[sl_choose(dice, 5)];
        size_t size = sl_choose(dice, 20);
        uint8_t *value = sl_choose(dice, 4) ? bytes_of(of->offset, size) : NULL;
        fake->headers.items[i] = (sl_header){(char *)sl_exact(name, strlen(name) + 1), value, size};
        of->moved |= !strcmp(name, MOVED);
    }
}

/* The next message of a queue: a record, a tombstone or an error, its offset after the last one's as a rule. */
static sl_fake *new_message(sl_dice *dice, sl_known_message *of, int64_t offset) {
    static const char *const errors[] = {NULL, "", "Broker: no", "fetch failed: "};
    static const int64_t odd_ms[] = {-1, 0, INT64_MAX, INT64_MIN, 1700000000000};
    sl_fake *fake = calloc(1, sizeof *fake);
    assert(fake);
    *of = (sl_known_message){.offset = offset, .is_error = !sl_choose(dice, 12), .has_key = sl_choose(dice, 2)};
    of->payload_bytes = sl_choose(dice, 4) ? sl_choose(dice, 200) : 0;
    of->key_bytes = of->has_key ? sl_choose(dice, 17) : 0;
    fake->message.error = of->is_error ? (int32_t)sl_choose(dice, 300) - 200 : 0;
    of->is_error = fake->message.error;
    fake->error_text = errors[sl_choose(dice, 4)];
    fake->message.offset = offset;
    fake->message.payload_bytes = of->payload_bytes;
    fake->message.key_bytes = of->key_bytes;
    if (of->payload_bytes || sl_choose(dice, 2)) fake->message.payload = bytes_of(offset, of->payload_bytes);
    if (of->has_key) fake->message.key = bytes_of(offset, of->key_bytes);
    fake->timestamp_ms = odd_ms[sl_choose(dice, 5)];
    add_headers(dice, fake, of);
    return fake;
}

static void fill_queue(sl_dice *dice, int64_t offset) {
    queued_count = sl_choose(dice, MOST + 1);
    queue_fails = !sl_choose(dice, 20);
    for (size_t i = 0; i < queued_count; i++) {
        queued[i] = new_message(dice, &known[i], offset);
        offset += sl_choose(dice, 10) ? 1 : (int64_t)sl_choose(dice, 4) - 1;
    }
}

/* As fetch.pyx reads them. */
static void check_headers(const sl_known_message *of, sl_slice headers) {
    const uint8_t *at = headers.at, *end = headers.at + headers.size;
    uint32_t size;
    size_t fields = 0;
    for (; at < end; at += size, fields++) {
        assert((size_t)(end - at) >= sizeof size);
        memcpy(&size, at, sizeof size);
        at += sizeof size;
        assert(size <= (size_t)(end - at));
        assert(fields % 2 == 0 || are_bytes_of(of->offset, (sl_slice){at, size}));
    }
    assert(at == end && fields == 2 * of->headers);
}

/* What came out, against what went in. */
static void check(const sl_fetched *fetched, int64_t from) {
    size_t count = 0, bytes = 0;
    for (size_t i = 0; i < queued_count && !known[i].is_error; i++) {
        const sl_known_message *of = &known[i];
        if (of->offset < from) continue;
        assert(count < fetched->count);
        const sl_record *record = &fetched->records[count];
        const sl_extra *extra = &fetched->extras[count++];
        from = of->offset + 1;
        bytes += of->payload_bytes;
        assert((int64_t)record->offset == of->offset && record->moved == of->moved);
        assert(record->value.size == of->payload_bytes && are_bytes_of(of->offset, record->value));
        assert(!extra->key.at == !of->has_key && extra->key.size == of->key_bytes);
        assert(are_bytes_of(of->offset, extra->key));
        check_headers(of, extra->headers);
    }
    assert(count == fetched->count && bytes == fetched->bytes);
}

static void fetch_once(sl_dice *dice, bool fails) {
    const sl_fetch_rules rules = {MOVED, 4000000000000};
    int64_t offset = (int64_t)sl_choose(dice, 1000), from = offset + (int64_t)sl_choose(dice, 7) - 3;
    fill_queue(dice, offset);
    size_t most = sl_choose(dice, MOST + 1), before = queued_count;
    sl_message **slots = malloc(most * sizeof *slots + 1);
    sl_fetched fetched;
    sl_problem problem;
    assert(slots);
    destroyed = 0;
    sl_allocations_left = fails ? (long)sl_choose(dice, 3) : -1;
    int status = sl_fetch(&kafka, queued, slots, most, from, &rules, &fetched, &problem);
    sl_allocations_left = -1;
    free(slots);
    if (queue_fails) queued_count = 0;
    assert(destroyed == queued_count && (status == SL_OK || (fails && status == SL_NO_MEMORY)));
    if (status == SL_OK) check(&fetched, from);
    assert(strlen(problem.code ? problem.text : "") < SL_ERROR_TEXT_BYTES);
    free(fetched.records);
    for (size_t i = queued_count; i < before; i++) destroy(&queued[i]->message);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    sl_dice dice = {strtoull(argv[1], NULL, 10) * 2 + 1};
    size_t rounds = strtoull(argv[2], NULL, 10);
    for (size_t round = 0; round < rounds; round++) fetch_once(&dice, round % 3 == 0);
    printf("fetch: %zu batches\n", rounds);
    return 0;
}
