/*
 * Fuzzes the scanner: scanner SEED ROUNDS FILE... damages the files' bytes and scans them, under the sanitizers.
 * Beside reading within bounds it holds: what is framed again can be scanned, and holds as many spans; what is stamped
 * holds as many too, and is not changed by stamping it again; no more operations are found than there are spans.
 */
#include <assert.h>

#include "feed.h"
#include "mutation.h"
#include "stamping.h"
#include "summary.h"

static void split_and_scan(sl_scan *scan, sl_traces *traces, const sl_key *key) {
    sl_scan again = {0};
    sl_fault fault;
    for (size_t i = 0; i < scan->spans.count; i++) {
        sl_chain(&traces->list.items[scan->spans.items[i].trace], scan, (uint32_t)i);
    }
    for (size_t i = 0; i < traces->list.count; i++) {
        const sl_trace *trace = &traces->list.items[i];
        size_t size = sl_measure_chain(scan, trace->first);
        uint8_t *part = malloc(size);
        assert(part && sl_write_chain(scan, trace->first, part) == part + size);
        int status = sl_scan_record(&again, (sl_slice){part, size}, &fault);
        assert(status == SL_OK && !again.rejected && again.spans.count == trace->count);
        sl_traces alone = {0};
        assert(sl_group(&alone, &again, key) == SL_OK && alone.list.count == 1);
        sl_traces_free(&alone);
        free(part);
    }
    sl_scan_free(&again);
}

static void stamp_twice(sl_slice record, size_t spans, uint64_t threshold) {
    sl_bytes once = {0}, twice = {0};
    sl_reader reader = {record.at, record.at, record.at + record.size};
    sl_scan scan = {0};
    sl_fault fault;
    int changed, again;
    assert(sl_stamp_traces(&once, reader, threshold, &changed, &fault) == SL_OK);
    if (changed) {
        sl_slice stamped = {once.items, once.count};
        reader = (sl_reader){stamped.at, stamped.at, stamped.at + stamped.size};
        assert(sl_stamp_traces(&twice, reader, threshold, &again, &fault) == SL_OK && !again);
        assert(sl_scan_record(&scan, stamped, &fault) == SL_OK && scan.spans.count == spans);
    }
    sl_scan_free(&scan);
    sl_bytes_free(&once);
    sl_bytes_free(&twice);
}

static void sum_up(const sl_scan *scan, const sl_key *key) {
    sl_summary summary = {0};
    assert(sl_summarise(&summary, scan, key) == SL_OK && summary.operations.count <= scan->spans.count);
    assert((summary.head == SL_NONE) == !scan->spans.count);
    for (size_t i = 0; i < scan->spans.count; i++) {
        const sl_span *span = &scan->spans.items[i];
        sl_slice resource = scan->resources.items[span->resource].message; /* a ResourceSpans: read as any bytes */
        summary.pairs.count = 0;
        assert(sl_summarise_head(&summary, span->body, i & 1 ? resource : (sl_slice){span->body.at, 0}) == SL_OK);
        assert(summary.own_pairs <= summary.pairs.count);
    }
    sl_summary_free(&summary);
}

/* What cannot be scanned is stamped no worse: refused, or left or changed where it can be read. */
static void stamp_damaged(sl_slice record, uint64_t threshold) {
    sl_bytes stamped = {0};
    sl_reader reader = {record.at, record.at, record.at + record.size};
    sl_fault fault;
    int changed;
    int status = sl_stamp_traces(&stamped, reader, threshold, &changed, &fault);
    assert(status == SL_OK || (status == SL_MALFORMED && fault.kind != SL_FAULT_NONE));
    sl_bytes_free(&stamped);
}

/* Every hash of the record's last bytes, few enough that each way to end comes up. */
static uint64_t hash_end(sl_slice record, size_t size) {
    if (size > record.size) size = record.size;
    const uint8_t *at = record.at + record.size - size;
    uint64_t sum = sl_xxh64(at, size) + sl_fnv1a_64(at, size) + sl_fnv1a_32(at, size);
    return sum + sl_murmur2(at, size) + sl_murmur3_x86_32(at, size);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    sl_dice dice = {strtoull(argv[1], NULL, 10) * 2 + 1};
    sl_corpus corpus = sl_read_corpus(argv + 3, argc - 3);
    if (!corpus.count) return 2;
    size_t good = 0, rounds = strtoull(argv[2], NULL, 10);
    uint64_t sum = 0; /* printed, so that the hashes are computed */
    sl_scan scan = {0};
    sl_traces traces = {0};
    sl_key key = {sl_roll(&dice), sl_roll(&dice)};
    for (size_t round = 0; round < rounds; round++) {
        sl_sample sample = corpus.samples[sl_choose(&dice, corpus.count)];
        for (size_t i = sl_choose(&dice, 5); i; i--) sl_damage(&sample, &dice);
        uint8_t *exact = malloc(sample.size ? sample.size : 1); /* its own block: a byte too far is seen */
        memcpy(exact, sample.bytes, sample.size);
        sl_fault fault;
        uint64_t threshold = sl_roll(&dice) >> (8 - sl_choose(&dice, 2));
        sum += hash_end((sl_slice){exact, sample.size}, sl_choose(&dice, 80));
        if (sl_scan_record(&scan, (sl_slice){exact, sample.size}, &fault) == SL_OK) {
            good++;
            assert(sl_group(&traces, &scan, &key) == SL_OK);
            split_and_scan(&scan, &traces, &key);
            sum_up(&scan, &key);
            stamp_twice((sl_slice){exact, sample.size}, scan.spans.count, threshold);
        } else {
            assert(fault.kind != SL_FAULT_NONE && fault.position <= sample.size);
            stamp_damaged((sl_slice){exact, sample.size}, threshold);
        }
        free(exact);
    }
    sl_scan_free(&scan);
    sl_traces_free(&traces);
    free(corpus.samples);
    printf("scanner: %zu rounds, %zu whole records, hashes %016llx\n", rounds, good, (unsigned long long)sum);
    return 0;
}
