/*
 * A policy set, ready to be run: predicates, trees of nodes, and what the nodes have gathered. The twin of
 * src/spanloom/core/sampling/program.py; filled by program.pxd.
 */
#ifndef SPANLOOM_PROGRAM_H
#define SPANLOOM_PROGRAM_H

#include "predicates.h"
#include "rates.h"
#include "sketch.h"

/* As in Op of src/spanloom/core/sampling/program.py. */
typedef enum {
    SL_OP_ALWAYS,
    SL_OP_PREDICATE,
    SL_OP_SPAN_COUNT,
    SL_OP_FNV,
    SL_OP_CONSISTENT,
    SL_OP_PERCENTILE,
    SL_OP_BUCKET,
    SL_OP_EMA,
    SL_OP_NOT,
    SL_OP_AND,
    SL_OP_DROP,
    SL_OP_COMPOSITE,
} sl_op;

typedef struct {
    sl_op op;
    bool inverted, is_chance;
    uint32_t predicate;
    int64_t low, high;                /* spans */
    uint64_t threshold;               /* of a hash or of R */
    uint64_t salted;                  /* FNV-1a-64 of the salt */
    uint32_t first_state;             /* of those it looks at: its policy's, or its buckets' in order */
    uint32_t first_child, child_count;
} sl_node;

typedef enum { SL_STATE_PERCENTILES, SL_STATE_SHARES, SL_STATE_BUCKET } sl_state_kind;

/* What one percentile, EMA policy or bucket has gathered. */
typedef struct {
    sl_state_kind kind;
    uint32_t charge; /* the vote bit that says that the bucket was charged */
    union {
        sl_percentiles percentiles;
        sl_shares shares;
        sl_token_bucket bucket;
    } of;
} sl_state;

SL_VECTOR(sl_nodes, sl_node)
SL_VECTOR(sl_order, uint32_t)
SL_VECTOR(sl_states, sl_state *)

typedef struct {
    sl_predicates predicates;
    sl_nodes nodes; /* one a policy, by its index; then their children, those of one node together */
    sl_order order; /* in which the policies are asked: those that drop first */
    sl_states states; /* owned, and what they point to; in the order in which they are stored */
    uint32_t version;
} sl_program;

static inline void sl_state_free(sl_state *state) {
    if (!state) return;
    if (state->kind == SL_STATE_PERCENTILES) sl_percentiles_free(&state->of.percentiles);
    if (state->kind == SL_STATE_SHARES) sl_shares_free(&state->of.shares);
    free(state);
}

static inline void sl_program_start(sl_program *program) {
    *program = (sl_program){0};
    sl_predicates_start(&program->predicates);
}

static inline void sl_program_free(sl_program *program) {
    sl_predicates_free(&program->predicates);
    sl_nodes_free(&program->nodes);
    sl_order_free(&program->order);
    for (size_t i = 0; i < program->states.count; i++) sl_state_free(program->states.items[i]);
    sl_states_free(&program->states);
}

/* A new state of that kind, zeroed; NULL: no memory. */
static inline sl_state *sl_program_add_state(sl_program *program, sl_state_kind kind) {
    sl_state *state = sl_alloc_zeroed(1, sizeof *state);
    sl_state **slot = state ? sl_states_add(&program->states) : NULL;
    if (!slot) {
        free(state);
        return NULL;
    }
    state->kind = kind;
    return *slot = state;
}

/* Let *program* go on with the state *from* of *before*, in place of its own *to*. */
static inline void sl_program_take_state(sl_program *program, size_t to, sl_program *before, size_t from) {
    uint32_t charge = program->states.items[to]->charge; /* of where it stands now */
    sl_state_free(program->states.items[to]);
    program->states.items[to] = before->states.items[from];
    program->states.items[to]->charge = charge;
    before->states.items[from] = NULL;
}

static inline bool sl_program_asks_spans(const sl_program *program) {
    return program->predicates.count || program->predicates.asks_rv;
}

#endif
