/*
 * Fuzzes what policies look at in a span, tracestates and attributes, and the predicates on them: sights SEED ROUNDS
 * FILE..., under the sanitizers. Beside memory it holds: a stamped tracestate is well-formed, has the room that is
 * reckoned for it, keeps the stricter threshold and is not changed by the same stamp; a usual attribute is read as any
 * other; and spans answer alike as they come and framed anew.
 */
#include <assert.h>

#include "asking.h"
#include "frame.h"
#include "stamping.h"
#include "traces.h"

/* Write a tracestate that is nearly always well-formed, longer than allowed now and then. */
static void write_state(sl_sample *to, sl_dice *dice) {
    static const char *const keys[] = {"ot", "k", "t@v", "9t@v", "k/a", "ot", "K", ""};
    static const char *const fields[] = {"th:8", "rv:00000000000000", "rv:ffffffffffffff", "th:fffffffffffffe", "a:b",
                                         "th:", "", "th:0", "x ", "th:123456789abcdef", "rv:8", ":"};
    to->size = 0;
    size_t members = sl_choose(dice, 4) ? sl_choose(dice, 5) : sl_choose(dice, SL_MEMBERS_MAX + 3);
    for (size_t i = 0; i < members && to->size + 700 < RECORD_BYTES_MAX; i++) {
        bool known = !sl_choose(dice, members);
        uint8_t *at = to->bytes + to->size;
        const char *key = keys[sl_choose(dice, sl_choose(dice, 8) ? 6 : 8)], *comma = i ? "," : "";
        at += known ? sprintf((char *)at, "%s%s=", comma, key) : sprintf((char *)at, "%sk%zu=", comma, i);
        for (size_t left = 1 + sl_choose(dice, 4); left; left--) {
            at += sprintf((char *)at, "%s;", fields[sl_choose(dice, 12)]);
        }
        if (!sl_choose(dice, 6)) {
            size_t more = sl_choose(dice, 2) ? 200 + sl_choose(dice, 60) : sl_choose(dice, 260);
            memset(at, 'x', more);
            at += more;
        }
        at -= at[-1] == ';' && sl_choose(dice, 4);
        to->size = (size_t)(at - to->bytes);
    }
}

static uint64_t th_of(sl_slice ot) {
    uint64_t threshold;
    return sl_read_hex(sl_ot_field(ot, "th"), 1, &threshold) ? threshold : 0;
}

/* Stamp a well-formed tracestate in memory that has no byte to spare. */
static void stamp(sl_slice state, const sl_members *members, uint64_t threshold) {
    sl_slice before = sl_ot_of(members);
    uint8_t *ot = malloc(SL_MEMBER_VALUE_MAX), *stamped = malloc(state.size + SL_STATE_MORE_MAX);
    assert(ot && stamped);
    sl_slice after = {ot, sl_write_ot(ot, before, threshold)};
    assert(after.size <= SL_MEMBER_VALUE_MAX);
    uint64_t least = th_of(before) > threshold ? th_of(before) : threshold;
    assert(threshold == SL_THRESHOLD_UNKNOWN || !th_of(after) || th_of(after) == least);
    size_t size = (size_t)(sl_write_state(members, after, stamped) - stamped);
    uint8_t *exact = sl_exact(stamped, size), again[SL_MEMBER_VALUE_MAX];
    sl_members reread;
    assert(sl_read_members((sl_slice){exact, size}, &reread));
    before = sl_ot_of(&reread);
    assert(sl_same_slice(before, (sl_slice){again, sl_write_ot(again, before, threshold)}));
    free(exact);
    free(stamped);
    free(ot);
}

static void read_and_stamp(sl_dice *dice) {
    sl_sample sample;
    write_state(&sample, dice);
    for (size_t i = sl_choose(dice, 6) / 3; i; i--) sl_damage(&sample, dice);
    sl_slice state = {sl_exact(sample.bytes, sample.size), sample.size};
    sl_members members;
    uint64_t rv = 0, threshold = sl_choose(dice, 4) ? sl_roll(dice) >> (8 + sl_choose(dice, 56)) : SL_THRESHOLD_UNKNOWN;
    if (sl_read_members(state, &members)) {
        assert(members.count <= SL_MEMBERS_MAX);
        assert(!sl_read_rv(&members, &rv) || rv < SL_THRESHOLD_UNKNOWN);
        stamp(state, &members, threshold);
    } else {
        assert(!members.count);
    }
    free((void *)state.at);
}

/* Write a KeyValue whose value is any AnyValue, or none. */
static void write_attribute(sl_sample *to, sl_dice *dice) {
    static const uint8_t values[][4] = {{0x0a, 0}, {0x0a, 2, 'a', 'b'}, {0x10, 1}, {0x18, 0x94, 3}, {0x21},
                                        {0x3a, 1, 7}};
    static const size_t sizes[] = {2, 4, 2, 3, 1, 3};
    size_t key = sl_choose(dice, 4) ? sl_choose(dice, 5) : 120 + sl_choose(dice, 16), value = sl_choose(dice, 6);
    uint8_t *at = to->bytes;
    *at++ = 0x0a;
    at = sl_write_varint(at, key);
    memset(at, 'k', key);
    at += key;
    *at++ = 0x12;
    *at++ = (uint8_t)sizes[value];
    memcpy(at, values[value], sizes[value]);
    to->size = (size_t)(at + sizes[value] - to->bytes);
}

/* Read an attribute; a usual one with an unknown field behind it, which makes it unusual and means nothing, too. */
static void read_attribute(sl_dice *dice) {
    static const uint8_t unknown[] = {0xa0, 0x06, 0x00};
    sl_sample sample;
    sl_attribute once, again;
    sl_value value = {0}, same = {0};
    write_attribute(&sample, dice);
    for (size_t i = sl_choose(dice, 4); i; i--) sl_damage(&sample, dice);
    uint8_t *exact = sl_exact(sample.bytes, sample.size);
    bool is_whole = sl_read_attribute((sl_slice){exact, sample.size}, &once);
    bool is_read = is_whole && sl_read_attribute_value(&once, &value);
    if (is_whole && once.is_usual) {
        sl_insert(&sample, sample.size, unknown, sizeof unknown);
        assert(sl_read_attribute((sl_slice){sample.bytes, sample.size}, &again) && !again.is_usual);
        assert(sl_same_slice(once.key, again.key) && sl_read_attribute_value(&again, &same) == is_read);
        assert(!is_read || (value.kind == same.kind && value.number == same.number));
        assert(!is_read || sl_same_slice(value.text, same.text));
    }
    free(exact);
}

static sl_answers ask_chain(const sl_asker *asker, sl_scan *scan, uint32_t first) {
    sl_answers answers = {0};
    for (uint32_t at = first; at != SL_NONE; at = scan->spans.items[at].next) {
        const sl_span *span = &scan->spans.items[at];
        assert(sl_ask_span(asker, span, &scan->resources.items[span->resource], &answers) == SL_OK);
    }
    return answers;
}

/* Ask a trace of a record, then the same framed as a record of its own. */
static void ask_twice(const sl_asker *asker, sl_scan *scan, const sl_trace *trace) {
    sl_scan alone = {0};
    sl_traces traces = {0};
    sl_fault fault;
    sl_answers here = ask_chain(asker, scan, trace->first), there;
    size_t size = sl_measure_chain(scan, trace->first);
    uint8_t *part = malloc(size);
    assert(part && sl_write_chain(scan, trace->first, part) == part + size);
    assert(sl_scan_record(&alone, (sl_slice){part, size}, &fault) == SL_OK);
    assert(sl_group(&traces, &alone, asker->key) == SL_OK && traces.list.count == 1);
    for (uint32_t i = 0; i < alone.spans.count; i++) sl_chain(&traces.list.items[0], &alone, i);
    there = ask_chain(asker, &alone, 0);
    assert(!memcmp(&here.matched, &there.matched, sizeof here.matched));
    assert(here.has_rv == there.has_rv && here.rv == there.rv);
    assert(here.start_ns == there.start_ns && here.end_ns == there.end_ns);
    free(part);
    sl_traces_free(&traces);
    sl_scan_free(&alone);
}

/* Ask the traces of a damaged record of the corpus. */
static void ask_record(const sl_asker *asker, sl_dice *dice, const sl_corpus *corpus) {
    sl_sample sample = corpus->samples[sl_choose(dice, corpus->count)];
    sl_scan scan = {0};
    sl_traces traces = {0};
    sl_fault fault;
    for (size_t i = sl_choose(dice, 3); i; i--) sl_damage(&sample, dice);
    uint8_t *exact = sl_exact(sample.bytes, sample.size);
    if (sl_scan_record(&scan, (sl_slice){exact, sample.size}, &fault) == SL_OK) {
        assert(sl_group(&traces, &scan, asker->key) == SL_OK);
        for (uint32_t i = 0; i < scan.spans.count; i++) {
            sl_chain(&traces.list.items[scan.spans.items[i].trace], &scan, i);
        }
        for (size_t i = 0; i < traces.list.count; i++) ask_twice(asker, &scan, &traces.list.items[i]);
    }
    sl_traces_free(&traces);
    sl_scan_free(&scan);
    free(exact);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    sl_dice dice = {strtoull(argv[1], NULL, 10) * 2 + 1};
    sl_corpus corpus = sl_read_corpus(argv + 3, argc - 3);
    if (!corpus.count) return 2;
    size_t rounds = strtoull(argv[2], NULL, 10);
    sl_key key = {sl_roll(&dice), sl_roll(&dice)};
    for (size_t round = 0; round < rounds; round++) {
        sl_predicates predicates;
        sl_matches matches = {.matcher = match_by_letter};
        sl_predicates_start(&predicates);
        assert(put_predicates(&dice, &predicates) == SL_OK);
        sl_asker asker = {&predicates, &matches, &key};
        for (int i = 0; i < 20; i++) {
            read_and_stamp(&dice);
            read_attribute(&dice);
            ask_record(&asker, &dice, &corpus);
        }
        sl_matches_free(&matches);
        sl_predicates_free(&predicates);
    }
    free(corpus.samples);
    printf("sights: %zu programs\n", rounds);
    return 0;
}
