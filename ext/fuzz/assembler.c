/*
 * Fuzzes the assembler: assembler SEED ROUNDS FILE... leads assemblers through lives of damaged records, ticks, skips,
 * jumps, pressure, confirmations and restarts from their own ledger, under the sanitizers. In every third life some
 * allocation fails: then the life ends, and everything must still be freed once. Beside memory it holds: the books
 * balance, and when all is resolved every offset is safe.
 */
#define SL_FAIL_ALLOCATIONS
#include <assert.h>

#include "feed.h"
#include "mutation.h"

#define KEPT_MAX 64
#define BODIES_MAX 64
#define STEPS 60

typedef struct {
    sl_dice dice;
    const sl_corpus *corpus;
    sl_assembler *a;
    uint64_t next;
    int64_t now_ns;
    sl_gathering *kept[KEPT_MAX]; /* owned: handed out, not resolved */
    size_t kept_count;
    uint8_t *bodies[BODIES_MAX]; /* owned: the ledger */
    size_t body_sizes[BODIES_MAX], body_count;
} sl_life;

static int match_by_length(void *context, const uint8_t *name, size_t size, uint64_t *matches) {
    (void)context;
    *matches = size && name[0] == 's' ? 1u << 3 : 0;
    return SL_OK;
}

static sl_assembler *new_assembler(sl_dice *dice) {
    sl_assembler *a = calloc(1, sizeof *a);
    sl_percentiles *percentiles = calloc(1, sizeof *percentiles);
    assert(a && percentiles);
    int64_t second = 1000000000;
    *percentiles = (sl_percentiles){.percentile_bp = 5000, .min_count = 2, .half_ns = 10 * second, .operations_max = 3};
    a->limits = (sl_limits){2 * second, 5 * second, 20 * second, (int64_t)sl_choose(dice, 40) * second, 60 * second,
                            3 + sl_choose(dice, 50), 300 + sl_choose(dice, 5000), 100 + sl_choose(dice, 2000)};
    a->partition_count = 1 + (uint32_t)sl_choose(dice, 2);
    a->last_timestamp_ns = -1;
    a->key = (sl_key){sl_roll(dice), sl_roll(dice)};
    a->sampler.policies[0].kind = SL_POLICY_ERROR;
    a->sampler.policies[1] = (sl_policy){SL_POLICY_PERCENTILE, 0, percentiles};
    a->sampler.policies[2] = (sl_policy){SL_POLICY_PROBABILITY, (uint64_t)1 << 55, NULL};
    a->sampler.policies[3].kind = SL_POLICY_SERVICE;
    a->sampler.count = (uint32_t)(2 + sl_choose(dice, 3));
    a->sampler.asks_services = a->sampler.count == 4;
    a->sampler.configuration = 1;
    a->sampler.services.matcher = match_by_length;
    return a;
}

/* Keep the harvest's ledger bodies, drop the rest of it. */
static void harvest(sl_life *life) {
    sl_assembler *a = life->a;
    for (size_t i = 0; i < a->decided.bodies.count; i++) {
        sl_range body = a->decided.bodies.items[i];
        if (life->body_count == BODIES_MAX) break;
        uint8_t *copy = malloc(body.stop - body.start);
        assert(copy);
        memcpy(copy, a->decided.bytes + body.start, body.stop - body.start);
        life->body_sizes[life->body_count] = body.stop - body.start;
        life->bodies[life->body_count++] = copy;
    }
    sl_decided_reset(&a->decided);
    for (size_t i = 0; i < a->rejects.count; i++) {
        sl_books_resolve(&a->books, a->rejects.items[i].line, SL_DEAD_LETTERED, 1);
    }
    for (size_t i = 0; i < a->moves.count; i++) {
        sl_books_resolve(&a->books, a->moves.items[i].line, SL_MOVED, a->moves.items[i].spans);
        free(a->moves.items[i].part.chunk);
    }
    for (size_t i = 0; i < a->rebuilt.count; i++) {
        sl_resolve(a, a->rebuilt.items[i].gathering, SL_STORED);
        sl_gathering_end(a->rebuilt.items[i].gathering);
    }
    a->rejects.count = a->moves.count = a->rebuilt.count = 0;
}

static int feed_some(sl_life *life) {
    sl_sample samples[6];
    sl_record records[6];
    size_t count = sl_choose(&life->dice, 6);
    for (size_t i = 0; i < count; i++) {
        samples[i] = life->corpus->samples[sl_choose(&life->dice, life->corpus->count)];
        for (size_t j = sl_choose(&life->dice, 8) / 4; j; j--) sl_damage(&samples[i], &life->dice);
        uint8_t *exact = malloc(samples[i].size + 1);
        assert(exact);
        memcpy(exact, samples[i].bytes, samples[i].size);
        life->now_ns += (int64_t)sl_choose(&life->dice, 4000) * 1000000;
        records[i] = (sl_record){{exact, samples[i].size}, life->next++, life->now_ns, !sl_choose(&life->dice, 9)};
    }
    size_t read = count;
    int status = sl_feed_batch(life->a, records, &read);
    if (status == SL_OK) harvest(life);
    for (size_t i = 0; i < count; i++) free((void *)records[i].value.at);
    return status;
}

static void confirm_some(sl_life *life, size_t count) {
    sl_assembler *a = life->a;
    for (; count && a->awaiting.head < a->awaiting.tail; count--) {
        sl_verdict verdict = sl_confirm(a);
        if (!verdict.gathering) continue;
        size_t size = sl_gathering_bytes(verdict.gathering);
        uint8_t *bytes = malloc(size + 1);
        assert(bytes);
        sl_gathering_write(verdict.gathering, bytes);
        free(bytes);
        sl_free_chunks(verdict.gathering);
        if (life->kept_count == KEPT_MAX) {
            sl_gathering *oldest = life->kept[--life->kept_count];
            sl_resolve(a, oldest, SL_STORED);
            sl_gathering_end(oldest);
        }
        life->kept[life->kept_count++] = verdict.gathering;
    }
}

static void resolve_all(sl_life *life) {
    while (life->kept_count) {
        sl_gathering *gathering = life->kept[--life->kept_count];
        sl_resolve(life->a, gathering, SL_STORED);
        sl_gathering_end(gathering);
    }
}

static void forget_owner(sl_life *life) {
    while (life->kept_count) sl_gathering_end(life->kept[--life->kept_count]);
    sl_assembler_free(life->a);
    free(life->a);
    life->a = NULL;
}

/* A later owner reads the ledger, some of it damaged, and goes on from an earlier offset. */
static int restart(sl_life *life) {
    forget_owner(life);
    long left = sl_allocations_left;
    sl_allocations_left = -1;
    life->a = new_assembler(&life->dice);
    sl_allocations_left = left;
    life->next -= sl_choose(&life->dice, life->next + 1);
    life->a->start = life->a->offset = life->next;
    for (size_t i = 0; i < life->body_count; i++) {
        size_t at;
        if (!sl_choose(&life->dice, 10)) life->bodies[i][sl_choose(&life->dice, life->body_sizes[i])] ^= 1;
        sl_slice body = {life->bodies[i], life->body_sizes[i] - !sl_choose(&life->dice, 20)};
        if (sl_recall_body(life->a, body, &at) == SL_NO_MEMORY) return SL_NO_MEMORY;
    }
    return SL_OK;
}

static int step(sl_life *life) {
    sl_assembler *a = life->a;
    int status = SL_OK;
    switch (sl_choose(&life->dice, 16)) {
    case 0: status = sl_advance(a, life->now_ns + (int64_t)sl_choose(&life->dice, 9000) * 1234567); break;
    case 1: status = sl_shed(a, (int64_t)sl_choose(&life->dice, 1000)); break;
    case 2: status = sl_skip(a, life->next++, life->now_ns); break;
    case 3: status = sl_jump(a, life->next = a->offset + 1 + sl_choose(&life->dice, 3)); break;
    case 4: return restart(life);
    case 5: case 6: confirm_some(life, sl_choose(&life->dice, 10)); break;
    case 7: resolve_all(life); break;
    default: return feed_some(life);
    }
    if (status == SL_OK) harvest(life);
    return status;
}

static void check_books(sl_life *life) {
    sl_assembler *a = life->a;
    if (sl_shed(a, -1) != SL_OK) return;
    harvest(life);
    confirm_some(life, SIZE_MAX);
    resolve_all(life);
    if (a->rebuilding.count) return; /* their last spans were never read again */
    const uint64_t *counts = a->books.total.counts;
    uint64_t resolved = 0;
    for (int i = SL_STORED; i < SL_CONFLICTING; i++) resolved += counts[i];
    assert(counts[SL_RECEIVED] == resolved && !a->undecided_bytes && !a->open.count);
    sl_books_settle(&a->books);
    assert(!sl_lines_count(&a->books.lines));
}

static void live(sl_life *life, size_t number) {
    sl_allocations_left = -1;
    life->a = new_assembler(&life->dice);
    if (number % 3 == 0) sl_allocations_left = (long)sl_choose(&life->dice, 3000);
    int status = SL_OK;
    for (int i = 0; i < STEPS && status == SL_OK; i++) status = step(life);
    assert(status == SL_OK || sl_allocations_left == 0);
    if (status == SL_OK) check_books(life);
    sl_allocations_left = -1;
    forget_owner(life);
    while (life->body_count) free(life->bodies[--life->body_count]);
}

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    sl_corpus corpus = sl_read_corpus(argv + 3, argc - 3);
    if (!corpus.count) return 2;
    sl_dice dice = {strtoull(argv[1], NULL, 10) * 2 + 1};
    size_t rounds = strtoull(argv[2], NULL, 10);
    for (size_t round = 0; round < rounds; round++) {
        sl_life life = {.dice = {sl_roll(&dice) | 1}, .corpus = &corpus, .now_ns = 1700000000000000000};
        live(&life, round);
    }
    free(corpus.samples);
    printf("assembler: %zu lives\n", rounds);
    return 0;
}
