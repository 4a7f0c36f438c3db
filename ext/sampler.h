/*
 * The tail sampler of one partition: judges a trace, then folds it into what later traces are judged by. The twin of
 * core/_pure/sampler.py, where the rules are told.
 */
#ifndef SPANLOOM_SAMPLER_H
#define SPANLOOM_SAMPLER_H

#include "gathering.h"
#include "program.h"

#define SL_POLICIES_MAX 64
#define SL_RANDOMNESS_MASK (SL_RANDOMNESS_END - 1)

typedef struct {
    sl_program program;
    double rate; /* 0 to 1: what consistent probabilities keep of what they would */
    uint32_t configuration; /* how often it was configured */
    sl_matches matches;
    sl_scan scan; /* scratch: chunks that are read again */
} sl_sampler;

static inline void sl_sampler_start(sl_sampler *sampler) {
    sl_program_start(&sampler->program);
    sampler->rate = 1;
}

static inline void sl_sampler_free(sl_sampler *sampler) {
    sl_program_free(&sampler->program);
    sl_matches_free(&sampler->matches);
    sl_scan_free(&sampler->scan);
}

/* Judge by *program* from here on; it is owned from now on. */
static inline void sl_sampler_configure(sl_sampler *sampler, sl_program program) {
    sl_program_free(&sampler->program);
    sl_matches_free(&sampler->matches);
    sampler->program = program;
    sampler->configuration++;
}

/* Spans. */

/* A record's spans joined the trace: ask of them while they are at hand. */
static inline int sl_note_spans(sl_sampler *sampler, const sl_key *key, sl_gathering *gathering, sl_scan *scan,
                                uint32_t first) {
    if (!sl_program_asks_spans(&sampler->program)) return SL_OK;
    if (!gathering->is_open || gathering->inherited.is_set) return SL_OK; /* it will not be judged */
    if (gathering->piece_count == 1) gathering->asked = sampler->configuration;
    if (gathering->asked != sampler->configuration) return SL_OK; /* all its spans are asked when it is decided */
    sl_asker asker = {&sampler->program.predicates, &sampler->matches, key};
    for (uint32_t at = first; at != SL_NONE; at = scan->spans.items[at].next) {
        const sl_span *span = &scan->spans.items[at];
        if (sl_ask_span(&asker, span, &scan->resources.items[span->resource], &gathering->answers)) return SL_NO_MEMORY;
    }
    return SL_OK;
}

/* Ask all spans of the trace anew. */
static inline int sl_ask_again(sl_sampler *sampler, const sl_key *key, sl_gathering *gathering) {
    sl_asker asker = {&sampler->program.predicates, &sampler->matches, key};
    sl_scan *scan = &sampler->scan;
    sl_fault unused;
    gathering->answers = (sl_answers){0};
    for (uint32_t i = 0; i < gathering->piece_count; i++) {
        const sl_chunk *chunk = gathering->pieces[i].chunk;
        if (sl_scan_record(scan, (sl_slice){chunk->bytes, chunk->size}, &unused)) return SL_NO_MEMORY;
        for (size_t j = 0; j < scan->spans.count; j++) {
            const sl_span *span = &scan->spans.items[j];
            sl_resource *resource = &scan->resources.items[span->resource];
            if (sl_ask_span(&asker, span, resource, &gathering->answers)) return SL_NO_MEMORY;
        }
    }
    return SL_OK;
}

/* Judging. */

/* The trace that is judged. */
typedef struct {
    sl_program *program;
    const sl_key *key;
    const sl_decision *decision;
    const sl_answers *answers;
    double rate;
    uint64_t randomness;
    uint64_t votes;
} sl_judged;

/* What a node says, and the threshold under which it does; that counts only where it keeps. */
typedef struct {
    bool keep;
    uint64_t threshold;
} sl_answer;

/* The threshold that keeps *rate* of what *threshold* keeps. */
static inline uint64_t sl_bend(uint64_t threshold, double rate) {
    return SL_RANDOMNESS_END - (uint64_t)((double)(int64_t)(SL_RANDOMNESS_END - threshold) * rate);
}

/* FNV-1a-64 of the salt and the trace id. */
static inline uint64_t sl_salted_hash(uint64_t salted, sl_id trace_id) {
    uint8_t bytes[16];
    (void)sl_store_id(bytes, trace_id);
    for (int i = 0; i < 16; i++) salted = (salted ^ bytes[i]) * SL_FNV1A_64_PRIME;
    return salted;
}

static inline bool sl_take_tokens(sl_judged *judged, uint32_t number) {
    sl_state *state = judged->program->states.items[number];
    bool taken = sl_tokens_take(&state->of.bucket, judged->decision);
    judged->votes |= (uint64_t)taken << state->charge;
    return taken;
}

static inline int sl_ask_leaf(sl_judged *judged, const sl_node *node, sl_answer *answer) {
    const sl_decision *decision = judged->decision;
    sl_states *states = &judged->program->states;
    switch (node->op) {
    case SL_OP_ALWAYS:
        answer->keep = true;
        return SL_OK;
    case SL_OP_PREDICATE:
        answer->keep = sl_bits_has(&judged->answers->matched, node->predicate) != node->inverted;
        return SL_OK;
    case SL_OP_SPAN_COUNT:
        answer->keep = decision->span_count >= node->low && (!node->high || decision->span_count <= node->high);
        return SL_OK;
    case SL_OP_FNV:
        answer->keep = sl_salted_hash(node->salted, decision->trace_id) <= node->threshold;
        answer->threshold = SL_THRESHOLD_UNKNOWN;
        return SL_OK;
    case SL_OP_CONSISTENT:
        answer->threshold = sl_bend(node->threshold, judged->rate);
        answer->keep = judged->randomness >= answer->threshold;
        return SL_OK;
    case SL_OP_PERCENTILE:
        return sl_is_slow(&states->items[node->first_state]->of.percentiles, judged->key, decision, &answer->keep);
    case SL_OP_EMA:
        if (sl_shares_threshold(&states->items[node->first_state]->of.shares, judged->key, decision,
                                &answer->threshold)) {
            return SL_NO_MEMORY;
        }
        answer->keep = judged->randomness >= answer->threshold;
        return SL_OK;
    default:
        answer->keep = sl_take_tokens(judged, node->first_state);
        answer->threshold = SL_THRESHOLD_UNKNOWN;
        return SL_OK;
    }
}

static int sl_ask_node(sl_judged *judged, const sl_node *node, sl_answer *answer);

static inline const sl_node *sl_children(const sl_judged *judged, const sl_node *node) {
    return judged->program->nodes.items + node->first_child;
}

/* In order up to the first that does not keep. */
static inline int sl_ask_all(sl_judged *judged, const sl_node *node, sl_answer *answer) {
    const sl_node *children = sl_children(judged, node);
    uint64_t threshold = 0;
    for (uint32_t i = 0; i < node->child_count; i++) {
        sl_answer one;
        if (sl_ask_node(judged, &children[i], &one)) return SL_NO_MEMORY;
        if (!one.keep) return SL_OK;
        if (one.threshold > threshold) threshold = one.threshold;
    }
    *answer = (sl_answer){true, threshold};
    return SL_OK;
}

/* Where it does not drop: threshold 0 if it could not have, whatever chance had said. */
static inline int sl_ask_drop(sl_judged *judged, const sl_node *node, sl_answer *answer) {
    const sl_node *children = sl_children(judged, node);
    if (sl_ask_all(judged, node, answer)) return SL_NO_MEMORY;
    bool could = node->is_chance;
    for (uint32_t i = 0; !answer->keep && could && i < node->child_count; i++) {
        sl_answer one = {true, 0};
        if (!children[i].is_chance && sl_ask_node(judged, &children[i], &one)) return SL_NO_MEMORY;
        could = one.keep;
    }
    answer->threshold = !answer->keep && could ? SL_THRESHOLD_UNKNOWN : 0;
    return SL_OK;
}

/* The first that keeps decides, if its bucket suffices. */
static inline int sl_ask_composite(sl_judged *judged, const sl_node *node, sl_answer *answer) {
    const sl_node *children = sl_children(judged, node);
    for (uint32_t i = 0; i < node->child_count; i++) {
        sl_answer one;
        if (sl_ask_node(judged, &children[i], &one)) return SL_NO_MEMORY;
        if (!one.keep) continue;
        *answer = (sl_answer){sl_take_tokens(judged, node->first_state + i), SL_THRESHOLD_UNKNOWN};
        return SL_OK;
    }
    return SL_OK;
}

/* What a node says; trees are at most four nodes deep. */
static int sl_ask_node(sl_judged *judged, const sl_node *node, sl_answer *answer) {
    *answer = (sl_answer){false, 0};
    switch (node->op) {
    case SL_OP_NOT:
        if (sl_ask_node(judged, sl_children(judged, node), answer)) return SL_NO_MEMORY;
        *answer = (sl_answer){!answer->keep, node->is_chance ? SL_THRESHOLD_UNKNOWN : 0};
        return SL_OK;
    case SL_OP_AND: return sl_ask_all(judged, node, answer);
    case SL_OP_DROP: return sl_ask_drop(judged, node, answer);
    case SL_OP_COMPOSITE: return sl_ask_composite(judged, node, answer);
    default: return sl_ask_leaf(judged, node, answer);
    }
}

/* Ask every policy, those that drop first: sets verdict, votes, deciding policy and threshold. */
static inline int sl_ask_policies(sl_judged *judged, sl_decision *decision) {
    bool is_clear = true;
    for (size_t i = 0; i < judged->program->order.count; i++) {
        uint32_t index = judged->program->order.items[i];
        const sl_node *node = &judged->program->nodes.items[index];
        sl_answer answer;
        if (sl_ask_node(judged, node, &answer)) return SL_NO_MEMORY;
        if (answer.keep) judged->votes |= (uint64_t)1 << index;
        if (node->op == SL_OP_DROP) {
            if (answer.keep) {
                decision->policy = (uint8_t)index;
                return SL_OK;
            }
            is_clear = is_clear && !answer.threshold;
        } else if (answer.keep) {
            if (decision->verdict == SL_DROP) decision->policy = (uint8_t)index;
            decision->verdict = SL_KEEP;
            if (answer.threshold < decision->threshold) decision->threshold = answer.threshold;
        }
    }
    if (!is_clear) decision->threshold = SL_THRESHOLD_UNKNOWN;
    return SL_OK;
}

/* Judge an open trace that inherits nothing. */
static inline int sl_judge(sl_sampler *sampler, const sl_key *key, sl_gathering *gathering, sl_decision *decision) {
    bool asks = sl_program_asks_spans(&sampler->program) && gathering->asked != sampler->configuration;
    if (asks && sl_ask_again(sampler, key, gathering)) return SL_NO_MEMORY;
    const sl_answers *answers = &gathering->answers;
    sl_judged judged = {.program = &sampler->program, .key = key, .decision = decision, .answers = answers};
    judged.rate = sampler->rate;
    judged.randomness = answers->has_rv ? answers->rv : decision->trace_id.low & SL_RANDOMNESS_MASK;
    decision->verdict = SL_DROP;
    decision->policy = SL_NO_POLICY;
    decision->threshold = SL_THRESHOLD_UNKNOWN;
    decision->version = sampler->program.version;
    if (sl_ask_policies(&judged, decision)) return SL_NO_MEMORY;
    decision->votes = judged.votes;
    return SL_OK;
}

/* Count a decided trace. Once for each first fragment, in ledger order; one of ours has charged its buckets itself. */
static inline int sl_fold(sl_sampler *sampler, const sl_key *key, const sl_decision *decision, bool is_ours) {
    for (size_t i = 0; i < sampler->program.states.count; i++) {
        sl_state *state = sampler->program.states.items[i];
        switch (state->kind) {
        case SL_STATE_PERCENTILES:
            if (sl_percentiles_fold(&state->of.percentiles, key, decision)) return SL_NO_MEMORY;
            break;
        case SL_STATE_SHARES:
            if (sl_shares_fold(&state->of.shares, key, decision)) return SL_NO_MEMORY;
            break;
        case SL_STATE_BUCKET:
            if (!is_ours && decision->votes >> state->charge & 1) sl_tokens_charge(&state->of.bucket, decision);
            break;
        }
    }
    return SL_OK;
}

#endif
