/*
 * Runs the native kernel's work on records as far as a step, and no further: what a step costs is the difference to the
 * step before it. Built and called by bench_kernel_steps.py; as a program for callgrind.
 *
 *   scan      each record is scanned, its spans grouped by trace
 *   dedupe    + traces looked up, spans' content hashed and told from those there, identities kept
 *   assemble  + the books, fragments framed as bytes, the span that names the operation
 *   decide    the kernel's own sl_feed_batch and sl_confirm: + timers, policies, verdicts, the ledger's bytes, memory
 *
 * Up to `assemble` nothing is decided: there the oldest trace is let go, and freed, when more than `open_max` are open.
 * All steps ask for memory ahead as sl_feed_batch does.
 *
 * File of traces: of each a 16-byte id, then SL_PARTS times u32 size in the machine's order and a record. A stream
 * repeats them under new ids as often as wanted, `per_second` of them begun in a second, a trace's records spread evenly
 * over two seconds.
 */
#define _GNU_SOURCE /* memmem */
#include <stdio.h>

#include "feed.h"

#define PARTS 4
#define SPREAD_MS 2000.0
#define BATCH 500 /* as in bench_kernel.py */

typedef enum { STEP_SCAN, STEP_DEDUPE, STEP_ASSEMBLE, STEP_DECIDE } step_kind;

typedef struct {
    double at_ms;
    uint64_t trace; /* number in the stream */
    uint32_t part;
} arrival;

typedef struct {
    sl_record *records; /* owned, and their bytes in one block */
    uint8_t *bytes;
    size_t count;
} stream;

typedef struct {
    const stream *from; /* borrowed */
    step_kind step;
    size_t open_max, at;
    sl_assembler a;
} run;

/* Settings of bench_kernel.py's percentile policy. */
typedef struct {
    uint32_t percentile_bp, min_count, operations_max;
    int64_t half_ns;
} slow_settings;

/* The stream. */

/* splitmix64 (Steele, Lea and Flood): any number to a random one. */
static uint64_t mix(uint64_t number) {
    number += 0x9e3779b97f4a7c15u;
    number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9u;
    number = (number ^ number >> 27) * 0x94d049bb133111ebu;
    return number ^ number >> 31;
}

static int compare_arrivals(const void *left, const void *right) {
    const arrival *a = left, *b = right;
    return (a->at_ms > b->at_ms) - (a->at_ms < b->at_ms);
}

/* Put a new id in place of *old* and of its first half, which is the root's span id. */
static void rename_trace(uint8_t *bytes, size_t size, const uint8_t old[16], uint64_t number) {
    const uint64_t fresh[2] = {mix(2 * number), mix(2 * number + 1)};
    uint8_t *end = bytes + size;
    for (uint8_t *at = bytes; (at = memmem(at, (size_t)(end - at), old, 8)); at += 8) {
        memcpy(at, &fresh[0], 8);
        if (end - at >= 16 && !memcmp(at + 8, old + 8, 8)) memcpy(at + 8, &fresh[1], 8);
    }
}

static uint8_t *read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*size);
    if (bytes && fread(bytes, 1, *size, file) != *size) *size = 0;
    fclose(file);
    return bytes;
}

typedef struct {
    uint8_t *bytes; /* owned: the file */
    const uint8_t **ids; /* owned; borrow from bytes, as do the records */
    sl_slice (*parts)[PARTS];
    size_t count;
} traces_file;

static traces_file read_traces(const char *path) {
    size_t size = 0, room = 0;
    traces_file file = {.bytes = read_file(path, &size)};
    for (const uint8_t *at = file.bytes; at < file.bytes + size; file.count++) {
        if (file.count == room) {
            room = room ? 2 * room : 1024;
            file.ids = realloc(file.ids, room * sizeof *file.ids);
            file.parts = realloc(file.parts, room * sizeof *file.parts);
        }
        file.ids[file.count] = at;
        at += 16;
        for (int part = 0; part < PARTS; part++) {
            uint32_t bytes;
            memcpy(&bytes, at, sizeof bytes);
            file.parts[file.count][part] = (sl_slice){at + sizeof bytes, bytes};
            at += sizeof bytes + bytes;
        }
    }
    return file;
}

static arrival *arrive(size_t traces, double per_second) {
    arrival *arrivals = malloc(traces * PARTS * sizeof *arrivals);
    for (size_t i = 0; i < traces * PARTS; i++) {
        double spread = (double)(mix(~i) >> 11) / (double)(1ull << 53) * SPREAD_MS;
        arrivals[i] = (arrival){(double)(i / PARTS) * 1000 / per_second + spread, i / PARTS, i % PARTS};
    }
    qsort(arrivals, traces * PARTS, sizeof *arrivals, compare_arrivals);
    return arrivals;
}

/* *traces* traces after those in the file. A benchmark has the memory it needs. */
stream *steps_stream(const char *path, size_t traces, double per_second) {
    traces_file file = read_traces(path);
    if (!file.count) return NULL;
    arrival *arrivals = arrive(traces, per_second);
    stream *made = malloc(sizeof *made);
    *made = (stream){malloc(traces * PARTS * sizeof *made->records), NULL, traces * PARTS};
    size_t bytes = 0;
    for (size_t i = 0; i < made->count; i++) bytes += file.parts[arrivals[i].trace % file.count][arrivals[i].part].size;
    uint8_t *to = made->bytes = malloc(bytes);
    for (size_t i = 0; i < made->count; i++) {
        size_t number = arrivals[i].trace % file.count;
        sl_slice part = file.parts[number][arrivals[i].part];
        memcpy(to, part.at, part.size);
        rename_trace(to, part.size, file.ids[number], arrivals[i].trace);
        int64_t at_ms = 1700000000000 + (int64_t)arrivals[i].at_ms;
        made->records[i] = (sl_record){{to, part.size}, i, at_ms * 1000000, NULL, NULL};
        to += part.size;
    }
    free(arrivals);
    free(file.bytes);
    free(file.ids);
    free(file.parts);
    return made;
}

void steps_stream_free(stream *made) {
    free(made->records);
    free(made->bytes);
    free(made);
}

size_t steps_records(const stream *made) { return made->count; }

/* Spans of the records from *from*, below *to*. */
size_t steps_spans(const stream *made, size_t from, size_t to) {
    sl_scan scan = {0};
    sl_fault fault;
    size_t spans = 0;
    for (; from < to; from++) {
        if (sl_scan_record(&scan, made->records[from].value, &fault) == SL_OK) spans += scan.spans.count;
    }
    sl_scan_free(&scan);
    return spans;
}

/* The policies: bench_kernel.py's first four. */

static int match_nothing(void *context, uint32_t group, const uint8_t *text, size_t size, sl_bits *matches) {
    (void)context, (void)group, (void)text, (void)size;
    *matches = (sl_bits){0};
    return SL_OK;
}

static void add_policy(sl_program *program, sl_node node) {
    *sl_order_add(&program->order) = (uint32_t)program->nodes.count;
    *sl_nodes_add(&program->nodes) = node;
}

static void configure(sl_sampler *sampler, const slow_settings *slow) {
    sl_program program;
    uint32_t group;
    sl_program_start(&program);
    sl_put_predicate(&program.predicates, SL_PREDICATE_ERROR, (sl_slice){NULL, 0}, 0, 0, &group);
    sl_put_predicate(&program.predicates, SL_PREDICATE_SERVICE, (sl_slice){NULL, 0}, 0, 0, &group);
    program.predicates.asks_rv = true;
    add_policy(&program, (sl_node){.op = SL_OP_PREDICATE, .predicate = 0});
    add_policy(&program, (sl_node){.op = SL_OP_PERCENTILE, .first_state = 0});
    add_policy(&program, (sl_node){.op = SL_OP_PREDICATE, .predicate = 1});
    add_policy(&program, (sl_node){.op = SL_OP_CONSISTENT, .threshold = SL_RANDOMNESS_END / 100 * 99});
    sl_program_add_state(&program, SL_STATE_PERCENTILES)->of.percentiles =
        (sl_percentiles){.percentile_bp = slow->percentile_bp, .min_count = slow->min_count, .half_ns = slow->half_ns,
                         .operations_max = slow->operations_max};
    program.version = 1;
    sl_sampler_configure(sampler, program);
}

/* A run. */

run *steps_begin(const stream *from, int step, size_t open_max, const slow_settings *slow) {
    int64_t second = 1000000000;
    run *made = calloc(1, sizeof *made);
    made->from = from;
    made->step = (step_kind)step;
    made->open_max = open_max;
    sl_assembler *a = &made->a;
    a->limits = (sl_limits){6 * second, 15 * second, 60 * second, 300 * second, 600 * second, 50000, 16 << 20,
                            512 << 10}; /* as in core/assembly.py */
    a->partition_count = 1;
    a->last_timestamp_ns = -1;
    a->key = (sl_key){mix(1), mix(2)};
    sl_sampler_start(&a->sampler);
    a->sampler.matches.matcher = match_nothing;
    configure(&a->sampler, slow);
    return made;
}

void steps_end(run *made) {
    sl_assembler_free(&made->a);
    free(made);
}

size_t steps_open(const run *made) { return made->a.open.count; }

/* sl_take and sl_join of a span that no decision is remembered for, without timers; up to dedupe without bytes. */
static int take(sl_assembler *a, uint64_t line, uint64_t offset, uint32_t index, sl_trace *trace, bool assembles) {
    const sl_span *span = &a->record->scan.spans.items[index];
    sl_row row = sl_row_of(span);
    sl_membership membership = trace->open ? sl_gathering_find(trace->open, &a->key, &row) : SL_NEW;
    if (membership == SL_KNOWN) {
        if (assembles) sl_books_resolve(&a->books, line, SL_DUPLICATE, 1);
        return SL_OK;
    }
    if (!trace->open && sl_open(a, trace, offset, (sl_inherited){0})) return SL_NO_MEMORY;
    if (assembles) return sl_join(a, trace, index, trace->open, row, offset, line);
    if (sl_gathering_add(trace->open, &a->blocks, &a->key, span, row)) return SL_NO_MEMORY;
    trace->open->cut = offset;
    return SL_OK;
}

/* The oldest open trace goes, undecided. */
static void let_go(sl_assembler *a) {
    sl_gathering *oldest = a->oldest, *next = oldest->younger;
    if (next) {
        sl_prefetch_pieces(next);
        if (next->younger) sl_prefetch(next->younger, sizeof *next);
    }
    sl_open_remove(a, oldest);
    sl_resolve(a, oldest, SL_NOT_SAMPLED);
    sl_gathering_strip(oldest, &a->blocks);
    sl_gathering_end(oldest, &a->blocks);
}

/* The twin of sl_feed, without time and verdicts. */
static int apply(run *made, const sl_record *record, size_t index) {
    sl_assembler *a = &made->a;
    sl_examined *examined = a->record = &a->examined[index & (SL_AHEAD - 1)];
    bool assembles = made->step == STEP_ASSEMBLE;
    uint64_t line = 0;
    if (assembles && sl_begin_line(a, record->offset, examined->scan.spans.count, &line)) return SL_NO_MEMORY;
    if (examined->status || sl_place(a, record, &examined->fault)) return SL_MALFORMED;
    for (size_t i = 0; i < examined->scan.spans.count; i++) {
        sl_trace *trace = &examined->traces.list.items[examined->scan.spans.items[i].trace];
        if (assembles) sl_books_receive(&a->books, line, 1);
        if (take(a, line, record->offset, (uint32_t)i, trace, assembles)) return SL_NO_MEMORY;
    }
    for (size_t i = 0; assembles && i < examined->traces.list.count; i++) {
        const sl_trace *trace = &examined->traces.list.items[i];
        if (!trace->into) continue;
        if (sl_gathering_seal(trace->into, &a->blocks, &examined->scan, trace->first, line)) return SL_NO_MEMORY;
    }
    while (a->open.count > made->open_max) let_go(a);
    return SL_OK;
}

/* The twin of sl_feed_batch. */
static int apply_batch(run *made, const sl_record *records, size_t count) {
    sl_assembler *a = &made->a;
    for (size_t i = 0; i < count + SL_AHEAD - 1; i++) {
        if (i + 1 < count) sl_prefetch(records[i + 1].value.at, records[i + 1].value.size);
        if (i < count) sl_step_scan(a, &records[i], &a->examined[i & (SL_AHEAD - 1)]);
        if (made->step == STEP_SCAN) continue;
        if (i >= 1 && i - 1 < count) sl_step_slots(a, &a->examined[(i - 1) & (SL_AHEAD - 1)]);
        if (i >= 2 && i - 2 < count) sl_step_rows(a, &a->examined[(i - 2) & (SL_AHEAD - 1)]);
        if (i < 3) continue;
        int status = apply(made, &records[i - 3], i - 3);
        if (status) return status;
    }
    sl_blocks_allow(&a->blocks, 0);
    return SL_OK;
}

/* Read all back, store what is kept. */
static void confirm_all(sl_assembler *a) {
    sl_decided_reset(&a->decided);
    while (a->awaiting.head < a->awaiting.tail) {
        sl_gathering *kept = sl_confirm(a).gathering;
        if (!kept) continue;
        uint8_t *bytes = malloc(kept->chunk_bytes + 1);
        sl_gathering_write(kept, bytes);
        free(bytes);
        sl_give_chunks(kept, &a->blocks);
        a->storing_bytes -= kept->span_bytes;
        sl_resolve(a, kept, SL_STORED);
        sl_gathering_end(kept, NULL);
    }
    sl_books_settle(&a->books);
}

/* Go on to record number *to*. */
int steps_go(run *made, size_t to) {
    while (made->at < to) {
        size_t count = to - made->at < BATCH ? to - made->at : BATCH;
        const sl_record *records = &made->from->records[made->at];
        int status;
        if (made->step == STEP_DECIDE) {
            status = sl_feed_batch(&made->a, records, &count);
            confirm_all(&made->a);
        } else {
            status = apply_batch(made, records, count);
        }
        if (status) return status;
        made->at += count;
    }
    return SL_OK;
}

/* kernel_steps FILE STEP TRACES PER_SECOND OPEN_MAX: for callgrind; prints how many spans were read. */
int main(int argc, char **argv) {
    if (argc != 6) return 2;
    size_t traces = strtoull(argv[3], NULL, 10), open_max = strtoull(argv[5], NULL, 10);
    stream *made = steps_stream(argv[1], traces, strtod(argv[4], NULL));
    if (!made) return 2;
    const slow_settings slow = {9990, 100, 1000, 300000000000}; /* as written.py fills them in */
    run *one = steps_begin(made, atoi(argv[2]), open_max, &slow);
    int status = steps_go(one, made->count);
    printf("%zu\n", steps_spans(made, 0, made->count));
    steps_end(one);
    steps_stream_free(made);
    return status != SL_OK;
}
