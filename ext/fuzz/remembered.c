/*
 * Fuzzes what is remembered of decided traces: remembered SEED ROUNDS, under the sanitizers, in numbers that split and
 * merge the pages of dropped ones, which the assembler's short lives do not. In every third life some allocation fails.
 * Beside memory it holds: after any bursts and gaps a trace is known exactly as long as it is to be remembered.
 */
#define SL_FAIL_ALLOCATIONS
#include <assert.h>

#include "mutation.h"
#include "past.h"

#define IDS 4096
#define STEPS 300

typedef enum { ABSENT, DROPPED, KEPT } sl_kind;

typedef struct {
    sl_dice dice;
    sl_memory memory;
    sl_key key;
    int64_t now_ms, window_ms, horizon_ms;
    uint32_t version;
    sl_kind kinds[IDS]; /* the model: what was decided of each id, and when */
    int64_t decided_ms[IDS];
} sl_life;

/* Neighbours share half of their id. */
static sl_id id_of(size_t number) { return (sl_id){number / 4, (uint64_t)number * 0x9e3779b97f4a7c15u + 1}; }

static bool is_remembered(const sl_life *life, size_t number) {
    return life->kinds[number] != ABSENT && life->decided_ms[number] >= life->horizon_ms;
}

/* Decide a trace of which nothing is remembered. */
static int decide(sl_life *life, size_t number) {
    sl_id id = id_of(number);
    uint64_t hash = sl_hash_id(&life->key, id);
    bool dropped = sl_choose(&life->dice, 20);
    sl_decision decision = {.verdict = dropped ? SL_DROP : SL_KEEP, .version = life->version, .trace_id = id,
                            .stream_ns = life->now_ms * SL_NS_PER_MS};
    bool plain = dropped && sl_memory_is_plain(&life->memory, &decision);
    int status = plain ? sl_memory_put_dropped(&life->memory, &life->key, &decision, hash)
                       : sl_memory_put_past(&life->memory, &decision, hash, NULL);
    life->kinds[number] = plain ? DROPPED : KEPT;
    life->decided_ms[number] = life->now_ms;
    return status;
}

/* A burst of decisions within a millisecond. */
static int burst(sl_life *life) {
    static const size_t sizes[] = {1, 2, 14, 15, 16, 31, 100, 400};
    size_t first = sl_choose(&life->dice, IDS);
    for (size_t left = sizes[sl_choose(&life->dice, 8)]; left; left--, first++) {
        if (is_remembered(life, first % IDS)) continue;
        if (decide(life, first % IDS)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

static void pass(sl_life *life) {
    static const int64_t gaps_ms[] = {0, 1, 1, 7, 8, 127, 128, 134, 135, 255, 1000, 20000};
    life->now_ms += gaps_ms[sl_choose(&life->dice, 12)];
    if (!sl_choose(&life->dice, 30)) life->version++;
    if (!sl_choose(&life->dice, 60)) life->now_ms += life->window_ms;
    life->horizon_ms = life->now_ms - life->window_ms;
    sl_memory_forget(&life->memory, life->horizon_ms * SL_NS_PER_MS, 1);
}

/* Ask for a trace, and hold the answer against the model. */
static void check(const sl_life *life, size_t number) {
    sl_id id = id_of(number);
    uint64_t hash = sl_hash_id(&life->key, id);
    int64_t stream_ns = 0;
    bool known = sl_table_get(&life->memory.known, id, hash), remembered = is_remembered(life, number);
    bool dropped = sl_memory_dropped(&life->memory, id, hash, &stream_ns);
    assert(known == (remembered && life->kinds[number] == KEPT));
    assert(dropped == (remembered && life->kinds[number] == DROPPED));
    assert(!dropped || stream_ns == life->decided_ms[number] * SL_NS_PER_MS);
    assert(!dropped || sl_memory_version(&life->memory, stream_ns) <= life->version);
}

static void check_all(const sl_life *life) {
    uint64_t count = 0;
    for (size_t i = 0; i < IDS; i++) {
        check(life, i);
        count += is_remembered(life, i);
    }
    assert(life->memory.remembered == count);
}

static void live(sl_life *life, bool fails) {
    static const int64_t windows_ms[] = {1, 100, 3000, 60000};
    life->window_ms = windows_ms[sl_choose(&life->dice, 4)];
    life->now_ms = 1700000000000 + (int64_t)(sl_roll(&life->dice) >> 31); /* low halves about to wrap, too */
    sl_allocations_left = fails ? (long)sl_choose(&life->dice, 4000) : -1;
    int status = SL_OK;
    for (int i = 0; i < STEPS && status == SL_OK; i++) {
        pass(life);
        status = burst(life);
        for (int j = 0; j < 20 && status == SL_OK; j++) check(life, sl_choose(&life->dice, IDS));
    }
    assert(status == SL_OK || sl_allocations_left == 0);
    if (status == SL_OK) check_all(life);
    sl_allocations_left = -1;
    sl_memory_free(&life->memory);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    sl_dice dice = {strtoull(argv[1], NULL, 10) * 2 + 1};
    size_t rounds = strtoull(argv[2], NULL, 10);
    for (size_t round = 0; round < rounds; round++) {
        sl_life *life = calloc(1, sizeof *life);
        assert(life);
        life->dice = (sl_dice){sl_roll(&dice) | 1};
        life->key = (sl_key){sl_roll(&dice), sl_roll(&dice)};
        live(life, round % 3 == 0);
        free(life);
    }
    printf("remembered: %zu lives\n", rounds);
    return 0;
}
