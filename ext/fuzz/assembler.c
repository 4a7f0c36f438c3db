/*
 * Fuzzes the assembler: assembler SEED ROUNDS FILE... leads assemblers through lives of damaged records, ticks, skips,
 * jumps, pressure, other policies, confirmations and restarts from their own ledger, under the sanitizers. In every third
 * life some allocation fails: then the life ends, and everything must still be freed once. Beside memory it holds: the
 * books balance, and when all is resolved every offset is safe.
 */
#define SL_FAIL_ALLOCATIONS
#include <assert.h>

#include "asking.h"
#include "feed.h"
#include "samplerstate.h"

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

/* Give the node something to look at. */
static int put_state(sl_dice *dice, sl_program *to, sl_node *node) {
    int64_t second = 1000000000;
    sl_state_kind kind = node->op == SL_OP_PERCENTILE ? SL_STATE_PERCENTILES
                         : node->op == SL_OP_EMA      ? SL_STATE_SHARES
                                                      : SL_STATE_BUCKET;
    node->first_state = (uint32_t)to->states.count;
    sl_state *state = sl_program_add_state(to, kind);
    if (!state) return SL_NO_MEMORY;
    if (kind == SL_STATE_PERCENTILES) {
        state->of.percentiles = (sl_percentiles){.percentile_bp = 5000, .min_count = 2, .half_ns = 10 * second,
                                                 .operations_max = 3};
    } else if (kind == SL_STATE_SHARES) {
        state->of.shares = (sl_shares){.goal = 1 + sl_choose(dice, 1 << 20), .interval_ns = 3 * second,
                                       .weight = 1 + (uint32_t)sl_choose(dice, 256), .operations_max = 3};
    } else {
        state->charge = (uint32_t)sl_choose(dice, 64);
        state->of.bucket = sl_token_bucket_new((int64_t)sl_choose(dice, 1000), (int64_t)sl_choose(dice, 1000),
                                               sl_choose(dice, 2), 1);
    }
    return SL_OK;
}

/* A leaf, or the one or two children of a node; the children stand where the next nodes will. */
static int put_node(sl_dice *dice, sl_program *to, bool may_nest) {
    sl_node *node = sl_nodes_add(&to->nodes);
    if (!node) return SL_NO_MEMORY;
    *node = (sl_node){.op = (sl_op)sl_choose(dice, may_nest ? SL_OP_COMPOSITE + 1 : SL_OP_NOT), .low = 1, .high = 9};
    if (node->op == SL_OP_PREDICATE && !to->predicates.count) node->op = SL_OP_ALWAYS;
    if (to->predicates.count) node->predicate = (uint32_t)sl_choose(dice, to->predicates.count);
    node->inverted = sl_choose(dice, 2);
    node->is_chance = sl_choose(dice, 2);
    node->threshold = sl_choose(dice, 2) ? SL_RANDOMNESS_END / 2 : SL_RANDOMNESS_END;
    node->salted = sl_roll(dice);
    if (node->op >= SL_OP_NOT) node->child_count = 1 + (node->op != SL_OP_NOT && sl_choose(dice, 2));
    bool looks = node->op == SL_OP_PERCENTILE || node->op == SL_OP_EMA || node->op == SL_OP_BUCKET;
    if (node->op == SL_OP_COMPOSITE && node->child_count == 2 && put_state(dice, to, node)) return SL_NO_MEMORY;
    if ((looks || node->op == SL_OP_COMPOSITE) && put_state(dice, to, node)) return SL_NO_MEMORY;
    if (node->op == SL_OP_COMPOSITE) node->first_state -= node->child_count - 1;
    return SL_OK;
}

/* Any program. */
static int put_program(sl_dice *dice, sl_program *to) {
    size_t policies = 1 + sl_choose(dice, 5);
    if (put_predicates(dice, &to->predicates)) return SL_NO_MEMORY;
    for (size_t i = 0; i < policies; i++) {
        uint32_t *place = sl_order_add(&to->order);
        if (!place || put_node(dice, to, true)) return SL_NO_MEMORY;
        *place = (uint32_t)i;
    }
    for (size_t i = 0; i < to->nodes.count; i++) {
        to->nodes.items[i].first_child = (uint32_t)to->nodes.count;
        for (uint32_t left = to->nodes.items[i].child_count; left; left--) {
            if (put_node(dice, to, i < policies && sl_choose(dice, 2))) return SL_NO_MEMORY;
        }
    }
    to->version = (uint32_t)sl_choose(dice, 4);
    return SL_OK;
}

static int configure(sl_dice *dice, sl_assembler *a) {
    sl_program program;
    sl_program_start(&program);
    if (put_program(dice, &program)) {
        sl_program_free(&program);
        return SL_NO_MEMORY;
    }
    sl_program *before = &a->sampler.program;
    for (size_t i = 0; i < program.states.count && i < before->states.count; i++) {
        if (program.states.items[i]->kind == before->states.items[i]->kind && sl_choose(dice, 2)) {
            sl_program_take_state(&program, i, before, i);
        }
    }
    sl_sampler_configure(&a->sampler, program);
    a->sampler.rate = (double)sl_choose(dice, 5) / 4;
    return SL_OK;
}

/* Write what the sampler has gathered. */
static int store_state(const sl_sampler *sampler) {
    for (size_t i = 0; i < sampler->program.states.count; i++) {
        const sl_state *state = sampler->program.states.items[i];
        uint8_t *bytes = malloc(sl_state_size(state));
        assert(bytes);
        int status = sl_state_store(state, bytes);
        free(bytes);
        if (status) return status;
    }
    return SL_OK;
}

static sl_assembler *new_assembler(sl_dice *dice) {
    sl_assembler *a = calloc(1, sizeof *a);
    assert(a);
    int64_t second = 1000000000;
    a->limits = (sl_limits){2 * second, 5 * second, 20 * second, (int64_t)sl_choose(dice, 40) * second, 60 * second,
                            3 + sl_choose(dice, 50), 300 + sl_choose(dice, 5000), 100 + sl_choose(dice, 2000)};
    a->partition_count = 1 + (uint32_t)sl_choose(dice, 2);
    a->last_timestamp_ns = -1;
    a->key = (sl_key){sl_roll(dice), sl_roll(dice)};
    sl_sampler_start(&a->sampler);
    a->sampler.matches.matcher = match_by_letter;
    int status = configure(dice, a);
    assert(status == SL_OK);
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
        size_t size = verdict.gathering->chunk_bytes;
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
    case 4: return sl_choose(&life->dice, 2) ? restart(life) : configure(&life->dice, a);
    case 5: case 6: confirm_some(life, sl_choose(&life->dice, 10)); break;
    case 7:
        resolve_all(life);
        status = store_state(&a->sampler);
        break;
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
