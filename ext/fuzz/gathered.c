/*
 * Fuzzes what a sampler gathers and a CHECKPOINT carries: gathered SEED ROUNDS, under the sanitizers. Percentiles and
 * shares count traces, are written down, put back as program.pxd does, and go on. In every third life some allocation
 * fails. Beside memory it holds: what was put back is written down alike, and answers and counts on as the original.
 */
#define SL_FAIL_ALLOCATIONS
#include <assert.h>

#include "mutation.h"
#include "samplerstate.h"

#define STEPS 400
#define S_NS INT64_C(1000000000)

/* A state and what reads it: both policies at once, for the two are fed alike. */
typedef struct {
    sl_percentiles percentiles;
    sl_shares shares;
} sl_gathered;

typedef struct {
    sl_dice dice;
    sl_key key;
    sl_gathered first, second;
    bool has_second; /* put back from what the first wrote down */
    int64_t now_ns;
    size_t operations;
} sl_life;

static void free_gathered(sl_gathered *gathered) {
    sl_percentiles_free(&gathered->percentiles);
    sl_shares_free(&gathered->shares);
}

/* A state of that kind around what it holds, for the functions that write one down. */
static sl_state state_of(const sl_gathered *gathered, sl_state_kind kind) {
    sl_state state = {.kind = kind};
    if (kind == SL_STATE_PERCENTILES) state.of.percentiles = gathered->percentiles;
    if (kind == SL_STATE_SHARES) state.of.shares = gathered->shares;
    return state;
}

/* Write a state down in memory of its very size; NULL: no memory. */
static uint8_t *written(const sl_gathered *gathered, sl_state_kind kind, size_t *size) {
    sl_state state = state_of(gathered, kind);
    *size = sl_state_size(&state);
    uint8_t *bytes = malloc(*size);
    assert(bytes);
    if (sl_state_store(&state, bytes) == SL_OK) return bytes;
    free(bytes);
    return NULL;
}

static const uint8_t *put_half(sl_life *life, sl_percentiles *to, int half, const uint8_t *at) {
    uint64_t operation = sl_load64(at);
    if (sl_percentiles_put(to, &life->key, half, operation)) return NULL;
    uint32_t buckets = sl_load32(at + 8);
    for (at += 12; buckets; buckets--, at += 8) {
        sl_bucket bucket = {sl_load32(at), sl_load32(at + 4)};
        if (sl_percentiles_put_bucket(to, &life->key, half, operation, bucket)) return NULL;
    }
    return at;
}

static int put_percentiles(sl_life *life, sl_percentiles *to, const uint8_t *at, const uint8_t *end) {
    uint32_t counts[2] = {sl_load32(at + 8), sl_load32(at + 12)};
    to->generation = (int64_t)sl_load64(at);
    at += 16;
    for (int half = SL_CURRENT; half <= SL_EARLIER; half++) {
        for (; counts[half]; counts[half]--) {
            at = put_half(life, to, half, at);
            if (!at) return SL_NO_MEMORY;
        }
    }
    uint32_t cuts = sl_load32(at);
    for (at += 4; cuts; cuts--, at += 20) {
        if (sl_percentiles_put_cut(to, &life->key, sl_load64(at), sl_load64(at + 8), sl_load32(at + 16))) {
            return SL_NO_MEMORY;
        }
    }
    assert(at == end);
    return SL_OK;
}

static int put_shares(sl_life *life, sl_shares *to, const uint8_t *at, const uint8_t *end) {
    uint32_t count = sl_load32(at);
    to->generation = (int64_t)sl_load64(at + 4);
    for (at += 12; count; count--, at += SL_SHARE_BYTES) {
        sl_share share = {.operation = sl_load64(at), .average = sl_load64(at + 8), .spans = sl_load64(at + 16),
                          .threshold = sl_load64(at + 24)};
        if (sl_shares_put(to, &life->key, share)) return SL_NO_MEMORY;
    }
    assert(at == end);
    return SL_OK;
}

/* Both under policies of the same kind, with nothing gathered. */
static sl_gathered empty_like(const sl_gathered *other) {
    sl_gathered made = {other->percentiles, other->shares};
    made.percentiles.slots = NULL;
    made.percentiles.capacity = made.percentiles.count = made.percentiles.current_count = 0;
    made.shares.slots = NULL;
    made.shares.capacity = made.shares.count = 0;
    return made;
}

static int put_back(sl_life *life) {
    if (life->has_second) free_gathered(&life->second);
    life->second = empty_like(&life->first);
    life->has_second = true;
    for (sl_state_kind kind = SL_STATE_PERCENTILES; kind <= SL_STATE_SHARES; kind++) {
        size_t size;
        uint8_t *bytes = written(&life->first, kind, &size);
        if (!bytes) return SL_NO_MEMORY;
        int status = kind == SL_STATE_SHARES ? put_shares(life, &life->second.shares, bytes, bytes + size)
                                             : put_percentiles(life, &life->second.percentiles, bytes, bytes + size);
        free(bytes);
        if (status) return status;
    }
    return SL_OK;
}

static int compare(sl_life *life) {
    for (sl_state_kind kind = SL_STATE_PERCENTILES; kind <= SL_STATE_SHARES; kind++) {
        size_t sizes[2];
        uint8_t *first = written(&life->first, kind, &sizes[0]);
        uint8_t *second = first ? written(&life->second, kind, &sizes[1]) : NULL;
        if (second) assert(sizes[0] == sizes[1] && !memcmp(first, second, sizes[0]));
        free(first);
        free(second);
        if (!second) return SL_NO_MEMORY;
    }
    return SL_OK;
}

typedef struct {
    bool slow;
    uint64_t threshold;
} sl_said;

/* Judge a trace, then count it. */
static int see(sl_life *life, sl_gathered *gathered, const sl_decision *decision, sl_said *said) {
    if (sl_is_slow(&gathered->percentiles, &life->key, decision, &said->slow)) return SL_NO_MEMORY;
    if (sl_shares_threshold(&gathered->shares, &life->key, decision, &said->threshold)) return SL_NO_MEMORY;
    assert(said->threshold <= SL_RANDOMNESS_END);
    if (sl_percentiles_fold(&gathered->percentiles, &life->key, decision)) return SL_NO_MEMORY;
    return sl_shares_fold(&gathered->shares, &life->key, decision);
}

/* Any trace; 0 is the pooled operation's own number. */
static sl_decision any_trace(sl_life *life) {
    uint64_t duration_ns = sl_roll(&life->dice) >> sl_choose(&life->dice, 64);
    uint32_t spans = 1 + (uint32_t)(sl_roll(&life->dice) >> 32 >> sl_choose(&life->dice, 32)) % UINT32_MAX;
    if (sl_choose(&life->dice, 8)) duration_ns = 1000000 * (100 + sl_choose(&life->dice, 20));
    return (sl_decision){.stream_ns = life->now_ns, .operation = sl_choose(&life->dice, life->operations),
                         .duration_ns = duration_ns, .span_count = spans};
}

static int step(sl_life *life) {
    static const int64_t gaps_ns[] = {0, 1000000, S_NS, 3 * S_NS, 11 * S_NS, 100 * S_NS, 1000 * S_NS, -S_NS};
    life->now_ns += gaps_ns[sl_choose(&life->dice, sl_choose(&life->dice, 10) ? 2 : 8)];
    if (!sl_choose(&life->dice, 40) && put_back(life)) return SL_NO_MEMORY;
    sl_decision decision = any_trace(life);
    sl_said first, second;
    if (see(life, &life->first, &decision, &first)) return SL_NO_MEMORY;
    if (!life->has_second) return SL_OK;
    if (see(life, &life->second, &decision, &second)) return SL_NO_MEMORY;
    assert(first.slow == second.slow && first.threshold == second.threshold);
    return sl_choose(&life->dice, 10) ? SL_OK : compare(life);
}

static void live(sl_life *life, bool fails) {
    sl_dice *dice = &life->dice;
    life->operations = 1 + sl_choose(dice, sl_choose(dice, 2) ? 4 : 300);
    life->now_ns = (int64_t)(1 + sl_choose(dice, 1700000000)) * S_NS;
    life->first.percentiles = (sl_percentiles){.percentile_bp = 1 + (uint32_t)sl_choose(dice, 9999),
                                               .half_ns = 5 * S_NS, .min_count = 1 + sl_choose(dice, 20),
                                               .operations_max = 1 + sl_choose(dice, 200)};
    life->first.shares = (sl_shares){.goal = 1 + (sl_roll(dice) >> (16 + sl_choose(dice, 40))), .interval_ns = 3 * S_NS,
                                     .weight = 1 + (uint32_t)sl_choose(dice, 256),
                                     .operations_max = 1 + sl_choose(dice, 200)};
    sl_allocations_left = fails ? (long)sl_choose(dice, 500) : -1;
    int status = SL_OK;
    for (int i = 0; i < STEPS && status == SL_OK; i++) status = step(life);
    assert(status == SL_OK || sl_allocations_left == 0);
    sl_allocations_left = -1;
    free_gathered(&life->first);
    if (life->has_second) free_gathered(&life->second);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    sl_dice dice = {strtoull(argv[1], NULL, 10) * 2 + 1};
    size_t rounds = strtoull(argv[2], NULL, 10);
    for (size_t round = 0; round < rounds; round++) {
        sl_life life = {.dice = {sl_roll(&dice) | 1}, .key = {sl_roll(&dice), sl_roll(&dice)}};
        live(&life, round % 3 == 0);
    }
    printf("gathered: %zu lives\n", rounds);
    return 0;
}
